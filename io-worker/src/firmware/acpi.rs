//! The static ACPI tables: RSDP, RSDT, XSDT, FADT, FACS, MADT and HPET (ACPI 6.4 §5.2); the DSDT is in
//! [`super::dsdt`].
//!
//! Headers, FADT and AML come from the `acpi_tables` crate. It has neither an RSDT nor the 32-bit address in
//! the RSDP, which older systems need, nor the MADT's overrides; those are written out here.

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;
use quintet_protocol::ram::GuestRam;

use super::e820;
use super::link::{Linked, Piece};
use super::payload::LoadError;
use super::pci_setup::{PIRQ_IRQS, PM_BASE, SCI};

/// Where the RSDP lies: in the BIOS segment, on a paragraph.
pub const RSDP: u64 = 0xF_0000;
/// OEM ID of every table.
pub const OEM_ID: [u8; 6] = *b"QUINTT";
/// OEM table ID of every table.
pub const OEM_TABLE_ID: [u8; 8] = *b"QUINTET ";
/// OEM revision of every table.
pub const OEM_REVISION: u32 = 1;
/// Command port of system management, to which the ACPI enable value is written.
pub const SMI_CMD: u16 = 0xB2;
/// Value that turns ACPI mode on.
pub const ACPI_ENABLE: u8 = 0xF1;
/// Value that turns ACPI mode off.
pub const ACPI_DISABLE: u8 = 0xF0;
/// Low half of the HPET's capabilities: revision 1, three 64-bit comparators, legacy replacement, Intel.
pub const HPET_ID: u32 = 0x8086_A201;
/// Reset control register, and the value that resets through it.
pub const RESET: (u16, u8) = (0xCF9, 0x06);
/// CMOS register of the century.
const CENTURY: u8 = 0x32;
/// General purpose events 0: two bytes of status, two of enables. Where QEMU's pc machine has them, and not
/// behind the PM timer as on a PIIX4, whose events are others.
pub const GPE0: u16 = 0xAFE0;

/// What of the machine the tables tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors, numbered from local APIC ID 0.
    pub cpus: u8,
    /// I/O ports of the serial ports, zero for none.
    pub com: [u16; 4],
    /// Whether there is a PS/2 controller.
    pub ps2: bool,
    /// Whether there is a fw_cfg device at 510h.
    pub fw_cfg: bool,
}

/// Bytes of anything that the crate renders.
pub(super) fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut out = Vec::new();
    aml.to_aml_bytes(&mut out);
    out
}

pub(super) fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut sdt = Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    sdt.append_slice(body);
    sdt.as_slice().to_vec()
}

/// All tables, their addresses open.
pub fn linked(machine: Machine) -> Linked {
    use Piece::{Facs, Rsdp, Tables};
    let mut l = Linked::default();
    let facs = l.add(Facs, &bytes(&FACS::new()));
    let dsdt = l.add_table(&super::dsdt::dsdt(machine));
    let fadt = l.add_table(&fadt());
    // FIRMWARE_CTRL, DSDT and X_DSDT.
    l.point(Tables, fadt + 36, 4, Facs, facs);
    l.point(Tables, fadt + 40, 4, Tables, dsdt);
    l.point(Tables, fadt + 140, 8, Tables, dsdt);
    let listed = [fadt, l.add_table(&madt(machine.cpus)), l.add_table(&hpet())];
    let mut list = |signature, size: u8| {
        let at = l.add_table(&table(signature, 1, &vec![0; listed.len() * usize::from(size)]));
        for (n, to) in (0..).zip(listed) {
            l.point(Tables, at + 36 + n * u32::from(size), size, Tables, to);
        }
        at
    };
    let (rsdt, xsdt) = (list(*b"RSDT", 4), list(*b"XSDT", 8));
    let root = l.add(Rsdp, &rsdp());
    l.point(Rsdp, root + 16, 4, Tables, rsdt);
    l.point(Rsdp, root + 24, 8, Tables, xsdt);
    l.sum(Rsdp, root + 8, root, 20);
    l.sum(Rsdp, root + 32, root, 36);
    l
}

/// Writes all tables.
///
/// # Errors
/// [`LoadError::Ram`] when there is no RAM where the memory map says they lie.
pub fn write(ram: &GuestRam, machine: Machine) -> Result<(), LoadError> {
    let area = e820::acpi_tables(ram.layout());
    let linked = linked(machine);
    let len = linked.len_of(Piece::Tables);
    if len > area.end - area.start {
        return Err(LoadError::NoRoom {
            what: "The ACPI tables",
            len,
            ram_mib: 0,
        });
    }
    linked.place(ram, |piece| match piece {
        Piece::Tables => area.start,
        Piece::Facs => e820::acpi_nvs(ram.layout()).start,
        Piece::Rsdp => RSDP,
    })?;
    Ok(())
}

