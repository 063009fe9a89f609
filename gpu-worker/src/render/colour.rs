//! From attribute to colour: the attribute controller's palette, then the DAC.

use quintet_protocol::vram::{Palette, VgaRegisters, vbe};

/// A pixel: red, green, blue, alpha.
pub type Colour = [u8; 4];

/// Both stages of colour look-up, worked out once per change of the registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lut {
    /// The DAC behind the PEL mask.
    pub dac: [Colour; 256],
    /// The 16 attributes through palette registers, colour select and DAC.
    pub attribute: [Colour; 16],
}

impl Lut {
    /// The colours of these registers.
    pub fn new(registers: &VgaRegisters, palette: &Palette) -> Self {
        let eight_bit = registers.vbe[vbe::ENABLE] & vbe::ENABLE_8BIT_DAC != 0;
        // In VBE modes the mask does not apply: mode sets leave it as the last VGA mode had it.
        let mask = if registers.vbe[vbe::ENABLE] & vbe::ENABLE_ENABLED != 0 {
            0xFF
        } else {
            registers.pel_mask
        };
        let dac = core::array::from_fn(|index| {
            let [r, g, b] = palette.0[index & usize::from(mask)].map(|value| match eight_bit {
                true => value,
                false => (value & 0x3F) << 2 | (value & 0x3F) >> 4,
            });
            [r, g, b, 255]
        });
        let mode = registers.attribute[0x10];
        let select = registers.attribute[0x14];
        let planes = usize::from(registers.attribute[0x12] & 0x0F);
        let attribute = core::array::from_fn(|index| {
            let entry = registers.attribute[index & planes] & 0x3F;
            let low = if mode & 0x80 != 0 {
                entry & 0x0F | (select & 3) << 4
            } else {
                entry
            };
            dac[usize::from(low | (select & 0x0C) << 4)]
        });
        Self { dac, attribute }
    }
}
