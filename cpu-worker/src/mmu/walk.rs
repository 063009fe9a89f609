//! Page walks (SDM vol. 3, chapter 4): 32-bit, PAE and 4-level paging.

use quintet_protocol::addr::GuestPhys;

use super::{Access, PageKind};
use crate::exec::{Exit, Vcpu};
use crate::state::{Cr0, Cr4, Efer};

/// Bits of a page fault's error code (SDM vol. 3, 4.7).
pub mod pf {
    /// The page was present: a protection violation.
    pub const PRESENT: u32 = 1;
    /// The access was a write.
    pub const WRITE: u32 = 2;
    /// The access was a user-mode access.
    pub const USER: u32 = 4;
    /// A reserved bit was set in an entry.
    pub const RESERVED: u32 = 8;
    /// The access was an instruction fetch.
    pub const FETCH: u32 = 16;
}

/// The entry is in use.
pub(super) const P: u64 = 1;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
/// It has been used for a translation.
pub(super) const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const G: u64 = 1 << 8;
const NX: u64 = 1 << 63;
/// Bits of a 64-bit entry that hold an address, MAXPHYADDR being 40.
const ADDRESS: u64 = 0x00FF_FFFF_F000;
/// Bits 40–51, which are reserved with that MAXPHYADDR.
const BEYOND: u64 = 0x000F_FF00_0000_0000;
/// Physical-address width reported by CPUID and enforced here, in bits.
pub const MAXPHYADDR: u32 = 40;

/// What a walk found.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    /// Physical address of the first byte.
    pub phys: u64,
    /// Whether a write needs no further check: allowed, and the dirty bit is set.
    pub write_ok: bool,
    /// Whether reads are allowed to user mode.
    pub user: bool,
    /// Whether the page survives a change of CR3.
    pub global: bool,
    /// log2 of the size of the page that it is part of: 12, 21, 22 or 30.
    pub shift: u32,
}

/// The way from an address through the tables to its page: a walk's place in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// 64-bit entries: PAE and 4-level paging.
    pub wide: bool,
    /// log2 of what an entry of this level covers.
    pub shift: u32,
    /// Physical address of the table.
    pub table: u64,
}

impl Way {
    /// Physical address of the entry for `linear`.
    #[inline]
    pub fn entry(self, linear: u64) -> u64 {
        if self.wide {
            self.table + (linear >> self.shift & 0x1FF) * 8
        } else {
            self.table + (linear >> self.shift & 0x3FF) * 4
        }
    }

    /// Goes down to the table that `entry` names.
    #[inline]
    pub fn descend(&mut self, entry: u64) {
        (self.table, self.shift) = if self.wide {
            (entry & ADDRESS, self.shift - 9)
        } else {
            (entry & 0xFFFF_F000, self.shift - 10)
        };
    }

    /// Physical address of `linear` in the page that `entry` maps.
    #[inline]
    pub fn phys(self, entry: u64, linear: u64) -> u64 {
        let mask = (1u64 << self.shift) - 1;
        let frame = if self.wide {
            entry & ADDRESS & !mask
        } else if self.shift == 22 {
            // PSE-36: bits 13–20 hold address bits 32–39.
            entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32
        } else {
            entry & 0xFFFF_F000
        };
        frame | linear & mask
    }
}

/// A level's entry, and where it lies, for the update of A and D.
struct Entry {
    at: u64,
    value: u64,
    wide: bool,
}

impl Vcpu {
    /// Walks the page tables for `linear` and checks `access` by user or supervisor, setting accessed and dirty
    /// bits as the processor does. Raises #PF.
    pub(super) fn walk(
        &mut self,
        linear: u64,
        access: Access,
        user: bool,
        ac: bool,
    ) -> Result<Translation, Exit> {
        if !self.state.cr0.contains(Cr0::PG) {
            let phys = (linear & 0xFFFF_FFFF) & self.state.a20_mask;
            return Ok(Translation {
                phys,
                write_ok: true,
                user: true,
                global: false,
                shift: 12,
            });
        }
        loop {
            if let Some(done) = self.walk_once(linear, access, user, ac)? {
                return Ok(done);
            }
        }
    }

    fn fault_code(&self, access: Access, user: bool, code: u32) -> u32 {
        let fetch = self.state.efer.contains(Efer::NXE) && self.state.cr4.contains(Cr4::PAE)
            || self.state.cr4.contains(Cr4::SMEP);
        code | if access == Access::Write { pf::WRITE } else { 0 }
            | if user { pf::USER } else { 0 }
            | if access == Access::Fetch && fetch {
                pf::FETCH
            } else {
                0
            }
    }

    /// Where a walk for `linear` begins; `None` where its PDPTE is not present.
    #[inline]
    pub(super) fn way(&self, linear: u64) -> Option<Way> {
        let s = &self.state;
        let wide = s.cr4.contains(Cr4::PAE);
        let (shift, table) = if s.long_mode() {
            (39, s.cr3 & ADDRESS)
        } else if wide {
            let pdpte = s.pdptes[(linear >> 30 & 3) as usize];
            if pdpte & P == 0 {
                return None;
            }
            (21, pdpte & ADDRESS)
        } else {
            (22, s.cr3 & 0xFFFF_F000)
        };
        Some(Way { wide, shift, table })
    }

    /// Whether a present `entry` that covers `1 << shift` bytes maps a page of that size, other than the smallest.
    #[inline]
    pub(super) fn is_large(&self, shift: u32, entry: u64) -> bool {
        entry & PS != 0
            && match shift {
                22 => self.state.cr4.contains(Cr4::PSE),
                21 => true,
                30 => self.huge_pages,
                _ => false,
            }
    }

