//! The two 8237 DMA controllers of the ISA bus with their page registers (Intel 8237A; 82371SB, 2.3).
//!
//! A device that moves data by them asks for it through the [`Backplane`], as it asks for an interrupt: the controllers
//! belong to the board. [`IsaDmaPorts`] is the face they show to the processor. The cascade through channel 4 needs no
//! opening, and nothing moves from memory to memory.

use quintet_protocol::addr::GuestPhys;
use serde::{Deserialize, Serialize};

use crate::bus::{Access, Backplane, Device, Region, RegionKind, StateError, load_state, save_state};
use crate::dma::Dma;

/// Where the regions of [`IsaDmaPorts`] lie: first controller, page registers, second controller.
pub const PORTS: [u64; 5] = [0x00, 0x81, 0x87, 0x89, 0xC0];
/// Channels of the page registers 81h, 82h, 83h, 87h, 89h, 8Ah, 8Bh.
const PAGES: [&[u8]; 3] = [&[2, 3, 1], &[0], &[6, 7, 5]];

/// Bits of a channel's mode.
mod mode {
    pub(super) const TYPE: u8 = 0x0C;
    pub(super) const TO_MEMORY: u8 = 0x04;
    pub(super) const FROM_MEMORY: u8 = 0x08;
    pub(super) const AUTO: u8 = 0x10;
    pub(super) const DOWN: u8 = 0x20;
}
/// Bit of a command register: the controller does nothing.
const DISABLED: u8 = 0x04;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Channel {
    base_address: u16,
    base_count: u16,
    address: u16,
    count: u16,
    page: u8,
    mode: u8,
    masked: bool,
    /// Asked for by software.
    asked: bool,
    /// Has reached its end since the status was read.
    ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    channels: [Channel; 8],
    /// Of each controller: whether the next byte is a high one, and the command register.
    high: [bool; 2],
    command: [u8; 2],
}

impl Default for State {
    fn default() -> Self {
        let masked = Channel {
            masked: true,
            ..Channel::default()
        };
        Self {
            channels: [masked; 8],
            high: [false; 2],
            command: [0; 2],
        }
    }
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that were moved.
    pub bytes: usize,
    /// The channel has counted to its end (TC).
    pub ended: bool,
}

/// The controllers.
#[derive(Debug, Default)]
pub struct IsaDma {
    state: State,
    dirty: bool,
}

impl IsaDma {
    /// Whether a channel would move data now.
    pub fn is_open(&self, channel: u8) -> bool {
        let c = &self.state.channels[usize::from(channel & 7)];
        !c.masked && self.state.command[usize::from(channel >> 2 & 1)] & DISABLED == 0
    }

    /// A device on `channel` gives data to memory, as far as the channel takes it.
    pub fn to_memory(&mut self, channel: u8, memory: &mut Dma, data: &[u8]) -> Moved {
        let writes = self.state.channels[usize::from(channel & 7)].mode & mode::TYPE == mode::TO_MEMORY;
        self.step(channel, data.len(), |at, n| {
            if writes {
                memory.write(GuestPhys(at), &data[n.clone()]);
            }
        })
    }

    /// A device on `channel` takes data from memory, as far as the channel gives it.
    pub fn from_memory(&mut self, channel: u8, memory: &Dma, data: &mut [u8]) -> Moved {
        let reads = self.state.channels[usize::from(channel & 7)].mode & mode::TYPE == mode::FROM_MEMORY;
        self.step(channel, data.len(), |at, n| {
            if reads {
                memory.read(GuestPhys(at), &mut data[n.clone()]);
            } else {
                data[n.clone()].fill(0xFF);
            }
        })
    }

    /// Moves up to `len` bytes in runs that lie one behind the other in memory, each by `piece`.
    fn step(
        &mut self,
        channel: u8,
        len: usize,
        mut piece: impl FnMut(u64, &std::ops::Range<usize>),
    ) -> Moved {
        let mut moved = Moved {
            bytes: 0,
            ended: false,
        };
        if !self.is_open(channel) {
            return moved;
        }
        self.dirty = true;
        let c = &mut self.state.channels[usize::from(channel & 7)];
        // The second controller counts words, and its page has no lowest bit.
        let wide = channel > 3;
        let unit = if wide { 2 } else { 1 };
        while moved.bytes + unit <= len && !moved.ended {
            let address = u64::from(c.address) * unit as u64;
            let page = u64::from(if wide { c.page & 0xFE } else { c.page }) << 16;
            let down = c.mode & mode::DOWN != 0;
            let left = usize::from(c.count) + 1;
            // The page does not move: an address wraps within it.
            let run = match down {
                true => 1,
                false => left.min(0x1_0000 - usize::from(c.address)),
            };
            let run = run.min((len - moved.bytes) / unit);
            piece(page + address, &(moved.bytes..moved.bytes + run * unit));
            moved.bytes += run * unit;
            c.address = match down {
                true => c.address.wrapping_sub(1),
                false => c.address.wrapping_add(run as u16),
            };
            c.count = c.count.wrapping_sub(run as u16);
            if run == left {
                moved.ended = true;
                c.ended = true;
                c.asked = false;
                if c.mode & mode::AUTO != 0 {
                    (c.address, c.count) = (c.base_address, c.base_count);
                } else {
                    c.masked = true;
                }
            }
        }
        moved
    }

