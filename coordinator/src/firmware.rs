//! Firmware: the built-in BIOS, or the files that the user names, judged by their length only; and what the CMOS tells it.

use std::path::{Path, PathBuf};

use quintet_io_worker::rom::{FIRMWARE_LEN, FIRMWARE_UNIT, VGA_ROM_MOST};
use quintet_io_worker::storage::diskette::Geometry;
use quintet_protocol::handshake::config::{BootDevice, DiskConfig, DiskKind, DiskPlace};
use quintet_protocol::payload::{Outgoing, PayloadKind};

use crate::cli::Boot;
use crate::config::{UsageError, outgoing, read_file};
use crate::units::show_size;

/// What the processor finds at the reset vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// The BIOS of this project, with its VGA BIOS.
    BuiltIn,
    /// An image that the user named.
    File(PathBuf),
}

/// Reads the firmware image and the VGA's BIOS, sealed for transport.
///
/// # Errors
/// [`UsageError`], one sentence that names the file.
pub fn payloads(firmware: Option<&Firmware>, vga_rom: Option<&Path>) -> Result<Vec<Outgoing>, UsageError> {
    let mut payloads = Vec::new();
    if let Some(Firmware::BuiltIn) = firmware {
        let name = Path::new("the built-in BIOS");
        payloads.push(outgoing(PayloadKind::Firmware, quintet_firmware::BIOS, name)?);
    }
    if let Some(Firmware::File(path)) = firmware {
        let wrong = |len: u64| {
            format!(
                "The firmware \"{}\" has {len} bytes; a multiple of {} up to {} is needed",
                path.display(),
                show_size(FIRMWARE_UNIT),
                show_size(*FIRMWARE_LEN.end())
            )
        };
        let bytes = read_file("firmware", path, *FIRMWARE_LEN.end(), wrong)?;
        let len = bytes.len() as u64;
        if !len.is_multiple_of(FIRMWARE_UNIT) {
            return Err(UsageError(wrong(len)));
        }
        payloads.push(outgoing(PayloadKind::Firmware, &bytes, path)?);
    }
    if let Some(path) = vga_rom {
        let bytes = read_file("VGA BIOS", path, VGA_ROM_MOST, |len| {
            format!(
                "The VGA BIOS \"{}\" has {len} bytes, {} are the most",
                path.display(),
                show_size(VGA_ROM_MOST)
            )
        })?;
        payloads.push(outgoing(PayloadKind::VgaRom, &bytes, path)?);
    }
    Ok(payloads)
}

/// What firmware tries to boot from: `first`, then the others in the order of QEMU, hard disk, floppy, CD-ROM.
///
/// # Errors
/// [`UsageError`] for the network.
pub fn boot_order(first: Option<Boot>) -> Result<Vec<BootDevice>, UsageError> {
    let mut order = vec![BootDevice::HardDisk, BootDevice::Floppy, BootDevice::Cdrom];
    let first = match first {
        None => return Ok(order),
        Some(Boot::A) => BootDevice::Floppy,
        Some(Boot::C) => BootDevice::HardDisk,
        Some(Boot::D) => BootDevice::Cdrom,
        Some(Boot::N) => return Err(UsageError("--boot n does not work yet".into())),
    };
    order.retain(|device| *device != first);
    order.insert(0, first);
    Ok(order)
}

/// Where the CMOS has the kinds of the floppy drives, a nibble each.
const FLOPPIES: u8 = 0x10;

/// The kind of the first floppy drive ([`Geometry::drive`]), 0 if there is none.
pub fn floppy_drive(cmos: &[(u8, u8)]) -> u8 {
    let found = cmos.iter().find(|(at, _)| *at == FLOPPIES);
    found.map_or(0, |(_, kinds)| kinds >> 4)
}

/// Bytes of the CMOS beside time and memory, where QEMU's pc machine has them.
pub fn cmos(disks: &[DiskConfig], boot: &[BootDevice]) -> Vec<(u8, u8)> {
    const EQUIPMENT: u8 = 0x14;
    const TRANSLATION: u8 = 0x39;
    /// First and second device to boot from, and the third with options.
    const BOOT: (u8, u8) = (0x3D, 0x38);
    /// A boot sector of a floppy is not looked at before it is started.
    const NO_FLOPPY_CHECK: u8 = 1;
    let number = |place: usize| match boot.get(place) {
        None => 0,
        Some(BootDevice::Floppy) => 1,
        Some(BootDevice::HardDisk) => 2,
        Some(BootDevice::Cdrom) => 3,
    };
    // Two bits for each IDE unit. Cylinders are translated by size: of a small disk that makes what it says itself.
    let by_size = |disk: &DiskConfig| match disk.place {
        DiskPlace::Ide { unit } => 1 << (2 * unit),
        DiskPlace::Virtio { .. } | DiskPlace::Floppy | DiskPlace::Flash => 0,
    };
    /// 1.44 MB.
    const USUAL_DRIVE: u8 = 4;
    // What is in the drive says what it is; an empty one is what most PCs had.
    let floppy = disks
        .iter()
        .find(|disk| disk.kind == DiskKind::Floppy)
        .map_or(0, |disk| {
            if !disk.loaded {
                return USUAL_DRIVE;
            }
            let len = std::fs::metadata(&disk.name).map_or(0, |meta| meta.len());
            Geometry::of(len).map_or(0, |g| g.drive)
        });
    let hard = disks.iter().filter(|disk| disk.kind == DiskKind::HardDisk);
    vec![
        // A coprocessor, a PS/2 mouse, and whether there is a floppy drive.
        (EQUIPMENT, 0x06 | u8::from(floppy != 0)),
        (FLOPPIES, floppy << 4),
        (TRANSLATION, hard.map(by_size).fold(0, |all, bits: u8| all | bits)),
        (BOOT.0, number(1) << 4 | number(0)),
        (BOOT.1, number(2) << 4 | NO_FLOPPY_CHECK),
    ]
}

#[cfg(test)]
mod tests {
    use quintet_protocol::handshake::config::{DiskFormat, DiskWrites};

    use super::*;

    #[test]
    fn the_wanted_device_comes_first() {
        use BootDevice::{Cdrom, Floppy, HardDisk};
        let order = |first| boot_order(first).map_err(|e| e.to_string());
        assert_eq!(order(None), Ok(vec![HardDisk, Floppy, Cdrom]));
        assert_eq!(order(Some(Boot::D)), Ok(vec![Cdrom, HardDisk, Floppy]));
        assert_eq!(order(Some(Boot::N)), Err("--boot n does not work yet".into()));
    }

    #[test]
    fn the_cmos_is_as_qemus() {
        let disk = |kind, unit| DiskConfig {
            name: String::new(),
            kind,
            place: DiskPlace::Ide { unit },
            read_only: false,
            serial: String::new(),
            format: DiskFormat::Raw,
            writes: DiskWrites::Image,
            loaded: true,
            medium: 0,
        };
        let disks = [
            disk(DiskKind::HardDisk, 0),
            disk(DiskKind::Cdrom, 2),
            disk(DiskKind::HardDisk, 3),
        ];
        let order = boot_order(Some(Boot::D)).expect("an order");
        let cmos = cmos(&disks, &order);
        assert_eq!(
            cmos,
            [
                (0x14, 0x06),
                (0x10, 0),
                (0x39, 0b0100_0001),
                (0x3D, 0x23),
                (0x38, 0x11)
            ]
        );
    }
}
