//! The floppy disk controller, an 82077AA with one drive, and its diskette (Intel 290166).
//!
//! Data moves by channel 2 of the ISA's DMA controllers only. Sectors are asked of the image by sides: a read asks, takes the
//! answer, and gives it to the channel in one step; a write takes from the channel first, and what it took is committed
//! with the controller, because the channel has counted on. So a successor asks again for what its predecessor was about
//! to do (ADR 0080).

use quintet_protocol::time::VmTime;
use serde::{Deserialize, Serialize};

use super::diskette::Geometry;
use crate::block::{Data, DiskId, Done, Operation, Ticket};
use crate::bus::{
    Access, Backplane, Device, Interrupts, Line, Pin, PinTarget, Region, RegionKind, StateError, load_state,
    save_state,
};

/// Where the regions lie; the port between them is the hard disks'.
pub const PORTS: [u64; 2] = [0x3F0, 0x3F7];
const LINE: u8 = 6;
const CHANNEL: u8 = 2;
const SECTOR: usize = 512;
/// How long after a channel that was closed is looked at again, in nanoseconds.
const RETRY: u64 = 1_000_000;

/// Bits of the digital output register.
mod dor {
    pub(super) const RUN: u8 = 0x04;
    pub(super) const GATE: u8 = 0x08;
}
/// Bits of the main status register.
mod msr {
    pub(super) const READY: u8 = 0x80;
    pub(super) const TO_HOST: u8 = 0x40;
    pub(super) const BUSY: u8 = 0x10;
}
/// Bits of status registers 0 to 3.
mod st {
    pub(super) const ABNORMAL: u8 = 0x40;
    pub(super) const INVALID: u8 = 0x80;
    pub(super) const CHANGED: u8 = 0xC0;
    pub(super) const SEEK_END: u8 = 0x20;
    pub(super) const NO_DRIVE: u8 = 0x10;
    pub(super) const END_OF_TRACK: u8 = 0x80;
    pub(super) const DATA_ERROR: u8 = 0x20;
    pub(super) const NO_DATA: u8 = 0x04;
    pub(super) const PROTECTED: u8 = 0x02;
    pub(super) const NO_MARK: u8 = 0x01;
    pub(super) const WRONG_CYLINDER: u8 = 0x10;
    pub(super) const ST3_TWO_SIDED: u8 = 0x28;
    pub(super) const ST3_TRACK_0: u8 = 0x10;
    pub(super) const ST3_PROTECTED: u8 = 0x40;
}

/// What a transfer does with sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Read,
    Write,
    Verify,
    Format,
}

/// A command that moves data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Transfer {
    kind: Kind,
    /// Next sector: side and number from one on.
    head: u8,
    sector: u8,
    /// Last sector of a side.
    last: u8,
    /// Goes on with the other side.
    both: bool,
    /// What a write has taken from the channel and the image not yet, or what a format fills with.
    data: Vec<u8>,
    /// The channel has counted to its end.
    ended: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    dor: u8,
    tape: u8,
    rate: u8,
    /// Bytes of a command so far.
    command: Vec<u8>,
    /// Bytes of a result that wait, the last first.
    result: Vec<u8>,
    /// The line is high while [`dor::GATE`] lets it.
    interrupt: bool,
    /// What SENSE INTERRUPT STATUS says, the last first.
    sense: Vec<u8>,
    cylinder: u8,
    /// The diskette has been changed since the heads moved.
    changed: bool,
    specify: [u8; 2],
    configure: [u8; 2],
    perpendicular: u8,
    locked: bool,
    transfer: Option<Transfer>,
    next: Option<VmTime>,
    /// [`FloppyDrive::medium`] of the diskette that this is about.
    medium: u32,
}

/// The drive.
#[derive(Clone, Copy, Debug, Default)]
pub struct FloppyDrive {
    /// What is in it.
    pub diskette: Option<Diskette>,
    /// How often that has been changed.
    pub medium: u32,
}

/// The diskette in the drive.
#[derive(Clone, Copy, Debug)]
pub struct Diskette {
    /// Its image.
    pub disk: DiskId,
    /// How it is formatted.
    pub geometry: Geometry,
}

/// The controller.
#[derive(Debug)]
pub struct Floppy {
    pin: Pin,
    diskette: Option<Diskette>,
    /// How often that has been changed.
    medium: u32,
    ticket: Option<Ticket>,
    /// What was under way when the diskette was taken out.
    cut: Option<Transfer>,
    state: State,
}

