//! A channel: the registers that two drives share, who of them is selected, and the interrupt.

use serde::{Deserialize, Serialize};

use super::ata::{DEVICE_RESET, DIAGNOSTIC};
use super::bus_master::{self, BusMaster};
use super::drive::{Cable, Drive, DriveConfig, Pair, status};
use crate::bus::{Backplane, Pin};

/// Bits of the device control register.
mod control {
    pub(super) const NIEN: u8 = 0x02;
    pub(super) const SRST: u8 = 0x04;
    pub(super) const HOB: u8 = 0x80;
}
/// The second drive is selected: a bit of the device register.
const DEV: u8 = 0x10;
/// Bits of the device register that are always one.
const DEVICE_ONES: u8 = 0xA0;

/// Registers of the command block, by their offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Error,
    Count,
    Low,
    Mid,
    High,
    Device,
    Status,
}

/// What is committed of a channel, beside its drives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    device: u8,
    control: u8,
    interrupt: bool,
    pub(super) bm: BusMaster,
}

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    pin: Pin,
    pub(super) drives: [Option<Drive>; 2],
    pub(super) s: State,
}

impl Channel {
    pub(super) fn new(pin: Pin, drives: [Option<DriveConfig>; 2]) -> Self {
        Self {
            pin,
            drives: drives.map(|config| config.as_ref().map(Drive::new)),
            s: State::default(),
        }
    }

    fn selected(&self) -> usize {
        usize::from(self.s.device & DEV != 0)
    }

    /// Calls a drive, and interrupts if it wants to.
    fn with<R>(
        &mut self,
        which: usize,
        bp: &mut Backplane<'_>,
        f: impl FnOnce(&mut Drive, &mut Cable<'_, '_>) -> R,
    ) -> Option<R> {
        let drive = self.drives[which].as_mut()?;
        let mut cable = Cable {
            bp,
            bm: &mut self.s.bm,
            interrupt: false,
        };
        let result = f(drive, &mut cable);
        drive.take_back(cable.bp);
        if cable.interrupt && which == usize::from(self.s.device & DEV != 0) {
            self.s.interrupt = true;
            self.drive_pin(bp);
        }
        Some(result)
    }

    fn drive_pin(&mut self, bp: &mut Backplane<'_>) {
        let high = self.s.interrupt && self.s.control & control::NIEN == 0;
        if high && !bp.irq.level(self.pin) {
            self.s.bm.status |= bus_master::status::INTERRUPT;
        }
        bp.irq.set(self.pin, high);
    }

    fn acknowledge(&mut self, bp: &mut Backplane<'_>) {
        self.s.interrupt = false;
        self.drive_pin(bp);
    }

    /// What a register holds, without the effect of reading it. A channel without drives, or a drive that is not there,
    /// reads as zeros.
    pub(super) fn peek(&self, reg: Reg) -> u8 {
        let Some(drive) = &self.drives[self.selected()] else {
            return 0;
        };
        let t = &drive.s.task;
        let of = |pair: Pair| pair[usize::from(self.s.control & control::HOB != 0)];
        match reg {
            Reg::Error => t.error,
            Reg::Count => of(t.count),
            Reg::Low => of(t.low),
            Reg::Mid => of(t.mid),
            Reg::High => of(t.high),
            Reg::Device => self.s.device & DEV | t.device & !DEV | DEVICE_ONES,
            Reg::Status => t.status,
        }
    }

    pub(super) fn read(&mut self, bp: &mut Backplane<'_>, reg: Reg) -> u8 {
        let value = self.peek(reg);
        if reg == Reg::Status {
            self.acknowledge(bp);
        }
        value
    }

    /// Whether reading the status register changes nothing.
    pub(super) fn status_is_pure(&self) -> bool {
        !self.s.interrupt
    }

