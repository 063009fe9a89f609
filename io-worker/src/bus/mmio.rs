//! The memory bus: what devices answer in guest physical address space.
//!
//! Two layers. Fixed ranges are claimed when the machine is built and cannot overlap. Windows are what the
//! guest programs into base address registers; a guest may put them on top of each other or of fixed ranges,
//! and then the fixed range wins, and among windows the first in bus order. RAM wins over both: the vCPU
//! never sends an access that RAM answers.

use super::pio::{Bus, Target};
use super::ranges::RangeError;
use super::{Access, Size};

/// Number of guest physical addresses.
pub const ADDRESSES: u64 = 1 << 52;

/// A bus with fixed ranges and with windows that the guest moves. Also used for ports, where BARs move too.
#[derive(Debug, Clone)]
pub struct MovableBus {
    fixed: Bus,
    windows: Vec<(u64, u64, Target)>,
    limit: u64,
}

impl MovableBus {
    /// The memory bus.
    pub fn memory() -> Self {
        Self {
            fixed: Bus::new(ADDRESSES),
            windows: Vec::new(),
            limit: ADDRESSES,
        }
    }

    /// The port bus.
    pub fn ports() -> Self {
        Self {
            fixed: Bus::ports(),
            windows: Vec::new(),
            limit: super::pio::PORTS,
        }
    }

    /// Claims a fixed range.
    ///
    /// # Errors
    /// [`RangeError`] when any of it is taken or does not exist.
    pub fn claim(&mut self, start: u64, len: u64, target: Target) -> Result<(), RangeError> {
        self.fixed.claim(start, len, target)
    }

    /// Replaces all windows. What does not lie in the address space is left out.
    pub fn set_windows(&mut self, windows: impl IntoIterator<Item = (u64, u64, Target)>) {
        let limit = self.limit;
        self.windows = windows
            .into_iter()
            .filter(|&(start, len, _)| len > 0 && start < limit && len <= limit - start)
            .collect();
    }

    /// Fixed ranges, then windows in the order in which they win.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, Target)> {
        self.fixed
            .iter()
            .map(|(s, l, t)| (s, l, *t))
            .chain(self.windows.iter().copied())
    }

    /// As [`Bus::split`], over both layers.
    pub fn split(&self, address: u64, size: Size, mut each: impl FnMut(Target, Access, u32)) {
        let bytes = u64::from(size.bytes());
        let mut fixed = 0;
        self.fixed.split(address, size, |target, access, shift| {
            fixed |= access.size.ones() << shift;
            each(target, access, shift);
        });
        if fixed != 0 || self.windows.is_empty() {
            return;
        }
        let hit = |at: u64| self.windows.iter().find(|w| at >= w.0 && at - w.0 < w.1).copied();
        if let Some((start, len, target)) = hit(address)
            && address - start + bytes <= len
        {
            each(
                target,
                Access {
                    region: target.region,
                    offset: address - start,
                    size,
                },
                0,
            );
            return;
        }
        for i in 0..bytes {
            let Some(at) = address.checked_add(i) else { break };
            if let Some((start, _, target)) = hit(at) {
                let access = Access {
                    region: target.region,
                    offset: at - start,
                    size: Size::BYTE,
                };
                each(target, access, 8 * i as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(bus: &MovableBus, address: u64) -> Vec<(u16, u64)> {
        let mut seen = Vec::new();
        bus.split(address, Size::DWORD, |t, a, _| seen.push((t.device, a.offset)));
        seen
    }

    #[test]
    fn fixed_ranges_win_over_windows_and_the_first_window_over_the_next() {
        let mut bus = MovableBus::memory();
        let target = |device| Target { device, region: 0 };
        bus.claim(0xFF00_0000, 0x1000, target(1)).expect("free");
        bus.set_windows([
            (0xFEFF_F000, 0x2000, target(2)),
            (0xFEFF_0000, 0x2_0000, target(3)),
        ]);
        assert_eq!(hits(&bus, 0xFF00_0010), [(1, 0x10)]);
        assert_eq!(hits(&bus, 0xFEFF_F010), [(2, 0x10)]);
        assert_eq!(hits(&bus, 0xFEFF_0010), [(3, 0x10)]);
        assert_eq!(hits(&bus, 0xE000_0000), []);
        bus.set_windows([]);
        assert_eq!(hits(&bus, 0xFEFF_F010), []);
    }

    #[test]
    fn windows_outside_the_address_space_answer_nothing() {
        let mut bus = MovableBus::ports();
        bus.set_windows([
            (0xFFFF, 2, Target { device: 0, region: 0 }),
            (u64::MAX, 1, Target { device: 0, region: 0 }),
        ]);
        assert_eq!(hits(&bus, 0xFFFF), []);
    }
}