/// Bytes of a command by its first one; `None` for one that there is not.
fn length(first: u8) -> Option<usize> {
    Some(match (first, first & 0x1F) {
        (0x8F | 0xCF, _) => 3,
        (_, 0x02 | 0x05 | 0x06 | 0x09 | 0x0C | 0x16) => 9,
        (0x03, _) => 3,
        (0x04 | 0x07 | 0x12, _) => 2,
        (0x08 | 0x0E | 0x10 | 0x14 | 0x94, _) => 1,
        (_, 0x0A) => 2,
        (_, 0x0D) => 6,
        (0x0F, _) => 3,
        (0x13, _) => 4,
        _ => return None,
    })
}

impl Floppy {
    /// A controller with one drive, and what is in it.
    pub fn new(irq: &mut Interrupts, drive: FloppyDrive) -> Self {
        let mut this = Self {
            pin: irq.pin(PinTarget::Line(Line(LINE))),
            diskette: drive.diskette,
            medium: drive.medium,
            ticket: None,
            cut: None,
            state: State::default(),
        };
        this.clear();
        this
    }

    /// The state after the reset pin.
    fn clear(&mut self) {
        (self.ticket, self.cut) = (None, None);
        self.state = State {
            changed: self.diskette.is_some() || self.medium != 0,
            medium: self.medium,
            ..State::default()
        };
    }

    fn show_line(&self, bp: &mut Backplane<'_>) {
        let gate = self.state.dor & dor::GATE != 0;
        bp.irq.set(self.pin, gate && self.state.interrupt);
    }

    fn raise(&mut self, bp: &mut Backplane<'_>, high: bool) {
        self.state.interrupt = high;
        self.show_line(bp);
    }

    fn status(&self) -> u8 {
        let s = &self.state;
        if s.dor & dor::RUN == 0 {
            0
        } else if s.transfer.is_some() {
            msr::BUSY
        } else if !s.result.is_empty() {
            msr::READY | msr::TO_HOST | msr::BUSY
        } else if !s.command.is_empty() {
            msr::READY | msr::BUSY
        } else {
            msr::READY
        }
    }

    fn set_dor(&mut self, bp: &mut Backplane<'_>, value: u8) {
        let before = std::mem::replace(&mut self.state.dor, value);
        if value & dor::RUN == 0 {
            self.halt();
            self.state.interrupt = false;
        } else if before & dor::RUN == 0 {
            // All four drives say that they are ready or not.
            self.state.sense = (0..4).rev().map(|drive| st::CHANGED | drive).collect();
            self.state.interrupt = true;
        }
        self.show_line(bp);
    }

    /// What a reset by software clears.
    fn halt(&mut self) {
        let s = &mut self.state;
        s.command.clear();
        s.result.clear();
        s.sense.clear();
        s.transfer = None;
        s.next = None;
        if !s.locked {
            s.configure = [0; 2];
        }
        s.perpendicular = 0;
        self.ticket = None;
    }

    fn take_byte(&mut self, bp: &mut Backplane<'_>, value: u8) {
        if self.status() & (msr::READY | msr::TO_HOST) != msr::READY {
            return;
        }
        self.state.command.push(value);
        let whole = length(self.state.command[0]);
        if whole.is_none_or(|len| self.state.command.len() == len) {
            let command = std::mem::take(&mut self.state.command);
            self.execute(bp, &command);
        }
    }

    fn give_byte(&mut self, bp: &mut Backplane<'_>) -> u8 {
        let byte = self.state.result.pop().unwrap_or(0);
        if self.state.interrupt && self.state.sense.is_empty() {
            self.raise(bp, false);
        }
        byte
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.state.result = bytes.iter().rev().copied().collect();
    }

    /// Ends a command that moves the heads.
    fn moved(&mut self, bp: &mut Backplane<'_>, st0: u8) {
        self.state.sense = vec![st0];
        self.raise(bp, true);
    }

