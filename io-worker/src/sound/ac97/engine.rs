//! A bus master of the controller: the walk through a list of buffers at the codec's pace (Intel 82801AA, 13.2).
//!
//! Where it stands is computed from the VM time at which it was set going, never summed up from wake-ups: a driver that
//! measures the codec's clock by the position finds the rate that it asked for.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::time::VmTime;
use serde::{Deserialize, Serialize};

use crate::dma::Dma;

/// Bits of the status register (13.2.3).
pub(super) mod sr {
    /// Halted.
    pub(crate) const DCH: u16 = 0x01;
    /// Halted at the end of the last valid buffer.
    pub(crate) const CELV: u16 = 0x02;
    pub(crate) const LVBCI: u16 = 0x04;
    pub(crate) const BCIS: u16 = 0x08;
    pub(crate) const FIFOE: u16 = 0x10;
}
/// Bits of the control register (13.2.7).
pub(super) mod cr {
    /// Run.
    pub(crate) const RPBM: u8 = 0x01;
    /// Reset the registers.
    pub(crate) const RR: u8 = 0x02;
    pub(crate) const LVBIE: u8 = 0x04;
    pub(crate) const FEIE: u8 = 0x08;
    pub(crate) const IOCE: u8 = 0x10;
}
/// Interrupt on completion, in a buffer's descriptor (13.2.1).
const IOC: u32 = 1 << 31;
/// Buffers in a list, minus one.
const LAST: u8 = 31;
/// How long an output that has run out of buffers goes on with silence, in seconds.
const DRY: u64 = 1;

/// What is to happen with the frames that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Samples of 16 bits, from or to guest memory.
    Buffer {
        /// Where.
        at: GuestPhys,
        /// How many.
        samples: u32,
    },
    /// There is no buffer for so many frames.
    Nothing(u64),
}

/// The clock of an engine that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pace {
    since: VmTime,
    /// Frames per second.
    rate: u32,
    /// Frames since then.
    moved: u64,
    /// How many of the last of them had no buffer.
    dry: u64,
}

/// The registers, and where the walk stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Engine {
    /// Samples in a frame.
    width: u8,
    pub(super) list: u32,
    pub(super) civ: u8,
    pub(super) lvi: u8,
    pub(super) sr: u16,
    pub(super) picb: u16,
    pub(super) piv: u8,
    pub(super) cr: u8,
    /// The descriptor of the current buffer has been read.
    fetched: bool,
    address: u32,
    ioc: bool,
    pace: Option<Pace>,
}

impl Engine {
    /// One that moves frames of `width` samples.
    pub(super) fn new(width: u8) -> Self {
        Self {
            width,
            list: 0,
            civ: 0,
            lvi: 0,
            sr: sr::DCH,
            picb: 0,
            piv: 0,
            cr: 0,
            fetched: false,
            address: 0,
            ioc: false,
            pace: None,
        }
    }

    /// Whether it can be what an engine of its kind committed.
    pub(super) fn is_sound(&self, width: u8) -> bool {
        let paced = self.pace.is_none_or(|pace| pace.rate > 0);
        self.width == width && self.civ <= LAST && self.piv <= LAST && self.lvi <= LAST && paced
    }

    /// The rate at which frames move; `None` while none do.
    pub(super) fn rate(&self) -> Option<u32> {
        self.pace.map(|pace| pace.rate)
    }

    /// Whether it asks for an interrupt.
    pub(super) fn interrupts(&self) -> bool {
        let asks = |status, enable| self.sr & status != 0 && self.cr & enable != 0;
        asks(sr::LVBCI, cr::LVBIE) || asks(sr::BCIS, cr::IOCE) || asks(sr::FIFOE, cr::FEIE)
    }

    /// Writes the control register.
    pub(super) fn control(&mut self, value: u8, now: VmTime, rate: u32) {
        if value & cr::RR != 0 {
            // All but the enables of interrupts (13.2.7); the bit is back at zero when it is read.
            let enables = self.cr & (cr::LVBIE | cr::FEIE | cr::IOCE);
            *self = Self::new(self.width);
            self.cr = enables;
            return;
        }
        let ran = self.cr & cr::RPBM != 0;
        self.cr = value & (cr::RPBM | cr::LVBIE | cr::FEIE | cr::IOCE);
        match (ran, value & cr::RPBM != 0) {
            (false, true) => {
                self.sr &= !sr::DCH;
                self.set_going(now, rate);
            }
            (true, false) => {
                self.sr |= sr::DCH;
                self.pace = None;
            }
            _ => {}
        }
    }

