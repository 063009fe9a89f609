//! The producer's end: stage records privately, publish them with one store.

use super::{Position, PushError, RING_HEADER, WRAP_MARKER, capacity_of, count_of, cursor_of, record_size};
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;
use crate::words::{NoSteps, ReadWords, Steps, WriteWords};

/// The one producer of a ring. Not cloneable: who holds it is the producer.
#[derive(Debug)]
pub struct Producer<W = ViewMut, R = View, S = NoSteps> {
    mine: W,
    peer: R,
    steps: S,
    capacity: u32,
    /// Where the next record goes; records before it and after `published` are staged.
    tail: Position,
    /// What the consumer has been told.
    published: u32,
    /// The consumer's head as last seen.
    head: u32,
}

impl<W: WriteWords, R: ReadWords> Producer<W, R> {
    /// The producer of the ring in `mine` (its size gives the capacity) whose consumer's part is `peer`, going
    /// on where the shared words stand: zeroed words are a new ring, others a predecessor's.
    ///
    /// # Errors
    /// [`PushError::Capacity`]. Words that contradict each other are no error: the ring begins anew, empty, where the consumer says
    /// that it is.
    pub fn attach(mine: W, peer: R) -> Result<Self, PushError> {
        Producer::attach_with_steps(mine, peer, NoSteps)
    }
}

impl<W: WriteWords, R: ReadWords, S: Steps> Producer<W, R, S> {
    /// The same with a hook before each store.
    ///
    /// # Errors
    /// As for [`Producer::attach`].
    pub fn attach_with_steps(mine: W, peer: R, steps: S) -> Result<Self, PushError> {
        let capacity = capacity_of(mine.size()).ok_or(PushError::Capacity(mine.size()))?;
        // The full count first: it trails the head word, and the distance to the tail's count is small.
        let released = peer.load_u64(8, Ordering::Acquire);
        let word = mine.load_u64(0, Ordering::Relaxed);
        let tail = cursor_of(word);
        let ahead = count_of(word).wrapping_sub(released as u32);
        let number = released.wrapping_add(u64::from(ahead));
        let mut this = Self {
            mine,
            peer,
            steps,
            capacity,
            tail: Position { cursor: tail, number },
            published: tail,
            head: tail.wrapping_sub(capacity),
        };
        if this.refresh().is_err() || !tail.is_multiple_of(4) {
            // A predecessor that lied, or a consumer that does. What lay in the ring is lost, and the ring is not.
            let at = Position {
                cursor: cursor_of(this.peer.load_u64(0, Ordering::Acquire)) & !3,
                number: released,
            };
            (this.tail, this.published, this.head) = (at, at.cursor, at.cursor);
            this.mine.store_u64(0, at.pack(), Ordering::Release);
        }
        Ok(this)
    }

    /// The largest payload in bytes.
    pub fn max_payload(&self) -> usize {
        self.capacity as usize / 2 - 4
    }

    /// Writes a record without showing it to the consumer and returns its number. Cheap: no shared word is
    /// stored to, and the consumer's word is looked at only when the ring seems full.
    ///
    /// # Errors
    /// [`PushError`]; nothing has been staged then.
    #[inline]
    pub fn stage(&mut self, payload: &[u8]) -> Result<u64, PushError> {
        let at = self.reserve(payload.len())?;
        self.mine.write_bytes(at, payload);
        self.steps.step();
        Ok(self.tail.number)
    }

    /// Stages one record whose payload is `head` followed by `body`.
    ///
    /// # Errors
    /// [`PushError`]; nothing has been staged then.
    pub fn stage_two(&mut self, head: &[u8], body: &[u8]) -> Result<u64, PushError> {
        let at = self.reserve(head.len() + body.len())?;
        self.mine.write_bytes(at, head);
        self.mine.write_bytes(at + head.len(), body);
        self.steps.step();
        Ok(self.tail.number)
    }

