//! System packages: what is missing, and how it gets there.
//!
//! As root they are installed, with `sudo` after a question, else the one line to type is printed. Only `run`,
//! `test` and `setup` install; `check` names what is missing.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Command;

use crate::sh::{self, Failure};

/// Something a build or the tests need, how to see whether it is there, and Debian's package for it.
struct Need {
    /// What it is, for the message.
    what: &'static str,
    /// Debian's (and Ubuntu's) package.
    package: &'static str,
    present: fn() -> bool,
    wanted: fn() -> bool,
}

const ALWAYS: fn() -> bool = || true;

/// Whether a crate is in the lock file: libraries are wanted when something links them.
fn locked(name: &str) -> bool {
    sh::read(&sh::root().join("Cargo.lock")).is_ok_and(|lock| lock.contains(&format!("name = \"{name}\"")))
}

fn pkg_config(library: &str) -> bool {
    Command::new("pkg-config")
        .args(["--exists", library])
        .status()
        .is_ok_and(|s| s.success())
}

/// Whether a folder has a file whose name begins so.
fn has_file(folder: &str, beginning: &str) -> bool {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
}

const TO_BUILD: &[Need] = &[
    Need {
        what: "a C compiler",
        package: "gcc",
        present: || sh::has("cc"),
        wanted: ALWAYS,
    },
    Need {
        what: "the C library's headers",
        package: "libc6-dev",
        present: || Path::new("/usr/include/stdio.h").exists(),
        wanted: ALWAYS,
    },
    Need {
        what: "an assembler and a linker",
        package: "binutils",
        present: || sh::has("as") && sh::has("ld"),
        wanted: ALWAYS,
    },
    Need {
        what: "pkg-config",
        package: "pkg-config",
        present: || sh::has("pkg-config"),
        wanted: || locked("alsa-sys"),
    },
    Need {
        what: "ALSA's headers",
        package: "libasound2-dev",
        present: || pkg_config("alsa"),
        wanted: || locked("alsa-sys"),
    },
];

const TO_TEST: &[Need] = &[
    Need {
        what: "ACPICA's disassembler",
        package: "acpica-tools",
        present: || sh::has("iasl"),
        wanted: ALWAYS,
    },
    Need {
        what: "QEMU, for screens side by side",
        package: "qemu-system-x86",
        present: || sh::has("qemu-system-i386"),
        wanted: ALWAYS,
    },
    Need {
        what: "others' firmware",
        package: "seabios",
        present: || Path::new("/usr/share/seabios/bios-256k.bin").exists(),
        wanted: ALWAYS,
    },
    Need {
        what: "GRUB's image maker",
        package: "grub-common",
        present: || sh::has("grub-mkrescue"),
        wanted: ALWAYS,
    },
    Need {
        what: "GRUB for PCs",
        package: "grub-pc-bin",
        present: || Path::new("/usr/lib/grub/i386-pc/moddep.lst").exists(),
        wanted: ALWAYS,
    },
    Need {
        what: "a maker of CD images",
        package: "xorriso",
        present: || sh::has("xorriso"),
        wanted: ALWAYS,
    },
    Need {
        what: "a maker and judge of qcow2 images",
        package: "qemu-utils",
        present: || sh::has("qemu-img"),
        wanted: ALWAYS,
    },
    Need {
        what: "a maker of FAT file systems",
        package: "mtools",
        present: || sh::has("mformat"),
        wanted: ALWAYS,
    },
    Need {
        what: "a sound server without a device",
        package: "pulseaudio",
        present: || sh::has("pulseaudio"),
        wanted: ALWAYS,
    },
    Need {
        what: "a recorder of what that plays",
        package: "pulseaudio-utils",
        present: || sh::has("parec"),
        wanted: ALWAYS,
    },
    Need {
        what: "an installer of Debian",
        package: "debootstrap",
        present: || sh::has("debootstrap"),
        wanted: || std::env::args().any(|a| a == "--long"),
    },
    Need {
        what: "an X server without a screen",
        package: "xvfb",
        present: || sh::has("Xvfb"),
        wanted: ALWAYS,
    },
    Need {
        what: "a typist for X",
        package: "xdotool",
        present: || sh::has("xdotool"),
        wanted: ALWAYS,
    },
    Need {
        what: "a camera for X",
        package: "imagemagick",
        present: || sh::has("import"),
        wanted: ALWAYS,
    },
    Need {
        what: "a Vulkan driver that needs no GPU",
        package: "mesa-vulkan-drivers",
        present: || has_file("/usr/share/vulkan/icd.d", "lvp_icd"),
        wanted: ALWAYS,
    },
    Need {
        what: "gdb",
        package: "gdb",
        present: || sh::has("gdb"),
        wanted: ALWAYS,
    },
];

