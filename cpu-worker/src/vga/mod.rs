//! The VGA's register file and the processor's way to display memory.
//!
//! It lives next to the vCPU because a guest that draws in planes makes an access per byte; io-worker would cost
//! a crossing for each. What the screen shows is read by gpu-worker from the VRAM segment: every change of
//! a register that matters to it is published there at once, every write to memory marks its page. The card
//! is QEMU's standard VGA: a VGA with 16 MiB and the Bochs VBE interface.
//!
//! Not modelled: the 9-bit page of CRTC 22h and other undocumented registers, CGA and Hercules compatibility
//! beyond the registers' own, DDC by wire (the EDID is in the register BAR).

pub mod attribute;
pub mod dac;
pub mod edid;
mod memory;
pub mod planar;
mod ports;
pub mod retrace;
pub mod vbe;

use quintet_protocol::font;
use quintet_protocol::shm::ViewMut;
use quintet_protocol::vram::{Palette, VgaRegisters, VramWriter, plane_index};

use crate::core_complex::snapshot::Snapshot;
use attribute::AttributeState;
use dac::DacState;
use retrace::Timing;
use vbe::VbeState;

pub use memory::{Plain, WINDOW_END, WINDOW_START, Window};

bitflags::bitflags! {
    /// What an access did that others must know.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VgaEffects: u8 {
        /// The picture changed: ask the sleep hint whether scan-out wants its doorbell rung.
        const PICTURE = 1;
        /// [`Vga::window`] changed: cached ways into A0000h–BFFFFh are stale.
        const WINDOW = 2;
    }
}

/// Registers, palette and latches. Display memory is not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VgaState {
    /// Miscellaneous output (3C2h).
    misc: u8,
    /// Feature control (3DAh): kept, without effect.
    feature: u8,
    /// Video subsystem enable (3C3h): kept, without effect.
    enable: u8,
    sequencer_index: u8,
    sequencer: [u8; 8],
    crtc_index: u8,
    crtc: [u8; 25],
    graphics_index: u8,
    graphics: [u8; 9],
    attribute: AttributeState,
    dac: DacState,
    vbe: VbeState,
    /// The latches, plane p in byte p.
    latch: u32,
}

/// The VGA.
#[derive(Debug)]
pub struct Vga {
    state: VgaState,
    vram: VramWriter,
    memory: ViewMut,
    window: Window,
    timing: Timing,
    /// What was published last.
    published: VgaRegisters,
}

impl Vga {
    /// A card after power-on over the VRAM segment, of which the caller is the one writer. Registers and
    /// palette are published; memory is left as it is.
    pub fn new(vram: VramWriter) -> Self {
        let memory = vram.memory();
        let state = VgaState::default();
        let mut vga = Self {
            timing: Timing::new(0, 0, &state.crtc),
            window: Window::default(),
            published: VgaRegisters::default(),
            state,
            vram,
            memory,
        };
        vga.publish();
        vga
    }

    /// Power-on: registers, palette and latches clear. Memory stays, as it does on cards. Scan-out is back
    /// to the legacy VGA (S3.87).
    pub fn reset(&mut self) -> VgaEffects {
        self.state = VgaState::default();
        self.publish();
        VgaEffects::all()
    }

    /// Mode 3 as a VGA BIOS leaves it: 80×25 text, the EGA's 64 colours in the palette, the 8×16 font of code
    /// page 437 in plane 2, the screen filled with blanks of attribute 07h, the cursor at the top left.
    pub fn firmware_mode3(&mut self) -> VgaEffects {
        let mode = VgaRegisters::text_80x25();
        self.state = VgaState {
            misc: mode.misc,
            enable: 1,
            sequencer: mode.sequencer,
            crtc: mode.crtc,
            graphics: mode.graphics,
            ..VgaState::default()
        };
        // Row and scan lines of the cursor as the text mode has them, but at the first cell.
        (self.state.crtc[0x0E], self.state.crtc[0x0F]) = (0, 0);
        self.state.attribute.index = mode.attribute_index;
        self.state.attribute.registers = mode.attribute;
        self.state.dac.mask = mode.pel_mask;
        self.state.dac.set_palette(&Palette::ega());
        for offset in 0..=0xFFFFu16 {
            let glyph = font::CP437_8X16[usize::from(offset >> 5 & 0xFF)];
            // The font's first table: 32 bytes for each of 256 characters, of which 16 are used.
            let row = usize::from(offset & 31);
            let dots = if offset < 0x2000 && row < font::HEIGHT {
                glyph[row]
            } else {
                0
            };
            let blank = if offset < 0x8000 && offset & 1 == 0 {
                u32::from_le_bytes([0x20, 0x07, 0, 0])
            } else {
                0
            };
            let word = blank | u32::from(dots) << 16;
            self.memory.store_u32(
                plane_index(offset, 0),
                word,
                quintet_protocol::sync::Ordering::Relaxed,
            );
        }
        self.vram.mark_range(0, plane_index(0xFFFF, 3) + 1);
        self.publish();
        VgaEffects::all()
    }

    /// How the processor sees A0000h–BFFFFh at present. Changes only with [`VgaEffects::WINDOW`].
    #[inline]
    pub fn window(&self) -> Window {
        self.window
    }

    /// The writer's end of the segment, for the linear framebuffer: memory and dirt marks.
    pub fn vram(&self) -> &VramWriter {
        &self.vram
    }

    /// The registers that scan-out needs.
    fn registers(&self) -> VgaRegisters {
        let s = &self.state;
        VgaRegisters {
            misc: s.misc,
            pel_mask: s.dac.mask,
            attribute_index: s.attribute.index,
            sequencer: s.sequencer,
            crtc: s.crtc,
            graphics: s.graphics,
            attribute: s.attribute.registers,
            vbe: s.vbe.registers,
        }
    }

    /// Brings everything that follows from the registers up to date: window, timing, the published record
    /// and palette.
    fn publish(&mut self) {
        self.state.dac.sanitise();
        self.window = self.classify();
        self.timing = Timing::new(self.state.misc, self.state.sequencer[1], &self.state.crtc);
        self.published = self.registers();
        self.vram.publish_registers(&self.published);
        self.vram.publish_palette(&self.state.dac.palette());
    }

    /// After a write: publishes if `visible`, and tells whether the window changed.
    fn changed(&mut self, visible: bool) -> VgaEffects {
        let mut effects = VgaEffects::empty();
        let window = self.classify();
        if window != self.window {
            self.window = window;
            effects |= VgaEffects::WINDOW;
        }
        if visible {
            self.timing = Timing::new(self.state.misc, self.state.sequencer[1], &self.state.crtc);
            self.published = self.registers();
            self.vram.publish_registers(&self.published);
            effects |= VgaEffects::PICTURE;
        }
        effects
    }
}

impl Snapshot for Vga {
    const KIND: &'static str = "vga";
    const VERSION: u16 = 1;
    type State = VgaState;

    fn save(&self) -> VgaState {
        self.state.clone()
    }

    fn restore(&mut self, state: VgaState) {
        self.state = state;
        self.publish();
    }
}

#[cfg(test)]
mod tests;
