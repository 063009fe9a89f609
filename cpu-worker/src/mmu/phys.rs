//! Guest physical memory as a vCPU sees it: RAM by host pointer, everything else through the bus.
#![allow(unsafe_code, reason = "guest RAM is shared memory reached by raw pointer")]

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::GuestRam;
use quintet_protocol::sync::{AtomicU32, AtomicU64, Ordering};

use crate::exec::Int;

/// What lies behind a guest physical page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// Read-write RAM; the RAM page's number, which differs from the physical one above 4 GiB.
    Ram(u64),
    /// RAM that is read while writes go nowhere (PAM read-only).
    Rom(u64),
    /// Writes go to RAM while reads come from the bus (PAM write-only).
    WriteOnly(u64),
    /// A page of display memory: data goes by host pointer once the bus has given it, everything else (code, page
    /// tables, the first access) to the bus.
    Vram(u64),
    /// Device memory, or nothing: every access goes to the bus.
    Device,
}

/// An integer without alignment, so that one volatile access is one `mov`.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T: Copy>(T);

/// RAM by page number.
#[derive(Clone, Debug)]
pub struct PhysMemory {
    ram: GuestRam,
    base: *mut u8,
    pages: u64,
}

// SAFETY: `base` points into the map that `ram` keeps alive; it is accessed volatile or atomically only.
unsafe impl Send for PhysMemory {}

impl PhysMemory {
    /// Memory backed by `ram`.
    pub fn new(ram: GuestRam) -> Self {
        let base = ram.host_base();
        let pages = ram.layout().total() / 4096;
        Self { ram, base, pages }
    }

    /// The RAM behind it.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Number of RAM pages.
    pub fn ram_pages(&self) -> u64 {
        self.pages
    }

    /// What the RAM layout alone puts at physical page `page`.
    pub fn layout_kind(&self, page: u64) -> PageKind {
        match page
            .checked_mul(4096)
            .map(|a| self.ram.layout().translate(GuestPhys(a), 4096))
        {
            Some(Ok(offset)) => PageKind::Ram(offset.0 / 4096),
            _ => PageKind::Device,
        }
    }

    /// Host address of RAM page `page`. Panics when there is no such page.
    #[inline]
    pub fn page_ptr(&self, page: u64) -> *mut u8 {
        assert!(page < self.pages, "RAM page {page} of {}", self.pages);
        // SAFETY: the page lies inside RAM, all of which is mapped.
        unsafe { self.base.add(page as usize * 4096) }
    }

    /// Atomically sets bits of a page-table entry that still equals `old`. `at` is a RAM offset, aligned.
    /// Answers whether it did; if not, somebody else changed the entry and the walk starts over.
    pub fn update_entry(&self, at: u64, old: u64, new: u64, wide: bool) -> bool {
        assert!(at / 4096 < self.pages);
        // SAFETY: inside RAM by the assertion, and aligned because page tables are aligned and entries are
        // indexed by their size; atomics allow for the other processes that may write RAM.
        unsafe {
            let p = self.base.add(at as usize);
            if wide {
                let word = &*p.cast::<AtomicU64>();
                word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            } else {
                let word = &*p.cast::<AtomicU32>();
                word.compare_exchange(old as u32, new as u32, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            }
        }
    }

    /// Reads `T` at RAM offset `at`. Panics when it does not lie inside.
    #[inline]
    pub fn read<T: Int>(&self, at: u64) -> T {
        assert!(at + T::BYTES <= self.pages * 4096);
        // SAFETY: inside RAM by the assertion.
        unsafe { load(self.base.add(at as usize)) }
    }

    /// Writes `T` at RAM offset `at`. Panics when it does not lie inside.
    #[inline]
    pub fn write<T: Int>(&self, at: u64, value: T) {
        assert!(at + T::BYTES <= self.pages * 4096);
        // SAFETY: inside RAM by the assertion.
        unsafe { store(self.base.add(at as usize), value) }
    }
}

/// One load of guest RAM, of any alignment.
///
/// # Safety
/// `at` must point to `T::BYTES` mapped bytes.
#[inline(always)]
pub(crate) unsafe fn load<T: Int>(at: *const u8) -> T {
    let word = at.cast::<T>();
    // A volatile access of a packed type is one `mov` and a copy by way of the stack, some five cycles.
    match word.is_aligned() {
        // SAFETY: the caller's promise; aligned.
        true => unsafe { word.read_volatile() },
        // SAFETY: the caller's promise; the packed type needs no alignment.
        false => unsafe { at.cast::<Unaligned<T>>().read_volatile().0 },
    }
}

/// One store to guest RAM, of any alignment.
///
/// # Safety
/// `at` must point to `T::BYTES` mapped, writable bytes.
#[inline(always)]
pub(crate) unsafe fn store<T: Int>(at: *mut u8, value: T) {
    let word = at.cast::<T>();
    match word.is_aligned() {
        // SAFETY: the caller's promise; aligned.
        true => unsafe { word.write_volatile(value) },
        // SAFETY: the caller's promise; the packed type needs no alignment.
        false => unsafe { at.cast::<Unaligned<T>>().write_volatile(Unaligned(value)) },
    }
}

/// Copies `len` bytes within guest RAM in ascending order.
///
/// # Safety
/// `from` must point to `len` mapped bytes and `to` to `len` mapped, writable ones; if they overlap, `to` lies
/// below `from`.
pub(crate) unsafe fn copy_up(mut from: *const u8, mut to: *mut u8, mut len: usize) {
    #[cfg(target_arch = "x86_64")]
    if len >= FAST_STRING {
        // SAFETY: the caller's promise; MOVSB copies in ascending order, and other processes may look on as at any
        // store of a program.
        unsafe {
            core::arch::asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
                options(nostack, preserves_flags));
        }
        return;
    }
    while len >= 8 {
        // SAFETY: eight bytes remain on both sides.
        unsafe {
            store(to, load::<u64>(from));
            from = from.add(8);
            to = to.add(8);
        }
        len -= 8;
    }
    while len > 0 {
        // SAFETY: at least one byte remains on both sides.
        unsafe {
            store(to, load::<u8>(from));
            from = from.add(1);
            to = to.add(1);
        }
        len -= 1;
    }
}

/// From how many bytes on the host's string instruction is worth its start.
#[cfg(target_arch = "x86_64")]
const FAST_STRING: usize = 128;

/// Stores `value` `count` times in ascending order.
///
/// # Safety
/// `to` must point to `count * T::BYTES` mapped, writable bytes.
pub(crate) unsafe fn fill<T: Int>(mut to: *mut u8, value: T, count: usize) {
    #[cfg(target_arch = "x86_64")]
    if count * T::BYTES as usize >= FAST_STRING {
        let v = value.to_u64();
        macro_rules! stos {
            ($stos:literal) => {
                // SAFETY: the caller's promise; other processes may look on as at any store of a program.
                unsafe {
                    core::arch::asm!($stos, inout("rcx") count => _, inout("rdi") to => _, in("rax") v,
                        options(nostack, preserves_flags));
                }
            };
        }
        match T::BYTES {
            1 => stos!("rep stosb"),
            2 => stos!("rep stosw"),
            4 => stos!("rep stosd"),
            _ => stos!("rep stosq"),
        }
        return;
    }
    for _ in 0..count {
        // SAFETY: room for one more remains.
        unsafe {
            store(to, value);
            to = to.add(T::BYTES as usize);
        }
    }
}
