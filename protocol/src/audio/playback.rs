//! The playback ring (S3.70–S3.75, S3.77).

use super::{AudioError, Format, PLAYBACK_MAGIC, SAMPLES, VERSION, available, free};
use crate::sync::{Ordering, fence};
use crate::words::{ReadWords, WriteWords};

/// Byte offsets in the producer's part.
mod producer_word {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 4;
    pub const RATE: usize = 8;
    pub const CHANNELS: usize = 12;
    pub const CAPACITY: usize = 16;
    /// Moves with every change of format; odd while one is being written.
    pub const EPOCH: usize = 20;
    /// Write index at that change: where the consumer starts to read.
    pub const START: usize = 24;
    pub const WRITE: usize = 128;
    pub const OVERRUN: usize = 132;
    pub const RUNNING: usize = 136;
}

/// Byte offsets in the consumer's part.
mod consumer_word {
    pub const READ: usize = 0;
    pub const UNDERRUN: usize = 4;
    /// Rate of the host, at which the device model should run (S3.75); 0 unknown.
    pub const HOST_RATE: usize = 8;
    /// The producer's epoch that the read index belongs to.
    pub const EPOCH: usize = 12;
    /// Frames of silence that the host's device was given because what had been read came too late.
    pub const UNHEARD: usize = 16;
}

/// Frames of silence that the host's device made up for, as the consumer's part tells; wraps.
pub fn unheard(consumer: &impl ReadWords) -> u32 {
    consumer.load_u32(consumer_word::UNHEARD, Ordering::Relaxed)
}

/// io-worker's end.
#[derive(Debug)]
pub struct PlaybackProducer<W, R> {
    mine: W,
    peer: R,
    format: Format,
    epoch: u32,
    start: u32,
    write: u32,
    overruns: u32,
}

impl<W: WriteWords, R: ReadWords> PlaybackProducer<W, R> {
    /// Goes on with the ring in `mine`, or makes a new one of `format` if there is none of that format. `peer` is the
    /// consumer's part. The stream is stopped.
    pub fn attach(mine: W, peer: R, format: Format) -> Self {
        let format = format.clamped();
        let write = mine.load_u32(producer_word::WRITE, Ordering::Relaxed);
        let overruns = mine.load_u32(producer_word::OVERRUN, Ordering::Relaxed);
        let epoch = mine.load_u32(producer_word::EPOCH, Ordering::Relaxed);
        let start = mine.load_u32(producer_word::START, Ordering::Relaxed);
        let mut this = Self {
            mine,
            peer,
            format,
            epoch,
            start,
            write,
            overruns,
        };
        this.set_running(false);
        match read_header(&this.mine) {
            Ok(Some(header)) if header.format == format => {}
            _ => this.set_format(format),
        }
        this
    }

    /// Changes the format. What is in the ring is lost: the consumer starts to read where the producer stands now.
    pub fn set_format(&mut self, format: Format) {
        let format = format.clamped();
        let busy = self.mine.load_u32(producer_word::EPOCH, Ordering::Relaxed) | 1;
        self.mine.store_u32(producer_word::EPOCH, busy, Ordering::Relaxed);
        // SYNC POINT audio-format: the odd epoch before everything that follows, samples included; pairs with the
        // acquire fences in `read_header` and `fill`.
        fence(Ordering::Release);
        let words = [
            (producer_word::MAGIC, PLAYBACK_MAGIC),
            (producer_word::VERSION, VERSION),
            (producer_word::RATE, format.rate),
            (producer_word::CHANNELS, format.channels),
            (producer_word::CAPACITY, format.capacity),
            (producer_word::START, self.write),
        ];
        for (at, value) in words {
            self.mine.store_u32(at, value, Ordering::Relaxed);
        }
        self.start = self.write;
        self.epoch = busy.wrapping_add(1);
        self.mine
            .store_u32(producer_word::EPOCH, self.epoch, Ordering::Release);
        self.format = format;
    }

