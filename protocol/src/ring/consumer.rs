//! The consumer's end: read ahead privately, release explicitly.

use super::{PopError, Position, RING_HEADER, WRAP_MARKER, capacity_of, count_of, cursor_of, record_size};
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;
use crate::words::{NoSteps, ReadWords, Steps, WriteWords};

/// A record that has been copied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Bytes written to the caller's buffer.
    pub len: usize,
    /// Number of the record since the machine started, from 1.
    pub number: u64,
}

/// The one consumer of a ring. Not cloneable: who holds it is the consumer.
///
/// Reading does not move the shared head: [`Self::release`] does, so that a consumer that commits what it has
/// applied can die between reading and committing, and its successor reads the same records again.
#[derive(Debug)]
pub struct Consumer<W = ViewMut, R = View, S = NoSteps> {
    mine: W,
    peer: R,
    steps: S,
    capacity: u32,
    /// Where the next record is read.
    read: Position,
    /// What the producer has been told.
    head: u32,
    /// The producer's tail as last seen.
    tail: u32,
    /// A misaligned tail word that has been passed over: as long as it stands there, nothing new has been published.
    /// 0, which is aligned, for none.
    passed: u64,
}

impl<W: WriteWords, R: ReadWords> Consumer<W, R> {
    /// The consumer of the ring in `peer` (its size gives the capacity), with the head word in `mine`, going
    /// on at `at`: the default for a new ring, the committed position for a successor. Publishes the head.
    ///
    /// # Errors
    /// [`PopError::Capacity`].
    pub fn attach(mine: W, peer: R, at: Position) -> Result<Self, PopError> {
        Consumer::attach_with_steps(mine, peer, at, NoSteps)
    }

    /// The consumer of a ring whose records nobody commits, going on at this end's own head word.
    ///
    /// # Errors
    /// [`PopError::Capacity`].
    pub fn attach_at_head(mine: W, peer: R) -> Result<Self, PopError> {
        let word = mine.load_u64(0, Ordering::Relaxed);
        let count = mine.load_u64(8, Ordering::Relaxed);
        // A predecessor killed between its two stores has left the full count one release ahead.
        let number = count.wrapping_sub(u64::from((count as u32).wrapping_sub(count_of(word))));
        Self::attach(
            mine,
            peer,
            Position {
                cursor: cursor_of(word),
                number,
            },
        )
    }
}

impl<W: WriteWords, R: ReadWords, S: Steps> Consumer<W, R, S> {
    /// [`Consumer::attach`] with a hook before each store.
    ///
    /// # Errors
    /// As for [`Consumer::attach`].
    pub fn attach_with_steps(mine: W, peer: R, at: Position, steps: S) -> Result<Self, PopError> {
        let capacity = capacity_of(peer.size()).ok_or(PopError::Capacity(peer.size()))?;
        let at = Position {
            cursor: at.cursor & !3,
            ..at
        };
        let mut this = Self {
            mine,
            peer,
            steps,
            capacity,
            read: at,
            head: at.cursor,
            tail: at.cursor,
            passed: 0,
        };
        this.store_head(at);
        Ok(this)
    }

    /// Copies the next record to the start of `into`; `None` when there is none yet. A record longer than `into`
    /// is dropped with [`PopError::TooLarge`].
    ///
    /// # Errors
    /// [`PopError`]. After one that [`PopError::is_corrupt`] every further call fails too.
    #[inline]
    pub fn next(&mut self, into: &mut [u8]) -> Result<Option<Record>, PopError> {
        if self.read.cursor == self.tail {
            self.refresh()?;
            if self.read.cursor == self.tail {
                return Ok(None);
            }
        }
        let (skip, len) = self.length()?;
        let at = self.read.cursor.wrapping_add(skip);
        let index = (at & (self.capacity - 1)) as usize;
        let fits = len <= into.len();
        if fits {
            self.peer.read_bytes(RING_HEADER + index + 4, &mut into[..len]);
        }
        self.read.cursor = at.wrapping_add(record_size(len) as u32);
        self.read.number = self.read.number.wrapping_add(1);
        if fits {
            Ok(Some(Record {
                len,
                number: self.read.number,
            }))
        } else {
            Err(PopError::TooLarge { len, max: into.len() })
        }
    }

    /// Whether a record waits, as one look at the producer's word tells; for a sleeper's condition.
    #[inline]
    pub fn has_pending(&self) -> bool {
        let word = self.peer.load_u64(0, Ordering::Acquire);
        cursor_of(word) != self.read.cursor && word != self.passed
    }

