//! Load on a disk of the guest in which it runs, for `cargo xtask bench disk`: past the page cache, one request after the
//! other, each phase between two marks on standard output. Linked statically by that command, and nobody else.
//!
//! Usage: `diskload DEVICE MIB BLOCKS`: MIB mebibytes are written and read in order in pieces of 1 MiB, BLOCKS blocks of
//! 4 KiB at places drawn at random, over the first 64 MiB of the device.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

/// `O_DIRECT` on x86.
const DIRECT: i32 = 0o40000;
const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
/// Bytes of the device that are used.
const SPAN: u64 = 64 << 20;

/// Says something to whoever measures.
fn mark(text: &str) {
    println!("@@{text}");
    std::io::stdout().flush().expect("standard output");
}

fn phase(name: &str, work: impl FnOnce()) {
    mark(&format!("START {name}"));
    work();
    mark(&format!("END {name}"));
}

/// `len` bytes of `memory` where the device can put them.
fn aligned(memory: &mut [u8], len: usize) -> &mut [u8] {
    let at = memory.as_ptr().align_offset(BLOCK);
    &mut memory[at..at + len]
}

/// Places in the device, the same for every emulator.
fn places(count: u64) -> impl Iterator<Item = u64> {
    let mut x = 0x2545_F491_4F6C_DD1D_u64;
    (0..count).map(move |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % (SPAN / BLOCK as u64) * BLOCK as u64
    })
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, device, mib, blocks] = &words[..] else {
        panic!("diskload DEVICE MIB BLOCKS");
    };
    let (mib, blocks): (u64, u64) = (mib.parse().expect("MIB"), blocks.parse().expect("BLOCKS"));
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(DIRECT)
        .open(device)
        .expect("the device");
    let mut memory = vec![0; MIB + BLOCK];
    let piece = aligned(&mut memory, MIB);
    piece.fill(0x5A);
    let at = |n: u64| n * MIB as u64 % SPAN;
    phase("seqwrite", || {
        (0..mib).for_each(|n| file.write_all_at(piece, at(n)).expect("written"))
    });
    phase("seqread", || {
        (0..mib).for_each(|n| file.read_exact_at(piece, at(n)).expect("read"))
    });
    let block = &mut piece[..BLOCK];
    phase("randread", || {
        places(blocks).for_each(|at| file.read_exact_at(block, at).expect("read"))
    });
    phase("randwrite", || {
        places(blocks).for_each(|at| file.write_all_at(block, at).expect("written"))
    });
    mark("DONE");
}
