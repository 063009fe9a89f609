//! What is on the screen, as two small records under a generation word (S3.85).
//!
//! A record is published by one writer and read by anybody: the generation word carries a *busy* bit (31) while
//! the words behind it are being stored, and grows by one with each publication. A reader that meets the busy
//! bit, or a generation that moved while it copied, tries again, a bounded number of times; then it reports
//! [`Stuck`] and shows what it had. A killed writer leaves the busy bit set for ever; its successor's first
//! publication clears it. A lock was rejected (nobody could release that of a killed owner), and so was a
//! process id in the record (a number that another process may have by now).

use std::time::{Duration, Instant};

use crate::sync::{Ordering, fence, spin_hint};
use crate::words::{ReadWords, WriteWords};

/// Bit of the generation word that says that the words behind it are being stored.
pub const BUSY: u32 = 1 << 31;
/// Attempts after which a reader gives up (S3.85).
pub const MAX_SPINS: u32 = 1_000_000;
/// Time after which a reader gives up (S3.85).
pub const MAX_WAIT: Duration = Duration::from_millis(50);

/// A record that stayed busy, or kept changing, for as long as a reader is willing to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The record of generation {generation:#x} did not come to rest within {spins} attempts")]
pub struct Stuck {
    /// The generation word at the last look, busy bit included.
    pub generation: u32,
    /// Attempts made.
    pub spins: u32,
}

/// Publishes `record` behind the generation word 0 of `words` and returns the new generation (31 bits). Never
/// waits. A busy bit that a killed predecessor left is cleared.
pub fn publish(words: &impl WriteWords, record: &[u32]) -> u32 {
    let old = words.load_u32(0, Ordering::Relaxed) & !BUSY;
    words.store_u32(0, old | BUSY, Ordering::Relaxed);
    // SYNC POINT record-busy: orders the busy bit before the words; pairs with the acquire fence in `read_once`.
    fence(Ordering::Release);
    for (index, &word) in record.iter().enumerate() {
        words.store_u32((index + 1) * 4, word, Ordering::Relaxed);
    }
    let new = old.wrapping_add(1) & !BUSY;
    // SYNC POINT record-done: pairs with the acquire load in `read_once`.
    words.store_u32(0, new, Ordering::Release);
    new
}

/// One attempt to copy the record out. `Err` holds the generation word that stood in the way.
///
/// # Errors
/// The generation word, when it was busy or moved during the copy; `into` holds a mixture then.
pub fn read_once(words: &impl ReadWords, into: &mut [u32]) -> Result<u32, u32> {
    let before = words.load_u32(0, Ordering::Acquire);
    if before & BUSY != 0 {
        return Err(before);
    }
    for (index, word) in into.iter_mut().enumerate() {
        *word = words.load_u32((index + 1) * 4, Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    let after = words.load_u32(0, Ordering::Relaxed);
    if after == before { Ok(before) } else { Err(after) }
}

/// Copies the record out and returns its generation; tries [`MAX_SPINS`] times or [`MAX_WAIT`] at most.
///
/// # Errors
/// [`Stuck`] when the writer died in the middle, or never rests.
pub fn read(words: &impl ReadWords, into: &mut [u32]) -> Result<u32, Stuck> {
    let mut started = None;
    let mut generation = 0;
    for spins in 0..MAX_SPINS {
        match read_once(words, into) {
            Ok(generation) => return Ok(generation),
            Err(seen) => generation = seen,
        }
        spin_hint();
        if spins % 256 == 255 && started.get_or_insert_with(Instant::now).elapsed() > MAX_WAIT {
            return Err(Stuck { generation, spins });
        }
    }
    Err(Stuck {
        generation,
        spins: MAX_SPINS,
    })
}

/// Where the picture comes from (S3.85).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Source {
    /// The legacy VGA: text, or one of its graphics modes. What a machine shows after reset (S3.87).
    #[default]
    Legacy = 0,
    /// The linear framebuffer of the VBE DISPI registers.
    VbeLinear = 1,
    /// A paravirtual display device. Reserved: nothing publishes it yet.
    Paravirtual = 2,
}

/// Layout of a pixel in a linear framebuffer. `X` bytes are ignored and shown with alpha 255 (S3.87).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum PixelFormat {
    /// Bytes R, G, B, A. The format of presented frames (S3.80).
    #[default]
    Rgba8 = 0,
    /// Bytes B, G, R, X: 32-bit VBE modes.
    Bgrx8 = 1,
    /// Bytes B, G, R: 24-bit VBE modes.
    Bgr8 = 2,
    /// Little-endian 5:6:5 with red on top: 16-bit VBE modes.
    Rgb565 = 3,
    /// Little-endian 1:5:5:5 with an ignored top bit: 15-bit VBE modes.
    Xrgb1555 = 4,
    /// One byte, an index into the DAC.
    Indexed8 = 5,
    /// Four planes of one bit per pixel each, through the attribute controller.
    Planar4 = 6,
}

impl PixelFormat {
    /// Bytes per pixel; zero for the planar format.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Rgba8 | Self::Bgrx8 => 4,
            Self::Bgr8 => 3,
            Self::Rgb565 | Self::Xrgb1555 => 2,
            Self::Indexed8 => 1,
            Self::Planar4 => 0,
        }
    }
}

