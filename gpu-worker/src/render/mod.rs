//! Registers and display memory in, pixels out.
//!
//! Nothing here knows of processes, clocks or windows: a [`Renderer`] is given the register file, the DAC, the
//! memory and the VM time, and draws. What it draws is what a monitor would show, dot by dot: a 320-pixel mode
//! that the VGA shows with double dots and double lines is 640×400 here, so that every picture has square enough
//! dots and one rule holds for all modes. It keeps what it drew last, so that drawing the same screen again costs
//! little and the changed tiles are known; apart from that, equal inputs give equal pixels.
//!
//! References: IBM PS/2 Hardware Interface Technical Reference, Video Subsystem (1992); the Bochs VBE interface.

mod colour;
mod geometry;
mod linear;
mod memory;
mod planar;
mod text;

use quintet_protocol::framebuffer::{FrameLayout, Rect, TileSet};
use quintet_protocol::scanout::PixelFormat;
use quintet_protocol::time::VmTime;
use quintet_protocol::vram::{PAGES, Palette, VgaRegisters};

pub use colour::{Colour, Lut};
pub use geometry::{Addressing, Geometry, Mode, Scan, Timing};
pub use memory::Memory;

/// Everything a picture is made of.
#[derive(Debug)]
pub struct Inputs<'a, M> {
    /// The register file.
    pub registers: &'a VgaRegisters,
    /// The DAC.
    pub palette: &'a Palette,
    /// Display memory.
    pub memory: &'a M,
    /// Now, which gives the phase of whatever blinks.
    pub now: VmTime,
}

/// What changed in display memory since the last call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Anything may have.
    All,
    /// These 4 KiB pages have, in ascending order.
    Pages(Vec<usize>),
}

/// A picture of RGBA8 pixels with alpha 255 (S3.87).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    layout: FrameLayout,
    pixels: Vec<u8>,
}

impl Picture {
    /// A black picture; `None` when a frame of that size is not possible.
    pub fn black(width: u32, height: u32) -> Option<Self> {
        let layout = FrameLayout::packed(width, height).ok()?;
        let pixels = [0, 0, 0, 255].repeat(width as usize * height as usize);
        Some(Self { layout, pixels })
    }

    /// Its shape.
    pub fn layout(&self) -> &FrameLayout {
        &self.layout
    }

    /// Its pixels, lines packed.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels of line `y`.
    pub(crate) fn line_mut(&mut self, y: u32) -> &mut [Colour] {
        let stride = self.layout.stride as usize;
        let line = &mut self.pixels[y as usize * stride..][..stride];
        line.as_chunks_mut().0
    }

    /// Replaces line `y` and marks what differs from before.
    fn put_line(&mut self, y: u32, line: &[Colour], dirty: &mut TileSet) {
        let old = self.line_mut(y);
        let differs = |(a, b): (&Colour, &Colour)| a != b;
        let Some(first) = old.iter().zip(line).position(differs) else {
            return;
        };
        let last = old.iter().zip(line).rposition(differs).unwrap_or(first);
        old[first..=last].copy_from_slice(&line[first..=last]);
        let rect = Rect {
            x: first as u32,
            y,
            width: (last - first + 1) as u32,
            height: 1,
        };
        dirty.add_rect(&self.layout, rect);
    }
}

/// What [`Renderer::render`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Whether the picture has another size than before.
    pub resized: bool,
    /// Tiles that may differ from the picture before.
    pub dirty: TileSet,
}

/// Draws one screen over and over.
#[derive(Debug)]
pub struct Renderer {
    picture: Picture,
    drawn: Option<(VgaRegisters, Lut)>,
    text: text::TextCache,
}

impl Default for Renderer {
    fn default() -> Self {
        let picture = Picture::black(720, 400).expect("a possible size");
        Self {
            picture,
            drawn: None,
            text: text::TextCache::default(),
        }
    }
}

