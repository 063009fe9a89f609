//! Disk images that cannot be used: one line that names the file, exit status 1.

mod harness;

use harness::mistakes::{Files, assert_refused, run};

fn refused(options: &[&str], part: &str) {
    assert_refused(&run(options), part);
}

#[test]
fn missing_empty_odd_and_special_files() {
    let f = Files::new("image-special");
    let missing = f.missing();
    let folder = f.path();
    let (empty, odd) = (f.with("empty", b""), f.with("odd", &[0; 1000]));
    for (image, part) in [
        (missing.as_str(), "no such file"),
        (&folder, "is a directory"),
        (&empty, "is empty"),
        (&odd, "1000 bytes, which are no whole sectors"),
        ("/dev/null", "is not a file"),
    ] {
        refused(&["--disk", image], part);
        refused(&["--cdrom", image], part);
    }
}

#[test]
fn a_truncated_iso() {
    let f = Files::new("image-iso");
    let mut iso = vec![0; 40 * 2048];
    iso[16 * 2048..][..6].copy_from_slice(b"\x01CD001");
    iso[16 * 2048 + 80..][..4].copy_from_slice(&50_u32.to_le_bytes());
    iso[16 * 2048 + 128..][..2].copy_from_slice(&2048_u16.to_le_bytes());
    refused(
        &["--cdrom", &f.with("cd.iso", &iso)],
        "is truncated: it has 81920 of 102400 bytes",
    );
}

#[test]
fn a_qcow2_image_taken_for_raw() {
    let f = Files::new("image-qcow2");
    let mut image = vec![0; 4096];
    image[..4].copy_from_slice(b"QFI\xFB");
    refused(&["--disk", &f.with("d.qcow2", &image)], "is in the format qcow2");
}

#[test]
fn an_image_that_somebody_else_uses() {
    let f = Files::new("image-locked");
    let image = f.with("d.img", &[0; 4096]);
    let plain = format!("{image},format=raw");
    refused(&["--disk", &plain, "--disk", &plain], "is locked");
    refused(&["--disk", &plain, "--cdrom", &image], "is locked");
}

#[test]
fn an_image_that_cannot_be_written() {
    // Nobody may write there, root included.
    refused(&["--disk", "/proc/version,format=raw"], "\"/proc/version\"");
    let f = Files::new("image-readonly");
    let image = f.with("d.img", &[0; 4096]);
    let mut permissions = std::fs::metadata(&image).expect("there").permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&image, permissions).expect("set");
    if std::fs::OpenOptions::new().write(true).open(&image).is_ok() {
        eprintln!("root writes to what is read-only: seen by the other cases only");
    } else {
        refused(&["--disk", &image], "try ro=on");
    }
}

#[test]
fn options_that_are_not_known_and_too_many_disks() {
    refused(&["--disk", "d,size=5"], "\"size=5\" is not known");
    refused(
        &["--disk", "d,bus=virtio"],
        "boots from no disk with bus=virtio yet",
    );
    let nine: Vec<&str> = ["--disk", "d,bus=virtio"].repeat(9);
    refused(&nine, "there are 8 virtio disks already");
    let five: Vec<&str> = ["--disk", "d"].repeat(5);
    refused(&five, "has 4 units");
}
