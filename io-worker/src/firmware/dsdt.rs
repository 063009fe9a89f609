//! The DSDT: the PCI root with its windows and interrupt routing, the link devices behind PIIX3 registers
//! 60h to 63h, the legacy devices, the processors and S5 (ACPI 6.4 §5.2.11.1).

use acpi_tables::aml::*;
use acpi_tables::{Aml, AmlSink};

use super::acpi::{self, Machine};
use super::e820;
use super::pci_setup::{IO_END, MEMORY_END, MEMORY_START, SCI, pirq_of};

/// Resource descriptors that the crate has no type for.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// IRQ descriptor for one edge-triggered ISA line (§6.4.2.1).
fn isa_irq(irq: u8) -> Raw {
    let mask = (1_u16 << irq).to_le_bytes();
    Raw(vec![0x22, mask[0], mask[1]])
}

/// Extended interrupt descriptor (§6.4.3.6): consumer, level, active high, shared.
fn pci_irqs(irqs: &[u32]) -> Raw {
    let mut d = vec![0x89];
    d.extend((2 + irqs.len() as u16 * 4).to_le_bytes());
    d.extend([0b1001, irqs.len() as u8]);
    d.extend(irqs.iter().flat_map(|irq| irq.to_le_bytes()));
    Raw(d)
}

/// Offset of the first interrupt number in [`pci_irqs`].
const IRQ_OFFSET: u8 = 5;

fn path(name: &str) -> Path {
    Path::new(name)
}

fn resources(name: &str, list: &[&dyn Aml]) -> Name {
    Name::new(path(name), &ResourceTemplate::new(list.to_vec()))
}

fn hid(id: &str) -> Name {
    Name::new(path("_HID"), &EISAName::new(id))
}

fn named(name: &str, value: &dyn Aml) -> Name {
    Name::new(path(name), value)
}

/// The whole table.
pub fn dsdt(machine: Machine) -> Vec<u8> {
    let mut body = Vec::new();
    let mut add = |aml: &dyn Aml| aml.to_aml_bytes(&mut body);
    pci_root(&mut add);
    isa(&mut add, machine);
    for (name, register, uid) in LINKS {
        link(&mut add, name, register, uid);
    }
    sci_link(&mut add);
    for id in 0..machine.cpus {
        let name = path(&format!("_SB_.CP{id:02X}"));
        add(&Device::new(
            name,
            vec![&named("_HID", &"ACPI0007"), &named("_UID", &id)],
        ));
    }
    // \_S5: the PIIX4 sleeps for good with SLP_TYP 0.
    add(&named("\\_S5_", &Package::new(vec![&0_u8, &0_u8, &0_u8, &0_u8])));
    acpi::table(*b"DSDT", 2, &body)
}

fn pci_root(add: &mut dyn FnMut(&dyn Aml)) {
    let routes: Vec<Vec<u8>> = (1..32_u8)
        .flat_map(|slot| (0..4).map(move |pin| route(slot, pin)))
        .collect();
    let mut package = vec![routes.len() as u8];
    package.extend(routes.concat());
    let prt = Raw(wrap(0x12, package)); // DefPackage
    add(&Device::new(
        path("_SB_.PCI0"),
        vec![
            &hid("PNP0A03"),
            &named("_UID", &0_u8),
            &resources(
                "_CRS",
                &[
                    &AddressSpace::<u16>::new_bus_number(0, 0xFF),
                    &IO::new(0xCF8, 0xCF8, 1, 8),
                    &AddressSpace::<u16>::new_io(0, 0xCF7, None),
                    &AddressSpace::<u16>::new_io(0xD00, (IO_END - 1) as u16, None),
                    &AddressSpace::<u32>::new_memory(
                        AddressSpaceCacheable::Cacheable,
                        true,
                        0xA_0000,
                        0xB_FFFF,
                        None,
                    ),
                    &AddressSpace::<u32>::new_memory(
                        AddressSpaceCacheable::NotCacheable,
                        true,
                        MEMORY_START as u32,
                        (MEMORY_END - 1) as u32,
                        None,
                    ),
                ],
            ),
            &named("_PRT", &prt),
        ],
    ));
}

