//! PCI as firmware leaves it: BARs assigned and decoded, interrupt lines routed, the power management
//! function at its I/O base, RAM behind the BIOS segment read-only.
//!
//! Bus 0 only: the i440FX machine has no bridge to another.

use super::LoadError;
use crate::bus::Size;
use crate::pci::{PciBus, bdf};

/// First I/O port given to BARs.
pub const IO_START: u64 = 0xC000;
/// End of the I/O ports given to BARs.
pub const IO_END: u64 = 0x1_0000;
/// First address given to memory BARs.
pub const MEMORY_START: u64 = quintet_protocol::ram::PCI_MMIO_BASE;
/// End of the addresses given to memory BARs, below I/O APIC and HPET.
pub const MEMORY_END: u64 = super::e820::IO_APIC;
/// I/O base of the PIIX4 power management function.
pub const PM_BASE: u16 = 0x600;
/// Interrupts that PIRQA to PIRQD are routed to by PIIX3 registers 60h to 63h.
pub const PIRQ_IRQS: [u8; 4] = [10, 10, 11, 11];
/// The interrupt of ACPI, wired and not routed.
pub const SCI: u8 = 9;

/// Configuration space of bus 0. Widths are 1, 2 or 4 bytes; what is not there reads as all ones.
pub trait PciConfig {
    /// Reads `width` bytes at `register` of a function.
    fn read(&mut self, device: u8, function: u8, register: u8, width: u8) -> u32;

    /// Writes `width` bytes at `register` of a function.
    fn write(&mut self, device: u8, function: u8, register: u8, width: u8, value: u32);
}

impl PciConfig for PciBus {
    fn read(&mut self, device: u8, function: u8, register: u8, width: u8) -> u32 {
        Size::new(width).map_or(u32::MAX, |size| self.peek(bdf(device, function), register, size))
    }

    fn write(&mut self, device: u8, function: u8, register: u8, width: u8, value: u32) {
        if let Some(size) = Size::new(width) {
            self.poke(bdf(device, function), register, size, value);
        }
    }
}

/// PIRQ (0 for A) that a slot's pin (0 for INTA#) is wired to on this board.
pub fn pirq_of(slot: u8, pin: u8) -> usize {
    usize::from(crate::pci::pirq_of(slot, pin + 1))
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    device: u8,
    function: u8,
    register: u8,
    size: u64,
    io: bool,
    wide: bool,
}

const COMMAND: u8 = 0x04;
const COMMAND_IO: u32 = 1;
const COMMAND_MEMORY: u32 = 2;

/// Sets up all functions, decoding on, and answers what the edge/level control registers 4D0h and 4D1h should hold.
///
/// # Errors
/// [`LoadError::NoRoom`] when the BARs do not fit, which no machine that can be configured reaches.
pub fn set_up(pci: &mut dyn PciConfig) -> Result<u16, LoadError> {
    let mut bars = Vec::new();
    let mut present = Vec::new();
    for device in 0..32 {
        let functions = match pci.read(device, 0, 0x0C, 4) {
            u32::MAX => continue,
            header if header & 0x0080_0000 != 0 => 8,
            _ => 1,
        };
        for function in 0..functions {
            let id = pci.read(device, function, 0, 4);
            if id & 0xFFFF != 0xFFFF {
                find_bars(pci, device, function, &mut bars);
                interrupt_line(pci, device, function, id);
                particular(pci, device, function, id);
                present.push((device, function));
            }
        }
    }
    assign(pci, &mut bars)?;
    for (device, function) in present {
        let command = pci.read(device, function, COMMAND, 2);
        pci.write(
            device,
            function,
            COMMAND,
            2,
            command | COMMAND_IO | COMMAND_MEMORY,
        );
    }
    Ok(PIRQ_IRQS.iter().fold(0, |elcr, irq| elcr | 1 << irq))
}