    fn execute(&mut self, bp: &mut Backplane<'_>, c: &[u8]) {
        match (c[0], c[0] & 0x1F) {
            (0x03, _) => self.state.specify = [c[1], c[2]],
            (0x04, _) => {
                let st3 = self.drive_status(bp, c[1]);
                self.answer(&[st3]);
            }
            (0x07, _) => self.seek(bp, c[1] & 3, Some(0)),
            (0x0F, _) => self.seek(bp, c[1] & 3, Some(c[2])),
            (0x8F, _) => self.seek(bp, c[1] & 3, self.state.cylinder.checked_sub(c[2])),
            (0xCF, _) => self.seek(bp, c[1] & 3, self.state.cylinder.checked_add(c[2])),
            (0x08, _) => {
                let st0 = self.state.sense.pop();
                self.raise(bp, false);
                match st0 {
                    Some(st0) => self.answer(&[st0, self.state.cylinder]),
                    None => self.answer(&[st::INVALID]),
                }
            }
            (0x0E, _) => {
                let s = &self.state;
                let flags = u8::from(s.locked) << 7 | s.perpendicular & 0x3F;
                let all = [s.cylinder, 0, 0, 0, s.specify[0], s.specify[1], 0, flags];
                let all = [&all[..], &s.configure].concat();
                self.answer(&all);
            }
            (0x10, _) => self.answer(&[0x90]),
            (0x12, _) => self.state.perpendicular = c[1] & 0x3F,
            (0x13, _) => self.state.configure = [c[2], c[3]],
            (0x14 | 0x94, _) => {
                self.state.locked = c[0] & 0x80 != 0;
                self.answer(&[u8::from(self.state.locked) << 4]);
            }
            (_, 0x0A) => self.read_id(bp, c[1]),
            (_, 0x0D) => self.format(bp, c),
            (_, 0x05 | 0x09) => self.begin(bp, c, Kind::Write),
            (_, 0x02 | 0x06 | 0x0C) => self.begin(bp, c, Kind::Read),
            (_, 0x16) => self.begin(bp, c, Kind::Verify),
            _ => self.answer(&[st::INVALID]),
        }
    }

    fn is_protected(&self, bp: &Backplane<'_>) -> bool {
        self.diskette.is_some_and(|d| bp.disks.is_read_only(d.disk))
    }

    fn drive_status(&self, bp: &Backplane<'_>, select: u8) -> u8 {
        let mut st3 = st::ST3_TWO_SIDED | select & 7;
        if select & 3 == 0 {
            st3 |= if self.state.cylinder == 0 {
                st::ST3_TRACK_0
            } else {
                0
            };
            st3 |= if self.is_protected(bp) {
                st::ST3_PROTECTED
            } else {
                0
            };
        }
        st3
    }

    fn seek(&mut self, bp: &mut Backplane<'_>, drive: u8, to: Option<u8>) {
        let Some(to) = to.filter(|_| drive == 0) else {
            return self.moved(bp, st::ABNORMAL | st::SEEK_END | st::NO_DRIVE | drive);
        };
        if self.diskette.is_some() {
            self.state.changed = false;
        }
        self.state.cylinder = to;
        self.moved(bp, st::SEEK_END);
    }

    fn read_id(&mut self, bp: &mut Backplane<'_>, select: u8) {
        let head = select >> 2 & 1;
        let there = self.diskette.filter(|d| {
            select & 3 == 0 && head < d.geometry.heads && self.state.cylinder < d.geometry.cylinders
        });
        match there {
            Some(_) => self.finish(bp, select & 7, [0, 0], [self.state.cylinder, head, 1]),
            None => self.finish(
                bp,
                st::ABNORMAL | select & 7,
                [st::NO_MARK, 0],
                [self.state.cylinder, head, 1],
            ),
        }
    }

    /// Ends a command that moves data, with three status registers and the place of the next sector.
    fn finish(&mut self, bp: &mut Backplane<'_>, st0: u8, st: [u8; 2], place: [u8; 3]) {
        self.state.transfer = None;
        self.state.next = None;
        self.ticket = None;
        self.answer(&[st0, st[0], st[1], place[0], place[1], place[2], 2]);
        self.raise(bp, true);
    }

