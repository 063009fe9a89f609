//! The writing end: gpu-worker's.

use super::{
    AT_SLOTS, FRAMEBUFFER_BYTES, FrameLayout, MAGIC, SLOTS, TileSet, VERSION, dirty_rects, head, head_at,
    pixels_at, slots, word,
};
use crate::scanout::PixelFormat;
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;
use crate::time::VmTime;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is the newest, under this number.
    Frame(u32),
    /// Readers hold every slot: skipped. Its dirty tiles are added to the next one's.
    Skipped,
}

/// The one writer of the file.
#[derive(Debug)]
pub struct FrameWriter {
    view: ViewMut,
    words: ViewMut,
    pacing: ViewMut,
    leases: Vec<View>,
    epoch: u32,
    layout: Option<FrameLayout>,
    /// Tiles that changed since each slot was written.
    stale: [TileSet; SLOTS],
    /// Tiles that changed since the last frame that was published.
    pending: TileSet,
    /// Number of that frame, 0 when there is none of the present layout.
    base: u32,
    received: u32,
    presented: u32,
    dropped: u32,
}

impl FrameWriter {
    /// Takes the file's contents over from nobody or from a killed predecessor, whose newest frame stays. `leases`
    /// are the lease areas of all readers, each in its reader's file.
    ///
    /// Panics when `view` is shorter than [`FRAMEBUFFER_BYTES`].
    pub fn new(view: ViewMut, leases: Vec<View>) -> Self {
        assert!(
            view.len() >= FRAMEBUFFER_BYTES,
            "a framebuffer file of {} bytes",
            view.len()
        );
        let words = view.slice(word::SLOTS * 4, slots::SLOT_WORDS * 4);
        let pacing = view.slice(word::PACING * 4, 5 * 4);
        let epoch = view
            .load_u32(word::OWNER_EPOCH * 4, Ordering::Relaxed)
            .wrapping_add(1);
        slots::take_over(&words);
        view.store_u32(word::OWNER_EPOCH * 4, epoch, Ordering::Relaxed);
        view.store_u32(word::VERSION * 4, VERSION, Ordering::Relaxed);
        view.store_u32(word::MAGIC * 4, MAGIC, Ordering::Release);
        Self {
            view,
            words,
            pacing,
            leases,
            epoch,
            layout: None,
            stale: Default::default(),
            pending: TileSet::default(),
            base: 0,
            received: 0,
            presented: 0,
            dropped: 0,
        }
    }

    /// Publishes a frame: `pixels` is RGBA8 in `layout` (made by [`FrameLayout::packed`]), `dirty` the tiles
    /// that differ from the frame given last. Never waits.
    ///
    /// Panics when `pixels` is shorter than the layout, a fault of the caller.
    pub fn publish(
        &mut self,
        layout: &FrameLayout,
        pixels: &[u8],
        dirty: &TileSet,
        now: VmTime,
    ) -> Published {
        assert!(
            pixels.len() >= layout.pixel_bytes(),
            "{} bytes of pixels for {layout:?}",
            pixels.len()
        );
        self.received = self.received.wrapping_add(1);
        if self.layout != Some(*layout) {
            self.layout = Some(*layout);
            self.stale = core::array::from_fn(|_| TileSet::all(layout));
            self.pending = TileSet::all(layout);
            self.base = 0;
        }
        self.pending.add_all(dirty);
        for stale in &mut self.stale {
            stale.add_all(dirty);
        }
        let Some(slot) = slots::take(&self.words, &self.leases) else {
            self.dropped = self.dropped.wrapping_add(1);
            self.store_pacing(1);
            return Published::Skipped;
        };
        self.store_pacing(2);
        self.write_slot(slot, layout, pixels, now);
        let number = slots::publish(&self.words, slot);
        self.stale[slot].clear();
        self.pending.clear();
        self.base = number;
        self.presented = self.presented.wrapping_add(1);
        self.store_pacing(0);
        Published::Frame(number)
    }

    fn write_slot(&self, slot: usize, layout: &FrameLayout, pixels: &[u8], now: VmTime) {
        let put =
            |word: usize, value: u32| self.view.store_u32(head_at(slot, word), value, Ordering::Relaxed);
        put(head::WIDTH, layout.width);
        put(head::HEIGHT, layout.height);
        put(head::STRIDE, layout.stride);
        put(head::FORMAT, PixelFormat::Rgba8 as u32);
        put(head::TILE, layout.tile_size);
        put(head::TILES_X, layout.tiles_x);
        put(head::TILES_Y, layout.tiles_y);
        put(head::DIRTY_WORDS, layout.dirty_words);
        put(head::TIME_LOW, now.0 as u32);
        put(head::TIME_HIGH, (now.0 >> 32) as u32);
        put(head::BASE, self.base);
        put(head::OWNER_EPOCH, self.epoch);
        let to = pixels_at(slot);
        for rect in dirty_rects(layout, self.stale[slot].words()) {
            for y in rect.y..rect.y + rect.height {
                let from = y as usize * layout.stride as usize + rect.x as usize * 4;
                self.view
                    .write_bytes(to + from, &pixels[from..from + rect.width as usize * 4]);
            }
        }
        for (index, &word) in self.pending.words().iter().enumerate() {
            self.view.store_u32(
                to + layout.dirty_offset as usize + index * 4,
                word,
                Ordering::Relaxed,
            );
        }
    }

    /// The pacing words of S3.86. Telemetry: nobody decides by them.
    fn store_pacing(&self, status: u32) {
        let values = [
            status,
            slots::newest(&self.words),
            self.received,
            self.presented,
            self.dropped,
        ];
        for (index, value) in values.into_iter().enumerate() {
            self.pacing.store_u32(index * 4, value, Ordering::Relaxed);
        }
    }

    /// The number of the newest frame; 0 before the first.
    pub fn newest(&self) -> u32 {
        slots::newest(&self.words)
    }

    /// Frames skipped because readers held every slot.
    pub fn skipped(&self) -> u32 {
        self.dropped
    }
}

const _: () = assert!(word::PACING * 4 + 20 <= AT_SLOTS);
