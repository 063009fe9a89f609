//! The capture ring, mono (S3.76): from audio-worker to the sound devices.

use super::{AudioError, CAPACITY_MAX, CAPTURE_MAGIC, RING_FRAMES_MAX, SAMPLES, VERSION, available, free};
use crate::sync::Ordering;
use crate::words::{ReadWords, WriteWords};

mod word {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 4;
    pub const CAPACITY: usize = 8;
    pub const RATE: usize = 12;
    pub const WRITE: usize = 128;
    pub const DROPPED: usize = 132;
    /// In the consumer's part.
    pub const READ: usize = 0;
}

/// audio-worker's end.
#[derive(Debug)]
pub struct CaptureProducer<W, R> {
    mine: W,
    peer: R,
    capacity: u32,
    write: u32,
    dropped: u32,
}

impl<W: WriteWords, R: ReadWords> CaptureProducer<W, R> {
    /// Makes the ring of about 200 ms at `rate` in `mine`, going on at a predecessor's write position; `peer` is the
    /// consumer's part.
    pub fn attach(mine: W, peer: R, rate: u32) -> Self {
        let capacity = super::Format::new(rate, 1).capacity;
        let write = mine.load_u32(word::WRITE, Ordering::Relaxed);
        let dropped = mine.load_u32(word::DROPPED, Ordering::Relaxed);
        mine.store_u32(word::VERSION, VERSION, Ordering::Relaxed);
        mine.store_u32(word::CAPACITY, capacity, Ordering::Relaxed);
        mine.store_u32(word::RATE, rate, Ordering::Relaxed);
        mine.store_u32(word::MAGIC, CAPTURE_MAGIC, Ordering::Release);
        Self {
            mine,
            peer,
            capacity,
            write,
            dropped,
        }
    }

    /// Puts a block of samples in. When not all fit, the latest of this block are kept and the others counted
    /// (S3.76); what is in the ring already stays. Real-time safe.
    pub fn push(&mut self, block: &[f32]) {
        let read = self.peer.load_u32(word::READ, Ordering::Acquire);
        let room = free(read, self.write, self.capacity) as usize;
        let lost = block.len().saturating_sub(room);
        for sample in &block[lost..] {
            let at = SAMPLES + (self.write & (self.capacity - 1)) as usize * 4;
            self.mine.store_u32(at, sample.to_bits(), Ordering::Relaxed);
            self.write = self.write.wrapping_add(1);
        }
        self.mine.store_u32(word::WRITE, self.write, Ordering::Release);
        if lost > 0 {
            self.dropped = self.dropped.wrapping_add(lost as u32);
            self.mine
                .store_u32(word::DROPPED, self.dropped, Ordering::Relaxed);
        }
    }

    /// Samples dropped so far; wraps.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }
}

/// io-worker's end.
#[derive(Debug)]
pub struct CaptureConsumer<W, R> {
    mine: W,
    peer: R,
    capacity: u32,
    read: u32,
}

impl<W: WriteWords, R: ReadWords> CaptureConsumer<W, R> {
    /// The consumer of the ring in `peer`; `None` while there is none. Starts at the newest sample: no stale sound
    /// (S3.76).
    ///
    /// # Errors
    /// [`AudioError`] when the header is not a producer's.
    pub fn attach(mine: W, peer: R) -> Result<Option<Self>, AudioError> {
        let magic = peer.load_u32(word::MAGIC, Ordering::Acquire);
        let version = peer.load_u32(word::VERSION, Ordering::Relaxed);
        let capacity = peer.load_u32(word::CAPACITY, Ordering::Relaxed);
        if magic == 0 {
            return Ok(None);
        }
        if magic != CAPTURE_MAGIC || version != VERSION {
            return Err(AudioError::Foreign { magic, version });
        }
        let fits = SAMPLES as u64 + u64::from(capacity) * 4 <= peer.size() as u64;
        if !capacity.is_power_of_two() || capacity > CAPACITY_MAX.min(RING_FRAMES_MAX) || !fits {
            let rate = peer.load_u32(word::RATE, Ordering::Relaxed);
            return Err(AudioError::Format(super::Format {
                rate,
                channels: 1,
                capacity,
            }));
        }
        let mut this = Self {
            mine,
            peer,
            capacity,
            read: 0,
        };
        this.resume();
        Ok(Some(this))
    }

    /// Passes over everything that was recorded so far, after a pause (S3.76).
    pub fn resume(&mut self) {
        self.read = self.peer.load_u32(word::WRITE, Ordering::Acquire);
        self.mine.store_u32(word::READ, self.read, Ordering::Release);
    }

    /// Samples in the ring now.
    pub fn level(&self) -> u32 {
        available(
            self.read,
            self.peer.load_u32(word::WRITE, Ordering::Acquire),
            self.capacity,
        )
    }

    /// Fills `out` with samples, and with silence where there are none; returns how many there were. A muted endpoint
    /// does not call this: it hears silence and consumes nothing (S3.76).
    pub fn fill(&mut self, out: &mut [f32]) -> u32 {
        let taken = self.level().min(u32::try_from(out.len()).unwrap_or(u32::MAX));
        let (filled, rest) = out.split_at_mut(taken as usize);
        for sample in filled {
            let at = SAMPLES + (self.read & (self.capacity - 1)) as usize * 4;
            let value = f32::from_bits(self.peer.load_u32(at, Ordering::Relaxed));
            *sample = if value.is_finite() { value } else { 0.0 };
            self.read = self.read.wrapping_add(1);
        }
        rest.fill(0.0);
        self.mine.store_u32(word::READ, self.read, Ordering::Release);
        taken
    }
}
