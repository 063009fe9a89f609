//! The machine as the configuration and the payloads describe it.

use quintet_protocol::handshake::config::{BootDevice, DiskKind, DiskPlace, IoConfig};
use quintet_protocol::handshake::{WorkerContext, WorkerError};
use quintet_protocol::layout::Ends;
use quintet_protocol::payload::{Payload, PayloadKind};

use super::boot::firmware_machine;
use super::disks::Storage;
use crate::bus::{StreamIn, StreamOut};
use crate::firmware::offer;
use crate::fw_cfg::{FwCfg, ItemError, KEY_CPUS, KEY_MAX_CPUS, KEY_RAM_SIZE};
use crate::machine::{Machine, MachineConfig};
use crate::rom::{self, Roms};

/// Linear frame buffer of the VGA, in bytes.
const VRAM_BYTES: u32 = 16 << 20;
/// Vendor and device of the VGA.
const VGA_ID: (u16, u16) = (0x1234, 0x1111);

/// The bytes of the payload of a kind.
fn bytes_of<'a>(payloads: &'a [Payload], kind: &PayloadKind) -> Option<&'a [u8]> {
    payloads.iter().find(|p| p.kind() == kind).map(Payload::bytes)
}

/// The machine of `config`, with firmware and VGA BIOS in their window.
///
/// # Errors
/// [`WorkerError::Config`] for what cannot be built.
pub(super) fn build(
    config: &IoConfig,
    context: &WorkerContext,
    ends: &Ends,
    storage: Storage,
) -> Result<Machine, WorkerError> {
    let refuse = |error: &dyn std::error::Error| WorkerError::Config(error.to_string());
    let vga = bytes_of(&context.payloads, &PayloadKind::VgaRom);
    // Firmware looks behind a ROM register for what is made for that function only.
    let (behind, file) = match vga {
        Some(bytes) if rom::made_for(bytes) == Some(VGA_ID) => (vga, None),
        _ => (None, vga),
    };
    let firmware = bytes_of(&context.payloads, &PayloadKind::Firmware);
    let roms = Roms::load(&ends.rom_mut(), firmware, behind).map_err(|e| refuse(&e))?;
    let debugcon = config
        .debugcon
        .iter()
        .map(|d| (d.port, StreamOut(d.stream.min(254) as u8)))
        .collect();
    let machine = MachineConfig {
        exit_port: config.exit_port,
        debugcon,
        testdev: config.testdev,
        vram: VRAM_BYTES,
        com: [(StreamOut(0), StreamIn(0)), (StreamOut(1), StreamIn(1))],
        fw_cfg: fw_cfg(config, context, file).map_err(|e| refuse(&e))?,
        roms,
        disks: storage.disks,
        drives: storage.ide,
    };
    let mut machine = Machine::new(machine, context.ram.clone()).map_err(|e| refuse(&e))?;
    machine.dma().watch_code(ends.code_map_reader());
    Ok(machine)
}

/// The items of fw_cfg. `vga` is a VGA BIOS that no PCI function shows.
fn fw_cfg(config: &IoConfig, context: &WorkerContext, vga: Option<&[u8]>) -> Result<FwCfg, ItemError> {
    let mut fw_cfg = FwCfg::new();
    let layout = context.ram.layout();
    let cpus = (config.vcpus.clamp(1, 0xFFFF) as u16).to_le_bytes().to_vec();
    fw_cfg.add_item(KEY_CPUS, cpus.clone())?;
    fw_cfg.add_item(KEY_MAX_CPUS, cpus)?;
    fw_cfg.add_item(KEY_RAM_SIZE, layout.total().to_le_bytes().to_vec())?;
    if bytes_of(&context.payloads, &PayloadKind::Firmware).is_some() {
        offer::offer(&mut fw_cfg, firmware_machine(config), layout, &boot_order(config))?;
    }
    if let Some(bytes) = vga {
        fw_cfg.add_file("vgaroms/vga.rom", bytes.to_vec())?;
    }
    Ok(fw_cfg)
}

/// Open Firmware's paths of what firmware is to boot from, the first first.
fn boot_order(config: &IoConfig) -> Vec<String> {
    let disks = |kind: DiskKind| {
        let mut units: Vec<u8> = (config.disks.iter())
            .filter(|disk| disk.kind == kind)
            .map(|disk| match disk.place {
                DiskPlace::Ide { unit } => unit,
            })
            .collect();
        units.sort_unstable();
        units.into_iter().map(offer::ide_path)
    };
    config
        .boot
        .iter()
        .flat_map(|device| match device {
            BootDevice::Floppy => Vec::new(),
            BootDevice::HardDisk => disks(DiskKind::HardDisk).collect(),
            BootDevice::Cdrom => disks(DiskKind::Cdrom).collect::<Vec<_>>(),
        })
        .collect()
}
