//! Disk images that cannot be used: one line that names the file, exit status 1.

mod harness;

use std::path::PathBuf;

use harness::run_to_end;

/// A folder with images, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("quintet-images-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        Self(dir)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("file");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn refused(options: &[&str], part: &str) {
    let mut arguments = vec![
        "run",
        "--headless",
        "--serial",
        "none",
        "--ram",
        "32M",
        "--time-limit",
        "30s",
    ];
    arguments.extend(options);
    let output = run_to_end(&arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("quintet: ") && text.contains(part), "{text}");
}

#[test]
fn missing_empty_odd_and_special_files() {
    let f = Folder::new("special");
    let missing = f.0.join("none").display().to_string();
    let folder = f.0.display().to_string();
    let (empty, odd) = (f.file("empty", b""), f.file("odd", &[0; 1000]));
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
    let f = Folder::new("iso");
    let mut iso = vec![0; 40 * 2048];
    iso[16 * 2048..][..6].copy_from_slice(b"\x01CD001");
    iso[16 * 2048 + 80..][..4].copy_from_slice(&50_u32.to_le_bytes());
    iso[16 * 2048 + 128..][..2].copy_from_slice(&2048_u16.to_le_bytes());
    refused(
        &["--cdrom", &f.file("cd.iso", &iso)],
        "is truncated: it has 81920 of 102400 bytes",
    );
}

#[test]
fn a_qcow2_image_taken_for_raw() {
    let f = Folder::new("qcow2");
    let mut image = vec![0; 4096];
    image[..4].copy_from_slice(b"QFI\xFB");
    refused(&["--disk", &f.file("d.qcow2", &image)], "is in the format qcow2");
}

#[test]
fn an_image_that_somebody_else_uses() {
    let f = Folder::new("locked");
    let image = f.file("d.img", &[0; 4096]);
    let plain = format!("{image},format=raw");
    refused(&["--disk", &plain, "--disk", &plain], "is locked");
    refused(&["--disk", &plain, "--cdrom", &image], "is locked");
}

#[test]
fn an_image_that_cannot_be_written() {
    // Nobody may write there, root included.
    refused(&["--disk", "/proc/version,format=raw"], "\"/proc/version\"");
    let f = Folder::new("readonly");
    let image = f.file("d.img", &[0; 4096]);
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
    refused(&["--disk", "d,bus=virtio"], "does not work yet");
    let five: Vec<&str> = ["--disk", "d"].repeat(5);
    refused(&five, "has 4 units");
}
