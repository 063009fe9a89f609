//! A second look at guest RAM: a large reservation at whose start part of RAM is accessible, and nothing else.
//!
//! A WebAssembly memory needs its bytes followed by gigabytes that fault, so that compiled code need not compare
//! addresses. The pages are those of the map that exists (`mremap` of length zero duplicates a shared map), so no
//! descriptor has to stay open, and what is beyond the current size is mapped but not accessible.
#![allow(unsafe_code, reason = "maps guest RAM a second time, inside a reservation")]

use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};

use super::MapError;
use crate::ram::GuestRam;

/// Inaccessible bytes before the memory: a negative offset faults too.
const LEADING_GUARD: usize = 64 << 10;

/// Part of guest RAM inside a reservation. Unmapped on drop.
#[derive(Debug)]
pub struct RamAlias {
    start: NonNull<u8>,
    whole: usize,
    capacity: usize,
    exposed: usize,
    /// Keeps the pages' first map alive.
    _ram: GuestRam,
}

// SAFETY: an address range, not data; whoever dereferences it answers for races, which guest RAM has anyway.
unsafe impl Send for RamAlias {}
// SAFETY: as for `Send`.
unsafe impl Sync for RamAlias {}

impl RamAlias {
    /// Reserves `reserve` bytes, at whose start up to `capacity` bytes of RAM can be exposed; none are yet. Needs RAM
    /// that is a shared map (that of a segment).
    ///
    /// # Errors
    /// [`MapError`] when the host refuses, or `capacity` is beyond RAM below 4 GiB or beyond the reservation.
    pub fn reserve(ram: &GuestRam, capacity: usize, reserve: usize) -> Result<Self, MapError> {
        if capacity as u64 > ram.layout().low() || capacity > reserve {
            return Err(MapError::Length(capacity as u64));
        }
        let whole = reserve
            .checked_add(LEADING_GUARD)
            .ok_or(MapError::Length(reserve as u64))?;
        let failed = |len: usize| {
            move |source| MapError::Mmap {
                len,
                offset: 0,
                source,
            }
        };
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh map at an address of the kernel's choice overlaps nothing.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), flags) }
                .map_err(failed(whole))?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(MapError::Length(whole as u64))?;
        let this = Self {
            start,
            whole,
            capacity,
            exposed: 0,
            _ram: ram.clone(),
        };
        if capacity != 0 {
            // SAFETY: the old range is RAM's own map, of which length zero makes a duplicate and takes nothing away; the
            // new range lies inside the reservation made above, which nobody uses yet.
            unsafe {
                rustix::mm::mremap_fixed(
                    ram.host_base().cast(),
                    0,
                    capacity,
                    MremapFlags::MAYMOVE,
                    this.base().cast(),
                )
                .map_err(failed(capacity))?;
                rustix::mm::mprotect(this.base().cast(), capacity, MprotectFlags::empty())
                    .map_err(failed(capacity))?;
            }
        }
        Ok(this)
    }

    /// Address of the memory's first byte; never moves.
    pub fn base(&self) -> *mut u8 {
        // SAFETY: the reservation is longer than its leading guard.
        unsafe { self.start.as_ptr().add(LEADING_GUARD) }
    }

    /// Bytes that can be accessed.
    pub fn exposed(&self) -> usize {
        self.exposed
    }

    /// Bytes that can be exposed.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Exposes the first `len` bytes. Never hides any.
    ///
    /// # Errors
    /// [`MapError`] beyond the capacity, or when the host refuses; nothing changes then.
    pub fn expose(&mut self, len: usize) -> Result<(), MapError> {
        if len > self.capacity {
            return Err(MapError::Length(len as u64));
        }
        if len > self.exposed {
            let more = len - self.exposed;
            // SAFETY: the range lies inside the duplicate of RAM, which is ours.
            unsafe {
                rustix::mm::mprotect(
                    self.base().add(self.exposed).cast(),
                    more,
                    MprotectFlags::READ | MprotectFlags::WRITE,
                )
            }
            .map_err(|source| MapError::Mmap {
                len: more,
                offset: self.exposed as u64,
                source,
            })?;
            self.exposed = len;
        }
        Ok(())
    }
}

impl Drop for RamAlias {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the reservation this value owns, the duplicate inside included.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.whole) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::addr::GuestPhys;
    use crate::layout::SegmentSet;
    use crate::ram::{RamLayout, WASM_PAGE};

    const PAGE: usize = WASM_PAGE as usize;

    #[test]
    fn s2_1_the_alias_is_guest_ram_and_growth_does_not_move_it() {
        let set = SegmentSet::create(RamLayout::new(4 * WASM_PAGE), 1).expect("files");
        let ram = set.guest_ram().expect("ram");
        let mut alias = RamAlias::reserve(&ram, 3 * PAGE, 1 << 32).expect("alias");
        let base = alias.base();
        for pages in 1..=3 {
            alias.expose(pages * PAGE).expect("exposed");
            let at = pages * PAGE - 4;
            // SAFETY: the word is exposed.
            unsafe { base.add(at).cast::<u32>().write_volatile(pages as u32) };
            assert_eq!(
                ram.read_array(GuestPhys(at as u64)),
                Ok((pages as u32).to_le_bytes())
            );
        }
        assert_eq!(alias.base(), base);
        assert!(alias.expose(3 * PAGE + 1).is_err());
        drop(alias);
        assert_eq!(ram.read_array(GuestPhys(PAGE as u64 - 4)), Ok(1u32.to_le_bytes()));
    }

    #[test]
    fn ram_is_zeroed_for_every_process() {
        let set = SegmentSet::create(RamLayout::new(4 * WASM_PAGE), 1).expect("files");
        let (ram, peer) = (set.guest_ram().expect("ram"), set.guest_ram().expect("ram"));
        ram.write(GuestPhys(WASM_PAGE), &[1, 2, 3]).expect("ram");
        ram.zero().expect("zeroed");
        assert_eq!(peer.read_array(GuestPhys(WASM_PAGE)), Ok([0; 3]));
    }

    #[test]
    fn more_than_ram_is_refused() {
        let set = SegmentSet::create(RamLayout::new(WASM_PAGE), 1).expect("files");
        let ram = set.guest_ram().expect("ram");
        assert!(RamAlias::reserve(&ram, PAGE + 1, 1 << 32).is_err());
        assert!(RamAlias::reserve(&ram, 0, 1 << 32).is_ok());
    }
}
