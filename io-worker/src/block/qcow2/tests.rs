use rustix::fs::{MemfdFlags, memfd_create};

use super::header::{MAGIC, Qcow2Error};
use super::*;

fn word(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// The header of an image of 1 MiB, version 3, clusters of 64 KiB.
fn head() -> Vec<u8> {
    let mut head = vec![0; 112];
    head[..4].copy_from_slice(&MAGIC);
    word(&mut head, 4, 3);
    word(&mut head, 20, 16);
    word(&mut head, 28, 1 << 20);
    word(&mut head, 36, 1);
    word(&mut head, 44, 0x3_0000);
    word(&mut head, 52, 0x1_0000);
    word(&mut head, 56, 1);
    word(&mut head, 96, 4);
    word(&mut head, 100, 104);
    head
}

#[test]
fn what_an_image_may_be_is_looked_at_before_the_library_does() {
    let len = 0x4_0000;
    let good = check(&head(), len, true).expect("good");
    assert_eq!(
        (good.disk_len, good.cluster, good.l1),
        (1 << 20, 1 << 16, (0x3_0000, 8))
    );
    type Change = (usize, u32);
    let cases: [(&[Change], Qcow2Error); 20] = [
        (&[(0, 0)], Qcow2Error::Foreign),
        (&[(4, 4)], Qcow2Error::Version(4)),
        (&[(20, 8)], Qcow2Error::Senseless("size of clusters")),
        (&[(20, 63)], Qcow2Error::Senseless("size of clusters")),
        (&[(24, 1 << 30)], Qcow2Error::Senseless("length of the disk")),
        (&[(28, 100)], Qcow2Error::Senseless("length of the disk")),
        (&[(32, 2)], Qcow2Error::Encrypted),
        (&[(36, u32::MAX)], Qcow2Error::Senseless("size of its L1 table")),
        (&[(36, 0)], Qcow2Error::Senseless("size of its L1 table")),
        (
            &[(56, u32::MAX)],
            Qcow2Error::Senseless("size of its refcount table"),
        ),
        (&[(44, 0x3_0001)], Qcow2Error::Senseless("place for its L1 table")),
        (&[(40, u32::MAX)], Qcow2Error::Truncated("L1 table")),
        (&[(100, 96)], Qcow2Error::Senseless("length of its header")),
        (&[(100, 106)], Qcow2Error::Senseless("length of its header")),
        (
            &[(100, 0x1_0000)],
            Qcow2Error::Senseless("extension of the header"),
        ),
        (
            &[(104, 5), (108, u32::MAX)],
            Qcow2Error::Senseless("extension of the header"),
        ),
        (
            &[(104, 0x6803_F857), (108, 49)],
            Qcow2Error::Senseless("extension of the header"),
        ),
        (&[(76, 2)], Qcow2Error::Corrupt),
        (&[(76, 4)], Qcow2Error::External),
        (&[(76, 24)], Qcow2Error::Features(24)),
    ];
    for (changes, expected) in cases {
        let mut head = head();
        for (at, value) in changes {
            word(&mut head, *at, *value);
        }
        for write in [false, true] {
            assert_eq!(check(&head, len, write), Err(expected.clone()), "{changes:?}");
        }
    }
    // These can be read.
    for (at, value, expected) in [
        (76, 1, Qcow2Error::Dirty),
        (60, 3, Qcow2Error::Snapshots(3)),
        (4, 2, Qcow2Error::Old),
    ] {
        let mut head = head();
        word(&mut head, at, value);
        assert_eq!(check(&head, len, true), Err(expected));
        check(&head, len, false).expect("read");
    }
    for end in [5, 71, 75, 107] {
        assert_eq!(
            check(&head()[..end], len, false),
            Err(Qcow2Error::Truncated("header"))
        );
    }
    assert_eq!(
        check(&head(), 0x2_0000, false),
        Err(Qcow2Error::Truncated("L1 table"))
    );
    let mut over = head();
    word(&mut over, 12, 112);
    word(&mut over, 16, 4);
    over.extend(b"a\x1b]b");
    let said = check(&over, len, false).expect_err("refused").to_string();
    assert!(
        said.contains("a\\u{1b}]b") && said.contains("qemu-img convert"),
        "{said}"
    );
}

/// Images that `qemu-img` makes and judges.
pub(super) mod qemu {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    /// Whether there is a `qemu-img`; says what is missing, and where it must not be, fails.
    pub(crate) fn is_there() -> bool {
        let there = Command::new("qemu-img").arg("--version").output().is_ok();
        if !there {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "qemu-img is missing");
            println!("SKIPPED: there is no qemu-img; type: sudo apt-get install qemu-utils");
        }
        there
    }

    pub(crate) fn img(arguments: &[&str]) -> (i32, String) {
        let output = Command::new("qemu-img")
            .args(arguments)
            .output()
            .expect("qemu-img");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }

    /// A folder for images.
    pub(crate) struct Folder(tempfile::TempDir);

    impl Folder {
        pub(crate) fn new() -> Self {
            Self(tempfile::tempdir().expect("directory"))
        }

        pub(crate) fn name(&self, name: &str) -> String {
            self.0.path().join(name).display().to_string()
        }

        /// An image by `qemu-img create`.
        pub(crate) fn image(&self, name: &str, options: &str, len: &str) -> String {
            let path = self.name(name);
            let (code, said) = img(&["create", "-q", "-f", "qcow2", "-o", options, &path, len]);
            assert_eq!(code, 0, "{said}");
            path
        }
    }

    pub(crate) fn open(path: impl AsRef<Path>) -> OwnedFd {
        let path: PathBuf = path.as_ref().into();
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .expect("opened")
            .into()
    }

    pub(crate) fn scratch() -> OwnedFd {
        memfd_create("scratch", MemfdFlags::CLOEXEC).expect("memfd")
    }

    /// A process that takes an image up, with what its predecessor left.
    pub(crate) fn live(image: OwnedFd, scratch: &OwnedFd) -> Qcow2Image {
        let record = Scratch::open(scratch.try_clone().expect("a descriptor")).expect("a scratch");
        Qcow2Image::new(image, Some(record)).expect("an image")
    }

    /// No error, and no leak if none is allowed.
    pub(crate) fn assert_sound(path: &str, leaks: bool) {
        let (code, said) = img(&["check", path]);
        assert!(code == 0 || leaks && code == 3, "{code}: {said}");
    }
}

