//! The audio rings: playback from the sound devices to the host, capture the other way.
//!
//! Fields and rules are those of S3.70–S3.77, laid out per writer: io-worker's file holds what it owns (format,
//! write index, overruns, samples), audio-worker's file what that owns (read index, underruns, the rate of the host).
//! Two changes close defects of the source. The capacity is a power of two, because free-running 32-bit
//! indices over any other one jump when they wrap, after a day at 48 kHz. And the words of the two sides lie in
//! different files, so on different lines.
//!
//! Nobody waits for anybody: a full ring drops what is new, an empty one gives silence, both are counted. The
//! consumer's [`PlaybackConsumer::fill`] runs in a real-time callback: no allocation, no system call, no loop longer
//! than its buffer.
//!
//! There is one producer, because only io-worker can write its file (S3.74): the assignment is a map, not a
//! message, and a successor has it from its start.
//!
//! SYNC POINT `audio-write`: the producer's release store of the write index pairs with the consumer's acquire load.
//! SYNC POINT `audio-read`: the consumer's release store of the read index pairs with the producer's acquire load, so
//! that samples are overwritten only after they have been read.

mod capture;
mod playback;

pub use capture::{CaptureConsumer, CaptureProducer};
pub use playback::{Fill, PlaybackConsumer, PlaybackProducer, PlaybackSnapshot, clear_to_silence, unheard};

/// First word of the playback header, "QAPR" in memory.
pub const PLAYBACK_MAGIC: u32 = u32::from_le_bytes(*b"QAPR");
/// First word of the capture header, "QACR" in memory.
pub const CAPTURE_MAGIC: u32 = u32::from_le_bytes(*b"QACR");
/// Version of both.
pub const VERSION: u32 = 1;
/// Largest capacity in frames (S3.73).
pub const CAPACITY_MAX: u32 = 1 << 20;
/// Largest capacity in frames of the rings in the files of this build.
pub const RING_FRAMES_MAX: u32 = 64 << 10;
/// Most channels (S3.73).
pub const CHANNELS_MAX: u32 = 2;
/// Frames that a producer puts into the ring before it starts the stream (S3.75).
pub const PREFILL: u32 = 512;
/// The rate when nobody says otherwise, in frames per second.
pub const RATE_DEFAULT: u32 = 48_000;

/// Where the producer's playback part starts in the contents of io-worker's audio file.
pub const AT_PLAYBACK: usize = 0;
/// Where io-worker's part of the capture ring starts in the contents of its audio file.
pub const AT_CAPTURE_HEAD: usize = 0xF_0000;
/// Where audio-worker's part of the playback ring starts in the contents of its audio file.
pub const AT_PLAYBACK_HEAD: usize = 0;
/// Where audio-worker's part of the capture ring starts in the contents of its audio file.
pub const AT_CAPTURE: usize = 0x1_0000;
/// Bytes of a ring's larger part: header and [`RING_FRAMES_MAX`] stereo frames.
pub const RING_BYTES: usize = SAMPLES + RING_FRAMES_MAX as usize * CHANNELS_MAX as usize * 4;
/// Bytes of a ring's smaller part.
pub const HEAD_BYTES: usize = 128;

/// Where the samples start in a ring's larger part.
const SAMPLES: usize = 4096;

const _: () = assert!(AT_PLAYBACK + RING_BYTES <= AT_CAPTURE_HEAD);
const _: () = assert!(AT_CAPTURE + RING_BYTES <= 1 << 20);

/// The shape of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Frames per second, 8000–192 000.
    pub rate: u32,
    /// Samples per frame, 1 or 2.
    pub channels: u32,
    /// Frames in the ring, a power of two.
    pub capacity: u32,
}

impl Format {
    /// A stream at `rate` with about 200 ms in the ring (S3.75): the power of two nearest to a fifth of a second.
    /// Values out of range are clamped.
    pub fn new(rate: u32, channels: u32) -> Self {
        let rate = rate.clamp(8000, 192_000);
        let wanted = rate / 5;
        let above = wanted.next_power_of_two();
        let nearest = if above - wanted <= wanted - above / 2 {
            above
        } else {
            above / 2
        };
        Self {
            rate,
            channels: channels.clamp(1, CHANNELS_MAX),
            capacity: nearest.min(RING_FRAMES_MAX),
        }
    }

    /// The same with every field forced into its range (S3.73); the capacity is rounded down to a power of two.
    pub fn clamped(self) -> Self {
        let capacity = self.capacity.clamp(1, CAPACITY_MAX.min(RING_FRAMES_MAX));
        Self {
            rate: self.rate.clamp(8000, 192_000),
            channels: self.channels.clamp(1, CHANNELS_MAX),
            capacity: 1 << capacity.ilog2(),
        }
    }

    fn is_valid(self) -> bool {
        self == self.clamped()
    }
}

/// Why one end of a ring could not be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AudioError {
    /// The header is of another build.
    #[error("The audio ring has magic {magic:#x} and version {version}")]
    Foreign {
        /// Magic found.
        magic: u32,
        /// Version found.
        version: u32,
    },
    /// The header holds a format that no producer writes.
    #[error("The audio ring claims {0:?}")]
    Format(Format),
}

/// Frames to read between two indices (S3.72): the difference modulo 2^32, at most the capacity.
pub const fn available(read: u32, write: u32, capacity: u32) -> u32 {
    let used = write.wrapping_sub(read);
    if used > capacity { capacity } else { used }
}

/// Frames that may be written between two indices (S3.72).
pub const fn free(read: u32, write: u32, capacity: u32) -> u32 {
    capacity - available(read, write, capacity)
}

#[cfg(all(test, not(loom)))]
mod tests;
