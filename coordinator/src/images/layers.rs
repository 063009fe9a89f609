//! What is above an image: the overlay of `overlay=FILE`, the unnamed one of `snapshot=on`, and the file in memory for
//! what is not flushed yet. All are the coordinator's to make, so that a successor of the io-worker finds them.
//!
//! The overlay of `snapshot=on` is in `$TMPDIR` or else /var/tmp, as QEMU's is: it can become as large as the disk, and
//! /tmp may be memory.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use quintet_io_worker::block::overlay::header::{Base, HEADER, Header, HeaderError};
use quintet_protocol::handshake::config::DiskFormat;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{ImageArg, Opened, Writes, lock};
use crate::config::{UsageError, reason};

/// Makes or opens what is above an image, in the order in which the io-worker wants it.
///
/// # Errors
/// [`UsageError`], one sentence that names the file.
pub(super) fn above(image: &ImageArg, opened: &Opened) -> Result<Vec<OwnedFd>, UsageError> {
    let shown = image.path.display();
    if image.writes == Writes::Image {
        return match image.format == Some(DiskFormat::Qcow2) && !image.read_only {
            true => Ok(vec![scratch()?]),
            false => Ok(Vec::new()),
        };
    }
    if !Header::fits(opened.disk_len) {
        return Err(UsageError(format!(
            "The disk image \"{shown}\" has {} bytes, too many for an overlay",
            opened.disk_len
        )));
    }
    let meta = opened
        .file
        .metadata()
        .map_err(|e| UsageError(format!("Cannot look at \"{shown}\": {}", reason(&e))))?;
    let wanted = Header {
        disk_len: opened.disk_len,
        base: Base {
            name: std::path::absolute(&image.path)
                .unwrap_or_else(|_| image.path.clone())
                .display()
                .to_string(),
            file_len: opened.len,
            // That of a block device is of its name.
            changed: match meta.is_file() {
                true => (meta.mtime(), meta.mtime_nsec() as u32),
                false => (0, 0),
            },
            format: match image.format {
                None | Some(DiskFormat::Raw) => 0,
                Some(DiskFormat::Qcow2) => 1,
            },
        },
        id: identity()?,
    };
    match &image.writes {
        Writes::Image => Ok(Vec::new()),
        Writes::Snapshot => Ok(vec![temporary(&wanted)?.into()]),
        Writes::Overlay(path) => Ok(vec![kept(path, &wanted)?.into(), scratch()?]),
    }
}

/// A file in memory for what is not flushed yet.
fn scratch() -> Result<OwnedFd, UsageError> {
    memfd_create("quintet-unflushed", MemfdFlags::CLOEXEC)
        .map_err(|e| UsageError(format!("Cannot make a file in memory: {}", reason(&e.into()))))
}

fn identity() -> Result<[u8; 16], UsageError> {
    let mut id = [0; 16];
    match getrandom(&mut id, GetRandomFlags::empty()) {
        Ok(16) => Ok(id),
        _ => Err(UsageError("The host has no random numbers".into())),
    }
}

/// Writes an empty overlay into an empty file.
fn make(file: &File, header: &Header) -> std::io::Result<()> {
    file.write_all_at(&header.encode(), 0)?;
    file.set_len(header.data_at())
}

fn temporary(header: &Header) -> Result<File, UsageError> {
    let dir = std::env::var_os("TMPDIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    tempfile::tempfile_in(&dir)
        .and_then(|file| make(&file, header).map(|()| file))
        .map_err(|e| {
            UsageError(format!(
                "snapshot=on cannot write to \"{}\": {}; TMPDIR names another directory",
                dir.display(),
                reason(&e)
            ))
        })
}

fn kept(path: &Path, wanted: &Header) -> Result<File, UsageError> {
    let shown = path.display();
    let refuse = |why: &str| Err(UsageError(format!("The overlay \"{shown}\" {why}")));
    let cannot = |e: std::io::Error| UsageError(format!("Cannot open overlay \"{shown}\": {}", reason(&e)));
    let mut options = OpenOptions::new();
    // A pipe would wait for its other end.
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = match options.open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => options
            .create_new(true)
            .open(path)
            .map_err(|e| UsageError(format!("Cannot make overlay \"{shown}\": {}", reason(&e))))?,
        other => other.map_err(cannot)?,
    };
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return refuse("is not a file");
    }
    if let Err(why) = lock(&file, true) {
        return refuse(&why);
    }
    // After the lock: somebody may have been making it.
    if file.metadata().map_err(cannot)?.len() == 0 {
        let made = make(&file, wanted)
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_dir(path));
        if let Err(e) = made {
            // It was empty, and is of no use.
            let _ = std::fs::remove_file(path);
            return Err(UsageError(format!(
                "Cannot make overlay \"{shown}\": {}",
                reason(&e)
            )));
        }
        return Ok(file);
    }
    let mut bytes = vec![0; HEADER];
    let found = match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Header::decode(&bytes),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(HeaderError::Foreign),
        Err(e) => return Err(cannot(e)),
    };
    match found.and_then(|header| header.check(&wanted.base, wanted.disk_len)) {
        Ok(()) => Ok(file),
        Err(HeaderError::Foreign) => {
            refuse("is not an overlay of Quintet's, and is left alone; a name that is free makes a new one")
        }
        Err(e) => refuse(&e.to_string()),
    }
}

