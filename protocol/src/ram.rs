//! Guest RAM: how much there is, where it lies, and access to it that knows the hole below 4 GiB.
//!
//! RAM is contiguous in its segment from file offset [`GUEST_BASE`]. In the guest's physical address space
//! it lies at [0, 0xE000_0000) and, what does not fit there, from 4 GiB on (S3.1–S3.6 with the split of our
//! own at [`PCI_MMIO_BASE`]).
#![allow(
    unsafe_code,
    reason = "copies between guest RAM and host buffers by raw pointer"
)]

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;

use crate::addr::{GuestPhys, RamOffset};
use crate::shm::{Map, MapError};
use crate::sync::Ordering;

/// Page of a WebAssembly memory and unit of RAM sizes, in bytes (S3.1).
pub const WASM_PAGE: u64 = 64 << 10;
/// Start of the segment that is not guest RAM, in bytes (S3.2).
pub const RUNTIME_RESERVED: u64 = 0x0800_0000;
/// File offset of guest physical address zero (S3.2).
pub const GUEST_BASE: u64 = RUNTIME_RESERVED.next_multiple_of(WASM_PAGE);
/// First guest physical address of the PCI MMIO aperture, and the end of low RAM (S3.3).
pub const PCI_MMIO_BASE: u64 = 0xE000_0000;
/// First guest physical address of high RAM.
pub const HIGH_RAM_BASE: u64 = 1 << 32;
/// File offset at which every worker's map of the segment starts: the page of the probe window, so that the
/// probe goes through the very map that is used. A multiple of every host page size up to 64 KiB.
pub const MAP_START: u64 = GUEST_BASE - WASM_PAGE;

/// Most ranges of [`GuestRam::fill_from_cache`]: Linux's own limit of a vector (`UIO_MAXIOV`).
pub const RANGES_MAX: usize = 1024;

const _: () = assert!(GUEST_BASE == RUNTIME_RESERVED);

/// Why an access to guest RAM was refused. Nothing has been read or written then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RamError {
    /// Some byte of the range is not RAM.
    #[error("{len} bytes at {addr} are not all guest RAM")]
    NotRam {
        /// First address of the range.
        addr: GuestPhys,
        /// Length in bytes.
        len: u64,
    },
    /// A word that is read or written in one access lies across a multiple of its size.
    #[error("A word at {addr} is not aligned")]
    Misaligned {
        /// Its address.
        addr: GuestPhys,
    },
}

/// How much RAM a guest has and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RamLayout {
    low: u64,
    high: u64,
}

impl RamLayout {
    /// The layout for `desired` bytes, rounded up to whole [`WASM_PAGE`]s; what passes 3584 MiB goes above
    /// 4 GiB (S3.3, S3.4). Sizes within 64 KiB of 2^64 are cut to the last whole page.
    pub fn new(desired: u64) -> Self {
        let pages = desired.div_ceil(WASM_PAGE).min(u64::MAX / WASM_PAGE);
        let low_pages = pages.min(PCI_MMIO_BASE / WASM_PAGE);
        Self {
            low: low_pages * WASM_PAGE,
            high: (pages - low_pages) * WASM_PAGE,
        }
    }

    /// Bytes below 4 GiB: `guest_size` of S3.3, at most 3584 MiB.
    pub fn low(self) -> u64 {
        self.low
    }

    /// Bytes from 4 GiB on.
    pub fn high(self) -> u64 {
        self.high
    }

    /// All of it, in bytes.
    pub fn total(self) -> u64 {
        self.low + self.high
    }

    /// Length of the segment's file, in bytes.
    pub fn file_len(self) -> u64 {
        GUEST_BASE + self.total()
    }

    /// Where `[addr, addr + len)` lies in RAM (S3.5, S3.6). An empty range is allowed at the end address; a
    /// range that touches the hole or passes the end is refused whole.
    ///
    /// # Errors
    /// [`RamError::NotRam`].
    #[inline]
    pub fn translate(self, addr: GuestPhys, len: u64) -> Result<RamOffset, RamError> {
        if addr.0 <= self.low && len <= self.low - addr.0 {
            return Ok(RamOffset(addr.0));
        }
        if addr.0 >= HIGH_RAM_BASE {
            let offset = addr.0 - HIGH_RAM_BASE;
            if offset <= self.high && len <= self.high - offset {
                return Ok(RamOffset(self.low + offset));
            }
        }
        Err(RamError::NotRam { addr, len })
    }

