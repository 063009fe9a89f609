//! The IDE function of the PIIX3, 8086:7010 (Intel 290550): two channels at the legacy ports, a bus master at BAR 4.
//!
//! One device for both channels, because they share the bus master's window. Registers that two drives have in common
//! are in `channel`, a drive's commands in `ata` and `atapi`, the movement of data in `transfer`, the bus master
//! in `bus_master`.
//!
//! | region | where | what |
//! |---|---|---|
//! | 0, 2 | 1F0h, 170h | command block |
//! | 1, 3 | 3F6h, 376h | device control, alternate status |
//! | 4 | BAR 4 | bus master, eight ports a channel |

mod ata;
mod atapi;
mod bus_master;
mod channel;
mod disc;
mod drive;
mod identify;
mod transfer;

pub use drive::{DriveConfig, DriveKind};

use serde::{Deserialize, Serialize};

use crate::bus::regmap::{Attr, RegMap, Registers, reg};
use crate::bus::{
    Access, Backplane, Device, Interrupts, Line, PinTarget, Region, RegionKind, StateError, save_state,
};
use channel::{Channel, Reg as Block};

/// Command and control block of each channel, in the order of the regions.
pub const PORTS: [u64; 4] = [0x1F0, 0x3F6, 0x170, 0x376];
/// Region of the bus master.
pub const BUS_MASTER: u8 = 4;
/// Ports of the bus master.
pub const BUS_MASTER_PORTS: u32 = 16;
const LINES: [u8; 2] = [14, 15];
const NAME: &str = "ide";
const VERSION: u16 = 1;

/// A register of channel 0 or 1.
#[derive(Clone, Copy, Debug)]
enum Reg {
    Block(usize, Block),
    Control(usize),
    BmCommand(usize),
    BmStatus(usize),
    BmTable(usize),
}

/// The command block behind the data register, which has rules of its own.
const fn block(n: usize) -> [crate::bus::regmap::Register<Reg>; 7] {
    [
        reg(1, 1, Reg::Block(n, Block::Error), Attr::MIRROR),
        reg(2, 1, Reg::Block(n, Block::Count), Attr::MIRROR),
        reg(3, 1, Reg::Block(n, Block::Low), Attr::MIRROR),
        reg(4, 1, Reg::Block(n, Block::Mid), Attr::MIRROR),
        reg(5, 1, Reg::Block(n, Block::High), Attr::MIRROR),
        reg(6, 1, Reg::Block(n, Block::Device), Attr::MIRROR),
        reg(7, 1, Reg::Block(n, Block::Status), Attr::MIRROR),
    ]
}

const BLOCKS: [RegMap<Reg>; 2] = [
    RegMap::new(8, const { &block(0) }),
    RegMap::new(8, const { &block(1) }),
];
const CONTROLS: [RegMap<Reg>; 2] = [
    RegMap::new(1, &[reg(0, 1, Reg::Control(0), Attr::MIRROR)]),
    RegMap::new(1, &[reg(0, 1, Reg::Control(1), Attr::MIRROR)]),
];
const MASTER: RegMap<Reg> = RegMap::new(
    16,
    &[
        reg(0, 1, Reg::BmCommand(0), Attr::MIRROR),
        reg(2, 1, Reg::BmStatus(0), Attr::MIRROR),
        reg(4, 4, Reg::BmTable(0), Attr::MIRROR),
        reg(8, 1, Reg::BmCommand(1), Attr::MIRROR),
        reg(10, 1, Reg::BmStatus(1), Attr::MIRROR),
        reg(12, 4, Reg::BmTable(1), Attr::MIRROR),
    ],
);

fn map(region: u8) -> &'static RegMap<Reg> {
    match region {
        0 | 2 => &BLOCKS[usize::from(region / 2)],
        1 | 3 => &CONTROLS[usize::from(region / 2)],
        _ => &MASTER,
    }
}

/// What is committed of a drive, and how many bytes its buffer has.
type SavedDrive = (drive::State, u32);

/// What is committed; the drives' buffers follow it as they are.
#[derive(Serialize, Deserialize)]
struct Saved {
    channels: [(channel::State, [Option<SavedDrive>; 2]); 2],
}

/// The function's registers outside configuration space.
#[derive(Debug)]
pub struct PiixIde {
    channels: [Channel; 2],
}

impl PiixIde {
    /// The controller with these drives: primary master and slave, secondary master and slave.
    pub fn new(irq: &mut Interrupts, drives: [Option<DriveConfig>; 4]) -> Self {
        let [a, b, c, d] = drives;
        let mut channel = |n: usize, drives| Channel::new(irq.pin(PinTarget::Line(Line(LINES[n]))), drives);
        Self {
            channels: [channel(0, [a, b]), channel(1, [c, d])],
        }
    }

    fn peek(&self, reg: Reg) -> u64 {
        match reg {
            Reg::Block(n, block) => u64::from(self.channels[n].peek(block)),
            Reg::Control(n) => u64::from(self.channels[n].peek(Block::Status)),
            Reg::BmCommand(n) => u64::from(self.channels[n].s.bm.command),
            Reg::BmStatus(n) => u64::from(self.channels[n].s.bm.status),
            Reg::BmTable(n) => u64::from(self.channels[n].s.bm.table),
        }
    }

