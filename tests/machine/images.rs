//! Linux on qcow2 images, overlays and snapshots: what it writes is where it belongs, and nowhere else, while the
//! io-worker dies, the whole machine is killed, and the host's disk is full.

#[path = "support/drives.rs"]
mod drives;
#[path = "support/iso.rs"]
mod iso;
mod support;

use std::process::Command;
use std::time::Duration;

use drives::{BLOCK, Bus, Image, copy, forget, found, no_trouble, numbers, sum};
use iso::iso;
use quintet_protocol::handshake::Role;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::{Machine, Setup, assert_clean, scale};

/// Bytes of the disks.
const LEN: usize = 64 << 20;

/// Whether there is a `qemu-img`; where it must not be missing, it does not.
fn has_qemu_img() -> bool {
    let there = Command::new("qemu-img").arg("--version").output().is_ok();
    if !there {
        assert!(
            std::env::var_os("CI").is_none_or(|v| v != "true"),
            "qemu-img is missing"
        );
        eprintln!("SKIPPED: there is no qemu-img; type: sudo apt-get install qemu-utils");
    }
    there
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .expect("qemu-img");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
}

/// What a disk holds before the machine writes to it: blocks of numbers that begin elsewhere.
fn old() -> Vec<u8> {
    let mut bytes = numbers(LEN / BLOCK);
    bytes.rotate_left(4096 * 7);
    bytes
}

/// The same as a qcow2 image.
fn qcow2(name: &str, bytes: &[u8]) -> Image {
    let (raw, image) = (Image::new(&format!("{name}-raw"), bytes), Image::missing(name));
    let paths = [raw.path(), image.path()].map(|p| p.to_str().expect("a name"));
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", paths[0], paths[1]]);
    image
}

/// All bytes of the disk in a qcow2 image that QEMU finds sound.
fn read_qcow2(name: &str, image: &Image) -> Vec<u8> {
    let raw = Image::missing(&format!("{name}-read"));
    let paths = [image.path(), raw.path()].map(|p| p.to_str().expect("a name"));
    qemu_img(&["check", "-q", paths[0]]);
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", paths[0], paths[1]]);
    raw.bytes()
}

struct Drives<'a> {
    architecture: &'a str,
    bus: Bus,
    disk: &'a Image,
    /// What stands behind the disk's name.
    options: String,
    cd: &'a Image,
}

impl Drives<'_> {
    fn start(&self, name: &str) -> Option<Machine> {
        let mut disk = self.disk.path().as_os_str().to_owned();
        disk.push(format!(",bus={},{}", self.bus.name(), self.options));
        let name = format!("{name}-{}-{}", self.bus.name(), self.architecture);
        Some(
            Setup::linux_with_disks(self.architecture)?
                .option("--ram", "256M")
                .option("--stable-after", "0s")
                .option("--disk", disk)
                .option("--cdrom", self.cd.path())
                .start(&name),
        )
    }
}

/// The guest copies parts of the CD over one another while io-worker dies, and reads them back. Answers the machine and what the
/// disk holds then.
fn written(drives: &Drives, name: &str, data: &[u8], before: &[u8]) -> Option<(Machine, Vec<u8>)> {
    let (count, least) = scale((24, 4), (256, 60));
    let mut guest = drives.start(name)?;
    found(&mut guest, drives.bus);
    let killer = guest.killer(Role::Io, Duration::from_millis(1500));
    let mut expected = before.to_vec();
    let mut passes = 0;
    while passes < 2 || killer.kills() < least {
        let skip = passes * 5 % 17;
        copy(&mut guest, drives.bus, skip, count);
        expected[..count * BLOCK].copy_from_slice(&data[skip * BLOCK..][..count * BLOCK]);
        forget(&mut guest);
        let back = sum(&mut guest, drives.bus.device(), 0, count);
        let on_cd = sum(&mut guest, "/tmp/cd/data.bin", skip, count);
        assert_eq!(on_cd, back, "pass {passes}");
        passes += 1;
    }
    let kills = killer.stop();
    println!("{kills} kills in {passes} passes");
    assert!(kills >= least);
    no_trouble(&mut guest);
    Some((guest, expected))
}

fn stock() -> Vec<u8> {
    numbers(scale(24, 256) + 16)
}

fn on_qcow2(architecture: &str, bus: Bus) {
    if !has_qemu_img() {
        return;
    }
    let (data, before) = (stock(), old());
    let name = format!("qcow2-{}-{architecture}", bus.name());
    let (disk, cd) = (
        qcow2(&name, &before),
        Image::new(&format!("{name}-cd"), &iso(&data)),
    );
    let drives = Drives {
        architecture,
        bus,
        disk: &disk,
        options: "format=qcow2".into(),
        cd: &cd,
    };
    let Some((guest, expected)) = written(&drives, &name, &data, &before) else {
        return;
    };
    assert_clean(&guest.power_off());
    assert!(read_qcow2(&name, &disk) == expected);
}

#[test]
fn the_amd64_kernel_loses_no_write_to_a_qcow2_image() {
    on_qcow2("AMD64", Bus::Virtio);
}

#[test]
fn the_i686_kernel_loses_no_write_to_a_qcow2_image_on_ide() {
    on_qcow2("I686", Bus::Ide);
}

