//! Disk images that somebody made to do harm, and good ones against a model.

use std::os::fd::OwnedFd;

use arbitrary::Unstructured;
use quintet_io_worker::block::overlay::Overlay;
use quintet_io_worker::block::overlay::header::{Base, HEADER, Header};
use quintet_io_worker::block::qcow2::Qcow2Image;
use quintet_io_worker::block::{Image, ImageFile, RawImage, Scratch};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Bytes of a cluster of the qcow2 image that is made here.
const CLUSTER: usize = 4096;
/// Bytes of the disk of images that are made here.
const DISK: u64 = 1 << 20;
/// Most of a disk that is looked at: an image of 64 EiB has few bytes.
const SEEN: u64 = 2 << 20;

fn file(bytes: &[u8], len: u64) -> OwnedFd {
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&file, len.max(bytes.len() as u64)).expect("sized");
    rustix::io::pwrite(&file, bytes, 0).expect("written");
    file
}

fn again(file: &OwnedFd) -> OwnedFd {
    file.try_clone().expect("a descriptor")
}

/// An empty qcow2 image of version 3: header, refcount table, refcount block, L1 table.
fn qcow2() -> Vec<u8> {
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xFB");
    for (at, word) in [(4, 3), (20, 12), (36, 1), (56, 1), (96, 4), (100, 104_u32)] {
        put(at, &word.to_be_bytes());
    }
    let cluster = CLUSTER as u64;
    for (at, long) in [(24, DISK), (40, 3 * cluster), (48, cluster)] {
        put(at, &long.to_be_bytes());
    }
    put(CLUSTER, &(2 * cluster).to_be_bytes());
    for n in 0..4 {
        put(2 * CLUSTER + 2 * n, &[0, 1]);
    }
    image
}

/// A range of whole sectors inside.
fn range(u: &mut Unstructured<'_>, len: u64) -> (u64, usize) {
    let sectors = (len / SECTOR).max(1);
    let at = u64::from(u.arbitrary::<u16>().unwrap_or(0)) % sectors;
    let count = (1 + u64::from(u.arbitrary::<u8>().unwrap_or(0))).min(sectors - at);
    (at * SECTOR, (count * SECTOR) as usize)
}

/// Does to an image what a disk does. With a `model`, what is read is what was written.
fn use_it(image: &mut dyn Image, u: &mut Unstructured<'_>, mut model: Option<&mut Vec<u8>>) {
    let len = image.len().min(SEEN) / SECTOR * SECTOR;
    if len == 0 {
        return;
    }
    for round in 0..64_u8 {
        if u.is_empty() {
            break;
        }
        let op = u.arbitrary::<u8>().unwrap_or(0);
        let (at, n) = range(u, len);
        let place = at as usize..at as usize + n;
        let done = match op % 8 {
            0 | 1 => {
                let mut bytes = vec![0; n];
                let done = image.read(at, &mut bytes);
                if let (Ok(()), Some(model)) = (&done, &model) {
                    assert!(bytes == model[place.clone()], "sectors at {at} are others");
                }
                done
            }
            2..5 => {
                let mut bytes = vec![op ^ round; n];
                bytes[0] = round;
                let done = image.write(at, &bytes);
                if let Some(model) = &mut model {
                    model[place].copy_from_slice(&bytes);
                }
                done
            }
            5 => {
                if let Some(model) = &mut model {
                    model[place].fill(0);
                }
                image.zero(at, n as u64, op & 8 != 0)
            }
            6 => {
                let done = image.discard(at, n as u64);
                // What that reads as is the image's to say, once.
                if let Some(model) = &mut model {
                    let _ = image.read(at, &mut model[place]);
                }
                done
            }
            _ => image.flush(),
        };
        assert!(done.is_ok() || model.is_none(), "{done:?} of a good image");
    }
}

fn all(image: &mut dyn Image) -> Vec<u8> {
    let mut bytes = vec![0; image.len() as usize];
    image.read(0, &mut bytes).expect("a good image is read");
    bytes
}

/// Reads what there is, twice: it is the same.
fn read_twice(image: &mut dyn Image) {
    let len = image.len().min(SEEN);
    let mut once = vec![0; 64 << 10];
    let mut twice = once.clone();
    for at in (0..len).step_by(once.len()) {
        let n = once.len().min((len - at) as usize);
        if image.read(at, &mut once[..n]).is_ok() {
            assert!(image.read(at, &mut twice[..n]).is_ok() && once[..n] == twice[..n]);
        }
    }
}

fn damaged_qcow2(bytes: &[u8], len: u64, write: bool, u: &mut Unstructured<'_>) {
    let scratch = write.then(|| Scratch::open(file(&[], 0)).expect("an empty record"));
    if let Ok(mut image) = Qcow2Image::new(file(bytes, len), scratch) {
        read_twice(&mut image);
        if write {
            use_it(&mut image, u, None);
        }
    }
}

fn good_qcow2(u: &mut Unstructured<'_>) {
    let (store, record) = (file(&qcow2(), 0), file(&[], 0));
    let open = || {
        let scratch = Scratch::open(again(&record)).expect("its own record");
        Qcow2Image::new(again(&store), Some(scratch)).expect("a good image")
    };
    let mut model = vec![0; DISK as usize];
    for _ in 0..3 {
        let mut image = open();
        use_it(&mut image, u, Some(&mut model));
        assert!(all(&mut image) == model, "the disk is another");
        // The process dies here, and the next one finds what this one had said was written.
    }
    assert!(all(&mut open()) == model, "the successor's disk is another");
}

