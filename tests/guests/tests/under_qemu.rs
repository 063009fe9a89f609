//! The guests under QEMU: a guest that fails there tests itself and not us.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a guest and answers its exit status and what it printed on COM1. Each element of `typed` is sent once the
/// text before it has been seen.
fn run(image: &[u8], extra: &[&str], typed: &[(&str, &str)]) -> (Option<i32>, String) {
    let multiboot = image.starts_with(b"\x7fELF");
    let file = std::env::temp_dir().join(format!("quintet-guest-{}-{}", std::process::id(), image.len()));
    std::fs::write(&file, image).expect("image written");
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-m", "64", "-cpu", "max", "-display", "none", "-serial", "stdio"])
        .args(["-device", "pc-testdev"])
        .args(if multiboot { &["-no-reboot"][..] } else { &[] })
        .args(extra)
        .arg(if multiboot { "-kernel" } else { "-bios" })
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-system-x86_64 is installed");
    let (mut to, mut from) = (
        child.stdin.take().expect("stdin"),
        child.stdout.take().expect("stdout"),
    );
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut block = [0; 256];
        while let Ok(n @ 1..) = from.read(&mut block) {
            if send
                .send(String::from_utf8_lossy(&block[..n]).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut seen, mut typed) = (String::new(), typed.iter().peekable());
    loop {
        match receive.recv_timeout(Duration::from_millis(50)) {
            Ok(text) => seen.push_str(&text),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                child.kill().expect("killed");
                child.wait().expect("reaped");
                panic!("the guest did not end: {seen}");
            }
            Err(_) => {}
        }
        if let Some((_, text)) = typed.next_if(|(after, _)| seen.contains(after)) {
            to.write_all(text.as_bytes())
                .and_then(|()| to.flush())
                .expect("typed");
        }
    }
    let status = child.wait().expect("ended");
    std::fs::remove_file(&file).expect("image removed");
    (status.code(), seen)
}

const EXIT: [&str; 2] = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"];

#[test]
#[ignore = "needs qemu-system-x86_64; run by cargo xtask test --long"]
fn the_self_test_passes_all_its_checks_and_powers_off() {
    let (status, seen) = run(quintet_guests::SELFTEST, &[], &[("type here", "hello q")]);
    assert!(seen.contains("17 checks passed, 0 failed"), "{seen}");
    assert!(seen.contains("> hello "), "{seen}");
    assert_eq!(status, Some(0));
}

#[test]
#[ignore = "needs qemu-system-x86_64; run by cargo xtask test --long"]
fn the_echo_answers_by_polling_and_by_interrupt() {
    let (status, seen) = run(
        quintet_guests::ECHO,
        &EXIT,
        &[("polling", "one\r"), ("IRQ 4", "two\r\x04")],
    );
    assert!(seen.contains("one\r\n") && seen.contains("two\r\n"), "{seen}");
    assert_eq!(status, Some(1));
}

#[test]
#[ignore = "needs qemu-system-x86_64; run by cargo xtask test --long"]
fn the_storm_arrives_exactly_once() {
    let (status, seen) = run(
        quintet_guests::IRQSTORM,
        &[&EXIT[..], &["-append", "5000"]].concat(),
        &[],
    );
    assert!(
        seen.contains("level, I/O APIC: 5000 raised, 5000 delivered, 0 lost, 0 doubled"),
        "{seen}"
    );
    assert!(seen.contains("irqstorm: passed"), "{seen}");
    assert_eq!(status, Some(1));
}

#[test]
#[ignore = "needs qemu-system-x86_64; run by cargo xtask test --long"]
fn overwritten_code_runs_new() {
    let (_, seen) = run(quintet_guests::DMACODE, &EXIT, &[]);
    assert!(seen.contains("dmacode: code passed"), "{seen}");
}

#[test]
#[ignore = "needs qemu-system-x86_64; run by cargo xtask test --long"]
fn firmware_finds_its_rom_and_starts_again() {
    let (status, seen) = run(quintet_guests::RESETS, &EXIT, &[]);
    let failed: Vec<&str> = seen.lines().filter(|l| l.ends_with("FAILED")).collect();
    assert_eq!(failed, ["PAM 2: ROM is read: FAILED"], "{seen}");
    assert!(seen.contains("rom: reset by triple fault"), "{seen}");
    assert_eq!(status, Some(3));
}

#[test]
#[ignore = "needs qemu-system-x86_64; run by cargo xtask test --long"]
fn the_soak_guest_finds_its_disk_its_interrupts_and_its_frames() {
    let disk = std::env::temp_dir().join(format!("quintet-guest-soak-{}.img", std::process::id()));
    std::fs::write(&disk, vec![0; 2 << 20]).expect("a disk");
    let drive = format!("file={},format=raw,if=ide", disk.display());
    let (status, seen) = run(
        quintet_guests::SOAK,
        &[&EXIT[..], &["-drive", &drive, "-append", "rounds=40 count=20"]].concat(),
        &[("soak: frame 1\r", "\n131073\n")],
    );
    std::fs::remove_file(&disk).expect("removed");
    // Without our source of interrupts there are two kinds; 40 rounds come by every block and begin anew.
    assert!(
        seen.contains("soak: start version 2 kinds 2 count 20 bad 0\r\n"),
        "{seen}"
    );
    assert!(seen.contains("soak: frame 2\r\n"), "{seen}");
    assert!(seen.contains("soak: round 40 irqs 1600 1600 0 0 ide "), "{seen}");
    assert_eq!(status, Some(1), "isa-debug-exit was not told 0: {seen}");
}
