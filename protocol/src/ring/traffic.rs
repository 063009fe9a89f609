//! A ring as somebody sees it who holds neither end: how many records went in, how many came out.
//!
//! Each end publishes its cursor and its count of records in one store, so that two loads are a whole look; and
//! whatever becomes of either process, the two words must agree. A soak asks for that once a second.

use super::{capacity_of, count_of, cursor_of};
use crate::sync::Ordering;
use crate::words::ReadWords;

/// How often a look is begun anew because the consumer was at work meanwhile.
const TRIES: usize = 64;

/// What the words of a ring say at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Records that the producer has published since the machine started, modulo 2^32.
    pub pushed: u32,
    /// Records that the consumer has released, modulo 2^32.
    pub popped: u32,
    /// Bytes between the two cursors, lengths and padding included.
    pub waiting: u32,
    /// Bytes that the ring can hold.
    pub capacity: u32,
}

/// What is wrong with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// The cursors are further apart than the ring is long.
    #[error("{0} bytes wait in a ring of {1}")]
    Length(u32, u32),
    /// The counts do not fit the cursors: a record was lost, or is there twice.
    #[error("{records} records wait in {bytes} bytes")]
    Count {
        /// Records pushed and not popped.
        records: u32,
        /// Bytes in which they would have to be.
        bytes: u32,
    },
}

impl Traffic {
    /// Looks at the ring whose producer's part is `producer` and consumer's part `consumer`; `None` when the consumer moves
    /// on faster than one can look, or the size is no ring's.
    pub fn look<P: ReadWords, C: ReadWords>(producer: &P, consumer: &C) -> Option<Self> {
        let capacity = capacity_of(producer.size())?;
        let mut head = consumer.load_u64(0, Ordering::Acquire);
        for _ in 0..TRIES {
            let tail = producer.load_u64(0, Ordering::Acquire);
            let again = consumer.load_u64(0, Ordering::Acquire);
            // It only grows: it was the same when the tail was loaded.
            if head == again {
                return Some(Self {
                    pushed: count_of(tail),
                    popped: count_of(head),
                    waiting: cursor_of(tail).wrapping_sub(cursor_of(head)),
                    capacity,
                });
            }
            head = again;
        }
        None
    }

    /// Records pushed and not popped.
    pub const fn records(&self) -> u32 {
        self.pushed.wrapping_sub(self.popped)
    }

    /// Whether every record that was pushed was popped or still lies between the cursors.
    ///
    /// # Errors
    /// [`TrafficError`].
    pub fn check(&self) -> Result<(), TrafficError> {
        if self.waiting > self.capacity {
            return Err(TrafficError::Length(self.waiting, self.capacity));
        }
        let (records, bytes) = (self.records(), self.waiting);
        // The smallest record is its length word.
        if (records == 0) != (bytes == 0) || records > bytes / 4 {
            return Err(TrafficError::Count { records, bytes });
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ring::{Consumer, Position, Producer, RING_HEAD_SIZE, format, ring_size};
    use crate::shm::{Map, View, ViewMut};

    fn part(len: usize) -> ViewMut {
        let map = Map::anonymous(len as u64).expect("memory");
        ViewMut::new(Arc::new(map)).slice(0, len)
    }

    fn look(mine: &ViewMut, theirs: &ViewMut) -> Traffic {
        let (mine, theirs): (&View, &View) = (mine.view(), theirs.view());
        Traffic::look(mine, theirs).expect("a ring that nobody uses")
    }

    #[test]
    fn every_record_pushed_is_popped_or_waits() {
        let (p, c) = (part(ring_size(256)), part(RING_HEAD_SIZE));
        let at = Position {
            cursor: u32::MAX - 103,
            number: u64::from(u32::MAX) - 2,
        };
        format(&p, &c, at);
        let mut producer = Producer::attach(p.clone(), c.view().clone()).expect("attaches");
        let mut consumer = Consumer::attach(c.clone(), p.view().clone(), at).expect("attaches");
        let mut into = [0; 64];
        for n in 0..100_u32 {
            // Counts and cursors wrap, and records skip the end of the ring.
            producer.push(&[7; 64][..n as usize % 61]).expect("room");
            let traffic = look(&p, &c);
            assert_eq!((traffic.records(), traffic.check()), (1 + n % 3, Ok(())), "{n}");
            if n % 3 == 2 {
                while consumer.next(&mut into).expect("whole").is_some() {}
                consumer.release_all();
                assert_eq!(look(&p, &c).check(), Ok(()));
                assert_eq!(look(&p, &c).waiting, 0);
            }
        }
    }

    #[test]
    fn counts_that_do_not_fit_the_cursors_are_found() {
        let good = Traffic {
            pushed: 3,
            popped: 1,
            waiting: 24,
            capacity: 256,
        };
        assert_eq!(good.check(), Ok(()));
        let lost = Traffic { waiting: 0, ..good };
        assert_eq!(lost.check(), Err(TrafficError::Count { records: 2, bytes: 0 }));
        let doubled = Traffic { pushed: 0, ..good };
        assert!(matches!(doubled.check(), Err(TrafficError::Count { .. })));
        let far = Traffic { waiting: 260, ..good };
        assert_eq!(far.check(), Err(TrafficError::Length(260, 256)));
        let empty = Traffic { pushed: 1, ..good };
        assert!(empty.check().is_err());
    }
}
