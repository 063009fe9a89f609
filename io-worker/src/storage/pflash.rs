//! Parallel flash with Intel's command set (CFI, JEDEC JESD68.01; Intel 28F640), as firmware keeps its variables in it.
//!
//! An array of bytes in blocks of 4 KiB, one chip of eight bits. While it shows its array, the vCPU reads the ROM window itself; a
//! write is a command, after which status, identity or CFI table are read from here, until command FFh shows the array again.
//!
//! Bytes are programmed in the ROM window and in the host's file before the write that did it is answered, and both
//! again when the write is repeated after a death: programming clears bits and erasing sets them, so that twice is
//! once. A successor takes the file for what is there. The host's page cache takes a block at a time; nothing waits for its disk.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use quintet_protocol::shm::ViewMut;
use serde::{Deserialize, Serialize};

use crate::bus::regmap::Attr;
use crate::bus::{Access, Backplane, Device, Region, RegionKind, StateError, load_state, save_state};

/// Bytes that are erased together.
pub const BLOCK: u64 = 4096;
/// Bytes of the write buffer.
const BUFFER: usize = 256;
/// Manufacturer and device.
const IDENTITY: [u8; 2] = [0x89, 0x18];

/// Bits of the status register (28F640, table 7).
mod status {
    pub(super) const READY: u8 = 0x80;
    pub(super) const ERASE_FAILED: u8 = 0x20;
    pub(super) const PROGRAM_FAILED: u8 = 0x10;
}

/// What reads give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Shown {
    #[default]
    Array,
    Status,
    Identity,
    Cfi,
}

/// What the next write is.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Expected {
    #[default]
    Command,
    /// The bytes to program.
    Bytes,
    /// D0h, to erase the block.
    Erase,
    /// What locks and unlocks blocks, of which there is nothing to lock.
    Lock,
    /// The number of bytes for the buffer, less one.
    Count,
    /// A byte for the buffer; how many are still to come, this one included.
    Buffered(u16),
    /// D0h, to program the buffer.
    Confirm,
}

#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
struct State {
    shown: Shown,
    expected: Expected,
    status: u8,
    /// Offset and value of what has been written to the buffer.
    buffer: Vec<(u32, u8)>,
}

/// A flash chip.
#[derive(Debug)]
pub struct Pflash {
    name: &'static str,
    /// Its part of the ROM window, and where that begins there.
    array: ViewMut,
    at: u32,
    /// Where the bytes are kept; `None` for a chip that cannot be written.
    file: Option<File>,
    state: State,
}

impl Pflash {
    /// A chip whose bytes lie in `array`, `at` bytes into the ROM window, and in `file`, if it can be written.
    pub fn new(name: &'static str, array: ViewMut, at: u32, file: Option<File>) -> Self {
        let state = State {
            status: status::READY,
            ..State::default()
        };
        Self {
            name,
            array,
            at,
            file,
            state,
        }
    }

    fn len(&self) -> u64 {
        self.array.view().len() as u64
    }

    /// Stores bytes in file and window; answers whether the host took them.
    fn store(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(file) = &self.file else { return false };
        if let Err(error) = file.write_all_at(bytes, offset) {
            tracing::error!(%error, offset, "the flash image {} cannot be written", self.name);
            return false;
        }
        self.array.write_bytes(offset as usize, bytes);
        true
    }

    /// Clears the bits that are zero in `value`.
    fn program(&mut self, offset: u64, value: u8) {
        let mut byte = [0];
        self.array.view().read_bytes(offset as usize, &mut byte);
        if !self.store(offset, &[byte[0] & value]) {
            self.state.status |= status::PROGRAM_FAILED;
        }
    }

    fn erase(&mut self, offset: u64) {
        if !self.store(offset - offset % BLOCK, &[0xFF; BLOCK as usize]) {
            self.state.status |= status::ERASE_FAILED;
        }
    }

    /// A command that cannot be: both bits.
    fn refuse(&mut self) {
        self.state.status |= status::ERASE_FAILED | status::PROGRAM_FAILED;
        self.expect(Expected::Command);
    }

    fn expect(&mut self, next: Expected) {
        self.state.expected = next;
        self.state.shown = Shown::Status;
    }

    fn command(&mut self, command: u8) {
        self.state.shown = Shown::Status;
        match command {
            0x10 | 0x40 => self.expect(Expected::Bytes),
            0x20 | 0x28 => self.expect(Expected::Erase),
            0x50 => {
                self.state.status = status::READY;
                self.state.shown = Shown::Array;
            }
            0x60 => self.expect(Expected::Lock),
            0x70 => {}
            0x90 => self.state.shown = Shown::Identity,
            0x98 => self.state.shown = Shown::Cfi,
            0xE8 => {
                self.state.buffer.clear();
                self.expect(Expected::Count);
            }
            // Show the array; and F0h, by which drivers look for AMD's chips.
            _ => self.state.shown = Shown::Array,
        }
    }

