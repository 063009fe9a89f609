//! The processor's window into display memory at A0000h–BFFFFh.
//!
//! Where an address goes is decided by memory map, odd/even and chain-4 bits (IBM VGA technical reference,
//! sequencer 02h and 04h, graphics 05h and 06h); what arrives there by `planar`. The common modes need none
//! of that: [`Plain`] tells when an access is a copy, so that the interpreter may make it by itself.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::sync::Ordering;
use quintet_protocol::vram::{PAGE_BYTES, VRAM_BYTES};

use super::planar::Graphics;
use super::{Vga, VgaEffects};

/// First address of the VGA's part of memory.
pub const WINDOW_START: u64 = 0xA_0000;
/// The address after its last.
pub const WINDOW_END: u64 = 0xC_0000;

/// Accesses that are plain copies. `address` is the distance from the window's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Plain {
    /// They are not: each goes through [`Vga::read`] and [`Vga::write`].
    #[default]
    No,
    /// Text: byte `address` is at `(address & !1) * 4 + (address & 1)`. An aligned word is one piece.
    OddEven,
    /// 256-colour: byte `address` is at `(address & !3) * 4 + (address & 3)`. An aligned doubleword is one
    /// piece.
    Chain4,
    /// A VBE bank: byte `address` is at `start + address`.
    Linear {
        /// Offset of the bank in display memory, in bytes.
        start: usize,
    },
}

/// How the processor sees display memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Window {
    /// First guest physical address that answers.
    pub start: u64,
    /// How many bytes answer; zero when the card's memory is switched off.
    pub len: u64,
    /// Whether accesses are plain copies.
    pub plain: Plain,
}

impl Window {
    /// Whether the window shows display memory as an array, so that its pages can be reached by pointer.
    pub fn is_linear(&self) -> bool {
        matches!(self.plain, Plain::Linear { .. })
    }

    /// Where a plain byte at `address` lies in display memory; `None` when the window does not answer there,
    /// or not plainly. After a write the page is to be marked.
    #[inline]
    pub fn plain_index(&self, address: GuestPhys) -> Option<usize> {
        let at = address.0.checked_sub(self.start).filter(|&at| at < self.len)? as usize;
        match self.plain {
            Plain::No => None,
            Plain::OddEven => Some((at & !1) * 4 + (at & 1)),
            Plain::Chain4 => Some((at & !3) * 4 + (at & 3)),
            Plain::Linear { start } => Some((start + at) % VRAM_BYTES),
        }
    }
}

/// Where an address goes.
struct Target {
    /// Index of plane 0's byte in display memory.
    index: usize,
    /// Planes a write may reach, before the map mask.
    write_planes: u8,
    /// Plane a read takes.
    read_plane: u8,
}

impl Vga {
    /// Whether the VGA owns the address when RAM does not: A0000h–BFFFFh.
    pub fn claims(address: GuestPhys) -> bool {
        (WINDOW_START..WINDOW_END).contains(&address.0)
    }

    /// The page of display memory at guest physical page `page` (address / 4096), when the window shows memory as an
    /// array there.
    pub fn window_page(&self, page: u64) -> Option<u64> {
        let first = self
            .window
            .plain_index(GuestPhys(page.checked_mul(PAGE_BYTES as u64)?))?;
        self.window.is_linear().then_some((first / PAGE_BYTES) as u64)
    }

    pub(super) fn classify(&self) -> Window {
        let s = &self.state;
        let (start, len) = match s.graphics[6] >> 2 & 3 {
            0 => (0xA_0000, 0x2_0000),
            1 => (0xA_0000, 0x1_0000),
            2 => (0xB_0000, 0x8000),
            _ => (0xB_8000, 0x8000),
        };
        if s.vbe.is_linear() {
            let plain = Plain::Linear {
                start: s.vbe.bank_offset(),
            };
            return Window {
                start: 0xA_0000,
                len: 0x1_0000,
                plain,
            };
        }
        if s.misc & 2 == 0 {
            return Window {
                start,
                len: 0,
                plain: Plain::No,
            };
        }
        let g = &s.graphics;
        let copies = g[1] & 15 == 0 && g[3] & 31 == 0 && g[5] & 0x0B == 0 && g[8] == 0xFF;
        let sequential = s.sequencer[4] & 4 != 0;
        let odd_even = !sequential && g[5] & 0x10 != 0 && g[6] & 2 != 0 && s.misc & 0x20 != 0;
        let plain = if !copies || s.vbe.is_enabled() || len > 0x1_0000 {
            Plain::No
        } else if s.sequencer[4] & 8 != 0 {
            if s.sequencer[2] & 15 == 15 {
                Plain::Chain4
            } else {
                Plain::No
            }
        } else if odd_even && s.sequencer[2] & 15 == 3 && g[4] & 2 == 0 {
            Plain::OddEven
        } else {
            Plain::No
        };
        Window { start, len, plain }
    }

