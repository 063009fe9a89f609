//! The time-stamp counter: constant rate, computed from VM time, with TSC_ADJUST.
//!
//! SDM vol. 3 §18.17. Counting instructions was rejected: guests measure other clocks with it.

use quintet_protocol::time::{NANOS_PER_SEC, VmTime};

use super::snapshot::Snapshot;

/// State of the counter.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TscState {
    /// What is added to the ticks since VM time zero.
    offset: u64,
    /// IA32_TSC_ADJUST.
    adjust: u64,
    /// Rate in Hz.
    hz: u64,
}

/// A vCPU's time-stamp counter.
#[derive(Clone, Debug)]
pub struct Tsc {
    state: TscState,
}

impl Tsc {
    /// A counter of `hz` that is zero at VM time zero. A rate of zero counts as 1 GHz.
    pub fn new(hz: u64) -> Self {
        let hz = if hz == 0 { NANOS_PER_SEC } else { hz };
        Self {
            state: TscState {
                offset: 0,
                adjust: 0,
                hz,
            },
        }
    }

    /// The rate in Hz, as CPUID leaves 15h and 16h tell it.
    pub fn hz(&self) -> u64 {
        self.state.hz
    }

    /// The counter at `now`.
    #[inline]
    pub fn read(&self, now: VmTime) -> u64 {
        now.ticks(self.state.hz).wrapping_add(self.state.offset)
    }

    /// WRMSR of IA32_TIME_STAMP_COUNTER: the change shows in TSC_ADJUST too.
    pub fn write(&mut self, now: VmTime, value: u64) {
        let delta = value.wrapping_sub(self.read(now));
        self.state.offset = self.state.offset.wrapping_add(delta);
        self.state.adjust = self.state.adjust.wrapping_add(delta);
    }

    /// IA32_TSC_ADJUST.
    pub fn adjust(&self) -> u64 {
        self.state.adjust
    }

    /// WRMSR of IA32_TSC_ADJUST: the counter moves by the difference.
    pub fn write_adjust(&mut self, value: u64) {
        let delta = value.wrapping_sub(self.state.adjust);
        self.state.offset = self.state.offset.wrapping_add(delta);
        self.state.adjust = value;
    }

    /// When the counter will have reached `value`: now when it has, `None` when that is centuries away.
    pub fn when(&self, now: VmTime, value: u64) -> Option<VmTime> {
        let current = self.read(now);
        if value <= current {
            return Some(now);
        }
        let ticks = u128::from(now.ticks(self.state.hz)) + u128::from(value - current);
        let nanos = (ticks * u128::from(NANOS_PER_SEC)).div_ceil(u128::from(self.state.hz));
        u64::try_from(nanos).ok().map(VmTime)
    }

    /// Power-on: both registers zero. INIT leaves them.
    pub fn reset(&mut self, now: VmTime) {
        self.state.adjust = 0;
        self.state.offset = now.ticks(self.state.hz).wrapping_neg();
    }
}

impl Snapshot for Tsc {
    const KIND: &'static str = "tsc";
    const VERSION: u16 = 1;
    type State = TscState;

    fn save(&self) -> TscState {
        self.state.clone()
    }

    fn restore(&mut self, state: TscState) {
        let hz = state.hz.max(1);
        self.state = TscState { hz, ..state };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_complex::snapshot::snapshot_tests;

    const HZ: u64 = 2_400_000_000;

    snapshot_tests!(snapshot, Tsc::new(HZ), |t: &mut Tsc| t.write(VmTime(5), 77));

    #[test]
    fn the_rate_is_constant() {
        let tsc = Tsc::new(HZ);
        assert_eq!(tsc.read(VmTime(NANOS_PER_SEC)) - tsc.read(VmTime(0)), HZ);
    }

    #[test]
    fn a_write_of_the_counter_moves_adjust_by_the_same_amount() {
        let mut tsc = Tsc::new(HZ);
        let now = VmTime(1000);
        let before = tsc.read(now);
        tsc.write(now, 0);
        assert_eq!(tsc.read(now), 0);
        assert_eq!(tsc.adjust(), before.wrapping_neg());
        tsc.write_adjust(0);
        assert_eq!(tsc.read(now), before);
    }

    #[test]
    fn the_time_of_a_value_is_the_first_at_which_it_reads_so() {
        let mut tsc = Tsc::new(HZ);
        tsc.write(VmTime(10), 1 << 40);
        let at = tsc.when(VmTime(10), (1 << 40) + 12_345).unwrap();
        assert!(tsc.read(at) >= (1 << 40) + 12_345);
        assert!(tsc.read(at - 1) < (1 << 40) + 12_345);
        assert_eq!(Tsc::new(1_000_000).when(VmTime(10), u64::MAX), None);
        assert_eq!(tsc.when(VmTime(10), 3), Some(VmTime(10)));
    }
}
