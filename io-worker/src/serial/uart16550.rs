//! The 16550A UART (National PC16550D datasheet; section numbers below are its).
//!
//! `vm-superio`'s UART was considered. It writes into an `io::Write` and keeps its state to itself; here a
//! byte must become visible with the commit that contains it and not before, an unsent byte must survive the
//! process, and input must stay where it is until a commit took it. So the model is our own.
//!
//! Departures from the part, all listed in `docs/devices.md`:
//! - A byte is sent the moment it is written if the outgoing stream has room. While it has none, bytes wait
//!   in the transmitter and THRE stays low. A guest that writes nevertheless (a console with a time-out) is
//!   not punished: up to [`TX_PENDING_MAX`] bytes wait.
//! - Input comes from a stream, which waits: a byte is taken when the receiver has room, at most one per
//!   [`RX_CHAR_NANOS`], so that there is no overrun outside loop-back and a guest that drains the receiver
//!   within one interrupt comes to an end.

use std::collections::VecDeque;

use quintet_protocol::time::{NANOS_PER_SEC, VmTime};
use serde::{Deserialize, Serialize};

use crate::bus::regmap::{Attr, RegMap, Registers, reg};
use crate::bus::{
    Access, Backplane, Device, Pin, Region, RegionKind, StateError, StreamIn, StreamOut, load_state,
    save_state,
};

/// Bytes that wait for room in the outgoing stream before further ones are lost, with a warning.
pub const TX_PENDING_MAX: usize = 4096;
/// Least time between two received bytes, in nanoseconds of VM time: a line of about a megabaud.
pub const RX_CHAR_NANOS: u64 = 10_000;
/// How often a transmitter without room looks again, in nanoseconds, should nobody ring.
const TX_RETRY_NANOS: u64 = 20_000_000;

const FIFO_LEN: usize = 16;
/// Frequency of the baud generator's input divided by 16, in hertz.
const BASE_BAUD: u64 = 115_200;

mod ier {
    pub(super) const RDA: u8 = 1;
    pub(super) const THRE: u8 = 2;
    pub(super) const LINE: u8 = 4;
    pub(super) const MODEM: u8 = 8;
}
mod iir {
    pub(super) const NONE: u8 = 1;
    pub(super) const MODEM: u8 = 0;
    pub(super) const THRE: u8 = 2;
    pub(super) const RDA: u8 = 4;
    pub(super) const LINE: u8 = 6;
    pub(super) const TIMEOUT: u8 = 12;
    pub(super) const FIFOS: u8 = 0xC0;
}
mod lcr {
    pub(super) const BREAK: u8 = 0x40;
    pub(super) const DLAB: u8 = 0x80;
}
mod mcr {
    pub(super) const DTR: u8 = 1;
    pub(super) const RTS: u8 = 2;
    pub(super) const OUT1: u8 = 4;
    pub(super) const OUT2: u8 = 8;
    pub(super) const LOOP: u8 = 0x10;
}
mod lsr {
    pub(super) const DR: u8 = 1;
    pub(super) const OE: u8 = 2;
    pub(super) const BI: u8 = 0x10;
    pub(super) const ERRORS: u8 = 0x1E;
    pub(super) const THRE: u8 = 0x20;
    pub(super) const TEMT: u8 = 0x40;
    pub(super) const FIFO_ERROR: u8 = 0x80;
}
mod msr {
    pub(super) const TERI: u8 = 4;
    pub(super) const CTS: u8 = 0x10;
    pub(super) const DSR: u8 = 0x20;
    pub(super) const RI: u8 = 0x40;
    pub(super) const DCD: u8 = 0x80;
}

#[derive(Clone, Copy, Debug)]
enum Reg {
    Data,
    Ier,
    IirFcr,
    Lcr,
    Mcr,
    Lsr,
    Msr,
    Scr,
}

const MAP: RegMap<Reg> = RegMap::new(
    8,
    &[
        reg(0, 1, Reg::Data, Attr::empty()),
        reg(1, 1, Reg::Ier, Attr::MIRROR),
        reg(2, 1, Reg::IirFcr, Attr::MIRROR),
        reg(3, 1, Reg::Lcr, Attr::MIRROR),
        reg(4, 1, Reg::Mcr, Attr::MIRROR),
        reg(5, 1, Reg::Lsr, Attr::MIRROR),
        reg(6, 1, Reg::Msr, Attr::MIRROR),
        reg(7, 1, Reg::Scr, Attr::MIRROR),
    ],
);

/// Wiring of a UART.
#[derive(Clone, Copy, Debug)]
pub struct UartConfig {
    /// Name, such as `com1`.
    pub name: &'static str,
    /// Interrupt pin.
    pub pin: Pin,
    /// Stream that takes what the guest sends.
    pub out: StreamOut,
    /// Stream that gives what the guest receives.
    pub input: StreamIn,
}

