//! Byte streams whose cursor is the position in the stream: serial lines and debug consoles.
//!
//! A stream must neither lose nor double nor alter a byte when its producer is killed and restarted, and the
//! only thing a restarted device knows is what it committed. So a cursor is a 64-bit count of bytes since
//! the machine started: the producer writes bytes at their position, commits the position, and only then
//! publishes the tail; a successor sets its position to the committed one and writes the same bytes to the
//! same places again. Sequence numbers per message were rejected: they need a reader that remembers.
//!
//! A full stream is the device's own business: [`StreamWriter::write`] takes what fits, the rest stays pending in
//! the device. Nothing is dropped here.
//!
//! Layout of the producer's part: tail (u64), end (u64), padding to [`STREAM_HEADER`], bytes. Consumer's part: head (u64).
//! The end is one more than the position behind the last byte of a stream that has one, 0 while more may come.
//!
//! SYNC POINT `stream tail`, `stream head`: as in [`crate::ring`].

use crate::shm::{View, ViewMut};
use crate::sync::{CACHE_LINE, Ordering};
use crate::words::{NoSteps, ReadWords, Steps, WriteWords};

/// Bytes before the first byte of data in the producer's part.
pub const STREAM_HEADER: usize = CACHE_LINE;

/// Offset of the end in the producer's part.
const END: usize = 8;

/// Bytes of the producer's part for a stream of `capacity` bytes.
pub const fn stream_size(capacity: usize) -> usize {
    STREAM_HEADER + capacity
}

/// What is wrong with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer's cursor is not possible: the peer is broken.
    #[error("The peer's stream position {peer} is not possible for this end at {mine}")]
    Peer {
        /// The cursor found.
        peer: u64,
        /// This end's cursor.
        mine: u64,
    },
    /// The size is not a power of two in range.
    #[error("{0} bytes are not a stream's capacity: not a power of two between 16 bytes and 1 GiB")]
    Capacity(usize),
}

fn capacity_of(size: usize) -> Result<u64, StreamError> {
    let capacity = size.wrapping_sub(STREAM_HEADER);
    if capacity.is_power_of_two() && (16..=1 << 30).contains(&capacity) {
        Ok(capacity as u64)
    } else {
        Err(StreamError::Capacity(size))
    }
}

/// The one writer of a stream.
#[derive(Debug)]
pub struct StreamWriter<W = ViewMut, R = View, S = NoSteps> {
    mine: W,
    peer: R,
    steps: S,
    capacity: u64,
    /// Position of the next byte; bytes before it and after the tail are staged.
    position: u64,
    /// What the reader has been told.
    tail: u64,
    /// The reader's head as last seen.
    head: u64,
}

impl<W: WriteWords, R: ReadWords> StreamWriter<W, R> {
    /// The writer of the stream in `mine`, whose reader's part is `peer`, going on at position `at`: 0 for a new
    /// machine, the committed position for a successor. Publishes `at`.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn attach(mine: W, peer: R, at: u64) -> Result<Self, StreamError> {
        StreamWriter::attach_with_steps(mine, peer, at, NoSteps)
    }

    /// The position that a predecessor published: where the writer of a stream goes on that nobody commits.
    pub fn published(mine: &W) -> u64 {
        mine.load_u64(0, Ordering::Relaxed)
    }
}

impl<W: WriteWords, R: ReadWords, S: Steps> StreamWriter<W, R, S> {
    /// [`StreamWriter::attach`] with a hook before each store.
    ///
    /// # Errors
    /// As for [`StreamWriter::attach`].
    pub fn attach_with_steps(mine: W, peer: R, at: u64, steps: S) -> Result<Self, StreamError> {
        let capacity = capacity_of(mine.size())?;
        let mut this = Self {
            mine,
            peer,
            steps,
            capacity,
            position: at,
            tail: at,
            head: at.saturating_sub(capacity),
        };
        this.refresh()?;
        this.mine.store_u64(0, at, Ordering::Release);
        Ok(this)
    }