/// What a linear scan-out shows: the seven words behind the generation of S3.85, as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanoutState {
    /// Where the picture comes from.
    pub source: Source,
    /// Offset of the first pixel in VRAM, in bytes.
    pub base: u64,
    /// Visible width in pixels.
    pub width: u32,
    /// Visible height in pixels.
    pub height: u32,
    /// Distance of two lines in bytes.
    pub pitch: u32,
    /// Pixel layout.
    pub format: PixelFormat,
}

/// Words of a [`CursorState`] with its generation word (S3.85).
pub const CURSOR_WORDS: usize = 12;

/// A hardware cursor (S3.85), for display devices that have one. The VGA's text cursor is not this: it lives
/// in the CRTC registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CursorState {
    /// Whether it is shown.
    pub enable: bool,
    /// Position of the hot spot in pixels; may be outside the picture.
    pub x: i32,
    /// Position of the hot spot in lines.
    pub y: i32,
    /// Hot spot within the image, in pixels.
    pub hot_x: u32,
    /// Hot spot within the image, in lines.
    pub hot_y: u32,
    /// Width of the image in pixels.
    pub width: u32,
    /// Height of the image in lines.
    pub height: u32,
    /// Distance of two lines of the image in bytes.
    pub pitch: u32,
    /// Pixel layout: the number of a [`PixelFormat`]; a reader shows nothing for one it does not know.
    pub format: u32,
    /// Offset of the image in VRAM, in bytes.
    pub base: u64,
}

impl CursorState {
    /// The record behind the generation word.
    pub fn to_words(&self) -> [u32; CURSOR_WORDS - 1] {
        [
            u32::from(self.enable),
            self.x.cast_unsigned(),
            self.y.cast_unsigned(),
            self.hot_x,
            self.hot_y,
            self.width,
            self.height,
            self.pitch,
            self.format,
            self.base as u32,
            (self.base >> 32) as u32,
        ]
    }

    /// The value of a record. Any words make one.
    pub fn from_words(w: &[u32; CURSOR_WORDS - 1]) -> Self {
        Self {
            enable: w[0] & 1 != 0,
            x: w[1].cast_signed(),
            y: w[2].cast_signed(),
            hot_x: w[3],
            hot_y: w[4],
            width: w[5],
            height: w[6],
            pitch: w[7],
            format: w[8],
            base: u64::from(w[9]) | u64::from(w[10]) << 32,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::{Map, ViewMut};
    use std::sync::Arc;

    fn words() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(4096).expect("anonymous map")))
    }

    #[test]
    fn s3_85_a_publication_raises_the_generation_by_one() {
        let w = words();
        assert_eq!(publish(&w, &[1, 2, 3]), 1);
        assert_eq!(publish(&w, &[4, 5, 6]), 2);
        let mut out = [0; 3];
        assert_eq!(read(w.view(), &mut out), Ok(2));
        assert_eq!(out, [4, 5, 6]);
    }

    #[test]
    fn s3_85_the_generation_wraps_across_bit_31() {
        let w = words();
        w.store_u32(0, BUSY - 1, Ordering::Relaxed);
        assert_eq!(publish(&w, &[7]), 0);
        let mut out = [0];
        assert_eq!(read(w.view(), &mut out), Ok(0));
        assert_eq!(out, [7]);
    }

    #[test]
    fn s3_85_a_record_left_busy_is_reported_stuck_and_mended_by_the_next_writer() {
        let w = words();
        publish(&w, &[1]);
        w.store_u32(0, 1 | BUSY, Ordering::Relaxed);
        let stuck = read(w.view(), &mut [0]).expect_err("busy for ever");
        assert_eq!(stuck.generation, 1 | BUSY);
        assert!(stuck.spins > 0);
        assert_eq!(publish(&w, &[2]), 2);
        assert_eq!(read(w.view(), &mut [0]), Ok(2));
    }

    #[test]
    fn s3_85_a_reader_never_sees_two_records_mixed() {
        let w = words();
        publish(&w, &[0; 32]);
        let reader = w.view().clone();
        let writer = std::thread::spawn(move || {
            for n in 1..50_000 {
                publish(&w, &[n; 32]);
            }
        });
        let mut last = 0;
        while last < 49_999 {
            let mut out = [0; 32];
            if let Ok(generation) = read(&reader, &mut out) {
                assert!(out.iter().all(|&word| word == out[0]), "{out:?}");
                assert!(out[0] >= last, "{} after {last}", out[0]);
                assert_eq!(generation, out[0] + 1);
                last = out[0];
            }
        }
        writer.join().expect("writer");
    }

    #[test]
    fn s3_85_cursor_records_keep_every_field() {
        let cursor = CursorState {
            enable: true,
            x: -5,
            y: 1000,
            hot_x: 3,
            hot_y: 4,
            width: 64,
            height: 48,
            pitch: 256,
            format: PixelFormat::Bgrx8 as u32,
            base: 0x12_3456_7890,
        };
        assert_eq!(CursorState::from_words(&cursor.to_words()), cursor);
    }
}
