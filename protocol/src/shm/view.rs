//! Typed access to a map: atomic words and volatile byte copies, bounds checked, never a reference.
//!
//! A [`View`] reads, a [`ViewMut`] also writes and exists only for writable maps. Offsets are in bytes from
//! the view's start. An offset outside the view, or misaligned for its width, is a fault of the caller and
//! panics: offsets are constants of the layout, and whatever a peer sends is checked or masked before it
//! becomes one.
#![allow(
    unsafe_code,
    reason = "the one module that dereferences shared memory by word"
)]
#![allow(
    clippy::disallowed_types,
    reason = "shared words are the hardware's atomics even under loom"
)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use super::Map;

/// Read access to part of a map. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct View {
    map: Arc<Map>,
    start: usize,
    len: usize,
}

/// One 32-bit word for reading, whose place has been looked up and checked: a load is a load. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Word {
    at: NonNull<AtomicU32>,
    /// Keeps the word where it is.
    _map: Arc<Map>,
}

// SAFETY: a word is an atomic in a map that lives as long as this does and is itself shared among threads.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

impl Word {
    /// Loads it.
    #[inline]
    pub fn load(&self, order: Ordering) -> u32 {
        // SAFETY: `View::word` found it in bounds of the map and aligned, and the map is still there; other processes may
        // write it, which is what an atomic is for.
        unsafe { self.at.as_ref() }.load(order)
    }
}

/// Read and write access to part of a writable map. Whoever holds it is, by the protocol, the one writer.
#[derive(Clone, Debug)]
pub struct ViewMut(View);

impl View {
    /// The whole of `map`.
    pub fn new(map: Arc<Map>) -> Self {
        let len = map.len();
        Self { map, start: 0, len }
    }

    /// The part `[start, start + len)`. Panics when it does not lie inside.
    pub fn slice(&self, start: usize, len: usize) -> Self {
        assert!(
            start <= self.len && len <= self.len - start,
            "slice {start}+{len} of a view of {}",
            self.len
        );
        Self {
            map: Arc::clone(&self.map),
            start: self.start + start,
            len,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the view has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn at(&self, offset: usize, width: usize) -> *mut u8 {
        assert!(
            width <= self.len && offset <= self.len - width,
            "{width} bytes at {offset} of a view of {}",
            self.len
        );
        // SAFETY: start + offset + width lies inside the map by the check above and the one in `slice`.
        unsafe { self.map.as_ptr().add(self.start + offset) }
    }

    #[inline]
    fn word32(&self, offset: usize) -> &AtomicU32 {
        let p = self.at(offset, 4);
        assert!(p.addr().is_multiple_of(4), "misaligned u32 at {offset}");
        // SAFETY: in bounds, aligned, and alive as long as `self`. An atomic has interior mutability, so that
        // other processes may write it; a read-only map is only ever loaded from, because stores are
        // methods of `ViewMut`.
        unsafe { AtomicU32::from_ptr(p.cast()) }
    }

    #[inline]
    fn word64(&self, offset: usize) -> &AtomicU64 {
        let p = self.at(offset, 8);
        assert!(p.addr().is_multiple_of(8), "misaligned u64 at {offset}");
        // SAFETY: as in `word32`.
        unsafe { AtomicU64::from_ptr(p.cast()) }
    }

    /// The 32-bit word at `offset`, for who loads it often.
    pub fn word(&self, offset: usize) -> Word {
        Word {
            at: NonNull::from(self.word32(offset)),
            _map: Arc::clone(&self.map),
        }
    }

    /// Loads the 32-bit word at `offset`.
    #[inline]
    pub fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.word32(offset).load(order)
    }

    /// Loads the 64-bit word at `offset`.
    #[inline]
    pub fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.word64(offset).load(order)
    }

    /// Host address of `len` bytes at `offset`, for what is placed into shared memory by another crate.
    pub(super) fn address(&self, offset: usize, len: usize) -> *mut u8 {
        self.at(offset, len)
    }

    /// Whether the map belongs to the portable back end.
    pub fn is_portable(&self) -> bool {
        self.map.is_portable()
    }

    /// Host address of the word at `offset`, for a futex wait.
    pub fn futex_word(&self, offset: usize) -> &AtomicU32 {
        self.word32(offset)
    }

