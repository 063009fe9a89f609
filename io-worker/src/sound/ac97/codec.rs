//! The codec behind the AC-link: mixer registers and sample rates (Audio Codec '97, revision 2.3, chapter 5).
//!
//! One without an analogue side: inputs have volumes, and nothing behind them.

use serde::{Deserialize, Serialize};

/// Offsets of the registers that do more than hold a value.
pub(super) mod reg {
    pub(crate) const RESET: u8 = 0x00;
    pub(crate) const MASTER: u8 = 0x02;
    pub(crate) const PCM_OUT: u8 = 0x18;
    pub(crate) const POWER: u8 = 0x26;
    pub(crate) const EXTENDED_ID: u8 = 0x28;
    pub(crate) const EXTENDED_STATUS: u8 = 0x2A;
    pub(crate) const DAC_RATE: u8 = 0x2C;
    pub(crate) const ADC_RATE: u8 = 0x32;
    pub(crate) const MIC_RATE: u8 = 0x34;
    pub(crate) const VENDOR_1: u8 = 0x7C;
    pub(crate) const VENDOR_2: u8 = 0x7E;
}

/// Registers in the block: one for each even offset up to 7Eh.
const REGISTERS: usize = 64;
/// Rate of everything while variable rates are off, and the highest (5.8.4).
pub(super) const RATE_FIXED: u16 = 48_000;
const RATE_MIN: u16 = 8_000;
/// Bit 15 of a volume.
const MUTE: u16 = 0x8000;
/// Extended audio ID and status (5.8.1, 5.8.3): variable rates for front DACs and ADC, and for the microphone's.
const VRA: u16 = 0x0001;
const VRM: u16 = 0x0008;
/// Revision 2.3 of the specification, in the extended audio ID.
const REVISION_2_3: u16 = 0x0800;
/// Power-down bits (5.7.12): ADCs, DACs, mixer with reference on and off.
const PR_ADC: u16 = 0x0100;
const PR_DAC: u16 = 0x0200;
const PR_MIXER: u16 = 0x0400;
const PR_REFERENCE: u16 = 0x0800;

/// Value after reset, and bits that can be written (table 5-1 and the sections on each).
const fn declared(at: u8) -> (u16, u16) {
    match at {
        reg::MASTER => (0x8000, 0xBF3F),
        // Phone; microphone with its 20 dB.
        0x0C => (0x8008, 0x801F),
        0x0E => (0x8008, 0x805F),
        // Line, CD, auxiliary, PCM.
        0x10 | 0x12 | 0x16 | reg::PCM_OUT => (0x8808, 0x9F1F),
        // Record select and gain.
        0x1A => (0x0000, 0x0707),
        0x1C => (0x8000, 0x8F0F),
        // General purpose: mono output, microphone, loop-back.
        0x20 => (0x0000, 0x0380),
        reg::POWER => (0x0000, 0xFF00),
        reg::EXTENDED_ID => (REVISION_2_3 | VRA | VRM, 0),
        reg::EXTENDED_STATUS => (0x0000, VRA | VRM),
        reg::DAC_RATE | reg::ADC_RATE | reg::MIC_RATE => (RATE_FIXED, 0xFFFF),
        // SigmaTel STAC9700, the one that QEMU's card has.
        reg::VENDOR_1 => (0x8384, 0),
        reg::VENDOR_2 => (0x7600, 0),
        _ => (0, 0),
    }
}

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Codec {
    values: Vec<u16>,
}

impl Codec {
    /// A codec after its reset.
    pub(super) fn new() -> Self {
        Self {
            values: (0..REGISTERS as u8).map(|n| declared(2 * n).0).collect(),
        }
    }

    /// Whether it can be what a codec committed.
    pub(super) fn is_sound(&self) -> bool {
        self.values.len() == REGISTERS
    }

    fn value(&self, at: u8) -> u16 {
        self.values[usize::from(at / 2)]
    }

    /// Reads the register at the even offset `at`, below 80h.
    pub(super) fn read(&self, at: u8) -> u16 {
        match at {
            reg::POWER => self.value(at) | self.ready(),
            _ => self.value(at),
        }
    }

    /// Which sections are ready (5.7.12): ADCs, DACs, mixer, reference.
    fn ready(&self) -> u16 {
        let down = |bits| self.value(reg::POWER) & bits != 0;
        u16::from(!down(PR_ADC))
            | u16::from(!down(PR_DAC)) << 1
            | u16::from(!down(PR_MIXER | PR_REFERENCE)) << 2
            | u16::from(!down(PR_REFERENCE)) << 3
    }

    /// Writes the register at the even offset `at`, below 80h.
    pub(super) fn write(&mut self, at: u8, value: u16) {
        let slot = usize::from(at / 2);
        let (_, mask) = declared(at);
        let value = self.values[slot] & !mask | value & mask;
        self.values[slot] = match at {
            reg::RESET => {
                *self = Self::new();
                return;
            }
            // Five bits of six: what is fainter than these is the faintest (5.7.2).
            reg::MASTER => five_bits(value >> 8) << 8 | five_bits(value) | value & MUTE,
            reg::DAC_RATE | reg::ADC_RATE if self.value(reg::EXTENDED_STATUS) & VRA == 0 => return,
            reg::MIC_RATE if self.value(reg::EXTENDED_STATUS) & VRM == 0 => return,
            // The nearest that there is (5.8.4).
            reg::DAC_RATE | reg::ADC_RATE | reg::MIC_RATE => value.clamp(RATE_MIN, RATE_FIXED),
            _ => value,
        };
        if at == reg::EXTENDED_STATUS {
            let fixed = |on: u16| if value & on == 0 { Some(RATE_FIXED) } else { None };
            for (rate, on) in [(reg::DAC_RATE, VRA), (reg::ADC_RATE, VRA), (reg::MIC_RATE, VRM)] {
                if let Some(fixed) = fixed(on) {
                    self.values[usize::from(rate / 2)] = fixed;
                }
            }
        }
    }

    /// Frames per second in the register `at`.
    pub(super) fn rate(&self, at: u8) -> u32 {
        u32::from(self.value(at))
    }

    /// What the volumes make of a sample, left and right.
    pub(super) fn gain(&self) -> [f32; 2] {
        let (master, pcm) = (self.value(reg::MASTER), self.value(reg::PCM_OUT));
        let off =
            (master | pcm) & MUTE != 0 || self.value(reg::POWER) & (PR_DAC | PR_MIXER | PR_REFERENCE) != 0;
        [8, 0].map(|side| {
            if off {
                return 0.0;
            }
            // Steps of 1.5 dB; 12 dB more than nothing is where the PCM volume begins (5.7.2, 5.7.5).
            let steps = 8 - i32::from(master >> side & 0x1F) - i32::from(pcm >> side & 0x1F);
            10_f32.powf(steps as f32 * 1.5 / 20.0)
        })
    }
}

const fn five_bits(volume: u16) -> u16 {
    if volume & 0x20 != 0 { 0x1F } else { volume & 0x1F }
}
