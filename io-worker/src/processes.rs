//! The processes that the machine runs on, for the guest to see: a block of ports that nothing of a PC has.
//!
//! It is what the demo guest draws its picture from. A guest learns which process runs, whether it was started anew, and that it lives; nothing that
//! leads out of the machine, such as a number of a process. All of it is other processes' words, so the device has no state of its
//! own, and reading it changes nothing. An item of fw_cfg was rejected: those stand still.

use quintet_protocol::handshake::{MapSet, Role};
use quintet_protocol::status::{PeerState, StatusReader, StatusWord};

use crate::bus::regmap::{Attr, RegMap, Registers, reg};
use crate::bus::{Access, Backplane, Device, Region, RegionKind, StateError, load_state, save_state};

/// First port.
pub const PORTS: u64 = 0x5A0;
/// "Q5PS" in memory.
const SIGNATURE: u32 = u32::from_le_bytes(*b"Q5PS");
/// Version of the block, below the number of processes.
const VERSION: u32 = 1;

/// What a register tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    Signature,
    /// Version in the lower half, number of processes in the upper.
    Version,
    /// Resets of the machine so far.
    Resets,
    /// A [`quintet_protocol::status::PeerState`]; the coordinator's is that of a process that runs.
    State(Role),
    /// How often it was started.
    Generation(Role),
    /// Counts up while it lives; wraps.
    Beats(Role),
}

const MAP: RegMap<Tells> = RegMap::new(
    0x60,
    &[
        reg(0x00, 4, Tells::Signature, Attr::PURE),
        reg(0x04, 4, Tells::Version, Attr::PURE),
        reg(0x08, 4, Tells::Resets, Attr::PURE),
        reg(0x10, 4, Tells::State(Role::Coordinator), Attr::PURE),
        reg(0x14, 4, Tells::Generation(Role::Coordinator), Attr::PURE),
        reg(0x18, 4, Tells::Beats(Role::Coordinator), Attr::PURE),
        reg(0x20, 4, Tells::State(Role::Cpu), Attr::PURE),
        reg(0x24, 4, Tells::Generation(Role::Cpu), Attr::PURE),
        reg(0x28, 4, Tells::Beats(Role::Cpu), Attr::PURE),
        reg(0x30, 4, Tells::State(Role::Io), Attr::PURE),
        reg(0x34, 4, Tells::Generation(Role::Io), Attr::PURE),
        reg(0x38, 4, Tells::Beats(Role::Io), Attr::PURE),
        reg(0x40, 4, Tells::State(Role::Gpu), Attr::PURE),
        reg(0x44, 4, Tells::Generation(Role::Gpu), Attr::PURE),
        reg(0x48, 4, Tells::Beats(Role::Gpu), Attr::PURE),
        reg(0x50, 4, Tells::State(Role::Audio), Attr::PURE),
        reg(0x54, 4, Tells::Generation(Role::Audio), Attr::PURE),
        reg(0x58, 4, Tells::Beats(Role::Audio), Attr::PURE),
    ],
);

/// The device.
#[derive(Debug)]
pub struct Processes {
    /// In the order of [`Role::index`].
    words: [StatusReader; 5],
}

impl Processes {
    /// What the processes say in `maps`.
    pub fn new(maps: &MapSet) -> Self {
        let [a, b, c, d] = Role::WORKERS;
        Self {
            words: [Role::Coordinator, a, b, c, d].map(|role| StatusReader::of(maps, role)),
        }
    }

    fn of(&self, role: Role, word: StatusWord) -> u64 {
        self.words[role.index()].load(word).into()
    }
}

impl Registers<Tells> for Processes {
    fn read_reg(&mut self, _bp: &mut Backplane<'_>, reg: Tells) -> u64 {
        match reg {
            Tells::Signature => SIGNATURE.into(),
            Tells::Version => u64::from(VERSION) | 5 << 16,
            Tells::Resets => self.of(Role::Coordinator, StatusWord::ResetGeneration),
            Tells::State(Role::Coordinator) => PeerState::Running as u64,
            Tells::Generation(Role::Coordinator) => 1,
            Tells::State(role) => self.of(Role::Coordinator, StatusWord::peer(role)),
            Tells::Generation(role) => self.of(Role::Coordinator, StatusWord::generation(role)),
            Tells::Beats(role) => self.of(role, StatusWord::Heartbeat),
        }
    }

    fn write_reg(&mut self, _bp: &mut Backplane<'_>, _reg: Tells, _value: u64) {}
}

impl Device for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn regions(&self) -> Vec<Region> {
        vec![MAP.region(RegionKind::Port)]
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        MAP.read(self, bp, at)
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        MAP.write(self, bp, at, value);
    }

    fn reset(&mut self, _bp: &mut Backplane<'_>) {}

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&0_u8, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        load_state::<u8>(self.name(), self.state_version(), version, bytes).map(|_| ())
    }
}
