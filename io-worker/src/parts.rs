//! A set of the machine's parts, by number.

/// A set of parts below 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts(u64);

impl Parts {
    /// No part.
    pub const NONE: Self = Self(0);

    /// The first `count` parts. Panics above 64.
    pub fn first(count: usize) -> Self {
        assert!(count <= 64, "a machine of {count} parts");
        Self(if count == 64 { u64::MAX } else { (1 << count) - 1 })
    }

    /// Adds a part. Panics above 63.
    #[inline]
    pub fn add(&mut self, part: usize) {
        assert!(part < 64, "part {part}");
        self.0 |= 1 << part;
    }

    /// Whether a part is in the set.
    #[inline]
    pub fn contains(self, part: usize) -> bool {
        part < 64 && self.0 >> part & 1 != 0
    }

    /// The parts of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The parts in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let part = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (part < 64).then_some(part as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_its_parts_in_order_up_to_the_last() {
        let mut set = Parts::NONE;
        for part in [63, 0, 7] {
            set.add(part);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 7, 63]);
        assert!(set.contains(7) && !set.contains(8) && !set.contains(64));
        assert_eq!(Parts::first(64).iter().count(), 64);
        assert_eq!(
            Parts::first(2).with(set).iter().collect::<Vec<_>>(),
            [0, 1, 7, 63]
        );
    }
}
