//! `--firmware`: an image of ours that looks at its own ROM and starts again after each kind of reset.

mod harness;

use std::path::{Path, PathBuf};

use harness::run_to_end;

/// A file for one test.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("written");
    path
}

/// A VGA BIOS that nobody runs.
fn vga_rom() -> Vec<u8> {
    let mut rom = vec![0; 4096];
    rom[..2].copy_from_slice(&[0x55, 0xAA]);
    rom[0x18] = 0x40;
    rom[0x40..0x48].copy_from_slice(b"PCIR\x34\x12\x11\x11");
    rom
}

fn resets(name: &str, image: &[u8], options: &[&str]) {
    let firmware = file(name, image).display().to_string();
    let vga = format!(
        "vga,romfile={}",
        file(&format!("{name}-vga"), &vga_rom()).display()
    );
    let mut arguments = vec!["run", "--headless", "--ram", "32M", "--exit-port", "0xf4"];
    arguments.extend(["--time-limit", "50s", "--firmware", &firmware, "--device", &vga]);
    arguments.extend(options);
    let output = run_to_end(&arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let mut expected = vec![
        "rom: started",
        "ROM below 1 MiB and below 4 GiB: ok",
        "base registers unplaced: ok",
        "all lines edge-triggered: ok",
        "power management 5Bh: 02",
        "VGA ROM begins 55AA",
        "ROM keeps its bytes: ok",
        "PAM 3: RAM: ok",
        "PAM 1: RAM is read, writes are lost: ok",
        "PAM 2: ROM is read: ok",
        "PAM 2: RAM is written",
        "PAM 0: ROM again: ok",
    ];
    for by in ["64h", "CF9h", "92h", "triple fault"] {
        expected.extend(["PAM is closed", by]);
    }
    expected.extend(["PAM is closed", "rom: passed"]);
    let lines: Vec<&str> = text
        .lines()
        .map(|l| l.strip_prefix("rom: reset by ").unwrap_or(l))
        .collect();
    assert_eq!(lines, expected, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}");
}

#[test]
fn firmware_starts_at_its_reset_vector_after_every_kind_of_reset() {
    resets("resets", quintet_guests::RESETS, &[]);
}

#[test]
fn the_same_interpreted_from_the_end_of_sixteen_mebibytes() {
    // Larger than what travels in a message.
    let mut image = vec![0xFF; 16 << 20];
    let at = image.len() - quintet_guests::RESETS.len();
    image[at..].copy_from_slice(quintet_guests::RESETS);
    resets("resets-16m", &image, &["--accel", "interp"]);
}

#[test]
fn the_same_in_one_process() {
    resets("resets-single", quintet_guests::RESETS, &["--single-process"]);
}

#[test]
fn the_same_on_the_portable_back_end() {
    resets(
        "resets-portable",
        quintet_guests::RESETS,
        &["--backend", "portable"],
    );
}

/// One start of the firmware that writes its flash: what it says beyond that all is well.
fn flash(options: &[&str]) -> String {
    let firmware = file("flash", quintet_guests::FLASH).display().to_string();
    let mut arguments = vec!["run", "--headless", "--ram", "16M", "--exit-port", "0xf4"];
    arguments.extend(["--time-limit", "50s", "--firmware", &firmware]);
    arguments.extend(options);
    let output = run_to_end(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}{errors}");
    text
}

#[test]
fn flash_keeps_what_firmware_writes() {
    let image = file("flash-image", &[0xFF; 64 << 10]);
    let path = image.display().to_string();
    let kept = |at: usize| std::fs::read(&image).expect("the image")[at];
    for (found, next) in [("FF", 0xFE), ("FE", 0xFC), ("FC", 0xF8)] {
        let text = flash(&["--pflash", &path]);
        assert!(text.contains(&format!("flash holds {found}\n")), "{text}");
        assert_eq!(kept(0x1234), next);
    }
    let text = flash(&["--pflash", &path, "--accel", "interp"]);
    assert!(text.contains("flash is erased: ok"), "{text}");
    assert!(
        std::fs::read(&image)
            .expect("the image")
            .iter()
            .all(|b| *b == 0xFF)
    );
}

#[test]
fn flash_may_hold_the_firmware_itself() {
    let whole = file("flash-whole", quintet_guests::FLASH).display().to_string();
    let below = file("flash-below", &[0xFF; 64 << 10]).display().to_string();
    let output = run_to_end(&[
        "run",
        "--headless",
        "--ram",
        "16M",
        "--exit-port",
        "0xf4",
        "--time-limit",
        "50s",
        "--pflash",
        &format!("{whole},ro=on"),
        "--pflash",
        &below,
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("flash keeps what is written: ok"), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
}