    /// Stages as many of `bytes` as fit and returns how many: zero when the stream is full.
    ///
    /// # Errors
    /// [`StreamError::Peer`] when the reader is broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        if self.room() < bytes.len() as u64 {
            self.refresh()?;
        }
        let n = self.room().min(bytes.len() as u64) as usize;
        let index = (self.position & (self.capacity - 1)) as usize;
        let first = n.min(self.capacity as usize - index);
        self.steps.step();
        self.mine.write_bytes(STREAM_HEADER + index, &bytes[..first]);
        self.steps.step();
        self.mine.write_bytes(STREAM_HEADER, &bytes[first..n]);
        self.position += n as u64;
        Ok(n)
    }

    /// Bytes that fit now, by a fresh look at the reader's head.
    ///
    /// # Errors
    /// [`StreamError::Peer`] when the reader is broken.
    pub fn free(&mut self) -> Result<u64, StreamError> {
        self.refresh()?;
        Ok(self.room())
    }

    /// Position of the next byte: what to commit, and then to [`Self::publish`].
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Shows the bytes before position `upto` to the reader. To be called after the commit that contains it.
    ///
    /// Panics when `upto` is not between the tail and what has been written, a fault of the caller.
    pub fn publish(&mut self, upto: u64) {
        assert!(
            (self.tail..=self.position).contains(&upto),
            "publish {upto} of {}..{}",
            self.tail,
            self.position
        );
        if upto != self.tail {
            self.steps.step();
            self.mine.store_u64(0, upto, Ordering::Release);
            self.tail = upto;
            self.steps.step();
        }
    }

    /// Nothing comes behind what has been written; all of it is published.
    pub fn end(&mut self) {
        self.publish(self.position);
        self.mine.store_u64(END, self.position + 1, Ordering::Release);
    }

    fn room(&self) -> u64 {
        self.capacity - (self.position - self.head)
    }

    fn refresh(&mut self) -> Result<(), StreamError> {
        let head = self.peer.load_u64(0, Ordering::Acquire);
        if head < self.head || head > self.tail {
            return Err(StreamError::Peer {
                peer: head,
                mine: self.tail,
            });
        }
        self.head = head;
        Ok(())
    }
}

/// The one reader of a stream.
#[derive(Debug)]
pub struct StreamReader<W = ViewMut, R = View> {
    mine: W,
    peer: R,
    capacity: u64,
    /// Position of the next byte to read.
    position: u64,
    /// What the writer has been told.
    head: u64,
}

impl<W: WriteWords, R: ReadWords> StreamReader<W, R> {
    /// The reader of the stream in `peer`, with the head word in `mine`, going on at position `at`: 0 for a new
    /// machine, the committed position for a successor, [`Self::released`] for one that does not commit.
    /// Publishes the head.
    ///
    /// # Errors
    /// [`StreamError::Capacity`].
    pub fn attach(mine: W, peer: R, at: u64) -> Result<Self, StreamError> {
        let capacity = capacity_of(peer.size())?;
        mine.store_u64(0, at, Ordering::Release);
        Ok(Self {
            mine,
            peer,
            capacity,
            position: at,
            head: at,
        })
    }

    /// The position that a predecessor released.
    pub fn released(mine: &W) -> u64 {
        mine.load_u64(0, Ordering::Relaxed)
    }

