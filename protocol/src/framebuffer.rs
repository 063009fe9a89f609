//! Presented frames: what the guest's screen looked like, whole, for anybody who wants to see it.
//!
//! gpu-worker writes, everybody else reads. Three slots: one holds the newest frame, one may be held by a
//! reader, one is being written. Two slots tear (S3.80's own defect): the slot that a slow reader copies is the
//! writer's next. A reader *leases* the slot it reads through a word in its own file, and the writer passes over
//! leased slots; so a reader always gets a whole frame, however slowly it reads and whichever side is stopped
//! or killed, and the writer never waits: with no slot free it skips the frame. Copying under a seqlock was
//! rejected, since a reader that is slower than the frame rate would never succeed.
//!
//! The fields are those of S3.80. What belongs to one frame (its size, its dirty tiles) lies in the head of its slot,
//! so that a mode change cannot tear the description from the pixels. Slots have a fixed place in the file,
//! whatever the size of the frames; memory that no frame touched costs nothing.
//!
//! Order of publication (S3.83): pixels and dirty words, slot sequence, active index, frame sequence.
//! See [`slots`] for the lease protocol and its proof obligations.

mod dirty;
mod reader;
mod shot;
pub mod slots;
mod writer;

pub use dirty::{Rect, TileSet, dirty_rects};
pub use reader::{FrameError, FrameInfo, FrameReader, LeasedFrame};
pub use shot::{SHOT_MAX, ShotError, ShotReader, ShotWriter};
pub use writer::{FrameWriter, Published};

/// First word of the file's contents (S3.80).
pub const MAGIC: u32 = 0xA3F0_FB01;
/// Version of this layout. 1 was the two-slot layout of S3.80.
pub const VERSION: u32 = 2;
/// Number of slots.
pub const SLOTS: usize = 3;
/// Alignment of slots and of what lies in them, in bytes (S3.80).
pub const SLOT_ALIGN: u32 = 64;
/// Most bytes of pixels and dirty words that a frame may have: 2560×1600 fits.
pub const FRAME_MAX: usize = 16 << 20;
/// Side of a dirty tile in pixels, as gpu-worker uses it.
pub const TILE: u32 = 32;
/// Bytes that a reader's lease takes in the reader's file.
pub const LEASE_BYTES: usize = 128;
/// Where the coordinator's lease starts in the contents of its control file.
pub const COORDINATOR_LEASE: usize = 0xA_0000;
/// Where gpu-worker's *armed* counter (see [`crate::vram::SleepHint`]) lies in the contents of its control file.
pub const ARMED_WORD: usize = 0xA_0000;

/// Bytes in front of a slot's pixels.
pub const SLOT_HEAD: usize = 4096;
/// Bytes from slot to slot.
pub const SLOT_PITCH: usize = SLOT_HEAD + FRAME_MAX;
/// Where the first slot starts.
pub const AT_SLOTS: usize = 64 << 10;
/// Where the screenshot area starts.
pub const AT_SHOT: usize = AT_SLOTS + SLOTS * SLOT_PITCH;
/// Length of the file's contents in bytes.
pub const FRAMEBUFFER_BYTES: usize = AT_SHOT + shot::SHOT_BYTES;

/// Words of the file's head, by index.
mod word {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 1;
    /// Counts the processes that have written this file.
    pub const OWNER_EPOCH: usize = 2;
    /// The slot words start here: a line of their own.
    pub const SLOTS: usize = 32;
    /// The pacing words (S3.86) start here: status, seq, received, presented, dropped.
    pub const PACING: usize = 64;
}

/// Words of a slot's head, by index.
mod head {
    pub const WIDTH: usize = 0;
    pub const HEIGHT: usize = 1;
    pub const STRIDE: usize = 2;
    pub const FORMAT: usize = 3;
    pub const TILE: usize = 4;
    pub const TILES_X: usize = 5;
    pub const TILES_Y: usize = 6;
    pub const DIRTY_WORDS: usize = 7;
    pub const TIME_LOW: usize = 8;
    pub const TIME_HIGH: usize = 9;
    /// The frame that the dirty tiles are relative to; 0 none.
    pub const BASE: usize = 10;
    pub const OWNER_EPOCH: usize = 11;
}

