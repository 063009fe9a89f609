//! Linux on the disks of the machine: what it writes is in the image, what it reads is what was there, and a dying
//! io-worker changes neither.

#[path = "support/iso.rs"]
mod iso;
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use iso::iso;
use quintet_protocol::handshake::Role;
use support::{Machine, Setup, assert_clean, scale};

/// What a kernel says of a disk that gives it trouble.
const TROUBLE: &[&str] = &[
    "I/O error",
    "exception Emask",
    "failed command",
    "qc timeout",
    "EXT4-fs error",
];

/// A file of this test, removed at the end.
struct Image(PathBuf);

impl Image {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.img", std::process::id()));
        std::fs::write(&path, bytes).expect("an image");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn starts_with(&self, expected: &[u8]) -> bool {
        let bytes = std::fs::read(&self.0).expect("the image");
        bytes.get(..expected.len()) == Some(expected)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Bytes of the blocks in which guests copy.
const BLOCK: usize = 64 << 10;

/// `blocks` blocks in which no sector is like another: numbers of seven digits, a line each.
fn numbers(blocks: usize) -> Vec<u8> {
    (1_000_000..)
        .take(blocks * BLOCK / 8)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect()
}

/// Waits for the drives, which are found while the shell is there already.
fn found(guest: &mut Machine) {
    guest.shell();
    // The kernel's lines would stand between what commands print.
    guest.command("dmesg -n 1");
    guest.command("while [ ! -b /dev/sda ] || [ ! -b /dev/sr0 ]; do sleep 0.2; done");
    guest.command("mkdir /tmp/cd && mount -t iso9660 -o ro /dev/sr0 /tmp/cd");
}

fn no_trouble(guest: &mut Machine) {
    let log = guest.command("dmesg");
    assert_clean(&log);
    for trouble in TROUBLE {
        assert!(!log.contains(trouble), "{trouble}:\n{log}");
    }
}

/// A machine with a disk and a CD.
fn start(architecture: &str, name: &str, disk: &Image, cd: &Image) -> Option<Machine> {
    let setup = Setup::linux_with_disks(architecture)?;
    let mut disk_option = disk.path().as_os_str().to_owned();
    disk_option.push(",format=raw");
    Some(
        setup
            .option("--ram", "256M")
            .option("--stable-after", "0s")
            .option("--disk", disk_option)
            .option("--cdrom", cd.path())
            .start(&format!("{name}-{architecture}")),
    )
}

/// Has the guest copy `count` blocks of the CD, from block `skip` on, to the start of the disk, and make them last.
fn copy(guest: &mut Machine, skip: usize, count: usize) {
    guest.command(&format!(
        "dd if=/tmp/cd/data.bin of=/dev/sda bs=64k skip={skip} count={count} conv=fsync 2>/dev/null"
    ));
}

/// The sum that the guest finds for `count` blocks of a file from block `skip` on.
fn sum(guest: &mut Machine, file: &str, skip: usize, count: usize) -> String {
    let text = guest.command(&format!(
        "dd if={file} bs=64k skip={skip} count={count} 2>/dev/null | md5sum"
    ));
    text.split_whitespace().next().expect("a sum").to_owned()
}

/// Empties the guest's page cache, so that it reads from the drives again.
fn forget(guest: &mut Machine) {
    guest.command("echo 3 > /proc/sys/vm/drop_caches");
}

fn reads_and_writes(architecture: &str) {
    let blocks = 64;
    let data = numbers(blocks);
    let (disk, cd) = (
        Image::new(&format!("disk-{architecture}"), &vec![0; 64 << 20]),
        Image::new(&format!("cd-{architecture}"), &iso(&data)),
    );
    let Some(mut guest) = start(architecture, "disks", &disk, &cd) else {
        return;
    };
    found(&mut guest);
    let config = guest.command("cd /sys/bus/pci/devices/0000:00:01.1; cat vendor device class; cd /");
    assert_eq!(
        config.split_whitespace().collect::<Vec<_>>(),
        ["0x8086", "0x7010", "0x010180"]
    );
    let log = guest.command("dmesg | grep ata1");
    assert!(log.contains("QUINTET HARDDISK"), "{log}");
    let mode = guest.command("cat /sys/class/ata_device/dev1.0/xfer_mode");
    assert_eq!(mode.trim(), "XFER_MW_DMA_2");

    copy(&mut guest, 0, blocks);
    assert!(disk.starts_with(&data), "what the CD has is in the image");
    forget(&mut guest);
    let on_cd = sum(&mut guest, "/tmp/cd/data.bin", 0, blocks);
    assert_eq!(sum(&mut guest, "/dev/sda", 0, blocks), on_cd);

    guest.command("mke2fs /dev/sda >/dev/null && mount -t ext4 /dev/sda /mnt");
    guest.command("cp /tmp/cd/data.bin /mnt/one && cp /mnt/one /mnt/two && umount /mnt");
    forget(&mut guest);
    guest.command("mount -t ext4 -o ro /dev/sda /mnt");
    for file in ["/mnt/one", "/mnt/two"] {
        assert_eq!(sum(&mut guest, file, 0, blocks), on_cd, "{file}");
    }
    guest.command("umount /mnt");
    no_trouble(&mut guest);
    assert_clean(&guest.power_off());
}

#[test]
fn the_amd64_kernel_reads_and_writes_disk_and_cd() {
    reads_and_writes("AMD64");
}

#[test]
fn the_i686_kernel_reads_and_writes_disk_and_cd() {
    reads_and_writes("I686");
}

/// The same sectors are written over and over with other numbers while io-worker dies: a write that was lost, or came
/// late, would show in a later pass.
fn survives(architecture: &str) {
    let (count, least) = scale((32, 4), (256, 60));
    let stock = count + 16;
    let data = numbers(stock);
    let (disk, cd) = (
        Image::new(&format!("killed-{architecture}"), &vec![0; 64 << 20]),
        Image::new(&format!("killed-cd-{architecture}"), &iso(&data)),
    );
    let Some(mut guest) = start(architecture, "killed-disks", &disk, &cd) else {
        return;
    };
    found(&mut guest);
    let killer = guest.killer(Role::Io, Duration::from_millis(1500));
    let mut passes = 0;
    while passes < 2 || killer.kills() < least {
        let skip = passes * 5 % 17;
        copy(&mut guest, skip, count);
        assert!(
            disk.starts_with(&data[skip * BLOCK..][..count * BLOCK]),
            "pass {passes}"
        );
        forget(&mut guest);
        let back = sum(&mut guest, "/dev/sda", 0, count);
        assert_eq!(
            sum(&mut guest, "/tmp/cd/data.bin", skip, count),
            back,
            "pass {passes}"
        );
        passes += 1;
    }
    let kills = killer.stop();
    println!("{kills} kills in {passes} passes");
    assert!(kills >= least);
    no_trouble(&mut guest);
    assert_eq!(guest.report().expect("answers").resets, 1);
    assert_clean(&guest.power_off());
}

#[test]
fn the_amd64_kernel_loses_no_write_to_a_killed_io_worker() {
    survives("AMD64");
}

#[test]
fn the_i686_kernel_loses_no_write_to_a_killed_io_worker() {
    survives("I686");
}