    fn cfi(&self, offset: u64) -> u8 {
        let blocks = (self.len() / BLOCK - 1) as u16;
        let size = self.len().next_power_of_two().trailing_zeros() as u8;
        let [blocks_low, blocks_high] = blocks.to_le_bytes();
        let [unit_low, unit_high] = ((BLOCK / 256) as u16).to_le_bytes();
        match offset as u8 {
            0x10 => b'Q',
            0x11 => b'R',
            0x12 => b'Y',
            // Intel's extended command set, whose table follows at 31h.
            0x13 => 0x01,
            0x15 => 0x31,
            // 4.5 to 5.5 V, no other for programming.
            0x1B => 0x45,
            0x1C => 0x55,
            // 128 µs a byte and a buffer, 1 s a block; sixteen times that at most.
            0x1F | 0x20 => 0x07,
            0x21 => 0x0A,
            0x23..=0x25 => 0x04,
            0x27 => size,
            // Buffer of 256 bytes; one region of equal blocks.
            0x2A => BUFFER.trailing_zeros() as u8,
            0x2C => 0x01,
            0x2D => blocks_low,
            0x2E => blocks_high,
            0x2F => unit_low,
            0x30 => unit_high,
            0x31 => b'P',
            0x32 => b'R',
            0x33 => b'I',
            0x34 => b'1',
            0x35 => b'0',
            _ => 0,
        }
    }
}

impl Device for Pflash {
    fn name(&self) -> &'static str {
        self.name
    }

    fn regions(&self) -> Vec<Region> {
        vec![Region {
            kind: RegionKind::Memory,
            len: self.len(),
            runs: vec![(0, self.len(), Attr::VIEW)],
        }]
    }

    fn read(&mut self, _bp: &mut Backplane<'_>, at: Access) -> u64 {
        let mut bytes = [0; 8];
        let len = usize::from(at.size.bytes());
        match self.state.shown {
            Shown::Array => self
                .array
                .view()
                .read_bytes(at.offset as usize, &mut bytes[..len]),
            Shown::Status => bytes[0] = self.state.status,
            Shown::Identity => {
                for (byte, offset) in bytes[..len].iter_mut().zip(at.offset..) {
                    *byte = IDENTITY.get((offset & 0xFF) as usize).copied().unwrap_or(0);
                }
            }
            Shown::Cfi => {
                for (byte, offset) in bytes[..len].iter_mut().zip(at.offset..) {
                    *byte = self.cfi(offset);
                }
            }
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, _bp: &mut Backplane<'_>, at: Access, value: u64) {
        let bytes = value.to_le_bytes();
        let bytes = (at.offset..).zip(&bytes[..usize::from(at.size.bytes())]);
        match (self.state.expected.clone(), value as u8) {
            (Expected::Command, command) => self.command(command),
            (Expected::Bytes, _) => {
                for (offset, value) in bytes {
                    self.program(offset, *value);
                }
                self.expect(Expected::Command);
            }
            (Expected::Erase, 0xD0) => {
                self.erase(at.offset);
                self.expect(Expected::Command);
            }
            (Expected::Lock, 0xD0 | 0x01) => self.expect(Expected::Command),
            (Expected::Erase | Expected::Lock, 0xFF) => {
                self.expect(Expected::Command);
                self.state.shown = Shown::Array;
            }
            (Expected::Erase | Expected::Lock, _) => self.refuse(),
            (Expected::Count, less_one) => self.expect(Expected::Buffered(u16::from(less_one) + 1)),
            (Expected::Buffered(mut left), _) => {
                for (offset, value) in bytes {
                    if left > 0 && self.state.buffer.len() < BUFFER {
                        self.state.buffer.push((offset as u32, *value));
                        left -= 1;
                    }
                }
                self.expect(match left {
                    0 => Expected::Confirm,
                    left => Expected::Buffered(left),
                });
            }
            (Expected::Confirm, 0xD0) => {
                for (offset, value) in std::mem::take(&mut self.state.buffer) {
                    self.program(u64::from(offset), value);
                }
                self.expect(Expected::Command);
            }
            (Expected::Confirm, _) => self.refuse(),
        }
    }

    fn reset(&mut self, _bp: &mut Backplane<'_>) {
        self.state = State {
            status: status::READY,
            ..State::default()
        };
    }

    fn rom(&self) -> Option<u32> {
        (self.state.shown == Shown::Array).then_some(self.at)
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let state: State = load_state(self.name(), self.state_version(), version, bytes)?;
        let len = self.len();
        if state.buffer.len() > BUFFER || state.buffer.iter().any(|(at, _)| u64::from(*at) >= len) {
            return Err(StateError::Damaged {
                device: self.name,
                len: bytes.len(),
                why: "a buffer outside the array".into(),
            });
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
#[path = "pflash_tests.rs"]
mod tests;
