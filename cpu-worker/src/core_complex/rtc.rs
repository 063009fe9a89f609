//! The MC146818 real-time clock with 128 bytes of CMOS RAM at ports 70h and 71h.
//!
//! Motorola MC146818A data sheet; PC use of the RAM as in the IBM PC/AT technical reference, memory sizes
//! and century byte as in QEMU's pc machine. The time is VM time plus a wall clock base: nothing ticks.
//! Periodic ticks that come late are delivered one after another, each after register C was read, at most a
//! second's worth; update and alarm flags say that it happened, not how often.

use quintet_protocol::ram::RamLayout;
use quintet_protocol::time::{NANOS_PER_SEC, VmTime};

use super::calendar::{Civil, DAY};
use super::snapshot::Snapshot;

const CENTURY: usize = 0x32;
const REG_A: usize = 0x0A;
const REG_B: usize = 0x0B;
const REG_C: usize = 0x0C;
const REG_D: usize = 0x0D;
/// Shutdown byte: what the BIOS does after the next reset.
pub const SHUTDOWN_STATUS: u8 = 0x0F;

const B_SET: u8 = 0x80;
const B_PIE: u8 = 0x40;
const B_AIE: u8 = 0x20;
const B_UIE: u8 = 0x10;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const C_PF: u8 = 0x40;
const C_AF: u8 = 0x20;
const C_UF: u8 = 0x10;

/// The update is announced this long before it happens.
const UIP_NANOS: i128 = 244_141;
const SECOND: i128 = NANOS_PER_SEC as i128;
const CRYSTAL_HZ: u64 = 32_768;

/// State of the clock.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RtcState {
    index: u8,
    nmi_masked: bool,
    /// The 128 bytes. Time bytes count only while the clock stands still.
    cmos: Vec<u8>,
    /// Nanoseconds since 1970 minus VM time.
    base: i128,
    /// The second up to which updates have been handled.
    second: i64,
    /// What the day of the week is ahead of the calendar, 0 to 6.
    weekday: i64,
    /// Periodic ticks up to this one have been handled.
    periods: u64,
    /// VM time at which the divider chain was started.
    divider_start: VmTime,
    /// Periodic ticks owed.
    owed: u64,
}

/// The real-time clock.
#[derive(Clone, Debug)]
pub struct Rtc {
    state: RtcState,
}

impl Rtc {
    /// A clock that shows `unix_nanos` nanoseconds since 1970 at VM time zero, with an empty CMOS RAM but
    /// for what a battery-backed machine has: 24-hour BCD, valid RAM.
    pub fn new(unix_nanos: i128) -> Self {
        let mut cmos = vec![0; 128];
        cmos[REG_A] = 0x26;
        cmos[REG_B] = B_24_HOURS;
        cmos[REG_D] = 0x80;
        let state = RtcState {
            index: 0,
            nmi_masked: false,
            cmos,
            base: unix_nanos,
            second: unix_nanos.div_euclid(SECOND) as i64,
            weekday: 0,
            periods: 0,
            divider_start: VmTime(0),
            owed: 0,
        };
        Self { state }
    }

    /// The RESET pin: interrupts off, flags cleared; time and RAM stay.
    pub fn reset(&mut self, now: VmTime) {
        self.advance(now);
        self.state.cmos[REG_B] &= !(B_PIE | B_AIE | B_UIE | 0x08);
        self.state.cmos[REG_C] = 0;
        (self.state.owed, self.state.nmi_masked) = (0, false);
    }

