//! The reading end: anybody's, with a lease in the reader's own file.

use super::{
    FRAME_MAX, FRAMEBUFFER_BYTES, FrameLayout, LEASE_BYTES, LayoutError, MAGIC, Rect, VERSION, dirty_rects,
    head, head_at, pixels_at, slots, word,
};
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;
use crate::time::VmTime;

/// Why a frame could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The file is of another build.
    #[error("The framebuffer has magic {magic:#x} and version {version}; this build reads version {VERSION}")]
    Foreign {
        /// Magic found.
        magic: u32,
        /// Version found.
        version: u32,
    },
    /// The active index names no slot.
    #[error("The framebuffer's active index is {0}")]
    Active(u32),
    /// The newest frame never came to rest.
    #[error("The newest frame stayed busy through {} attempts", slots::LEASE_ATTEMPTS)]
    Contended,
    /// The slot's head describes no frame.
    #[error("The frame's head is impossible")]
    Layout(#[from] LayoutError),
    /// The slot's head contradicts itself.
    #[error("The frame's head claims {found} for {what}, {expected} follows from its size")]
    Head {
        /// Which field.
        what: &'static str,
        /// Value found.
        found: u32,
        /// Value that would be right.
        expected: u32,
    },
}

/// A reader of presented frames: one per lease area.
#[derive(Debug)]
pub struct FrameReader {
    view: View,
    words: View,
    lease: ViewMut,
}

impl FrameReader {
    /// Reads the file whose contents are `view`, with this process's lease area (of [`LEASE_BYTES`]) in
    /// `lease`. A lease that a predecessor left is ended.
    ///
    /// Panics when either is too short.
    pub fn new(view: View, lease: &ViewMut) -> Self {
        assert!(
            view.len() >= FRAMEBUFFER_BYTES,
            "a framebuffer file of {} bytes",
            view.len()
        );
        let words = view.slice(word::SLOTS * 4, slots::SLOT_WORDS * 4);
        let lease = lease.slice(0, LEASE_BYTES);
        slots::release(&lease);
        Self { view, words, lease }
    }

    /// The number of the newest frame; 0 before the first.
    pub fn newest(&self) -> u32 {
        slots::newest(&self.words)
    }

    /// The pacing words of S3.86: status (0 presented, 1 dirty, 2 presenting), seq, received, presented, dropped.
    pub fn pacing(&self) -> [u32; 5] {
        core::array::from_fn(|index| self.view.load_u32((word::PACING + index) * 4, Ordering::Relaxed))
    }

    /// Leases the newest frame; `None` before the first. While the lease is held the frame does not change,
    /// and the writer has one slot less.
    ///
    /// # Errors
    /// [`FrameError`] when the writer is of another build, or broken.
    pub fn lease(&mut self) -> Result<Option<LeasedFrame<'_>>, FrameError> {
        let magic = self.view.load_u32(word::MAGIC * 4, Ordering::Acquire);
        let version = self.view.load_u32(word::VERSION * 4, Ordering::Relaxed);
        if magic == 0 {
            return Ok(None);
        }
        if magic != MAGIC || version != VERSION {
            return Err(FrameError::Foreign { magic, version });
        }
        let (slot, number) = match slots::lease(&self.words, &self.lease) {
            slots::Leased::Slot(slot, number) => (slot, number),
            slots::Leased::Nothing => return Ok(None),
            slots::Leased::Broken(active) => return Err(FrameError::Active(active)),
            slots::Leased::Contended => return Err(FrameError::Contended),
        };
        // From here on the guard ends the lease, on the error paths too.
        let guard = Guard { lease: &self.lease };
        let info = info(&self.view, slot, number)?;
        Ok(Some(LeasedFrame {
            view: &self.view,
            slot,
            info,
            _guard: guard,
        }))
    }
}

fn info(view: &View, slot: usize, number: u32) -> Result<FrameInfo, FrameError> {
    let get = |word: usize| view.load_u32(head_at(slot, word), Ordering::Relaxed);
    let layout = FrameLayout::new(
        get(head::WIDTH),
        get(head::HEIGHT),
        get(head::STRIDE),
        get(head::TILE),
    )?;
    let expected = [
        ("format", get(head::FORMAT), 0),
        ("tiles_x", get(head::TILES_X), layout.tiles_x),
        ("tiles_y", get(head::TILES_Y), layout.tiles_y),
        ("dirty_words", get(head::DIRTY_WORDS), layout.dirty_words),
    ];
    for (what, found, expected) in expected {
        if found != expected {
            return Err(FrameError::Head {
                what,
                found,
                expected,
            });
        }
    }
    if layout.slot_bytes as usize > FRAME_MAX {
        return Err(FrameError::Head {
            what: "size",
            found: layout.slot_bytes,
            expected: FRAME_MAX as u32,
        });
    }
    let time = u64::from(get(head::TIME_LOW)) | u64::from(get(head::TIME_HIGH)) << 32;
    Ok(FrameInfo {
        number,
        layout,
        time: VmTime(time),
        base: get(head::BASE),
        owner: get(head::OWNER_EPOCH),
    })
}

/// What is known of a frame besides its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Its number; grows by one per frame, 1 follows 2^31 − 1.
    pub number: u32,
    /// Its shape.
    pub layout: FrameLayout,
    /// When it was shown.
    pub time: VmTime,
    /// The frame that its dirty tiles are relative to; 0 when all of it is new.
    pub base: u32,
    /// Which writer process made it, counted from 1.
    pub owner: u32,
}

#[derive(Debug)]
struct Guard<'a> {
    lease: &'a ViewMut,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        slots::release(self.lease);
    }
}

/// A frame that stays as it is until this is dropped.
#[derive(Debug)]
pub struct LeasedFrame<'a> {
    view: &'a View,
    slot: usize,
    info: FrameInfo,
    _guard: Guard<'a>,
}

impl LeasedFrame<'_> {
    /// Number, shape and time.
    pub fn info(&self) -> &FrameInfo {
        &self.info
    }

    /// Copies `into.len()` bytes of line `y` (RGBA8, from the left) out. Panics when the line is not in the
    /// frame or `into` is longer than the stride.
    pub fn read_line(&self, y: u32, into: &mut [u8]) {
        let layout = &self.info.layout;
        assert!(
            y < layout.height && into.len() <= layout.stride as usize,
            "line {y} of {layout:?}"
        );
        self.view
            .read_bytes(pixels_at(self.slot) + y as usize * layout.stride as usize, into);
    }

    /// Copies all pixels out, lines packed.
    pub fn to_rgba(&self) -> Vec<u8> {
        let layout = &self.info.layout;
        let line = layout.width as usize * 4;
        let mut pixels = vec![0; line * layout.height as usize];
        for (y, into) in pixels.chunks_exact_mut(line).enumerate() {
            self.read_line(y as u32, into);
        }
        pixels
    }

    /// What changed since frame `seen`: rectangles if this frame's dirty tiles are relative to it, nothing if it is
    /// this very frame, otherwise the whole frame.
    pub fn changes_since(&self, seen: u32) -> Vec<Rect> {
        let layout = &self.info.layout;
        if seen == self.info.number {
            return Vec::new();
        }
        if seen == 0 || seen != self.info.base {
            return vec![Rect {
                x: 0,
                y: 0,
                width: layout.width,
                height: layout.height,
            }];
        }
        let at = pixels_at(self.slot) + layout.dirty_offset as usize;
        let words: Vec<u32> = (0..layout.dirty_words as usize)
            .map(|index| self.view.load_u32(at + index * 4, Ordering::Relaxed))
            .collect();
        dirty_rects(layout, &words)
    }
}
