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

/// How the disk is attached.
#[derive(Clone, Copy)]
enum Bus {
    Ide,
    Virtio,
}

impl Bus {
    /// For names of files and machines.
    fn name(self) -> &'static str {
        match self {
            Self::Ide => "ide",
            Self::Virtio => "virtio",
        }
    }

    /// The disk in Linux.
    fn device(self) -> &'static str {
        match self {
            Self::Ide => "/dev/sda",
            Self::Virtio => "/dev/vda",
        }
    }
}

/// Waits for the drives, which are found while the shell is there already.
fn found(guest: &mut Machine, bus: Bus) {
    guest.shell();
    // The kernel's lines would stand between what commands print.
    guest.command("dmesg -n 1");
    let device = bus.device();
    guest.command(&format!(
        "while [ ! -b {device} ] || [ ! -b /dev/sr0 ]; do sleep 0.2; done"
    ));
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
fn start(architecture: &str, name: &str, bus: Bus, disk: &Image, cd: &Image) -> Option<Machine> {
    let setup = Setup::linux_with_disks(architecture)?;
    let mut disk_option = disk.path().as_os_str().to_owned();
    disk_option.push(format!(",format=raw,bus={}", bus.name()));
    Some(
        setup
            .option("--ram", "256M")
            .option("--stable-after", "0s")
            .option("--disk", disk_option)
            .option("--cdrom", cd.path())
            .start(&format!("{name}-{}-{architecture}", bus.name())),
    )
}

/// Has the guest copy `count` blocks of the CD, from block `skip` on, to the start of the disk, and make them last.
fn copy(guest: &mut Machine, bus: Bus, skip: usize, count: usize) {
    let device = bus.device();
    guest.command(&format!(
        "dd if=/tmp/cd/data.bin of={device} bs=64k skip={skip} count={count} conv=fsync 2>/dev/null"
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

/// What the guest finds out about its disk.
fn inspected(guest: &mut Machine, bus: Bus) {
    let function = match bus {
        Bus::Ide => "01.1",
        Bus::Virtio => "05.0",
    };
    let config = guest.command(&format!(
        "cd /sys/bus/pci/devices/0000:00:{function}; cat vendor device class; cd /"
    ));
    let config: Vec<_> = config.split_whitespace().collect();
    match bus {
        Bus::Ide => {
            assert_eq!(config, ["0x8086", "0x7010", "0x010180"]);
            let log = guest.command("dmesg | grep ata1");
            assert!(log.contains("QUINTET HARDDISK"), "{log}");
            let mode = guest.command("cat /sys/class/ata_device/dev1.0/xfer_mode");
            assert_eq!(mode.trim(), "XFER_MW_DMA_2");
        }
        Bus::Virtio => {
            assert_eq!(config, ["0x1af4", "0x1042", "0x010000"]);
            let said = guest
                .command("cd /sys/block/vda; cat serial; echo; cat cache_type size ro device/features; cd /");
            let said: Vec<_> = said.split_whitespace().collect();
            assert_eq!(said[..5], ["QT00005", "write", "back", "131072", "0"]);
            // SEG_MAX, BLK_SIZE, FLUSH, INDIRECT_DESC, EVENT_IDX, VERSION_1 are accepted.
            for bit in [2, 6, 9, 28, 29, 32] {
                assert_eq!(said[5].as_bytes()[bit], b'1', "feature {bit} in {}", said[5]);
            }
        }
    }
}

fn reads_and_writes(architecture: &str, bus: Bus) {
    let blocks = 64;
    let data = numbers(blocks);
    let name = format!("{}-{architecture}", bus.name());
    let (disk, cd) = (
        Image::new(&format!("disk-{name}"), &vec![0; 64 << 20]),
        Image::new(&format!("cd-{name}"), &iso(&data)),
    );
    let Some(mut guest) = start(architecture, "disks", bus, &disk, &cd) else {
        return;
    };
    found(&mut guest, bus);
    inspected(&mut guest, bus);
    let device = bus.device();

    copy(&mut guest, bus, 0, blocks);
    assert!(disk.starts_with(&data), "what the CD has is in the image");
    forget(&mut guest);
    let on_cd = sum(&mut guest, "/tmp/cd/data.bin", 0, blocks);
    assert_eq!(sum(&mut guest, device, 0, blocks), on_cd);

    guest.command(&format!(
        "mke2fs {device} >/dev/null && mount -t ext4 {device} /mnt"
    ));
    guest.command("cp /tmp/cd/data.bin /mnt/one && cp /mnt/one /mnt/two && umount /mnt");
    forget(&mut guest);
    guest.command(&format!("mount -t ext4 -o ro {device} /mnt"));
    for file in ["/mnt/one", "/mnt/two"] {
        assert_eq!(sum(&mut guest, file, 0, blocks), on_cd, "{file}");
    }
    guest.command("umount /mnt");
    no_trouble(&mut guest);
    assert_clean(&guest.power_off());
}

#[test]
fn the_amd64_kernel_reads_and_writes_disk_and_cd() {
    reads_and_writes("AMD64", Bus::Ide);
}

#[test]
fn the_i686_kernel_reads_and_writes_disk_and_cd() {
    reads_and_writes("I686", Bus::Ide);
}

#[test]
fn the_amd64_kernel_reads_and_writes_a_virtio_disk() {
    reads_and_writes("AMD64", Bus::Virtio);
}

#[test]
fn the_i686_kernel_reads_and_writes_a_virtio_disk() {
    reads_and_writes("I686", Bus::Virtio);
}

/// The same sectors are written over and over with other numbers while io-worker dies: a write that was lost, or came
/// late, would show in a later pass.
fn survives(architecture: &str, bus: Bus) {
    let (count, least) = scale((32, 4), (256, 60));
    let stock = count + 16;
    let data = numbers(stock);
    let name = format!("{}-{architecture}", bus.name());
    let (disk, cd) = (
        Image::new(&format!("killed-{name}"), &vec![0; 64 << 20]),
        Image::new(&format!("killed-cd-{name}"), &iso(&data)),
    );
    let Some(mut guest) = start(architecture, "killed-disks", bus, &disk, &cd) else {
        return;
    };
    found(&mut guest, bus);
    let killer = guest.killer(Role::Io, Duration::from_millis(1500));
    let mut passes = 0;
    while passes < 2 || killer.kills() < least {
        let skip = passes * 5 % 17;
        copy(&mut guest, bus, skip, count);
        assert!(
            disk.starts_with(&data[skip * BLOCK..][..count * BLOCK]),
            "pass {passes}"
        );
        forget(&mut guest);
        let back = sum(&mut guest, bus.device(), 0, count);
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
    survives("AMD64", Bus::Ide);
}

#[test]
fn the_i686_kernel_loses_no_write_to_a_killed_io_worker() {
    survives("I686", Bus::Ide);
}

#[test]
fn the_amd64_kernel_loses_no_virtio_write_to_a_killed_io_worker() {
    survives("AMD64", Bus::Virtio);
}

#[test]
fn the_i686_kernel_loses_no_virtio_write_to_a_killed_io_worker() {
    survives("I686", Bus::Virtio);
}