    /// The consumer's index; where it will start, as long as it has not noticed the last change of format.
    fn read(&self) -> u32 {
        if self.peer.load_u32(consumer_word::EPOCH, Ordering::Acquire) == self.epoch {
            self.peer.load_u32(consumer_word::READ, Ordering::Acquire)
        } else {
            self.start
        }
    }

    /// The format in force.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Says whether the stream runs. While it does not, the consumer takes nothing and counts no underruns. Ring
    /// audio-worker's doorbell after a start.
    pub fn set_running(&mut self, running: bool) {
        self.mine
            .store_u32(producer_word::RUNNING, u32::from(running), Ordering::Release);
    }

    /// Frames that fit now.
    pub fn free(&self) -> u32 {
        free(self.read(), self.write, self.format.capacity)
    }

    /// Frames in the ring now.
    pub fn level(&self) -> u32 {
        self.format.capacity - self.free()
    }

    /// Puts interleaved samples in and returns how many frames fitted; the rest is dropped and counted (S3.71).
    /// Samples of an incomplete last frame are ignored.
    pub fn push(&mut self, samples: &[f32]) -> u32 {
        let channels = self.format.channels as usize;
        let offered = u32::try_from(samples.len() / channels).unwrap_or(u32::MAX);
        let taken = offered.min(self.free());
        for (index, frame) in (0..taken).zip(samples.chunks_exact(channels)) {
            let at = slot(self.write.wrapping_add(index), self.format);
            for (channel, sample) in frame.iter().enumerate() {
                self.mine
                    .store_u32(at + channel * 4, sample.to_bits(), Ordering::Relaxed);
            }
        }
        self.write = self.write.wrapping_add(taken);
        self.mine
            .store_u32(producer_word::WRITE, self.write, Ordering::Release);
        if offered > taken {
            self.overruns = self.overruns.wrapping_add(offered - taken);
            self.mine
                .store_u32(producer_word::OVERRUN, self.overruns, Ordering::Relaxed);
        }
        taken
    }

    /// Frames dropped so far; wraps.
    pub fn overruns(&self) -> u32 {
        self.overruns
    }

    /// Output frames that were missing so far, as the consumer tells; wraps.
    pub fn underruns(&self) -> u32 {
        self.peer.load_u32(consumer_word::UNDERRUN, Ordering::Relaxed)
    }

    /// The host's rate, at which the device model should run (S3.75); `None` while no consumer is attached.
    pub fn host_rate(&self) -> Option<u32> {
        let rate = self.peer.load_u32(consumer_word::HOST_RATE, Ordering::Relaxed);
        (8000..=192_000).contains(&rate).then_some(rate)
    }

    /// What a snapshot keeps (S3.77).
    pub fn snapshot(&self) -> PlaybackSnapshot {
        PlaybackSnapshot {
            read: self.read(),
            write: self.write,
            rate: self.format.rate,
            channels: self.format.channels,
            capacity: self.format.capacity,
        }
    }

    /// Takes a snapshot's level over: as many frames of silence are in the ring as there were frames. Hostile
    /// values are clamped (S3.73). Counters go on as they are: they are telemetry (S3.77).
    pub fn restore(&mut self, snapshot: &PlaybackSnapshot) {
        let PlaybackSnapshot {
            read,
            write,
            rate,
            channels,
            capacity,
        } = *snapshot;
        self.set_format(Format {
            rate,
            channels,
            capacity,
        });
        clear_to_silence(&self.mine);
        self.write = self
            .write
            .wrapping_add(available(read, write, self.format.capacity));
        self.mine
            .store_u32(producer_word::WRITE, self.write, Ordering::Release);
    }
}

/// What a snapshot keeps of a playback ring: indices, not samples (S3.77).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PlaybackSnapshot {
    /// The consumer's index.
    pub read: u32,
    /// The producer's index.
    pub write: u32,
    /// Frames per second.
    pub rate: u32,
    /// Samples per frame.
    pub channels: u32,
    /// Frames in the ring.
    pub capacity: u32,
}

