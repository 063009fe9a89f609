//! The Bochs VBE ("DISPI") interface at ports 1CEh and 1CFh, as QEMU's standard VGA has it.
//!
//! An index, and eleven 16-bit registers. What a guest asks for is cut to what fits into 16 MiB. Bank
//! switching stays for guests without the linear framebuffer.

use quintet_protocol::vram::{VRAM_BYTES, vbe};

/// Newest interface version.
const ID5: u16 = 0xB0C5;
/// Largest mode told with GETCAPS.
const MAX_XRES: u16 = 16_000;
const MAX_YRES: u16 = 12_000;
const MAX_BPP: u16 = 32;

/// State of the interface.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VbeState {
    pub(super) index: u16,
    /// Registers by the constants of [`vbe`].
    pub(super) registers: [u16; 11],
}

impl Default for VbeState {
    fn default() -> Self {
        let mut registers = [0; 11];
        registers[vbe::ID] = ID5;
        registers[vbe::VIDEO_MEMORY_64K] = (VRAM_BYTES >> 16) as u16;
        Self { index: 0, registers }
    }
}

/// What a write to the interface did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VbeChange {
    /// Something that scan-out sees changed.
    pub visible: bool,
    /// A mode was switched on and display memory is to be cleared: that many bytes from its start.
    pub clear: Option<usize>,
    /// A mode was switched on.
    pub enabled: bool,
}

impl VbeState {
    /// Whether a VBE mode is on.
    pub fn is_enabled(&self) -> bool {
        self.registers[vbe::ENABLE] & vbe::ENABLE_ENABLED != 0
    }

    /// Whether the DAC has 8 bits per colour.
    pub fn is_8_bit_dac(&self) -> bool {
        self.registers[vbe::ENABLE] & vbe::ENABLE_8BIT_DAC != 0
    }

    /// Whether a mode is on in which memory is a plain array: more than 4 bits per pixel.
    pub fn is_linear(&self) -> bool {
        self.is_enabled() && self.registers[vbe::BPP] > 4
    }

    /// Offset of the bank at A0000h, in bytes of address.
    pub fn bank_offset(&self) -> usize {
        if self.is_enabled() {
            usize::from(self.registers[vbe::BANK]) << 16
        } else {
            0
        }
    }

    /// Distance of two lines in bytes of memory; in 4-bit modes of one plane.
    fn pitch(&self) -> usize {
        let width = usize::from(self.registers[vbe::VIRT_WIDTH]);
        match self.registers[vbe::BPP] {
            4 => width / 8,
            15 | 16 => width * 2,
            bpp => width * usize::from(bpp / 8),
        }
    }

    /// Memory a line's pitch divides into lines.
    fn lines_memory(&self) -> usize {
        if self.registers[vbe::BPP] == 4 {
            VRAM_BYTES / 4
        } else {
            VRAM_BYTES
        }
    }

    /// Reads the index (even port) or the register it names.
    pub fn read(&self, port: u16) -> u16 {
        if port == 0x1CE {
            self.index
        } else {
            self.register(usize::from(self.index))
        }
    }

    /// The register `index` as a guest reads it; zero for those that do not exist.
    pub fn register(&self, index: usize) -> u16 {
        let caps = self.registers[vbe::ENABLE] & vbe::ENABLE_GETCAPS != 0;
        match index {
            vbe::XRES if caps => MAX_XRES,
            vbe::YRES if caps => MAX_YRES,
            vbe::BPP if caps => MAX_BPP,
            vbe::VIRT_HEIGHT => match self.pitch() {
                0 => 0,
                pitch => (self.lines_memory() / pitch).min(0xFFFF) as u16,
            },
            _ => self.registers.get(index).copied().unwrap_or(0),
        }
    }

    /// Writes the index (1CEh) or the register it names.
    pub fn write(&mut self, port: u16, value: u16) -> VbeChange {
        if port == 0x1CE {
            self.index = value;
            return VbeChange::default();
        }
        self.set_register(usize::from(self.index), value)
    }

    /// Writes register `index`.
    pub fn set_register(&mut self, index: usize, value: u16) -> VbeChange {
        let before = self.registers;
        let mut change = VbeChange::default();
        match index {
            // The guest asks whether a version is there by writing it.
            vbe::ID if (0xB0C0..=ID5).contains(&value) => self.registers[vbe::ID] = value,
            vbe::XRES | vbe::YRES | vbe::BPP | vbe::VIRT_WIDTH | vbe::X_OFFSET | vbe::Y_OFFSET => {
                self.registers[index] = value;
                if self.is_enabled() {
                    self.fit();
                }
            }
            vbe::BANK => {
                let banks = self.lines_memory() >> 16;
                self.registers[vbe::BANK] = value % banks as u16;
            }
            vbe::ENABLE => {
                let was = self.is_enabled();
                self.registers[vbe::ENABLE] = value;
                if self.is_enabled() && !was {
                    for register in [vbe::VIRT_WIDTH, vbe::X_OFFSET, vbe::Y_OFFSET, vbe::BANK] {
                        self.registers[register] = 0;
                    }
                    self.fit();
                    change.enabled = true;
                    if value & vbe::ENABLE_NOCLEARMEM == 0 {
                        let planes = if self.registers[vbe::BPP] == 4 { 4 } else { 1 };
                        let bytes = usize::from(self.registers[vbe::YRES]) * self.pitch() * planes;
                        change.clear = Some(bytes.min(VRAM_BYTES));
                    }
                } else if !self.is_enabled() {
                    self.registers[vbe::BANK] = 0;
                }
            }
            _ => {}
        }
        let mut compared = self.registers;
        compared[vbe::BANK] = before[vbe::BANK];
        change.visible = compared != before;
        change
    }