    fn begin(&mut self, bp: &mut Backplane<'_>, c: &[u8], kind: Kind) {
        let (select, cylinder, head, sector, code, last) = (c[1], c[2], c[3], c[4], c[5], c[6]);
        let refuse = |this: &mut Self, bp: &mut Backplane<'_>, st: [u8; 2]| {
            this.finish(bp, st::ABNORMAL | select & 7, st, [cylinder, head, sector]);
        };
        let Some(diskette) = self.diskette.filter(|_| select & 3 == 0) else {
            return refuse(self, bp, [st::NO_MARK, 0]);
        };
        if kind == Kind::Write && self.is_protected(bp) {
            return refuse(self, bp, [st::PROTECTED, 0]);
        }
        // Implied seek.
        if self.state.configure[0] & 0x40 != 0 {
            self.state.cylinder = cylinder;
            self.state.changed = false;
        }
        let g = diskette.geometry;
        if cylinder != self.state.cylinder {
            return refuse(self, bp, [st::NO_DATA, st::WRONG_CYLINDER]);
        }
        let is_mfm = c[0] & 0x40 != 0;
        let is_there = cylinder < g.cylinders
            && head < g.heads
            && head == select >> 2 & 1
            && (1..=g.sectors).contains(&sector)
            && code == 2;
        if !is_mfm || !is_there {
            return refuse(self, bp, [if is_mfm { st::NO_DATA } else { st::NO_MARK }, 0]);
        }
        self.state.transfer = Some(Transfer {
            kind,
            head,
            sector,
            last: last.clamp(sector, g.sectors),
            both: c[0] & 0x80 != 0 && g.heads == 2,
            data: Vec::new(),
            ended: false,
        });
        self.go_on(bp);
    }

    fn format(&mut self, bp: &mut Backplane<'_>, c: &[u8]) {
        let (select, code, count, fill) = (c[1], c[2], c[3], c[5]);
        let head = select >> 2 & 1;
        let place = [self.state.cylinder, head, 1];
        let Some(diskette) = self.diskette.filter(|_| select & 3 == 0) else {
            return self.finish(bp, st::ABNORMAL | select & 7, [st::NO_MARK, 0], place);
        };
        let g = diskette.geometry;
        let st1 = if self.is_protected(bp) {
            st::PROTECTED
        } else if code != 2 || count != g.sectors || head >= g.heads || self.state.cylinder >= g.cylinders {
            // An image has one format.
            st::NO_DATA
        } else {
            0
        };
        if st1 != 0 {
            return self.finish(bp, st::ABNORMAL | select & 7, [st1, 0], place);
        }
        self.state.transfer = Some(Transfer {
            kind: Kind::Format,
            head,
            sector: 1,
            last: count,
            both: false,
            data: vec![fill],
            ended: false,
        });
        self.go_on(bp);
    }

    /// Does the next step of the transfer: collects from the channel what a write needs, and asks the image.
    fn go_on(&mut self, bp: &mut Backplane<'_>) {
        self.state.next = None;
        let (Some(t), Some(d)) = (&mut self.state.transfer, self.diskette) else {
            return;
        };
        let count = usize::from(t.last - t.sector) + 1;
        let waits = match t.kind {
            Kind::Read => !bp.isa_dma.is_open(CHANNEL),
            Kind::Verify => false,
            Kind::Write | Kind::Format if t.ended || t.data.len() > 1 => false,
            Kind::Write => {
                let mut data = vec![0; count * SECTOR];
                let moved = bp.isa_dma.from_memory(CHANNEL, bp.dma, &mut data);
                // The rest of a sector that is cut off is zeros.
                data.truncate(moved.bytes.next_multiple_of(SECTOR));
                data[moved.bytes..].fill(0);
                t.ended = moved.ended;
                t.data = data;
                moved.bytes == 0
            }
            Kind::Format => {
                // Four bytes for each sector say what it is to be called, which an image cannot keep.
                let mut names = vec![0; count * 4];
                let moved = bp.isa_dma.from_memory(CHANNEL, bp.dma, &mut names);
                t.ended = moved.bytes != 0;
                if t.ended {
                    t.data = vec![t.data.first().copied().unwrap_or(0); count * SECTOR];
                }
                !t.ended
            }
        };
        if waits {
            self.state.next = Some(bp.now + RETRY);
            return;
        }
        let offset = d.geometry.offset(self.state.cylinder, t.head, t.sector);
        let operation = match t.kind {
            Kind::Read | Kind::Verify => Operation::Read {
                offset,
                len: count * SECTOR,
            },
            Kind::Write | Kind::Format => Operation::Write {
                offset,
                data: t.data.clone(),
                durable: false,
            },
        };
        self.ticket = Some(bp.disks.ask(d.disk, operation));
    }

    /// The image has done what was asked.
    fn done(&mut self, bp: &mut Backplane<'_>, done: Done) {
        self.ticket = None;
        let cylinder = self.state.cylinder;
        let Some(t) = &mut self.state.transfer else { return };
        let Ok(data) = done.result.map(Data::held) else {
            let (head, sector) = (t.head, t.sector);
            let st0 = st::ABNORMAL | head << 2;
            return self.finish(
                bp,
                st0,
                [st::DATA_ERROR, st::DATA_ERROR],
                [cylinder, head, sector],
            );
        };
        let sectors = match t.kind {
            Kind::Read => {
                let moved = bp.isa_dma.to_memory(CHANNEL, bp.dma, &data);
                t.ended = moved.ended;
                moved.bytes.div_ceil(SECTOR)
            }
            Kind::Verify => data.len() / SECTOR,
            Kind::Write | Kind::Format => std::mem::take(&mut t.data).len() / SECTOR,
        };
        let (first, last) = (t.head, t.last);
        let next = usize::from(t.sector) + sectors;
        let at_end = next > usize::from(last);
        // Where the next sector would be (table 5-6 of the data sheet): on the other side with MT, else on the next cylinder.
        let place = match (at_end, t.both && first == 0) {
            (false, _) => [cylinder, first, next as u8],
            (true, true) => [cylinder, 1, 1],
            (true, false) if t.both => [cylinder.wrapping_add(1), 0, 1],
            (true, false) => [cylinder.wrapping_add(1), first, 1],
        };
        let finished = t.ended || t.kind == Kind::Format;
        if finished {
            return self.finish(bp, first << 2, [0, 0], place);
        }
        if at_end && !(t.both && first == 0) {
            // Nobody said that it was enough: a verification need not be told.
            let (st0, st1) = match t.kind {
                Kind::Verify => (0, 0),
                _ => (st::ABNORMAL, st::END_OF_TRACK),
            };
            return self.finish(bp, st0 | first << 2, [st1, 0], place);
        }
        (t.head, t.sector) = (place[1], place[2]);
        self.go_on(bp);
    }
}