/// Overwrites every sample of a producer's part with silence.
pub fn clear_to_silence(mine: &impl WriteWords) {
    for at in (SAMPLES..mine.size()).step_by(4) {
        mine.store_u32(at, 0, Ordering::Relaxed);
    }
}

/// Byte offset of a frame. Indices run freely; the capacity is a power of two.
fn slot(index: u32, format: Format) -> usize {
    SAMPLES + ((index & (format.capacity - 1)) * format.channels) as usize * 4
}

/// What a producer's part says of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    format: Format,
    epoch: u32,
    start: u32,
}

/// The header in a producer's part; `None` before there is one and while it changes.
fn read_header(part: &impl ReadWords) -> Result<Option<Header>, AudioError> {
    let epoch = part.load_u32(producer_word::EPOCH, Ordering::Acquire);
    if epoch == 0 || !epoch.is_multiple_of(2) {
        return Ok(None);
    }
    let get = |at| part.load_u32(at, Ordering::Relaxed);
    let (magic, version) = (get(producer_word::MAGIC), get(producer_word::VERSION));
    let start = get(producer_word::START);
    let format = Format {
        rate: get(producer_word::RATE),
        channels: get(producer_word::CHANNELS),
        capacity: get(producer_word::CAPACITY),
    };
    fence(Ordering::Acquire);
    if part.load_u32(producer_word::EPOCH, Ordering::Relaxed) != epoch {
        return Ok(None);
    }
    if magic != PLAYBACK_MAGIC || version != VERSION {
        return Err(AudioError::Foreign { magic, version });
    }
    let end = SAMPLES as u64 + u64::from(format.capacity) * u64::from(format.channels) * 4;
    if !format.is_valid() || end > part.size() as u64 {
        return Err(AudioError::Format(format));
    }
    Ok(Some(Header { format, epoch, start }))
}

/// What [`PlaybackConsumer::fill`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Frames that came from the ring; the rest of the buffer is silence.
    pub frames: u32,
    /// Frames that were missing, and have been counted.
    pub missing: u32,
}

/// audio-worker's end.
#[derive(Debug)]
pub struct PlaybackConsumer<W, R> {
    mine: W,
    peer: R,
    format: Option<Format>,
    epoch: u32,
    read: u32,
    underruns: u32,
    /// What predecessors told.
    unheard: u32,
}

impl<W: WriteWords, R: ReadWords> PlaybackConsumer<W, R> {
    /// The consumer of the ring in `peer`, with the read index in `mine`, going on where a predecessor stood. Tells the
    /// producer the host's rate.
    pub fn attach(mine: W, peer: R, host_rate: u32) -> Self {
        mine.store_u32(consumer_word::HOST_RATE, host_rate, Ordering::Relaxed);
        let read = mine.load_u32(consumer_word::READ, Ordering::Relaxed);
        let underruns = mine.load_u32(consumer_word::UNDERRUN, Ordering::Relaxed);
        let unheard = unheard(&mine);
        Self {
            mine,
            peer,
            format: None,
            epoch: 0,
            read,
            underruns,
            unheard,
        }
    }

    /// Looks whether the producer has (re)made the ring, and returns the format in force. Not for the real-time
    /// path's every call, though it neither allocates nor waits.
    ///
    /// # Errors
    /// [`AudioError`] when the header is not a producer's; the stream is silent then.
    pub fn refresh(&mut self) -> Result<Option<Format>, AudioError> {
        let epoch = self.peer.load_u32(producer_word::EPOCH, Ordering::Acquire);
        if self.format.is_none() || epoch != self.epoch {
            self.format = None;
            if let Some(header) = read_header(&self.peer)? {
                self.take_over(header);
            }
        }
        Ok(self.format)
    }