    /// Cuts the mode to what memory holds, as QEMU does.
    fn fit(&mut self) {
        let r = &mut self.registers;
        if !matches!(r[vbe::BPP], 4 | 8 | 15 | 16 | 24 | 32) {
            r[vbe::BPP] = 8;
        }
        r[vbe::XRES] = (r[vbe::XRES] & !7).clamp(8, MAX_XRES);
        r[vbe::VIRT_WIDTH] = (r[vbe::VIRT_WIDTH] & !7).clamp(r[vbe::XRES], MAX_XRES);
        let lines = self.lines_memory() / self.pitch().max(1);
        let r = &mut self.registers;
        r[vbe::YRES] = r[vbe::YRES].clamp(1, (lines.min(usize::from(MAX_YRES)) as u16).max(1));
        r[vbe::X_OFFSET] = r[vbe::X_OFFSET].min(r[vbe::VIRT_WIDTH] - r[vbe::XRES]);
        r[vbe::Y_OFFSET] = (usize::from(r[vbe::Y_OFFSET]).min(lines - usize::from(r[vbe::YRES]))) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(v: &mut VbeState, index: usize, value: u16) -> VbeChange {
        v.write(0x1CE, index as u16);
        v.write(0x1CF, value)
    }

    fn mode(x: u16, y: u16, bpp: u16) -> VbeState {
        let mut v = VbeState::default();
        set(&mut v, vbe::XRES, x);
        set(&mut v, vbe::YRES, y);
        set(&mut v, vbe::BPP, bpp);
        set(&mut v, vbe::ENABLE, 0x41);
        v
    }

    #[test]
    fn versions_are_asked_for_by_writing_them() {
        let mut v = VbeState::default();
        assert_eq!(v.read(0x1CF), 0xB0C5);
        v.write(0x1CF, 0xB0C4);
        assert_eq!(v.read(0x1CF), 0xB0C4);
        v.write(0x1CF, 0xB0C6);
        assert_eq!(v.read(0x1CF), 0xB0C4);
    }

    #[test]
    fn capabilities_are_read_with_getcaps_and_memory_is_16_mib() {
        let mut v = VbeState::default();
        set(&mut v, vbe::ENABLE, vbe::ENABLE_GETCAPS);
        assert_eq!(v.register(vbe::BPP), 32);
        assert_eq!(v.register(vbe::VIDEO_MEMORY_64K), 256);
        assert!(v.register(vbe::XRES) >= 1920);
    }

    #[test]
    fn a_mode_set_clears_its_memory_unless_told_not_to() {
        let mut v = mode(640, 480, 32);
        assert_eq!(v.register(vbe::VIRT_WIDTH), 640);
        assert_eq!(v.register(vbe::VIRT_HEIGHT), (VRAM_BYTES / 2560) as u16);
        set(&mut v, vbe::ENABLE, 0);
        let change = set(&mut v, vbe::ENABLE, 0x41);
        assert_eq!(
            change,
            VbeChange {
                visible: true,
                clear: Some(640 * 480 * 4),
                enabled: true
            }
        );
        set(&mut v, vbe::ENABLE, 0);
        assert_eq!(set(&mut v, vbe::ENABLE, 0xC1).clear, None);
    }

    #[test]
    fn modes_are_cut_to_the_memory() {
        let mut v = mode(1603, 65535, 32);
        assert_eq!(v.register(vbe::XRES), 1600);
        assert_eq!(usize::from(v.register(vbe::YRES)), VRAM_BYTES / 6400);
        set(&mut v, vbe::Y_OFFSET, 5000);
        assert_eq!(v.register(vbe::Y_OFFSET), 0);
        set(&mut v, vbe::BPP, 17);
        assert_eq!(v.register(vbe::BPP), 8);
    }

    #[test]
    fn every_combination_of_registers_stays_within_memory() {
        for bpp in [0u16, 4, 8, 15, 16, 24, 32, 99] {
            for x in [0u16, 7, 1024, 65535] {
                for y in [0u16, 768, 65535] {
                    let mut v = mode(x, y, bpp);
                    for (index, value) in [
                        (vbe::VIRT_WIDTH, 65535),
                        (vbe::X_OFFSET, 65535),
                        (vbe::Y_OFFSET, 65535),
                    ] {
                        set(&mut v, index, value);
                    }
                    let last = usize::from(v.registers[vbe::Y_OFFSET]) + usize::from(v.registers[vbe::YRES]);
                    assert!(last * v.pitch() <= v.lines_memory(), "{x}x{y}x{bpp}");
                }
            }
        }
    }

    #[test]
    fn a_bank_switch_is_not_visible_and_wraps_at_the_end_of_memory() {
        let mut v = mode(640, 480, 8);
        assert!(!set(&mut v, vbe::BANK, 3).visible);
        assert_eq!(v.bank_offset(), 3 << 16);
        set(&mut v, vbe::BANK, 0x101);
        assert_eq!(v.bank_offset(), 1 << 16);
    }
}