    /// Writes the index of the last valid buffer: what was halted there goes on (13.2.2).
    pub(super) fn extend(&mut self, value: u8, now: VmTime, rate: u32) {
        self.lvi = value & LAST;
        if self.cr & cr::RPBM != 0 && self.sr & sr::DCH != 0 {
            self.sr &= !(sr::DCH | sr::CELV);
            self.fetched = false;
            if self.pace.is_none() {
                self.set_going(now, rate);
            }
        }
    }

    /// Writes the status register: ones clear what has happened.
    pub(super) fn acknowledge(&mut self, value: u16) {
        self.sr &= !(value & (sr::LVBCI | sr::BCIS | sr::FIFOE));
    }

    /// The codec has another rate from now on.
    pub(super) fn set_rate(&mut self, now: VmTime, rate: u32) {
        if self.rate().is_some_and(|old| old != rate) {
            self.set_going(now, rate);
        }
    }

    fn set_going(&mut self, now: VmTime, rate: u32) {
        self.pace = Some(Pace {
            since: now,
            rate,
            moved: 0,
            dry: 0,
        });
    }

    /// Goes on to the next buffer.
    fn fetch(&mut self, dma: &Dma) {
        self.civ = self.piv;
        self.piv = (self.piv + 1) & LAST;
        let mut entry = [0; 8];
        dma.read(
            GuestPhys(u64::from(self.list) + u64::from(self.civ) * 8),
            &mut entry,
        );
        let [a, b, c, d, e, f, g, h] = entry;
        self.address = u32::from_le_bytes([a, b, c, d]) & !1;
        let word = u32::from_le_bytes([e, f, g, h]);
        self.picb = word as u16;
        self.ioc = word & IOC != 0;
        self.fetched = true;
    }

    /// The buffer is done; so are empty ones behind it.
    fn finish_buffer(&mut self, dma: &Dma) {
        while self.picb == 0 {
            if self.ioc {
                self.sr |= sr::BCIS;
            }
            if self.civ == self.lvi {
                self.sr |= sr::LVBCI | sr::CELV | sr::DCH;
                return;
            }
            self.fetch(dma);
        }
    }

    /// Moves what is due at `now`, piece by piece, as far as the function may be a bus master.
    pub(super) fn advance(
        &mut self,
        now: VmTime,
        dma: &mut Dma,
        may_master: bool,
        mut each: impl FnMut(&mut Dma, Piece),
    ) {
        let Some(mut pace) = self.pace else { return };
        let mut due = VmTime(now.since(pace.since))
            .ticks(u64::from(pace.rate))
            .saturating_sub(pace.moved);
        loop {
            let halted = self.sr & sr::DCH != 0;
            if !halted && may_master && !self.fetched {
                self.fetch(dma);
                self.finish_buffer(dma);
                continue;
            }
            if due == 0 {
                break;
            }
            if halted || !may_master {
                // What cannot be fetched in time is an error of the FIFO; what is not there is none.
                if !halted {
                    self.sr |= sr::FIFOE;
                }
                each(dma, Piece::Nothing(due));
                pace.moved += due;
                pace.dry += due;
                break;
            }
            let width = u32::from(self.width);
            let left = u32::from(self.picb).div_ceil(width);
            let frames = u32::try_from(due).unwrap_or(u32::MAX).min(left);
            let samples = (frames * width).min(u32::from(self.picb));
            let at = GuestPhys(u64::from(self.address));
            each(dma, Piece::Buffer { at, samples });
            self.address = self.address.wrapping_add(samples * 2);
            self.picb -= samples as u16;
            pace.moved += u64::from(frames);
            pace.dry = 0;
            due -= u64::from(frames);
            self.finish_buffer(dma);
        }
        let over = self.sr & sr::DCH != 0 && pace.dry >= DRY * u64::from(pace.rate);
        self.pace = (!over).then_some(pace);
    }

    /// When it is to be advanced next, with at most `chunk` frames at a time.
    pub(super) fn next_deadline(&self, chunk: u64) -> Option<VmTime> {
        let pace = self.pace?;
        let left = match self.sr & sr::DCH {
            0 if self.fetched => u64::from(self.picb.div_ceil(u16::from(self.width))),
            _ => chunk,
        };
        let at = pace.moved + left.min(chunk);
        Some(pace.since + VmTime::from_ticks(at, u64::from(pace.rate)).0)
    }
}
