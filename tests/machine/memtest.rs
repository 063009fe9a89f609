//! memtest86+ from Debian's packages, 32- and 64-bit, finds no fault in 64 MiB: started as a kernel, and from its CD by either BIOS.
//!
//! The whole pass ends with a test that waits ten minutes for bits to fade: it is part of the long form alone.

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

use bios::Bios;
use screen::see;
use seat::Seat;
use support::folder::Folder;
use support::{PATIENCE, Setup, long, quintet, variable};

/// The last test that works all the time, and the one behind it that waits.
const TESTS: [&str; 2] = ["#9  [Modulo 20, random pattern]", "#10 [Bit fade test"];

fn finds_nothing(architecture: &str) {
    let (Some(quintet), Some(memtest)) = (quintet(), variable(&format!("QUINTET_MEMTEST_{architecture}")))
    else {
        return;
    };
    let mut guest = Setup::new(quintet, memtest)
        .option("--append", "console=ttyS0,115200")
        .option("--ram", "64M")
        .start(&format!("memtest-{architecture}"));
    let mut said = String::new();
    for test in TESTS {
        said.push_str(&guest.hear(test));
    }
    if long() {
        said.push_str(&guest.hear("Pass:  1"));
    }
    let counts: Vec<&str> = said
        .split("Errors: ")
        .skip(1)
        .filter_map(|after| after.split_whitespace().next())
        .collect();
    assert!(!counts.is_empty(), "{said}");
    assert!(counts.iter().all(|count| count.starts_with('0')), "{counts:?}");
}

#[test]
fn the_64_bit_memtest_finds_no_fault() {
    finds_nothing("AMD64");
}

#[test]
fn the_32_bit_memtest_finds_no_fault() {
    finds_nothing("I686");
}

/// From the CD, as far as `percent` of a pass, or in the long form to the end of one, as its screen says.
fn finds_nothing_from_a_cd(seat: Option<Seat>, bios: Bios, accel: &str, architecture: &str, percent: u32) {
    let Some(seat) = seat else { return };
    let (Some(quintet), Some(image)) = (quintet(), variable(&format!("QUINTET_MEMTEST_CD_{architecture}")))
    else {
        return;
    };
    if !bios.is_there() {
        return;
    }
    let name = format!("memtest-cd-{architecture}-{bios:?}-{accel}-{percent}").to_lowercase();
    let folder = Folder::new(&name);
    let setup = seat
        .setup(quintet.clone())
        .option("--cdrom", image)
        .option("--accel", accel)
        .option("--ram", "64M");
    let machine = bios.put(setup).start(&name);
    let shot = folder.file("screen.png");
    let number = |text: &str, before: &str| -> Option<u32> {
        let (_, behind) = text.split_once(before)?;
        let digits = behind.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    see(
        || seat.look(&quintet, &machine, &shot),
        &bios.font(),
        if long() { 8 * PATIENCE } else { PATIENCE },
        "pass without an error",
        |text| {
            if let Some(errors) = number(text, "Errors:") {
                assert_eq!(errors, 0, "{text}");
            }
            match long() {
                true => number(text, "Pass:").is_some_and(|passes| passes > 0),
                false => number(text, "Pass ").is_some_and(|done| done >= percent),
            }
        },
    );
}

#[test]
fn the_64_bit_memtest_finds_no_fault_from_its_cd() {
    finds_nothing_from_a_cd(Some(Seat::Commands), Bios::Own, "jit", "AMD64", 50);
}

#[test]
fn the_32_bit_memtest_finds_no_fault_from_its_cd() {
    finds_nothing_from_a_cd(Some(Seat::Commands), Bios::Own, "jit", "I686", 50);
}

#[test]
fn the_interpreted_64_bit_memtest_finds_no_fault_from_its_cd() {
    finds_nothing_from_a_cd(Some(Seat::Commands), Bios::Own, "interp", "AMD64", 20);
}

#[test]
fn the_interpreted_32_bit_memtest_finds_no_fault_from_its_cd() {
    finds_nothing_from_a_cd(Some(Seat::Commands), Bios::Own, "interp", "I686", 20);
}

#[test]
fn the_64_bit_memtest_finds_no_fault_by_seabios() {
    finds_nothing_from_a_cd(Some(Seat::Commands), Bios::Sea, "jit", "AMD64", 50);
}

#[test]
fn the_32_bit_memtest_finds_no_fault_by_seabios() {
    finds_nothing_from_a_cd(Some(Seat::Commands), Bios::Sea, "jit", "I686", 50);
}

#[test]
fn the_64_bit_memtest_finds_no_fault_in_a_window() {
    finds_nothing_from_a_cd(
        Seat::window("memtest-window-amd64"),
        Bios::Own,
        "jit",
        "AMD64",
        10,
    );
}

#[test]
fn the_32_bit_memtest_finds_no_fault_in_a_window() {
    finds_nothing_from_a_cd(Seat::window("memtest-window-i686"), Bios::Own, "jit", "I686", 10);
}
