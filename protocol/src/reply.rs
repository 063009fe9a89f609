//! Reply slots: io-worker's answer to the one synchronous command that a vCPU can have outstanding.
//!
//! A slot is a seqlock in io-worker's file: number of the command, status, length, data. A ring of replies was
//! rejected: there is never more than one, and a slot that is simply published again is what a restarted
//! io-worker needs to answer a read that its predecessor may or may not have answered.
//!
//! The vCPU takes the slot only when the number in it is that of its command. A number from the past is an old
//! answer, one from the future a lie; both read as "not yet", and the waiter's deadline does the rest.

use crate::seqlock::{ReadLimit, SEQ_HEADER, SeqReader, SeqWriter, seq_size};
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;
use crate::words::{ReadWords, WriteWords};

/// Most bytes of data in a reply: a guest page.
pub const REPLY_DATA: usize = 4096;
const RECORD: usize = 16 + REPLY_DATA;
/// Bytes of a slot.
pub const REPLY_SIZE: usize = seq_size(RECORD);

/// How a command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u32)]
pub enum ReplyStatus {
    /// Carried out; the data holds what a read gives.
    #[default]
    Done = 0,
    /// Nobody decodes the address: a read is all ones, a write is lost.
    Unclaimed = 1,
    /// String I/O stopped early; the data holds the number of elements done (u32).
    Partial = 2,
}

impl ReplyStatus {
    fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::Done,
            1 => Self::Unclaimed,
            2 => Self::Partial,
            _ => return None,
        })
    }
}

/// A reply as io-worker keeps and commits it, so that a successor can publish it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reply {
    /// Number of the command answered; 0 when none has been yet.
    pub number: u64,
    /// How it ended.
    pub status: ReplyStatus,
    /// Up to [`REPLY_DATA`] bytes, little-endian for a value.
    pub data: Vec<u8>,
}

/// Why a reply could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The slot says something no io-worker says.
    #[error("The reply to command {number} has status {status} and {len} bytes")]
    Malformed {
        /// The command's number.
        number: u64,
        /// The status word found.
        status: u32,
        /// The length found.
        len: u32,
    },
}

/// The writing end of a vCPU's slot, in io-worker.
#[derive(Debug)]
pub struct ReplyWriter<W = ViewMut>(SeqWriter<W>);

impl<W: WriteWords> ReplyWriter<W> {
    /// The slot that starts `words`.
    pub fn new(words: W) -> Self {
        Self(SeqWriter::new(words))
    }

    /// Publishes the answer to command `number`. Panics when `data` is longer than [`REPLY_DATA`].
    pub fn publish(&mut self, number: u64, status: ReplyStatus, data: &[u8]) {
        assert!(data.len() <= REPLY_DATA, "a reply of {} bytes", data.len());
        self.0.write_with(|w| {
            w.store_u64(SEQ_HEADER, number, Ordering::Relaxed);
            w.store_u32(SEQ_HEADER + 8, status as u32, Ordering::Relaxed);
            w.store_u32(SEQ_HEADER + 12, data.len() as u32, Ordering::Relaxed);
            w.write_bytes(SEQ_HEADER + 16, data);
        });
    }

    /// Publishes a committed reply (again).
    pub fn publish_reply(&mut self, reply: &Reply) {
        self.publish(reply.number, reply.status, &reply.data);
    }
}

/// The reading end of a vCPU's slot, in cpu-worker.
#[derive(Clone, Debug)]
pub struct ReplyReader<R = View>(SeqReader<R>);

impl<R: ReadWords> ReplyReader<R> {
    /// The slot that starts `words`.
    pub fn new(words: R) -> Self {
        // A waiter looks again anyway, so one look is short.
        Self(SeqReader::with_limit(
            words,
            ReadLimit {
                tries: 1024,
                nanos: 1_000_000,
            },
        ))
    }

    /// Whether the slot seems to hold the answer to `number`: one load, for spinning and for a sleeper's condition.
    #[inline]
    pub fn is_ready(&self, number: u64) -> bool {
        self.0.peek(|w| w.load_u64(SEQ_HEADER, Ordering::Acquire)) == number
    }

