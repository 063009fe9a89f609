//! A drive on a channel: its task file, what it is doing, and the requests it has under way.
//!
//! [`super::ata`] and [`super::atapi`] decide what a command means, [`super::transfer`] moves its data.

use serde::{Deserialize, Serialize};

use super::atapi::Packet;
use super::bus_master::BusMaster;
use super::identify::Identity;
use crate::block::{DiskId, Ticket};
use crate::bus::Backplane;

/// Bits of the status register (ATA/ATAPI-6, 7.15.6).
pub(super) mod status {
    pub(crate) const BSY: u8 = 0x80;
    pub(crate) const DRDY: u8 = 0x40;
    pub(crate) const DF: u8 = 0x20;
    pub(crate) const DSC: u8 = 0x10;
    pub(crate) const DRQ: u8 = 0x08;
    pub(crate) const ERR: u8 = 0x01;
}
/// Bits of the error register (7.9).
pub(super) mod error {
    pub(crate) const UNC: u8 = 0x40;
    pub(crate) const IDNF: u8 = 0x10;
    pub(crate) const ABRT: u8 = 0x04;
    /// Diagnostic code: no error.
    pub(crate) const PASSED: u8 = 0x01;
}
/// LBA instead of cylinder, head and sector: a bit of the device register.
pub(super) const DEVICE_LBA: u8 = 0x40;

/// What a drive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveKind {
    /// A hard disk.
    Disk,
    /// A CD-ROM drive that speaks packets.
    Cdrom,
}

/// A drive to be attached.
#[derive(Clone, Debug)]
pub struct DriveConfig {
    /// What it is.
    pub kind: DriveKind,
    /// What holds its sectors.
    pub disk: DiskId,
    /// Bytes of that.
    pub len: u64,
    /// Serial number, up to 20 characters of ASCII.
    pub serial: String,
    /// How often what is in a CD-ROM drive has been changed.
    pub medium: u32,
}

/// A register that remembers the value before (48-bit addressing): newest first.
pub(super) type Pair = [u8; 2];

/// The command block as one drive has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) feature: Pair,
    pub(super) count: Pair,
    pub(super) low: Pair,
    pub(super) mid: Pair,
    pub(super) high: Pair,
    pub(super) device: u8,
    pub(super) error: u8,
    pub(super) status: u8,
}

/// How a command names sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Addressing {
    #[default]
    Chs,
    Lba28,
    Lba48,
}

/// What a drive waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// The host reads the buffer.
    DataIn,
    /// The host fills the buffer.
    DataOut,
    /// The host writes a packet.
    Packet,
    /// Sectors are read for the host to fetch.
    Fetch,
    /// What the host wrote goes to the disk.
    Store,
    /// The bus master is to be started.
    DmaHeld,
    /// Sectors are read for the bus master.
    DmaFetch,
    /// What the bus master collected goes to the disk.
    DmaStore,
    /// The disk is made to last.
    Flush,
}

/// What is left of a command that moves sectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) addressing: Addressing,
    /// Next sector.
    pub(super) lba: u64,
    /// Sectors left.
    pub(super) left: u32,
    /// Sectors for each DRQ.
    pub(super) block: u32,
    /// Sectors under way.
    pub(super) chunk: u32,
    /// To the disk.
    pub(super) write: bool,
    /// Sectors with their headers, 2352 bytes each.
    pub(super) raw: bool,
}

/// What is committed of a drive, beside its buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) task: Task,
    pub(super) phase: Phase,
    pub(super) run: Run,
    /// Bytes until the DRQ phase ends.
    pub(super) drq: u32,
    /// Sectors a block, for READ and WRITE MULTIPLE; 0 until set.
    pub(super) multiple: u8,
    /// Translation: heads and sectors a track.
    pub(super) heads: u8,
    pub(super) sectors: u8,
    /// As SET FEATURES had it: kind and number of the transfer mode.
    pub(super) mode: u8,
    pub(super) write_cache: bool,
    pub(super) look_ahead: bool,
    pub(super) standby: bool,
    pub(super) packet: Packet,
}

/// A drive.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) kind: DriveKind,
    pub(super) disk: DiskId,
    pub(super) identity: Identity,
    /// Sectors of the disk, of [`Self::unit`] bytes each.
    pub(super) total: u64,
    /// As [`DriveConfig::medium`].
    pub(super) medium: u32,
    pub(super) s: State,
    /// While data goes in: what the host has not read yet, from `at` on. While it goes out: what it has written.
    pub(super) buffer: Vec<u8>,
    pub(super) at: usize,
    /// The request under way.
    pub(super) ticket: Option<Ticket>,
}

