//! Firmware: the built-in BIOS, or the files that the user names, judged by their length only.

use std::path::{Path, PathBuf};

use quintet_io_worker::rom::{FIRMWARE_LEN, FIRMWARE_UNIT, VGA_ROM_MOST};
use quintet_protocol::payload::{Outgoing, PayloadKind};

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
