//! The port bus: 64 Ki ports, each answered by one device or by none.

use super::ranges::{RangeError, Ranges};
use super::{Access, Size};

/// Who answers a range: a device by its number in the machine, and one of its regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Number of the device.
    pub device: u16,
    /// Index into the device's regions.
    pub region: u8,
}

/// Number of ports.
pub const PORTS: u64 = 0x1_0000;

/// A bus of either kind: ranges with a [`Target`] each.
#[derive(Debug, Clone)]
pub struct Bus {
    ranges: Ranges<Target>,
}

impl Bus {
    /// A bus of `limit` addresses that nobody answers.
    pub fn new(limit: u64) -> Self {
        Self {
            ranges: Ranges::new(limit),
        }
    }

    /// The port bus.
    pub fn ports() -> Self {
        Self::new(PORTS)
    }

    /// Gives `[start, start + len)` to `target`.
    ///
    /// # Errors
    /// [`RangeError`] when any of it is taken or does not exist.
    pub fn claim(&mut self, start: u64, len: u64, target: Target) -> Result<(), RangeError> {
        self.ranges.claim(start, len, target)
    }

    /// All ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &Target)> {
        self.ranges.iter()
    }

    /// Takes an access apart and hands each part to `each` with its shift in bits: whole if one region holds
    /// all of it, else byte by byte in ascending order, as the bus of a PC does with what no card answers
    /// whole. Bytes that nobody has are left out.
    pub fn split(&self, address: u64, size: Size, mut each: impl FnMut(Target, Access, u32)) {
        let bytes = u64::from(size.bytes());
        if let Some((start, len, target)) = self.ranges.find(address)
            && address - start + bytes <= len
        {
            each(
                *target,
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
            if let Some((start, _, target)) = self.ranges.find(at) {
                let access = Access {
                    region: target.region,
                    offset: at - start,
                    size: Size::BYTE,
                };
                each(*target, access, 8 * i as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_across_two_devices_is_split_in_bytes() {
        let mut bus = Bus::ports();
        bus.claim(0x60, 1, Target { device: 1, region: 0 }).expect("free");
        bus.claim(0x62, 2, Target { device: 2, region: 3 }).expect("free");
        let mut seen = Vec::new();
        bus.split(0x60, Size::DWORD, |t, a, shift| {
            seen.push((t.device, a.region, a.offset, a.size.bytes(), shift));
        });
        assert_eq!(seen, [(1, 0, 0, 1, 0), (2, 3, 0, 1, 16), (2, 3, 1, 1, 24)]);
        seen.clear();
        bus.split(0x62, Size::WORD, |t, a, shift| {
            seen.push((t.device, a.region, a.offset, a.size.bytes(), shift));
        });
        assert_eq!(seen, [(2, 3, 0, 2, 0)]);
    }

    #[test]
    fn the_last_port_does_not_wrap() {
        let mut bus = Bus::ports();
        bus.claim(0xFFFF, 1, Target { device: 0, region: 0 })
            .expect("free");
        bus.claim(0, 1, Target { device: 1, region: 0 }).expect("free");
        let mut seen = 0;
        bus.split(0xFFFF, Size::WORD, |t, _, _| {
            assert_eq!(t.device, 0);
            seen += 1;
        });
        assert_eq!(seen, 1);
    }
}
