//! What SMBIOS tells of the machine (DMTF DSP0134, version 2.8): structures and entry point, for firmware to place.
//!
//! Firmware adds what it alone knows, the structure of type 0.

use quintet_protocol::ram::{HIGH_RAM_BASE, RamLayout};

use crate::fw_cfg::{FwCfg, ItemError};

const VERSION: (u8, u8) = (2, 8);
/// Handles of the structures that others refer to.
const CHASSIS: u16 = 0x0300;
const PROCESSOR: u16 = 0x0400;
const ARRAY: u16 = 0x1000;
const MODULE: u16 = 0x1100;
const MAPPED: u16 = 0x1300;
/// A string or a number that is not told.
const UNKNOWN: u8 = 2;

/// The structures, and how long the longest is.
#[derive(Debug, Default)]
struct Structures {
    bytes: Vec<u8>,
    count: u16,
    longest: usize,
}

impl Structures {
    /// Appends a structure: its formatted area behind the header, and its strings.
    fn add(&mut self, kind: u8, handle: u16, area: &[u8], strings: &[&str]) {
        let start = self.bytes.len();
        self.bytes.extend([kind, area.len() as u8 + 4]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(area);
        for text in strings {
            self.bytes.extend(text.bytes());
            self.bytes.push(0);
        }
        // A structure without strings ends with two zeros.
        self.bytes
            .extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
        self.longest = self.longest.max(self.bytes.len() - start);
        self.count += 1;
    }
}

fn words(list: &[u16]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn structures(cpus: u8, cpuid_1: (u32, u32), ram: RamLayout) -> Structures {
    let mut s = Structures::default();
    let maker = "Quintet";
    // Manufacturer, product and version are the strings 1 to 3; no serial number, no UUID; woken by the power switch.
    let mut system = vec![1, 2, 3, 0];
    system.extend([0; 16]);
    system.extend([6, 0, 0]);
    s.add(
        1,
        0x0100,
        &system,
        &[maker, "Quintet PC", env!("CARGO_PKG_VERSION")],
    );
    // A desktop whose states are safe.
    let mut chassis = vec![1, 3, 0, 0, 0, 3, 3, 3, UNKNOWN];
    chassis.extend([0; 8]);
    s.add(3, CHASSIS, &chassis, &[maker]);
    for cpu in 0..cpus {
        // Socket, central processor of an unknown family, maker.
        let mut area = vec![1, 3, UNKNOWN, 2];
        area.extend(cpuid_1.0.to_le_bytes());
        area.extend(cpuid_1.1.to_le_bytes());
        // No version; voltage, clock and speeds unknown; enabled in a socket of another kind.
        area.extend([0, 0]);
        area.extend(words(&[0, 0, 0]));
        area.extend([0x41, 1]);
        // No caches are told of.
        area.extend(words(&[0xFFFF, 0xFFFF, 0xFFFF]));
        // No serial number, tag or part; one core, one thread, 64-bit if it says so elsewhere.
        area.extend([0, 0, 0, 1, 1, 1]);
        area.extend(words(&[0, u16::from(UNKNOWN)]));
        let socket = format!("CPU {cpu}");
        s.add(4, PROCESSOR + u16::from(cpu), &area, &[&socket, maker]);
    }
    // System memory on the board, without error correction, of one module.
    let kib = |bytes: u64| bytes >> 10;
    let mut array = vec![1, 3, 3];
    array.extend(0x8000_0000_u32.to_le_bytes());
    array.extend(words(&[0xFFFE, 1]));
    array.extend(ram.total().to_le_bytes());
    s.add(16, ARRAY, &array, &[]);
    let mib = ram.total() >> 20;
    let mut module = words(&[ARRAY, 0xFFFE, 0xFFFF, 0xFFFF]);
    // From 32767 MiB on the size stands in another field.
    module.extend((mib.min(0x7FFF) as u16).to_le_bytes());
    module.extend([9, 0, 1, 0, 7]);
    module.extend(words(&[2, 0]));
    module.extend([2, 0, 0, 0, 0]);
    module.extend((mib as u32).to_le_bytes());
    module.extend([0; 8]);
    s.add(17, MODULE, &module, &["DIMM 0", maker]);
    let ranges = [(0, ram.low()), (HIGH_RAM_BASE, ram.high())];
    for (n, (start, len)) in (0..).zip(ranges.into_iter().filter(|(_, len)| *len > 0)) {
        let mut mapped = Vec::new();
        // Addresses in KiB fit below 4 TiB.
        mapped.extend((kib(start) as u32).to_le_bytes());
        mapped.extend((kib(start + len) as u32).wrapping_sub(1).to_le_bytes());
        mapped.extend(words(&[ARRAY]));
        mapped.push(1);
        mapped.extend([0; 16]);
        s.add(19, MAPPED + n, &mapped, &[]);
    }
    s.add(32, 0x2000, &[0; 7], &[]);
    s.add(127, 0x7F00, &[], &[]);
    s
}

fn make_sum_zero(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0_u8, |a, &b| a.wrapping_sub(b));
}

/// The entry point (5.2.1) of structures at address zero.
fn anchor(s: &Structures) -> [u8; 31] {
    let mut a = [0; 31];
    a[..4].copy_from_slice(b"_SM_");
    (a[5], a[6], a[7]) = (31, VERSION.0, VERSION.1);
    a[8..10].copy_from_slice(&(s.longest as u16).to_le_bytes());
    a[16..21].copy_from_slice(b"_DMI_");
    a[22..24].copy_from_slice(&(s.bytes.len() as u16).to_le_bytes());
    a[28..30].copy_from_slice(&s.count.to_le_bytes());
    a[30] = VERSION.0 << 4 | VERSION.1;
    make_sum_zero(&mut a[16..], 5);
    make_sum_zero(&mut a, 4);
    a
}

/// Offers structures and entry point to firmware. `cpuid_1` is what CPUID leaf 1 says in EAX and EDX.
///
/// # Errors
/// [`ItemError`] when there are such files already.
pub fn offer(fw_cfg: &mut FwCfg, cpus: u8, cpuid_1: (u32, u32), ram: RamLayout) -> Result<(), ItemError> {
    let structures = structures(cpus, cpuid_1, ram);
    fw_cfg.add_file("etc/smbios/smbios-anchor", anchor(&structures).to_vec())?;
    fw_cfg.add_file("etc/smbios/smbios-tables", structures.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type, formatted area with its header, and strings of each structure, read as an operating system reads them.
    fn read(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (area, rest) = bytes.split_at(usize::from(bytes[1]));
            let end = rest.windows(2).position(|w| w == [0, 0]).expect("an end");
            let text = String::from_utf8(rest[..end].to_vec()).expect("ASCII");
            let strings = text.split_terminator('\0').map(str::to_owned).collect();
            all.push((area[0], area.to_vec(), strings));
            bytes = &rest[end + 2..];
        }
        all
    }

    #[test]
    fn the_structures_are_those_of_the_machine() {
        let s = structures(2, (0x0003_06C3, 0xFFFF), RamLayout::new(5 << 30));
        let all = read(&s.bytes);
        let kinds: Vec<u8> = all.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [1, 3, 4, 4, 16, 17, 19, 19, 32, 127]);
        assert_eq!(usize::from(s.count), all.len());
        // Lengths by the specification's version 2.8, of which some structures are longer than 2.0's.
        let lengths: Vec<usize> = all.iter().map(|(_, area, _)| area.len()).collect();
        assert_eq!(lengths, [27, 21, 42, 42, 23, 40, 31, 31, 11, 4]);
        assert_eq!(all[0].2[..2], ["Quintet", "Quintet PC"]);
        assert_eq!(all[3].2, ["CPU 1", "Quintet"]);
        let word = |area: &[u8], at: usize| u32::from_le_bytes(std::array::from_fn(|i| area[at + i]));
        assert_eq!(word(&all[5].1, 12) & 0xFFFF, 5 << 10, "MiB of the module");
        assert_eq!((word(&all[6].1, 4), word(&all[6].1, 8)), (0, (3584 << 10) - 1));
        assert_eq!(
            (word(&all[7].1, 4), word(&all[7].1, 8)),
            (4 << 20, (5632 << 10) - 1)
        );
    }

    #[test]
    fn both_sums_of_the_entry_point_are_zero() {
        let s = structures(1, (0, 0), RamLayout::new(64 << 20));
        let a = anchor(&s);
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |a, &b| a.wrapping_add(b));
        assert_eq!((sum(&a), sum(&a[16..])), (0, 0));
        assert_eq!(usize::from(u16::from_le_bytes([a[22], a[23]])), s.bytes.len());
    }
}
