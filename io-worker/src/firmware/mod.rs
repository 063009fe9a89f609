//! What firmware and a boot loader would do: `--kernel` starts without either.
//!
//! Everything here reads files nobody vouches for (the process is confined, and refusals are typed and name
//! what is wrong) and writes guest RAM and PCI configuration only. Running a BIOS image instead was not
//! rejected but is another way to boot (`--firmware`); this one starts in milliseconds and needs no image.
//!
//! [`prepare`] leaves the machine as firmware does: memory map, BIOS data area, ACPI and MP tables, BARs and
//! interrupt routing. It is repeated after every reset of the guest, over RAM that has kept its contents.
//! The registers of the core complex (PICs, PIT, local APIC, MTRRs, VGA mode 3) are the vCPU's to set.

pub mod acpi;
pub mod bda;
pub mod bzimage;
pub mod dsdt;
pub mod e820;
pub mod elf;
pub mod link;
pub mod mptable;
pub mod multiboot;
pub mod offer;
mod payload;
pub mod pci_setup;
mod place;
pub mod pvh;
pub mod smbios;
mod state;

pub use payload::{LoadError, Loader, Module, Source};
pub use pci_setup::PciConfig;
pub use place::Places;

use quintet_protocol::boot_state::BootState;
use quintet_protocol::ram::GuestRam;

/// What of the machine's configuration firmware has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors, 1 to 64.
    pub cpus: u8,
    /// Whether they have long mode; without it a 64-bit Linux is entered at its 32-bit entry and says so.
    pub long_mode: bool,
    /// CPUID leaf 1, EAX (signature) and EDX (features), for the MP table.
    pub cpuid_1: (u32, u32),
    /// I/O ports of COM1 to COM4, zero for none.
    pub com: [u16; 4],
    /// Whether there is a PS/2 controller.
    pub ps2: bool,
    /// Whether there is a fw_cfg device.
    pub fw_cfg: bool,
    /// Hard disks.
    pub disks: u8,
}

impl Machine {
    /// What of it the ACPI tables tell.
    fn acpi(self) -> acpi::Machine {
        acpi::Machine {
            cpus: self.cpus,
            com: self.com,
            ps2: self.ps2,
            fw_cfg: self.fw_cfg,
        }
    }
}

/// The files and words to boot with.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// The kernel; its command line is the file's name.
    pub kernel: Module<'a>,
    /// Initrds or modules, each "F ARGS".
    pub modules: &'a [Module<'a>],
    /// The kernel's command line.
    pub append: &'a str,
}

/// Which file a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct BootError {
    /// Name of the file, as the user gave it.
    pub file: String,
    /// What is wrong with it.
    pub reason: LoadError,
}

/// What firmware leaves behind besides guest RAM and PCI configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Registers of the bootstrap processor; `generation` is for the publisher to set.
    pub state: BootState,
    /// Edge/level control registers 4D0h (low byte) and 4D1h, for the core complex.
    pub elcr: u16,
}

/// A kernel whose format is known.
enum Kernel {
    BzImage,
    Multiboot(multiboot::Header),
    Pvh(elf::Elf, u64),
}

fn recognise(source: &dyn Source) -> Result<Kernel, LoadError> {
    if source.is_empty() {
        return Err(LoadError::Empty);
    }
    if bzimage::is_bzimage(source) {
        return Ok(Kernel::BzImage);
    }
    if let Some(header) = multiboot::find(source) {
        return Ok(Kernel::Multiboot(header));
    }
    if let Some((elf, entry)) = pvh::entry(source)? {
        return Ok(Kernel::Pvh(elf, entry));
    }
    let head = payload::head(source, 8);
    for (magic, what) in [
        (&[0x1F, 0x8B][..], "gzip"),
        (&[0xFD, b'7', b'z', b'X', b'Z'], "xz"),
        (&[0x28, 0xB5, 0x2F, 0xFD], "zstd"),
        (b"BZh", "bzip2"),
    ] {
        if head.starts_with(magic) {
            return Err(LoadError::Compressed(what));
        }
    }
    let hex: Vec<String> = head.iter().map(|b| format!("{b:02x}")).collect();
    Err(LoadError::NotAKernel(hex.join(" ")))
}

/// Puts the kernel into RAM and the machine into the state in which firmware hands over.
///
/// # Errors
/// [`BootError`], of which the user's files or the size of RAM are the cause. RAM may have been written by
/// then; the machine must not be started.
pub fn prepare(
    ram: &GuestRam,
    pci: &mut dyn PciConfig,
    machine: Machine,
    boot: &Boot<'_>,
) -> Result<Prepared, BootError> {
    let file_of = |module: &Module<'_>| {
        module
            .command_line
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let about = |reason: LoadError, module: &Module<'_>| BootError {
        file: file_of(module),
        reason,
    };
    place_all(ram, pci, machine, boot).map_err(|reason| match &reason {
        LoadError::NoRoom {
            what: "The initrd" | "A module",
            ..
        } => boot.modules.iter().max_by_key(|m| m.data.len()).map_or_else(
            || about(reason.clone(), &boot.kernel),
            |m| about(reason.clone(), m),
        ),
        _ => match boot.modules.iter().find(|m| m.data.is_empty()) {
            Some(module) if !boot.kernel.data.is_empty() && reason == LoadError::Empty => {
                about(reason, module)
            }
            _ => about(reason, &boot.kernel),
        },
    })
}

fn place_all(
    ram: &GuestRam,
    pci: &mut dyn PciConfig,
    machine: Machine,
    boot: &Boot<'_>,
) -> Result<Prepared, LoadError> {
    if ram.layout().low() < e820::LEAST_RAM {
        return Err(LoadError::TooLittleRam(ram.layout().low() >> 10));
    }
    if boot.append.contains('\0') || boot.modules.iter().any(|m| m.command_line.contains('\0')) {
        return Err(LoadError::Nul);
    }
    let map = e820::map(ram.layout());
    let usable = map
        .iter()
        .filter(|e| e.kind == e820::Kind::Usable)
        .map(e820::Entry::range);
    // The first page is the BIOS's.
    let mut loader = Loader::new(ram, Places::new(usable.map(|r| r.start.max(0x1000)..r.end)));
    let mut state = match recognise(boot.kernel.data)? {
        Kernel::BzImage => {
            let around = bzimage::Surroundings {
                e820: &map,
                rsdp: acpi::RSDP,
                long_mode: machine.long_mode,
            };
            bzimage::load(&mut loader, boot.kernel.data, boot.modules, boot.append, around)?
        }
        Kernel::Multiboot(header) => {
            // By convention the first word is the kernel's own name.
            let line = [boot.kernel.command_line, boot.append].join(" ");
            let kernel = Module {
                data: boot.kernel.data,
                command_line: line.trim_end(),
            };
            multiboot::load(&mut loader, header, kernel, boot.modules, &map)?
        }
        Kernel::Pvh(elf, entry) => pvh::load(
            &mut loader,
            (elf, entry),
            boot.kernel.data,
            boot.modules,
            boot.append,
            &map,
            acpi::RSDP,
        )?,
    };
    bda::write(
        ram,
        bda::Ports {
            com: machine.com,
            disks: machine.disks,
        },
    )?;
    acpi::write(ram, machine.acpi())?;
    mptable::write(ram, machine.cpus, machine.cpuid_1.0, machine.cpuid_1.1)?;
    state::write_tables(ram, state.mode)?;
    state.low_ram = ram.layout().low();
    state.high_ram = ram.layout().high();
    Ok(Prepared {
        state,
        elcr: pci_setup::set_up(pci)?,
    })
}

#[cfg(test)]
mod tests;