/// A received byte and its errors as they stand in LSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Received {
    byte: u8,
    errors: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    divisor: u16,
    ier: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    /// FIFOs enabled, and the receiver's trigger level in bytes.
    fifo: bool,
    trigger: u8,
    rx: VecDeque<Received>,
    /// OE, which belongs to no byte in the FIFO.
    overrun: bool,
    /// Error bits of the byte at the head have been read and cleared.
    head_errors_seen: bool,
    tx: VecDeque<u8>,
    /// The transmitter-empty interrupt waits (8.5).
    thre_pending: bool,
    /// The delta bits of MSR.
    deltas: u8,
    /// When the next byte may come in.
    rx_next: VmTime,
    /// When the character time-out comes (8.9.1), if nothing happens to the FIFO before.
    timeout_at: Option<VmTime>,
    timed_out: bool,
    tx_retry: Option<VmTime>,
}

impl State {
    fn new() -> Self {
        Self {
            divisor: 12,
            ier: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            fifo: false,
            trigger: 1,
            rx: VecDeque::new(),
            overrun: false,
            head_errors_seen: false,
            tx: VecDeque::new(),
            thre_pending: false,
            deltas: 0,
            rx_next: VmTime(0),
            timeout_at: None,
            timed_out: false,
            tx_retry: None,
        }
    }

    fn looped(&self) -> bool {
        self.mcr & mcr::LOOP != 0
    }

    fn rx_capacity(&self) -> usize {
        if self.fifo { FIFO_LEN } else { 1 }
    }

    fn head_errors(&self) -> u8 {
        if self.head_errors_seen {
            0
        } else {
            self.rx.front().map_or(0, |r| r.errors)
        }
    }

    fn lsr(&self) -> u8 {
        let mut v = self.head_errors();
        if !self.rx.is_empty() {
            v |= lsr::DR;
        }
        if self.overrun {
            v |= lsr::OE;
        }
        if self.tx.is_empty() {
            v |= lsr::THRE | lsr::TEMT;
        }
        let pending_errors = self
            .rx
            .iter()
            .skip(usize::from(self.head_errors_seen))
            .any(|r| r.errors != 0);
        if self.fifo && pending_errors {
            v |= lsr::FIFO_ERROR;
        }
        v
    }

    /// The modem lines: a peer that is always there, or our own outputs in loop-back (8.6.6).
    fn modem_lines(&self) -> u8 {
        if !self.looped() {
            return msr::CTS | msr::DSR | msr::DCD;
        }
        [
            (mcr::RTS, msr::CTS),
            (mcr::DTR, msr::DSR),
            (mcr::OUT1, msr::RI),
            (mcr::OUT2, msr::DCD),
        ]
        .iter()
        .fold(0, |v, (out, line)| if self.mcr & out != 0 { v | line } else { v })
    }

    /// IIR by priority (table 4): line status, data or time-out, transmitter, modem.
    fn iir(&self) -> u8 {
        let fifos = if self.fifo { iir::FIFOS } else { 0 };
        let source = if self.ier & ier::LINE != 0 && self.lsr() & lsr::ERRORS != 0 {
            iir::LINE
        } else if self.ier & ier::RDA != 0 && self.rx.len() >= usize::from(self.trigger) {
            iir::RDA
        } else if self.ier & ier::RDA != 0 && self.timed_out {
            iir::TIMEOUT
        } else if self.ier & ier::THRE != 0 && self.thre_pending {
            iir::THRE
        } else if self.ier & ier::MODEM != 0 && self.deltas != 0 {
            iir::MODEM
        } else {
            iir::NONE
        };
        source | fifos
    }

    /// Time that a character takes on the line, in nanoseconds.
    fn char_nanos(&self) -> u64 {
        let bits =
            2 + u64::from(5 + (self.lcr & 3)) + u64::from(self.lcr >> 2 & 1) + u64::from(self.lcr >> 3 & 1);
        bits * u64::from(self.divisor.max(1)) * NANOS_PER_SEC / BASE_BAUD
    }

    /// Something came in or was read: the time-out starts anew if the FIFO still has something.
    fn rearm_timeout(&mut self, now: VmTime) {
        self.timed_out = false;
        self.timeout_at = (self.fifo && !self.rx.is_empty()).then(|| now + 4 * self.char_nanos());
    }

    fn receive(&mut self, now: VmTime, byte: u8, errors: u8) {
        if self.rx.len() >= self.rx_capacity() {
            self.overrun = true;
            if !self.fifo
                && let Some(last) = self.rx.back_mut()
            {
                *last = Received { byte, errors };
            }
            return;
        }
        self.rx.push_back(Received { byte, errors });
        self.rearm_timeout(now);
    }

