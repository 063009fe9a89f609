//! Ranges of addresses that cannot overlap, because an overlapping one is refused when it is claimed.

/// A claim that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Somebody has part of the range.
    #[error("{len:#x} addresses at {start:#x} overlap {other_len:#x} at {other:#x}")]
    Overlap {
        /// Start of the refused range.
        start: u64,
        /// Length of the refused range.
        len: u64,
        /// Start of the range that is there.
        other: u64,
        /// Length of the range that is there.
        other_len: u64,
    },
    /// Nothing, or more than the address space holds.
    #[error("{len:#x} addresses at {start:#x} do not lie below {limit:#x}")]
    Bounds {
        /// Start of the refused range.
        start: u64,
        /// Length of the refused range.
        len: u64,
        /// First address past the space.
        limit: u64,
    },
}

/// Disjoint ranges with a value each, in ascending order.
#[derive(Debug, Clone)]
pub struct Ranges<T> {
    limit: u64,
    entries: Vec<(u64, u64, T)>,
}

impl<T> Ranges<T> {
    /// No ranges in the addresses below `limit`.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            entries: Vec::new(),
        }
    }

    /// Claims `[start, start + len)`.
    ///
    /// # Errors
    /// [`RangeError`]; nothing is changed then.
    pub fn claim(&mut self, start: u64, len: u64, value: T) -> Result<(), RangeError> {
        if len == 0 || start >= self.limit || len > self.limit - start {
            return Err(RangeError::Bounds {
                start,
                len,
                limit: self.limit,
            });
        }
        let at = self.entries.partition_point(|e| e.0 < start);
        let clash = [at.checked_sub(1), Some(at)]
            .into_iter()
            .flatten()
            .filter_map(|i| self.entries.get(i));
        for &(other, other_len, _) in clash {
            if start < other + other_len && other < start + len {
                return Err(RangeError::Overlap {
                    start,
                    len,
                    other,
                    other_len,
                });
            }
        }
        self.entries.insert(at, (start, len, value));
        Ok(())
    }

    /// The range that holds `address`: its start, length and value.
    pub fn find(&self, address: u64) -> Option<(u64, u64, &T)> {
        let at = self.entries.partition_point(|e| e.0 <= address).checked_sub(1)?;
        let (start, len, value) = &self.entries[at];
        (address - start < *len).then_some((*start, *len, value))
    }

    /// All ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &T)> {
        self.entries.iter().map(|(s, l, v)| (*s, *l, v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_is_refused_from_either_side_and_from_inside() {
        let mut r = Ranges::new(0x1_0000);
        r.claim(0x100, 0x10, 'a').expect("free");
        for (start, len) in [(0xF8, 0x10), (0x10F, 1), (0x104, 4), (0x100, 0x10), (0, 0x1000)] {
            assert!(
                matches!(
                    r.claim(start, len, 'b'),
                    Err(RangeError::Overlap { other: 0x100, .. })
                ),
                "{start:#x}"
            );
        }
        r.claim(0xF0, 0x10, 'c').expect("adjacent below");
        r.claim(0x110, 1, 'd').expect("adjacent above");
        assert_eq!(r.find(0x10F).map(|f| *f.2), Some('a'));
        assert_eq!(r.find(0xFF).map(|f| *f.2), Some('c'));
        assert_eq!(r.find(0x111).map(|f| *f.2), None);
    }

    #[test]
    fn nothing_lies_outside_the_space() {
        let mut r = Ranges::new(0x1_0000);
        for (start, len) in [(0xFFFF, 2), (0x1_0000, 1), (0, 0), (1, u64::MAX)] {
            assert!(matches!(r.claim(start, len, ()), Err(RangeError::Bounds { .. })));
        }
        r.claim(0xFFFF, 1, ()).expect("the last one");
    }
}
