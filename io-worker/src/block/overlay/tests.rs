use rustix::fs::{MemfdFlags, memfd_create};

use super::header::{Base, HeaderError, MAGIC};
use super::*;
use crate::block::file::trace::{TRACE, Trace};
use crate::block::tests::MemoryImage;
use crate::block::{RawImage, SECTOR};

pub(super) fn header(sectors: u64) -> Header {
    Header {
        disk_len: sectors * SECTOR,
        base: Base {
            name: "/somewhere/base.img".into(),
            file_len: sectors * SECTOR,
            changed: (1_700_000_000, 5),
            format: 0,
        },
        id: *b"0123456789abcdef",
    }
}

fn memory() -> std::os::fd::OwnedFd {
    memfd_create("overlay", MemfdFlags::CLOEXEC).expect("memfd")
}

/// An overlay as the coordinator makes one.
fn made(sectors: u64) -> std::os::fd::OwnedFd {
    let file = memory();
    let header = header(sectors);
    rustix::io::pwrite(&file, &header.encode(), 0).expect("written");
    rustix::fs::ftruncate(&file, header.data_at()).expect("sized");
    file
}

fn again(fd: &std::os::fd::OwnedFd) -> std::os::fd::OwnedFd {
    fd.try_clone().expect("a descriptor")
}

fn opened(
    file: &std::os::fd::OwnedFd,
    base: &MemoryImage,
    scratch: Option<&std::os::fd::OwnedFd>,
) -> Result<Overlay<ImageFile>, ImageError> {
    let scratch = scratch.map(|fd| Scratch::open(again(fd)).expect("a scratch"));
    Overlay::open(ImageFile::new(again(file)), Box::new(base.clone()), scratch)
}

fn damage(result: Result<Overlay<ImageFile>, ImageError>) -> String {
    match result {
        Err(ImageError::Damaged(what)) => what,
        other => panic!("{other:?}"),
    }
}

const SECTORS: u64 = 5 * 128 + 3;

fn first_bytes(image: &mut dyn Image, sector: u64) -> u8 {
    let mut byte = [0];
    image.read(sector * SECTOR, &mut byte).expect("read");
    byte[0]
}

#[test]
fn writes_stay_in_the_overlay_and_the_base_is_seen_beside_them() {
    let (file, scratch, base) = (made(SECTORS), memory(), MemoryImage::numbered(SECTORS));
    let before = base.0.lock().expect("whole").bytes.clone();
    let mut image = opened(&file, &base, Some(&scratch)).expect("opened");
    assert_eq!(image.len(), SECTORS * SECTOR);
    // One sector, from one cluster into the next, and the short cluster at the end.
    image.write(7 * SECTOR, &[0xAA; 512]).expect("written");
    image.write(255 * SECTOR, &[0xBB; 1024]).expect("written");
    image
        .write((SECTORS - 1) * SECTOR, &[0xCC; 512])
        .expect("written");
    let mut expected = before.clone();
    for (at, len, byte) in [(7, 512, 0xAA), (255, 1024, 0xBB), (SECTORS - 1, 512, 0xCC)] {
        expected[(at * SECTOR) as usize..][..len].fill(byte);
    }
    let mut all = vec![0; before.len()];
    image.read(0, &mut all).expect("read");
    assert!(all == expected);
    let cached = image.cached().expect("a file has a cache");
    let mut sector = [0; 512];
    // The base of this test has none.
    assert!(!cached.read(128 * 4 * SECTOR, &mut sector));
    if cached.read(7 * SECTOR, &mut sector) {
        assert_eq!(sector, [0xAA; 512]);
    }
    assert!(image.is_unsettled());
    image.flush().expect("flushed");
    assert!(!image.is_unsettled());
    drop(image);
    // Another machine, which has another scratch.
    let mut image = opened(&file, &base, Some(&memory())).expect("opened again");
    image.read(0, &mut all).expect("read");
    assert!(all == expected);
    assert!(base.0.lock().expect("whole").bytes == before && base.0.lock().expect("whole").writes.is_empty());
}

#[test]
fn a_successor_finds_what_was_not_flushed_and_another_machine_does_not() {
    let (file, scratch, base) = (made(SECTORS), memory(), MemoryImage::numbered(SECTORS));
    let mut image = opened(&file, &base, Some(&scratch)).expect("opened");
    image.write(0, &[1; 512]).expect("written");
    image.flush().expect("flushed");
    image.write(128 * SECTOR, &[2; 512]).expect("written");
    // Killed: nothing is flushed.
    drop(image);
    let mut image = opened(&file, &base, Some(&scratch)).expect("the successor");
    assert_eq!((first_bytes(&mut image, 0), first_bytes(&mut image, 128)), (1, 2));
    assert!(image.is_unsettled());
    drop(image);
    let mut image = opened(&file, &base, Some(&memory())).expect("after the end of all");
    assert_eq!(
        (first_bytes(&mut image, 0), first_bytes(&mut image, 128)),
        (1, 128)
    );
}