    /// One attempt; `None` when somebody changed an entry under it.
    fn walk_once(
        &mut self,
        linear: u64,
        access: Access,
        user: bool,
        ac: bool,
    ) -> Result<Option<Translation>, Exit> {
        let s = &self.state;
        let (pae, long, nxe) = (
            s.cr4.contains(Cr4::PAE),
            s.long_mode(),
            s.efer.contains(Efer::NXE),
        );
        let reserved_64 = BEYOND | if nxe { 0 } else { NX };
        let mut path: [Option<Entry>; 4] = [const { None }; 4];
        let mut depth = 0;
        let (mut writable, mut user_page, mut no_exec) = (true, true, false);
        let Some(mut way) = self.way(linear) else {
            let code = self.fault_code(access, user, 0);
            return self.page_fault(linear, code);
        };
        let known = if pae { self.tlb.upper(linear) } else { None };
        if let Some(upper) = known {
            (way.shift, way.table) = (12, upper.table);
            (writable, user_page, no_exec) = (upper.writable, upper.user, upper.no_exec);
        }
        let mut upper = super::tlb::Upper {
            region: linear >> 21,
            table: way.table,
            writable,
            user: user_page,
            no_exec,
        };
        let leaf = loop {
            let entry = self.read_entry(way.entry(linear), pae);
            let shift = way.shift;
            let v = entry.value;
            if v & P == 0 {
                let code = self.fault_code(access, user, 0);
                return self.page_fault(linear, code);
            }
            let large = self.is_large(shift, v);
            let reserved = if !pae {
                // PSE-36 leaves bit 21 reserved.
                if large { v & (1 << 21) } else { 0 }
            } else {
                let mut r = v & reserved_64;
                if large {
                    // Between the PAT bit and the page's address everything must be zero.
                    r |= v & ((1 << shift) - 1) & !0x1FFF;
                } else if shift == 39 || shift == 30 {
                    r |= v & PS;
                }
                if !long {
                    // With PAE paging bits 52–62 are reserved too.
                    r |= v & 0x7FF0_0000_0000_0000;
                }
                r
            };
            if reserved != 0 {
                let code = self.fault_code(access, user, pf::PRESENT | pf::RESERVED);
                return self.page_fault(linear, code);
            }
            writable &= v & RW != 0;
            user_page &= v & US != 0;
            no_exec |= pae && nxe && v & NX != 0;
            path[depth] = Some(entry);
            depth += 1;
            if shift == 12 || large {
                break v;
            }
            upper = super::tlb::Upper {
                writable,
                user: user_page,
                no_exec,
                ..upper
            };
            way.descend(v);
        };

        let s = &self.state;
        let wp = s.cr0.contains(Cr0::WP);
        let denied = match access {
            Access::Read if user => !user_page,
            Access::Write if user => !user_page || !writable,
            Access::Fetch if user => !user_page || no_exec,
            Access::Fetch => no_exec || user_page && s.cr4.contains(Cr4::SMEP),
            Access::Read => user_page && s.cr4.contains(Cr4::SMAP) && !ac,
            Access::Write => user_page && s.cr4.contains(Cr4::SMAP) && !ac || !writable && wp,
        };
        if denied {
            let code = self.fault_code(access, user, pf::PRESENT);
            return self.page_fault(linear, code);
        }

        let dirty = leaf & D != 0;
        for (n, entry) in path[..depth].iter().flatten().enumerate() {
            let mut new = entry.value | A;
            if n + 1 == depth && access == Access::Write {
                new |= D;
            }
            if new != entry.value && entry.at != u64::MAX && !self.set_entry(entry, new) {
                return Ok(None);
            }
        }
        if pae && way.shift == 12 && known.is_none() {
            let table = way.table;
            self.tlb.fill_upper(super::tlb::Upper { table, ..upper });
        }
        Ok(Some(Translation {
            phys: way.phys(leaf, linear) & self.state.a20_mask,
            write_ok: (dirty || access == Access::Write) && writable_for(user, writable, wp),
            user: user_page,
            global: leaf & G != 0 && self.state.cr4.contains(Cr4::PGE),
            shift: way.shift,
        }))
    }

    /// Reads a page-table entry. Outside RAM it reads as all ones, as an unclaimed bus does.
    fn read_entry(&mut self, phys: u64, wide: bool) -> Entry {
        let phys = phys & self.state.a20_mask;
        match self.page_kind(phys / 4096) {
            kind @ (PageKind::Ram(page) | PageKind::Rom(page)) => {
                let at = page * 4096 + phys % 4096;
                let value = if wide {
                    self.mem.read::<u64>(at)
                } else {
                    u64::from(self.mem.read::<u32>(at))
                };
                // Tables in ROM are read, but their A and D bits cannot be set.
                let at = if kind == PageKind::Ram(page) { at } else { u64::MAX };
                Entry { at, value, wide }
            }
            _ => Entry {
                at: u64::MAX,
                value: self.bus.mmio_read(GuestPhys(phys), if wide { 8 } else { 4 }),
                wide,
            },
        }
    }

    /// Writes A and D back unless the entry changed meanwhile; page tables may themselves be decoded code.
    fn set_entry(&mut self, entry: &Entry, new: u64) -> bool {
        if !self.mem.update_entry(entry.at, entry.value, new, entry.wide) {
            return false;
        }
        let page = entry.at / 4096;
        if self.blocks.has_code(page) {
            self.code_written(page, (entry.at % 4096) as usize, if entry.wide { 8 } else { 4 });
        }
        true
    }
}

fn writable_for(user: bool, writable: bool, wp: bool) -> bool {
    writable || !user && !wp
}