    /// The answer to command `number`, its data copied to the start of `into`: status and length. `None` while it
    /// is not there, also while the writer is inside the slot (it may have been stopped or killed there; its
    /// successor publishes again). Data beyond `into` is cut off.
    ///
    /// # Errors
    /// [`ReplyError`].
    #[inline]
    pub fn take(&self, number: u64, into: &mut [u8]) -> Result<Option<(ReplyStatus, usize)>, ReplyError> {
        if !self.is_ready(number) {
            return Ok(None);
        }
        let taken = self.0.read_with(|w| {
            let found = w.load_u64(SEQ_HEADER, Ordering::Relaxed);
            let status = w.load_u32(SEQ_HEADER + 8, Ordering::Relaxed);
            let len = w.load_u32(SEQ_HEADER + 12, Ordering::Relaxed);
            let n = (len as usize).min(into.len()).min(REPLY_DATA);
            w.read_bytes(SEQ_HEADER + 16, &mut into[..n]);
            (found, status, len)
        });
        let Ok((_, (found, status, len))) = taken else {
            return Ok(None);
        };
        if found != number {
            return Ok(None);
        }
        match ReplyStatus::from_u32(status) {
            Some(status) if len as usize <= REPLY_DATA => Ok(Some((status, (len as usize).min(into.len())))),
            _ => Err(ReplyError::Malformed { number, status, len }),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    fn slot() -> (ViewMut, ReplyWriter, ReplyReader) {
        let words = ViewMut::new(Arc::new(Map::anonymous(8192).unwrap()));
        (
            words.clone(),
            ReplyWriter::new(words.clone()),
            ReplyReader::new(words.view().clone()),
        )
    }

    #[test]
    fn a_reply_is_taken_under_its_number_only() {
        let (_, mut w, r) = slot();
        let mut buf = [0; 8];
        assert_eq!(r.take(5, &mut buf), Ok(None));
        w.publish(5, ReplyStatus::Done, &[1, 2]);
        assert_eq!(r.take(4, &mut buf), Ok(None));
        assert_eq!(r.take(6, &mut buf), Ok(None));
        assert_eq!(r.take(5, &mut buf), Ok(Some((ReplyStatus::Done, 2))));
        assert_eq!(buf[..2], [1, 2]);
    }

    #[test]
    fn a_page_of_data_fits_and_is_cut_to_the_readers_buffer() {
        let (_, mut w, r) = slot();
        w.publish(1, ReplyStatus::Done, &[7; REPLY_DATA]);
        let mut page = [0; REPLY_DATA];
        assert_eq!(r.take(1, &mut page), Ok(Some((ReplyStatus::Done, REPLY_DATA))));
        assert_eq!(page, [7; REPLY_DATA]);
        assert_eq!(r.take(1, &mut page[..3]), Ok(Some((ReplyStatus::Done, 3))));
    }

    #[test]
    fn a_lying_slot_is_an_error() {
        let (words, mut w, r) = slot();
        w.publish(1, ReplyStatus::Done, &[]);
        words.store_u32(SEQ_HEADER + 12, 5000, Ordering::Relaxed);
        let e = r.take(1, &mut [0; 8]).unwrap_err();
        assert_eq!(
            e,
            ReplyError::Malformed {
                number: 1,
                status: 0,
                len: 5000
            }
        );
        words.store_u32(SEQ_HEADER + 12, 0, Ordering::Relaxed);
        words.store_u32(SEQ_HEADER + 8, 9, Ordering::Relaxed);
        assert!(matches!(
            r.take(1, &mut [0; 8]),
            Err(ReplyError::Malformed { status: 9, .. })
        ));
    }

    #[test]
    fn a_slot_left_busy_holds_no_reply_until_the_successor_publishes_again() {
        let (words, mut w, r) = slot();
        w.publish(3, ReplyStatus::Done, &[1]);
        words.store_u32(0, 3, Ordering::Relaxed);
        assert_eq!(r.take(3, &mut [0; 8]), Ok(None));
        let reply = Reply {
            number: 3,
            status: ReplyStatus::Partial,
            data: vec![9],
        };
        ReplyWriter::new(words).publish_reply(&reply);
        assert_eq!(r.take(3, &mut [0; 8]), Ok(Some((ReplyStatus::Partial, 1))));
    }
}
