//! Debian's own drivers of the floppy controller and of the mouse, which most tests do without: what they read, write and report.

#[path = "support/drives.rs"]
mod drives;
#[path = "support/says.rs"]
mod says;
mod support;

use drives::{BLOCK, Image, numbers};
use quintet_protocol::handshake::Role;
use says::quintet_says;
use support::{Setup, assert_clean};

/// Bytes of a diskette of 1.44 MB.
const DISKETTE: usize = 1_474_560;

/// Two diskettes are read, and then each is written with what was on the other; io-worker dies in the middle of that.
fn swaps(architecture: &str) {
    let Some(setup) = Setup::linux_with_disks(architecture) else {
        return;
    };
    let blocks = DISKETTE.div_ceil(BLOCK);
    let all = numbers(2 * blocks);
    let bytes = [0, 1].map(|n| all[n * blocks * BLOCK..][..DISKETTE].to_vec());
    let images = [0, 1].map(|n| Image::new(&format!("diskette-{n}-{architecture}"), &bytes[n]));
    let mut guest = setup
        .option("--ram", "256M")
        .option("--stable-after", "0s")
        .option("--floppy", images[0].path())
        .start(&format!("drivers-floppy-{architecture}"));
    guest.shell();
    guest.command("dmesg -n 1");
    guest.command("insmod /lib/drivers/floppy.ko");
    let log = guest.command("dmesg | grep -i -E 'floppy|fdc'");
    assert!(log.contains("fd0 is 1.44M") && log.contains("82077"), "{log}");
    let insert = |name: &str, n: usize| {
        let path = images[n].path().to_str().expect("a name");
        assert_eq!(
            quintet_says(&["insert", name, "floppy", path]),
            (true, String::new())
        );
    };
    let name = guest.name.clone();
    // The driver looks for a change when zero is long ago. In a 32-bit kernel's first five minutes it is to come, and the first who
    // reads is told that there was a change.
    let look = "dd if=/dev/fd0 of=/dev/null count=1 2> /dev/null || true";
    guest.command("dd if=/dev/fd0 of=/tmp/first bs=18k");
    insert(&name, 1);
    guest.command(look);
    guest.command("dd if=/dev/fd0 of=/tmp/second bs=18k");
    assert_ne!(
        guest.command("md5sum < /tmp/first"),
        guest.command("md5sum < /tmp/second")
    );

    guest.command(
        "(dd if=/tmp/first of=/dev/fd0 bs=18k conv=fsync; echo $? > /tmp/written) 2> /dev/null & sleep 1",
    );
    guest.kill(Role::Io);
    guest.command("while [ ! -e /tmp/written ]; do sleep 1; done; [ $(cat /tmp/written) = 0 ]");
    insert(&name, 0);
    guest.command(look);
    guest.command("dd if=/tmp/second of=/dev/fd0 bs=18k conv=fsync");
    for (n, image) in images.iter().enumerate() {
        assert!(
            image.bytes() == bytes[1 - n],
            "diskette {n} has what was on the other"
        );
    }
    assert_clean(&guest.power_off());
}

#[test]
fn the_amd64_kernel_reads_writes_and_changes_diskettes() {
    swaps("AMD64");
}

#[test]
fn the_i686_kernel_reads_writes_and_changes_diskettes() {
    swaps("I686");
}

/// Events of `linux/input.h`: type, code and value.
fn reports(architecture: &str, bytes_of_an_event: usize) {
    const SYN: u16 = 0;
    const KEY: u16 = 1;
    const REL: u16 = 2;
    const WHEEL: u16 = 8;
    const LEFT: u16 = 0x110;
    const EXTRA: u16 = 0x114;
    const SIDE: u16 = 0x113;
    let Some(setup) = Setup::linux_with_disks(architecture) else {
        return;
    };
    let mut guest = setup
        .option("--ram", "256M")
        .start(&format!("drivers-mouse-{architecture}"));
    guest.shell();
    guest.command("dmesg -n 1; insmod /lib/drivers/evdev.ko; insmod /lib/drivers/psmouse.ko");
    guest.command("while [ ! -e /sys/class/input/mouse0/device ]; do sleep 1; done");
    let mouse = guest.command("cat /sys/class/input/mouse0/device/name");
    assert_eq!(mouse.trim(), "ImExPS/2 Generic Explorer Mouse");
    guest.command("cat /dev/input/$(basename /sys/class/input/mouse0/device/event*) > /tmp/events & sleep 1");
    let expected: &[(u16, u16, i16)] = &[
        (REL, 0, 7),
        (REL, 1, -3),
        (KEY, LEFT, 1),
        (KEY, LEFT, 0),
        (REL, WHEEL, 1),
        (KEY, SIDE, 1),
        (KEY, SIDE, 0),
        (KEY, EXTRA, 1),
        (KEY, EXTRA, 0),
    ];
    let name = guest.name.clone();
    for action in [
        &["move", "7", "-3"][..],
        &["click", "left"],
        &["wheel", "1"],
        &["click", "back"],
        &["click", "forward"],
    ] {
        let words = [&["mouse", &name], action].concat();
        assert_eq!(quintet_says(&words), (true, String::new()), "{words:?}");
    }
    let mut seen = Vec::new();
    for _ in 0..60 {
        let dump = guest.command(&format!(
            "sleep 1; od -An -v -t d2 -w{bytes_of_an_event} /tmp/events"
        ));
        seen = dump
            .lines()
            .filter_map(|line| {
                let words: Vec<i16> = line
                    .split_whitespace()
                    .map(|w| w.parse().expect("a number"))
                    .collect();
                let [.., kind, code, value, _] = words[..] else {
                    return None;
                };
                Some((kind.cast_unsigned(), code.cast_unsigned(), value))
            })
            .filter(|(kind, ..)| *kind != SYN)
            .collect();
        if seen.len() >= expected.len() {
            break;
        }
    }
    assert_eq!(seen, expected);
    assert_clean(&guest.power_off());
}

#[test]
fn the_amd64_kernel_finds_a_mouse_with_a_wheel_and_five_buttons() {
    reports("AMD64", 24);
}

#[test]
fn the_i686_kernel_finds_a_mouse_with_a_wheel_and_five_buttons() {
    reports("I686", 16);
}
