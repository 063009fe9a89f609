//! Firmware that the user names: its files, judged by their length only.

use std::path::Path;

use quintet_io_worker::rom::{FIRMWARE_LEN, FIRMWARE_UNIT, VGA_ROM_MOST};
use quintet_protocol::payload::{Outgoing, PayloadKind};

use crate::config::{UsageError, outgoing, read_file};
use crate::units::show_size;

/// Reads the firmware image and the VGA's BIOS, sealed for transport.
///
/// # Errors
/// [`UsageError`], one sentence that names the file.
pub fn payloads(firmware: Option<&Path>, vga_rom: Option<&Path>) -> Result<Vec<Outgoing>, UsageError> {
    let mut payloads = Vec::new();
    if let Some(path) = firmware {
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