/// One element of `_PRT` (§6.2.13): slot and any function, pin, link device, index 0.
fn route(slot: u8, pin: u8) -> Vec<u8> {
    // The power management function in slot 1 is wired to the SCI.
    let source = if slot == 1 && pin == 0 {
        "\\_SB_.LNKS"
    } else {
        LINKS[pirq_of(slot, pin)].0
    };
    let source = format!("\\{}", source.trim_start_matches('\\'));
    let address = u32::from(slot) << 16 | 0xFFFF;
    let mut out = Vec::new();
    Package::new(vec![&address, &pin, &path(&source), &0_u8]).to_aml_bytes(&mut out);
    out
}

/// An AML object of opcode, PkgLength and body (§20.2.4), for bodies that need two bytes of length.
fn wrap(opcode: u8, body: Vec<u8>) -> Vec<u8> {
    let len = body.len() + 2;
    assert!((64..1 << 12).contains(&len), "a PkgLength of two bytes");
    let mut out = vec![opcode, 0x40 | (len & 0xF) as u8, (len >> 4) as u8];
    out.extend(body);
    out
}

/// Link devices: name, field of the PIIX3 register, `_UID`.
const LINKS: [(&str, &str, u8); 4] = [
    ("_SB_.LNKA", "\\_SB_.PCI0.ISA_.PRQA", 1),
    ("_SB_.LNKB", "\\_SB_.PCI0.ISA_.PRQB", 2),
    ("_SB_.LNKC", "\\_SB_.PCI0.ISA_.PRQC", 3),
    ("_SB_.LNKD", "\\_SB_.PCI0.ISA_.PRQD", 4),
];

/// A PCI interrupt link (§6.2.13): bit 7 of its register is "not routed".
fn link(add: &mut dyn FnMut(&dyn Aml), name: &str, register: &str, uid: u8) {
    const OFF: u8 = 0x80;
    let register = path(register);
    let irq = path("IRQV");
    let buffer = path("BUF0");
    add(&Device::new(
        path(name),
        vec![
            &hid("PNP0C0F"),
            &named("_UID", &uid),
            &resources("_PRS", &[&pci_irqs(&[5, 10, 11])]),
            &Method::new(
                path("_STA"),
                0,
                false,
                vec![
                    &If::new(&And::new(&ZERO, &register, &OFF), vec![&Return::new(&9_u8)]),
                    &Return::new(&0x0B_u8),
                ],
            ),
            &Method::new(path("_DIS"), 0, false, vec![&Or::new(&register, &register, &OFF)]),
            &Method::new(
                path("_CRS"),
                0,
                true,
                vec![
                    &resources("BUF0", &[&pci_irqs(&[0])]),
                    &CreateDWordField::new(&irq, &buffer, &IRQ_OFFSET),
                    &If::new(
                        &LessThan::new(&register, &OFF),
                        vec![&Store::new(&irq, &register)],
                    ),
                    &Return::new(&buffer),
                ],
            ),
            &Method::new(
                path("_SRS"),
                1,
                true,
                vec![
                    &CreateDWordField::new(&irq, &Arg(0), &IRQ_OFFSET),
                    &Store::new(&register, &irq),
                ],
            ),
        ],
    ));
}

/// The link of what is wired to the SCI: it cannot be set or disabled.
fn sci_link(add: &mut dyn FnMut(&dyn Aml)) {
    add(&Device::new(
        path("_SB_.LNKS"),
        vec![
            &hid("PNP0C0F"),
            &named("_UID", &5_u8),
            &resources("_PRS", &[&pci_irqs(&[SCI.into()])]),
            &resources("_CRS", &[&pci_irqs(&[SCI.into()])]),
            &named("_STA", &0x0B_u8),
            &Method::new(path("_DIS"), 0, false, vec![]),
            &Method::new(path("_SRS"), 1, false, vec![]),
        ],
    ));
}