    /// Copies bytes out and returns how many; zero when there are none.
    ///
    /// # Errors
    /// [`StreamError::Peer`] when the writer is broken.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, StreamError> {
        let n = self.pending()?.min(into.len() as u64) as usize;
        let index = (self.position & (self.capacity - 1)) as usize;
        let first = n.min(self.capacity as usize - index);
        self.peer.read_bytes(STREAM_HEADER + index, &mut into[..first]);
        self.peer.read_bytes(STREAM_HEADER, &mut into[first..n]);
        self.position += n as u64;
        Ok(n)
    }

    /// Bytes that wait to be read.
    ///
    /// # Errors
    /// [`StreamError::Peer`] when the writer is broken.
    pub fn pending(&self) -> Result<u64, StreamError> {
        let tail = self.peer.load_u64(0, Ordering::Acquire);
        if tail < self.position || tail - self.head > self.capacity {
            return Err(StreamError::Peer {
                peer: tail,
                mine: self.position,
            });
        }
        Ok(tail - self.position)
    }

    /// Whether everything has been read and nothing will come.
    pub fn has_ended(&self) -> bool {
        let end = self.peer.load_u64(END, Ordering::Acquire);
        end != 0 && self.position >= end - 1
    }

    /// Position of the next byte to read: what to commit, and then to [`Self::release`].
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives the space of the bytes before position `upto` back to the writer.
    ///
    /// Panics when `upto` is not between the head and what has been read, a fault of the caller.
    pub fn release(&mut self, upto: u64) {
        assert!(
            (self.head..=self.position).contains(&upto),
            "release {upto} of {}..{}",
            self.head,
            self.position
        );
        if upto != self.head {
            self.mine.store_u64(0, upto, Ordering::Release);
            self.head = upto;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shm::Map;

    struct Stream {
        producer_part: ViewMut,
        consumer_part: ViewMut,
    }

    impl Stream {
        fn new(capacity: usize) -> Self {
            let part = |len: usize| ViewMut::new(Arc::new(Map::anonymous(len as u64).unwrap())).slice(0, len);
            Self {
                producer_part: part(stream_size(capacity)),
                consumer_part: part(128),
            }
        }
        fn writer(&self, at: u64) -> StreamWriter {
            StreamWriter::attach(self.producer_part.clone(), self.consumer_part.view().clone(), at).unwrap()
        }
        fn reader(&self, at: u64) -> StreamReader {
            StreamReader::attach(self.consumer_part.clone(), self.producer_part.view().clone(), at).unwrap()
        }
    }

    #[test]
    fn bytes_come_out_as_they_went_in_across_many_wraps() {
        let s = Stream::new(16);
        let (mut w, mut r) = (s.writer(0), s.reader(0));
        let (mut sent, mut got) = (0u32, 0u32);
        let mut buf = [0; 7];
        while got < 2000 {
            let bytes: Vec<u8> = (sent..sent + 11).map(|n| n as u8).collect();
            sent += w.write(&bytes).unwrap() as u32;
            w.publish(w.position());
            let n = r.read(&mut buf).unwrap();
            for &b in &buf[..n] {
                assert_eq!(b, got as u8);
                got += 1;
            }
            r.release(r.position());
        }
    }

    #[test]
    fn a_full_stream_takes_nothing_and_loses_nothing() {
        let s = Stream::new(16);
        let (mut w, mut r) = (s.writer(0), s.reader(0));
        assert_eq!(w.write(&[1; 20]), Ok(16));
        assert_eq!(w.write(&[2; 1]), Ok(0));
        w.publish(16);
        let mut buf = [0; 4];
        assert_eq!(r.read(&mut buf), Ok(4));
        assert_eq!(w.free(), Ok(0), "read is not released");
        r.release(4);
        assert_eq!(w.write(&[2; 9]), Ok(4));
    }

    #[test]
    fn bytes_staged_before_a_death_are_written_again_by_the_successor_and_seen_once() {
        let s = Stream::new(64);
        let mut r = s.reader(0);
        let mut w = s.writer(0);
        w.write(b"committed ").unwrap();
        let committed = w.position();
        w.publish(committed);
        w.write(b"not yet").unwrap();
        drop(w);
        let mut w = s.writer(committed);
        w.write(b"again").unwrap();
        w.publish(w.position());
        let mut buf = [0; 64];
        let n = r.read(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"committed again");
    }

    #[test]
    fn an_end_is_seen_behind_the_last_byte_and_by_every_successor() {
        let s = Stream::new(16);
        let (mut w, mut r) = (s.writer(0), s.reader(0));
        assert!(!r.has_ended(), "nothing is not the end");
        w.write(b"last").unwrap();
        w.end();
        assert!(!r.has_ended());
        let mut buf = [0; 8];
        assert_eq!(r.read(&mut buf), Ok(4));
        assert!(r.has_ended());
        assert!(s.reader(4).has_ended() && !s.reader(3).has_ended());
    }

    #[test]
    fn a_commit_that_was_not_published_is_published_by_the_successor() {
        let s = Stream::new(64);
        let mut r = s.reader(0);
        let mut w = s.writer(0);
        w.write(b"abc").unwrap();
        let committed = w.position();
        drop(w);
        let _w = s.writer(committed);
        let mut buf = [0; 8];
        assert_eq!(r.read(&mut buf), Ok(3));
    }

    #[test]
    fn a_reader_that_dies_before_its_commit_reads_the_same_bytes_again() {
        let s = Stream::new(64);
        let mut w = s.writer(0);
        w.write(b"abcdef").unwrap();
        w.publish(6);
        let mut r = s.reader(0);
        let mut buf = [0; 2];
        r.read(&mut buf).unwrap();
        r.release(2);
        r.read(&mut buf).unwrap();
        let mut r = s.reader(2);
        r.read(&mut buf).unwrap();
        assert_eq!(&buf, b"cd");
    }

    #[test]
    fn s3_63_impossible_cursors_of_a_peer_are_errors() {
        let s = Stream::new(16);
        let (mut w, mut r) = (s.writer(0), s.reader(0));
        s.producer_part.store_u64(0, 17, Ordering::Relaxed);
        assert_eq!(r.read(&mut [0; 4]), Err(StreamError::Peer { peer: 17, mine: 0 }));
        s.producer_part.store_u64(0, 4, Ordering::Relaxed);
        r.read(&mut [0; 4]).unwrap();
        s.producer_part.store_u64(0, 3, Ordering::Relaxed);
        assert_eq!(r.read(&mut [0; 4]), Err(StreamError::Peer { peer: 3, mine: 4 }));
        s.consumer_part.store_u64(0, 1, Ordering::Relaxed);
        assert_eq!(w.free(), Err(StreamError::Peer { peer: 1, mine: 0 }));
        assert_eq!(w.write(&[0; 17]), Err(StreamError::Peer { peer: 1, mine: 0 }));
    }
}
