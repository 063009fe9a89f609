//! The high-precision event timers: IA-PC HPET specification 1.0a, three comparators at 100 MHz.
//!
//! Identification and capabilities are those of QEMU. The main counter is computed from VM time; late
//! periodic matches merge into one. FSB (message) delivery is not offered. A comparator that is set to a
//! value just passed matches at once instead of after the counter's wrap: hardware would lose it, guests
//! check for that, and those that do not are better off.

use quintet_protocol::time::VmTime;

use super::snapshot::Snapshot;

/// Guest physical address of the register block.
pub const HPET_BASE: u64 = 0xFED0_0000;
/// Length of the register block, in bytes.
pub const HPET_LEN: u64 = 0x400;
/// Rate of the main counter, in Hz.
pub const HPET_HZ: u64 = 100_000_000;
/// Number of comparators.
pub const TIMERS: usize = 3;

/// Capabilities: 10 ns in femtoseconds, vendor 8086h, legacy replacement, 64 bits, three timers, revision 1.
const CAPABILITIES: u64 = 10_000_000 << 32 | 0x8086_A201;
/// Interrupts each timer can be routed to: GSI 2, 8 and 16 to 23.
const ROUTES: u64 = 0x00FF_0104;

const LEVEL: u64 = 1 << 1;
const ENABLED: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const SET_VALUE: u64 = 1 << 6;
const FORCE_32: u64 = 1 << 8;
/// Configuration bits that can be written: type, enable, periodic, set value, 32-bit mode, route.
const WRITABLE: u64 = 0x3F4E;
/// Periodic capable, 64 bits, and the routes.
const TIMER_CAPABILITIES: u64 = ROUTES << 32 | 0x30;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct TimerState {
    config: u64,
    comparator: u64,
    period: u64,
    /// Counter value up to which matches have been handled.
    handled: u64,
    /// The comparator was set to a value just passed.
    due: bool,
}

/// State of the block.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HpetState {
    config: u64,
    status: u64,
    /// Main counter minus the clock while it runs, its value while it is halted.
    counter: u64,
    timers: [TimerState; TIMERS],
}

/// An interrupt of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpetInterrupt {
    /// Timer 0 to 2.
    pub timer: usize,
    /// Where it goes; `None` when the routing names no interrupt the timer can have.
    pub line: Option<HpetLine>,
}

/// Where a timer's interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpetLine {
    /// Legacy replacement: the place of the 8254, ISA IRQ 0 and I/O APIC input 2.
    Irq0,
    /// Legacy replacement: the place of the real-time clock, IRQ 8.
    Irq8,
    /// A global system interrupt, 0 to 23.
    Gsi(u8),
}

/// The HPET block.
#[derive(Clone, Debug)]
pub struct Hpet {
    state: HpetState,
}

impl Default for Hpet {
    fn default() -> Self {
        Self::new()
    }
}

