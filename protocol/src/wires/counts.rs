//! The raiser's side of a line that several holders share: a wired OR with a count (S3.90, S3.91).
//!
//! Counts are per line and per source process, so that the contributions of a source can be withdrawn as one,
//! and so that they stay far from saturation while devices raise and lower in balance.

use super::{LINES, Wire};

/// What a raise or lower did to the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// From nobody to one holder: a rising edge.
    Asserted,
    /// From one holder to nobody.
    Deasserted,
    /// Others hold it too.
    Silent,
}

/// A holder lost its balance: a fault of a device model, to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireWarning {
    /// Lowered more often than raised; ignored.
    #[error("Line {line} was lowered while nobody held it")]
    Underflow {
        /// The line.
        line: usize,
    },
    /// Raised 65 535 times without being lowered; the count stays there.
    #[error("Line {line} has 65535 holders; a raise was not counted")]
    Saturated {
        /// The line.
        line: usize,
    },
}

/// How many hold each line, and the wires that follow. Part of what a source commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineCounts {
    holders: [u16; LINES],
    wires: [Wire; LINES],
}

impl Default for LineCounts {
    fn default() -> Self {
        Self {
            holders: [0; LINES],
            wires: [Wire::default(); LINES],
        }
    }
}

impl LineCounts {
    /// One more holds `line`. Panics when `line` is not below [`LINES`].
    ///
    /// # Errors
    /// [`WireWarning::Saturated`]; the line stays high.
    pub fn raise(&mut self, line: usize) -> Result<Transition, WireWarning> {
        let holders = &mut self.holders[line];
        *holders = holders.checked_add(1).ok_or(WireWarning::Saturated { line })?;
        if *holders > 1 {
            return Ok(Transition::Silent);
        }
        let wire = &mut self.wires[line];
        *wire = Wire {
            high: true,
            edges: wire.edges.wrapping_add(1),
        };
        Ok(Transition::Asserted)
    }

    /// One less holds `line`. Panics when `line` is not below [`LINES`].
    ///
    /// # Errors
    /// [`WireWarning::Underflow`]; the line stays low.
    pub fn lower(&mut self, line: usize) -> Result<Transition, WireWarning> {
        let holders = &mut self.holders[line];
        *holders = holders.checked_sub(1).ok_or(WireWarning::Underflow { line })?;
        if *holders > 0 {
            return Ok(Transition::Silent);
        }
        self.wires[line].high = false;
        Ok(Transition::Deasserted)
    }

    /// Raises and lowers: an edge unless the line was high already (S3.92).
    ///
    /// # Errors
    /// [`WireWarning::Saturated`].
    pub fn pulse(&mut self, line: usize) -> Result<Transition, WireWarning> {
        let transition = self.raise(line)?;
        self.lower(line)?;
        Ok(transition)
    }

    /// The wire to publish. Panics when `line` is not below [`LINES`].
    pub fn wire(&self, line: usize) -> Wire {
        self.wires[line]
    }

    /// The lines that have ever been raised, with holders and wire: what to commit.
    pub fn touched(&self) -> impl Iterator<Item = (u8, u16, Wire)> + '_ {
        let used = |line: &usize| self.holders[*line] != 0 || self.wires[*line] != Wire::default();
        (0..LINES)
            .filter(used)
            .map(|line| (line as u8, self.holders[line], self.wires[line]))
    }

    /// Takes up what [`Self::touched`] gave.
    pub fn restore(lines: impl IntoIterator<Item = (u8, u16, Wire)>) -> Self {
        let mut counts = Self::default();
        for (line, holders, wire) in lines {
            counts.holders[usize::from(line)] = holders;
            counts.wires[usize::from(line)] = Wire {
                high: holders > 0,
                ..wire
            };
        }
        counts
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use Transition::{Asserted, Deasserted, Silent};

    #[test]
    fn s3_91_only_the_first_raise_and_the_last_lower_show() {
        let mut c = LineCounts::default();
        assert_eq!(c.raise(10), Ok(Asserted));
        assert_eq!(c.raise(10), Ok(Silent));
        assert_eq!(c.lower(10), Ok(Silent));
        assert!(c.wire(10).high);
        assert_eq!(c.lower(10), Ok(Deasserted));
        assert_eq!(
            c.wire(10),
            Wire {
                high: false,
                edges: 1
            }
        );
    }

    #[test]
    fn s3_91_lower_at_zero_is_ignored_with_a_warning() {
        let mut c = LineCounts::default();
        assert_eq!(c.lower(3), Err(WireWarning::Underflow { line: 3 }));
        assert_eq!(c.raise(3), Ok(Asserted));
    }

    #[test]
    fn s3_91_seventy_thousand_raises_saturate_with_warnings_and_the_line_stays_high() {
        let mut c = LineCounts::default();
        let warnings = (0..70_000).filter(|_| c.raise(7).is_err()).count();
        assert_eq!(warnings, 70_000 - 65_535);
        assert!(c.wire(7).high);
        assert_eq!(c.wire(7).edges, 1);
        let lowered = (0..70_000).filter(|_| c.lower(7).is_ok()).count();
        assert_eq!(lowered, 65_535);
        assert!(!c.wire(7).high);
    }

    #[test]
    fn s3_92_a_pulse_on_a_high_line_is_invisible() {
        let mut c = LineCounts::default();
        assert_eq!(c.pulse(1), Ok(Asserted));
        c.raise(1).unwrap();
        assert_eq!(c.pulse(1), Ok(Silent));
        assert_eq!(c.wire(1), Wire { high: true, edges: 2 });
    }

    #[test]
    fn what_was_committed_restores_the_same_counts() {
        let mut c = LineCounts::default();
        c.raise(0).unwrap();
        c.raise(0).unwrap();
        c.pulse(255).unwrap();
        let lines: Vec<_> = c.touched().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(LineCounts::restore(lines), c);
    }
}