    fn drives(&self) -> impl Iterator<Item = &drive::Drive> {
        self.channels.iter().flat_map(|c| c.drives.iter().flatten())
    }
}

/// The data register: the first of the command block, in words or doublewords.
fn is_data(at: Access) -> bool {
    matches!(at.region, 0 | 2) && at.offset == 0
}

impl Registers<Reg> for PiixIde {
    fn read_reg(&mut self, bp: &mut Backplane<'_>, reg: Reg) -> u64 {
        match reg {
            Reg::Block(n, block) => u64::from(self.channels[n].read(bp, block)),
            _ => self.peek(reg),
        }
    }

    fn write_reg(&mut self, bp: &mut Backplane<'_>, reg: Reg, value: u64) {
        match reg {
            Reg::Block(n, block) => self.channels[n].write(bp, block, value as u8),
            Reg::Control(n) => self.channels[n].write_control(bp, value as u8),
            Reg::BmCommand(n) => self.channels[n].write_bus_master(bp, value as u8),
            Reg::BmStatus(n) => self.channels[n].s.bm.write_status(value as u8),
            Reg::BmTable(n) => self.channels[n].s.bm.table = value as u32 & !3,
        }
    }

    fn held(&self, reg: Reg) -> u64 {
        self.peek(reg)
    }
}

impl Device for PiixIde {
    fn name(&self) -> &'static str {
        NAME
    }

    fn regions(&self) -> Vec<Region> {
        (0..=BUS_MASTER)
            .map(|region| map(region).region(RegionKind::Port))
            .collect()
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        if is_data(at) {
            return match at.size.bytes() {
                bytes @ (2 | 4) => self.channels[usize::from(at.region / 2)].data_in(bp, usize::from(bytes)),
                _ => u64::MAX,
            };
        }
        map(at.region).read(self, bp, at)
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        if is_data(at) {
            if let bytes @ (2 | 4) = at.size.bytes() {
                self.channels[usize::from(at.region / 2)].data_out(bp, usize::from(bytes), value);
            }
            return;
        }
        map(at.region).write(self, bp, at, value);
    }

    fn start(&mut self, bp: &mut Backplane<'_>) {
        self.channels.iter_mut().for_each(|c| c.resume(bp));
    }

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        self.channels.iter_mut().for_each(|c| c.reset(bp));
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        self.channels
            .iter_mut()
            .fold(false, |changed, c| c.advance(bp) | changed)
    }

    fn state_version(&self) -> u16 {
        VERSION
    }

    fn save(&self, out: &mut Vec<u8>) {
        let saved = Saved {
            channels: [0, 1].map(|n| {
                let c = &self.channels[n];
                let drive = |d: usize| {
                    let drive = c.drives[d].as_ref()?;
                    Some((drive.s.clone(), (drive.buffer.len() - drive.at) as u32))
                };
                (c.s.clone(), [drive(0), drive(1)])
            }),
        };
        save_state(&saved, out);
        // As they are: a serialiser would take them byte by byte, with every word that the host reads.
        for drive in self.drives() {
            out.extend(&drive.buffer[drive.at..]);
        }
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        if version != VERSION {
            return Err(StateError::Version {
                device: NAME,
                found: version,
                expected: VERSION,
            });
        }
        let damaged = |why: &str| StateError::Damaged {
            device: NAME,
            len: bytes.len(),
            why: why.into(),
        };
        let (saved, mut rest): (Saved, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|e| damaged(&e.to_string()))?;
        let states: Vec<_> = saved.channels.iter().flat_map(|(_, drives)| drives).collect();
        let wanted: usize = states
            .iter()
            .copied()
            .flatten()
            .map(|(_, len)| *len as usize)
            .sum();
        let present = self
            .channels
            .iter()
            .flat_map(|c| c.drives.iter().map(Option::is_some));
        if !present.eq(states.iter().map(|s| s.is_some())) {
            return Err(damaged("other drives than this machine's"));
        }
        if wanted != rest.len() {
            return Err(damaged("buffers of another length"));
        }
        let sound = self
            .channels
            .iter()
            .flat_map(|c| &c.drives)
            .zip(&states)
            .filter_map(|(drive, state)| drive.as_ref().zip(state.as_ref()))
            .all(|(drive, (state, held))| drive.can_be(state, *held as usize));
        if !sound {
            return Err(damaged("a drive in a state that none can be in"));
        }
        for (channel, (state, drives)) in self.channels.iter_mut().zip(saved.channels) {
            channel.s = state;
            for (drive, saved) in channel.drives.iter_mut().zip(drives) {
                let (Some(drive), Some((state, len))) = (drive, saved) else {
                    continue;
                };
                let (buffer, behind) = rest.split_at(len as usize);
                rest = behind;
                (drive.s, drive.buffer, drive.at, drive.ticket) = (state, buffer.to_vec(), 0, None);
            }
        }
        Ok(())
    }

    fn mirror(&self, region: u8, into: &mut [u8; 16]) -> u16 {
        let mut valid = 0;
        let map = map(region);
        for (offset, width, id) in map.all() {
            let pure = match id {
                Reg::Block(n, Block::Status) => self.channels[n].status_is_pure(),
                _ => true,
            };
            let value = self.peek(id).to_le_bytes();
            for i in 0..width {
                into[offset + i] = value[i];
                valid |= u16::from(pure) << (offset + i);
            }
        }
        valid
    }
}

#[cfg(test)]
mod tests;
