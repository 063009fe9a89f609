//! A Debian that was installed onto a disk boots by our BIOS and GRUB to its login, and survives power cuts in the middle of
//! writes: the five processes killed at once. Two kinds of cut: with a raw image the host has what was written, with an
//! overlay all that the guest had not flushed is gone.

#[path = "support/bios.rs"]
mod bios;
#[path = "support/desk.rs"]
mod desk;
#[path = "support/says.rs"]
mod says;
#[path = "support/screen.rs"]
mod screen;
#[path = "support/seat.rs"]
mod seat;
mod support;
#[path = "support/xvfb.rs"]
mod xvfb;

use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bios::Bios;
use screen::see;
use seat::Seat;
use support::folder::Folder;
use support::{Machine, PATIENCE, quintet, random, variable};

/// How often the power fails.
const CUTS: u32 = 20;
/// Where the disk's file system begins.
const PARTITION: u64 = 1 << 20;

fn start(quintet: &Path, seat: &Seat, bios: Bios, accel: &str, test: &str, disk: &str) -> Machine {
    let setup = seat
        .setup(quintet.to_owned())
        .option("--accel", accel)
        .option("--ram", "512M")
        .option("--disk", disk)
        .option("--audio", "null");
    bios.put(setup).start(test)
}

/// The number behind `what` on the serial line.
fn number(machine: &mut Machine, what: &str) -> u32 {
    machine.hear(what);
    let rest = machine.hear("\n");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{what}{rest}"))
}

/// Lets the guest write and cuts the power, again and again; each time what was synced before is there.
fn power_cuts(test: &str, disk: &str, quintet: &Path, folder: &Folder) {
    let mut synced = 0;
    for cut in 0..CUTS {
        let mut machine = start(quintet, &Seat::Commands, Bios::Own, "jit", test, disk);
        machine.hear("writer: begins after ");
        let line = machine.hear("\n");
        let (last, damaged) = line.split_once(", ").expect("two numbers");
        assert_eq!(damaged.trim(), "0 damaged", "after {cut} cuts");
        let last: u32 = last.parse().expect("a number");
        // The word that something was synced may have been on its way when the power failed.
        assert!(
            last >= synced,
            "{synced} was synced, and after cut {cut} it is {last}"
        );
        if cut == 0 {
            login(quintet, &Seat::Commands, &machine, Bios::Own, folder);
        }
        // Writes are under way from here on.
        synced = number(&mut machine, "writer: synced ");
        assert!(synced > last);
        std::thread::sleep(Duration::from_secs(6).mul_f64(random()));
        machine.cut_power();
        for line in machine
            .seen
            .lines()
            .filter_map(|l| l.split_once("writer: synced "))
        {
            synced = line.1.trim().parse().unwrap_or(synced);
        }
        for bad in ["EXT4-fs error", "UNEXPECTED INCONSISTENCY", "emergency mode"] {
            assert!(!machine.seen.contains(bad), "{bad}, cut {cut}:\n{}", machine.seen);
        }
    }
    println!("{CUTS} power cuts, {synced} files");
}

/// Waits for the login on the screen.
fn login(quintet: &Path, seat: &Seat, machine: &Machine, bios: Bios, folder: &Folder) {
    let shot = folder.file("screen.png");
    let look = || seat.look(quintet, machine, &shot);
    see(look, &bios.font(), PATIENCE, "login", |text| {
        text.lines().any(|l| l.starts_with("quintet login:"))
    });
}

#[test]
#[ignore = "takes a quarter of an hour: cargo xtask test --long"]
fn an_installed_debian_survives_power_cuts() {
    let (Some(quintet), Some(image)) = (quintet(), variable("QUINTET_INSTALLED_AMD64")) else {
        return;
    };
    let folder = Folder::new("power-cuts");
    let disk = folder.file("disk.img");
    std::fs::copy(&image, &disk).expect("copied");
    power_cuts(
        "power-cuts",
        &format!("{},format=raw", disk.display()),
        &quintet,
        &folder,
    );
    // The host's own look: the journal is replayed, then nothing is wrong.
    let file_system = folder.file("file-system.img");
    let mut from = std::fs::File::open(&disk).expect("the disk");
    from.seek(SeekFrom::Start(PARTITION)).expect("its partition");
    let mut to = std::fs::File::create(&file_system).expect("a file");
    std::io::copy(&mut from, &mut to).expect("copied");
    for (options, wanted) in [("-fp", 1), ("-fn", 0)] {
        let checked = Command::new("e2fsck")
            .arg(options)
            .arg(&file_system)
            .output()
            .expect("e2fsck");
        let code = checked.status.code().unwrap_or(-1);
        assert!(code <= wanted && code >= 0, "e2fsck {options}: {checked:?}");
    }
}

/// Boots it once, to its login on the screen.
fn boots(test: &str, seat: &Seat, bios: Bios, accel: &str) {
    let (Some(quintet), Some(image)) = (quintet(), variable("QUINTET_INSTALLED_AMD64")) else {
        return;
    };
    if !bios.is_there() {
        return;
    }
    let folder = Folder::new(test);
    // What it writes is gone afterwards.
    let disk = format!("{},format=raw,snapshot=on", Path::new(&image).display());
    let machine = start(&quintet, seat, bios, accel, test, &disk);
    login(&quintet, seat, &machine, bios, &folder);
}

#[test]
#[ignore = "needs an installed system: cargo xtask test --long"]
fn an_installed_debian_boots_to_its_login_by_seabios() {
    boots("installed-seabios", &Seat::Commands, Bios::Sea, "jit");
}

#[test]
#[ignore = "needs an installed system: cargo xtask test --long"]
fn an_installed_debian_boots_to_its_login_interpreted() {
    boots("installed-interp", &Seat::Commands, Bios::Own, "interp");
}

#[test]
#[ignore = "needs an installed system: cargo xtask test --long"]
fn an_installed_debian_boots_to_its_login_in_a_window() {
    let test = "installed-window";
    if let Some(seat) = Seat::window(test) {
        boots(test, &seat, Bios::Own, "jit");
    }
}

#[test]
#[ignore = "takes a quarter of an hour: cargo xtask test --long"]
fn an_overlay_keeps_what_was_flushed_when_the_power_is_cut() {
    let (Some(quintet), Some(image)) = (quintet(), variable("QUINTET_INSTALLED_AMD64")) else {
        return;
    };
    let folder = Folder::new("power-overlay");
    let image = PathBuf::from(image);
    let disk = format!(
        "{},format=raw,overlay={}",
        image.display(),
        folder.file("over").display()
    );
    power_cuts("power-overlay", &disk, &quintet, &folder);
}
