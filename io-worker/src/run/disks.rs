//! The images that the coordinator opened, as the disks of the machine.

use std::fs::File;
use std::os::fd::OwnedFd;

use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::handshake::WorkerError;
use quintet_protocol::handshake::config::{DiskConfig, DiskKind, DiskPlace};

use crate::block::{Disks, RawImage, SECTOR};
use crate::storage::diskette::Geometry;
use crate::storage::floppy::Diskette;
use crate::storage::ide::{DriveConfig, DriveKind};
use crate::storage::virtio::{UNITS, VirtioConfig};

/// Images and the drives that they are in.
#[derive(Debug, Default)]
pub(super) struct Storage {
    pub(super) disks: Disks,
    pub(super) ide: [Option<DriveConfig>; 4],
    /// In the order of their units.
    pub(super) virtio: Vec<VirtioConfig>,
    pub(super) diskette: Option<Diskette>,
    /// Files of flash chips, in their order; whether each can be written.
    pub(super) flash: Vec<(File, bool)>,
}

/// Takes the images over; `bell` is rung when one of them has done something.
///
/// # Errors
/// [`WorkerError`] when there are more or fewer files than disks, or two disks in one place.
pub(super) fn open(
    configs: &[DiskConfig],
    files: Vec<OwnedFd>,
    bell: &Doorbell,
) -> Result<Storage, WorkerError> {
    if files.len() != configs.len() {
        return Err(WorkerError::Failed(format!(
            "{} disks came with {} files",
            configs.len(),
            files.len()
        )));
    }
    let mut storage = Storage::default();
    for (config, file) in configs.iter().zip(files) {
        if config.place == DiskPlace::Flash {
            storage.flash.push((file.into(), !config.read_only));
            continue;
        }
        let (kind, unit) = match config.kind {
            DiskKind::HardDisk | DiskKind::Floppy | DiskKind::Flash => (DriveKind::Disk, SECTOR),
            DiskKind::Cdrom => (DriveKind::Cdrom, 2048),
        };
        let failed = |e: std::io::Error| WorkerError::Failed(format!("The image \"{}\": {e}", config.name));
        let image = RawImage::new(file, unit).map_err(failed)?;
        let bell = bell.clone();
        let disk = storage
            .disks
            .add(&config.name, Box::new(image), config.read_only, move || {
                bell.ring();
            })
            .map_err(failed)?;
        if let DiskPlace::Virtio { unit } = config.place {
            if usize::from(unit) != storage.virtio.len() || unit >= UNITS {
                return Err(WorkerError::Config(format!(
                    "There is no room for a disk at virtio unit {unit}"
                )));
            }
            storage.virtio.push(VirtioConfig {
                disk,
                len: storage.disks.len_of(disk),
                read_only: config.read_only,
                serial: config.serial.clone(),
            });
            continue;
        }
        let DiskPlace::Ide { unit } = config.place else {
            let len = storage.disks.len_of(disk);
            let geometry = Geometry::of(len).ok_or_else(|| {
                WorkerError::Config(format!(
                    "The image \"{}\" has {len} bytes, as no diskette",
                    config.name
                ))
            })?;
            storage.diskette = Some(Diskette { disk, geometry });
            continue;
        };
        let drive = DriveConfig {
            kind,
            disk,
            len: storage.disks.len_of(disk),
            serial: config.serial.clone(),
        };
        match storage.ide.get_mut(usize::from(unit)) {
            Some(slot @ None) => *slot = Some(drive),
            _ => {
                return Err(WorkerError::Config(format!(
                    "There is no room for a disk at IDE unit {unit}"
                )));
            }
        }
    }
    Ok(storage)
}
