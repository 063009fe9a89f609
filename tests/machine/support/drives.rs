//! Disks and CDs of a Linux guest: images, what is on them, and what the guest does with them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use crate::support::{Machine, assert_clean};

/// What a kernel says of a disk that gives it trouble.
const TROUBLE: &[&str] = &[
    "I/O error",
    "exception Emask",
    "failed command",
    "qc timeout",
    "EXT4-fs error",
];

/// A file of a test, removed at the end.
#[derive(Debug)]
pub struct Image(PathBuf);

impl Image {
    /// A file with these bytes.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let image = Self::missing(name);
        std::fs::write(&image.0, bytes).expect("an image");
        image
    }

    /// A name that is free.
    pub fn missing(name: &str) -> Self {
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.img", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).expect("the image")
    }

    /// Whether it begins with these.
    pub fn starts_with(&self, expected: &[u8]) -> bool {
        self.bytes().get(..expected.len()) == Some(expected)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bytes of the blocks in which guests copy.
pub const BLOCK: usize = 64 << 10;

/// `blocks` blocks in which no sector is like another: numbers from a million on, a line each.
pub fn numbers(blocks: usize) -> Vec<u8> {
    let lines = (1_000_000..).flat_map(|n| format!("{n}\n").into_bytes());
    lines.take(blocks * BLOCK).collect()
}

/// How a disk is attached.
#[derive(Clone, Copy)]
pub enum Bus {
    /// As IDE's first.
    Ide,
    /// As virtio's first.
    Virtio,
}

impl Bus {
    /// For names of files and machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::Virtio => "virtio",
        }
    }

    /// The disk in Linux.
    pub fn device(self) -> &'static str {
        match self {
            Self::Ide => "/dev/sda",
            Self::Virtio => "/dev/vda",
        }
    }
}

/// Waits for the drives, which are found while the shell is there already, and mounts the CD.
pub fn found(guest: &mut Machine, bus: Bus) {
    guest.shell();
    // The kernel's lines would stand between what commands print.
    guest.command("dmesg -n 1");
    let device = bus.device();
    guest.command(&format!(
        "while [ ! -b {device} ] || [ ! -b /dev/sr0 ]; do sleep 0.2; done"
    ));
    guest.command("mkdir /tmp/cd && mount -t iso9660 -o ro /dev/sr0 /tmp/cd");
}

/// Checks that the kernel had no trouble with its drives.
pub fn no_trouble(guest: &mut Machine) {
    let log = guest.command("dmesg");
    assert_clean(&log);
    for trouble in TROUBLE {
        assert!(!log.contains(trouble), "{trouble}:\n{log}");
    }
}

/// Has the guest copy `count` blocks of the CD, from block `skip` on, to the start of the disk, and make them last.
pub fn copy(guest: &mut Machine, bus: Bus, skip: usize, count: usize) {
    let device = bus.device();
    guest.command(&format!(
        "dd if=/tmp/cd/data.bin of={device} bs=64k skip={skip} count={count} conv=fsync 2>/dev/null"
    ));
}

/// The sum that the guest finds for `count` blocks of a file from block `skip` on.
pub fn sum(guest: &mut Machine, file: &str, skip: usize, count: usize) -> String {
    let text = guest.command(&format!(
        "dd if={file} bs=64k skip={skip} count={count} 2>/dev/null | md5sum"
    ));
    text.split_whitespace().next().expect("a sum").to_owned()
}

/// Empties the guest's page cache, so that it reads from the drives again.
pub fn forget(guest: &mut Machine) {
    guest.command("echo 3 > /proc/sys/vm/drop_caches");
}
