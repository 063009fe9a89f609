//! Seqlocks: one writer publishes a record of several words, readers take it whole or say that they cannot.
//!
//! A sequence word precedes the record: odd while it is being written, even and larger afterwards. Readers
//! are bounded in tries and in time, because a writer can be killed or stopped between its two stores; then
//! they report [`SeqError::Stuck`] and the caller looks at the writer's process. The next writer finds the
//! odd word, keeps it odd while it writes, and so repairs the lock. A lock with the writer's pid in it was
//! rejected: nobody but the supervisor can tell a dead owner from a slow one.
//!
//! SYNC POINT `seq`: the writer's release store of the even word pairs with the reader's acquire load of it; its
//! release fence after the odd word pairs with the reader's acquire fence before the second look.

use crate::sync::{CACHE_LINE, Ordering, fence, spin_hint};
use crate::time::HostTime;
use crate::words::{NoSteps, ReadWords, Steps, WriteWords};

/// Offset of the record behind the start of a seqlock, in bytes. The four bytes before it are reserved (0).
pub const SEQ_HEADER: usize = 8;

/// Bytes that a seqlock for a record of `len` bytes takes: whole lines.
pub const fn seq_size(len: usize) -> usize {
    (SEQ_HEADER + len).next_multiple_of(CACHE_LINE)
}

/// A record could not be read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeqError {
    /// The writer was busy at every look: killed or stopped while it wrote, or lying.
    #[error("A shared record stayed busy for {tries} tries (sequence word {sequence})")]
    Stuck {
        /// The sequence word as last seen.
        sequence: u32,
        /// Looks taken.
        tries: u32,
    },
}

/// How long a reader tries.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Looks, at least 1.
    pub tries: u32,
    /// Nanoseconds, looked at every 1024 tries.
    pub nanos: u64,
}

impl Default for ReadLimit {
    /// A million looks or 50 ms (S3.85).
    fn default() -> Self {
        Self {
            tries: 1_000_000,
            nanos: 50_000_000,
        }
    }
}

/// The reading end.
#[derive(Clone, Debug)]
pub struct SeqReader<R> {
    words: R,
    limit: ReadLimit,
}

impl<R: ReadWords> SeqReader<R> {
    /// A reader of the seqlock that starts `words`.
    pub fn new(words: R) -> Self {
        Self::with_limit(words, ReadLimit::default())
    }

    /// The same with bounds of the caller's.
    pub fn with_limit(words: R, limit: ReadLimit) -> Self {
        Self { words, limit }
    }

    /// The sequence word: even when a record is complete. Moves by two with every publication, so a reader
    /// may compare it with the last one it read to see whether anything is new.
    #[inline]
    pub fn sequence(&self) -> u32 {
        self.words.load_u32(0, Ordering::Acquire)
    }

    /// Runs `look` once, without the lock: for single words that say whether reading is worth while.
    #[inline]
    pub fn peek<T>(&self, look: impl FnOnce(&R) -> T) -> T {
        look(&self.words)
    }

    /// Copies `into.len()` bytes from `offset` of the record, all of one publication, and returns its sequence
    /// number.
    ///
    /// # Errors
    /// [`SeqError::Stuck`]; `into` holds rubbish then.
    #[inline]
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<u32, SeqError> {
        self.read_with(|words| words.read_bytes(SEQ_HEADER + offset, into))
            .map(|(sequence, ())| sequence)
    }

    /// Runs `take` on the words, the record starting at [`SEQ_HEADER`], until one run saw a single publication.
    /// `take` may see torn data and must not trust it; what the last run returned is whole.
    ///
    /// # Errors
    /// [`SeqError::Stuck`].
    #[inline]
    pub fn read_with<T>(&self, mut take: impl FnMut(&R) -> T) -> Result<(u32, T), SeqError> {
        let before = self.words.load_u32(0, Ordering::Acquire);
        if before.is_multiple_of(2) {
            let value = take(&self.words);
            fence(Ordering::Acquire);
            if self.words.load_u32(0, Ordering::Relaxed) == before {
                return Ok((before, value));
            }
        }
        self.read_contended(take)
    }

    #[cold]
    fn read_contended<T>(&self, mut take: impl FnMut(&R) -> T) -> Result<(u32, T), SeqError> {
        let mut start = None;
        let mut tries = 1;
        let mut before = self.words.load_u32(0, Ordering::Acquire);
        while tries < self.limit.tries {
            if before.is_multiple_of(2) {
                let value = take(&self.words);
                fence(Ordering::Acquire);
                let after = self.words.load_u32(0, Ordering::Relaxed);
                if after == before {
                    return Ok((before, value));
                }
            }
            tries += 1;
            if tries.is_multiple_of(1024) {
                let now = HostTime::now();
                if now.since(*start.get_or_insert(now)) > self.limit.nanos {
                    break;
                }
            }
            spin_hint();
            before = self.words.load_u32(0, Ordering::Acquire);
        }
        Err(SeqError::Stuck {
            sequence: before,
            tries,
        })
    }
}