    /// The guest physical address of an offset into RAM; `None` past the end.
    pub fn phys_of(self, offset: RamOffset) -> Option<GuestPhys> {
        if offset.0 < self.low {
            Some(GuestPhys(offset.0))
        } else {
            (offset.0 < self.total()).then(|| GuestPhys(HIGH_RAM_BASE + offset.0 - self.low))
        }
    }
}

/// A process's map of guest RAM. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct GuestRam {
    map: Arc<Map>,
    /// Offset of guest physical zero in the map.
    base: usize,
    layout: RamLayout,
}

impl GuestRam {
    /// Maps guest RAM of `layout` from the segment `fd`, probe window included.
    ///
    /// # Errors
    /// [`MapError`] from the host.
    pub fn map(fd: BorrowedFd<'_>, layout: RamLayout) -> Result<Self, MapError> {
        let map = Map::read_write(fd, MAP_START, GUEST_BASE - MAP_START + layout.total())?;
        Ok(Self::of_map(Arc::new(map), layout))
    }

    /// Guest RAM of `layout` in a map that starts at [`MAP_START`] of its segment. Panics when the map is shorter
    /// than the layout or read-only.
    pub fn of_map(map: Arc<Map>, layout: RamLayout) -> Self {
        let base = (GUEST_BASE - MAP_START) as usize;
        assert!(
            map.is_writable() && map.len() as u64 - base as u64 >= layout.total(),
            "a map of guest RAM"
        );
        Self { map, base, layout }
    }

    /// Private RAM for tests and for tools that run a vCPU by itself.
    ///
    /// # Errors
    /// [`MapError`] from the host.
    pub fn anonymous(layout: RamLayout) -> Result<Self, MapError> {
        let map = Map::anonymous(GUEST_BASE - MAP_START + layout.total())?;
        Ok(Self::of_map(Arc::new(map), layout))
    }

    /// Size and place of the RAM.
    pub fn layout(&self) -> RamLayout {
        self.layout
    }

    /// The map, whose first byte is file offset [`MAP_START`]; for the wiring probe.
    pub fn mapping(&self) -> &Arc<Map> {
        &self.map
    }

    /// Host address of RAM offset zero. Valid for [`RamLayout::total`] bytes while this value lives; to be
    /// accessed with volatile or atomic operations only.
    pub fn host_base(&self) -> *mut u8 {
        // SAFETY: `base` lies inside the map by construction.
        unsafe { self.map.as_ptr().add(self.base) }
    }

    fn host(&self, addr: GuestPhys, len: usize) -> Result<*mut u8, RamError> {
        let offset = self.layout.translate(addr, len as u64)?;
        // SAFETY: `translate` answers offsets whose range lies inside RAM, all of which is mapped.
        Ok(unsafe { self.host_base().add(offset.0 as usize) })
    }

