//! memtest86+ from Debian's packages, 32- and 64-bit, finds no fault in 64 MiB.
//!
//! The whole pass ends with a test that waits ten minutes for bits to fade: it is part of the long form alone.

mod support;

use support::{Setup, long, quintet, variable};

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
