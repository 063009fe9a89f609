//! The local APIC timer: one-shot, periodic and TSC-deadline (SDM vol. 3 §11.5.4).
//!
//! The count is computed from VM time when it is read. The input clock is 1 GHz, so that a tick is a
//! nanosecond and nothing is rounded; guests measure it, or read it from CPUID leaf 15h.

use quintet_protocol::time::VmTime;

use super::{Lapic, lvt};
use crate::core_complex::tsc::Tsc;

/// Input clock of the timer before its divider, in Hz.
pub const LAPIC_TIMER_HZ: u64 = 1_000_000_000;

/// The timer's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct TimerState {
    /// Initial count; zero when stopped.
    initial: u32,
    /// Divide configuration register as written.
    divide: u32,
    /// When the count was loaded last.
    start: VmTime,
    /// The count has reached zero in one-shot mode; it stays there until it is loaded again.
    expired: bool,
    /// Whole periods delivered since `start`.
    periods: u64,
    /// IA32_TSC_DEADLINE; zero when disarmed.
    deadline: u64,
}

/// Bits 18:17 of the timer's LVT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    Reserved,
}

impl Lapic {
    pub(super) fn timer_mode(&self) -> TimerMode {
        match self.state.lvt[lvt::TIMER] >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::TscDeadline,
            _ => TimerMode::Reserved,
        }
    }

    /// Nanoseconds of one count.
    fn tick(&self) -> u64 {
        let code = self.state.timer.divide & 3 | self.state.timer.divide >> 1 & 4;
        // 000 is 2, 001 is 4 … 110 is 128, 111 is 1.
        1 << ((code + 1) & 7)
    }

    fn period(&self) -> u64 {
        u64::from(self.state.timer.initial) * self.tick()
    }

    pub(super) fn initial_count(&self) -> u32 {
        self.state.timer.initial
    }

    pub(super) fn set_initial_count(&mut self, now: VmTime, value: u32) {
        if self.timer_mode() != TimerMode::TscDeadline {
            self.load(now, value);
        }
    }

    fn load(&mut self, now: VmTime, value: u32) {
        let timer = &mut self.state.timer;
        (timer.initial, timer.start, timer.expired, timer.periods) = (value, now, false, 0);
    }

    pub(super) fn current_count(&self, now: VmTime) -> u32 {
        let timer = &self.state.timer;
        if timer.initial == 0 || timer.expired {
            return 0;
        }
        let gone = now.since(timer.start) / self.tick();
        let initial = u64::from(timer.initial);
        let left = match self.timer_mode() {
            TimerMode::OneShot => initial.saturating_sub(gone),
            TimerMode::Periodic => initial - gone % initial,
            TimerMode::TscDeadline | TimerMode::Reserved => 0,
        };
        left as u32
    }

    pub(super) fn divide(&self) -> u32 {
        self.state.timer.divide
    }

    /// A new divider goes on from the current count.
    pub(super) fn set_divide(&mut self, now: VmTime, value: u32) {
        let initial = self.state.timer.initial;
        let gone = u64::from(initial.wrapping_sub(self.current_count(now)));
        self.state.timer.divide = value & 0x0B;
        let start = now - gone.saturating_mul(self.tick());
        let expired = self.state.timer.expired;
        self.load(start, initial);
        self.state.timer.expired = expired;
    }

    /// A write of the timer's LVT entry. A change to or from TSC-deadline mode disarms the timer.
    pub(super) fn set_timer_lvt(&mut self, now: VmTime, value: u32) {
        let before = self.timer_mode();
        let count = self.current_count(now);
        self.state.lvt[lvt::TIMER] = value;
        let after = self.timer_mode();
        if before == after {
            return;
        }
        if before == TimerMode::TscDeadline || after == TimerMode::TscDeadline {
            self.state.timer.deadline = 0;
            self.load(now, 0);
        } else {
            // Between one-shot and periodic the count goes on.
            let initial = self.state.timer.initial;
            let gone = u64::from(initial - count.min(initial));
            let done = self.state.timer.expired || before == TimerMode::OneShot && count == 0;
            self.load(now - gone * self.tick(), initial);
            self.state.timer.expired = done;
        }
    }

    /// RDMSR of IA32_TSC_DEADLINE: zero in the other modes.
    pub fn tsc_deadline(&self) -> u64 {
        if self.timer_mode() == TimerMode::TscDeadline {
            self.state.timer.deadline
        } else {
            0
        }
    }

    /// WRMSR of IA32_TSC_DEADLINE: arms, or disarms with zero; ignored in the other modes.
    pub fn set_tsc_deadline(&mut self, value: u64) {
        if self.timer_mode() == TimerMode::TscDeadline {
            self.state.timer.deadline = value;
        }
    }

    /// When the timer will next want [`Lapic::advance`]; `None` when it is stopped or masked.
    pub fn next_deadline(&self, now: VmTime, tsc: &Tsc) -> Option<VmTime> {
        if self.state.lvt[lvt::TIMER] & lvt::MASKED != 0 || !self.is_enabled() {
            return None;
        }
        let timer = &self.state.timer;
        match self.timer_mode() {
            TimerMode::TscDeadline => (timer.deadline != 0)
                .then(|| tsc.when(now, timer.deadline))
                .flatten(),
            TimerMode::OneShot if timer.initial != 0 && !timer.expired => Some(timer.start + self.period()),
            TimerMode::Periodic if timer.initial != 0 && !timer.expired => {
                Some(timer.start + self.period().saturating_mul(timer.periods + 1))
            }
            _ => None,
        }
    }

    /// Whether the count has reached zero since the last call. Also notes it, masked or not, so that an
    /// unmask does not deliver what has long passed.
    pub(super) fn timer_expired(&mut self, now: VmTime, tsc: &Tsc) -> bool {
        let period = self.period();
        let mode = self.timer_mode();
        let timer = &mut self.state.timer;
        match mode {
            TimerMode::TscDeadline => {
                let due = timer.deadline != 0 && tsc.read(now) >= timer.deadline;
                if due {
                    timer.deadline = 0;
                }
                due
            }
            TimerMode::OneShot => {
                let due = timer.initial != 0 && !timer.expired && now.since(timer.start) >= period;
                timer.expired |= due;
                due
            }
            TimerMode::Periodic if timer.initial != 0 && !timer.expired => {
                let periods = now.since(timer.start) / period;
                let due = periods > timer.periods;
                timer.periods = periods;
                due
            }
            _ => false,
        }
    }
}
