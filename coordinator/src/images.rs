//! Disk images that the user names: parsed, placed, opened, locked. The io-worker gets descriptors.
//!
//! An image below an overlay is opened for reading only, so nobody can write to it by mistake, and locked with other readers:
//! many machines can share one.
//!
//! Locks are open-file-description locks on the whole file: they belong to the descriptor and not to a process, so a
//! worker may die without losing them, and QEMU's locks on single bytes conflict with them as they should.
#![allow(unsafe_code, reason = "open-file-description locks have no safe interface")]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use quintet_io_worker::block::qcow2::header as qcow2;
use quintet_io_worker::storage::diskette::{FORMATS, Geometry};
use quintet_io_worker::storage::virtio::UNITS;
use quintet_protocol::control::Drive;
use quintet_protocol::handshake::config::{DiskConfig, DiskFormat, DiskKind, DiskPlace, DiskWrites};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::config::{UsageError, reason};

mod layers;

/// An image as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageArg {
    /// The file.
    pub path: PathBuf,
    /// What it is put into.
    pub kind: DiskKind,
    /// The format that was given; without one it is taken to be raw.
    pub format: Option<DiskFormat>,
    /// Writes are refused.
    pub read_only: bool,
    /// Attached by virtio instead of IDE.
    pub virtio: bool,
    /// Where writes go.
    pub writes: Writes,
    /// What the disk begins with when it is made in memory, for as long as the machine is there, and no file.
    pub built_in: Option<&'static [u8]>,
}

/// Where what is written goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// Into the image.
    #[default]
    Image,
    /// Away, at the end.
    Snapshot,
    /// Into a file of ours.
    Overlay(PathBuf),
}

/// Units of the IDE controller.
const IDE_UNITS: u8 = 4;
/// Where a CD-ROM drive goes if nobody is there.
const CDROM_UNIT: u8 = 2;
/// What the length of a flash image is a multiple of.
const FLASH_UNIT: u64 = quintet_io_worker::storage::pflash::BLOCK;
/// Bytes of a sector: the least of what a disk can have.
const SECTOR: u64 = 512;

/// Bytes of the demo guest's disk.
const DEMO_LEN: u64 = 1 << 20;

/// In place of a file: the drive is there, and empty.
pub const EMPTY: &str = "none";

impl ImageArg {
    /// What is booted from when nothing is named.
    pub fn demo() -> Self {
        Self {
            path: "the built-in demo".into(),
            kind: DiskKind::HardDisk,
            format: Some(DiskFormat::Raw),
            read_only: false,
            virtio: false,
            writes: Writes::Image,
            built_in: Some(quintet_guests::SHOW),
        }
    }

    /// What `--cdrom` or `--floppy` says: an image, or [`EMPTY`].
    pub fn of_drive(drive: Drive, text: &Path) -> Self {
        let path = if text == Path::new(EMPTY) {
            Path::new("")
        } else {
            text
        };
        Self::medium(drive, path)
    }

    /// An image for a drive.
    pub fn medium(drive: Drive, path: &Path) -> Self {
        match drive {
            Drive::Floppy => Self::floppy(path),
            Drive::Cdrom => Self::cdrom(path),
        }
    }

    /// Whether it stands for a drive without a medium.
    pub fn is_empty(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    /// An image for a CD-ROM drive.
    pub fn cdrom(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            kind: DiskKind::Cdrom,
            format: Some(DiskFormat::Raw),
            read_only: true,
            virtio: false,
            writes: Writes::Image,
            built_in: None,
        }
    }

