//! How long it is worth spinning before sleeping.
//!
//! To be woken takes 20 to 40 µs, and a disk's request has four of that: vCPU to devices, devices to the image's thread, and back. A spin that is
//! always long enough for it burns a processor behind every event. So it lasts as long as what woke us last was soon to come, as KVM polls
//! for a halted vCPU (`halt_poll_ns`).

/// Longest spin, in nanoseconds: somewhat more than a disk takes for a mebibyte that is in memory, and a guest to ask for the next.
const MOST: u64 = 250_000;

/// The length of the next spin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    least: u64,
    nanos: u64,
}

impl Patience {
    /// Spins of at least so many nanoseconds; with none, never.
    pub(super) fn new(least: u64) -> Self {
        Self { least, nanos: least }
    }

    /// Nanoseconds of the next spin.
    pub(super) fn nanos(self) -> u64 {
        self.nanos
    }

    /// A sleep has ended so many nanoseconds after the wait began, because somebody rang or for the time.
    pub(super) fn slept(&mut self, waited: u64, rung: bool) {
        self.nanos = match rung && waited <= MOST {
            true => (2 * self.nanos).min(MOST.max(self.least)),
            false => self.least,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_rings_come_soon_and_is_gone_when_one_comes_late() {
        let mut patience = Patience::new(50_000);
        let mut after = |waited, rung| {
            patience.slept(waited, rung);
            patience.nanos()
        };
        let grown: Vec<u64> = (0..4).map(|_| after(MOST, true)).collect();
        assert_eq!(grown, [100_000, 200_000, MOST, MOST]);
        assert_eq!(after(MOST + 1, true), 50_000);
        assert_eq!((after(60_000, true), after(60_000, false)), (100_000, 50_000));
    }

    #[test]
    fn who_has_one_processor_never_spins() {
        let mut patience = Patience::new(0);
        patience.slept(1, true);
        assert_eq!(patience.nanos(), 0);
    }
}