/// Libraries that the window loads when it opens on an X server; on Wayland only the last one.
const TO_SHOW: &[Need] = &[
    Need {
        what: "X11's client library",
        package: "libx11-xcb1",
        present: || library("libX11-xcb.so.1"),
        wanted: ALWAYS,
    },
    Need {
        what: "X11's pointers",
        package: "libxcursor1",
        present: || library("libXcursor.so.1"),
        wanted: ALWAYS,
    },
    Need {
        what: "X11's input devices",
        package: "libxi6",
        present: || library("libXi.so.6"),
        wanted: ALWAYS,
    },
    Need {
        what: "X11's screens",
        package: "libxrandr2",
        present: || library("libXrandr.so.2"),
        wanted: ALWAYS,
    },
    Need {
        what: "keyboard layouts",
        package: "libxkbcommon-x11-0",
        present: || library("libxkbcommon-x11.so.0"),
        wanted: ALWAYS,
    },
];

/// Whether the dynamic linker knows a library.
fn library(name: &str) -> bool {
    ["ldconfig", "/sbin/ldconfig"]
        .into_iter()
        .any(|program| sh::output(Command::new(program).arg("-p")).is_ok_and(|list| list.contains(name)))
}

/// Whether [`ensure`] may install, or says what is missing and goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Nothing can go on without it.
    IsFatal,
    /// Some tests will say that they skip.
    IsSkipped,
}

/// Makes sure that a release build is possible.
///
/// # Errors
/// A [`Failure`] with the line to type.
pub fn for_build() -> Result<(), Failure> {
    ensure(TO_BUILD, Missing::IsFatal)
}

/// Whether a build is possible, without installing anything.
///
/// # Errors
/// A [`Failure`] with the line to type.
pub fn build_has_all() -> Result<(), Failure> {
    let missing = absent(TO_BUILD);
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(line_to_type(&missing))),
    }
}

/// Makes sure that a window can be opened; without, it says what is missing and the machine says what that means.
///
/// # Errors
/// A [`Failure`] when a package that may be installed cannot be.
pub fn for_window() -> Result<(), Failure> {
    ensure(TO_SHOW, Missing::IsSkipped)
}

/// Makes sure that the tests have what they need.
///
/// # Errors
/// A [`Failure`] with the line to type; outside CI only when the build needs it.
pub fn for_tests() -> Result<(), Failure> {
    ensure(TO_BUILD, Missing::IsFatal)?;
    let otherwise = if sh::in_ci() {
        Missing::IsFatal
    } else {
        Missing::IsSkipped
    };
    ensure(TO_SHOW, otherwise)?;
    ensure(TO_TEST, otherwise)
}

fn ensure(needs: &[Need], otherwise: Missing) -> Result<(), Failure> {
    let mut missing = absent(needs);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("xtask: missing: {}", listed(&missing));
    if let Some(sudo) = may_install(&packages(&missing)) {
        // Twice: to install one, apt removes another that came from elsewhere and does not go with it.
        for _ in 0..2 {
            install(&packages(&missing), sudo)?;
            missing = absent(needs);
            if missing.is_empty() {
                return Ok(());
            }
        }
    }
    let line = line_to_type(&missing);
    match otherwise {
        Missing::IsFatal => Err(Failure::new(line)),
        Missing::IsSkipped => {
            eprintln!("xtask: {line}\nxtask: what needs it will say so and be left out");
            Ok(())
        }
    }
}

fn absent(needs: &[Need]) -> Vec<&Need> {
    needs.iter().filter(|n| (n.wanted)() && !(n.present)()).collect()
}

fn line_to_type(missing: &[&Need]) -> String {
    format!(
        "{} missing; type: sudo apt-get install {}",
        listed(missing),
        packages(missing).join(" ")
    )
}

fn listed(needs: &[&Need]) -> String {
    needs.iter().map(|n| n.what).collect::<Vec<_>>().join(", ")
}

fn packages(needs: &[&Need]) -> Vec<&'static str> {
    needs.iter().map(|n| n.package).collect()
}

/// `Some(with sudo)` when packages may be installed now.
fn may_install(names: &[&str]) -> Option<bool> {
    if !sh::has("apt-get") {
        return None;
    }
    let root = sh::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if root {
        return Some(false);
    }
    if !sh::has("sudo") || !std::io::stdin().is_terminal() {
        return None;
    }
    eprint!("xtask: run sudo apt-get install {}? [y/N] ", names.join(" "));
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).ok()?;
    answer.trim().eq_ignore_ascii_case("y").then_some(true)
}

fn install(names: &[&str], sudo: bool) -> Result<(), Failure> {
    let apt = |args: &[&str]| {
        let mut command = Command::new(if sudo { "sudo" } else { "apt-get" });
        if sudo {
            command.arg("apt-get");
        }
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let mut args = vec!["-qy", "install", "--no-install-recommends"];
    args.extend(names);
    if sh::run(&mut apt(&args)).is_ok() {
        return Ok(());
    }
    // A fresh machine has no package lists yet. A partial update may still be enough.
    let _ = sh::run(&mut apt(&["-q", "update"]));
    sh::run(&mut apt(&args))
}