    /// A diskette.
    pub fn floppy(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            kind: DiskKind::Floppy,
            format: Some(DiskFormat::Raw),
            read_only: false,
            virtio: false,
            writes: Writes::Image,
            built_in: None,
        }
    }

    /// A flash chip, `FILE` or `FILE,ro=on`; a comma in the file's name is written twice.
    ///
    /// # Errors
    /// [`UsageError`] for another option.
    pub fn flash(text: &str) -> Result<Self, UsageError> {
        let words = words(text);
        let read_only = match words
            .iter()
            .skip(1)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .as_slice()
        {
            [] | ["ro=off"] => false,
            ["ro=on"] => true,
            _ => {
                return Err(UsageError(format!(
                    "--pflash {text}: ro=on is all that can stand behind a file"
                )));
            }
        };
        Ok(Self {
            path: words[0].clone().into(),
            kind: DiskKind::Flash,
            format: Some(DiskFormat::Raw),
            read_only,
            virtio: false,
            writes: Writes::Image,
            built_in: None,
        })
    }

    /// `FILE,KEY=VALUE,…`; a comma in the file's name is written twice.
    ///
    /// # Errors
    /// [`UsageError`] for an option that is not known or does nothing yet.
    pub fn parse(text: &str) -> Result<Self, UsageError> {
        let refuse = |what: String| Err(UsageError(format!("--disk {text}: {what}")));
        let mut words = words(text);
        let mut image = Self {
            path: words.remove(0).into(),
            kind: DiskKind::HardDisk,
            format: None,
            read_only: false,
            virtio: false,
            writes: Writes::Image,
            built_in: None,
        };
        if image.path.as_os_str().is_empty() {
            return refuse("there is no file".into());
        }
        for word in words {
            match word.split_once('=') {
                Some(("ro" | "snapshot", "off")) => {}
                Some(("bus", bus @ ("ide" | "virtio"))) => image.virtio = bus == "virtio",
                Some(("ro", "on")) => image.read_only = true,
                Some(("format", "raw")) => image.format = Some(DiskFormat::Raw),
                Some(("format", "qcow2")) => image.format = Some(DiskFormat::Qcow2),
                Some(("snapshot", "on") | ("overlay", _)) if image.writes != Writes::Image => {
                    return refuse("snapshot=on and overlay=FILE can be given once, and not both".into());
                }
                Some(("snapshot", "on")) => image.writes = Writes::Snapshot,
                Some(("overlay", "")) => return refuse("overlay= names no file".into()),
                Some(("overlay", path)) => image.writes = Writes::Overlay(path.into()),
                _ => {
                    return refuse(format!(
                        "\"{word}\" is not known; bus=ide|virtio, format=raw|qcow2, ro=on, snapshot=on and overlay=FILE are"
                    ));
                }
            }
        }
        if image.read_only && image.writes != Writes::Image {
            return refuse(
                "with ro=on nothing is written that snapshot=on or overlay=FILE could take".into(),
            );
        }
        Ok(image)
    }

    /// Whether the image itself is written to.
    fn is_written(&self) -> bool {
        !self.read_only && self.writes == Writes::Image
    }
}

/// What commas separate, at least one word; two commas are one that does not.
pub fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, words.last_mut()) {
            (',', Some(last)) if letters.peek() == Some(&',') => {
                letters.next();
                last.push(',');
            }
            (',', _) => words.push(String::new()),
            (letter, Some(last)) => last.push(letter),
            (_, None) => {}
        }
    }
    words
}

/// Gives each image a place: disks in their order on the bus that they ask for, a CD-ROM drive the secondary master or
/// else what is free.
///
/// # Errors
/// [`UsageError`] when there are too many.
pub fn place(images: &[ImageArg]) -> Result<Vec<DiskConfig>, UsageError> {
    let no_room = |image: &ImageArg, why: String| {
        Err(UsageError(format!(
            "There is no room for \"{}\": {why}",
            image.path.display()
        )))
    };
    let mut free: Vec<u8> = (0..IDE_UNITS).collect();
    let mut units = vec![None; images.len()];
    for (unit, (image, place)) in (0..).zip(images.iter().zip(&mut units).filter(|(image, _)| image.virtio)) {
        if unit == UNITS {
            return no_room(image, format!("there are {UNITS} virtio disks already"));
        }
        *place = Some(unit);
    }
    for kind in [DiskKind::HardDisk, DiskKind::Cdrom] {
        for (image, unit) in images
            .iter()
            .zip(&mut units)
            .filter(|(image, _)| image.kind == kind && !image.virtio)
        {
            let wanted = free.iter().position(|u| *u == CDROM_UNIT);
            let at = match (kind, wanted) {
                (DiskKind::Cdrom, Some(at)) => at,
                _ => 0,
            };
            if free.is_empty() {
                return no_room(image, format!("the IDE controller has {IDE_UNITS} units"));
            }
            *unit = Some(free.remove(at));
        }
    }
    let place = |(image, unit): (&ImageArg, Option<u8>)| DiskConfig {
        name: image.path.display().to_string(),
        kind: image.kind,
        place: match (image.kind, unit) {
            (_, Some(unit)) if image.virtio => DiskPlace::Virtio { unit },
            (_, Some(unit)) => DiskPlace::Ide { unit },
            (DiskKind::Flash, None) => DiskPlace::Flash,
            (_, None) => DiskPlace::Floppy,
        },
        read_only: image.read_only,
        // No two drives have one number.
        serial: unit.map_or_else(String::new, |unit| {
            let behind = if image.virtio { IDE_UNITS } else { 0 };
            format!("QT{:05}", behind + unit + 1)
        }),
        format: image.format.unwrap_or(DiskFormat::Raw),
        writes: match &image.writes {
            Writes::Image => DiskWrites::Image,
            Writes::Snapshot => DiskWrites::Temporary,
            Writes::Overlay(path) => DiskWrites::Overlay {
                name: path.display().to_string(),
            },
        },
        loaded: !image.is_empty(),
        medium: 0,
    };
    Ok(images.iter().zip(units).map(place).collect())
}

