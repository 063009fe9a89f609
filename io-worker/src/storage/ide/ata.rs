//! Commands of a hard disk, and those that packet drives share (ATA/ATAPI-6, clause 8).

use super::drive::{Addressing, Cable, Drive, DriveKind, Phase, Run, error, status};
use super::identify::MAX_MULTIPLE;

/// DEVICE RESET, which is obeyed whatever the drive is doing.
pub(super) const DEVICE_RESET: u8 = 0x08;
/// EXECUTE DEVICE DIAGNOSTIC, which both drives obey.
pub(super) const DIAGNOSTIC: u8 = 0x90;

/// How the data of a command moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Sectors,
    Multiple,
    Dma,
}

impl Drive {
    /// Executes a command. The drive is neither busy nor moving data.
    pub(super) fn command(&mut self, cable: &mut Cable<'_, '_>, command: u8) {
        self.s.task.error = 0;
        self.s.packet.running = false;
        match self.kind {
            DriveKind::Disk => self.disk_command(cable, command),
            DriveKind::Cdrom => self.packet_drive_command(cable, command),
        }
    }

    fn disk_command(&mut self, cable: &mut Cable<'_, '_>, command: u8) {
        match command {
            0x10..=0x1F => self.succeed(cable),
            0x20 | 0x21 => self.transfer(cable, How::Sectors, false, false),
            0x24 => self.transfer(cable, How::Sectors, false, true),
            0x25 => self.transfer(cable, How::Dma, false, true),
            0x27 => self.native_max(cable, true),
            0x29 => self.transfer(cable, How::Multiple, false, true),
            0x30 | 0x31 | 0x3C => self.transfer(cable, How::Sectors, true, false),
            0x34 => self.transfer(cable, How::Sectors, true, true),
            0x35 => self.transfer(cable, How::Dma, true, true),
            0x39 => self.transfer(cable, How::Multiple, true, true),
            0x40 | 0x41 => self.verify(cable, false),
            0x42 => self.verify(cable, true),
            0x70..=0x7F => self.seek(cable),
            0x91 => self.initialize_parameters(cable),
            0xC4 => self.transfer(cable, How::Multiple, false, false),
            0xC5 => self.transfer(cable, How::Multiple, true, false),
            0xC6 => self.set_multiple(cable),
            0xC8 | 0xC9 => self.transfer(cable, How::Dma, false, false),
            0xCA | 0xCB => self.transfer(cable, How::Dma, true, false),
            0xE7 | 0xEA => self.flush(cable),
            0xEC => {
                self.buffer = self.identify();
                self.offer(cable);
            }
            0xF8 => self.native_max(cable, false),
            _ => self.common_command(cable, command),
        }
    }

    /// What both kinds of drives know.
    pub(super) fn common_command(&mut self, cable: &mut Cable<'_, '_>, command: u8) {
        match command {
            // STANDBY, SLEEP.
            0x94 | 0x96 | 0x99 | 0xE0 | 0xE2 | 0xE6 => {
                self.s.standby = true;
                self.succeed(cable);
            }
            // IDLE.
            0x95 | 0x97 | 0xE1 | 0xE3 => {
                self.s.standby = false;
                self.succeed(cable);
            }
            // CHECK POWER MODE.
            0x98 | 0xE5 => {
                self.s.task.count[0] = if self.s.standby { 0 } else { 0xFF };
                self.succeed(cable);
            }
            0xEF => self.set_features(cable),
            _ => self.fail(cable, error::ABRT),
        }
    }

    /// Number of sectors that a command is for.
    fn asked(&self, wide: bool) -> u32 {
        let [low, high] = self.s.task.count.map(u32::from);
        match (wide, low, high << 8 | low) {
            (true, _, 0) => 0x1_0000,
            (true, _, n) => n,
            (false, 0, _) => 0x100,
            (false, n, _) => n,
        }
    }

    /// The sectors that a command is for; `None` when some of them do not exist.
    fn range(&self, wide: bool) -> Option<(Addressing, u64, u32)> {
        let addressing = self.addressing(wide);
        let (lba, count) = (self.named(addressing)?, self.asked(wide));
        (lba + u64::from(count) <= self.total).then_some((addressing, lba, count))
    }