/// Root system description pointer, revision 2 (§5.2.5.3), without addresses and sums.
fn rsdp() -> [u8; 36] {
    let mut p = [0; 36];
    p[..8].copy_from_slice(b"RSD PTR ");
    p[9..15].copy_from_slice(&OEM_ID);
    p[15] = 2;
    p[20] = 36;
    p
}

/// Fixed ACPI description table (§5.2.9) of the PIIX4, without the addresses of others.
fn fadt() -> Vec<u8> {
    let port = |bits: u8, port: u16| {
        let size = match bits {
            8 => AccessSize::ByteAccess,
            16 => AccessSize::WordAccess,
            _ => AccessSize::DwordAccess,
        };
        GAS::new(AddressSpace::SystemIo, bits, 0, size, u64::from(port))
    };
    let mut f = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .gpe_info(u32::from(GPE0), 0, 4, 0, 0)
        .preferred_pm_profile(PmProfile::Desktop)
        // A fixed power button; no sleep button; C1 works; RTC wakes are not in the fixed space.
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    f.fadt_minor_version = 3;
    f.sci_int = u16::from(SCI).into();
    f.smi_cmd = u32::from(SMI_CMD).into();
    f.acpi_enable = ACPI_ENABLE;
    f.acpi_disable = ACPI_DISABLE;
    f.pm1a_evt_blk = u32::from(PM_BASE).into();
    f.pm1a_cnt_blk = u32::from(PM_BASE + 4).into();
    f.pm_tmr_blk = u32::from(PM_BASE + 8).into();
    (f.pm1_evt_len, f.pm1_cnt_len, f.pm_tmr_len) = (4, 2, 4);
    f.x_pm1a_evt_blk = port(32, PM_BASE);
    f.x_pm1a_cnt_blk = port(16, PM_BASE + 4);
    f.x_pm_tmr_blk = port(32, PM_BASE + 8);
    f.x_gpe0_blk = port(32, GPE0);
    f.p_lvl2_lat = 0xFFFF.into(); // no C2, no C3
    f.p_lvl3_lat = 0xFFFF.into();
    f.century = CENTURY;
    f.iapc_boot_arch = 0b11.into(); // legacy devices, 8042
    f.reset_reg = port(8, RESET.0);
    f.reset_value = RESET.1;
    bytes(&f.finalize())
}

/// Multiple APIC description table (§5.2.12).
fn madt(cpus: u8) -> Vec<u8> {
    const PCAT_COMPAT: u32 = 1;
    /// Active high, level-triggered: what the PIIX3 drives.
    const LEVEL: u16 = 0x000D;
    let mut m = Vec::new();
    m.extend((e820::LOCAL_APIC as u32).to_le_bytes());
    m.extend(PCAT_COMPAT.to_le_bytes());
    for id in 0..cpus {
        m.extend([0, 8, id, id, 1, 0, 0, 0]);
    }
    m.extend([1, 12, 0, 0]);
    m.extend((e820::IO_APIC as u32).to_le_bytes());
    m.extend([0; 4]);
    let mut levels = PIRQ_IRQS.to_vec();
    levels.extend([5, SCI]);
    levels.sort_unstable();
    levels.dedup();
    let overrides = [(0_u8, 2_u8, 0_u16)]
        .into_iter()
        .chain(levels.into_iter().map(|irq| (irq, irq, LEVEL)));
    for (irq, gsi, flags) in overrides {
        let f = flags.to_le_bytes();
        m.extend([2, 10, 0, irq, gsi, 0, 0, 0, f[0], f[1]]);
    }
    m.extend([4, 6, 0xFF, 0, 0, 1]); // NMI on LINT1 of every processor
    table(*b"APIC", 3, &m)
}

/// IA-PC HPET table (HPET specification 1.0a §3.2.4).
fn hpet() -> Vec<u8> {
    let mut h = Vec::new();
    h.extend(HPET_ID.to_le_bytes());
    h.extend([0, 64, 0, 0]); // memory, 64 bits
    h.extend(e820::HPET.to_le_bytes());
    h.push(0); // number
    h.extend(100_u16.to_le_bytes()); // shortest periodic tick in counts
    h.push(0);
    table(*b"HPET", 1, &h)
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