    fn clear_rx(&mut self) {
        self.rx.clear();
        self.head_errors_seen = false;
        self.timed_out = false;
        self.timeout_at = None;
    }
}

/// A 16550A.
#[derive(Debug)]
pub struct Uart {
    config: UartConfig,
    state: State,
}

impl Uart {
    /// A UART after power-on.
    pub fn new(config: UartConfig) -> Self {
        Self {
            config,
            state: State::new(),
        }
    }

    /// Drives the pin. OUT2 gates it on a PC, and loop-back forces OUT2 inactive (8.6.6).
    fn update_irq(&self, bp: &mut Backplane<'_>) {
        let s = &self.state;
        let gate = s.mcr & (mcr::OUT2 | mcr::LOOP) == mcr::OUT2;
        bp.irq.set(self.config.pin, gate && s.iir() & iir::NONE == 0);
    }

    /// Moves waiting bytes out while there is room.
    fn drain(&mut self, bp: &mut Backplane<'_>) -> bool {
        let s = &mut self.state;
        if s.tx.is_empty() {
            return false;
        }
        let mut moved = false;
        while let Some(&byte) = s.tx.front() {
            if !bp.streams.put(self.config.out, byte) {
                break;
            }
            s.tx.pop_front();
            moved = true;
        }
        if s.tx.is_empty() {
            s.thre_pending = true;
            s.tx_retry = None;
        } else if moved || s.tx_retry.is_some_and(|t| t <= bp.now) {
            s.tx_retry = Some(bp.now + TX_RETRY_NANOS);
        }
        moved
    }

    fn transmit(&mut self, bp: &mut Backplane<'_>, byte: u8) {
        let s = &mut self.state;
        s.thre_pending = false;
        // The line is idle between the two: an edge for each byte, as from the part.
        self.update_irq(bp);
        let s = &mut self.state;
        if s.looped() {
            let mask = 0xFF >> (3 - (s.lcr & 3));
            s.receive(bp.now, byte & mask, 0);
            s.thre_pending = true;
        } else if s.tx.is_empty() && bp.streams.put(self.config.out, byte) {
            s.thre_pending = true;
        } else if s.tx.len() < TX_PENDING_MAX {
            s.tx.push_back(byte);
            s.tx_retry.get_or_insert(bp.now + TX_RETRY_NANOS);
        } else {
            tracing::warn!(
                device = self.config.name,
                "byte lost: the guest wrote without room"
            );
        }
    }

    /// Takes input while the receiver has room.
    fn fill(&mut self, bp: &mut Backplane<'_>) -> bool {
        let s = &mut self.state;
        let mut taken = 0;
        if s.looped() || bp.now < s.rx_next {
            return false;
        }
        while s.rx.len() < s.rx_capacity()
            && let Some(byte) = bp.streams.take(self.config.input)
        {
            s.receive(bp.now, byte, 0);
            taken += 1;
        }
        if taken > 0 {
            s.rx_next = bp.now + taken * RX_CHAR_NANOS;
        }
        taken > 0
    }

    fn modem_change(&mut self, before: u8) {
        let after = self.state.modem_lines();
        let changed = before ^ after;
        let mut deltas = (changed & (msr::CTS | msr::DSR | msr::DCD)) >> 4;
        if changed & before & msr::RI != 0 {
            deltas |= msr::TERI;
        }
        self.state.deltas |= deltas;
    }

    fn write_fcr(&mut self, value: u8) {
        let s = &mut self.state;
        let enable = value & 1 != 0;
        if enable != s.fifo || value & 2 != 0 {
            s.clear_rx();
        }
        s.fifo = enable;
        s.trigger = if enable {
            [1, 4, 8, 14][usize::from(value >> 6)]
        } else {
            1
        };
        // Clearing the transmitter's FIFO (bit 2) has nothing to clear: what waits is on the line already.
    }
}

impl Registers<Reg> for Uart {
    fn read_reg(&mut self, bp: &mut Backplane<'_>, reg: Reg) -> u64 {
        let s = &mut self.state;
        let dlab = s.lcr & lcr::DLAB != 0;
        let value = match reg {
            Reg::Data if dlab => s.divisor as u8,
            Reg::Data => {
                let got = s.rx.pop_front();
                s.head_errors_seen = false;
                s.rearm_timeout(bp.now);
                // The line falls before the next byte raises it: an edge for each trigger.
                self.update_irq(bp);
                self.fill(bp);
                got.map_or(0, |r| r.byte)
            }
            Reg::Ier if dlab => (s.divisor >> 8) as u8,
            Reg::Ier => s.ier,
            Reg::IirFcr => {
                let value = s.iir();
                if value & 0xF == iir::THRE {
                    s.thre_pending = false;
                }
                value
            }
            Reg::Lcr => s.lcr,
            Reg::Mcr => s.mcr,
            Reg::Lsr => {
                let value = s.lsr();
                s.overrun = false;
                s.head_errors_seen |= s.head_errors() != 0;
                value
            }
            Reg::Msr => {
                let value = s.modem_lines() | s.deltas;
                s.deltas = 0;
                value
            }
            Reg::Scr => s.scr,
        };
        self.update_irq(bp);
        u64::from(value)
    }

