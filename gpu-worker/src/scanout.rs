//! One screen from VRAM to presented frames.

use quintet_protocol::framebuffer::{FrameWriter, Published, TileSet};
use quintet_protocol::scanout::BUSY;
use quintet_protocol::time::VmTime;
use quintet_protocol::vram::{DirtTracker, EpochWish, Palette, VgaRegisters, VramReader, vbe};

use crate::png;
use crate::render::{Damage, Inputs, Picture, Renderer};

/// What is shown while the cpu-worker's records cannot be read is what was shown before.
#[derive(Debug)]
pub struct Scanout {
    vram: VramReader,
    frames: FrameWriter,
    tracker: DirtTracker,
    epoch: EpochWish,
    renderer: Renderer,
    registers: VgaRegisters,
    palette: Palette,
    /// Generation words of the records drawn last.
    drawn: Option<[u32; 3]>,
    /// A frame was drawn that could not be published, since readers hold every slot.
    unpublished: bool,
    /// Tiles drawn since a window last asked; `None` while nobody does.
    unseen: Option<TileSet>,
}

/// What [`Scanout::refresh`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// The picture is as it was.
    Same,
    /// A frame was published.
    Frame(u32),
    /// A frame is ready and waits for a slot.
    Waiting,
}

impl Scanout {
    /// Scan-out of `vram` into `frames`; `epoch` is asked for after pages were found open for writing. Everything is
    /// drawn anew: a successor does not trust what it finds.
    pub fn new(vram: VramReader, frames: FrameWriter, epoch: EpochWish) -> Self {
        Self {
            vram,
            frames,
            tracker: DirtTracker::default(),
            epoch,
            renderer: Renderer::default(),
            registers: VgaRegisters::default(),
            palette: Palette::default(),
            drawn: None,
            unpublished: false,
            unseen: None,
        }
    }

    /// The picture as drawn last.
    pub fn picture(&self) -> &Picture {
        self.renderer.picture()
    }

    /// Whether the picture is one of the VGA's own modes, which monitors show as 4:3 whatever their dots.
    pub fn is_legacy(&self) -> bool {
        self.registers.vbe[vbe::ENABLE] & vbe::ENABLE_ENABLED == 0
    }

    /// The tiles drawn since the last call, all of them at the first.
    pub fn take_unseen(&mut self) -> TileSet {
        let layout = self.renderer.picture().layout();
        self.unseen
            .replace(TileSet::none(layout))
            .unwrap_or_else(|| TileSet::all(layout))
    }

    /// Whether there is something to draw, as some loads tell: to be asked before sleeping. What blinks is not
    /// counted.
    pub fn is_dirty(&self) -> bool {
        let now = self.vram.generations();
        let records = match self.drawn {
            None => true,
            // A record in the middle of its publication is looked at when it is done.
            Some(drawn) => drawn
                .iter()
                .zip(now)
                .any(|(&drawn, now)| drawn != now && now & BUSY == 0),
        };
        records || self.unpublished || self.tracker.any(&self.vram, Renderer::watched(&self.registers))
    }

    /// Draws what changed, and publishes it if it looks different.
    pub fn refresh(&mut self, now: VmTime) -> Refresh {
        let first = self.drawn.is_none();
        let generations = self.vram.generations();
        let records = self.drawn != Some(generations);
        if records {
            self.read_records(generations);
        }
        let watched = Renderer::watched(&self.registers);
        let mut pages = Vec::new();
        if self.tracker.take(&self.vram, watched, |page| pages.push(page)) {
            self.epoch.ask();
        }
        let damage = if records {
            Damage::All
        } else {
            Damage::Pages(pages)
        };
        let inputs = Inputs {
            registers: &self.registers,
            palette: &self.palette,
            memory: &self.vram,
            now,
        };
        let drawn = self.renderer.render(&inputs, &damage);
        if let Some(unseen) = &mut self.unseen {
            if drawn.resized {
                *unseen = drawn.dirty.clone();
            } else {
                unseen.add_all(&drawn.dirty);
            }
        }
        if drawn.dirty.is_empty() && !self.unpublished && !first {
            return Refresh::Same;
        }
        let picture = self.renderer.picture();
        match self
            .frames
            .publish(picture.layout(), picture.pixels(), &drawn.dirty, now)
        {
            Published::Frame(number) => {
                self.unpublished = false;
                Refresh::Frame(number)
            }
            Published::Skipped => {
                self.unpublished = true;
                Refresh::Waiting
            }
        }
    }

    /// Takes the records over that came to rest; one left busy by a dead writer stays as it was, until its
    /// generation moves.
    fn read_records(&mut self, generations: [u32; 3]) {
        let resting = |index: usize| generations[index] & BUSY == 0;
        if resting(0)
            && let Ok(registers) = self.vram.registers()
        {
            self.registers = registers;
        }
        if resting(1)
            && let Ok(palette) = self.vram.palette()
        {
            self.palette = palette;
        }
        self.drawn = Some(generations);
    }

    /// When the picture changes by itself next.
    pub fn next_blink(&self, now: VmTime) -> Option<VmTime> {
        self.renderer.next_blink(&self.registers, now)
    }

    /// The screen as it is now, as a PNG file; `None` when the encoder refuses.
    pub fn screenshot(&mut self, now: VmTime) -> Option<Vec<u8>> {
        self.refresh(now);
        match png::encode(self.renderer.picture()) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::error!("{error}");
                None
            }
        }
    }

    /// The mode on the screen, for the log.
    pub fn mode(&self) -> String {
        crate::render::describe(&self.registers)
    }
}
