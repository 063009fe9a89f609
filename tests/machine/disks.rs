//! Linux on the disks of the machine: what it writes is in the image, what it reads is what was there, and a dying
//! io-worker changes neither; nor does a change of what is in a drive.

#[path = "support/drives.rs"]
mod drives;
#[path = "support/iso.rs"]
mod iso;
#[path = "support/says.rs"]
mod says;
mod support;

use std::io::Write as _;
use std::time::Duration;

use drives::{BLOCK, Bus, Image, copy, forget, found, no_trouble, numbers, sum};
use iso::iso;
use quintet_protocol::handshake::Role;
use says::quintet_says;
use support::{Machine, Setup, assert_clean, scale};

/// A machine with a disk and a CD.
fn start(architecture: &str, name: &str, bus: Bus, disk: &Image, cd: &Image) -> Option<Machine> {
    start_by("jit", architecture, name, bus, disk, cd)
}

fn start_by(
    accel: &str,
    architecture: &str,
    name: &str,
    bus: Bus,
    disk: &Image,
    cd: &Image,
) -> Option<Machine> {
    let setup = Setup::linux_with_disks(architecture)?;
    let mut disk_option = disk.path().as_os_str().to_owned();
    disk_option.push(format!(",format=raw,bus={}", bus.name()));
    Some(
        setup
            .option("--ram", "256M")
            .option("--accel", accel)
            .option("--stable-after", "0s")
            .option("--disk", disk_option)
            .option("--cdrom", cd.path())
            .start(&format!("{name}-{}-{architecture}", bus.name())),
    )
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

fn reads_and_writes(accel: &str, architecture: &str, bus: Bus) {
    let blocks = 64;
    let data = numbers(blocks);
    let name = format!("{}-{architecture}", bus.name());
    let (disk, cd) = (
        Image::new(&format!("disk-{name}"), &vec![0; 64 << 20]),
        Image::new(&format!("cd-{name}"), &iso(&data)),
    );
    let Some(mut guest) = start_by(accel, architecture, "disks", bus, &disk, &cd) else {
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
fn the_interpreted_amd64_kernel_reads_and_writes_disk_and_cd() {
    reads_and_writes("interp", "AMD64", Bus::Ide);
}

#[test]
fn the_i686_kernel_reads_and_writes_disk_and_cd() {
    reads_and_writes("jit", "I686", Bus::Ide);
}

#[test]
fn the_amd64_kernel_reads_and_writes_a_virtio_disk() {
    reads_and_writes("jit", "AMD64", Bus::Virtio);
}

#[test]
fn the_interpreted_i686_kernel_reads_and_writes_a_virtio_disk() {
    reads_and_writes("interp", "I686", Bus::Virtio);
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

/// Half a gigabyte from CD to disk, as long as it takes for gpu-, audio- and io-worker to die several times each, at random moments
/// two seconds apart in the mean.
fn copies_half_a_gigabyte(bus: Bus) {
    const LEAST: u32 = 5;
    let blocks = (500 << 20) / BLOCK;
    let data = numbers(blocks);
    let (disk, cd) = (
        Image::new(&format!("large-{}", bus.name()), &[]),
        Image::new(&format!("large-cd-{}", bus.name()), &iso(&data)),
    );
    let file = std::fs::OpenOptions::new().write(true).open(disk.path());
    file.and_then(|file| file.set_len(512 << 20)).expect("room");
    let Some(mut guest) = start("AMD64", "large-copy", bus, &disk, &cd) else {
        return;
    };
    found(&mut guest, bus);
    let killers = [Role::Gpu, Role::Audio, Role::Io].map(|role| guest.killer(role, Duration::from_secs(4)));
    let on_cd = sum(&mut guest, "/tmp/cd/data.bin", 0, blocks);
    let mut passes = 0;
    while passes < 1 || killers.iter().any(|k| k.kills() < LEAST) {
        copy(&mut guest, bus, 0, blocks);
        assert!(disk.starts_with(&data), "pass {passes}");
        forget(&mut guest);
        assert_eq!(sum(&mut guest, bus.device(), 0, blocks), on_cd, "pass {passes}");
        // The next pass finds nothing of this one.
        let file = std::fs::OpenOptions::new().write(true).open(disk.path());
        let zeros = vec![0; 1 << 20];
        let wiped = file.and_then(|mut file| (0..500).try_for_each(|_| file.write_all(&zeros)));
        wiped.expect("the image");
        passes += 1;
    }
    let kills = killers.map(support::Killer::stop);
    println!("{passes} passes; killed gpu-, audio- and io-worker: {kills:?} times");
    no_trouble(&mut guest);
    assert_eq!(guest.report().expect("answers").resets, 1);
    assert_clean(&guest.power_off());
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn half_a_gigabyte_is_copied_while_workers_die() {
    copies_half_a_gigabyte(Bus::Ide);
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn half_a_gigabyte_is_copied_to_a_virtio_disk_while_workers_die() {
    copies_half_a_gigabyte(Bus::Virtio);
}

/// Takes a CD out and puts others in under a kernel that knows the first, while it writes to its disk.
fn changes(architecture: &str) {
    let blocks = 16;
    let discs = [numbers(blocks), numbers(3 * blocks).split_off(2 * blocks * BLOCK)];
    let [first, second] = [0, 1].map(|n| Image::new(&format!("changed-{n}-{architecture}"), &iso(&discs[n])));
    let disk = Image::new(&format!("changed-{architecture}"), &vec![0; 64 << 20]);
    let Some(mut guest) = start(architecture, "changed-cd", Bus::Ide, &disk, &first) else {
        return;
    };
    found(&mut guest, Bus::Ide);
    let name = guest.name.clone();
    let path = |image: &Image| image.path().to_str().expect("a name").to_owned();
    // What is on a disc is read by copying it to the disk.
    let reads = |guest: &mut Machine, n: usize| {
        copy(guest, Bus::Ide, 0, blocks);
        assert!(disk.starts_with(&discs[n]), "disc {n}");
        guest.command("umount /tmp/cd");
    };

    // What is wrong changes nothing.
    for (words, why) in [
        (["insert", &name, "cdrom", "/no/such.iso"], "/no/such.iso"),
        (
            [
                "insert",
                &name,
                "cdrom",
                &path(&first)[..path(&first).rfind('/').expect("a folder")],
            ],
            "is a directory",
        ),
        (
            ["insert", &name, "floppy", &path(&second)],
            "has no floppy drive; start it with --floppy",
        ),
    ] {
        let (done, said) = quintet_says(&words);
        assert!(!done && said.contains(why), "{words:?}: {said}");
    }
    let (done, said) = quintet_says(&["eject", &name, "floppy"]);
    assert!(
        !done && said.contains("has no floppy drive; start it with --floppy"),
        "{said}"
    );
    let generation = |guest: &Machine| {
        let report = guest.report().expect("answers");
        assert!(
            report.workers.iter().all(|w| w.last_death.is_empty()),
            "{report:?}"
        );
        report.workers[Role::Io.index() - 1].generation
    };
    let before = generation(&guest);

    // Somebody writes meanwhile, and nothing of it is lost.
    let dd = "dd of=/dev/sda bs=64k seek=512 count=64 iflag=fullblock conv=fsync";
    guest.command(&format!(
        "(while [ ! -e /tmp/stop ]; do tr '\\0' x </dev/zero | {dd}; done >/dev/null 2>&1 &)"
    ));
    reads(&mut guest, 0);
    assert_eq!(quintet_says(&["eject", &name, "cdrom"]), (true, String::new()));
    let none = guest.command("dd if=/dev/sr0 of=/dev/null count=1 2>&1 || true");
    assert!(none.contains("No medium found"), "{none}");
    let (done, said) = quintet_says(&["eject", &name, "cdrom"]);
    assert!(!done && said.contains("Nothing is in the cdrom drive"), "{said}");
    assert_eq!(
        quintet_says(&["insert", &name, "cdrom", &path(&second)]),
        (true, String::new())
    );
    guest.command("mount -t iso9660 -o ro /dev/sr0 /tmp/cd");
    reads(&mut guest, 1);
    // One for another.
    assert_eq!(
        quintet_says(&["insert", &name, "cdrom", &path(&first)]),
        (true, String::new())
    );
    guest.command("mount -t iso9660 -o ro /dev/sr0 /tmp/cd");
    reads(&mut guest, 0);
    guest.command("touch /tmp/stop; sleep 1");
    assert_eq!(generation(&guest), before + 3, "one for each change");
    let written = &disk.bytes()[512 * BLOCK..][..64 * BLOCK];
    assert!(written.iter().all(|b| *b == b'x'), "a write was lost");
    assert_eq!(guest.report().expect("answers").resets, 1);
    assert_clean(&guest.power_off());
}

#[test]
fn the_amd64_kernel_notices_that_its_cd_is_another_and_loses_no_write_meanwhile() {
    changes("AMD64");
}

#[test]
fn the_i686_kernel_notices_that_its_cd_is_another_and_loses_no_write_meanwhile() {
    changes("I686");
}