    /// Whether anything has changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// The reset line.
    pub fn reset(&mut self) {
        *self = Self {
            dirty: true,
            ..Self::default()
        };
    }

    /// Appends the state.
    pub fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    /// Takes up what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.state = load_state("isa-dma", 1, 1, bytes)?;
        Ok(())
    }

    fn of(controller: usize) -> std::ops::Range<usize> {
        controller * 4..controller * 4 + 4
    }

    fn read(&mut self, controller: usize, register: u8) -> u8 {
        let s = &mut self.state;
        let high = s.high[controller];
        match register {
            0..=7 => {
                s.high[controller] = !high;
                let c = &s.channels[controller * 4 + usize::from(register >> 1)];
                let word = if register & 1 == 0 { c.address } else { c.count };
                word.to_le_bytes()[usize::from(high)]
            }
            8 => {
                let mut status = 0;
                for (n, c) in s.channels[Self::of(controller)].iter_mut().enumerate() {
                    status |= u8::from(std::mem::take(&mut c.ended)) << n | u8::from(c.asked) << (4 + n);
                }
                status
            }
            0xF => {
                let masks = s.channels[Self::of(controller)].iter().enumerate();
                masks.fold(0xF0, |all, (n, c)| all | u8::from(c.masked) << n)
            }
            // The temporary register: nothing moves from memory to memory.
            0xD => 0,
            _ => 0xFF,
        }
    }

    fn write(&mut self, controller: usize, register: u8, value: u8) {
        let s = &mut self.state;
        let set = value & 4 != 0;
        let named = controller * 4 + usize::from(value & 3);
        match register {
            0..=7 => {
                let high = s.high[controller];
                s.high[controller] = !high;
                let c = &mut s.channels[controller * 4 + usize::from(register >> 1)];
                let pair = match register & 1 {
                    0 => (&mut c.base_address, &mut c.address),
                    _ => (&mut c.base_count, &mut c.count),
                };
                let mut word = pair.0.to_le_bytes();
                word[usize::from(high)] = value;
                *pair.0 = u16::from_le_bytes(word);
                *pair.1 = *pair.0;
            }
            8 => s.command[controller] = value,
            9 => s.channels[named].asked = set,
            0xA => s.channels[named].masked = set,
            0xB => s.channels[named].mode = value & 0xFC,
            0xC => s.high[controller] = false,
            0xD => {
                (s.high[controller], s.command[controller]) = (false, 0);
                for c in &mut s.channels[Self::of(controller)] {
                    (c.masked, c.asked, c.ended) = (true, false, false);
                }
            }
            0xE => s.channels[Self::of(controller)]
                .iter_mut()
                .for_each(|c| c.masked = false),
            0xF => {
                for (n, c) in s.channels[Self::of(controller)].iter_mut().enumerate() {
                    c.masked = value >> n & 1 != 0;
                }
            }
            _ => {}
        }
    }

    fn page(&mut self, channel: u8) -> &mut u8 {
        &mut self.state.channels[usize::from(channel)].page
    }
}

/// The registers of the controllers. Their state is the board's.
#[derive(Debug)]
pub struct IsaDmaPorts;

/// What a port of a region is.
enum Register {
    Of(usize, u8),
    Page(u8),
    Nothing,
}

fn register(region: u8, offset: u64) -> Register {
    match (region, offset) {
        (0, _) => Register::Of(0, offset as u8),
        // Each register of the second takes two ports.
        (4, _) if offset.is_multiple_of(2) => Register::Of(1, (offset / 2) as u8),
        (1..=3, _) => Register::Page(PAGES[usize::from(region) - 1][offset as usize]),
        _ => Register::Nothing,
    }
}

impl Device for IsaDmaPorts {
    fn name(&self) -> &'static str {
        "isa-dma"
    }

    fn regions(&self) -> Vec<Region> {
        [16, 3, 1, 3, 32]
            .map(|len| Region {
                kind: RegionKind::Port,
                len,
                runs: Vec::new(),
            })
            .into()
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        bp.isa_dma.dirty = true;
        (0..at.size.bytes()).fold(0, |value, i| {
            let byte = match register(at.region, at.offset + u64::from(i)) {
                Register::Of(controller, n) => bp.isa_dma.read(controller, n),
                Register::Page(channel) => *bp.isa_dma.page(channel),
                Register::Nothing => 0xFF,
            };
            value | u64::from(byte) << (8 * i)
        })
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        bp.isa_dma.dirty = true;
        for i in 0..at.size.bytes() {
            let byte = (value >> (8 * i)) as u8;
            match register(at.region, at.offset + u64::from(i)) {
                Register::Of(controller, n) => bp.isa_dma.write(controller, n, byte),
                Register::Page(channel) => *bp.isa_dma.page(channel) = byte,
                Register::Nothing => {}
            }
        }
    }

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        bp.isa_dma.reset();
    }

    fn save(&self, _out: &mut Vec<u8>) {}

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        load_state(self.name(), self.state_version(), version, bytes)
    }
}

#[cfg(test)]
#[path = "isa_dma_tests.rs"]
mod tests;
