//! The code bitmap: which pages of guest RAM a vCPU has decoded instructions from.
//!
//! Only cpu-worker writes it. It sets a page's bit *before* it reads the bytes that it decodes; whoever writes
//! RAM from outside (DMA) tests the bits *after* the data is written and before anybody can know of it. With a
//! sequentially consistent fence between the two accesses on both sides, either the writer sees the bit (and
//! sends the page through [`crate::invalidation`]) or the decoder reads the new bytes. Write-protecting pages was
//! rejected: it is a system call per page and a signal per write, and no protection reaches another process.
//!
//! Pages are numbered by [`RamOffset`], so that high RAM follows low RAM without a hole.
//!
//! SYNC POINT `code`: as above; model-checked in `tests/loom_code.rs`.

use crate::addr::{GUEST_PAGE, RamOffset};
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;
use crate::words::{ReadWords, WriteWords};

/// Bytes of the bitmap: enough for 256 GiB of guest RAM. Pages that are never touched cost nothing.
pub const CODE_MAP_SIZE: usize = 8 << 20;
/// Pages that the bitmap knows.
pub const CODE_MAP_PAGES: u64 = CODE_MAP_SIZE as u64 * 8;

fn place(page: u64) -> (usize, u32) {
    assert!(page < CODE_MAP_PAGES, "page {page} is beyond the code bitmap");
    ((page / 32 * 4) as usize, 1 << (page % 32))
}

/// The writing end, in cpu-worker. Cloning is cheap; every vCPU thread has one.
#[derive(Clone, Debug)]
pub struct CodeMapWriter<W = ViewMut>(W);

impl<W: WriteWords> CodeMapWriter<W> {
    /// The bitmap that starts `words`.
    pub fn new(words: W) -> Self {
        Self(words)
    }

    /// Marks a page before its bytes are read for decoding; answers whether it was unmarked. Panics beyond
    /// [`CODE_MAP_PAGES`].
    #[inline]
    pub fn mark(&self, page: u64) -> bool {
        let (at, bit) = place(page);
        let fresh = self.0.load_u32(at, Ordering::Relaxed) & bit == 0
            && self.0.fetch_or_u32(at, bit, Ordering::AcqRel) & bit == 0;
        self.0.full_fence();
        fresh
    }

    /// Unmarks a page, after every block decoded from it has been dropped.
    pub fn unmark(&self, page: u64) {
        let (at, bit) = place(page);
        self.0.fetch_and_u32(at, !bit, Ordering::AcqRel);
    }

    /// Whether a page is marked.
    pub fn is_marked(&self, page: u64) -> bool {
        let (at, bit) = place(page);
        self.0.load_u32(at, Ordering::Relaxed) & bit != 0
    }

    /// Unmarks every page among the first `pages`; for a reset, after every block has been dropped.
    pub fn clear(&self, pages: u64) {
        for at in (0..pages.min(CODE_MAP_PAGES).div_ceil(32) as usize).map(|n| n * 4) {
            if self.0.load_u32(at, Ordering::Relaxed) != 0 {
                self.0.store_u32(at, 0, Ordering::Relaxed);
            }
        }
    }
}

/// The testing end, in whichever process writes guest RAM from outside. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct CodeMapReader<R = View>(R);

impl<R: ReadWords> CodeMapReader<R> {
    /// The bitmap that starts `words`.
    pub fn new(words: R) -> Self {
        Self(words)
    }

    /// Calls `each` with the number of every marked page that `len` bytes at `start` touch. To be called after the
    /// bytes have been written. Pages beyond [`CODE_MAP_PAGES`] are not RAM.
    pub fn hits(&self, start: RamOffset, len: u64, mut each: impl FnMut(u64)) {
        if len == 0 {
            return;
        }
        self.0.full_fence();
        let last = (start.0.saturating_add(len - 1) / GUEST_PAGE).min(CODE_MAP_PAGES - 1);
        let mut page = start.0 / GUEST_PAGE;
        while page <= last {
            let (at, _) = place(page);
            let word = self.0.load_u32(at, Ordering::Relaxed) >> (page % 32);
            let here = (32 - page % 32).min(last - page + 1);
            for n in 0..here {
                if word >> n & 1 != 0 {
                    each(page + n);
                }
            }
            page += here;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    fn map() -> (CodeMapWriter, CodeMapReader) {
        let words = ViewMut::new(Arc::new(Map::anonymous(CODE_MAP_SIZE as u64).unwrap()));
        (
            CodeMapWriter::new(words.clone()),
            CodeMapReader::new(words.view().clone()),
        )
    }

    fn hits(r: &CodeMapReader, start: u64, len: u64) -> Vec<u64> {
        let mut pages = Vec::new();
        r.hits(RamOffset(start), len, |p| pages.push(p));
        pages
    }

    #[test]
    fn a_write_hits_exactly_the_marked_pages_it_touches() {
        let (w, r) = map();
        for page in [0, 31, 32, 63, 64, 100, CODE_MAP_PAGES - 1] {
            assert!(w.mark(page));
        }
        assert_eq!(hits(&r, 0, 1), [0]);
        assert_eq!(hits(&r, 1, 0), []);
        assert_eq!(hits(&r, 4096, 4096), []);
        assert_eq!(hits(&r, 31 * 4096 - 1, 1), []);
        assert_eq!(hits(&r, 31 * 4096 - 1, 2), [31]);
        assert_eq!(hits(&r, 0, 101 * 4096), [0, 31, 32, 63, 64, 100]);
        assert_eq!(hits(&r, 32 * 4096, 100 * 4096), [32, 63, 64, 100]);
        assert_eq!(
            hits(&r, (CODE_MAP_PAGES - 1) * 4096, u64::MAX),
            [CODE_MAP_PAGES - 1]
        );
    }

    #[test]
    fn a_page_is_fresh_once_until_it_is_unmarked() {
        let (w, r) = map();
        assert!(w.mark(7));
        assert!(!w.mark(7));
        w.mark(8);
        w.unmark(7);
        assert_eq!(hits(&r, 0, 1 << 20), [8]);
        assert!(w.mark(7) && w.is_marked(7));
        w.clear(4096);
        assert_eq!(hits(&r, 0, 1 << 20), []);
    }
}