#[test]
fn a_temporary_overlay_is_found_whole_by_a_successor() {
    let (file, base) = (made(SECTORS), MemoryImage::numbered(SECTORS));
    let mut image = opened(&file, &base, None).expect("opened");
    for n in 0..5 {
        image
            .write(n * 128 * SECTOR, &[n as u8 + 1; 512])
            .expect("written");
    }
    image.flush().expect("nothing to do");
    assert!(!image.is_unsettled());
    drop(image);
    let mut image = opened(&file, &base, None).expect("the successor");
    for n in 0..5 {
        assert_eq!(first_bytes(&mut image, n * 128), n as u8 + 1);
    }
}

#[test]
fn zeros_cover_the_base_and_discarded_clusters_can_be_written() {
    for unmap in [false, true] {
        let (file, scratch, base) = (made(SECTORS), memory(), MemoryImage::numbered(SECTORS));
        base.0.lock().expect("whole").bytes.fill(9);
        let mut image = opened(&file, &base, Some(&scratch)).expect("opened");
        image.write(130 * SECTOR, &[1; 512]).expect("written");
        // From the middle of a cluster of the base's over one of the overlay's to the end.
        image
            .zero(3 * SECTOR, (SECTORS - 3) * SECTOR, unmap)
            .expect("zeroed");
        let mut all = vec![5; (SECTORS * SECTOR) as usize];
        image.read(0, &mut all).expect("read");
        assert!(all[..3 * 512].iter().all(|b| *b == 9) && all[3 * 512..].iter().all(|b| *b == 0));
        image.discard(128 * SECTOR, 300 * SECTOR).expect("discarded");
        image.write(200 * SECTOR, &[7; 512]).expect("written");
        image.flush().expect("flushed");
        drop(image);
        let mut image = opened(&file, &base, None).expect("again");
        assert_eq!((first_bytes(&mut image, 200), first_bytes(&mut image, 2)), (7, 9));
    }
}

#[test]
fn what_is_no_overlay_or_a_damaged_one_is_refused_and_left_alone() {
    let base = MemoryImage::numbered(SECTORS);
    let (file, scratch) = (made(SECTORS), memory());
    let mut image = opened(&file, &base, Some(&scratch)).expect("opened");
    for n in 0..3 {
        image.write(n * 128 * SECTOR, &[1; 512]).expect("written");
    }
    image.flush().expect("flushed");
    drop(image);
    let whole = {
        let mut bytes = vec![0; rustix::fs::fstat(&file).expect("stat").st_size as usize];
        rustix::io::pread(&file, &mut bytes, 0).expect("read");
        bytes
    };
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 9] = [
        (|b| b.truncate(1000), "not an overlay"),
        (|b| b[0] ^= 1, "not an overlay"),
        (|b| b[8] = 9, "version 9"),
        (|b| b[100] ^= 1, "checksum of its header"),
        (|b| b[CLUSTER as usize + 8] ^= 1, "cluster 1 has a wrong checksum"),
        (
            |b| b[CLUSTER as usize + 13] ^= 1,
            "cluster 1 has a wrong checksum",
        ),
        (
            |b| b.copy_within(CLUSTER as usize..CLUSTER as usize + 8, CLUSTER as usize + 16),
            "cluster 2 has a wrong checksum",
        ),
        (|b| b.truncate(b.len() - 1), "past the end of the file"),
        (|b| b.truncate(2 * CLUSTER as usize - 1), "cut short"),
    ];
    for (change, expected) in changes {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let file = memory();
        rustix::io::pwrite(&file, &bytes, 0).expect("written");
        let said = damage(opened(&file, &base, Some(&memory())));
        assert!(said.contains(expected), "{said}");
        let mut left = vec![0; bytes.len() + 1];
        let len = rustix::io::pread(&file, &mut left, 0).expect("read");
        assert!(left[..len] == bytes, "left alone");
    }
    let said = damage(opened(&file, &MemoryImage::numbered(8), Some(&memory())));
    assert!(
        said.contains("disk of 329216 bytes, and there are 4096"),
        "{said}"
    );
    // Two clusters in one place, with right checksums.
    let twice = map::entry(header(SECTORS).id, 4, 0).to_le_bytes();
    rustix::io::pwrite(&file, &twice, Header::entry_at(4)).expect("written");
    let said = damage(opened(&file, &base, Some(&memory())));
    assert!(said.contains("lies where another one does"), "{said}");
}

