//! Which RAM is still free while a kernel is put together.
//!
//! Fixed addresses were rejected: a multiboot kernel may ask for any place, low memory included, and then
//! whatever the loader adds (tables, modules, command lines) has to go elsewhere.

use core::ops::Range;

/// Free ranges of guest physical addresses, ascending and disjoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    free: Vec<Range<u64>>,
}

impl Places {
    /// Starts with the ranges given, which must be ascending and disjoint.
    pub fn new(free: impl IntoIterator<Item = Range<u64>>) -> Self {
        Self {
            free: free.into_iter().filter(|r| r.start < r.end).collect(),
        }
    }

    /// Takes `[at, at + len)`; `false` when any of it is not free. Nothing is taken then.
    pub fn take(&mut self, at: u64, len: u64) -> bool {
        let Some(end) = at.checked_add(len) else {
            return false;
        };
        if len == 0 {
            return true;
        }
        let Some(i) = self.free.iter().position(|r| r.start <= at && end <= r.end) else {
            return false;
        };
        let whole = self.free.remove(i);
        if end < whole.end {
            self.free.insert(i, end..whole.end);
        }
        if whole.start < at {
            self.free.insert(i, whole.start..at);
        }
        true
    }

    /// Takes the lowest free `len` bytes that end at or below `limit`; `align` is a power of two.
    pub fn lowest(&mut self, len: u64, align: u64, limit: u64) -> Option<u64> {
        self.lowest_from(0, len, align, limit)
    }

    /// As [`Self::lowest`], but not below `start`.
    pub fn lowest_from(&mut self, start: u64, len: u64, align: u64, limit: u64) -> Option<u64> {
        let at = self.free.iter().find_map(|r| {
            let at = r.start.max(start).checked_next_multiple_of(align)?;
            let end = at.checked_add(len)?;
            (end <= r.end.min(limit)).then_some(at)
        })?;
        self.take(at, len).then_some(at)
    }

    /// Takes the highest free `len` bytes that end at or below `limit`; `align` is a power of two.
    pub fn highest(&mut self, len: u64, align: u64, limit: u64) -> Option<u64> {
        let at = self.free.iter().rev().find_map(|r| {
            let at = r.end.min(limit).checked_sub(len)? & !(align - 1);
            (at >= r.start).then_some(at)
        })?;
        self.take(at, len).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_not_given_again() {
        let mut p = Places::new([0x1000..0x9000, 0x10_0000..0x20_0000]);
        assert!(p.take(0x3000, 0x1000));
        assert!(!p.take(0x3FFF, 1));
        assert!(p.take(0x4000, 0x5000));
        assert!(!p.take(0x8000, 1));
        assert_eq!(p.lowest(0x2000, 0x1000, u64::MAX), Some(0x1000));
        assert_eq!(p.lowest(1, 1, 0x10_0000), None);
    }

    #[test]
    fn the_highest_place_respects_limit_and_alignment() {
        let mut p = Places::new(std::iter::once(0x1000..0x9800));
        assert_eq!(p.highest(0x100, 0x1000, u64::MAX), Some(0x9000));
        assert_eq!(p.highest(0x100, 0x1000, 0x5001), Some(0x4000));
        assert_eq!(p.highest(0x10_0000, 0x1000, u64::MAX), None);
    }

    #[test]
    fn numbers_near_the_end_of_the_address_space_are_refused() {
        let mut p = Places::new(std::iter::once(0x1000..u64::MAX));
        assert!(!p.take(u64::MAX, 2));
        assert!(!p.take(2, u64::MAX));
        assert_eq!(p.lowest(u64::MAX, 4096, u64::MAX), None);
        assert_eq!(p.highest(u64::MAX, 4096, u64::MAX), None);
    }
}
