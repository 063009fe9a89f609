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

/// What `seq FROM TO` prints for numbers of seven digits: eight bytes each.
fn numbers(from: u32, count: u32) -> Vec<u8> {
    (from..from + count)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect()
}

/// Waits for the drives, which are found while the shell is there already.
fn found(guest: &mut Machine) {
    guest.shell();
    // The kernel's lines would stand between what commands print.
    guest.command("dmesg -n 1");
    guest.command("while [ ! -b /dev/sda ] || [ ! -b /dev/sr0 ]; do sleep 0.2; done");
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

/// Has the guest write `count` numbers to the disk, past its page cache when it reads them back.
fn write_numbers(guest: &mut Machine, from: u32, count: u32) {
    let last = from + count - 1;
    guest.command(&format!(
        "seq {from} {last} | dd of=/dev/sda bs=64k iflag=fullblock conv=fsync 2>/dev/null"
    ));
}

fn sum(guest: &mut Machine, command: &str) -> String {
    let text = guest.command(&format!("{command} | md5sum"));
    text.split_whitespace().next().expect("a sum").to_owned()
}

fn reads_and_writes(architecture: &str) {
    let count = 512 << 10;
    let data = numbers(3_000_000, 300_001);
    let (disk, cd) = (
        Image::new(&format!("disk-{architecture}"), &vec![0; 64 << 20]),
        Image::new(&format!("cd-{architecture}"), &iso(&data)),
    );
    let Some(mut guest) = start(architecture, "disks", &disk, &cd) else {
        return;
    };
    found(&mut guest);
    let config = guest.command("cat /sys/bus/pci/devices/0000:00:01.1/vendor /sys/bus/pci/devices/0000:00:01.1/device /sys/bus/pci/devices/0000:00:01.1/class");
    assert_eq!(
        config.split_whitespace().collect::<Vec<_>>(),
        ["0x8086", "0x7010", "0x010180"]
    );
    let log = guest.command("dmesg | grep ata1");
    assert!(log.contains("QUINTET HARDDISK"), "{log}");
    let mode = guest.command("cat /sys/class/ata_device/dev1.0/xfer_mode");
    assert!(mode.contains("MW_DMA_2"), "{mode}");

    write_numbers(&mut guest, 1_000_000, count);
    guest.command("echo 3 > /proc/sys/vm/drop_caches");
    let back = sum(
        &mut guest,
        &format!("dd if=/dev/sda bs=64k count={} 2>/dev/null", count * 8 / 65536),
    );
    assert_eq!(back, sum(&mut guest, &format!("seq 1000000 {}", 999_999 + count)));
    assert!(
        disk.starts_with(&numbers(1_000_000, count)),
        "what the guest wrote is in the image"
    );

    guest.command("mount -t iso9660 -o ro /dev/sr0 /mnt");
    let on_cd = sum(&mut guest, "cat /mnt/data.bin");
    assert_eq!(on_cd, sum(&mut guest, "seq 3000000 3300000"));
    guest.command("umount /mnt");

    guest.command("mke2fs /dev/sda >/dev/null && mount -t ext4 /dev/sda /mnt");
    guest.command("seq 2000000 2400000 > /mnt/numbers && cp /mnt/numbers /mnt/again && umount /mnt");
    guest.command("echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 -o ro /dev/sda /mnt");
    guest.command("cmp /mnt/numbers /mnt/again && umount /mnt");
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

/// The same sectors are written over and over while io-worker dies: a write that came late would show in a later pass.
fn survives(architecture: &str) {
    let (count, least) = scale((256 << 10, 4), (2 << 20, 60));
    let data = numbers(5_000_000, 200_000);
    let (disk, cd) = (
        Image::new(&format!("killed-{architecture}"), &vec![0; 64 << 20]),
        Image::new(&format!("killed-cd-{architecture}"), &iso(&data)),
    );
    let Some(mut guest) = start(architecture, "killed-disks", &disk, &cd) else {
        return;
    };
    found(&mut guest);
    guest.command("mount -t iso9660 -o ro /dev/sr0 /mnt");
    let expected_cd = sum(&mut guest, "seq 5000000 5199999");
    let killer = guest.killer(
        Role::Io,
        scale(Duration::from_millis(600), Duration::from_secs(1)),
    );
    let mut from = 1_000_000;
    let mut passes = 0;
    while passes < 2 || killer.kills() < least {
        write_numbers(&mut guest, from, count);
        assert!(disk.starts_with(&numbers(from, count)), "pass {passes}");
        guest.command("echo 3 > /proc/sys/vm/drop_caches");
        let back = sum(
            &mut guest,
            &format!(
                "dd if=/dev/sda bs=64k count={} 2>/dev/null",
                count as usize * 8 / 65536
            ),
        );
        assert_eq!(
            back,
            sum(&mut guest, &format!("seq {from} {}", from + count - 1)),
            "pass {passes}"
        );
        assert_eq!(sum(&mut guest, "cat /mnt/data.bin"), expected_cd, "pass {passes}");
        from = 1_000_000 + (from + 1_234_567) % 3_000_000;
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
