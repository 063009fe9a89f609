//! The AIPC record ring: one producer process, one consumer process, records in order (S3.44–S3.50).
//!
//! The producer's file holds the tail word and the records, the consumer's file holds the head word, so that
//! neither can write what the other one owns. Each end trusts only its own private cursors; what it reads
//! of the peer's is checked against them (S3.63).
//!
//! Departures from Aero's ring, each with the defect it closes:
//! * one producer, no reservation, no lock: a producer killed inside a push has published nothing (S3.62);
//! * the capacity is a power of two, so free-running 32-bit cursors may wrap (S3.60);
//! * a record takes at most half of the capacity, so that it always fits an empty ring (S3.61);
//! * tail and head lie on lines of their own in different files, and each end caches the other's word (S3.64);
//! * a cursor word is 64 bits: the cursor in the low half, the count of records, modulo 2^32, in the high half.
//!   One store publishes both, so a successor knows the number of every record.
//!
//! Layout of the producer's part: the tail word (u64), padding to [`RING_HEADER`], then the records. Layout of
//! the consumer's part: the head word (u64), then the full 64-bit count of released records, for observers.
//!
//! A record is its length (u32), its bytes, and padding to four. A record that does not fit before the end of
//! the ring is preceded by the marker `0xFFFF_FFFF`, which skips to the start.
//!
//! The ring does not wait. Ends that want to sleep combine it with a [`crate::doorbell`].
//!
//! SYNC POINT `tail`: the producer's release store of the tail pairs with the consumer's acquire load.
//! SYNC POINT `head`: the consumer's release store of the head pairs with the producer's acquire load, so that
//! records are overwritten only after they have been copied out (or, for a consumer that commits, after
//! nobody will need them again).

mod consumer;
mod producer;
mod traffic;

pub use consumer::{Consumer, Record};
pub use producer::Producer;
pub use traffic::{Traffic, TrafficError};

use crate::sync::{CACHE_LINE, Ordering};
use crate::words::WriteWords;

/// Bytes before the first record in the producer's part.
pub const RING_HEADER: usize = CACHE_LINE;
/// Bytes of the consumer's part.
pub const RING_HEAD_SIZE: usize = CACHE_LINE;
/// Length word that stands for "skip to the start" (S3.46).
pub const WRAP_MARKER: u32 = 0xFFFF_FFFF;
/// Smallest capacity, in bytes.
pub const MIN_CAPACITY: usize = 16;
/// Largest capacity, in bytes: cursors that far apart are still ordered.
pub const MAX_CAPACITY: usize = 1 << 30;

/// Bytes of the producer's part for a ring of `capacity` bytes.
pub const fn ring_size(capacity: usize) -> usize {
    RING_HEADER + capacity
}

/// Bytes that a record of `len` bytes takes: length word, bytes, padding to four.
pub const fn record_size(len: usize) -> usize {
    4 + len.next_multiple_of(4)
}

/// A place in a ring: how far a consumer has got. Part of what a consumer commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The free-running byte cursor.
    pub cursor: u32,
    /// How many records lie before it: the number of the last record, counted from 1 since the machine
    /// started.
    pub number: u64,
}

impl Position {
    const fn pack(self) -> u64 {
        ((self.number & 0xFFFF_FFFF) << 32) | self.cursor as u64
    }
}

/// The low half of a cursor word.
const fn cursor_of(word: u64) -> u32 {
    word as u32
}

/// The high half of a cursor word.
const fn count_of(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Why a ring could not be attached to, or why a record could not be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// No space until the consumer moves its head.
    #[error("The ring has no room for a record of {len} bytes")]
    Full {
        /// Bytes of the payload.
        len: usize,
    },
    /// The record is larger than half of the ring and will never fit (S3.61).
    #[error("A record of {len} bytes passes the limit of {max}")]
    TooLarge {
        /// Bytes of the payload.
        len: usize,
        /// Largest payload of this ring.
        max: usize,
    },
    /// The consumer's head lies outside what has been published: the peer is broken.
    #[error("The consumer's head {head:#x} is not between {from:#x} and the tail {tail:#x}")]
    Head {
        /// The head found.
        head: u32,
        /// The last good head.
        from: u32,
        /// The published tail.
        tail: u32,
    },
    /// The ring's size is not a power of two in range.
    #[error("{0} bytes are not a ring's capacity: not a power of two between 16 bytes and 1 GiB")]
    Capacity(usize),
}

/// Why a record could not be popped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PopError {
    /// The record is longer than the caller's buffer. It has been dropped and the next one may be read.
    #[error("A record of {len} bytes passes the reader's limit of {max}")]
    TooLarge {
        /// Bytes of the payload.
        len: usize,
        /// Bytes of the caller's buffer.
        max: usize,
    },
    /// The producer's tail lies outside what is possible: the peer is broken.
    #[error("The producer's tail {tail:#x} is not possible for a reader at {read:#x} with head {head:#x}")]
    Tail {
        /// The tail found.
        tail: u32,
        /// This end's read cursor.
        read: u32,
        /// This end's head.
        head: u32,
    },
    /// A length word that no producer writes there: the peer is broken.
    #[error("The length word {len:#x} at cursor {read:#x} is not possible with {available} bytes available")]
    Length {
        /// The length word found.
        len: u32,
        /// This end's read cursor.
        read: u32,
        /// Bytes between the read cursor and the tail.
        available: u32,
    },
    /// The ring's size is not a power of two in range.
    #[error("{0} bytes are not a ring's capacity: not a power of two between 16 bytes and 1 GiB")]
    Capacity(usize),
}

impl PopError {
    /// Whether the peer is broken, so that reading on makes no sense until the ring is set up again.
    pub const fn is_corrupt(self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}

/// The capacity of a producer's part of `size` bytes, if it is one.
fn capacity_of(size: usize) -> Option<u32> {
    let capacity = size.checked_sub(RING_HEADER)?;
    (capacity.is_power_of_two() && (MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity))
        .then_some(capacity as u32)
}

/// Writes both words of an empty ring so that its cursors start at `at`: for tests, and for a segment that
/// is made again. Zeroed memory is a ring that starts at zero.
pub fn format<P: WriteWords, C: WriteWords>(producer: &P, consumer: &C, at: Position) {
    consumer.store_u64(8, at.number, Ordering::Relaxed);
    consumer.store_u64(0, at.pack(), Ordering::Release);
    producer.store_u64(0, at.pack(), Ordering::Release);
}

#[cfg(all(test, not(loom)))]
mod tests;