    fn transfer(&mut self, cable: &mut Cable<'_, '_>, how: How, write: bool, wide: bool) {
        self.s.standby = false;
        if how == How::Multiple && self.s.multiple == 0 {
            return self.fail(cable, error::ABRT);
        }
        let Some((addressing, lba, left)) = self.range(wide) else {
            return self.fail(cable, error::IDNF);
        };
        if write && cable.bp.disks.is_read_only(self.disk) {
            return self.fail(cable, error::ABRT);
        }
        self.s.run = Run {
            addressing,
            lba,
            left,
            block: match how {
                How::Multiple => u32::from(self.s.multiple),
                How::Sectors | How::Dma => 1,
            },
            chunk: 0,
            write,
            raw: false,
        };
        if how == How::Dma {
            self.begin_dma(cable);
        } else {
            self.begin_pio(cable);
        }
    }

    /// READ VERIFY: every sector of an image can be read until it is tried.
    fn verify(&mut self, cable: &mut Cable<'_, '_>, wide: bool) {
        match self.range(wide) {
            Some((addressing, lba, count)) => {
                self.s.run = Run {
                    addressing,
                    lba: lba + u64::from(count),
                    ..Run::default()
                };
                self.show_place();
                self.succeed(cable);
            }
            None => self.fail(cable, error::IDNF),
        }
    }

    fn seek(&mut self, cable: &mut Cable<'_, '_>) {
        match self.named(self.addressing(false)) {
            Some(lba) if lba < self.total => self.succeed(cable),
            _ => self.fail(cable, error::IDNF),
        }
    }

    /// The translation that CHS addresses go by from now on (8.16 of ATA-3).
    fn initialize_parameters(&mut self, cable: &mut Cable<'_, '_>) {
        let sectors = self.s.task.count[0];
        if sectors == 0 {
            return self.fail(cable, error::ABRT);
        }
        self.s.heads = (self.s.task.device & 0xF) + 1;
        self.s.sectors = sectors;
        self.succeed(cable);
    }

    fn set_multiple(&mut self, cable: &mut Cable<'_, '_>) {
        let count = self.s.task.count[0];
        if count > MAX_MULTIPLE || count != 0 && !count.is_power_of_two() {
            return self.fail(cable, error::ABRT);
        }
        self.s.multiple = count;
        self.succeed(cable);
    }

    fn native_max(&mut self, cable: &mut Cable<'_, '_>, wide: bool) {
        let addressing = self.addressing(wide);
        if self.total == 0 || addressing == Addressing::Chs {
            return self.fail(cable, error::ABRT);
        }
        let last = self.total - 1;
        self.s.run = Run {
            addressing,
            lba: if wide { last } else { last.min(0xFFF_FFFF) },
            ..Run::default()
        };
        let count = self.s.task.count;
        self.show_place();
        self.s.task.count = count;
        self.succeed(cable);
    }

    fn set_features(&mut self, cable: &mut Cable<'_, '_>) {
        let value = self.s.task.count[0];
        match self.s.task.feature[0] {
            0x02 => self.s.write_cache = true,
            0x82 => {
                // What was written under the cache is made to last first.
                self.s.write_cache = false;
                return if self.kind == DriveKind::Disk {
                    self.flush(cable);
                } else {
                    self.succeed(cable);
                };
            }
            0xAA => self.s.look_ahead = true,
            0x55 => self.s.look_ahead = false,
            // Settings kept over a software reset, which ours are anyway.
            0x66 | 0xCC => {}
            0x03 => match (value >> 3, value & 7) {
                (0, 0 | 1) | (1, 0..=4) => {}
                // Single-word, multi-word and ultra DMA.
                (2 | 4, 0..=2) | (8, 0..=5) => self.s.mode = value,
                _ => return self.fail(cable, error::ABRT),
            },
            _ => return self.fail(cable, error::ABRT),
        }
        self.succeed(cable);
    }

    /// DEVICE RESET: a packet drive shows its signature, without an interrupt; a disk does not know it.
    pub(super) fn device_reset(&mut self, cable: &mut Cable<'_, '_>) {
        match self.kind {
            DriveKind::Cdrom => self.soft_reset(),
            DriveKind::Disk if self.s.task.status & (status::BSY | status::DRQ) == 0 => {
                self.fail(cable, error::ABRT);
            }
            DriveKind::Disk => {}
        }
    }

    /// Whether anything but DEVICE RESET is ignored.
    pub(super) fn is_busy(&self) -> bool {
        self.s.phase != Phase::Idle || self.s.task.status & (status::BSY | status::DRQ) != 0
    }
}