#[test]
fn headers_are_read_back_and_know_their_base() {
    let header = header(SECTORS);
    let bytes = header.encode();
    assert_eq!((bytes.len(), &bytes[..8]), (HEADER, &MAGIC[..]));
    assert_eq!(Header::decode(&bytes), Ok(header.clone()));
    assert_eq!(header.check(&header.base, header.disk_len), Ok(()));
    let mut later = header.base.clone();
    later.changed.1 += 1;
    let said = header
        .check(&later, header.disk_len)
        .expect_err("refused")
        .to_string();
    assert!(said.contains("touch -d @1700000000.000000005"), "{said}");
    assert!(matches!(
        header.check(&header.base, 512),
        Err(HeaderError::Length(..))
    ));
    // A name that is too long is cut between letters.
    let mut long = header.clone();
    long.base.name = "ä".repeat(5000);
    let read = Header::decode(&long.encode()).expect("a header");
    assert!(long.base.name.starts_with(&read.base.name) && read.base.name.len() > 2000);
    assert!(!Header::fits(0) && !Header::fits(513) && !Header::fits(1 << 60) && Header::fits(1 << 47));
}

#[test]
fn a_large_disk_takes_little_until_it_is_used() {
    let sectors = (1 << 40) / SECTOR;
    let base = memory();
    rustix::fs::ftruncate(&base, 1 << 40).expect("sized");
    let base = || Box::new(RawImage::new(again(&base), SECTOR).expect("an image"));
    let file = made(sectors);
    let open = || Overlay::open(ImageFile::new(again(&file)), base(), None).expect("opened");
    let mut image = open();
    for n in 0..64 {
        image.write(n << 34, &[n as u8 + 1; 512]).expect("written");
    }
    drop(image);
    let mut image = open();
    for n in 0..64 {
        assert_eq!(first_bytes(&mut image, (n << 34) / SECTOR), n as u8 + 1);
    }
    let blocks = rustix::fs::fstat(&file).expect("stat").st_blocks;
    assert!(blocks * 512 < 8 << 20, "{blocks}");
}

#[test]
fn a_file_that_cannot_grow_refuses_and_keeps_what_it_has() {
    let file = memfd_create("overlay", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
    let header = header(SECTORS);
    rustix::io::pwrite(&file, &header.encode(), 0).expect("written");
    rustix::fs::ftruncate(&file, header.data_at()).expect("sized");
    let (scratch, base) = (memory(), MemoryImage::numbered(SECTORS));
    let mut image = opened(&file, &base, Some(&scratch)).expect("opened");
    image.write(0, &[1; 512]).expect("written");
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::GROW).expect("sealed");
    // From the cluster that is there into one that is not.
    assert!(matches!(
        image.write(127 * SECTOR, &[2; 1024]),
        Err(ImageError::Host(_))
    ));
    base.0.lock().expect("whole").bytes.fill(9);
    assert!(image.zero(256 * SECTOR, 128 * SECTOR, true).is_err());
    assert_eq!((first_bytes(&mut image, 0), first_bytes(&mut image, 128)), (1, 9));
    assert_eq!(first_bytes(&mut image, 256), 9);
    image.write(SECTOR, &[3; 512]).expect("written in place");
    image.flush().expect("flushed");
    drop(image);
    let mut image = opened(&file, &base, Some(&memory())).expect("again");
    assert_eq!((first_bytes(&mut image, 0), first_bytes(&mut image, 1)), (1, 3));
}

#[test]
fn a_temporary_overlay_whose_table_could_not_be_written_is_used_on() {
    let (base, file) = (MemoryImage::numbered(SECTORS), made(SECTORS));
    let mut image = opened(&file, &base, None).expect("opened");
    image.write(0, &[1; 512]).expect("written");
    // The data is written, and of its entry the host says that it is not.
    let (inode, steps) = (0, Vec::new());
    TRACE.set(Some(Trace {
        inode,
        fuel: 1,
        steps,
    }));
    assert!(image.write(128 * SECTOR, &[2; 512]).is_err());
    TRACE.set(None);
    let entry = map::entry(header(SECTORS).id, 1, 1).to_le_bytes();
    rustix::io::pwrite(&file, &entry, Header::entry_at(1)).expect("written");
    assert_eq!(first_bytes(&mut image, 128), 128);
    image.write(256 * SECTOR, &[3; 512]).expect("written");
    drop(image);
    let mut image = opened(&file, &base, None).expect("the successor");
    for (sector, value) in [(0, 1), (128, 2), (256, 3)] {
        assert_eq!(first_bytes(&mut image, sector), value);
    }
}