/// Opens and locks all images and makes what is above them, in the order in which the io-worker wants them, then warns of
/// formats that were guessed.
///
/// # Errors
/// [`UsageError`], one sentence that names the file.
pub fn open(images: &[ImageArg]) -> Result<Vec<OwnedFd>, UsageError> {
    let images: Vec<&ImageArg> = images.iter().filter(|image| !image.is_empty()).collect();
    let opened = images
        .iter()
        .map(|image| open_one(image))
        .collect::<Result<Vec<_>, _>>()?;
    let mut files = Vec::new();
    for (image, opened) in images.iter().zip(opened) {
        let above = layers::above(image, &opened)?;
        files.push(opened.file.into());
        files.extend(above);
    }
    for image in images.iter().filter(|image| image.format.is_none()) {
        eprintln!(
            "quintet: WARNING: the format of \"{}\" was not given and is taken to be raw; write format=raw behind it",
            image.path.display()
        );
    }
    Ok(files)
}

/// An image that was opened and locked.
#[derive(Debug)]
struct Opened {
    file: File,
    /// Bytes in the file.
    len: u64,
    /// Bytes of the disk.
    disk_len: u64,
}

/// Opens an image that a machine is to judge and lock: what it has at hand is locked already.
///
/// # Errors
/// As [`open`].
pub fn open_unlocked(image: &ImageArg) -> Result<File, UsageError> {
    if let Some(bytes) = image.built_in {
        return in_memory(bytes).map_err(|e| unopened(image, &e));
    }
    let options = |write: bool| {
        let mut options = OpenOptions::new();
        // A pipe would wait for its other end.
        options.read(true).write(write).custom_flags(libc::O_NONBLOCK);
        options.open(&image.path)
    };
    match options(image.is_written()) {
        Ok(file) => Ok(file),
        // Another reason than that it is not there or a folder: it may be read.
        Err(e)
            if image.is_written()
                && options(false).is_ok_and(|f| f.metadata().is_ok_and(|m| !m.is_dir())) =>
        {
            let why = reason(&e);
            Err(refusal(
                image,
                &format!("cannot be written ({why}); try ro=on or snapshot=on behind it"),
            ))
        }
        Err(e) => Err(unopened(image, &e)),
    }
}

/// A disk of [`DEMO_LEN`] that begins with `bytes`, and whose length stays.
fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("quintet-disk", flags)?);
    file.write_all_at(bytes, 0)?;
    file.set_len(DEMO_LEN)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// What messages call an image.
fn what(kind: DiskKind) -> &'static str {
    match kind {
        DiskKind::HardDisk => "disk image",
        DiskKind::Cdrom => "CD-ROM image",
        DiskKind::Floppy => "floppy image",
        DiskKind::Flash => "flash image",
    }
}

fn refusal(image: &ImageArg, why: &str) -> UsageError {
    UsageError(format!(
        "The {} \"{}\" {why}",
        what(image.kind),
        image.path.display()
    ))
}

fn open_one(image: &ImageArg) -> Result<Opened, UsageError> {
    examine(image, open_unlocked(image)?)
}

fn unopened(image: &ImageArg, e: &std::io::Error) -> UsageError {
    let (what, shown) = (what(image.kind), image.path.display());
    UsageError(format!("Cannot open {what} \"{shown}\": {}", reason(e)))
}