    /// Copies `into.len()` bytes out from `offset`. Racing writes may tear between bytes, never beyond them.
    #[inline]
    pub fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: the source is in bounds; the destination is a reference we hold exclusively.
        unsafe { volatile_copy(from, into.as_mut_ptr(), into.len()) };
    }
}

impl ViewMut {
    /// The whole of `map`. Panics when the map is read-only.
    pub fn new(map: Arc<Map>) -> Self {
        assert!(map.is_writable(), "a writable view of a read-only map");
        Self(View::new(map))
    }

    /// The part `[start, start + len)`. Panics when it does not lie inside.
    pub fn slice(&self, start: usize, len: usize) -> Self {
        Self(self.0.slice(start, len))
    }

    /// Where the bytes lie in this process, for whoever keeps the map alive while it uses them.
    pub fn host_base(&self) -> *mut u8 {
        self.0.map.as_ptr().wrapping_add(self.0.start)
    }

    /// The same bytes, for reading.
    pub fn view(&self) -> &View {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether the view has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Loads the 32-bit word at `offset`.
    #[inline]
    pub fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.0.load_u32(offset, order)
    }

    /// Loads the 64-bit word at `offset`.
    #[inline]
    pub fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.0.load_u64(offset, order)
    }

    /// Stores the 32-bit word at `offset`.
    #[inline]
    pub fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.0.word32(offset).store(value, order);
    }

    /// Stores the 64-bit word at `offset`.
    #[inline]
    pub fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.0.word64(offset).store(value, order);
    }

    /// Swaps the 32-bit word at `offset`; for doorbells, the only words with several writers.
    #[inline]
    pub fn swap_u32(&self, offset: usize, value: u32, order: Ordering) -> u32 {
        self.0.word32(offset).swap(value, order)
    }

    /// Sets bits of the 32-bit word at `offset` and returns what it held.
    #[inline]
    pub fn fetch_or_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32 {
        self.0.word32(offset).fetch_or(bits, order)
    }

    /// Clears all but `bits` of the 32-bit word at `offset` and returns what it held.
    #[inline]
    pub fn fetch_and_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32 {
        self.0.word32(offset).fetch_and(bits, order)
    }

    /// Adds to the 32-bit word at `offset`, wrapping, and returns what it held.
    #[inline]
    pub fn fetch_add_u32(&self, offset: usize, n: u32, order: Ordering) -> u32 {
        self.0.word32(offset).fetch_add(n, order)
    }

    /// Copies bytes out from `offset`.
    #[inline]
    pub fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        self.0.read_bytes(offset, into);
    }

    /// Copies `from` in at `offset`.
    #[inline]
    pub fn write_bytes(&self, offset: usize, from: &[u8]) {
        let to = self.0.at(offset, from.len());
        // SAFETY: the destination is in bounds of a writable map; the source is a live reference.
        unsafe { volatile_copy(from.as_ptr(), to, from.len()) };
    }

    /// Sets `len` bytes from `offset` to `value`.
    pub fn fill(&self, offset: usize, len: usize, value: u8) {
        let block = [value; 256];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(block.len());
            self.write_bytes(offset + done, &block[..n]);
            done += n;
        }
    }
}

/// Loads a word of 16 bits.
///
/// # Safety
/// `at` must be aligned and readable for two bytes.
#[inline]
pub(crate) unsafe fn load_u16(at: *mut u8, order: Ordering) -> u16 {
    // SAFETY: by the caller's promise; an atomic, so that others may write it meanwhile.
    unsafe { AtomicU16::from_ptr(at.cast()) }.load(order)
}

/// Stores a word of 16 bits.
///
/// # Safety
/// `at` must be aligned and writable for two bytes.
#[inline]
pub(crate) unsafe fn store_u16(at: *mut u8, value: u16, order: Ordering) {
    // SAFETY: as in `load_u16`.
    unsafe { AtomicU16::from_ptr(at.cast()) }.store(value, order);
}

/// Bytes from which the processor's own copying is the faster: its start takes some 20 ns.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const BULK: usize = 1024;