/// Numbers without a pattern.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }
}

/// One change of a disk, here and in what it should be.
pub(super) fn change(dice: &mut Dice, image: &mut Qcow2Image, model: &mut [u8]) -> Result<(), ImageError> {
    let sectors = model.len() as u64 / 512;
    let at = dice.below(sectors);
    let most = [8, 64, 600][dice.below(3) as usize];
    let len = (1 + dice.below(most)).min(sectors - at);
    let range = (at * 512) as usize..((at + len) * 512) as usize;
    match dice.below(5) {
        0 => {
            model[range].fill(0);
            image.zero(at * 512, len * 512, true)
        }
        _ => {
            let value = dice.below(255) as u8 + 1;
            model[range.clone()].fill(value);
            image.write(at * 512, &model[range])
        }
    }
}

pub(super) fn all(image: &mut Qcow2Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read(0, &mut bytes).expect("read");
    bytes
}

#[test]
fn what_is_written_is_read_by_qemu_and_by_a_successor() {
    if !qemu::is_there() {
        return;
    }
    let folder = qemu::Folder::new();
    for (n, options) in [
        "cluster_size=512",
        "cluster_size=65536",
        "cluster_size=2M,refcount_bits=1",
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.image(&format!("{n}.qcow2"), options, "8M");
        let mut dice = Dice(0x1234_5678_9ABC + n as u64);
        let mut model = vec![0; 8 << 20];
        let mut scratch = qemu::scratch();
        let mut image = qemu::live(qemu::open(&path), &scratch);
        for round in 0..60 {
            change(&mut dice, &mut image, &mut model).expect("done");
            match dice.below(6) {
                0 => image.flush().expect("flushed"),
                1 => {
                    // Killed, but for the library's own clean-up, which goes nowhere.
                    drop(image);
                    image = qemu::live(qemu::open(&path), &scratch);
                }
                2 => {
                    image.flush().expect("flushed");
                    drop(image);
                    scratch = qemu::scratch();
                    image = qemu::live(qemu::open(&path), &scratch);
                }
                _ => {}
            }
            assert!(all(&mut image) == model, "{options}: round {round}");
        }
        assert!(image.is_unsettled() || round_is_settled(&mut image));
        image.flush().expect("flushed");
        assert!(!image.is_unsettled());
        drop(image);
        qemu::assert_sound(&path, true);
        let raw = folder.name("model.img");
        std::fs::write(&raw, &model).expect("written");
        let (code, said) = qemu::img(&["compare", "-f", "raw", "-F", "qcow2", &raw, &path]);
        assert_eq!(code, 0, "{said}");
    }
}

fn round_is_settled(image: &mut Qcow2Image) -> bool {
    image.flush().is_ok()
}

#[test]
fn compressed_images_are_read_and_written() {
    if !qemu::is_there() {
        return;
    }
    let folder = qemu::Folder::new();
    let (raw, path) = (folder.name("raw"), folder.name("z.qcow2"));
    let mut model: Vec<u8> = (0..4_u32 << 18).flat_map(|n| (n / 100).to_le_bytes()).collect();
    std::fs::write(&raw, &model).expect("written");
    let (code, said) = qemu::img(&["convert", "-c", "-f", "raw", "-O", "qcow2", &raw, &path]);
    assert_eq!(code, 0, "{said}");
    let scratch = qemu::scratch();
    let mut image = qemu::live(qemu::open(&path), &scratch);
    assert!(all(&mut image) == model);
    let mut dice = Dice(99);
    for _ in 0..40 {
        change(&mut dice, &mut image, &mut model).expect("done");
    }
    assert!(all(&mut image) == model);
    image.flush().expect("flushed");
    drop(image);
    qemu::assert_sound(&path, true);
    let mut image = Qcow2Image::new(qemu::open(&path), None).expect("for reading");
    assert!(all(&mut image) == model);
    assert!(image.write(0, &[1; 512]).is_err(), "only read");
}

#[test]
fn what_has_been_cut_short_is_an_error_and_not_zeros() {
    if !qemu::is_there() {
        return;
    }
    let folder = qemu::Folder::new();
    let path = folder.image("t.qcow2", "cluster_size=65536", "8M");
    let mut image = qemu::live(qemu::open(&path), &qemu::scratch());
    image.write(0, &[7; 1 << 20]).expect("written");
    image.flush().expect("flushed");
    drop(image);
    let file = qemu::open(&path);
    let len = rustix::fs::fstat(&file).expect("stat").st_size as u64;
    rustix::fs::ftruncate(&file, len - (256 << 10)).expect("cut");
    let mut image = Qcow2Image::new(file, None).expect("opened");
    image.read(0, &mut [0; 4096]).expect("what is left");
    assert!(image.read((1 << 20) - 4096, &mut [0; 4096]).is_err());
}