impl Device for Floppy {
    fn name(&self) -> &'static str {
        "floppy"
    }

    fn regions(&self) -> Vec<Region> {
        [6, 1]
            .map(|len| Region {
                kind: RegionKind::Port,
                len,
                runs: Vec::new(),
            })
            .into()
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        let port = |this: &mut Self, bp: &mut Backplane<'_>, region: u8, offset: u64| match (region, offset) {
            (0, 0) => u8::from(this.state.interrupt) << 7,
            (0, 2) => this.state.dor,
            (0, 3) => this.state.tape,
            (0, 4) => this.status(),
            (0, 5) => this.give_byte(bp),
            (1, 0) => u8::from(this.state.changed) << 7,
            _ => 0,
        };
        (0..at.size.bytes()).fold(0, |value, i| {
            let byte = port(self, bp, at.region, at.offset + u64::from(i));
            value | u64::from(byte) << (8 * i)
        })
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        for i in 0..at.size.bytes() {
            let byte = (value >> (8 * i)) as u8;
            match (at.region, at.offset + u64::from(i)) {
                (0, 2) => self.set_dor(bp, byte),
                (0, 3) => self.state.tape = byte & 3,
                (0, 4) => {
                    self.state.rate = byte & 3;
                    // A reset that ends by itself.
                    if byte & 0x80 != 0 {
                        let dor = self.state.dor;
                        self.set_dor(bp, dor & !dor::RUN);
                        self.set_dor(bp, dor);
                    }
                }
                (0, 5) => self.take_byte(bp, byte),
                (1, 0) => self.state.rate = byte & 3,
                _ => {}
            }
        }
    }

    fn start(&mut self, bp: &mut Backplane<'_>) {
        if let Some(t) = self.cut.take() {
            // The heads find no more address marks.
            let place = [self.state.cylinder, t.head, t.sector];
            self.finish(bp, st::ABNORMAL | t.head << 2, [st::NO_MARK, 0], place);
        }
        if self.state.transfer.is_some() && self.state.next.is_none() {
            self.go_on(bp);
        }
    }

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        self.clear();
        self.show_line(bp);
    }

    fn next_deadline(&self) -> Option<VmTime> {
        self.state.next
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        let mut changed = false;
        if let Some(diskette) = self.diskette {
            while let Some(done) = bp.disks.take(diskette.disk) {
                if self.ticket == Some(done.ticket) {
                    self.done(bp, done);
                    changed = true;
                }
            }
        }
        if self.state.next.is_some_and(|at| at <= bp.now) {
            self.go_on(bp);
            changed = true;
        }
        changed
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let mut state: State = load_state(self.name(), self.state_version(), version, bytes)?;
        let mut cut = None;
        if state.medium != self.medium {
            (state.medium, state.changed) = (self.medium, true);
            (cut, state.next) = (state.transfer.take(), None);
        }
        let possible = |t: &Transfer| {
            self.diskette.is_some_and(|d| {
                let g = d.geometry;
                t.head < g.heads && 1 <= t.sector && t.sector <= t.last && t.last <= g.sectors
            }) && t.data.len() <= usize::from(t.last - t.sector + 1) * SECTOR
        };
        if !state.transfer.as_ref().is_none_or(possible) {
            return Err(StateError::Damaged {
                device: self.name(),
                len: bytes.len(),
                why: "a transfer outside the diskette".into(),
            });
        }
        (self.state, self.cut) = (state, cut);
        Ok(())
    }
}

#[cfg(test)]
#[path = "floppy_tests.rs"]
mod tests;