/// Copies with volatile accesses: words of 64 bits and what is left of them by bytes, or, for many, the processor's string instruction,
/// whose stores nobody may expect in their order among each other (SDM vol. 1, 7.3.9.3); they are all before any later one.
///
/// # Safety
/// `from` must be readable and `to` writable for `len` bytes, and they must not overlap. One side may be shared memory.
#[inline]
pub(crate) unsafe fn volatile_copy(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= BULK && std::arch::is_x86_feature_detected!("ermsb") {
        // SAFETY: by the caller's promise; the direction flag is clear, as everywhere between instructions of Rust.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") len => _,
                inout("rsi") from => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    // SAFETY: by the caller's promise.
    unsafe { copy_by_words(from, to, len) };
}

/// [`volatile_copy`] by words.
#[inline]
unsafe fn copy_by_words(mut from: *const u8, mut to: *mut u8, mut len: usize) {
    /// A word without alignment. A volatile access of it is one `mov`, and a copy by way of the stack: some five cycles.
    #[repr(C, packed)]
    #[derive(Clone, Copy)]
    struct Unaligned(u64);
    let aligned = (from.addr() | to.addr()).is_multiple_of(8);
    while len >= 8 {
        // SAFETY: eight bytes remain on both sides; the packed type has an alignment of one, and the other is taken only where both
        // sides have its alignment.
        unsafe {
            if aligned {
                to.cast::<u64>()
                    .write_volatile(from.cast::<u64>().read_volatile());
            } else {
                to.cast::<Unaligned>()
                    .write_volatile(from.cast::<Unaligned>().read_volatile());
            }
            from = from.add(8);
            to = to.add(8);
        }
        len -= 8;
    }
    while len > 0 {
        // SAFETY: at least one byte remains on both sides.
        unsafe {
            to.write_volatile(from.read_volatile());
            from = from.add(1);
            to = to.add(1);
        }
        len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_whole_however_many_and_wherever() {
        let v = anonymous(3 * 4096);
        let data: Vec<u8> = (0..8192_u32).map(|n| (n * 7 + n / 256) as u8).collect();
        for len in [0, 1, 7, 8, 9, 1000, 1023, 1024, 1025, 4096, 5003, 8000] {
            for (from, to) in [(0, 0), (1, 3), (8, 5)] {
                v.fill(0, 3 * 4096, 0xEE);
                v.write_bytes(to, &data[from..from + len]);
                let mut back = vec![0; 3 * 4096];
                v.read_bytes(0, &mut back);
                let (before, rest) = back.split_at(to);
                assert_eq!(rest[..len], data[from..from + len]);
                assert!(
                    before.iter().chain(&rest[len..]).all(|b| *b == 0xEE),
                    "{len} {from} {to}"
                );
            }
        }
    }

    fn anonymous(len: u64) -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(len).expect("anonymous map")))
    }

    #[test]
    fn words_and_bytes_are_little_endian_views_of_each_other() {
        let v = anonymous(64);
        v.store_u32(8, 0x4433_2211, Ordering::Relaxed);
        let mut b = [0; 4];
        v.read_bytes(8, &mut b);
        assert_eq!(b, [0x11, 0x22, 0x33, 0x44]);
    }

    #[test]
    fn odd_lengths_copy_exactly_their_bytes() {
        let v = anonymous(64);
        v.fill(0, 64, 0xEE);
        for len in 0..20 {
            v.fill(0, 64, 0xEE);
            v.write_bytes(3, &vec![0x55; len]);
            let mut all = [0; 64];
            v.read_bytes(0, &mut all);
            assert_eq!(all.iter().filter(|&&b| b == 0x55).count(), len);
            assert_eq!(all[2], 0xEE);
            assert_eq!(all[3 + len], 0xEE);
        }
    }

    #[test]
    fn a_word_is_read_where_it_was_looked_up_and_keeps_its_map() {
        let v = anonymous(64);
        let (first, last) = (v.view().slice(8, 8).word(4), v.view().word(60));
        v.store_u32(12, 7, Ordering::Relaxed);
        v.store_u32(60, 9, Ordering::Relaxed);
        drop(v);
        assert_eq!(
            (first.load(Ordering::Acquire), last.load(Ordering::Acquire)),
            (7, 9)
        );
    }

    #[test]
    #[should_panic(expected = "4 bytes at 61")]
    fn a_word_past_the_end_panics_when_it_is_looked_up() {
        drop(anonymous(64).view().word(61));
    }

    #[test]
    #[should_panic(expected = "4 bytes at 61")]
    fn an_access_past_the_end_panics() {
        anonymous(64).load_u32(61, Ordering::Relaxed);
    }
}
