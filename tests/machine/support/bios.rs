//! What a machine starts with: its own BIOS, or Debian's SeaBIOS with its VGA BIOS.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;

use crate::screen::Font;
use crate::support::Setup;

/// Where Debian's package puts the firmware.
const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";
const VGA_BIOS: &str = "/usr/share/seabios/vgabios-stdvga.bin";

/// A BIOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bios {
    /// The machine's own.
    Own,
    /// Debian's SeaBIOS, with its VGA BIOS.
    Sea,
}

impl Bios {
    /// Whether it is there.
    pub fn is_installed(self) -> bool {
        self == Self::Own || [SEABIOS, VGA_BIOS].iter().all(|file| Path::new(file).exists())
    }

    /// As [`Self::is_installed`]; says so loudly when it is not.
    ///
    /// # Panics
    /// When it is not, where `CI` is set.
    pub fn is_there(self) -> bool {
        let there = self.is_installed();
        if !there {
            assert!(
                std::env::var_os("CI").is_none_or(|v| v != "true"),
                "seabios missing"
            );
            eprintln!("SKIPPED: apt-get install seabios");
        }
        there
    }

    /// Has a machine start with it.
    pub fn put(self, setup: Setup) -> Setup {
        match self {
            Self::Own => setup,
            Self::Sea => setup
                .option("--firmware", SEABIOS)
                .option("--device", format!("vga,romfile={VGA_BIOS}")),
        }
    }

    /// What its text is drawn with.
    ///
    /// # Panics
    /// When it is not installed.
    pub fn font(self) -> Font {
        match self {
            Self::Own => Font::own(),
            Self::Sea => Font::of_vga_bios(&std::fs::read(VGA_BIOS).expect("the VGA BIOS")),
        }
    }
}
