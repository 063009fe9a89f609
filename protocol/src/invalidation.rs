//! Invalidations: pages of guest RAM whose decoded code an outside writer has made stale.
//!
//! A record ring from io-worker to cpu-worker with one page number per record, and beside it a counter that says
//! "everything": a full ring must neither lose a page nor make a device wait for a vCPU, so the device then asks
//! for all blocks to be dropped. The order is the writer's duty: write the data, look at the code bitmap,
//! send the hits, ring the exit word, and only then let the completion be seen. The vCPU, out of its block,
//! takes invalidations before it looks at wires, replies or mirrors.
//!
//! Layout of the writer's part: the counter (u64) on a line of its own, then the ring.

use crate::ring::{Consumer, PopError, Producer, PushError, ring_size};
use crate::shm::{View, ViewMut};
use crate::sync::{CACHE_LINE, Ordering};
use crate::words::{ReadWords, WriteWords};

/// Capacity of the ring in bytes: 2730 pages.
pub const INVALIDATION_RING: usize = 32 << 10;
/// Most pages that an honest sender can have sent at a time: as many records as fit.
pub const INVALIDATIONS_MAX: u32 = (INVALIDATION_RING / 12) as u32;
/// Bytes of the writer's part.
pub const INVALIDATION_SIZE: usize = CACHE_LINE + ring_size(INVALIDATION_RING);

/// The sending end, in io-worker.
#[derive(Debug)]
pub struct InvalidationWriter<W = ViewMut, R = View> {
    all: W,
    ring: Producer<W, R>,
}

impl<W: WriteWords, R: ReadWords> InvalidationWriter<W, R> {
    /// The sender with its counter in `all`, its ring in `ring`, and the consumer's part in `peer`.
    ///
    /// # Errors
    /// [`PushError`] when the words contradict each other.
    pub fn attach(all: W, ring: W, peer: R) -> Result<Self, PushError> {
        Ok(Self {
            all,
            ring: Producer::attach(ring, peer)?,
        })
    }

    /// Sends a page number. Cannot fail: what does not fit, or a reader that lies, becomes "everything". The caller
    /// rings the exit word afterwards.
    pub fn send(&mut self, page: u64) {
        if self.ring.push(&page.to_le_bytes()).is_err() {
            self.send_all();
        }
    }

    /// Asks for every block to be dropped; also what a successor sends first, since nobody knows what its
    /// predecessor had written when it died.
    pub fn send_all(&mut self) {
        let count = self.all.load_u64(0, Ordering::Relaxed).wrapping_add(1);
        self.all.store_u64(0, count, Ordering::Release);
    }
}

/// What is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The blocks decoded from this page of guest RAM.
    Page(u64),
    /// Every block.
    All,
}

/// The receiving end, in cpu-worker.
#[derive(Debug)]
pub struct InvalidationReader<W = ViewMut, R = View> {
    all: R,
    ring: Consumer<W, R>,
    seen: u64,
}

impl<W: WriteWords, R: ReadWords> InvalidationReader<W, R> {
    /// The receiver with its head word in `mine`. A new vCPU has no blocks, so what was sent before is skipped.
    ///
    /// # Errors
    /// [`PopError`] when the words contradict each other.
    pub fn attach(mine: W, all: R, ring: R) -> Result<Self, PopError> {
        let seen = all.load_u64(0, Ordering::Acquire);
        let mut ring = Consumer::attach_at_head(mine, ring)?;
        let at = ring.skip_to_tail();
        ring.release_skipped(at);
        Ok(Self { all, ring, seen })
    }

    /// The next thing to drop; `None` when nothing is stale. A sender that lies costs every block, once per lie.
    #[inline]
    pub fn take(&mut self) -> Option<Stale> {
        let all = self.all.load_u64(0, Ordering::Acquire);
        if all != self.seen {
            self.seen = all;
            return Some(self.everything());
        }
        let mut bytes = [0; 8];
        match self.ring.next(&mut bytes) {
            Ok(None) => None,
            Ok(Some(record)) => {
                self.ring.release_all();
                if record.len == bytes.len() {
                    Some(Stale::Page(u64::from_le_bytes(bytes)))
                } else {
                    Some(Stale::All)
                }
            }
            Err(_) => Some(self.everything()),
        }
    }

    fn everything(&mut self) -> Stale {
        let at = self.ring.skip_to_tail();
        self.ring.release_skipped(at);
        Stale::All
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    struct Parts {
        all: ViewMut,
        ring: ViewMut,
        head: ViewMut,
    }

    fn parts() -> Parts {
        let whole = ViewMut::new(Arc::new(Map::anonymous(2 * INVALIDATION_SIZE as u64).unwrap()));
        Parts {
            all: whole.slice(0, CACHE_LINE),
            ring: whole.slice(CACHE_LINE, ring_size(INVALIDATION_RING)),
            head: whole.slice(INVALIDATION_SIZE, CACHE_LINE),
        }
    }

    fn ends(p: &Parts) -> (InvalidationWriter, InvalidationReader) {
        (
            InvalidationWriter::attach(p.all.clone(), p.ring.clone(), p.head.view().clone()).unwrap(),
            InvalidationReader::attach(p.head.clone(), p.all.view().clone(), p.ring.view().clone()).unwrap(),
        )
    }

    #[test]
    fn pages_come_in_order() {
        let (mut w, mut r) = ends(&parts());
        w.send(3);
        w.send(u64::MAX);
        assert_eq!(r.take(), Some(Stale::Page(3)));
        assert_eq!(r.take(), Some(Stale::Page(u64::MAX)));
        assert_eq!(r.take(), None);
    }

    #[test]
    fn a_full_ring_becomes_everything_and_no_page_is_lost() {
        let (mut w, mut r) = ends(&parts());
        for page in 0..10_000 {
            w.send(page);
        }
        assert_eq!(r.take(), Some(Stale::All));
        assert_eq!(r.take(), None);
        w.send(1);
        assert_eq!(r.take(), Some(Stale::Page(1)));
    }

    #[test]
    fn a_lying_sender_costs_every_block_and_nothing_else() {
        let p = parts();
        let (_w, mut r) = ends(&p);
        p.ring.store_u64(0, 0xFFFF_FFF3, Ordering::Relaxed);
        assert_eq!(r.take(), Some(Stale::All));
        p.ring.store_u64(0, 0x1000, Ordering::Relaxed);
        assert_eq!(r.take(), Some(Stale::All));
        p.ring.store_u64(0, 0x1008, Ordering::Relaxed);
        let len = p.ring.len();
        p.ring.fill(CACHE_LINE, len - CACHE_LINE, 0xFF);
        assert_eq!(r.take(), Some(Stale::All));
        assert_eq!(r.take(), None);
    }

    #[test]
    fn a_new_reader_skips_what_was_sent_before_it() {
        let p = parts();
        let (mut w, _) = ends(&p);
        w.send(9);
        w.send_all();
        let (_, mut r) = ends(&p);
        assert_eq!(r.take(), None);
    }
}