    /// How far has been read: what to commit, and then to [`Self::release`].
    #[inline]
    pub fn position(&self) -> Position {
        self.read
    }

    /// Gives the space up to `upto` back to the producer. To be called after the commit that contains it.
    ///
    /// Panics when `upto` is not between the head and what has been read, a fault of the caller.
    #[inline]
    pub fn release(&mut self, upto: Position) {
        let step = upto.cursor.wrapping_sub(self.head);
        assert!(
            step <= self.read.cursor.wrapping_sub(self.head),
            "release of {upto:?}, read {:?}",
            self.read
        );
        if step != 0 {
            self.store_head(upto);
        }
    }

    /// Releases everything that has been read: for rings whose records nobody commits.
    #[inline]
    pub fn release_all(&mut self) {
        self.release(self.read);
    }

    /// Goes back to `at`, which has not been released past: for a consumer that reads again.
    ///
    /// Panics when `at` is not between the head and what has been read.
    pub fn rewind(&mut self, at: Position) {
        let ahead = at.cursor.wrapping_sub(self.head);
        assert!(
            ahead <= self.read.cursor.wrapping_sub(self.head),
            "rewind to {at:?}, read {:?}",
            self.read
        );
        self.read = at;
    }

    /// Passes over everything that the producer has published, unread, and returns the new position: what a
    /// reset of the guest, or a producer's successor, does to old records. Also the way out of corruption.
    pub fn skip_to_tail(&mut self) -> Position {
        let word = self.peer.load_u64(0, Ordering::Acquire);
        let ahead = count_of(word).wrapping_sub(self.read.number as u32);
        let cursor = cursor_of(word) & !3;
        self.read = Position {
            cursor,
            number: self.read.number.wrapping_add(u64::from(ahead)),
        };
        self.tail = self.read.cursor;
        self.passed = if cursor_of(word) == cursor { 0 } else { word };
        self.read
    }

    /// [`Self::release`] of a position given by [`Self::skip_to_tail`], whatever lies before it.
    pub fn release_skipped(&mut self, upto: Position) {
        self.store_head(upto);
    }

    fn store_head(&mut self, at: Position) {
        self.steps.step();
        self.mine.store_u64(8, at.number, Ordering::Relaxed);
        self.steps.step();
        self.mine.store_u64(0, at.pack(), Ordering::Release);
        self.steps.step();
        self.head = at.cursor;
    }

    fn refresh(&mut self) -> Result<(), PopError> {
        let word = self.peer.load_u64(0, Ordering::Acquire);
        let tail = cursor_of(word);
        if word == self.passed && word != 0 {
            return Ok(());
        }
        // Between what has been read and one capacity from the head, in whole words.
        let possible = self
            .capacity
            .saturating_sub(self.read.cursor.wrapping_sub(self.head));
        let available = tail.wrapping_sub(self.read.cursor);
        if available > possible || !available.is_multiple_of(4) {
            return Err(PopError::Tail {
                tail,
                read: self.read.cursor,
                head: self.head,
            });
        }
        self.tail = tail;
        Ok(())
    }

    /// Bytes to skip and length of the next record; the length word is read once and checked against what
    /// this end knows.
    #[inline]
    fn length(&self) -> Result<(u32, usize), PopError> {
        let available = self.tail.wrapping_sub(self.read.cursor);
        let index = self.read.cursor & (self.capacity - 1);
        let to_end = self.capacity - index;
        let first = self
            .peer
            .load_u32(RING_HEADER + index as usize, Ordering::Relaxed);
        let bad = |len| PopError::Length {
            len,
            read: self.read.cursor,
            available,
        };
        if first != WRAP_MARKER {
            return self
                .check(first, to_end.min(available))
                .map(|len| (0, len))
                .ok_or_else(|| bad(first));
        }
        // A marker is published together with the record behind it, and never at the start.
        if index == 0 || to_end >= available {
            return Err(bad(first));
        }
        let second = self.peer.load_u32(RING_HEADER, Ordering::Relaxed);
        self.check(second, available - to_end)
            .map(|len| (to_end, len))
            .ok_or_else(|| bad(second))
    }

    #[inline]
    fn check(&self, len: u32, space: u32) -> Option<usize> {
        (len <= self.capacity / 2 - 4 && record_size(len as usize) as u32 <= space).then_some(len as usize)
    }
}