/// Locks an open image and looks whether it is what it is said to be.
fn examine(image: &ImageArg, file: File) -> Result<Opened, UsageError> {
    let refuse = |why: &str| Err(refusal(image, why));
    let cannot = |e: std::io::Error| unopened(image, &e);
    let meta = file.metadata().map_err(cannot)?;
    if meta.is_dir() {
        return refuse("is a directory");
    }
    if !meta.is_file() && !meta.file_type().is_block_device() {
        return refuse("is not a file");
    }
    // A block device has its length at its end.
    let len = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|e| cannot(e.into()))?;
    if len == 0 {
        return refuse("is empty");
    }
    let mut head = [0; 4];
    if image.format.is_none() && file.read_exact_at(&mut head, 0).is_ok() && head == qcow2::MAGIC {
        return refuse(
            "is in the format qcow2; write format=qcow2 behind it, or format=raw to take it as it is",
        );
    }
    // What is looked at is what nobody else changes.
    if let Err(why) = lock(&file, image.is_written()) {
        return refuse(&why);
    }
    if image.format == Some(DiskFormat::Qcow2) {
        return match qcow2_len(&file, len, image.is_written()) {
            Ok(Ok(disk_len)) => Ok(Opened { file, len, disk_len }),
            Ok(Err(why)) => refuse(&why.to_string()),
            Err(e) => Err(cannot(e)),
        };
    }
    if image.kind == DiskKind::Floppy && Geometry::of(len).is_none() {
        let sizes = FORMATS.map(|format| (format.bytes() / 1024).to_string());
        return refuse(&format!(
            "has {len} bytes; diskettes have {} KiB",
            sizes.join(", ")
        ));
    }
    if image.kind == DiskKind::Flash && !len.is_multiple_of(FLASH_UNIT) {
        return refuse(&format!(
            "has {len} bytes; multiples of {FLASH_UNIT} are possible"
        ));
    }
    if len % SECTOR != 0 {
        return refuse(&format!(
            "has {len} bytes, which are no whole sectors of {SECTOR}: it may be truncated"
        ));
    }
    if image.kind == DiskKind::Cdrom
        && let Some(needed) = iso_len(&file)
        && needed > len
    {
        return refuse(&format!("is truncated: it has {len} of {needed} bytes"));
    }
    Ok(Opened {
        file,
        len,
        disk_len: len,
    })
}

/// Judges and locks an open image that is to go into a drive, which takes diskettes as `drive` says (as the CMOS does) if it takes any.
///
/// # Errors
/// As [`open`]; and when the drive cannot read it.
pub fn take_medium(image: &ImageArg, file: File, drive: u8) -> Result<File, UsageError> {
    let opened = examine(image, file)?;
    if image.kind == DiskKind::Floppy && Geometry::of(opened.len).is_none_or(|g| !g.fits(drive)) {
        let kib = opened.len / 1024;
        return Err(refusal(
            image,
            &format!(
                "is a diskette of {kib} KiB, which the drive cannot read; it is of the kind of the first in it"
            ),
        ));
    }
    Ok(opened.file)
}

/// Bytes of the disk in a qcow2 image.
fn qcow2_len(file: &File, len: u64, write: bool) -> std::io::Result<Result<u64, qcow2::Qcow2Error>> {
    let mut head = vec![0; (qcow2::HEAD as u64).min(len) as usize];
    file.read_exact_at(&mut head, 0)?;
    Ok(qcow2::check(&head, len, write).map(|layout| layout.disk_len))
}

/// Bytes that the primary volume descriptor of an ISO 9660 image speaks of; `None` for other images.
fn iso_len(file: &File) -> Option<u64> {
    let mut descriptor = [0; 2048];
    file.read_exact_at(&mut descriptor, 16 * 2048).ok()?;
    if descriptor[..6] != *b"\x01CD001" {
        return None;
    }
    let blocks = u32::from_le_bytes(descriptor[80..84].try_into().ok()?);
    let size = u16::from_le_bytes(descriptor[128..130].try_into().ok()?);
    Some(u64::from(blocks) * u64::from(size))
}