#[test]
fn an_overlay_keeps_what_is_written_and_its_base_stays_as_it_is() {
    let (data, before) = (stock(), old());
    let (disk, over) = (
        Image::new("overlay-base", &before),
        Image::missing("overlay-over"),
    );
    let cd = Image::new("overlay-cd", &iso(&data));
    let drives = Drives {
        architecture: "AMD64",
        bus: Bus::Ide,
        disk: &disk,
        options: format!("format=raw,overlay={}", over.path().display()),
        cd: &cd,
    };
    let Some((guest, expected)) = written(&drives, "overlay", &data, &before) else {
        return;
    };
    // All is killed, as it is.
    drop(guest);
    assert!(disk.bytes() == before, "the base");
    let len = over.path().metadata().expect("the overlay").len();
    assert!(len < LEN as u64 / 2, "{len} bytes in the overlay");

    // Another machine finds what was synced, above the base.
    let mut guest = drives.start("overlay-again").expect("as before");
    found(&mut guest, drives.bus);
    let wanted = Image::new("overlay-wanted", &expected);
    let md5 = Command::new("md5sum")
        .arg(wanted.path())
        .output()
        .expect("md5sum");
    let md5 = String::from_utf8(md5.stdout).expect("a sum");
    let back = sum(&mut guest, drives.bus.device(), 0, LEN / BLOCK);
    assert!(md5.starts_with(&back), "{md5} is not {back}");
    no_trouble(&mut guest);
    assert_clean(&guest.power_off());
    assert!(disk.bytes() == before, "the base");
}

#[test]
fn a_snapshot_over_qcow2_leaves_nothing() {
    if !has_qemu_img() {
        return;
    }
    let (data, before) = (stock(), old());
    let (disk, cd) = (qcow2("snapshot", &before), Image::new("snapshot-cd", &iso(&data)));
    let file = disk.bytes();
    let drives = Drives {
        architecture: "AMD64",
        bus: Bus::Virtio,
        disk: &disk,
        options: "format=qcow2,snapshot=on".into(),
        cd: &cd,
    };
    let Some((guest, expected)) = written(&drives, "snapshot", &data, &before) else {
        return;
    };
    assert!(expected != before);
    assert_clean(&guest.power_off());
    assert!(disk.bytes() == file, "the image");
}

/// Lets a process's files grow to so many bytes, or as they like.
fn limit(pid: i32, bytes: Option<u64>) {
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(Pid::from_raw(pid), Resource::Fsize, limit).expect("a limit");
}

/// The host's disk is full while the guest writes: it hears of it, what was there stays, and when there is room again it
/// goes on.
fn full(bus: Bus) {
    let (data, before) = (stock(), old());
    let name = format!("full-{}", bus.name());
    let (disk, over) = (
        Image::new(&name, &before),
        Image::missing(&format!("{name}-over")),
    );
    let cd = Image::new(&format!("{name}-cd"), &iso(&data));
    let drives = Drives {
        architecture: "AMD64",
        bus,
        disk: &disk,
        options: format!("format=raw,overlay={}", over.path().display()),
        cd: &cd,
    };
    let Some(mut guest) = drives.start(&name) else {
        return;
    };
    found(&mut guest, bus);
    copy(&mut guest, bus, 0, 4);
    let first = sum(&mut guest, "/tmp/cd/data.bin", 0, 4);
    let io = guest.pid(Role::Io);
    limit(io, Some(over.path().metadata().expect("the overlay").len()));
    let device = bus.device();
    let said = guest.command(&format!(
        "dd if=/tmp/cd/data.bin of={device} bs=64k seek=100 count=8 conv=fsync 2>&1 || echo refused"
    ));
    assert!(said.contains("refused"), "{said}");
    let log = guest.command("dmesg");
    assert!(log.contains("I/O error"), "{log}");
    forget(&mut guest);
    assert_eq!(sum(&mut guest, device, 0, 4), first, "what was there");
    // Nobody died of it.
    assert_eq!(guest.pid(Role::Io), io);
    limit(io, None);
    guest.command(&format!(
        "dd if=/tmp/cd/data.bin of={device} bs=64k seek=100 count=8 conv=fsync 2>/dev/null"
    ));
    forget(&mut guest);
    let text = guest.command(&format!(
        "dd if={device} bs=64k skip=100 count=8 2>/dev/null | md5sum"
    ));
    let on_cd = sum(&mut guest, "/tmp/cd/data.bin", 0, 8);
    assert!(text.starts_with(&on_cd), "{text}");
    assert_clean(&guest.power_off());
    assert!(disk.bytes() == before, "the base");
}

#[test]
fn a_full_host_is_an_error_of_the_virtio_disk_and_loses_nothing() {
    full(Bus::Virtio);
}

#[test]
fn a_full_host_is_an_error_of_the_ide_disk_and_loses_nothing() {
    full(Bus::Ide);
}

/// Reads of megabytes, none of which the host's page cache answers: the disk's thread fills and frees large buffers, and may
/// open nothing on the way.
#[test]
fn large_reads_of_a_qcow2_image_kill_nobody() {
    if !has_qemu_img() {
        return;
    }
    let before = old();
    let (disk, cd) = (qcow2("large", &before), Image::new("large-cd", &iso(&numbers(1))));
    let drives = Drives {
        architecture: "AMD64",
        bus: Bus::Virtio,
        disk: &disk,
        options: "format=qcow2".into(),
        cd: &cd,
    };
    let Some(mut guest) = drives.start("large") else {
        return;
    };
    found(&mut guest, drives.bus);
    let io = guest.pid(Role::Io);
    for _ in 0..3 {
        forget(&mut guest);
        guest.command("dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null");
        guest.command("dd if=/dev/zero of=/dev/vda bs=1M count=32 conv=fsync 2>/dev/null");
    }
    assert_eq!(guest.pid(Role::Io), io);
    no_trouble(&mut guest);
    assert_clean(&guest.power_off());
}