    /// Reads on in a stream that this end or its predecessor knew, and at the start of one that is new.
    fn take_over(&mut self, header: Header) {
        self.format = Some(header.format);
        self.epoch = header.epoch;
        if self.mine.load_u32(consumer_word::EPOCH, Ordering::Relaxed) != header.epoch {
            self.read = header.start;
            self.mine
                .store_u32(consumer_word::READ, self.read, Ordering::Relaxed);
            // SYNC POINT audio-epoch: the index before its epoch; pairs with the acquire load in the producer's `read`.
            self.mine
                .store_u32(consumer_word::EPOCH, header.epoch, Ordering::Release);
        }
    }

    /// Whether the producer has started the stream.
    pub fn is_running(&self) -> bool {
        self.peer.load_u32(producer_word::RUNNING, Ordering::Acquire) == 1
    }

    /// Frames in the ring now.
    pub fn level(&self) -> u32 {
        let write = self.peer.load_u32(producer_word::WRITE, Ordering::Acquire);
        self.format
            .map_or(0, |format| available(self.read, write, format.capacity))
    }

    /// Fills `out` with interleaved frames from the ring, and with silence where it has none; missing frames are
    /// counted (S3.71). Samples that are no finite numbers become 0. Real-time safe.
    pub fn fill(&mut self, out: &mut [f32]) -> Fill {
        let silence = Fill {
            frames: 0,
            missing: 0,
        };
        let Some(format) = self.format else {
            out.fill(0.0);
            return silence;
        };
        let channels = format.channels as usize;
        let wanted = u32::try_from(out.len() / channels).unwrap_or(u32::MAX);
        let write = self.peer.load_u32(producer_word::WRITE, Ordering::Acquire);
        let frames = wanted.min(available(self.read, write, format.capacity));
        let (filled, rest) = out.split_at_mut(frames as usize * channels);
        for (index, frame) in (0..frames).zip(filled.chunks_exact_mut(channels)) {
            let at = slot(self.read.wrapping_add(index), format);
            for (channel, sample) in frame.iter_mut().enumerate() {
                let value = f32::from_bits(self.peer.load_u32(at + channel * 4, Ordering::Relaxed));
                *sample = if value.is_finite() { value } else { 0.0 };
            }
        }
        rest.fill(0.0);
        // Samples of another format are not this one's: whoever read one sees the epoch that came before it.
        fence(Ordering::Acquire);
        if self.peer.load_u32(producer_word::EPOCH, Ordering::Relaxed) != self.epoch {
            out.fill(0.0);
            return silence;
        }
        self.read = self.read.wrapping_add(frames);
        self.mine
            .store_u32(consumer_word::READ, self.read, Ordering::Release);
        let missing = wanted - frames;
        if missing > 0 {
            self.underruns = self.underruns.wrapping_add(missing);
            self.mine
                .store_u32(consumer_word::UNDERRUN, self.underruns, Ordering::Relaxed);
        }
        Fill { frames, missing }
    }

    /// Passes over the oldest frames, so that at most `level` are left.
    pub fn skip_to_level(&mut self, level: u32) {
        let past = self.level().saturating_sub(level);
        self.read = self.read.wrapping_add(past);
        self.mine
            .store_u32(consumer_word::READ, self.read, Ordering::Release);
    }

    /// Passes over everything in the ring: no stale sound after a pause or a device change.
    pub fn skip_to_write(&mut self) {
        self.read = self.peer.load_u32(producer_word::WRITE, Ordering::Acquire);
        self.mine
            .store_u32(consumer_word::READ, self.read, Ordering::Release);
    }

    /// Missing frames so far; wraps.
    pub fn underruns(&self) -> u32 {
        self.underruns
    }

    /// Tells how many frames the host's device has had to do without since this end was attached; wraps.
    pub fn tell_unheard(&mut self, frames: u32) {
        let all = self.unheard.wrapping_add(frames);
        self.mine
            .store_u32(consumer_word::UNHEARD, all, Ordering::Relaxed);
    }
}
