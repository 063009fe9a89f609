//! Interrupt lines as wires: who holds which line, and when it moves (S3.90 to S3.93).
//!
//! Raise and lower move a wire, they deliver nothing: delivery is the controllers' business. A line is
//! asserted while at least one holder asserts it (wired OR), so a middle change is silent.

/// Number of lines (S3.90).
pub const LINES: usize = 256;

/// A line that really moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// From no holder to one.
    Assert,
    /// From one holder to none.
    Deassert,
}

/// Reference counts of the lines. Misuse is answered as S3.91 says, counted and logged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lines {
    holders: Vec<u16>,
    misuses: u64,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            holders: vec![0; LINES],
            misuses: 0,
        }
    }
}

impl Lines {
    /// One holder more. A count at 65535 stays there.
    pub fn raise(&mut self, line: u8) -> Option<Transition> {
        let count = self.holders.get_mut(usize::from(line))?;
        match count.checked_add(1) {
            Some(n) => *count = n,
            None => {
                self.misuses += 1;
                tracing::warn!(line, "raise of an interrupt line with 65535 holders");
            }
        }
        (*count == 1).then_some(Transition::Assert)
    }

    /// One holder less. Lowering a line that nobody holds is ignored.
    pub fn lower(&mut self, line: u8) -> Option<Transition> {
        let count = self.holders.get_mut(usize::from(line))?;
        match count.checked_sub(1) {
            Some(n) => {
                *count = n;
                (n == 0).then_some(Transition::Deassert)
            }
            None => {
                self.misuses += 1;
                tracing::warn!(line, "lower of an interrupt line that nobody holds");
                None
            }
        }
    }

    /// Whether anyone holds the line.
    pub fn is_asserted(&self, line: u8) -> bool {
        self.holders.get(usize::from(line)).is_some_and(|&n| n > 0)
    }

    /// How often a count was raised too far or lowered below zero.
    pub fn misuses(&self) -> u64 {
        self.misuses
    }
}

/// Who drives an interrupt line. Each has a level of its own on each line; the line is their OR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum WireSource {
    /// Counter 0 of the 8254.
    Pit = 0,
    /// The real-time clock.
    Rtc = 1,
    /// HPET timer 0 to 2.
    Hpet0 = 2,
    /// HPET timer 1.
    Hpet1 = 3,
    /// HPET timer 2.
    Hpet2 = 4,
    /// ACPI system control interrupt.
    Sci = 5,
    /// PIRQA, routed by register 60h.
    PirqA = 8,
    /// PIRQB, routed by register 61h.
    PirqB = 9,
    /// PIRQC, routed by register 62h.
    PirqC = 10,
    /// PIRQD, routed by register 63h.
    PirqD = 11,
    /// The wires that io-worker publishes.
    IoWorker = 16,
    /// The numeric-error output of the processor, FERR#.
    Ferr = 17,
    /// A test device or a debugger.
    Test = 31,
}

impl WireSource {
    /// The source of PIRQ `pin`, 0 (A) to 3 (D).
    pub fn pirq(pin: u8) -> Self {
        [Self::PirqA, Self::PirqB, Self::PirqC, Self::PirqD][usize::from(pin & 3)]
    }

    /// The source of HPET timer `timer`, 0 to 2.
    pub fn hpet(timer: usize) -> Self {
        [Self::Hpet0, Self::Hpet1, Self::Hpet2][timer.min(2)]
    }

    fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Levels per line and source, over the reference counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wires {
    lines: Lines,
    /// For lines 0 to 23, which sources assert them.
    levels: [u32; 24],
}

impl Wires {
    /// Sets the level that `source` drives on `line`, 0 to 23. Gives what the line did.
    pub fn set(&mut self, line: u8, source: WireSource, level: bool) -> Option<Transition> {
        let levels = self.levels.get_mut(usize::from(line))?;
        if (*levels & source.bit() != 0) == level {
            return None;
        }
        *levels ^= source.bit();
        if level {
            self.lines.raise(line)
        } else {
            self.lines.lower(line)
        }
    }

    /// The level `source` drives on `line`.
    pub fn level_of(&self, line: u8, source: WireSource) -> bool {
        self.levels
            .get(usize::from(line))
            .is_some_and(|levels| levels & source.bit() != 0)
    }

    /// Whether `source` holds any line up.
    pub fn is_any_high(&self, source: WireSource) -> bool {
        self.levels.iter().any(|levels| levels & source.bit() != 0)
    }

    /// Whether anyone holds the line.
    pub fn is_asserted(&self, line: u8) -> bool {
        self.lines.is_asserted(line)
    }

    /// The counts under the levels, for raise and lower events (S3.94).
    pub fn counts(&mut self) -> &mut Lines {
        &mut self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_90_a_line_is_asserted_while_anyone_holds_it() {
        let mut lines = Lines::default();
        assert_eq!(lines.raise(10), Some(Transition::Assert));
        assert_eq!(lines.raise(10), None);
        assert_eq!(lines.lower(10), None);
        assert!(lines.is_asserted(10));
        assert_eq!(lines.lower(10), Some(Transition::Deassert));
        assert!(!lines.is_asserted(10));
    }

    #[test]
    fn s3_91_underflow_is_ignored_and_overflow_saturates_and_both_are_counted() {
        let mut lines = Lines::default();
        assert_eq!(lines.lower(255), None);
        assert_eq!(lines.misuses(), 1);
        for _ in 0..=65535 {
            lines.raise(255);
        }
        assert_eq!(lines.misuses(), 2);
        for _ in 0..65534 {
            assert_eq!(lines.lower(255), None);
        }
        assert_eq!(lines.lower(255), Some(Transition::Deassert));
    }

    #[test]
    fn s3_94_sources_are_ored_and_repeating_a_level_is_silent() {
        let mut wires = Wires::default();
        assert_eq!(wires.set(11, WireSource::PirqA, true), Some(Transition::Assert));
        assert_eq!(wires.set(11, WireSource::PirqA, true), None);
        assert_eq!(wires.set(11, WireSource::IoWorker, true), None);
        assert_eq!(wires.set(11, WireSource::PirqA, false), None);
        assert!(wires.is_any_high(WireSource::IoWorker) && !wires.is_any_high(WireSource::PirqA));
        assert_eq!(
            wires.set(11, WireSource::IoWorker, false),
            Some(Transition::Deassert)
        );
        assert_eq!(wires.set(24, WireSource::Test, true), None);
    }
}