/// Sizes the BARs of a function by the ones it holds of all ones (PCI 3.0 §6.2.5.1).
fn find_bars(pci: &mut dyn PciConfig, device: u8, function: u8, bars: &mut Vec<Bar>) {
    let command = pci.read(device, function, COMMAND, 2);
    pci.write(
        device,
        function,
        COMMAND,
        2,
        command & !(COMMAND_IO | COMMAND_MEMORY),
    );
    let count = match pci.read(device, function, 0x0E, 1) & 0x7F {
        0 => 6,
        1 => 2,
        _ => 0,
    };
    let mut index = 0;
    while index < count {
        let register = 0x10 + index * 4;
        let probe = |pci: &mut dyn PciConfig, register| {
            pci.write(device, function, register, 4, u32::MAX);
            pci.read(device, function, register, 4)
        };
        let low = probe(pci, register);
        index += 1;
        if low == 0 || low == u32::MAX {
            continue;
        }
        let io = low & 1 != 0;
        let wide = !io && low & 6 == 4 && index < count;
        let mask = if io {
            // The upper half may be hardwired to zero: ports have 16 bits.
            u64::from(low & !3 | 0xFFFF_0000) | 0xFFFF_FFFF_0000_0000
        } else if wide {
            let high = probe(pci, register + 4);
            index += 1;
            u64::from(high) << 32 | u64::from(low & !0xF)
        } else {
            0xFFFF_FFFF_0000_0000 | u64::from(low & !0xF)
        };
        let size = (!mask).wrapping_add(1);
        if size.is_power_of_two() {
            bars.push(Bar {
                device,
                function,
                register,
                size,
                io,
                wide,
            });
        }
    }
}

/// Tells a driver which interrupt its pin ends at (register 3Ch).
fn interrupt_line(pci: &mut dyn PciConfig, device: u8, function: u8, id: u32) {
    let pin = pci.read(device, function, 0x3D, 1);
    if (1..=4).contains(&pin) {
        let irq = if id == PIIX4_PM {
            SCI
        } else {
            PIRQ_IRQS[pirq_of(device, pin as u8 - 1)]
        };
        pci.write(device, function, 0x3C, 1, u32::from(irq));
    }
}

const I440FX: u32 = 0x1237_8086;
const PIIX3_ISA: u32 = 0x7000_8086;
const PIIX3_IDE: u32 = 0x7010_8086;
const PIIX4_PM: u32 = 0x7113_8086;

/// Registers that mean something in one function only.
fn particular(pci: &mut dyn PciConfig, device: u8, function: u8, id: u32) {
    match id {
        I440FX => {
            // PAM (82441FX §3.2.13): F0000h-FFFFFh read from RAM, not written; C0000h-EFFFFh RAM.
            pci.write(device, function, 0x59, 1, 0x10);
            for register in 0x5A..=0x5F {
                pci.write(device, function, register, 1, 0x33);
            }
        }
        PIIX3_ISA => {
            for (i, irq) in PIRQ_IRQS.iter().enumerate() {
                pci.write(device, function, 0x60 + i as u8, 1, u32::from(*irq));
            }
        }
        PIIX3_IDE => {
            // IDETIM: both channels decode their legacy ports.
            pci.write(device, function, 0x40, 2, 0x8000);
            pci.write(device, function, 0x42, 2, 0x8000);
        }
        PIIX4_PM => {
            pci.write(device, function, 0x40, 4, u32::from(PM_BASE) | 1);
            pci.write(device, function, 0x80, 1, 1); // PMIOSE
        }
        _ => {}
    }
}

