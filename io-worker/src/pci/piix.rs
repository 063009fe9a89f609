//! The 82371SB (PIIX3) ISA bridge and the 82371AB (PIIX4) power-management function (Intel 290550, 290562).
//!
//! The edge/level registers 4D0h and 4D1h that belong to the ISA bridge are beside the PICs, with the vCPU.
//! The power-management block itself is there too; this function says where it is decoded.

use super::bar::{BarKind, BarSpec};
use super::bus::{Bdf, PciWindow, WindowKind, WindowTarget, bdf};
use super::config::{ConfigSpace, FunctionSpec};
use crate::bus::Line;
use crate::storage::ide;

/// Place of the IDE function.
pub const PIIX_IDE_SLOT: Bdf = bdf(1, 1);
/// Place of the power-management function.
pub const PIIX_PM_SLOT: Bdf = bdf(1, 3);

const PM_DEVICE_ID: u16 = 0x7113;
/// PMBASE: where the power-management ports lie, bits 15–6.
const PMBASE: u8 = 0x40;
/// PMREGMISC: bit 0 enables them.
const PMREGMISC: u8 = 0x80;
/// Bits 31–24 of DEVACTB.
const DEVACTB_APMC: u8 = 0x5B;
/// Number of power-management ports.
pub const PM_PORTS: u64 = 64;

/// The ISA bridge at 00:01.0, with the reset values of its data sheet's section 2.1.
pub fn piix3_isa() -> FunctionSpec {
    let mut registers = vec![
        (0x4C, 0x4D, 0xFF),
        (0x4E, 0x03, 0xFF),
        (0x4F, 0x00, 0x03),
        (0x69, 0x02, 0xFE),
        (0x6A, 0x00, 0xFF),
        (0x70, 0x80, 0xEF),
        (0x71, 0x80, 0xEF),
        (0x76, 0x0C, 0x8F),
        (0x77, 0x0C, 0x8F),
        (0x78, 0x02, 0xFF),
        (0x79, 0x00, 0xFF),
        (0x80, 0x00, 0x7F),
        (0x82, 0x00, 0x0F),
        (0xA0, 0x08, 0xFF),
        (0xA8, 0x0F, 0xFF),
    ];
    registers.extend((0x60..=0x63).map(|at| (at, 0x80, 0x8F)));
    registers.extend([0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAE].map(|at| (at, 0, 0xFF)));
    FunctionSpec {
        name: "piix3",
        vendor: 0x8086,
        device: 0x7000,
        revision: 0,
        class: 0x06_0100,
        multifunction: true,
        pin: 0,
        status: 0x0200,
        command: 0x0007,
        command_mask: 0x0108,
        bars: Vec::new(),
        registers,
    }
}

/// The IDE function at 00:01.1, which drives as fast as multi-word DMA goes. Its channels answer at their legacy ports
/// whatever the decode bits of 40h–43h say, as QEMU's do; `device` answers at BAR 4.
pub fn piix3_ide(device: u16) -> FunctionSpec {
    FunctionSpec {
        name: "piix3-ide",
        vendor: 0x8086,
        device: 0x7010,
        revision: 0,
        // Both channels in compatibility mode, for good; bus master.
        class: 0x01_0180,
        multifunction: false,
        pin: 0,
        status: 0x0280,
        command: 0x0000,
        command_mask: 0x0005,
        bars: vec![BarSpec {
            register: 0x20,
            kind: BarKind::Io,
            len: ide::BUS_MASTER_PORTS,
            target: WindowTarget::Device {
                device,
                region: ide::BUS_MASTER,
            },
        }],
        // IDETIM of both channels, SIDETIM.
        registers: (0x40..=0x44).map(|at| (at, 0x00, 0xFF)).collect(),
    }
}

/// The power-management function at 00:01.3.
pub fn piix4_pm() -> FunctionSpec {
    let mut registers = vec![
        (PMBASE, 0x01, 0xC0),
        (PMBASE + 1, 0x00, 0xFF),
        (PMREGMISC, 0x00, 0x01),
    ];
    // CNTA, CNTB, GPICTL, DEVRESD, DEVACTA, DEVACTB, DEVRESA–J (3.1, power management).
    registers.extend((0x44..=0x7F).map(|at| (at, 0x00, 0xFF)));
    // DEVACTB: bit 25 (APMC_EN) says to firmware that system management mode is set up. There is none, so there is
    // nothing for it to set up; QEMU without one does the same.
    registers.retain(|&(at, ..)| at != DEVACTB_APMC);
    registers.push((DEVACTB_APMC, 0x02, 0xFF));
    // SMBus base and configuration; there is no SMBus host behind them, as the interface stays disabled.
    registers.extend([(0x90, 0x01, 0xF0), (0x91, 0x00, 0xFF), (0xD2, 0x00, 0x0E)]);
    FunctionSpec {
        name: "piix4-pm",
        vendor: 0x8086,
        device: PM_DEVICE_ID,
        revision: 3,
        class: 0x06_8000,
        multifunction: false,
        pin: 1,
        status: 0x0280,
        command: 0x0000,
        command_mask: 0x0101,
        bars: Vec::new(),
        registers,
    }
}

/// Where the power-management ports are decoded, when `function` is the one and they are enabled.
pub(super) fn pm_window(function: &ConfigSpace) -> Option<PciWindow> {
    if function.spec().device != PM_DEVICE_ID || function.byte(PMREGMISC) & 1 == 0 {
        return None;
    }
    let start = u64::from(function.word(PMBASE) & 0xFFC0);
    (start != 0).then_some(PciWindow {
        kind: WindowKind::Port,
        start,
        len: PM_PORTS,
        target: WindowTarget::PowerManagement,
    })
}

/// Lines that a PCI interrupt can be routed to (PIRQRC, 2.1.10 of the PIIX3's data sheet).
const ROUTABLE: u16 = 0b1101_1110_1111_1000;

pub(super) fn routing(function: &ConfigSpace) -> [Option<Line>; 4] {
    [0x60, 0x61, 0x62, 0x63].map(|at| {
        let value = function.byte(at);
        let line = value & 0x0F;
        (value & 0x80 == 0 && ROUTABLE >> line & 1 != 0).then_some(Line(line))
    })
}

/// Which PCI line (0 = A) pin `pin` (1 = INTA#) of slot `device` is wired to on this board.
pub const fn pirq_of(device: u8, pin: u8) -> u8 {
    (pin.wrapping_sub(1)).wrapping_add(device.wrapping_sub(1)) & 3
}
