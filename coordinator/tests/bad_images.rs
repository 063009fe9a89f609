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

/// The head of a qcow2 image of 1 MiB with these words changed.
fn qcow2(changes: &[(usize, u32)]) -> Vec<u8> {
    let mut image = vec![0; 0x4_0000];
    image[..4].copy_from_slice(b"QFI\xFB");
    let usual = [
        (4, 3),
        (20, 16),
        (28, 1 << 20),
        (36, 1),
        (44, 0x3_0000),
        (52, 0x1_0000),
        (56, 1),
        (96, 4),
        (100, 104),
    ];
    for (at, value) in usual.iter().chain(changes) {
        image[*at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    image
}

#[test]
fn qcow2_images_that_are_not_taken() {
    let f = Files::new("image-qcow2-bad");
    let mut backed = qcow2(&[(12, 0x200), (16, 11)]);
    backed[0x200..][..11].copy_from_slice(b"/etc/shadow");
    for (n, (image, part)) in [
        (vec![5; 4096], "is not in the format qcow2"),
        (qcow2(&[])[..60].to_vec(), "is truncated: its header"),
        (qcow2(&[])[..0x2_0000].to_vec(), "is truncated: its L1 table"),
        (backed, "has a backing file, \"/etc/shadow\", which is not opened"),
        (qcow2(&[(32, 2)]), "is encrypted"),
        (qcow2(&[(36, u32::MAX)]), "senseless size of its L1 table"),
        (qcow2(&[(56, u32::MAX)]), "senseless size of its refcount table"),
        (qcow2(&[(76, 1)]), "qemu-img check -r all"),
        (qcow2(&[(76, 2)]), "is marked as corrupt"),
        (qcow2(&[(76, 4)]), "keeps its data in another file"),
        (qcow2(&[(60, 2)]), "has 2 internal snapshots"),
        (qcow2(&[(4, 2)]), "is in version 2"),
    ]
    .iter()
    .enumerate()
    {
        let name = f.with(&format!("{n}.qcow2"), image);
        refused(&["--disk", &format!("{name},format=qcow2")], part);
    }
}

#[test]
fn overlays_that_do_not_belong_or_are_damaged() {
    use std::os::unix::fs::MetadataExt as _;

    use quintet_io_worker::block::overlay::header::{Base, Header};

    let f = Files::new("image-overlay");
    let base = f.with("base.img", &[0; 1 << 20]);
    let with = |over: &str| format!("{base},format=raw,overlay={over}");
    refused(
        &["--disk", &with(&f.with("letter", b"a letter"))],
        "is not an overlay",
    );
    refused(&["--disk", &with(&base)], "is locked");
    refused(&["--disk", &with(&f.path())], "is a directory");
    refused(&["--disk", &format!("{base},snapshot=on,overlay=x")], "not both");
    let meta = std::fs::metadata(&base).expect("there");
    let header = Header {
        disk_len: 1 << 20,
        base: Base {
            name: base.clone(),
            file_len: 1 << 20,
            changed: (meta.mtime(), meta.mtime_nsec() as u32),
            format: 0,
        },
        id: [7; 16],
    };
    let overlay = |header: &Header, entry: u64| {
        let mut bytes = header.encode();
        bytes.resize(header.data_at() as usize, 0);
        bytes[Header::entry_at(3) as usize..][..8].copy_from_slice(&entry.to_le_bytes());
        bytes
    };
    let mut other = header.clone();
    other.base.changed.0 -= 1;
    refused(
        &["--disk", &with(&f.with("other", &overlay(&other, 0)))],
        "is another file or was changed since",
    );
    // Found by the io-worker.
    let damaged = f.with("damaged", &overlay(&header, 99));
    refused(
        &["--disk", &with(&damaged)],
        &format!("The overlay \"{damaged}\" is damaged: the entry of cluster 3 has a wrong checksum"),
    );
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