    fn write_reg(&mut self, bp: &mut Backplane<'_>, reg: Reg, value: u64) {
        let value = value as u8;
        let s = &mut self.state;
        let dlab = s.lcr & lcr::DLAB != 0;
        match reg {
            Reg::Data if dlab => s.divisor = s.divisor & 0xFF00 | u16::from(value),
            Reg::Data => self.transmit(bp, value),
            Reg::Ier if dlab => s.divisor = s.divisor & 0xFF | u16::from(value) << 8,
            Reg::Ier => {
                let rising = value & !s.ier;
                s.ier = value & 0xF;
                if rising & ier::THRE != 0 && s.tx.is_empty() {
                    s.thre_pending = true;
                }
            }
            Reg::IirFcr => self.write_fcr(value),
            Reg::Lcr => {
                if value & !s.lcr & lcr::BREAK != 0 && s.looped() {
                    s.receive(bp.now, 0, lsr::BI);
                }
                s.lcr = value;
            }
            Reg::Mcr => {
                let before = s.modem_lines();
                s.mcr = value & 0x1F;
                self.modem_change(before);
            }
            Reg::Scr => s.scr = value,
            // Writing LSR is for factory tests (8.4); MSR takes nothing.
            Reg::Lsr | Reg::Msr => {}
        }
        self.fill(bp);
        self.update_irq(bp);
    }
}

impl Device for Uart {
    fn name(&self) -> &'static str {
        self.config.name
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

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        // Bytes on the way out are the line's, not the chip's. Divisor and scratch survive the part's reset
        // too (table 1).
        let old = std::mem::replace(&mut self.state, State::new());
        self.state = State {
            divisor: old.divisor,
            scr: old.scr,
            tx: old.tx,
            tx_retry: old.tx_retry,
            rx_next: old.rx_next,
            ..State::new()
        };
        self.update_irq(bp);
    }

    fn next_deadline(&self) -> Option<VmTime> {
        let s = &self.state;
        // A byte that waits behind `rx_next` is not a deadline of its own: whether one waits is the stream's
        // knowledge. The receiver asks again when it last took one, for as long as it may be paced.
        let paced =
            (s.rx_next > VmTime(0) && s.rx.len() < s.rx_capacity() && !s.looped()).then_some(s.rx_next);
        [s.timeout_at, s.tx_retry, paced].into_iter().flatten().min()
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        let mut changed = self.drain(bp);
        changed |= self.fill(bp);
        let s = &mut self.state;
        if s.rx_next > VmTime(0) && s.rx_next <= bp.now {
            s.rx_next = VmTime(0);
            changed = true;
        }
        if s.timeout_at.is_some_and(|t| t <= bp.now) {
            s.timeout_at = None;
            s.timed_out = !s.rx.is_empty();
            changed = true;
        }
        if s.tx_retry.is_some_and(|t| t <= bp.now) {
            s.tx_retry = Some(bp.now + TX_RETRY_NANOS);
            changed = true;
        }
        self.update_irq(bp);
        changed
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let state: State = load_state(self.config.name, self.state_version(), version, bytes)?;
        if state.rx.len() > FIFO_LEN || state.tx.len() > TX_PENDING_MAX || state.trigger == 0 {
            let why = "more bytes than the part holds".to_owned();
            return Err(StateError::Damaged {
                device: self.config.name,
                len: bytes.len(),
                why,
            });
        }
        self.state = state;
        Ok(())
    }

    fn mirror(&self, _region: u8, into: &mut [u8; 16]) -> u16 {
        let s = &self.state;
        let dlab = s.lcr & lcr::DLAB != 0;
        into[1] = if dlab { (s.divisor >> 8) as u8 } else { s.ier };
        into[2] = s.iir();
        into[3] = s.lcr;
        into[4] = s.mcr;
        into[5] = s.lsr();
        into[6] = s.modem_lines() | s.deltas;
        into[7] = s.scr;
        let mut valid = 0b1001_1010_u16;
        if into[2] & 0xF != iir::THRE {
            valid |= 1 << 2;
        }
        // Reading LSR clears its errors.
        if into[5] & lsr::ERRORS == 0 {
            valid |= 1 << 5;
        }
        if s.deltas == 0 {
            valid |= 1 << 6;
        }
        valid
    }
}

#[cfg(test)]
#[path = "uart_tests.rs"]
mod tests;