/// Locks the whole file for the life of its open description: alone for writing, else with other readers.
///
/// # Errors
/// What is the matter with the file.
fn lock(file: &File, write: bool) -> Result<(), String> {
    let whole = libc::flock {
        l_type: if write { libc::F_WRLCK } else { libc::F_RDLCK } as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        // Must be zero for these locks.
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for as long as `file` lives, and the kernel only reads the structure.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => {
            "is locked: another program, or another disk of this machine, uses it".to_owned()
        }
        _ => format!("cannot be locked: {}", reason(&error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<impl Sized, UsageError>) -> String {
        result.err().expect("refused").to_string()
    }

    #[test]
    fn options_are_parsed_and_what_is_not_known_is_named() {
        let image = ImageArg::parse("a,,b.img,format=raw,ro=on,bus=ide").expect("parses");
        assert_eq!(image.path, PathBuf::from("a,b.img"));
        assert!(image.format == Some(DiskFormat::Raw) && image.read_only);
        assert_eq!(ImageArg::parse("a").expect("parses").format, None);
        assert!(error(ImageArg::parse("a,size=5")).contains("\"size=5\" is not known"));
        assert!(error(ImageArg::parse("a,ro=maybe")).contains("not known"));
        assert!(!image.virtio && ImageArg::parse("a,bus=virtio").expect("parses").virtio);
        assert!(error(ImageArg::parse("a,bus=scsi")).contains("\"bus=scsi\" is not known"));
        let above = |text| ImageArg::parse(text).expect("parses").writes;
        assert_eq!(above("a,overlay=b,,c"), Writes::Overlay("b,c".into()));
        assert_eq!(
            (above("a,snapshot=on"), above("a,snapshot=off")),
            (Writes::Snapshot, Writes::Image)
        );
        for text in [
            "a,overlay=b,snapshot=on",
            "a,snapshot=on,overlay=b",
            "a,overlay=b,overlay=c",
        ] {
            assert!(error(ImageArg::parse(text)).contains("not both"));
        }
        assert!(error(ImageArg::parse("a,overlay=")).contains("names no file"));
        assert!(error(ImageArg::parse("a,ro=on,snapshot=on")).contains("nothing is written"));
        assert!(error(ImageArg::parse(",ro=on")).contains("no file"));
    }

    #[test]
    fn units_are_given_in_order_and_the_cd_is_secondary_master_unless_taken() {
        let disk = || ImageArg::parse("d").expect("parses");
        let units = |disks: usize| -> Result<Vec<DiskPlace>, UsageError> {
            let mut images: Vec<_> = (0..disks).map(|_| disk()).collect();
            images.push(ImageArg::cdrom(Path::new("c")));
            Ok(place(&images)?.iter().map(|d| d.place).collect())
        };
        let ide = |units: &[u8]| -> Vec<_> { units.iter().map(|&unit| DiskPlace::Ide { unit }).collect() };
        assert_eq!(units(0).expect("placed"), ide(&[2]));
        assert_eq!(units(2).expect("placed"), ide(&[0, 1, 2]));
        assert_eq!(units(3).expect("placed"), ide(&[0, 1, 2, 3]));
        assert!(error(units(4)).contains("no room for \"c\""));
    }

    #[test]
    fn virtio_disks_are_counted_by_themselves() {
        let images = |texts: &[&str]| -> Vec<_> {
            let parse = |text: &&str| ImageArg::parse(text).expect("parses");
            texts.iter().map(parse).collect()
        };
        let placed = place(&images(&["a,bus=virtio", "b", "c,bus=virtio", "d"])).expect("placed");
        assert_eq!(
            placed.iter().map(|d| d.place).collect::<Vec<_>>(),
            [
                DiskPlace::Virtio { unit: 0 },
                DiskPlace::Ide { unit: 0 },
                DiskPlace::Virtio { unit: 1 },
                DiskPlace::Ide { unit: 1 },
            ]
        );
        assert_eq!(
            placed.iter().map(|d| d.serial.as_str()).collect::<Vec<_>>(),
            ["QT00005", "QT00001", "QT00006", "QT00002"]
        );
        assert!(error(place(&images(&["v,bus=virtio"; 9]))).contains("no room for \"v\""));
    }

    #[test]
    fn a_lock_keeps_writers_apart_and_readers_together() {
        let path = std::env::temp_dir().join(format!("quintet-lock-{}", std::process::id()));
        std::fs::write(&path, [0; 512]).expect("file");
        let open = |read_only| {
            open_one(&ImageArg {
                path: path.clone(),
                kind: DiskKind::HardDisk,
                format: Some(DiskFormat::Raw),
                read_only,
                virtio: false,
                writes: Writes::Image,
                built_in: None,
            })
        };
        let writer = open(false).expect("alone");
        assert!(error(open(false)).contains("is locked"));
        assert!(error(open(true)).contains("is locked"));
        drop(writer);
        let readers = (open(true).expect("first"), open(true).expect("second"));
        assert!(error(open(false)).contains("is locked"));
        drop(readers);
        open(false).expect("alone again");
        std::fs::remove_file(&path).expect("removed");
    }
}
