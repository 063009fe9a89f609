//! The machine as the configuration and the payloads describe it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use quintet_protocol::handshake::config::{BootDevice, DiskKind, DiskPlace, IoConfig};
use quintet_protocol::handshake::{WorkerContext, WorkerError};
use quintet_protocol::layout::Ends;
use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::shm::ViewMut;

use super::boot::firmware_machine;
use super::disks::Storage;
use crate::bus::{StreamIn, StreamOut};
use crate::firmware::offer;
use crate::fw_cfg::{FwCfg, ItemError, KEY_CPUS, KEY_MAX_CPUS, KEY_RAM_SIZE};
use crate::machine::{Machine, MachineConfig};
use crate::processes::{self, Processes};
use crate::rom::{self, Roms};
use crate::storage::pflash::Pflash;

/// Linear frame buffer of the VGA, in bytes.
const VRAM_BYTES: u32 = 16 << 20;
/// Vendor and device of the VGA.
const VGA_ID: (u16, u16) = (0x1234, 0x1111);

/// The bytes of the payload of a kind.
fn bytes_of<'a>(payloads: &'a [Payload], kind: &PayloadKind) -> Option<&'a [u8]> {
    payloads.iter().find(|p| p.kind() == kind).map(Payload::bytes)
}

/// Whether something is there from which the processor starts.
pub(super) fn has_firmware(config: &IoConfig, payloads: &[Payload]) -> bool {
    bytes_of(payloads, &PayloadKind::Firmware).is_some()
        || config.disks.iter().any(|disk| disk.kind == DiskKind::Flash)
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
    let mut roms = Roms::load(&ends.rom_mut(), firmware, behind).map_err(|e| refuse(&e))?;
    let flash = flash(&mut roms, &ends.rom_mut(), storage.flash)?;
    let debugcon = config
        .debugcon
        .iter()
        .map(|d| (d.port, StreamOut(d.stream.min(254) as u8)))
        .collect();
    let machine = MachineConfig {
        exit_port: config.exit_port,
        debugcon,
        testdev: config.testdev,
        ac97: config.ac97,
        vram: VRAM_BYTES,
        com: [(StreamOut(0), StreamIn(0)), (StreamOut(1), StreamIn(1))],
        fw_cfg: fw_cfg(config, context, file).map_err(|e| refuse(&e))?,
        roms,
        disks: storage.disks,
        floppy: storage.floppy,
        flash,
        drives: storage.ide,
        virtio: storage.virtio,
    };
    let mut machine = Machine::new(machine, context.ram.clone()).map_err(|e| refuse(&e))?;
    let processes = Processes::new(&context.maps);
    machine
        .attach(processes, &[processes::PORTS])
        .map_err(|e| refuse(&e))?;
    machine.dma().watch_code(ends.code_map_reader());
    Ok(machine)
}

/// Names of flash chips.
const FLASH: [&str; 4] = ["pflash0", "pflash1", "pflash2", "pflash3"];

/// Flash chips whose contents are those of the files, each below the one before it, and where they begin.
///
/// # Errors
/// [`WorkerError::Config`] for one that finds no room, [`WorkerError::Failed`] for one that cannot be read.
fn flash(
    roms: &mut Roms,
    window: &ViewMut,
    files: Vec<(File, bool)>,
) -> Result<Vec<(Pflash, u64)>, WorkerError> {
    let failed = |e: std::io::Error| WorkerError::Failed(format!("A flash image cannot be read: {e}"));
    let mut chips = Vec::new();
    for ((file, writable), name) in files.into_iter().zip(FLASH) {
        // A block device has its length at its end.
        let len = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|e| failed(e.into()))?;
        let place = roms
            .add_flash(len)
            .map_err(|e| WorkerError::Config(e.to_string()))?;
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        window.write_bytes(place.at as usize, &bytes);
        let array = window.slice(place.at as usize, bytes.len());
        chips.push((
            Pflash::new(name, array, place.at, writable.then_some(file)),
            place.start,
        ));
    }
    Ok(chips)
}

/// The items of fw_cfg. `vga` is a VGA BIOS that no PCI function shows.
fn fw_cfg(config: &IoConfig, context: &WorkerContext, vga: Option<&[u8]>) -> Result<FwCfg, ItemError> {
    let mut fw_cfg = FwCfg::new();
    let layout = context.ram.layout();
    let cpus = (config.vcpus.clamp(1, 0xFFFF) as u16).to_le_bytes().to_vec();
    fw_cfg.add_item(KEY_CPUS, cpus.clone())?;
    fw_cfg.add_item(KEY_MAX_CPUS, cpus)?;
    fw_cfg.add_item(KEY_RAM_SIZE, layout.total().to_le_bytes().to_vec())?;
    if has_firmware(config, &context.payloads) {
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
        // IDE units first, by their numbers.
        let mut places: Vec<(u8, u8, String)> = (config.disks.iter())
            .filter(|disk| disk.kind == kind)
            .filter_map(|disk| match disk.place {
                DiskPlace::Ide { unit } => Some((0, unit, offer::ide_path(unit))),
                DiskPlace::Virtio { unit } => Some((1, unit, offer::virtio_path(unit))),
                DiskPlace::Floppy | DiskPlace::Flash => None,
            })
            .collect();
        places.sort_unstable();
        places.into_iter().map(|(_, _, path)| path)
    };
    config
        .boot
        .iter()
        .flat_map(|device| match device {
            BootDevice::Floppy => {
                let floppies = config.disks.iter().filter(|d| d.kind == DiskKind::Floppy);
                floppies.map(|_| offer::FLOPPY_PATH.to_owned()).collect()
            }
            BootDevice::HardDisk => disks(DiskKind::HardDisk).collect(),
            BootDevice::Cdrom => disks(DiskKind::Cdrom).collect::<Vec<_>>(),
        })
        .collect()
}