/// What a drive has of its channel for the time of a call.
pub(super) struct Cable<'a, 'b> {
    pub(super) bp: &'a mut Backplane<'b>,
    pub(super) bm: &'a mut BusMaster,
    /// Set to interrupt.
    pub(super) interrupt: bool,
}

/// Default transfer mode: multi-word DMA 2, what the controller can.
const DEFAULT_MODE: u8 = 0x22;

impl Drive {
    pub(super) fn new(config: &DriveConfig) -> Self {
        let unit = unit(config.kind);
        let total = config.len / unit;
        let identity = Identity::new(config.kind, total, &config.serial);
        let mut this = Self {
            kind: config.kind,
            disk: config.disk,
            total,
            medium: config.medium,
            s: State {
                task: Task::default(),
                phase: Phase::Idle,
                run: Run::default(),
                drq: 0,
                multiple: 0,
                heads: identity.heads,
                sectors: identity.sectors,
                mode: DEFAULT_MODE,
                write_cache: true,
                look_ahead: true,
                standby: false,
                packet: Packet::default(),
            },
            identity,
            buffer: Vec::new(),
            at: 0,
            ticket: None,
        };
        this.power_on();
        this
    }

    /// Bytes of a sector.
    pub(super) fn unit(&self) -> u64 {
        unit(self.kind)
    }

    /// Power-on and the reset line.
    pub(super) fn power_on(&mut self) {
        self.s.multiple = 0;
        (self.s.heads, self.s.sectors) = (self.identity.heads, self.identity.sectors);
        self.s.mode = DEFAULT_MODE;
        (self.s.write_cache, self.s.look_ahead, self.s.standby) = (true, true, false);
        self.s.packet = Packet::after_reset(self.medium);
        self.abandon();
        self.s.task = Task::default();
        self.sign();
    }

    /// Drops what is under way. A write that a thread has already stays in order before all later ones.
    pub(super) fn abandon(&mut self) {
        self.s.phase = Phase::Idle;
        self.s.run = Run::default();
        self.s.drq = 0;
        self.buffer.clear();
        self.at = 0;
        self.ticket = None;
    }

    /// Takes back from the disk what this drive wants no more, if that was not begun: its buffers are the driver's again.
    pub(super) fn take_back(&self, bp: &mut Backplane<'_>) {
        if self.ticket.is_none() {
            bp.disks.withdraw(self.disk);
        }
    }

    /// Software reset, after which the drive shows its signature.
    pub(super) fn soft_reset(&mut self) {
        self.abandon();
        self.s.standby = false;
        self.sign();
    }

    /// The registers after a reset or diagnostic (9.12).
    pub(super) fn sign(&mut self) {
        self.set_signature();
        let t = &mut self.s.task;
        t.error = error::PASSED;
        t.status = match self.kind {
            DriveKind::Disk => status::DRDY | status::DSC,
            DriveKind::Cdrom => 0,
        };
    }

    /// Only what tells a packet drive from a disk.
    pub(super) fn set_signature(&mut self) {
        let t = &mut self.s.task;
        (t.count, t.low) = ([1, 0], [1, 0]);
        (t.mid, t.high) = match self.kind {
            DriveKind::Disk => ([0, 0], [0, 0]),
            DriveKind::Cdrom => ([0x14, 0], [0xEB, 0]),
        };
        t.device = 0;
    }

    /// The command is done.
    pub(super) fn succeed(&mut self, cable: &mut Cable<'_, '_>) {
        self.rest();
        cable.interrupt = true;
    }

    /// As [`Self::succeed`] without an interrupt: after the last block that the host has read.
    pub(super) fn rest(&mut self) {
        self.abandon();
        self.s.task.status = status::DRDY | status::DSC;
    }

    /// The command has failed.
    pub(super) fn fail(&mut self, cable: &mut Cable<'_, '_>, why: u8) {
        self.abandon();
        let t = &mut self.s.task;
        t.status = status::DRDY | status::DSC | status::ERR;
        t.error = why;
        cable.interrupt = true;
    }
}

fn unit(kind: DriveKind) -> u64 {
    match kind {
        DriveKind::Disk => crate::block::SECTOR,
        DriveKind::Cdrom => 2048,
    }
}
