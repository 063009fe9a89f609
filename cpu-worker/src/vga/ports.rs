//! The ports of the VGA: 3B4h–3BAh, 3C0h–3CFh, 3D4h–3DAh, 1CEh–1D0h, and the same through the card's BAR 2.
//!
//! IBM VGA technical reference, "VGA I/O ports"; the register BAR as QEMU's standard VGA documents it.

use quintet_protocol::time::VmTime;
use quintet_protocol::vram::vbe;

use super::vbe::VbeChange;
use super::{Vga, VgaEffects, edid};

/// Bits that exist in sequencer 0 to 7.
const SEQUENCER_MASKS: [u8; 8] = [0x03, 0x3D, 0x0F, 0x3F, 0x0E, 0, 0, 0];
/// Bits that exist in graphics 0 to 8.
const GRAPHICS_MASKS: [u8; 9] = [0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF];
/// Graphics registers that scan-out looks at: mode and miscellaneous. The others only steer drawing.
const GRAPHICS_VISIBLE: [usize; 2] = [5, 6];
/// The map mask, which only steers drawing.
const SEQUENCER_MAP_MASK: usize = 2;

/// The extended registers: their length in bytes, and the frame buffer's byte order (little-endian).
const EXTENDED: [u8; 8] = [8, 0, 0, 0, 0x1E, 0x1E, 0x1E, 0x1E];

impl Vga {
    /// Whether `port` is one of the card's at present: the CRTC answers at 3Bxh or 3Dxh, as bit 0 of the
    /// miscellaneous output register says; at the other place it reads as ones, and is still the card's.
    pub fn claims_port(port: u16) -> bool {
        matches!(port, 0x1CE..=0x1D0 | 0x3B4 | 0x3B5 | 0x3BA | 0x3C0..=0x3CF | 0x3D4 | 0x3D5 | 0x3DA)
    }

    /// Whether `port` is the CRTC's or a status register's and now decoded.
    fn is_decoded(&self, port: u16) -> bool {
        match port & 0xFFF0 {
            0x3B0 => self.state.misc & 1 == 0,
            0x3D0 => self.state.misc & 1 != 0,
            _ => true,
        }
    }

    /// Reads `size` bytes, 1, 2 or 4, from `port`; `None` when it is not the card's.
    pub fn port_read(&mut self, now: VmTime, port: u16, size: u8) -> Option<u32> {
        if !Self::claims_port(port) {
            return None;
        }
        if port <= 0x1D0 {
            let port = port.min(0x1CF);
            return Some(if size == 1 {
                0xFF
            } else {
                u32::from(self.state.vbe.read(port))
            });
        }
        let bytes = (0..u16::from(size)).map(|i| (i, self.read_register(now, port.wrapping_add(i))));
        Some(bytes.fold(0, |value, (i, byte)| value | u32::from(byte) << (8 * i)))
    }

    fn read_register(&mut self, now: VmTime, port: u16) -> u8 {
        if !self.is_decoded(port) {
            return 0xFF;
        }
        let s = &mut self.state;
        let eight_bits = s.vbe.is_8_bit_dac();
        match port {
            0x3C0 | 0x3C1 => s.attribute.read(port),
            // Input status 0: no interrupt is pending, no switch is closed.
            0x3C2 => 0,
            0x3C3 => s.enable,
            0x3C4 => s.sequencer_index,
            0x3C5 => s.sequencer[usize::from(s.sequencer_index & 7)],
            0x3C6..=0x3C9 => s.dac.read(port, eight_bits),
            0x3CA => s.feature,
            0x3CC => s.misc,
            0x3CE => s.graphics_index,
            0x3CF => s
                .graphics
                .get(usize::from(s.graphics_index))
                .copied()
                .unwrap_or(0),
            0x3B4 | 0x3D4 => s.crtc_index,
            0x3B5 | 0x3D5 => s.crtc.get(usize::from(s.crtc_index)).copied().unwrap_or(0),
            0x3BA | 0x3DA => {
                s.attribute.reset_flip_flop();
                self.timing.status(now)
            }
            _ => 0xFF,
        }
    }

    /// Writes `size` bytes, 1, 2 or 4, to `port`; `None` when it is not the card's.
    pub fn port_write(&mut self, _now: VmTime, port: u16, value: u32, size: u8) -> Option<VgaEffects> {
        if !Self::claims_port(port) {
            return None;
        }
        if port <= 0x1D0 {
            if size == 1 {
                return Some(VgaEffects::empty());
            }
            let change = self.state.vbe.write(port.min(0x1CF), value as u16);
            return Some(self.vbe_changed(change));
        }
        let mut effects = VgaEffects::empty();
        for i in 0..u16::from(size) {
            effects |= self.write_register(port.wrapping_add(i), (value >> (8 * i)) as u8);
        }
        Some(effects)
    }