    /// Shows every staged record to the consumer, with one store.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.tail.cursor {
            self.steps.step();
            self.mine.store_u64(0, self.tail.pack(), Ordering::Release);
            self.published = self.tail.cursor;
            self.steps.step();
        }
    }

    /// Stages a record and publishes everything staged; returns the record's number.
    ///
    /// # Errors
    /// [`PushError`]; nothing has been pushed then.
    #[inline]
    pub fn push(&mut self, payload: &[u8]) -> Result<u64, PushError> {
        let number = self.stage(payload)?;
        self.publish();
        Ok(number)
    }

    /// The number of the last record staged or pushed; 0 before the first.
    pub fn number(&self) -> u64 {
        self.tail.number
    }

    /// Whether a payload of `len` bytes would fit now.
    ///
    /// # Errors
    /// [`PushError::TooLarge`] when it never will, [`PushError::Head`] when the peer is broken.
    pub fn has_room(&mut self, len: usize) -> Result<bool, PushError> {
        match self.room(len) {
            Ok(_) => Ok(true),
            Err(PushError::Full { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The number of the last record that the consumer has released (for a consumer that commits: applied),
    /// at most [`Self::number`].
    ///
    /// # Errors
    /// [`PushError::Head`] when the peer is broken.
    #[inline]
    pub fn released(&mut self) -> Result<u64, PushError> {
        let count = self.refresh()?;
        let behind = (self.tail.number as u32).wrapping_sub(count);
        Ok(self.tail.number.saturating_sub(u64::from(behind)))
    }

    /// Whether the consumer has released everything that was published.
    ///
    /// # Errors
    /// [`PushError::Head`] when the peer is broken.
    #[inline]
    pub fn is_drained(&mut self) -> Result<bool, PushError> {
        if self.head != self.published {
            self.refresh()?;
        }
        Ok(self.head == self.published)
    }

    /// Takes the space for a record, writes its length word, and returns the offset of its payload in `mine`.
    #[inline]
    fn reserve(&mut self, len: usize) -> Result<usize, PushError> {
        let (skip, size) = self.room(len)?;
        let mut index = (self.tail.cursor & (self.capacity - 1)) as usize;
        if skip > 0 {
            self.steps.step();
            self.mine
                .store_u32(RING_HEADER + index, WRAP_MARKER, Ordering::Relaxed);
            index = 0;
        }
        self.steps.step();
        self.mine
            .store_u32(RING_HEADER + index, len as u32, Ordering::Relaxed);
        self.steps.step();
        self.tail.cursor = self.tail.cursor.wrapping_add(skip + size);
        // A consumer that lies may have said any number.
        self.tail.number = self.tail.number.wrapping_add(1);
        Ok(RING_HEADER + index + 4)
    }

    /// Bytes to skip before and bytes taken by a record of `len` bytes, if it fits now.
    #[inline]
    fn room(&mut self, len: usize) -> Result<(u32, u32), PushError> {
        let max = self.max_payload();
        if len > max {
            return Err(PushError::TooLarge { len, max });
        }
        let size = record_size(len) as u32;
        let to_end = self.capacity - (self.tail.cursor & (self.capacity - 1));
        let skip = if to_end < size { to_end } else { 0 };
        if self.capacity - self.used() < skip + size {
            self.refresh()?;
            if self.capacity - self.used() < skip + size {
                return Err(PushError::Full { len });
            }
        }
        Ok((skip, size))
    }

    /// Bytes between the last good head and the staged tail; at most the capacity.
    #[inline]
    fn used(&self) -> u32 {
        self.tail.cursor.wrapping_sub(self.head)
    }

    /// Looks at the consumer's head and returns its count of records.
    fn refresh(&mut self) -> Result<u32, PushError> {
        let word = self.peer.load_u64(0, Ordering::Acquire);
        let head = cursor_of(word);
        // The head moves forwards only, and never past what has been published.
        if head.wrapping_sub(self.head) > self.published.wrapping_sub(self.head) {
            return Err(PushError::Head {
                head,
                from: self.head,
                tail: self.published,
            });
        }
        self.head = head;
        Ok(count_of(word))
    }
}