/// Makes a new name last.
fn sync_dir(path: &Path) -> std::io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::*;

    fn parse(text: &str) -> ImageArg {
        ImageArg::parse(text).expect("parses")
    }

    fn error(text: &str) -> String {
        open(&[parse(text)]).expect_err("refused").to_string()
    }

    #[test]
    fn overlays_are_made_found_again_and_not_used_for_another_base() {
        let dir = tempfile::tempdir().expect("directory");
        let name = |name: &str| dir.path().join(name).display().to_string();
        let (base, over) = (name("base.img"), name("over"));
        std::fs::write(&base, vec![7; 1 << 20]).expect("file");
        let text = format!("{base},format=raw,overlay={over}");
        let files = open(&[parse(&text)]).expect("made");
        assert_eq!(files.len(), 3);
        // One machine has it; the base is shared.
        assert!(error(&text).contains("\" is locked"), "{}", error(&text));
        let other = name("other");
        open(&[parse(&format!("{base},format=raw,overlay={other}"))]).expect("the base is only read");
        assert!(error(&format!("{base},format=raw")).contains("is locked"));
        drop(files);
        let made = std::fs::read(&over).expect("made");
        drop(open(&[parse(&text)]).expect("found again"));
        assert_eq!(std::fs::read(&over).expect("there"), made);

        // The base itself, and a file of another kind.
        assert!(error(&format!("{base},format=raw,overlay={base}")).contains("is locked"));
        let foreign = name("foreign");
        std::fs::write(&foreign, "a letter").expect("file");
        let said = error(&format!("{base},format=raw,overlay={foreign}"));
        assert!(
            said.contains("is not an overlay") && said.contains("foreign"),
            "{said}"
        );
        assert_eq!(std::fs::read(&foreign).expect("there"), b"a letter");
        assert!(error(&format!("{base},format=raw,overlay={}", name("no/where"))).contains("no such file"));
        assert!(error(&format!("{base},format=raw,overlay=/dev/null")).contains("is not a file"));

        // A base that has been changed, until its time is put right.
        let time = std::fs::metadata(&base)
            .and_then(|m| m.modified())
            .expect("a time");
        let file = File::options().write(true).open(&base).expect("opened");
        file.set_modified(time + std::time::Duration::from_secs(60))
            .expect("set");
        assert!(error(&text).contains("was changed since"), "{}", error(&text));
        file.set_modified(time).expect("set");
        drop(open(&[parse(&text)]).expect("as it was"));
        file.set_len(2 << 20).expect("set");
        file.set_modified(time).expect("set");
        assert!(error(&text).contains("1048576 bytes"), "{}", error(&text));
    }

    #[test]
    fn an_empty_file_becomes_an_overlay_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let (base, over) = (dir.path().join("base.img"), dir.path().join("over"));
        std::fs::write(&base, [0; 4096]).expect("file");
        std::fs::write(&over, b"").expect("file");
        let text = format!("{},format=raw,overlay={}", base.display(), over.display());
        drop(open(&[parse(&text)]).expect("made"));
        let mut bytes = std::fs::read(&over).expect("made");
        bytes[20] ^= 1;
        std::fs::write(&over, &bytes).expect("file");
        assert!(
            error(&text).contains("checksum of its header"),
            "{}",
            error(&text)
        );
    }

    #[test]
    fn a_snapshot_leaves_no_name() {
        let dir = tempfile::tempdir().expect("directory");
        let base = dir.path().join("base.img");
        std::fs::write(&base, [0; 4096]).expect("file");
        let files = open(&[parse(&format!("{},format=raw,snapshot=on", base.display()))]).expect("made");
        assert_eq!(files.len(), 2);
        let temporary = File::from(files[1].try_clone().expect("a descriptor"));
        assert_eq!(temporary.metadata().expect("a file").nlink(), 0);
    }
}