fn overlay(u: &mut Unstructured<'_>) {
    let how = u.arbitrary::<u8>().unwrap_or(0);
    let base = file(&[7; 4096], DISK);
    let header = Header {
        disk_len: DISK,
        base: Base {
            name: "base".into(),
            file_len: DISK,
            changed: (0, 0),
            format: 0,
        },
        id: *b"0123456789abcdef",
    };
    let mut bytes = header.encode();
    if how & 1 != 0 {
        // A header with other values and a checksum that is right.
        for _ in 0..1 + how % 4 {
            let (at, value) = (u.arbitrary::<u8>().unwrap_or(0), u.arbitrary().unwrap_or(0));
            bytes[usize::from(at)] = value;
        }
        let sum = crc32fast::hash(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
    }
    let store = file(&bytes, header.data_at() + u64::from(how >> 6) * (64 << 10));
    if how & 2 != 0 {
        // Entries, with checksums that are right most of the time, and others.
        for _ in 0..1 + (how >> 2) % 4 {
            let (cluster, data) = (u.arbitrary::<u8>().unwrap_or(0), u.arbitrary::<u8>().unwrap_or(0));
            let entry = match data {
                0..0xF0 => quintet_io_worker::block::overlay::entry(
                    header.id,
                    u32::from(cluster % 16),
                    u32::from(data % 8),
                ),
                _ => u.arbitrary().unwrap_or(u64::MAX),
            };
            let at = Header::entry_at(u32::from(cluster % 16));
            rustix::io::pwrite(&store, &entry.to_le_bytes(), at).expect("written");
        }
    }
    let record = file(&[], 0);
    if how & 0x20 != 0 {
        let n = usize::from(u.arbitrary::<u8>().unwrap_or(0)).min(u.len());
        let waiting = u.bytes(n).unwrap_or(&[]);
        let len = (waiting.len() as u64 / 8 * 8).to_le_bytes();
        rustix::io::pwrite(&record, &[&len, waiting].concat(), 0).expect("written");
    }
    let open = || {
        let below = RawImage::new(again(&base), SECTOR).expect("a file in memory");
        let scratch = Scratch::open(again(&record))?;
        Overlay::open(ImageFile::new(again(&store)), Box::new(below), Some(scratch))
    };
    let before = {
        let mut bytes = vec![0; rustix::fs::fstat(&store).expect("a file").st_size as usize];
        rustix::io::pread(&store, &mut bytes, 0).expect("read");
        bytes
    };
    let Ok(mut image) = open() else {
        let mut after = vec![0; before.len()];
        let n = rustix::io::pread(&store, &mut after, 0).expect("read");
        assert!(
            n == before.len() && after == before,
            "an overlay was refused, and changed"
        );
        return;
    };
    // What it took up is consistent, whoever wrote it: from here on it is a disk.
    let mut model = all(&mut image);
    for _ in 0..3 {
        use_it(&mut image, u, Some(&mut model));
        assert!(all(&mut image) == model, "the disk is another");
        drop(image);
        image = open().unwrap_or_else(|e| panic!("a successor does not open it: {e}"));
        assert!(all(&mut image) == model, "the successor's disk is another");
    }
}

/// Images from nowhere: qcow2 whole, qcow2 that was good and has some bytes changed, overlays with right checksums and wrong
/// contents; and good ones of each, with a death between any two requests.
///
/// # Panics
/// When an image that was taken up reads as something else than what was written to it.
pub fn images(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let flags: u8 = u.arbitrary().unwrap_or(0);
    match flags % 8 {
        0 | 1 => overlay(&mut u),
        2 => good_qcow2(&mut u),
        3 => {
            let len = u64::from(u.arbitrary::<u8>().unwrap_or(0)) << 12;
            let bytes = u.bytes(u.len()).unwrap_or(&[]);
            damaged_qcow2(bytes, len, flags & 8 != 0, &mut u);
        }
        4 => {
            let n = usize::from(u.arbitrary::<u16>().unwrap_or(0)).min(u.len());
            let bytes = u.bytes(n).unwrap_or(&[]).to_vec();
            let held = bytes.len() as u64;
            let mut image = RawImage::new(file(&bytes, held), SECTOR).expect("a file in memory");
            let mut model = bytes;
            model.resize(held.next_multiple_of(SECTOR) as usize, 0);
            use_it(&mut image, &mut u, Some(&mut model));
            assert!(all(&mut image) == model);
        }
        _ => {
            let mut bytes = qcow2();
            // Something in it, so that there are tables to damage.
            bytes.resize(8 * CLUSTER, 9);
            for _ in 0..1 + u.arbitrary::<u8>().unwrap_or(0) % 24 {
                let (table, at) = (
                    u.arbitrary::<u8>().unwrap_or(0),
                    u.arbitrary::<u16>().unwrap_or(0),
                );
                let value: u8 = u.arbitrary().unwrap_or(0);
                let base = match table % 5 {
                    0 => 0,
                    n => usize::from(n) * CLUSTER,
                };
                let within = usize::from(at) % if table & 0x80 == 0 { 128 } else { CLUSTER };
                bytes[base + within] = value;
            }
            damaged_qcow2(&bytes, 0, flags & 8 != 0, &mut u);
        }
    }
}
