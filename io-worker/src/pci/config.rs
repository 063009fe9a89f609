//! The 256 bytes of a function: values, which bits a guest may write, which it clears by writing ones.

use serde::{Deserialize, Serialize};

use super::BarSpec;

/// What a function is: its identity and the registers that tell it from others.
#[derive(Clone, Debug)]
pub struct FunctionSpec {
    /// Short name for logs and for the commit.
    pub name: &'static str,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code: base class, sub-class, programming interface.
    pub class: u32,
    /// Whether other functions share the slot (header type 80h).
    pub multifunction: bool,
    /// Interrupt pin: 0 none, 1 INTA# to 4 INTD#.
    pub pin: u8,
    /// Status register after reset.
    pub status: u16,
    /// Command register after reset.
    pub command: u16,
    /// Bits of the command register that can be written.
    pub command_mask: u16,
    /// Base address registers.
    pub bars: Vec<BarSpec>,
    /// Further registers: offset, value after reset, writable bits.
    pub registers: Vec<(u8, u8, u8)>,
}

/// Subsystem vendor and id that all functions of QEMU's pc machine carry.
pub const SUBSYSTEM: (u16, u16) = (0x1AF4, 0x1100);

/// Status bits that are cleared by writing ones.
const STATUS_W1C: u16 = 0xF900;

/// Offset of the command register.
pub const COMMAND: u8 = 0x04;

/// Bit of the command register: the function may be a bus master.
const BUS_MASTER: u16 = 1 << 2;

/// A function's configuration space.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    spec: FunctionSpec,
    bytes: [u8; 256],
    writable: [u8; 256],
    clears: [u8; 256],
}

/// What is committed of a function.
#[derive(Serialize, Deserialize)]
pub(super) struct ConfigState(Vec<u8>);

impl ConfigSpace {
    /// A function after reset.
    pub fn new(spec: FunctionSpec) -> Self {
        let mut space = Self {
            spec,
            bytes: [0; 256],
            writable: [0; 256],
            clears: [0; 256],
        };
        space.declare();
        space.reset();
        space
    }

    fn put(bytes: &mut [u8; 256], at: u8, value: &[u8]) {
        bytes[usize::from(at)..usize::from(at) + value.len()].copy_from_slice(value);
    }

    fn declare(&mut self) {
        let w = &mut self.writable;
        Self::put(w, COMMAND, &self.spec.command_mask.to_le_bytes());
        w[0x0C] = 0xFF;
        w[0x0D] = 0xFF;
        w[0x3C] = 0xFF;
        for bar in &self.spec.bars {
            Self::put(w, bar.register, &bar.mask().to_le_bytes());
        }
        for &(at, _, mask) in &self.spec.registers {
            w[usize::from(at)] = mask;
        }
        Self::put(&mut self.clears, 0x06, &STATUS_W1C.to_le_bytes());
    }

    /// All registers take their reset values.
    pub fn reset(&mut self) {
        let s = &self.spec;
        let b = &mut self.bytes;
        *b = [0; 256];
        Self::put(b, 0x00, &s.vendor.to_le_bytes());
        Self::put(b, 0x02, &s.device.to_le_bytes());
        Self::put(b, COMMAND, &s.command.to_le_bytes());
        Self::put(b, 0x06, &s.status.to_le_bytes());
        b[0x08] = s.revision;
        Self::put(b, 0x09, &s.class.to_le_bytes()[..3]);
        b[0x0E] = u8::from(s.multifunction) << 7;
        Self::put(b, 0x2C, &SUBSYSTEM.0.to_le_bytes());
        Self::put(b, 0x2E, &SUBSYSTEM.1.to_le_bytes());
        b[0x3D] = s.pin;
        for bar in &s.bars {
            Self::put(b, bar.register, &bar.low_bits().to_le_bytes());
        }
        for &(at, value, _) in &s.registers {
            b[usize::from(at)] = value;
        }
    }

    /// What the function is.
    pub fn spec(&self) -> &FunctionSpec {
        &self.spec
    }

    /// A byte.
    pub fn byte(&self, at: u8) -> u8 {
        self.bytes[usize::from(at)]
    }

    /// Two bytes, little-endian. `at` is at most FEh.
    pub fn word(&self, at: u8) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at + 1)])
    }

    /// Four bytes, little-endian. `at` is at most FCh.
    pub fn dword(&self, at: u8) -> u32 {
        u32::from(self.word(at)) | u32::from(self.word(at + 2)) << 16
    }

    /// A guest's write of a byte. Returns what is held afterwards.
    pub fn write_byte(&mut self, at: u8, value: u8) -> u8 {
        let i = usize::from(at);
        let (mask, clear) = (self.writable[i], self.clears[i]);
        self.bytes[i] = (self.bytes[i] & !mask | value & mask) & !(value & clear);
        self.bytes[i]
    }

    /// Sets a byte past its mask: for registers with rules of their own.
    pub(super) fn force(&mut self, at: u8, value: u8) {
        self.bytes[usize::from(at)] = value;
    }

    pub(super) fn state(&self) -> ConfigState {
        ConfigState(self.bytes.to_vec())
    }

    /// Takes up committed bytes; identity and read-only bits stay as the specification has them.
    pub(super) fn restore(&mut self, state: &ConfigState) -> bool {
        let Ok(bytes) = <[u8; 256]>::try_from(state.0.as_slice()) else {
            return false;
        };
        self.bytes = bytes;
        true
    }

    /// Whether the function may be a bus master.
    pub fn is_master(&self) -> bool {
        self.word(COMMAND) & BUS_MASTER != 0
    }

    /// The windows that are decoded now, in the order of the registers.
    pub fn decoded(&self) -> impl Iterator<Item = (&BarSpec, u64)> {
        let command = self.word(COMMAND);
        self.spec
            .bars
            .iter()
            .filter_map(move |bar| Some((bar, bar.decodes(self.dword(bar.register), command)?)))
    }
}
