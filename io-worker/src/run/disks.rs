//! The images that the coordinator opened, as the disks of the machine.

use std::fs::File;
use std::os::fd::OwnedFd;

use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::handshake::WorkerError;
use quintet_protocol::handshake::config::{DiskConfig, DiskFormat, DiskKind, DiskPlace, DiskWrites};

use crate::block::overlay::Overlay;
use crate::block::qcow2::Qcow2Image;
use crate::block::{DiskId, Disks, Image, ImageError, ImageFile, NoMedium, RawImage, SECTOR, Scratch};
use crate::storage::diskette::Geometry;
use crate::storage::floppy::{Diskette, FloppyDrive};
use crate::storage::ide::{DriveConfig, DriveKind};
use crate::storage::virtio::{UNITS, VirtioConfig};

/// Images and the drives that they are in.
#[derive(Debug, Default)]
pub(super) struct Storage {
    pub(super) disks: Disks,
    pub(super) ide: [Option<DriveConfig>; 4],
    /// In the order of their units.
    pub(super) virtio: Vec<VirtioConfig>,
    pub(super) floppy: FloppyDrive,
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
    let needed: usize = configs.iter().map(DiskConfig::descriptors).sum();
    if files.len() != needed {
        return Err(WorkerError::Failed(format!(
            "The disks need {needed} files and came with {}",
            files.len()
        )));
    }
    let mut storage = Storage::default();
    let mut files = files.into_iter();
    for config in configs {
        if !config.loaded {
            storage.add_empty(config)?;
            continue;
        }
        let Some(file) = files.next() else {
            break;
        };
        if config.place == DiskPlace::Flash {
            storage.flash.push((file.into(), !config.read_only));
            continue;
        }
        let (kind, unit) = match config.kind {
            DiskKind::HardDisk | DiskKind::Floppy | DiskKind::Flash => (DriveKind::Disk, SECTOR),
            DiskKind::Cdrom => (DriveKind::Cdrom, 2048),
        };
        let image = image(config, unit, file, &mut files)?;
        let bell = bell.clone();
        let disk = storage
            .disks
            .add(&config.name, image, config.read_only, move || {
                bell.ring();
            })
            .map_err(|e| WorkerError::Failed(format!("The image \"{}\": {e}", config.name)))?;
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
            storage.floppy = FloppyDrive {
                diskette: Some(Diskette { disk, geometry }),
                medium: config.medium,
            };
            continue;
        };
        storage.attach(unit, kind, disk, config)?;
    }
    Ok(storage)
}

impl Storage {
    /// A drive without a medium.
    fn add_empty(&mut self, config: &DiskConfig) -> Result<(), WorkerError> {
        match (config.kind, config.place) {
            (DiskKind::Floppy, DiskPlace::Floppy) => self.floppy.medium = config.medium,
            (DiskKind::Cdrom, DiskPlace::Ide { unit }) => {
                let disk = self.disks.add_here(&config.name, Box::new(NoMedium), true);
                self.attach(unit, DriveKind::Cdrom, disk, config)?;
            }
            _ => {
                return Err(WorkerError::Config(format!(
                    "The drive of \"{}\" cannot be without a medium",
                    config.name
                )));
            }
        }
        Ok(())
    }

    /// Puts a drive to the IDE controller.
    fn attach(
        &mut self,
        unit: u8,
        kind: DriveKind,
        disk: DiskId,
        config: &DiskConfig,
    ) -> Result<(), WorkerError> {
        let Some(slot @ None) = self.ide.get_mut(usize::from(unit)) else {
            return Err(WorkerError::Config(format!(
                "There is no room for a disk at IDE unit {unit}"
            )));
        };
        *slot = Some(DriveConfig {
            kind,
            disk,
            len: self.disks.len_of(disk),
            serial: config.serial.clone(),
            medium: config.medium,
        });
        Ok(())
    }
}

/// The image of a disk in `file`, and what is above it in those that follow.
fn image(
    config: &DiskConfig,
    unit: u64,
    file: OwnedFd,
    files: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Box<dyn Image>, WorkerError> {
    let failed = |what: &str, name: &str| {
        let what = format!("The {what} \"{name}\"");
        move |error| match error {
            // No successor would find another.
            ImageError::Damaged(why) => WorkerError::Config(format!("{what} is damaged: {why}")),
            error => WorkerError::Failed(format!("{what}: {error}")),
        }
    };
    let base: Box<dyn Image> = match config.format {
        DiskFormat::Raw => Box::new(RawImage::new(file, unit).map_err(failed("image", &config.name))?),
        DiskFormat::Qcow2 => {
            let missing = || {
                WorkerError::Failed(format!(
                    "The image \"{}\" came without a file in memory",
                    config.name
                ))
            };
            let scratch = match config.has_scratch() && !config.has_overlay() {
                true => Some(Scratch::open(files.next().ok_or_else(missing)?)),
                false => None,
            };
            let image = scratch
                .transpose()
                .and_then(|scratch| Qcow2Image::new(file, scratch));
            Box::new(image.map_err(failed("image", &config.name))?)
        }
    };
    let shown = match &config.writes {
        DiskWrites::Image => return Ok(base),
        DiskWrites::Temporary => "of the snapshot",
        DiskWrites::Overlay { name } => name,
    };
    let missing = || WorkerError::Failed(format!("The overlay \"{shown}\" was not handed over"));
    let failed = failed("overlay", shown);
    let store = ImageFile::new(files.next().ok_or_else(missing)?);
    let scratch = match config.has_scratch() {
        true => Some(Scratch::open(files.next().ok_or_else(missing)?)),
        false => None,
    };
    let overlay = scratch
        .transpose()
        .and_then(|scratch| Overlay::open(store, base, scratch))
        .map_err(failed)?;
    Ok(Box::new(overlay))
}
