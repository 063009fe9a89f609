//! The machine's own BIOS in the machine: a disk without a kernel beside it is booted, and every service answers as it did
//! when `services.txt` was written, whether interpreted or translated. Under QEMU the same disk is compared with SeaBIOS
//! (`io-worker/firmware/tests`).

mod support;

use std::path::PathBuf;

use support::folder::Folder;
use support::{Setup, quintet};

/// Bytes of the disk that the guest expects.
const DISK: usize = 8 << 20;
/// Every sector behind the guest's first track begins with its number.
const TRACK: usize = 64;
/// What the services answered; written anew with `QUINTET_BLESS` set.
const EXPECTED: &str = "machine/services.txt";

/// The disk that calls the services.
fn disk(folder: &Folder) -> PathBuf {
    let mut disk = quintet_guests::SERVICES.to_vec();
    disk.resize(DISK, 0);
    for (number, sector) in disk.chunks_mut(512).enumerate().skip(TRACK) {
        let number = u32::try_from(number).expect("a small disk");
        sector[..4].copy_from_slice(&number.to_le_bytes());
    }
    let path = folder.file("disk.img");
    std::fs::write(&path, disk).expect("an image");
    path
}

/// What the services print with an accelerator; `None` without the machine's programs.
fn services(accel: &str) -> Option<String> {
    let quintet = quintet()?;
    let folder = Folder::new(&format!("services-{accel}"));
    let image = format!("{},format=raw", disk(&folder).display());
    let machine = Setup::disk(quintet, image)
        .option("--accel", accel)
        .option("--ram", "64M")
        .option("--exit-port", "0xf4")
        .start(&format!("services-{accel}"));
    let (status, text) = machine.end();
    assert_eq!(status, Some(1), "{text}");
    assert!(text.ends_with("services: done\r\n"), "{text}");
    Some(text.replace('\r', ""))
}

fn compare(accel: &str) {
    let Some(text) = services(accel) else {
        return;
    };
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(EXPECTED);
    if std::env::var_os("QUINTET_BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).expect("what is expected");
    let differences: Vec<String> = expected
        .lines()
        .zip(text.lines())
        .filter(|(expected, got)| expected != got)
        .map(|(expected, got)| format!("- {expected}\n+ {got}"))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(expected.lines().count(), text.lines().count());
}

#[test]
fn every_service_answers_as_before_interpreted() {
    compare("interp");
}

#[test]
fn every_service_answers_as_before_translated() {
    compare("jit");
}