impl Renderer {
    /// The picture as drawn last; black 720×400 before that.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Draws. With [`Damage::Pages`], memory outside those pages must be as it was at the last call.
    pub fn render<M: Memory>(&mut self, inputs: &Inputs<'_, M>, damage: &Damage) -> Drawn {
        let geometry = Geometry::of(inputs.registers);
        let resized = self.resize(&geometry);
        let lut = Lut::new(inputs.registers, inputs.palette);
        let same = !resized
            && self
                .drawn
                .as_ref()
                .is_some_and(|(r, l)| r == inputs.registers && *l == lut);
        let mut dirty = TileSet::none(&self.picture.layout);
        match geometry.mode {
            Mode::Blank => {
                if !same {
                    blank(&mut self.picture, &mut dirty);
                }
            }
            Mode::Text => {
                text::draw(
                    &mut self.picture,
                    &mut self.text,
                    &geometry,
                    inputs,
                    &lut,
                    &mut dirty,
                );
            }
            Mode::Planar | Mode::Interleaved | Mode::Packed => {
                if !same || *damage != Damage::Pages(Vec::new()) {
                    planar::draw(&mut self.picture, &geometry, inputs, &lut, &mut dirty);
                }
            }
            Mode::Linear(format) => {
                let damage = if same { damage } else { &Damage::All };
                let lines = linear::damaged_lines(&geometry, format, damage);
                let memory = inputs.memory;
                linear::draw(
                    &mut self.picture,
                    &geometry,
                    format,
                    memory,
                    &lut,
                    &lines,
                    &mut dirty,
                );
            }
        }
        if geometry.mode != Mode::Text {
            self.text.forget();
        }
        if resized {
            dirty = TileSet::all(&self.picture.layout);
        }
        self.drawn = Some((*inputs.registers, lut));
        Drawn { resized, dirty }
    }

    /// Pages of display memory that the picture may depend on.
    pub fn watched(registers: &VgaRegisters) -> core::ops::Range<usize> {
        let geometry = Geometry::of(registers);
        match geometry.mode {
            Mode::Blank => 0..0,
            Mode::Linear(_) => linear::pages(&geometry),
            _ if geometry.vbe => 0..PAGES,
            _ => 0..planar::PAGES_OF_PLANES,
        }
    }

    /// When the picture changes by itself next: `None` if nothing on it blinks.
    pub fn next_blink(&self, registers: &VgaRegisters, now: VmTime) -> Option<VmTime> {
        let geometry = Geometry::of(registers);
        (geometry.mode == Mode::Text && self.text.blinks()).then(|| geometry.timing.next_phase(now))
    }

    fn resize(&mut self, geometry: &Geometry) -> bool {
        let layout = &self.picture.layout;
        if (layout.width, layout.height) == (geometry.width, geometry.height) {
            return false;
        }
        let Some(picture) = Picture::black(geometry.width, geometry.height) else {
            return false;
        };
        self.picture = picture;
        self.text.forget();
        true
    }
}

fn blank(picture: &mut Picture, dirty: &mut TileSet) {
    for pixel in picture.pixels.as_chunks_mut().0 {
        *pixel = [0, 0, 0, 255];
    }
    *dirty = TileSet::all(&picture.layout);
}

/// Names a mode for logs and tests: `text 80x25`, `vbe 800x600 Rgb565`, …
pub fn describe(registers: &VgaRegisters) -> String {
    let geometry = Geometry::of(registers);
    let (width, height) = (geometry.width, geometry.height);
    match geometry.mode {
        Mode::Blank => format!("blank {width}x{height}"),
        Mode::Text => format!(
            "text {}x{}",
            geometry.columns,
            geometry.height / geometry.row_lines()
        ),
        Mode::Planar => format!("planar {width}x{height}"),
        Mode::Interleaved => format!("interleaved {width}x{height}"),
        Mode::Packed => format!("packed {width}x{height}"),
        Mode::Linear(PixelFormat::Indexed8) => format!("vbe {width}x{height} 8 bpp"),
        Mode::Linear(format) => format!("vbe {width}x{height} {format:?}"),
    }
}

#[cfg(test)]
mod tests;