/// Gives every BAR an address aligned to its size, the largest first.
fn assign(pci: &mut dyn PciConfig, bars: &mut [Bar]) -> Result<(), LoadError> {
    bars.sort_by_key(|b| core::cmp::Reverse(b.size));
    let (mut io, mut memory) = (IO_START, MEMORY_START);
    for bar in bars.iter() {
        let (next, end) = if bar.io {
            (&mut io, IO_END)
        } else {
            (&mut memory, MEMORY_END)
        };
        let at = next.next_multiple_of(bar.size);
        if bar.size > end || at > end - bar.size {
            return Err(LoadError::NoRoom {
                what: "A PCI BAR",
                len: bar.size,
                ram_mib: 0,
            });
        }
        *next = at + bar.size;
        pci.write(bar.device, bar.function, bar.register, 4, at as u32);
        if bar.wide {
            pci.write(bar.device, bar.function, bar.register + 4, 4, (at >> 32) as u32);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Functions made of 256 bytes and the bits of them that can be written.
    #[derive(Default)]
    struct Board(BTreeMap<(u8, u8), ([u8; 256], [u8; 256])>);

    impl Board {
        fn function(&mut self, device: u8, function: u8, id: u32) -> &mut ([u8; 256], [u8; 256]) {
            let f = self.0.entry((device, function)).or_insert(([0; 256], [0; 256]));
            f.0[..4].copy_from_slice(&id.to_le_bytes());
            f.1[4..6].copy_from_slice(&[7, 0]);
            f.1[0x3C..].fill(0xFF);
            f.1[0x3D] = 0;
            f
        }

        fn bar(&mut self, device: u8, index: usize, flags: u8, size: u32) {
            let f = self.0.get_mut(&(device, 0)).expect("function");
            let at = 0x10 + index * 4;
            f.0[at] = flags;
            f.1[at..at + 4].copy_from_slice(
                &(size.wrapping_neg() & if flags & 1 != 0 { !3 } else { !0xF }).to_le_bytes(),
            );
        }
    }

    impl PciConfig for Board {
        fn read(&mut self, device: u8, function: u8, register: u8, width: u8) -> u32 {
            let Some((value, _)) = self.0.get(&(device, function)) else {
                return u32::MAX >> (32 - width * 8);
            };
            (0..width).fold(0, |r, i| {
                r | u32::from(value[usize::from(register + i)]) << (i * 8)
            })
        }

        fn write(&mut self, device: u8, function: u8, register: u8, width: u8, value: u32) {
            let Some((bytes, mask)) = self.0.get_mut(&(device, function)) else {
                return;
            };
            for i in 0..width {
                let at = usize::from(register + i);
                bytes[at] = bytes[at] & !mask[at] | (value >> (i * 8)) as u8 & mask[at];
            }
        }
    }

    fn pc() -> Board {
        let mut b = Board::default();
        b.function(0, 0, I440FX);
        b.function(1, 0, PIIX3_ISA).0[0x0E] = 0x80;
        b.function(1, 1, PIIX3_IDE);
        b.function(1, 3, PIIX4_PM).0[0x3D] = 1;
        b.function(2, 0, 0x1111_1234);
        b.bar(2, 0, 8, 16 << 20);
        b.bar(2, 2, 0, 4096);
        b.function(3, 0, 0x100E_8086).0[0x3D] = 1;
        b.bar(3, 0, 4, 128 << 10);
        b.0.get_mut(&(3, 0)).expect("function").1[0x14..0x18].fill(0xFF);
        b.bar(3, 2, 1, 64);
        b
    }

    #[test]
    fn s3_7_bars_are_aligned_disjoint_and_decoded_and_the_frame_buffer_is_at_the_apertures_base() {
        let mut b = pc();
        set_up(&mut b).expect("fits");
        assert_eq!(u64::from(b.read(2, 0, 0x10, 4)), MEMORY_START | 8);
        assert_eq!(b.read(3, 0, 0x10, 4), 0xE100_0004);
        assert_eq!(b.read(3, 0, 0x14, 4), 0);
        assert_eq!(b.read(2, 0, 0x18, 4), 0xE102_0000);
        assert_eq!(b.read(3, 0, 0x18, 4), 0xC001);
        assert_eq!(b.read(3, 0, 4, 2) & 3, 3);
    }

    #[test]
    fn lines_follow_the_routing_and_the_sci_is_9() {
        let mut b = pc();
        let elcr = set_up(&mut b).expect("fits");
        assert_eq!(b.read(3, 0, 0x3C, 1), 11); // slot 3 INTA# is PIRQC
        assert_eq!(b.read(1, 3, 0x3C, 1), 9);
        assert_eq!(b.read(1, 0, 0x60, 4), 0x0B0B_0A0A);
        assert_eq!(elcr, 0x0C00);
    }

    #[test]
    fn power_management_is_at_600h() {
        let mut b = pc();
        set_up(&mut b).expect("fits");
        assert_eq!(b.read(1, 3, 0x40, 4), 0x601);
        assert_eq!(b.read(1, 3, 0x80, 1), 1);
    }

    #[test]
    fn the_pc_machine_is_decoded_routed_and_its_bios_read_only() {
        use crate::pci::{PIIX_PM_SLOT, i440fx, piix3_isa, piix4_pm, stdvga};
        let mut pci = PciBus::new();
        pci.add(bdf(0, 0), i440fx());
        pci.add(bdf(1, 0), piix3_isa());
        pci.add(PIIX_PM_SLOT, piix4_pm());
        pci.add(bdf(2, 0), stdvga(16 << 20, 0));
        set_up(&mut pci).expect("fits");
        assert_eq!(pci.peek(bdf(2, 0), 0x10, Size::DWORD) & !0xF, 0xE000_0000);
        assert_eq!(pci.peek(bdf(1, 0), 0x60, Size::DWORD), 0x0B0B_0A0A);
        assert_eq!(pci.peek(bdf(0, 0), 0x59, Size::BYTE), 0x10);
        assert_eq!(pci.peek(PIIX_PM_SLOT, 0x40, Size::DWORD), 0x601);
        assert!(
            pci.windows().iter().any(|w| w.start == 0x600),
            "{:?}",
            pci.windows()
        );
    }

    #[test]
    fn a_bar_larger_than_the_aperture_is_refused() {
        let mut b = pc();
        b.bar(2, 0, 8, 1 << 30);
        assert!(matches!(set_up(&mut b), Err(LoadError::NoRoom { .. })));
    }
}