impl Hpet {
    /// Power-on: halted at zero.
    pub fn new() -> Self {
        let timer = TimerState {
            config: 0,
            comparator: u64::MAX,
            period: 0,
            handled: 0,
            due: false,
        };
        let timers = [timer.clone(), timer.clone(), timer];
        Self {
            state: HpetState {
                config: 0,
                status: 0,
                counter: 0,
                timers,
            },
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    fn is_running(&self) -> bool {
        self.state.config & 1 != 0
    }

    /// Whether timers 0 and 1 take the places of the 8254 and the real-time clock.
    pub fn is_legacy(&self) -> bool {
        self.state.config & 3 == 3
    }

    fn counter(&self, now: VmTime) -> u64 {
        if self.is_running() {
            now.ticks(HPET_HZ).wrapping_add(self.state.counter)
        } else {
            self.state.counter
        }
    }

    fn is_32_bit(config: u64) -> bool {
        config & FORCE_32 != 0
    }

    /// Pulses from the last handled one to the next match of a timer; `None` when it is further than 2^63.
    fn distance(timer: &TimerState) -> Option<u64> {
        let distance = timer.comparator.wrapping_sub(timer.handled);
        if Self::is_32_bit(timer.config) {
            let distance = distance & 0xFFFF_FFFF;
            return Some(if distance == 0 { 1 << 32 } else { distance });
        }
        (distance != 0 && distance >> 63 == 0).then_some(distance)
    }

    /// Handles the matches up to `now`; those with their interrupt enabled are pushed onto `fired`.
    pub fn advance(&mut self, now: VmTime, fired: &mut Vec<HpetInterrupt>) {
        if !self.is_running() {
            return;
        }
        let counter = self.counter(now);
        for index in 0..TIMERS {
            let timer = &mut self.state.timers[index];
            let gone = counter.wrapping_sub(timer.handled);
            let mut matched = core::mem::take(&mut timer.due);
            if let Some(distance) = Self::distance(timer)
                && distance <= gone
            {
                matched = true;
                if timer.config & PERIODIC != 0 && timer.period != 0 {
                    let periods = (gone - distance) / timer.period + 1;
                    let next = timer.comparator.wrapping_add(periods.wrapping_mul(timer.period));
                    timer.comparator = if Self::is_32_bit(timer.config) {
                        next & 0xFFFF_FFFF
                    } else {
                        next
                    };
                }
            }
            timer.handled = counter;
            if matched {
                let level = timer.config & LEVEL != 0;
                let enabled = timer.config & ENABLED != 0;
                if level {
                    self.state.status |= 1 << index;
                }
                if enabled {
                    fired.push(HpetInterrupt {
                        timer: index,
                        line: self.line(index),
                    });
                }
            }
        }
    }

    /// Where the interrupt of `timer` goes.
    pub fn line(&self, timer: usize) -> Option<HpetLine> {
        match (self.is_legacy(), timer) {
            (true, 0) => Some(HpetLine::Irq0),
            (true, 1) => Some(HpetLine::Irq8),
            _ => {
                let route = (self.state.timers[timer].config >> 9 & 31) as u8;
                (ROUTES & 1 << route != 0).then_some(HpetLine::Gsi(route))
            }
        }
    }

    /// Whether `timer` interrupts by level.
    pub fn is_level(&self, timer: usize) -> bool {
        self.state.timers[timer].config & LEVEL != 0
    }

    /// The level `timer` drives: its status bit, when it is a level interrupt and enabled.
    pub fn level(&self, timer: usize) -> bool {
        self.state.status & 1 << timer != 0
            && self.state.timers[timer].config & (LEVEL | ENABLED) == LEVEL | ENABLED
    }

    /// When a timer whose interrupt is enabled matches next.
    pub fn next_deadline(&self, now: VmTime) -> Option<VmTime> {
        if !self.is_running() {
            return None;
        }
        let ticks = now.ticks(HPET_HZ);
        let next = |timer: &TimerState| {
            if timer.due {
                return Some(now);
            }
            let gone = self.counter(now).wrapping_sub(timer.handled);
            let at = ticks.checked_add(Self::distance(timer)?.saturating_sub(gone))?;
            // A tick is ten nanoseconds; beyond the end of VM time there is no deadline.
            at.checked_mul(10).map(VmTime)
        };
        self.state
            .timers
            .iter()
            .filter(|t| t.config & ENABLED != 0)
            .filter_map(next)
            .min()
    }

    /// Reads 4 or 8 bytes. Other sizes read as zero.
    pub fn mmio_read(&self, now: VmTime, offset: u64, size: u8) -> u64 {
        let value = self.register(now, offset & !7);
        match (size, offset & 7) {
            (8, 0) => value,
            (4, 0) => value & 0xFFFF_FFFF,
            (4, 4) => value >> 32,
            _ => 0,
        }
    }

    fn register(&self, now: VmTime, offset: u64) -> u64 {
        match offset {
            0x000 => CAPABILITIES,
            0x010 => self.state.config,
            0x020 => self.state.status,
            0x0F0 => self.counter(now),
            0x100..0x160 => {
                let timer = &self.state.timers[((offset - 0x100) / 0x20) as usize];
                match offset & 0x18 {
                    0x00 => timer.config | TIMER_CAPABILITIES,
                    0x08 if Self::is_32_bit(timer.config) => timer.comparator & 0xFFFF_FFFF,
                    0x08 => timer.comparator,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// Writes 4 or 8 bytes; other sizes are ignored. [`Self::advance`] must have been called for `now`.
    pub fn mmio_write(&mut self, now: VmTime, offset: u64, size: u8, value: u64) {
        let (mask, value) = match (size, offset & 7) {
            (8, 0) => (u64::MAX, value),
            (4, 0) => (0xFFFF_FFFF, value & 0xFFFF_FFFF),
            (4, 4) => (0xFFFF_FFFF << 32, value << 32),
            _ => return,
        };
        match offset & !7 {
            0x010 => {
                let counter = self.counter(now);
                self.state.config = (self.state.config & !mask | value) & 3;
                self.set_counter(now, counter);
            }
            // A one clears the status; the wire follows.
            0x020 => self.state.status &= !value,
            0x0F0 => {
                let counter = self.counter(now) & !mask | value;
                self.set_counter(now, counter);
                for timer in &mut self.state.timers {
                    timer.handled = counter;
                }
            }
            0x100..0x160 => {
                let index = ((offset - 0x100) / 0x20) as usize;
                let counter = self.counter(now);
                let running = self.is_running();
                let timer = &mut self.state.timers[index];
                match offset & 0x18 {
                    0x00 => {
                        timer.config = (timer.config & !mask | value) & WRITABLE;
                        if timer.config & LEVEL == 0 {
                            self.state.status &= !(1 << index);
                        }
                        if Self::is_32_bit(timer.config) {
                            timer.comparator &= 0xFFFF_FFFF;
                            timer.period &= 0xFFFF_FFFF;
                        }
                    }
                    0x08 => Self::write_comparator(timer, counter, running, mask, value),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn write_comparator(timer: &mut TimerState, counter: u64, running: bool, mask: u64, value: u64) {
        let (mask, value) = if Self::is_32_bit(timer.config) {
            if mask & 0xFFFF_FFFF == 0 {
                return;
            }
            (u64::MAX, value & 0xFFFF_FFFF)
        } else {
            (mask, value)
        };
        let periodic = timer.config & PERIODIC != 0;
        if periodic {
            timer.period = timer.period & !mask | value;
        }
        if !periodic || timer.config & SET_VALUE != 0 {
            timer.comparator = timer.comparator & !mask | value;
            timer.handled = counter;
            let behind = timer.comparator.wrapping_sub(counter);
            let behind = if Self::is_32_bit(timer.config) {
                behind as i32 <= 0
            } else {
                behind.cast_signed() <= 0
            };
            timer.due = running && !periodic && behind;
        }
        if mask & 0xFFFF_FFFF != 0 {
            timer.config &= !SET_VALUE;
        }
    }

    fn set_counter(&mut self, now: VmTime, value: u64) {
        self.state.counter = if self.is_running() {
            value.wrapping_sub(now.ticks(HPET_HZ))
        } else {
            value
        };
    }
}

impl Snapshot for Hpet {
    const KIND: &'static str = "hpet";
    const VERSION: u16 = 1;
    type State = HpetState;

    fn save(&self) -> HpetState {
        self.state.clone()
    }

    fn restore(&mut self, state: HpetState) {
        self.state = state;
    }
}

#[cfg(test)]
#[path = "hpet_tests.rs"]
mod tests;