    pub(super) fn write(&mut self, bp: &mut Backplane<'_>, reg: Reg, value: u8) {
        if reg == Reg::Status {
            return self.command(bp, value);
        }
        self.s.control &= !control::HOB;
        if reg == Reg::Device {
            self.s.device = value;
        }
        for drive in self.drives.iter_mut().flatten() {
            let t = &mut drive.s.task;
            let pair = match reg {
                Reg::Error => &mut t.feature,
                Reg::Count => &mut t.count,
                Reg::Low => &mut t.low,
                Reg::Mid => &mut t.mid,
                Reg::High => &mut t.high,
                Reg::Device => {
                    t.device = value & !DEV;
                    continue;
                }
                Reg::Status => continue,
            };
            *pair = [value, pair[0]];
        }
    }

    fn command(&mut self, bp: &mut Backplane<'_>, command: u8) {
        if command == DIAGNOSTIC {
            return self.diagnose(bp);
        }
        let which = self.selected();
        let Some(drive) = &self.drives[which] else { return };
        if command == DEVICE_RESET {
            self.acknowledge(bp);
            self.with(which, bp, |drive, cable| drive.device_reset(cable));
        } else if !drive.is_busy() && drive.s.task.status & status::BSY == 0 {
            self.acknowledge(bp);
            self.with(which, bp, |drive, cable| drive.command(cable, command));
        }
    }

    /// Both drives are well; the first answers and interrupts, whoever is selected.
    fn diagnose(&mut self, bp: &mut Backplane<'_>) {
        self.s.device &= !DEV;
        for which in 0..2 {
            self.with(which, bp, |drive, cable| {
                drive.soft_reset();
                cable.interrupt = true;
            });
        }
    }

    pub(super) fn data_in(&mut self, bp: &mut Backplane<'_>, bytes: usize) -> u64 {
        let which = self.selected();
        self.with(which, bp, |drive, cable| drive.data_in(cable, bytes))
            .unwrap_or(u64::MAX)
    }

    pub(super) fn data_out(&mut self, bp: &mut Backplane<'_>, bytes: usize, value: u64) {
        let which = self.selected();
        self.with(which, bp, |drive, cable| drive.data_out(cable, bytes, value));
    }

    pub(super) fn write_control(&mut self, bp: &mut Backplane<'_>, value: u8) {
        let before = std::mem::replace(&mut self.s.control, value);
        let resets = |control: u8| control & control::SRST != 0;
        if resets(value) && !resets(before) {
            self.s.interrupt = false;
            for which in 0..2 {
                self.with(which, bp, |drive, _| {
                    drive.abandon();
                    drive.s.task.status = status::BSY | status::DSC;
                });
            }
        } else if resets(before) && !resets(value) {
            self.s.device = 0;
            for which in 0..2 {
                self.with(which, bp, |drive, _| drive.soft_reset());
            }
        }
        self.drive_pin(bp);
    }

    pub(super) fn write_bus_master(&mut self, bp: &mut Backplane<'_>, value: u8) {
        match self.s.bm.write_command(value) {
            Some(true) => {
                for which in 0..2 {
                    self.with(which, bp, |drive, cable| drive.dma_go(cable));
                }
            }
            Some(false) => {
                for which in 0..2 {
                    self.with(which, bp, |drive, _| drive.dma_stop());
                }
            }
            None => {}
        }
    }

    pub(super) fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        let mut changed = false;
        for which in 0..2 {
            changed |= self
                .with(which, bp, |drive, cable| drive.advance(cable))
                .unwrap_or(false);
        }
        changed
    }

    pub(super) fn resume(&mut self, bp: &mut Backplane<'_>) {
        for which in 0..2 {
            self.with(which, bp, |drive, cable| drive.resume(cable));
        }
    }

    pub(super) fn reset(&mut self, bp: &mut Backplane<'_>) {
        self.s = State::default();
        for which in 0..2 {
            self.with(which, bp, |drive, _| drive.power_on());
        }
        self.drive_pin(bp);
    }
}
