//! A diskette that takes the machine over as games for DOS do: keyboard, timer, palette, planes and mouse by its own hands.
//!
//! The guest (`tests/guests/disk/arcade.S`) is played: keys, mouse and a byte for each picture come from here, and every dot of a picture
//! is compared with what the guest drew by what this file works out. Under QEMU with SeaBIOS the same diskette says the same, but for
//! ticks that QEMU loses on a busy host.

#[path = "support/says.rs"]
mod says;
#[path = "support/screen.rs"]
mod screen;
mod support;

use std::path::PathBuf;
use std::time::Duration;

use quintet_coordinator::control::client;
use quintet_protocol::control::{Drive, DriveReport, Request};
use says::quintet_says;
use screen::{Font, Screen, see, shots};
use support::folder::Folder;
use support::{Machine, PATIENCE, Setup, quintet};

/// Bytes of a diskette of 1.44 MiB.
const DISKETTE: usize = 1_474_560;

/// A component of the guest's palette in 64ths `level`, as a screen shows it.
fn component(value: usize, level: usize) -> u8 {
    let six = (((value & 0xFF) >> 2) * level) >> 6;
    ((six << 2) | (six >> 4)) as u8
}

/// A colour of the guest's palette.
fn colour(number: usize, level: usize) -> [u8; 3] {
    [number, !number, 3 * number].map(|value| component(value, level))
}

/// Compares what the machine shows with a picture of `size` whose colours are `number` of column and row, each dot
/// shown twice in both directions.
#[track_caller]
fn compare(screen: &Screen, size: (usize, usize), level: usize, number: impl Fn(usize, usize) -> usize) {
    assert_eq!((screen.width, screen.height), (2 * size.0, 2 * size.1));
    for (at, dot) in screen.dots.iter().enumerate() {
        let (x, y) = (at % screen.width / 2, at / screen.width / 2);
        assert_eq!(*dot, colour(number(x, y), level), "at {x}, {y}");
    }
}

fn do_it(machine: &Machine, request: &Request) {
    client::ask(&machine.name, request).expect("done");
}

/// The guest as a diskette that says who formatted it.
fn diskette(folder: &Folder, name: &[u8; 8]) -> PathBuf {
    let mut bytes = quintet_guests::ARCADE.to_vec();
    bytes.resize(DISKETTE, 0);
    bytes[3..11].copy_from_slice(name);
    let path = folder.file(&format!("{}.img", String::from_utf8_lossy(name).trim()));
    std::fs::write(&path, bytes).expect("a diskette");
    path
}

fn play(accel: &str) {
    let Some(quintet) = quintet() else { return };
    let test = format!("arcade-{accel}");
    let folder = Folder::new(&test);
    let diskette = |name| diskette(&folder, name);
    let image = diskette(b"arcade 1");
    let mut machine = Setup::headless(quintet.clone())
        .option("--ram", "16M")
        .option("--floppy", &image)
        .option("--exit-port", "0xf4")
        .option("--accel", accel)
        .start(&test);

    machine.hear("keys: ");
    for (chord, codes) in [
        ("ctrl-a", "1D 1E 9E 9D "),
        ("up", "E0 48 E0 C8 "),
        ("esc", "01 81 \r\n"),
    ] {
        do_it(&machine, &Request::Key(chord.into()));
        assert_eq!(machine.hear(codes), "", "{chord}");
    }

    machine.hear("timer: ");
    // A tick that comes late is kept for later: a second in which the host let the vCPU wait has too few, the one after it too many.
    // A wrong rate would have no second that is right.
    let mut seconds = Vec::new();
    loop {
        let said = machine.hear("\r\n");
        let numbers: Vec<u32> = said
            .split(' ')
            .map(|n| u32::from_str_radix(n, 16).expect("a number"))
            .collect();
        let [ticks, bios] = numbers[..] else {
            panic!("{said}")
        };
        seconds.push((ticks, bios));
        if (999..=1001).contains(&ticks) && (17..=19).contains(&bios) {
            break;
        }
        assert!(
            seconds.len() < 60,
            "no second of 1000 ticks, 18 of them for the BIOS: {seconds:?}"
        );
    }
    machine.say(" ");
    println!("{accel}: seconds of the timer and of the BIOS: {seconds:?}");

    type Colours = fn(usize, usize) -> usize;
    let (sum, dark): (Colours, Colours) = (|x, y| x + y, |_, _| 0);
    let (or, slope): (Colours, Colours) = (|x, y| x ^ y, |x, y| x + 2 * y);
    for (name, size, level, colours) in [
        ("13h full", (320, 200), 64, sum),
        ("13h half", (320, 200), 32, sum),
        ("13h dark", (320, 200), 0, dark),
        ("X first", (320, 240), 64, or),
        ("X second", (320, 240), 64, slope),
        ("X dim", (320, 240), 16, or),
    ] {
        machine.hear(name);
        machine.hear("\r\n");
        let screen = Screen::take(&quintet, &machine.name, &folder.file("screen.png"));
        compare(&screen, size, level, colours);
        machine.say(" ");
    }

    machine.hear("mouse: ");
    for (action, packets) in [
        ("move 10 -5", "080A05 "),
        ("click left", "090000 080000 "),
        ("down right", "0A0000 \r\n"),
    ] {
        do_it(&machine, &Request::Mouse(action.into()));
        assert_eq!(machine.hear(packets), "", "{action}");
    }
    machine.hear("diskette arcade 1\r\n");
    // One for another, then none for a while.
    swap(&[
        "insert",
        &machine.name,
        "floppy",
        diskette(b"arcade 2").to_str().expect("a name"),
    ]);
    machine.hear("diskette arcade 2\r\n");
    swap(&["eject", &machine.name, "floppy"]);
    std::thread::sleep(Duration::from_millis(300));
    swap(&[
        "insert",
        &machine.name,
        "floppy",
        diskette(b"end     ").to_str().expect("a name"),
    ]);
    let between = machine.hear("diskette end     \r\n");
    assert_eq!(between, "", "an empty drive has no name");
    machine.hear("arcade: done");
    let (status, _) = machine.end();
    assert_eq!(status, Some(1), "through isa-debug-exit with 0");
}

/// Changes what is in a drive, as a user does.
fn swap(words: &[&str]) {
    let (done, said) = quintet_says(words);
    assert!(done, "{words:?}: {said}");
}

#[test]
fn a_game_s_diskette_has_keyboard_timer_palette_planes_and_mouse_translated() {
    play("jit");
}

#[test]
fn a_game_s_diskette_has_keyboard_timer_palette_planes_and_mouse_interpreted() {
    play("interp");
}

#[test]
fn a_machine_whose_drives_are_empty_boots_what_is_put_in() {
    let Some(quintet) = quintet() else { return };
    let folder = Folder::new("arcade-empty");
    let mut machine = Setup::headless(quintet.clone())
        .option("--ram", "16M")
        .option("--floppy", "none")
        .option("--cdrom", "none")
        .start("arcade-empty");
    let shot = folder.file("screen.png");
    let nothing = |text: &str| text.contains("Nothing to boot from.");
    let look = shots(&quintet, &machine.name, &shot);
    see(look, &Font::own(), PATIENCE, "end", nothing);
    let drives = machine.report().expect("answers").drives;
    let empty = |drive| DriveReport { drive, image: None };
    assert_eq!(drives, Drive::ALL.map(empty));
    let image = diskette(&folder, b"arcade 1");
    swap(&["insert", &machine.name, "floppy", image.to_str().expect("a name")]);
    do_it(&machine, &Request::Reset);
    machine.hear("keys: ");
}
