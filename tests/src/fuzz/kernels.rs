//! What firmware takes apart: kernels, their modules, option ROMs.

use arbitrary::Unstructured;
use quintet_io_worker::firmware::{self, Boot, Module, acpi};
use quintet_io_worker::pci::{PciBus, bdf, i440fx, piix3_isa, stdvga};
use quintet_io_worker::rom;
use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamLayout};

/// The machine that firmware is told of.
const MACHINE: firmware::Machine = firmware::Machine {
    cpus: 1,
    long_mode: true,
    cpuid_1: (0x633, 0x201),
    com: [0x3F8, 0x2F8, 0, 0],
    ps2: true,
    fw_cfg: true,
    disks: 1,
};

/// A kernel with modules and a command line: refused by name, or loaded the same each time, with the firmware's tables whole.
///
/// # Panics
/// When a kernel that was taken overwrites the tables, or is loaded otherwise a second time.
pub fn kernels(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let flags: u8 = u.arbitrary().unwrap_or(0);
    let text = usize::from(u.arbitrary::<u8>().unwrap_or(0) % 64).min(u.len());
    let append = String::from_utf8_lossy(u.bytes(text).unwrap_or(&[])).into_owned();
    let mut held = Vec::new();
    for _ in 0..flags & 3 {
        let n = usize::from(u.arbitrary::<u8>().unwrap_or(0)).min(u.len());
        held.push(u.bytes(n).unwrap_or(&[]));
    }
    let kernel = u.bytes(u.len()).unwrap_or(&[]);
    let _ = rom::made_for(kernel);
    let modules: Vec<Module<'_>> = held
        .iter()
        .map(|data| Module {
            data,
            command_line: "module of a kernel",
        })
        .collect();
    let boot = Boot {
        kernel: Module {
            data: &kernel,
            command_line: "kernel",
        },
        modules: &modules,
        append: &append,
    };
    let megabytes = [1, 2, 8, 64][usize::from(flags >> 2 & 3)];
    let machine = firmware::Machine {
        long_mode: flags & 0x10 == 0,
        ..MACHINE
    };
    let load = || {
        let ram = GuestRam::anonymous(RamLayout::new(megabytes << 20)).expect("RAM");
        let mut pci = PciBus::new();
        pci.add(bdf(0, 0), i440fx());
        pci.add(bdf(1, 0), piix3_isa());
        pci.add(bdf(2, 0), stdvga(16 << 20, 0));
        firmware::prepare(&ram, &mut pci, machine, &boot).map(|prepared| (prepared, ram))
    };
    match load() {
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "one line: {error}");
        }
        Ok((prepared, ram)) => {
            let rsdp: [u8; 20] = ram.read_array(GuestPhys(acpi::RSDP)).expect("below 1 MiB");
            assert_eq!(&rsdp[..8], b"RSD PTR ");
            assert_eq!(rsdp.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)), 0);
            let base: [u8; 2] = ram.read_array(GuestPhys(0x413)).expect("below 1 MiB");
            assert!((500..=640).contains(&u16::from_le_bytes(base)), "base memory");
            let second = load().map(|(prepared, _)| prepared);
            assert_eq!(second, Ok(prepared));
        }
    }
}
