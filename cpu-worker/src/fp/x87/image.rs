//! The memory images of the unit: environments of FSTENV and FLDENV, register areas of FSAVE and FXSAVE.
//!
//! Images are byte arrays here; the access to guest memory, with its faults, is the caller's.

use super::Unit;
use crate::fp::F80;

/// Which of the four layouts an environment has (SDM volume 1, figures 8-9 to 8-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// 28 bytes instead of 14: operand size 32.
    pub wide: bool,
    /// Protected mode: pointers are selector and offset. Otherwise (real and virtual-8086 mode) they are
    /// 20-bit or 32-bit linear addresses.
    pub protected: bool,
}

impl Layout {
    /// Bytes of the environment, 14 or 28.
    pub const fn size(self) -> usize {
        if self.wide { 28 } else { 14 }
    }
}

impl Unit {
    /// The environment in the given layout; of the 28 bytes only [`Layout::size`] count.
    pub fn environment(&self, layout: Layout) -> [u8; 28] {
        let mut fields = [0u32; 7];
        fields[0] = self.control.into();
        fields[1] = self.status_word().into();
        fields[2] = self.tag_word().into();
        if layout.protected {
            fields[3] = self.instruction_pointer as u32;
            fields[4] = self.instruction_selector.into();
            fields[5] = self.data_pointer as u32;
            fields[6] = self.data_selector.into();
        } else {
            let code = linear(self.instruction_selector, self.instruction_pointer);
            let data = linear(self.data_selector, self.data_pointer);
            fields[3] = code & 0xffff;
            fields[4] = code >> 16 << 12 | u32::from(self.opcode);
            fields[5] = data & 0xffff;
            fields[6] = data >> 16 << 12;
        }
        let mut image = [0; 28];
        if layout.wide {
            // The reserved upper halves read as ones.
            for n in [0, 1, 2] {
                fields[n] |= 0xffff_0000;
            }
            if layout.protected {
                fields[4] |= u32::from(self.opcode) << 16;
                fields[6] |= 0xffff_0000;
            } else {
                fields[3] |= 0xffff_0000;
                fields[5] |= 0xffff_0000;
            }
            for (bytes, field) in image.chunks_exact_mut(4).zip(fields) {
                bytes.copy_from_slice(&field.to_le_bytes());
            }
        } else {
            for (bytes, field) in image.chunks_exact_mut(2).zip(fields) {
                bytes.copy_from_slice(&(field as u16).to_le_bytes());
            }
        }
        image
    }

    /// Loads an environment, of which only [`Layout::size`] bytes count.
    pub fn load_environment(&mut self, layout: Layout, image: &[u8; 28]) {
        let mut fields = [0u32; 7];
        for (n, field) in fields.iter_mut().enumerate() {
            *field = if layout.wide {
                u32::from_le_bytes([image[4 * n], image[4 * n + 1], image[4 * n + 2], image[4 * n + 3]])
            } else {
                u16::from_le_bytes([image[2 * n], image[2 * n + 1]]).into()
            };
        }
        if layout.protected {
            self.instruction_pointer = fields[3].into();
            self.instruction_selector = fields[4] as u16;
            self.data_pointer = fields[5].into();
            self.data_selector = fields[6] as u16;
            if layout.wide {
                self.opcode = (fields[4] >> 16) as u16 & 0x7ff;
            }
        } else {
            self.instruction_pointer = (fields[3] & 0xffff | (fields[4] & 0x0fff_f000) << 4).into();
            self.instruction_selector = 0;
            self.data_pointer = (fields[5] & 0xffff | (fields[6] & 0x0fff_f000) << 4).into();
            self.data_selector = 0;
            self.opcode = fields[4] as u16 & 0x7ff;
        }
        self.set_tag_word(fields[2] as u16);
        self.control = 0;
        self.set_status_word(fields[1] as u16);
        self.set_control(fields[0] as u16);
    }

    /// The 80 bytes of registers that follow the environment in the image of FSAVE: ST(0) first.
    pub fn register_area(&self) -> [u8; 80] {
        let mut area = [0; 80];
        for (i, bytes) in area.chunks_exact_mut(10).enumerate() {
            bytes.copy_from_slice(&self.st(i as u8).to_bytes());
        }
        area
    }

    /// Loads the registers of FRSTOR's image, after the environment: tags stay.
    pub fn load_register_area(&mut self, area: &[u8; 80]) {
        for (i, bytes) in area.as_chunks::<10>().0.iter().enumerate() {
            let n = self.index(i as u8);
            self.registers[n] = F80::from_bytes(bytes);
        }
    }

    /// The x87 part of an FXSAVE image: bytes 0 to 23 and 32 to 159; bytes 24 to 31 (MXCSR) are left zero.
    ///
    /// `wide` is the layout of REX.W, with 64-bit pointers and no selectors.
    pub fn fxsave_area(&self, wide: bool) -> [u8; 160] {
        let mut area = [0; 160];
        area[0..2].copy_from_slice(&self.control.to_le_bytes());
        area[2..4].copy_from_slice(&self.status_word().to_le_bytes());
        area[4] = self.valid;
        area[6..8].copy_from_slice(&self.opcode.to_le_bytes());
        area[8..16].copy_from_slice(&self.instruction_pointer.to_le_bytes());
        area[16..24].copy_from_slice(&self.data_pointer.to_le_bytes());
        if !wide {
            area[12..16].copy_from_slice(&u32::from(self.instruction_selector).to_le_bytes());
            area[20..24].copy_from_slice(&u32::from(self.data_selector).to_le_bytes());
        }
        for i in 0..8 {
            let at = 32 + 16 * i;
            area[at..at + 10].copy_from_slice(&self.st(i as u8).to_bytes());
        }
        area
    }

    /// Loads the x87 part of an FXSAVE image.
    pub fn load_fxsave_area(&mut self, area: &[u8; 160], wide: bool) {
        let word = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 2)) << 16;
        self.opcode = word(6) & 0x7ff;
        self.instruction_pointer = long(8);
        self.data_pointer = long(16);
        if wide {
            self.instruction_pointer |= long(12) << 32;
            self.data_pointer |= long(20) << 32;
            self.instruction_selector = 0;
            self.data_selector = 0;
        } else {
            self.instruction_selector = word(12);
            self.data_selector = word(20);
        }
        self.load_fxsave_registers(area);
    }

    /// Loads the registers, tags, control and status words of an FXSAVE image, and not the pointers.
    pub fn load_fxsave_registers(&mut self, area: &[u8; 160]) {
        let word = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
        self.valid = area[4];
        self.set_status_word(word(2));
        self.set_control(word(0));
        for (i, slot) in area[32..].as_chunks::<16>().0.iter().enumerate() {
            let (bytes, _) = slot.as_chunks::<10>();
            let n = self.index(i as u8);
            self.registers[n] = F80::from_bytes(&bytes[0]);
        }
    }
}

/// The linear address that the real-mode layouts hold.
const fn linear(selector: u16, offset: u64) -> u32 {
    ((selector as u32) << 4).wrapping_add(offset as u32)
}
