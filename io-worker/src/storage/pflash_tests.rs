use std::path::PathBuf;
use std::sync::Arc;

use quintet_protocol::shm::Map;

use super::*;
use crate::bus::Size;
use crate::bus::contract::{Bench, device_contract};

const LEN: usize = 16 << 10;

fn window() -> ViewMut {
    let window = ViewMut::new(Arc::new(Map::anonymous(LEN as u64).expect("map")));
    window.write_bytes(0, &[0xFF; LEN]);
    window
}

fn chip(_: &mut Bench) -> Pflash {
    Pflash::new("pflash0", window(), 0, None)
}

device_contract!(contract, chip);

/// A chip with its file.
struct Rig {
    bench: Bench,
    chip: Pflash,
    file: PathBuf,
}

impl Rig {
    fn new(name: &str) -> Self {
        let file = std::env::temp_dir().join(format!("quintet-pflash-{name}-{}", std::process::id()));
        std::fs::write(&file, [0xFF; LEN]).expect("a file");
        let opened = File::options()
            .read(true)
            .write(true)
            .open(&file)
            .expect("opened");
        Self {
            bench: Bench::new(),
            chip: Pflash::new("pflash0", window(), 0xF0_0000, Some(opened)),
            file,
        }
    }

    fn write(&mut self, at: u64, value: u8) {
        self.bench.outb(&mut self.chip, at, value);
    }

    fn read(&mut self, at: u64) -> u8 {
        self.bench.inb(&mut self.chip, at)
    }

    fn program(&mut self, at: u64, value: u8) {
        self.write(at, 0x10);
        self.write(at, value);
    }

    fn kept(&self, at: usize, len: usize) -> Vec<u8> {
        std::fs::read(&self.file).expect("the file")[at..at + len].to_vec()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[test]
fn programming_clears_bits_and_erasing_sets_a_block_in_the_file_too() {
    let mut rig = Rig::new("program");
    assert_eq!(rig.chip.rom(), Some(0xF0_0000));
    rig.program(0x1005, 0x5A);
    assert_eq!(rig.read(0), 0x80, "status, ready");
    assert_eq!(rig.chip.rom(), None, "reads are asked here");
    rig.program(0x1005, 0xF0);
    rig.program(0x2000, 0x00);
    rig.write(0, 0xFF);
    assert_eq!((rig.read(0x1005), rig.read(0x1004)), (0x50, 0xFF));
    assert_eq!(rig.kept(0x1004, 3), [0xFF, 0x50, 0xFF]);
    rig.write(0x1FFF, 0x20);
    rig.write(0x1FFF, 0xD0);
    assert_eq!(rig.read(0), 0x80);
    rig.write(0, 0xFF);
    assert_eq!((rig.read(0x1005), rig.read(0x2000)), (0xFF, 0x00));
    assert_eq!(
        (rig.kept(0x1005, 1), rig.kept(0x2000, 1)),
        (vec![0xFF], vec![0x00])
    );
}

#[test]
fn a_buffer_is_programmed_when_it_is_confirmed() {
    let mut rig = Rig::new("buffer");
    rig.write(0x100, 0xE8);
    rig.write(0x100, 2);
    for (at, value) in [(0x100, 1), (0x101, 2), (0x102, 3)] {
        rig.write(at, value);
    }
    assert_eq!(rig.kept(0x100, 3), [0xFF; 3]);
    rig.write(0x100, 0xD0);
    assert_eq!(rig.kept(0x100, 4), [1, 2, 3, 0xFF]);
    // Without the confirmation nothing happens, and both error bits say so until they are cleared.
    rig.write(0x200, 0xE8);
    rig.write(0x200, 0);
    rig.write(0x200, 9);
    rig.write(0x200, 0xFF);
    assert_eq!(rig.kept(0x200, 1), [0xFF]);
    assert_eq!(rig.read(0), 0xB0);
    rig.write(0, 0x50);
    rig.write(0, 0x70);
    assert_eq!(rig.read(0), 0x80);
}

#[test]
fn words_are_programmed_as_their_bytes() {
    let mut rig = Rig::new("words");
    rig.write(0, 0x40);
    rig.bench.write(&mut rig.chip, 0, 0x10, Size::DWORD, 0x1122_3344);
    assert_eq!(rig.kept(0x10, 4), [0x44, 0x33, 0x22, 0x11]);
}

#[test]
fn a_driver_finds_maker_and_geometry() {
    let mut rig = Rig::new("cfi");
    rig.write(0, 0x90);
    assert_eq!((rig.read(0), rig.read(1)), (0x89, 0x18));
    rig.write(0x55, 0x98);
    let table: Vec<u8> = (0x10..0x31).map(|at| rig.read(at)).collect();
    assert_eq!(table[..3], *b"QRY");
    assert_eq!(table[0x27 - 0x10], 14, "16 KiB");
    assert_eq!(table[0x2C - 0x10..], [1, 3, 0, 16, 0], "four blocks of 4 KiB");
}

#[test]
fn a_chip_without_a_file_says_that_it_failed() {
    let mut bench = Bench::new();
    let mut chip = chip(&mut bench);
    for value in [0x10, 0x00] {
        bench.outb(&mut chip, 8, value);
    }
    assert_eq!(bench.inb(&mut chip, 0), 0x90);
    for value in [0x50, 0x20, 0xD0] {
        bench.outb(&mut chip, 8, value);
    }
    assert_eq!(bench.inb(&mut chip, 0), 0xA0);
    bench.outb(&mut chip, 0, 0xFF);
    assert_eq!(bench.inb(&mut chip, 8), 0xFF);
}