/// The writing end: one per seqlock, in the process that may write the file.
#[derive(Debug)]
pub struct SeqWriter<W, S = NoSteps> {
    words: W,
    steps: S,
}

impl<W: WriteWords> SeqWriter<W> {
    /// The writer of the seqlock that starts `words`. A predecessor killed while it wrote has left the word odd;
    /// readers stay stuck until the first [`Self::write`] of this one, so make it soon.
    pub fn new(words: W) -> Self {
        Self::with_steps(words, NoSteps)
    }
}

impl<W: WriteWords, S: Steps> SeqWriter<W, S> {
    /// The same with a hook before each store.
    pub fn with_steps(words: W, steps: S) -> Self {
        Self { words, steps }
    }

    /// Publishes `record` at the start of the record.
    #[inline]
    pub fn write(&mut self, record: &[u8]) -> u32 {
        self.write_with(|words| words.write_bytes(SEQ_HEADER, record))
    }

    /// Publishes what `put` writes, the record starting at [`SEQ_HEADER`]; returns the new sequence number.
    #[inline]
    pub fn write_with(&mut self, put: impl FnOnce(&W)) -> u32 {
        let busy = self.words.load_u32(0, Ordering::Relaxed) | 1;
        self.steps.step();
        self.words.store_u32(0, busy, Ordering::Relaxed);
        fence(Ordering::Release);
        self.steps.step();
        put(&self.words);
        self.steps.step();
        let done = busy.wrapping_add(1);
        self.words.store_u32(0, done, Ordering::Release);
        self.steps.step();
        done
    }

    /// The words behind the lock.
    pub fn words(&self) -> &W {
        &self.words
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::{Map, ViewMut};
    use std::sync::Arc;

    fn words() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(4096).unwrap()))
    }

    fn quick() -> ReadLimit {
        ReadLimit {
            tries: 100,
            nanos: 1_000_000,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let w = words();
        let mut writer = SeqWriter::new(w.clone());
        assert_eq!(writer.write(b"twelve bytes"), 2);
        let mut got = [0; 6];
        assert_eq!(SeqReader::new(w).read(7, &mut got[..5]), Ok(2));
        assert_eq!(&got[..5], b"bytes");
    }

    #[test]
    fn s3_85_a_busy_word_makes_readers_stuck_within_their_bounds_and_the_next_writer_repairs_it() {
        let w = words();
        w.store_u32(0, 7, Ordering::Relaxed);
        let reader = SeqReader::with_limit(w.clone(), quick());
        assert_eq!(
            reader.read(0, &mut [0; 4]),
            Err(SeqError::Stuck {
                sequence: 7,
                tries: 100
            })
        );
        assert_eq!(SeqWriter::new(w).write(b"good"), 8);
        let mut got = [0; 4];
        assert_eq!(reader.read(0, &mut got), Ok(8));
        assert_eq!(&got, b"good");
    }

    #[test]
    fn the_time_limit_holds_when_the_tries_do_not() {
        let w = words();
        w.store_u32(0, 1, Ordering::Relaxed);
        let reader = SeqReader::with_limit(
            w,
            ReadLimit {
                tries: u32::MAX,
                nanos: 1_000_000,
            },
        );
        assert!(reader.read(0, &mut [0; 4]).is_err());
    }

    #[test]
    fn the_sequence_wraps_past_2_32() {
        let w = words();
        w.store_u32(0, u32::MAX - 1, Ordering::Relaxed);
        assert_eq!(SeqWriter::new(w.clone()).write(b"wrap"), 0);
        assert_eq!(SeqReader::new(w).read(0, &mut [0; 4]), Ok(0));
    }

    #[test]
    fn a_writer_that_never_stops_does_not_tear_a_reader_and_cannot_hang_it() {
        let w = words();
        let stop = Arc::new(crate::sync::AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (w, stop) = (w.clone(), Arc::clone(&stop));
            move || {
                let mut writer = SeqWriter::new(w);
                let mut n = 0u8;
                while !stop.load(Ordering::Relaxed) {
                    n = n.wrapping_add(1);
                    writer.write(&[n; 64]);
                }
            }
        });
        let reader = SeqReader::new(w);
        let mut whole = 0;
        while whole < 2000 {
            let mut got = [0; 64];
            if reader.read(0, &mut got).is_ok() {
                whole += 1;
                assert!(got.iter().all(|&b| b == got[0]), "torn: {got:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
}
