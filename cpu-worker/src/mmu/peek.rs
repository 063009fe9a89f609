//! Memory as a debugger sees it: through the guest's page tables or by physical address, without a trace.
//!
//! No accessed or dirty bit is set, nothing faults, no entry of the TLB is used or made, and devices are left alone: reading
//! a register may change it. Rights do not count; what is mapped can be read and written, read-only pages and the shadowed ROM
//! included.

use quintet_protocol::addr::GuestPhys;

use super::PageKind;
use super::walk::{A, P};
use crate::exec::Vcpu;
use crate::state::Cr0;

impl Vcpu {
    /// The physical address that `linear` is mapped to now; `None` where nothing is.
    pub fn peek_translate(&self, linear: u64) -> Option<u64> {
        self.peek_walk(linear).map(|(phys, _)| phys)
    }

    /// Whether the accessed bit of everything on the way to `linear` is set, so that a walk there changes nothing.
    pub(super) fn is_accessed(&self, linear: u64) -> bool {
        self.peek_walk(linear).is_some_and(|(_, accessed)| accessed)
    }

    /// The physical address that `linear` is mapped to, and whether all entries that map it have been accessed.
    fn peek_walk(&self, linear: u64) -> Option<(u64, bool)> {
        let s = &self.state;
        let linear = self.wrap_linear(linear);
        if !s.cr0.contains(Cr0::PG) {
            return Some((linear & 0xFFFF_FFFF & s.a20_mask, true));
        }
        if s.long_mode() && !super::canonical(linear) {
            return None;
        }
        let mut way = self.way(linear)?;
        let mut accessed = true;
        loop {
            let entry = self.peek_entry(way.entry(linear), if way.wide { 8 } else { 4 })?;
            if entry & P == 0 {
                return None;
            }
            accessed &= entry & A != 0;
            if way.shift == 12 || self.is_large(way.shift, entry) {
                return Some((way.phys(entry, linear) & s.a20_mask, accessed));
            }
            way.descend(entry);
        }
    }

    fn peek_entry(&self, phys: u64, len: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let phys = phys & self.state.a20_mask;
        (self.peek_phys(phys, &mut bytes[..len]) == len).then(|| u64::from_le_bytes(bytes))
    }

    /// Reads physical memory up to the first byte that has none; how many bytes.
    pub fn peek_phys(&self, phys: u64, into: &mut [u8]) -> usize {
        for (n, byte) in into.iter_mut().enumerate() {
            let Some(at) = phys.checked_add(n as u64) else {
                return n;
            };
            let found = match self.page_kind(at / 4096) {
                PageKind::Ram(page) | PageKind::Rom(page) => {
                    Some(self.mem.read::<u8>(page * 4096 + at % 4096))
                }
                PageKind::WriteOnly(_) | PageKind::Vram(_) | PageKind::Device => self.bus.peek(GuestPhys(at)),
            };
            match found {
                Some(v) => *byte = v,
                None => return n,
            }
        }
        into.len()
    }

    /// Reads by linear address up to the first byte that cannot be read; how many bytes.
    pub fn peek_linear(&self, linear: u64, into: &mut [u8]) -> usize {
        let mut done = 0;
        while done < into.len() {
            let at = linear.wrapping_add(done as u64);
            let n = (into.len() - done).min(4096 - (at % 4096) as usize);
            let Some(phys) = self.peek_translate(at) else {
                break;
            };
            let got = self.peek_phys(phys, &mut into[done..done + n]);
            done += got;
            if got < n {
                break;
            }
        }
        done
    }

    /// Writes physical memory, or nothing of it if not all is RAM; answers whether it did. What was decoded from there
    /// is dropped. Not while a block executes.
    pub fn poke_phys(&mut self, phys: u64, bytes: &[u8]) -> bool {
        let places: Option<Vec<u64>> = (0..bytes.len() as u64)
            .map(|n| self.ram_place(phys.checked_add(n)?))
            .collect();
        places.is_some_and(|places| {
            self.poke_places(&places, bytes);
            true
        })
    }

    /// As [`Self::poke_phys`], by linear address.
    pub fn poke_linear(&mut self, linear: u64, bytes: &[u8]) -> bool {
        let places: Option<Vec<u64>> = (0..bytes.len() as u64)
            .map(|n| self.ram_place(self.peek_translate(linear.wrapping_add(n))?))
            .collect();
        places.is_some_and(|places| {
            self.poke_places(&places, bytes);
            true
        })
    }

    /// Offset in RAM of a physical address.
    fn ram_place(&self, phys: u64) -> Option<u64> {
        match self.page_kind(phys / 4096) {
            PageKind::Ram(page) | PageKind::Rom(page) | PageKind::WriteOnly(page) => {
                Some(page * 4096 + phys % 4096)
            }
            PageKind::Vram(_) | PageKind::Device => None,
        }
    }

    fn poke_places(&mut self, places: &[u64], bytes: &[u8]) {
        for (&at, &byte) in places.iter().zip(bytes) {
            self.mem.write(at, byte);
            if self.blocks.has_code(at / 4096) {
                self.code_written(at / 4096, (at % 4096) as usize, 1);
            }
        }
        // They may have been page tables.
        self.tlb.flush_all();
    }
}