    fn write_register(&mut self, port: u16, value: u8) -> VgaEffects {
        if !self.is_decoded(port) {
            return VgaEffects::empty();
        }
        let s = &mut self.state;
        let eight_bits = s.vbe.is_8_bit_dac();
        let visible = match port {
            0x3C0 => s.attribute.write(value),
            0x3C2 => core::mem::replace(&mut s.misc, value) != value,
            0x3C3 => {
                s.enable = value;
                return VgaEffects::empty();
            }
            0x3C4 => {
                s.sequencer_index = value & 7;
                return VgaEffects::empty();
            }
            0x3C5 => {
                let index = usize::from(s.sequencer_index);
                let value = value & SEQUENCER_MASKS[index];
                core::mem::replace(&mut s.sequencer[index], value) != value && index != SEQUENCER_MAP_MASK
            }
            0x3C6 => {
                let before = s.dac.mask;
                s.dac.write(port, value, eight_bits);
                before != value
            }
            0x3C7..=0x3C9 => {
                if !s.dac.write(port, value, eight_bits) {
                    return VgaEffects::empty();
                }
                self.vram.publish_palette(&self.state.dac.palette());
                return VgaEffects::PICTURE;
            }
            0x3CE => {
                s.graphics_index = value & 0x0F;
                return VgaEffects::empty();
            }
            0x3CF => {
                let index = usize::from(s.graphics_index);
                let Some(register) = s.graphics.get_mut(index) else {
                    return VgaEffects::empty();
                };
                let value = value & GRAPHICS_MASKS[index];
                core::mem::replace(register, value) != value && GRAPHICS_VISIBLE.contains(&index)
            }
            0x3B4 | 0x3D4 => {
                s.crtc_index = value & 0x3F;
                return VgaEffects::empty();
            }
            0x3B5 | 0x3D5 => self.write_crtc(value),
            0x3BA | 0x3DA => {
                s.feature = value;
                return VgaEffects::empty();
            }
            _ => return VgaEffects::empty(),
        };
        self.changed(visible)
    }

    fn write_crtc(&mut self, value: u8) -> bool {
        let s = &mut self.state;
        let index = usize::from(s.crtc_index);
        let protected = s.crtc[0x11] & 0x80 != 0;
        let Some(register) = s.crtc.get_mut(index) else {
            return false;
        };
        let value = match index {
            // Bit 4 of the overflow register belongs to line compare and is not protected.
            7 if protected => *register & !0x10 | value & 0x10,
            0..=7 if protected => return false,
            _ => value,
        };
        core::mem::replace(register, value) != value
    }

    fn vbe_changed(&mut self, change: VbeChange) -> VgaEffects {
        if change.enabled {
            // What the mode set of a VGA BIOS would leave: memory at A0000h, all planes, packed pixels.
            let planar = self.state.vbe.register(vbe::BPP) == 4;
            let s = &mut self.state;
            s.graphics[6] = s.graphics[6] & !0x0E | 0x05;
            s.graphics[5] = if planar { 0x00 } else { 0x40 };
            s.sequencer[4] = if planar { 0x06 } else { 0x0E };
            s.sequencer[2] = 0x0F;
        }
        if let Some(bytes) = change.clear {
            self.memory.fill(0, bytes, 0);
            self.vram.mark_range(0, bytes);
        }
        self.changed(change.visible || change.enabled)
    }

    /// Reads `size` bytes, 1, 2 or 4, from the card's register BAR (4 KiB): the monitor's EDID from 0, VGA ports from
    /// 400h, the VBE registers from 500h, QEMU's extended registers from 600h; all ones elsewhere.
    pub fn bar_read(&mut self, now: VmTime, offset: u64, size: u8) -> u32 {
        let bytes = |byte: &dyn Fn(u64) -> u8| {
            (0..u64::from(size.min(4))).fold(0, |v, i| v | u32::from(byte(offset + i)) << (8 * i))
        };
        match offset {
            0..0x400 => bytes(&|at| edid::EDID.get(at as usize).copied().unwrap_or(0)),
            0x400..0x420 => {
                let port = 0x3C0 + (offset - 0x400) as u16;
                self.port_read(now, port, size).unwrap_or(u32::MAX)
            }
            0x500..0x516 => {
                bytes(&|at| (self.state.vbe.register((at - 0x500) as usize / 2) >> (at % 2 * 8)) as u8)
            }
            0x600..0x608 => bytes(&|at| EXTENDED.get((at - 0x600) as usize).copied().unwrap_or(0xFF)),
            _ => u32::MAX,
        }
    }

    /// Writes `size` bytes, 1, 2 or 4, to the card's register BAR. Single bytes of VBE registers and the byte order,
    /// which is always little-endian, stay as they are.
    pub fn bar_write(&mut self, now: VmTime, offset: u64, value: u32, size: u8) -> VgaEffects {
        match offset {
            0x400..0x420 => {
                let port = 0x3C0 + (offset - 0x400) as u16;
                self.port_write(now, port, value, size)
                    .unwrap_or(VgaEffects::empty())
            }
            0x500..0x516 if size >= 2 && offset.is_multiple_of(2) => {
                let first = (offset - 0x500) as usize / 2;
                let mut effects = VgaEffects::empty();
                for i in 0..usize::from(size / 2).min(2) {
                    let change = self.state.vbe.set_register(first + i, (value >> (16 * i)) as u16);
                    effects |= self.vbe_changed(change);
                }
                effects
            }
            _ => VgaEffects::empty(),
        }
    }
}