    /// Copies RAM at `addr` out.
    ///
    /// # Errors
    /// [`RamError::NotRam`] when any byte is not RAM; `into` is unchanged then.
    pub fn read(&self, addr: GuestPhys, into: &mut [u8]) -> Result<(), RamError> {
        let from = self.host(addr, into.len())?;
        // SAFETY: the range is mapped RAM; the destination is ours alone.
        unsafe { crate::shm::volatile_copy(from, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies `len` bytes of RAM at `addr` to the end of `into`: as [`Self::read`], without filling the room with zeros before.
    ///
    /// # Errors
    /// [`RamError::NotRam`] when any byte is not RAM; `into` is unchanged then.
    pub fn append(&self, addr: GuestPhys, len: usize, into: &mut Vec<u8>) -> Result<(), RamError> {
        let from = self.host(addr, len)?;
        into.reserve(len);
        let room = &mut into.spare_capacity_mut()[..len];
        // SAFETY: the range is mapped RAM; the destination is `len` bytes of room that is ours alone.
        unsafe { crate::shm::volatile_copy(from, room.as_mut_ptr().cast(), len) };
        let whole = into.len() + len;
        // SAFETY: the bytes up to there have just been written.
        unsafe { into.set_len(whole) };
        Ok(())
    }

    /// Fills `ranges`, addresses and their bytes, in their order with what `file` holds from byte `offset` on, if the host has that in
    /// memory: no disk is waited for. `false` when it has not, when the file ends before, when there are more ranges than
    /// [`RANGES_MAX`], and for every error of the host; some of the RAM may have been written then.
    ///
    /// # Errors
    /// [`RamError::NotRam`] when any byte is not RAM; RAM is unchanged then.
    pub fn fill_from_cache(
        &self,
        ranges: &[(GuestPhys, usize)],
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<bool, RamError> {
        let mut pieces = Vec::with_capacity(ranges.len());
        let mut total = 0_usize;
        for &(addr, len) in ranges {
            let to = self.host(addr, len)?;
            total = total.saturating_add(len);
            pieces.push(libc::iovec {
                iov_base: to.cast(),
                iov_len: len,
            });
        }
        let Ok(offset) = libc::off_t::try_from(offset) else {
            return Ok(false);
        };
        if pieces.len() > RANGES_MAX {
            return Ok(false);
        }
        // SAFETY: every piece is mapped, writable RAM, of which nobody holds references; the kernel writes nowhere else.
        let read = unsafe {
            libc::preadv2(
                file.as_raw_fd(),
                pieces.as_ptr(),
                pieces.len() as libc::c_int,
                offset,
                libc::RWF_NOWAIT,
            )
        };
        Ok(usize::try_from(read) == Ok(total))
    }

    /// Copies `from` into RAM at `addr`.
    ///
    /// # Errors
    /// [`RamError::NotRam`] when any byte is not RAM; RAM is unchanged then.
    pub fn write(&self, addr: GuestPhys, from: &[u8]) -> Result<(), RamError> {
        let to = self.host(addr, from.len())?;
        // SAFETY: the range is mapped, writable RAM; the source is a live reference.
        unsafe { crate::shm::volatile_copy(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    /// Makes all of RAM zero, for every process that has it mapped, and gives its pages back to the host.
    ///
    /// # Errors
    /// The host's, when the RAM is not a shared map of a segment.
    pub fn zero(&self) -> rustix::io::Result<()> {
        let len = self.layout.total() as usize;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range is mapped RAM, of which nobody holds references; punching a hole is a write of zeros.
        unsafe { rustix::mm::madvise(self.host_base().cast(), len, rustix::mm::Advice::LinuxRemove) }
    }

    fn word16(&self, addr: GuestPhys) -> Result<*mut u8, RamError> {
        let at = self.host(addr, 2)?;
        match at.addr().is_multiple_of(2) {
            true => Ok(at),
            false => Err(RamError::Misaligned { addr }),
        }
    }

    /// Reads a little-endian word of 16 bits in one access: an index of a ring that the guest moves.
    ///
    /// # Errors
    /// [`RamError`].
    pub fn load_u16(&self, addr: GuestPhys, order: Ordering) -> Result<u16, RamError> {
        // SAFETY: in bounds, aligned, and mapped for as long as `self` lives.
        self.word16(addr)
            .map(|word| u16::from_le(unsafe { crate::shm::load_u16(word, order) }))
    }

    /// Writes a little-endian word of 16 bits in one access.
    ///
    /// # Errors
    /// [`RamError`].
    pub fn store_u16(&self, addr: GuestPhys, value: u16, order: Ordering) -> Result<(), RamError> {
        // SAFETY: as in `load_u16`; guest RAM is always mapped for writing.
        self.word16(addr)
            .map(|word| unsafe { crate::shm::store_u16(word, value.to_le(), order) })
    }

    /// Reads a little-endian number of `N` bytes.
    ///
    /// # Errors
    /// [`RamError::NotRam`].
    pub fn read_array<const N: usize>(&self, addr: GuestPhys) -> Result<[u8; N], RamError> {
        let mut bytes = [0; N];
        self.read(addr, &mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn s3_1_s3_2_pages_are_64_kib_and_guest_base_is_128_mib() {
        assert_eq!(WASM_PAGE, 65_536);
        assert_eq!(GUEST_BASE, 0x0800_0000);
        assert_eq!(MAP_START % WASM_PAGE, 0);
    }

    #[test]
    fn s3_3_s3_4_sizes_are_rounded_in_pages_and_split_at_the_aperture() {
        assert_eq!(RamLayout::new(0).total(), 0);
        assert_eq!(RamLayout::new(1).total(), WASM_PAGE);
        let most = RamLayout::new(PCI_MMIO_BASE);
        assert_eq!((most.low(), most.high()), (3584 << 20, 0));
        let five = RamLayout::new(5 << 30);
        assert_eq!((five.low(), five.high()), (3584 << 20, (5 << 30) - (3584 << 20)));
        assert_eq!(RamLayout::new(PCI_MMIO_BASE + 1).high(), WASM_PAGE);
        assert_eq!(RamLayout::new(u64::MAX).total() % WASM_PAGE, 0);
    }

    #[test]
    fn s3_5_s3_6_ranges_are_translated_whole_or_refused() {
        let l = RamLayout::new(5 << 30);
        assert_eq!(l.translate(GuestPhys(0), 4), Ok(RamOffset(0)));
        assert_eq!(
            l.translate(GuestPhys(PCI_MMIO_BASE - 4), 4),
            Ok(RamOffset(PCI_MMIO_BASE - 4))
        );
        assert!(l.translate(GuestPhys(PCI_MMIO_BASE - 4), 5).is_err());
        assert!(l.translate(GuestPhys(PCI_MMIO_BASE), 1).is_err());
        assert_eq!(
            l.translate(GuestPhys(PCI_MMIO_BASE), 0),
            Ok(RamOffset(PCI_MMIO_BASE))
        );
        assert_eq!(
            l.translate(GuestPhys(HIGH_RAM_BASE), 8),
            Ok(RamOffset(PCI_MMIO_BASE))
        );
        let end = HIGH_RAM_BASE + l.high();
        assert!(l.translate(GuestPhys(end - 1), 2).is_err());
        assert!(l.translate(GuestPhys(u64::MAX), 2).is_err());
        assert!(l.translate(GuestPhys(16), u64::MAX).is_err());
        for offset in [0, PCI_MMIO_BASE - 1, PCI_MMIO_BASE, l.total() - 1] {
            let p = l.phys_of(RamOffset(offset)).expect("inside RAM");
            assert_eq!(l.translate(p, 1), Ok(RamOffset(offset)));
        }
        assert_eq!(l.phys_of(RamOffset(l.total())), None);
    }

    #[test]
    fn words_of_sixteen_bits_are_little_endian_and_whole() {
        let ram = GuestRam::anonymous(RamLayout::new(WASM_PAGE)).expect("ram");
        ram.store_u16(GuestPhys(6), 0x1234, Ordering::Release)
            .expect("ram");
        assert_eq!(ram.read_array(GuestPhys(6)), Ok([0x34, 0x12]));
        assert_eq!(ram.load_u16(GuestPhys(6), Ordering::Acquire), Ok(0x1234));
        let addr = GuestPhys(7);
        assert_eq!(
            ram.load_u16(addr, Ordering::Acquire),
            Err(RamError::Misaligned { addr })
        );
        assert!(
            ram.store_u16(GuestPhys(WASM_PAGE - 1), 0, Ordering::Release)
                .is_err()
        );
        assert!(ram.load_u16(GuestPhys(WASM_PAGE), Ordering::Acquire).is_err());
    }

    #[test]
    fn what_is_appended_and_what_a_file_fills_is_whole_or_refused() {
        let ram = GuestRam::anonymous(RamLayout::new(WASM_PAGE)).expect("ram");
        let file = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        rustix::io::write(&file, &[1, 2, 3, 4, 5, 6, 7, 8]).expect("written");
        let ranges = [(GuestPhys(16), 3), (GuestPhys(32), 0), (GuestPhys(8), 4)];
        // Whether the host can without waiting is its business; what it gives is right.
        if ram.fill_from_cache(&ranges, file.as_fd(), 1) == Ok(true) {
            assert_eq!(ram.read_array(GuestPhys(16)), Ok([2, 3, 4, 0]));
            assert_eq!(ram.read_array(GuestPhys(8)), Ok([5, 6, 7, 8, 0]));
        }
        for (ranges, offset) in [
            (&ranges[..], 2),
            (&ranges[..], u64::MAX),
            (&[(GuestPhys(0), 0); RANGES_MAX + 1][..], 0),
        ] {
            assert_eq!(
                ram.fill_from_cache(ranges, file.as_fd(), offset),
                Ok(false),
                "{offset}"
            );
        }
        let beyond = [(GuestPhys(0), 1), (GuestPhys(WASM_PAGE - 1), 2)];
        assert!(ram.fill_from_cache(&beyond, file.as_fd(), 0).is_err());
        assert_eq!(ram.read_array(GuestPhys(0)), Ok([0]), "nothing at all");
        ram.write(GuestPhys(0), &[9, 8, 7]).expect("ram");
        let mut bytes = vec![1];
        assert_eq!(ram.append(GuestPhys(0), 3, &mut bytes), Ok(()));
        assert!(ram.append(GuestPhys(WASM_PAGE), 1, &mut bytes).is_err());
        assert_eq!(bytes, [1, 9, 8, 7]);
    }

    #[test]
    fn a_refused_write_changes_nothing() {
        let ram = GuestRam::anonymous(RamLayout::new(WASM_PAGE)).expect("ram");
        assert!(ram.write(GuestPhys(WASM_PAGE - 2), &[1, 2, 3]).is_err());
        assert_eq!(ram.read_array::<2>(GuestPhys(WASM_PAGE - 2)), Ok([0, 0]));
    }
}
