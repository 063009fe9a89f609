//! Images that somebody made to do harm.

use super::tests::{Dice, qemu};
use super::*;

/// What is done with each: all of it read, and written to here and there. Errors are fine.
fn use_it(file: OwnedFd, write: bool) -> bool {
    let scratch = qemu::scratch();
    let record = write.then(|| Scratch::open(scratch).expect("a scratch"));
    let Ok(mut image) = Qcow2Image::new(file, record) else {
        return false;
    };
    let len = image.len().min(8 << 20);
    let mut bytes = vec![0; 64 << 10];
    for at in (0..len).step_by(bytes.len()) {
        let n = bytes.len().min((len - at) as usize);
        let _ = image.read(at, &mut bytes[..n]);
    }
    if write {
        for at in (0..len).step_by(700 << 10) {
            let n = 4096.min((len - at) as usize);
            let _ = image.write(at, &bytes[..n]);
            let _ = image.zero(at, n as u64, true);
        }
        let _ = image.flush();
    }
    true
}

/// Damages what the tables of an image say: nothing is read that is not in it, nobody waits for ever, and nothing panics.
#[test]
fn damaged_tables_are_errors() {
    if !qemu::is_there() {
        return;
    }
    let long = std::env::var_os("QUINTET_LONG").is_some();
    let rounds = if long { 20_000 } else { 400 };
    let folder = qemu::Folder::new();
    let path = folder.image("h.qcow2", "cluster_size=4096", "8M");
    let mut image = qemu::live(qemu::open(&path), &qemu::scratch());
    for at in (0..8 << 20).step_by(300 << 10) {
        image.write(at, &[7; 9000]).expect("written");
    }
    image.flush().expect("flushed");
    drop(image);
    let raw = folder.name("raw");
    std::fs::write(&raw, vec![5; 1 << 20]).expect("written");
    let packed = folder.name("z.qcow2");
    let (code, said) = qemu::img(&["convert", "-c", "-O", "qcow2", "-f", "raw", &raw, &packed]);
    assert_eq!(code, 0, "{said}");
    let mut opened = 0;
    for path in [&path, &packed] {
        let whole = std::fs::read(path).expect("the image");
        // Bytes that are not data are in the tables, most of them; the data is 7 or empty.
        let tables: Vec<usize> = (0..whole.len())
            .filter(|n| ![0, 7].contains(&whole[*n]))
            .collect();
        let mut dice = Dice(0xFEED_5EED);
        for round in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..1 + dice.below(4) {
                let at = match dice.below(4) {
                    0 => dice.below(112) as usize,
                    _ => tables[dice.below(tables.len() as u64) as usize] & !7 | dice.below(8) as usize,
                };
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = match dice.below(3) {
                        0 => dice.below(256) as u8,
                        1 => *byte ^ 1 << dice.below(8),
                        _ => 0xFF,
                    };
                }
            }
            let file = qemu::scratch();
            rustix::io::pwrite(&file, &bytes, 0).expect("written");
            opened += usize::from(use_it(file, round % 3 != 0));
        }
    }
    println!("{opened} of {} opened", 2 * rounds);
    assert!(opened > 100);
}

/// Counts that are nowhere: whoever looks for a place for them needs one for the count of that place.
#[test]
fn gaps_in_the_reference_counts_are_not_written_to() {
    if !qemu::is_there() {
        return;
    }
    let folder = qemu::Folder::new();
    // A block of counts for each 32 KiB, 64 blocks to a cluster of their table.
    let path = folder.image("g.qcow2", "cluster_size=512,refcount_bits=64", "1M");
    let mut image = qemu::live(qemu::open(&path), &qemu::scratch());
    image.write(0, &[7; 200 << 10]).expect("written");
    image.flush().expect("flushed");
    drop(image);
    let whole = std::fs::read(&path).expect("the image");
    let table = u64::from_be_bytes(whole[48..56].try_into().expect("eight")) as usize;
    for gap in [Some(0), Some(3), None] {
        let mut bytes = whole.clone();
        let entries = match gap {
            Some(n) => table + 8 * n..table + 8 * n + 8,
            None => table..table + 512,
        };
        assert!(bytes[entries.clone()].iter().any(|b| *b != 0), "there is one");
        bytes[entries].fill(0);
        let file = qemu::scratch();
        rustix::io::pwrite(&file, &bytes, 0).expect("written");
        let again = file.try_clone().expect("a descriptor");
        let record = Scratch::open(qemu::scratch()).expect("a scratch");
        let refused = Qcow2Image::new(file, Some(record)).expect_err("gaps").to_string();
        assert!(refused.contains("reference counts have gaps"), "{refused}");
        let mut image = Qcow2Image::new(again, None).expect("to be read");
        let mut read = vec![0; 200 << 10];
        image.read(0, &mut read).expect("read");
        assert!(read.iter().all(|b| *b == 7));
    }
}