    /// Writes the memory sizes where BIOSes look: 640 KB base (15h), up to 63 MB extended (17h, 30h), RAM
    /// above 16 MB in 64 KB units (34h), above 4 GB (5Bh), and the checksum over 10h to 2Dh.
    pub fn set_memory(&mut self, ram: RamLayout) {
        let low_kib = ram.low() >> 10;
        let extended = low_kib.saturating_sub(1024).min(0xFFFF) as u16;
        let above_16m = (ram.low().saturating_sub(16 << 20) >> 16).min(0xFFFF) as u16;
        let above_4g = (ram.high() >> 16).min(0xFF_FFFF) as u32;
        for (at, value) in [(0x15, 640), (0x17, extended), (0x30, extended), (0x34, above_16m)] {
            self.state.cmos[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
        }
        self.state.cmos[0x5B..0x5E].copy_from_slice(&above_4g.to_le_bytes()[..3]);
        self.update_checksum();
    }

    /// Sets a byte of the RAM, as the machine's builder does (10h floppy types, 14h equipment …), and the
    /// checksum with it. Indices below 0Eh and above 7Fh are ignored.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        if (0x0E..0x80).contains(&index) {
            self.state.cmos[usize::from(index)] = value;
            self.update_checksum();
        }
    }

    /// A byte of the RAM as it is stored.
    pub fn cmos(&self, index: u8) -> u8 {
        self.state.cmos[usize::from(index & 0x7F)]
    }

    fn update_checksum(&mut self) {
        let sum: u16 = self.state.cmos[0x10..0x2E].iter().map(|&b| u16::from(b)).sum();
        self.state.cmos[0x2E..0x30].copy_from_slice(&sum.to_be_bytes());
    }

    /// Whether bit 7 of port 70h keeps NMIs from the processor.
    pub fn nmi_masked(&self) -> bool {
        self.state.nmi_masked
    }

    /// Whether the IRQ 8 output is asserted: it stays so until register C is read.
    pub fn irq(&self) -> bool {
        let c = &self.state.cmos;
        c[REG_C] & c[REG_B] & (C_PF | C_AF | C_UF) != 0
    }

    fn is_divider_on(&self) -> bool {
        self.state.cmos[REG_A] >> 4 & 7 == 2
    }

    /// Whether the time counts: the divider runs and SET is off.
    fn is_running(&self) -> bool {
        self.is_divider_on() && self.state.cmos[REG_B] & B_SET == 0
    }

    fn nanos(&self, now: VmTime) -> i128 {
        i128::from(now.0) + self.state.base
    }

    /// The periodic rate as crystal cycles per tick; `None` when it is off (data sheet table 5).
    fn period(&self) -> Option<u64> {
        match self.state.cmos[REG_A] & 15 {
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
        .filter(|_| self.is_divider_on())
    }

    fn crystal(&self, now: VmTime) -> u64 {
        VmTime(now.since(self.state.divider_start)).ticks(CRYSTAL_HZ)
    }

    /// Reads port 70h or 71h. Register C is cleared by being read, which lowers the IRQ.
    pub fn read(&mut self, now: VmTime, port: u16) -> u8 {
        if port & 1 == 0 {
            return 0xFF;
        }
        self.advance(now);
        let index = usize::from(self.state.index);
        match index {
            0..=9 | CENTURY if self.is_running() => self.time_byte(now, index),
            REG_A => self.state.cmos[REG_A] & 0x7F | u8::from(self.update_in_progress(now)) << 7,
            REG_C => {
                let irq = u8::from(self.irq()) << 7;
                core::mem::take(&mut self.state.cmos[REG_C]) | irq
            }
            _ => self.state.cmos[index],
        }
    }

    /// Writes port 70h or 71h.
    pub fn write(&mut self, now: VmTime, port: u16, value: u8) {
        if port & 1 == 0 {
            self.state.index = value & 0x7F;
            self.state.nmi_masked = value & 0x80 != 0;
            return;
        }
        self.advance(now);
        let index = usize::from(self.state.index);
        match index {
            0 | 2 | 4 | 6..=9 | CENTURY if self.is_running() => {
                // The chip takes the byte in the middle of its counting.
                self.hold(now);
                self.state.cmos[index] = value;
                self.resume(now);
            }
            REG_A => {
                let value = value & 0x7F;
                let (was_running, was_on) = (self.is_running(), self.is_divider_on());
                if was_running {
                    self.hold(now);
                }
                self.state.cmos[REG_A] = value;
                if self.is_divider_on() && !was_on {
                    self.state.divider_start = now;
                }
                self.restart_periods(now);
                if self.is_running() {
                    // The first update follows half a second after the divider's reset.
                    self.resume(now);
                    if !was_on {
                        self.state.base += SECOND / 2 - self.nanos(now).rem_euclid(SECOND);
                    }
                }
            }
            REG_B => {
                let was_running = self.is_running();
                let value = if value & B_SET != 0 { value & !B_UIE } else { value };
                let old = core::mem::replace(&mut self.state.cmos[REG_B], value);
                if value & !old & B_PIE != 0 {
                    self.restart_periods(now);
                }
                // A running time shows itself in the new format; hardware would want it set anew.
                match (was_running, self.is_running()) {
                    (true, false) => self.hold(now),
                    (false, true) => self.resume(now),
                    _ => {}
                }
            }
            REG_C | REG_D => {}
            _ => self.state.cmos[index] = value,
        }
    }

    fn restart_periods(&mut self, now: VmTime) {
        self.state.owed = 0;
        self.state.periods = self.period().map_or(0, |p| self.crystal(now) / p);
    }

    fn update_in_progress(&self, now: VmTime) -> bool {
        self.is_running() && self.nanos(now).rem_euclid(SECOND) >= SECOND - UIP_NANOS
    }

    /// Encodes a number in the mode of register B.
    fn encode(&self, value: i64) -> u8 {
        let value = value.rem_euclid(100) as u8;
        if self.state.cmos[REG_B] & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    fn decode(&self, byte: u8) -> i64 {
        if self.state.cmos[REG_B] & B_BINARY != 0 {
            i64::from(byte)
        } else {
            i64::from(byte >> 4) * 10 + i64::from(byte & 15)
        }
    }

    fn encode_hour(&self, hour: i64) -> u8 {
        if self.state.cmos[REG_B] & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
        self.encode(twelve) | u8::from(hour >= 12) << 7
    }

    fn decode_hour(&self, byte: u8) -> i64 {
        if self.state.cmos[REG_B] & B_24_HOURS != 0 {
            return self.decode(byte);
        }
        self.decode(byte & 0x7F) % 12 + if byte & 0x80 != 0 { 12 } else { 0 }
    }

    fn time_byte(&self, now: VmTime, index: usize) -> u8 {
        let time = Civil::from_seconds(self.nanos(now).div_euclid(SECOND) as i64);
        match index {
            0 => self.encode(time.second),
            2 => self.encode(time.minute),
            4 => self.encode_hour(time.hour),
            6 => self.encode((time.weekday() - 1 + self.state.weekday).rem_euclid(7) + 1),
            7 => self.encode(time.day),
            8 => self.encode(time.month),
            9 => self.encode(time.year),
            CENTURY => self.encode(time.year.div_euclid(100)),
            _ => self.state.cmos[index],
        }
    }

    /// Puts the running time into the bytes.
    fn hold(&mut self, now: VmTime) {
        for index in [0, 2, 4, 6, 7, 8, 9, CENTURY] {
            self.state.cmos[index] = self.time_byte(now, index);
        }
    }

    /// Lets the time run from what the bytes say; where in the second it is does not change.
    fn resume(&mut self, now: VmTime) {
        let c = &self.state.cmos;
        let time = Civil {
            year: self.decode(c[CENTURY]) * 100 + self.decode(c[9]),
            month: self.decode(c[8]),
            day: self.decode(c[7]),
            hour: self.decode_hour(c[4]),
            minute: self.decode(c[2]),
            second: self.decode(c[0]),
        };
        let seconds = time.to_seconds();
        let weekday = self.decode(c[6]) - Civil::from_seconds(seconds).weekday();
        let fraction = self.nanos(now).rem_euclid(SECOND);
        self.state.base = i128::from(seconds) * SECOND + fraction - i128::from(now.0);
        self.state.weekday = weekday.rem_euclid(7);
        self.state.second = seconds;
    }

    /// Whether an alarm byte (C0h to FFh: always) matches a number.
    fn alarm_matches(&self, index: usize, value: u8) -> bool {
        let byte = self.state.cmos[index];
        byte >= 0xC0 || byte == value
    }

    /// The first second after `after` at which the alarm matches, within two days.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        let from = after + 1;
        let midnight = from.div_euclid(DAY) * DAY;
        for hour in from.rem_euclid(DAY) / 3600..48 {
            if !self.alarm_matches(5, self.encode_hour(hour % 24)) {
                continue;
            }
            for minute in (0..60).filter(|&m| self.alarm_matches(3, self.encode(m))) {
                for second in (0..60).filter(|&s| self.alarm_matches(1, self.encode(s))) {
                    let at = midnight + hour * 3600 + minute * 60 + second;
                    if at >= from {
                        return Some(at);
                    }
                }
            }
        }
        None
    }

    /// Handles updates, alarms and periodic ticks up to `now`, and sets the flags of register C.
    pub fn advance(&mut self, now: VmTime) {
        if self.is_running() {
            let second = self.nanos(now).div_euclid(SECOND) as i64;
            if second > self.state.second {
                self.state.cmos[REG_C] |= C_UF;
                if self.next_alarm(self.state.second).is_some_and(|at| at <= second) {
                    self.state.cmos[REG_C] |= C_AF;
                }
                self.state.second = second;
            }
        }
        if let Some(period) = self.period() {
            let periods = self.crystal(now) / period;
            let new = periods.saturating_sub(self.state.periods);
            self.state.periods = periods;
            if self.state.cmos[REG_B] & B_PIE == 0 {
                self.state.owed = 0;
                self.state.cmos[REG_C] |= if new > 0 { C_PF } else { 0 };
            } else {
                self.state.owed = (self.state.owed + new).min(CRYSTAL_HZ / period);
                if self.state.owed > 0 && self.state.cmos[REG_C] & C_PF == 0 {
                    self.state.cmos[REG_C] |= C_PF;
                    self.state.owed -= 1;
                }
            }
        }
    }

    /// When an enabled interrupt is next due. While the IRQ is asserted nothing new can happen.
    pub fn next_deadline(&self) -> Option<VmTime> {
        if self.irq() {
            return None;
        }
        let b = self.state.cmos[REG_B];
        let at_second = |second: i64| {
            let nanos = i128::from(second) * SECOND - self.state.base;
            u64::try_from(nanos.max(0)).ok().map(VmTime)
        };
        let periodic = self.period().filter(|_| b & B_PIE != 0).map(|p| {
            self.state.divider_start + VmTime::from_ticks((self.state.periods + 1) * p, CRYSTAL_HZ).0
        });
        let (mut update, mut alarm) = (None, None);
        if self.is_running() {
            if b & B_UIE != 0 {
                update = at_second(self.state.second + 1);
            }
            if b & B_AIE != 0 {
                alarm = self.next_alarm(self.state.second).and_then(at_second);
            }
        }
        [periodic, update, alarm].into_iter().flatten().min()
    }
}

impl Snapshot for Rtc {
    const KIND: &'static str = "rtc";
    const VERSION: u16 = 1;
    type State = RtcState;

    fn save(&self) -> RtcState {
        self.state.clone()
    }

    fn restore(&mut self, mut state: RtcState) {
        state.cmos.resize(128, 0);
        state.index &= 0x7F;
        state.base = state.base.clamp(-(1 << 90), 1 << 90);
        self.state = state;
    }
}

#[cfg(test)]
#[path = "rtc_tests.rs"]
mod tests;