/// Why a frame of that shape is not possible (S3.82).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Width or height is zero.
    #[error("A frame of {width}x{height} pixels has no area")]
    Empty {
        /// Width in pixels.
        width: u32,
        /// Height in lines.
        height: u32,
    },
    /// Lines would overlap.
    #[error("A stride of {stride} bytes is shorter than a line of {width} pixels")]
    Stride {
        /// Distance of two lines in bytes.
        stride: u32,
        /// Width in pixels.
        width: u32,
    },
    /// The tile size is not a power of two.
    #[error("A tile size of {0} is not a power of two")]
    Tile(u32),
    /// The frame does not fit into 32-bit offsets.
    #[error("A frame of {width}x{height} pixels with a stride of {stride} is too large")]
    Overflow {
        /// Width in pixels.
        width: u32,
        /// Height in lines.
        height: u32,
        /// Distance of two lines in bytes.
        stride: u32,
    },
}

/// How a frame and its dirty words lie in a slot (S3.80–S3.82).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLayout {
    /// Width in pixels.
    pub width: u32,
    /// Height in lines.
    pub height: u32,
    /// Distance of two lines in bytes.
    pub stride: u32,
    /// Side of a tile in pixels; 0 tracks no dirt.
    pub tile_size: u32,
    /// Tiles in a row.
    pub tiles_x: u32,
    /// Rows of tiles.
    pub tiles_y: u32,
    /// 32-bit words of the dirty set: a bit per tile, row by row.
    pub dirty_words: u32,
    /// Where the dirty words start, in bytes from the first pixel.
    pub dirty_offset: u32,
    /// Pixels and dirty words together, aligned, in bytes.
    pub slot_bytes: u32,
}

impl FrameLayout {
    /// The layout of RGBA8 frames of that shape.
    ///
    /// # Errors
    /// [`LayoutError`] (S3.82).
    pub fn new(width: u32, height: u32, stride: u32, tile_size: u32) -> Result<Self, LayoutError> {
        let overflow = LayoutError::Overflow {
            width,
            height,
            stride,
        };
        if width == 0 || height == 0 {
            return Err(LayoutError::Empty { width, height });
        }
        if stride < width.checked_mul(4).ok_or(overflow)? {
            return Err(LayoutError::Stride { stride, width });
        }
        if tile_size != 0 && !tile_size.is_power_of_two() {
            return Err(LayoutError::Tile(tile_size));
        }
        let (tiles_x, tiles_y) = match tile_size {
            0 => (0, 0),
            side => (width.div_ceil(side), height.div_ceil(side)),
        };
        let dirty_words = tiles_x.checked_mul(tiles_y).ok_or(overflow)?.div_ceil(32);
        let dirty_offset = stride.checked_mul(height).ok_or(overflow)?;
        let dirty_offset = dirty_offset.checked_next_multiple_of(4).ok_or(overflow)?;
        let slot_bytes = dirty_words
            .checked_mul(4)
            .and_then(|bytes| bytes.checked_add(dirty_offset))
            .and_then(|bytes| bytes.checked_next_multiple_of(SLOT_ALIGN))
            .ok_or(overflow)?;
        Ok(Self {
            width,
            height,
            stride,
            tile_size,
            tiles_x,
            tiles_y,
            dirty_words,
            dirty_offset,
            slot_bytes,
        })
    }

    /// The layout of a frame without gaps between its lines, with [`TILE`]s.
    ///
    /// # Errors
    /// [`LayoutError`]; also when it would not fit a slot of this file.
    pub fn packed(width: u32, height: u32) -> Result<Self, LayoutError> {
        let stride = width.saturating_mul(4);
        let layout = Self::new(width, height, stride, TILE)?;
        if layout.slot_bytes as usize > FRAME_MAX {
            return Err(LayoutError::Overflow {
                width,
                height,
                stride,
            });
        }
        Ok(layout)
    }

    /// Where slot `index` starts in a buffer of slots packed behind a head of 64 bytes (S3.80).
    pub fn packed_slot(&self, index: u32) -> u64 {
        u64::from(SLOT_ALIGN) + u64::from(index) * u64::from(self.slot_bytes)
    }

    /// Bytes of a buffer of `slots` slots packed behind a head of 64 bytes (S3.80).
    pub fn packed_total(&self, slots: u32) -> u64 {
        self.packed_slot(slots)
    }

    /// Bytes of pixels.
    pub fn pixel_bytes(&self) -> usize {
        self.stride as usize * self.height as usize
    }
}

/// Byte offset of a word of slot `slot`'s head.
const fn head_at(slot: usize, word: usize) -> usize {
    AT_SLOTS + slot * SLOT_PITCH + word * 4
}

/// Byte offset of slot `slot`'s pixels.
const fn pixels_at(slot: usize) -> usize {
    AT_SLOTS + slot * SLOT_PITCH + SLOT_HEAD
}

#[cfg(all(test, not(loom)))]
mod tests;
