//! VM time as a type.
//!
//! One clock for all processes, in nanoseconds since the machine started. It stands still while the guest
//! is paused and never runs backwards. Devices compute from it when they are read; nothing ticks.

use core::ops::{Add, Sub};

/// A point on the VM clock, in nanoseconds since the machine was started. Wraps after 584 years.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, serde::Serialize, serde::Deserialize,
)]
#[repr(transparent)]
pub struct VmTime(pub u64);

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;

impl VmTime {
    /// How many ticks of a clock of `hz` have begun since VM time zero. Exact: no rounding builds up.
    pub const fn ticks(self, hz: u64) -> u64 {
        if hz == NANOS_PER_SEC {
            return self.0;
        }
        (self.0 as u128 * hz as u128 / NANOS_PER_SEC as u128) as u64
    }

    /// The first point at which [`Self::ticks`] of `hz` gives `ticks`.
    pub const fn from_ticks(ticks: u64, hz: u64) -> Self {
        Self((ticks as u128 * NANOS_PER_SEC as u128).div_ceil(hz as u128) as u64)
    }

    /// Nanoseconds from `earlier` to `self`, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for VmTime {
    type Output = Self;
    fn add(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<u64> for VmTime {
    type Output = Self;
    fn sub(self, nanos: u64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }
}

/// A point on the host's monotonic clock, in nanoseconds. The same in every process; for deadlines and
/// for [`crate::clock`], never for what a guest sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct HostTime(pub u64);

impl HostTime {
    /// Now. The kernel's vDSO answers it without a system call.
    #[inline]
    pub fn now() -> Self {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Self(t.tv_sec as u64 * NANOS_PER_SEC + t.tv_nsec as u64)
    }

    /// The point `nanos` nanoseconds from now.
    pub fn after(nanos: u64) -> Self {
        Self(Self::now().0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to `self`, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_back_agree_for_the_pc_clocks() {
        for hz in [32_768, 1_193_182, 3_579_545, 100_000_000] {
            for n in [0, 1, 2, 999, 65_536, 1 << 40] {
                let at = VmTime::from_ticks(n, hz);
                assert_eq!(at.ticks(hz), n);
                if n > 0 {
                    assert_eq!((at - 1).ticks(hz), n - 1);
                }
            }
        }
    }
}