    fn target(&self, at: u64) -> Target {
        let s = &self.state;
        let low = (at & 0xFFFF) as usize;
        let bank = s.vbe.bank_offset();
        let to = |offset: usize, write_planes, read_plane| Target {
            index: (offset + bank) * 4 % VRAM_BYTES,
            write_planes,
            read_plane,
        };
        if s.sequencer[4] & 8 != 0 {
            let plane = (at & 3) as u8;
            return to(low & !3, 1 << plane, plane);
        }
        let odd = (at & 1) as u8;
        // Chained odd/even puts a higher address bit, or the page bit, in the place of bit 0.
        let chained = if s.graphics[6] & 2 != 0 {
            let page = if s.graphics[6] & 0x0C == 0 {
                at >> 16 & 1 == 1
            } else {
                s.misc & 0x20 == 0
            };
            low & !1 | usize::from(page)
        } else {
            low
        };
        let write_odd_even = s.sequencer[4] & 4 == 0;
        let read_odd_even = s.graphics[5] & 0x10 != 0;
        let offset = if write_odd_even || read_odd_even {
            chained
        } else {
            low
        };
        let write_planes = if write_odd_even { 0b0101 << odd } else { 0b1111 };
        let select = s.graphics[4] & 3;
        to(
            offset,
            write_planes,
            if read_odd_even { select & 2 | odd } else { select },
        )
    }

    /// Reads `size` bytes, 1 to 8; addresses that do not answer read as ones. Loads the latches.
    pub fn read(&mut self, address: GuestPhys, size: u8) -> u64 {
        (0..u64::from(size.min(8))).fold(0, |value, i| {
            value | u64::from(self.read_byte(GuestPhys(address.0 + i))) << (8 * i)
        })
    }

    fn read_byte(&mut self, address: GuestPhys) -> u8 {
        let Some(at) = address
            .0
            .checked_sub(self.window.start)
            .filter(|&at| at < self.window.len)
        else {
            return 0xFF;
        };
        if let Plain::Linear { start } = self.window.plain {
            let mut byte = [0];
            self.memory
                .read_bytes((start + at as usize) % VRAM_BYTES, &mut byte);
            return byte[0];
        }
        let target = self.target(at);
        self.state.latch = self.memory.load_u32(target.index, Ordering::Relaxed);
        Graphics(&self.state.graphics).read(self.state.latch, target.read_plane)
    }

    /// Writes `size` bytes, 1 to 8, and marks what they touch; those that do not answer are lost.
    pub fn write(&mut self, address: GuestPhys, size: u8, value: u64) -> VgaEffects {
        let mut effects = VgaEffects::empty();
        for i in 0..u64::from(size.min(8)) {
            effects |= self.write_byte(GuestPhys(address.0 + i), (value >> (8 * i)) as u8);
        }
        effects
    }

    fn write_byte(&mut self, address: GuestPhys, value: u8) -> VgaEffects {
        let Some(at) = address
            .0
            .checked_sub(self.window.start)
            .filter(|&at| at < self.window.len)
        else {
            return VgaEffects::empty();
        };
        if let Plain::Linear { start } = self.window.plain {
            let index = (start + at as usize) % VRAM_BYTES;
            self.memory.write_bytes(index, &[value]);
            self.vram.mark(index);
            return VgaEffects::PICTURE;
        }
        let target = self.target(at);
        let map_mask = self.state.sequencer[2] & 15 & target.write_planes;
        if map_mask == 0 {
            return VgaEffects::empty();
        }
        let old = self.memory.load_u32(target.index, Ordering::Relaxed);
        let new = Graphics(&self.state.graphics).write(value, self.state.latch, old, map_mask);
        self.memory.store_u32(target.index, new, Ordering::Relaxed);
        self.vram.mark(target.index);
        VgaEffects::PICTURE
    }
}