/// The ISA bridge, its routing registers, and what lies behind it.
fn isa(add: &mut dyn FnMut(&dyn Aml), machine: Machine) {
    let pirq = |name: &[u8; 4]| FieldEntry::Named(*name, 8);
    let mut list: Vec<Box<dyn Aml>> = vec![
        Box::new(named("_ADR", &0x0001_0000_u32)),
        Box::new(OpRegion::new(
            path("PIRQ"),
            OpRegionSpace::PCIConfig,
            &0x60_u8,
            &4_u8,
        )),
        Box::new(Field::new(
            path("PIRQ"),
            FieldAccessType::Byte,
            FieldLockRule::NoLock,
            FieldUpdateRule::Preserve,
            vec![pirq(b"PRQA"), pirq(b"PRQB"), pirq(b"PRQC"), pirq(b"PRQD")],
        )),
    ];
    let mut device = |name: &str, id: &str, resource: &[&dyn Aml], uid: Option<u8>| {
        let (hid, crs) = (hid(id), resources("_CRS", resource));
        let uid = uid.map(|n| named("_UID", &n));
        let mut parts: Vec<&dyn Aml> = vec![&hid];
        parts.extend(uid.as_ref().map(|u| u as &dyn Aml));
        parts.push(&crs);
        list.push(Box::new(Raw(acpi::bytes(&Device::new(path(name), parts)))));
    };
    let io = |port: u16, len: u8| IO::new(port, port, 1, len);
    device(
        "PIC_",
        "PNP0000",
        &[&io(0x20, 2), &io(0xA0, 2), &io(0x4D0, 2), &isa_irq(2)],
        None,
    );
    device("TMR_", "PNP0100", &[&io(0x40, 4), &isa_irq(0)], None);
    device("RTC_", "PNP0B00", &[&io(0x70, 2), &isa_irq(8)], None);
    device("FPU_", "PNP0C04", &[&io(0xF0, 16), &isa_irq(13)], None);
    device(
        "DMA_",
        "PNP0200",
        &[
            &io(0, 16),
            &io(0x81, 15),
            &io(0xC0, 32),
            &Raw(vec![0x2A, 0x10, 0x05]),
        ],
        None,
    );
    let hpet = Memory32Fixed::new(false, e820::HPET as u32, 0x400);
    device("HPET", "PNP0103", &[&hpet], Some(0));
    if machine.ps2 {
        device(
            "KBD_",
            "PNP0303",
            &[&io(0x60, 1), &io(0x64, 1), &isa_irq(1)],
            None,
        );
        device("MOU_", "PNP0F13", &[&isa_irq(12)], None);
    }
    for (i, &port) in machine.com.iter().enumerate().filter(|(_, port)| **port != 0) {
        let irq = if i % 2 == 0 { 4 } else { 3 };
        device(
            &format!("COM{}", i + 1),
            "PNP0501",
            &[&io(port, 8), &isa_irq(irq)],
            Some(i as u8 + 1),
        );
    }
    if machine.fw_cfg {
        let parts = [
            named("_HID", &"QEMU0002"),
            named("_STA", &0x0B_u8),
            resources("_CRS", &[&io(0x510, 12)]),
        ];
        let parts: Vec<&dyn Aml> = parts.iter().map(|p| p as &dyn Aml).collect();
        list.push(Box::new(Raw(acpi::bytes(&Device::new(path("FWCF"), parts)))));
    }
    let list: Vec<&dyn Aml> = list.iter().map(|a| &**a as &dyn Aml).collect();
    add(&Device::new(path("_SB_.PCI0.ISA_"), list));
}
