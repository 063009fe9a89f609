use std::sync::{Arc, Mutex};
use std::time::Duration;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamLayout};

use super::*;

/// An image in memory that notes what is done to it, and fails where it is told to.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryImage(pub(crate) Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    pub(crate) writes: Vec<(u64, usize)>,
    pub(crate) flushes: u32,
    /// Sector whose reading and writing fails.
    pub(crate) bad: Option<u64>,
}

impl MemoryImage {
    /// Every sector begins with its number.
    pub(crate) fn numbered(sectors: u64) -> Self {
        let mut bytes = vec![0; (sectors * SECTOR) as usize];
        for (n, sector) in (0_u64..).zip(bytes.chunks_exact_mut(SECTOR as usize)) {
            sector[..8].copy_from_slice(&n.to_le_bytes());
        }
        Self(Arc::new(Mutex::new(Memory {
            bytes,
            ..Memory::default()
        })))
    }

    pub(crate) fn sector(&self, n: u64) -> Vec<u8> {
        self.0.lock().expect("whole").bytes[(n * SECTOR) as usize..][..SECTOR as usize].to_vec()
    }

    fn check(&self, offset: u64, len: usize) -> std::io::Result<()> {
        let range = offset / SECTOR..(offset + len as u64).div_ceil(SECTOR);
        match self.0.lock().expect("whole").bad {
            Some(bad) if range.contains(&bad) => Err(std::io::Error::other("bad sector")),
            _ => Ok(()),
        }
    }
}

impl Image for MemoryImage {
    fn len(&self) -> u64 {
        self.0.lock().expect("whole").bytes.len() as u64
    }
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        self.check(offset, into.len())?;
        into.copy_from_slice(&self.0.lock().expect("whole").bytes[offset as usize..][..into.len()]);
        Ok(())
    }
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        self.check(offset, from.len())?;
        let mut memory = self.0.lock().expect("whole");
        memory.bytes[offset as usize..][..from.len()].copy_from_slice(from);
        memory.writes.push((offset, from.len()));
        Ok(())
    }
    fn flush(&mut self) -> Result<(), ImageError> {
        self.0.lock().expect("whole").flushes += 1;
        Ok(())
    }
}

/// Guest memory that nobody looks at.
fn dma() -> Dma {
    Dma::new(GuestRam::anonymous(RamLayout::new(2 << 20)).expect("RAM"))
}

fn raw(bytes: &[u8], unit: u64) -> RawImage {
    let file = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::io::write(&file, bytes).expect("written");
    RawImage::new(file, unit).expect("an image")
}

#[test]
fn nothing_is_done_before_it_is_submitted_and_then_in_order() {
    let image = MemoryImage::numbered(8);
    let mut disks = Disks::default();
    let (bell, rung) = channel();
    let disk = disks
        .add("d", Box::new(image.clone()), false, move || {
            let _ = bell.send(());
        })
        .expect("thread");
    let write = disks.ask(
        disk,
        Operation::Write {
            offset: 512,
            data: vec![7; 512],
            durable: true,
        },
    );
    let read = disks.ask(
        disk,
        Operation::Read {
            offset: 512,
            len: 1024,
        },
    );
    assert!(disks.has_staged());
    assert!(rung.recv_timeout(Duration::from_millis(20)).is_err());
    assert_eq!(image.0.lock().expect("whole").writes, []);
    disks.submit(&mut dma());
    assert!(!disks.has_staged());
    rung.recv().expect("rung");
    rung.recv().expect("rung");
    assert_eq!(
        disks.take(disk),
        Some(Done {
            ticket: write,
            result: Ok(Data::Held(vec![]))
        })
    );
    let got = disks.take(disk).expect("done");
    assert_eq!(got.ticket, read);
    let data = got.result.expect("read").held();
    assert_eq!((&data[..512], data[512]), (&[7; 512][..], 2));
    assert_eq!(disks.take(disk), None);
    assert_eq!(image.0.lock().expect("whole").flushes, 1, "durable");
}

#[test]
fn what_the_host_cannot_do_and_what_lies_outside_are_errors() {
    let image = MemoryImage::numbered(4);
    image.0.lock().expect("whole").bad = Some(2);
    let mut disks = Disks::default();
    let disk = disks.add_here("d", Box::new(image), true);
    for operation in [
        Operation::Read {
            offset: 1024,
            len: 512,
        },
        Operation::Read {
            offset: 1536,
            len: 1024,
        },
        Operation::Read {
            offset: u64::MAX,
            len: 1,
        },
        Operation::Write {
            offset: 0,
            data: vec![0; 512],
            durable: false,
        },
    ] {
        let ticket = disks.ask(disk, operation);
        disks.submit(&mut dma());
        assert_eq!(
            disks.take(disk),
            Some(Done {
                ticket,
                result: Err(DiskError)
            })
        );
    }
}

#[test]
fn dropping_waits_for_what_is_under_way() {
    let image = MemoryImage::numbered(64);
    let mut disks = Disks::default();
    let disk = disks
        .add("d", Box::new(image.clone()), false, || {})
        .expect("thread");
    for n in 0..64 {
        disks.ask(
            disk,
            Operation::Write {
                offset: n * 512,
                data: vec![1; 512],
                durable: false,
            },
        );
    }
    disks.submit(&mut dma());
    drop(disks);
    assert_eq!(image.0.lock().expect("whole").writes.len(), 64);
}

#[test]
fn a_raw_image_is_rounded_up_with_zeros_and_keeps_what_is_written() {
    let mut image = raw(&[5; 3000], 2048);
    assert_eq!(image.len(), 4096);
    let mut bytes = [9; 2048];
    image.read(2048, &mut bytes).expect("read");
    assert_eq!((bytes[951], bytes[952], bytes[2047]), (5, 0, 0));
    image.write(1000, &[1, 2, 3]).expect("written");
    image.flush().expect("flushed");
    image.read(999, &mut bytes[..5]).expect("read");
    assert_eq!(bytes[..5], [5, 1, 2, 3, 5]);
}

#[test]
fn a_raw_image_cut_short_is_an_error_and_not_zeros() {
    let mut image = raw(&[5; 4096], 512);
    image.file_for_tests().set_len(1024).expect("cut");
    assert!(image.read(0, &mut [0; 4096]).is_err());
    image.read(0, &mut [0; 1024]).expect("what is left");
}

/// An image of which the host has all in memory, as it was at the start.
#[derive(Debug)]
struct InMemory(MemoryImage, Vec<u8>);

#[derive(Debug)]
struct Snapshot(Vec<u8>);

impl Cached for Snapshot {
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        into.copy_from_slice(&self.0[offset as usize..][..into.len()]);
        true
    }
}

impl Image for InMemory {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        self.0.read(offset, into)
    }
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        self.0.write(offset, from)
    }
    fn flush(&mut self) -> Result<(), ImageError> {
        self.0.flush()
    }
    fn cached(&self) -> Option<Box<dyn Cached>> {
        Some(Box::new(Snapshot(self.1.clone())))
    }
}

#[test]
fn a_read_is_done_at_once_only_when_nothing_is_under_way_before_it() {
    let image = MemoryImage::numbered(1024);
    let before = image.0.lock().expect("whole").bytes.clone();
    let mut disks = Disks::default();
    let (bell, rung) = channel();
    let disk = disks
        .add("d", Box::new(InMemory(image, before)), false, move || {
            let _ = bell.send(());
        })
        .expect("thread");
    let read = |len| Operation::Read { offset: 512, len };
    let first = disks.ask(disk, read(512));
    assert!(disks.submit(&mut dma()), "done at once");
    let done = disks.take(disk).expect("done");
    assert_eq!((done.ticket, done.result.expect("read").held()[0]), (first, 1));
    // Behind a write it goes the same way as that, and sees it.
    let write = Operation::Write {
        offset: 512,
        data: vec![7; 512],
        durable: false,
    };
    let tickets = [disks.ask(disk, write), disks.ask(disk, read(512))];
    assert!(!disks.submit(&mut dma()));
    for _ in 0..2 {
        rung.recv().expect("rung");
    }
    // Not even now, while an end has not been taken.
    let third = disks.ask(disk, read(1));
    assert!(!disks.submit(&mut dma()));
    rung.recv().expect("rung");
    let ends: Vec<Done> = std::iter::from_fn(|| disks.take(disk)).collect();
    assert_eq!(
        ends.iter().map(|d| d.ticket).collect::<Vec<_>>(),
        [tickets[0], tickets[1], third]
    );
    assert_eq!(ends[1].result, Ok(Data::Held(vec![7; 512])));
    assert_eq!(ends[2].result, Ok(Data::Held(vec![7])));
    // What is refused, and what takes long, is for the thread.
    for operation in [
        Operation::Read {
            offset: u64::MAX,
            len: 512,
        },
        read(CACHED_MAX + 1),
    ] {
        disks.ask(disk, operation);
        assert!(!disks.submit(&mut dma()));
        rung.recv().expect("rung");
        assert!(disks.take(disk).is_some());
    }
}

#[test]
fn ranges_of_a_raw_image_are_made_zero_and_given_back() {
    for unmap in [false, true] {
        let mut image = raw(&[5; 0x4000], 512);
        image.zero(0x1000, 0x1200, unmap).expect("zeroed");
        let mut bytes = [9; 0x4000];
        image.read(0, &mut bytes).expect("read");
        assert!(bytes[..0x1000].iter().chain(&bytes[0x2200..]).all(|b| *b == 5));
        assert!(bytes[0x1000..0x2200].iter().all(|b| *b == 0), "unmap {unmap}");
        image.discard(0x3000, 0x1000).expect("discarded");
        assert_eq!(image.len(), 0x4000);
        image
            .read(0x2FFF, &mut bytes[..0x1001])
            .expect("all of it is still there");
        assert_eq!(bytes[0], 5);
    }
    let mut disks = Disks::default();
    let disk = disks.add_here("d", Box::new(MemoryImage::numbered(4)), false);
    for (offset, len) in [(1024, 1025), (u64::MAX, 2)] {
        disks.ask(disk, Operation::Discard { offset, len });
        disks.submit(&mut dma());
        assert_eq!(disks.take(disk).map(|d| d.result), Some(Err(DiskError)));
    }
}

#[test]
fn what_the_host_has_in_memory_is_read_without_waiting_or_not_at_all() {
    let image = raw(&[5; 3000], 2048);
    let cached = image.cached().expect("a file has a cache");
    let mut bytes = [9; 16];
    // Whether this host's file system can is its business; what it gives is right.
    if cached.read(8, &mut bytes) {
        assert_eq!(bytes, [5; 16]);
    }
    assert!(!cached.read(2990, &mut bytes), "past the file's end");
    assert!(!cached.read(u64::MAX - 3, &mut bytes));
}

#[test]
fn each_cause_is_told_once() {
    let mut log = thread::Log::new("d".into());
    let full = || ImageError::from(rustix::io::Errno::NOSPC);
    assert!(log.failed("write", &full()) && !log.failed("write", &full()));
    assert!(log.failed("write", &rustix::io::Errno::IO.into()) && log.failed("flush", &full()));
    for n in 0..1000 {
        log.failed("read", &ImageError::Damaged(format!("{n}")));
    }
    assert!(log.told.len() <= 64);
}

#[test]
fn after_a_flush_that_failed_none_succeeds() {
    // A pipe cannot be flushed at all.
    let (_reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let mut file = ImageFile::new(writer);
    assert!(matches!(file.flush(), Err(ImageError::Host(_))));
    assert!(matches!(file.flush(), Err(ImageError::FlushLost)));
}

/// An image that keeps what it is given until it is flushed.
#[derive(Debug)]
struct Forgetful(MemoryImage, bool);

impl Image for Forgetful {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        self.0.read(offset, into)
    }
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        self.1 = true;
        self.0.write(offset, from)
    }
    fn flush(&mut self) -> Result<(), ImageError> {
        self.1 = false;
        self.0.flush()
    }
    fn is_unsettled(&self) -> bool {
        self.1
    }
}

#[test]
fn an_image_that_has_nothing_to_do_or_ends_is_flushed() {
    let image = MemoryImage::numbered(8);
    let flushes = || image.0.lock().expect("whole").flushes;
    let write = || Operation::Write {
        offset: 0,
        data: vec![1; 512],
        durable: false,
    };
    let mut disks = Disks::default();
    let disk = disks
        .add("d", Box::new(Forgetful(image.clone(), false)), false, || {})
        .expect("thread");
    disks.ask(disk, write());
    disks.submit(&mut dma());
    for _ in 0..6000 {
        if flushes() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(flushes(), 1);
    disks.ask(disk, write());
    disks.submit(&mut dma());
    drop(disks);
    assert_eq!(flushes(), 2);
}

/// Buffers of `lens` bytes each, apart from each other, one of them across the hole under C0000h when `hole`.
fn buffers(lens: &[u32], hole: bool) -> Vec<Buffer> {
    let at = |n: usize| match hole && n == 1 {
        true => 0x9_FF00,
        false => 0x10_0000 + 0x1_1000 * n as u64,
    };
    let buffer = |(n, &len): (usize, &u32)| Buffer {
        at: GuestPhys(at(n)),
        len,
    };
    lens.iter().enumerate().map(buffer).collect()
}

/// As [`raw`], where the host's temporary files are: what lies in memory alone cannot be read without waiting on every kernel.
fn raw_on_disk(bytes: &[u8]) -> RawImage {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR).expect("a temporary file");
    assert_eq!(rustix::io::write(&file, bytes), Ok(bytes.len()));
    RawImage::new(file, 512).expect("an image")
}

/// A disk with a thread, and how one waits for `n` requests of it.
fn threaded(image: Box<dyn Image>) -> (Disks, DiskId, impl Fn(usize)) {
    let mut disks = Disks::default();
    let (bell, rung) = channel();
    let disk = disks
        .add("d", image, false, move || {
            let _ = bell.send(());
        })
        .expect("thread");
    (disks, disk, move |n| {
        (0..n).for_each(|_| rung.recv().expect("rung"));
    })
}

#[test]
fn what_is_written_from_guest_memory_is_what_was_there_at_the_submission() {
    let image = MemoryImage::numbered(2048);
    let (mut disks, disk, wait) = threaded(Box::new(image.clone()));
    let mut dma = dma();
    let from = buffers(&[0x1_0000, 0x1_0000, 0x200, 0x1_0000, 0xFE00, 0x8000], false);
    let len = Buffer::total(&from) as usize;
    let data: Vec<u8> = (0..len).map(|n| (n / 7) as u8).collect();
    let write = |durable| Operation::WriteFrom {
        offset: 1024,
        from: from.clone(),
        durable,
    };
    disks.ask(disk, write(true));
    assert_eq!(dma.scatter(&from, &data), len);
    assert!(!disks.submit(&mut dma));
    // The thread has its own copy.
    dma.scatter(&from, &vec![0xEE; len]);
    wait(1);
    assert_eq!(disks.take(disk).map(|d| d.result), Some(Ok(Data::Held(vec![]))));
    assert_eq!(disks.under_way(), 0);
    {
        let memory = image.0.lock().expect("whole");
        assert!(memory.bytes[1024..][..len] == data);
        assert_eq!(memory.flushes, 1);
        let (mut expected, mut at, mut most) = (Vec::new(), 0, thread::FIRST_PIECE);
        while at < len {
            let n = most.min(len - at);
            expected.push((1024 + at as u64, n));
            (at, most) = (at + n, thread::PIECE.min(2 * most));
        }
        assert!(expected.len() > 3 && expected.iter().any(|(_, n)| *n == thread::PIECE));
        assert_eq!(memory.writes, expected);
    }
    // What cannot be written ends it, once, and what comes after it is another.
    image.0.lock().expect("whole").bad = Some(3);
    disks.ask(disk, write(true));
    let next = Operation::WriteFrom {
        offset: 0,
        from: buffers(&[512], false),
        durable: false,
    };
    disks.ask(disk, next);
    disks.submit(&mut dma);
    wait(2);
    assert_eq!(disks.take(disk).map(|d| d.result), Some(Err(DiskError)));
    assert_eq!(disks.take(disk).map(|d| d.result), Some(Ok(Data::Held(vec![]))));
    assert_eq!(disks.take(disk), None);
    let memory = image.0.lock().expect("whole");
    assert_eq!(memory.flushes, 1, "not for what failed");
    assert_eq!(
        memory.writes.last(),
        Some(&(0, 512)),
        "nothing behind what failed"
    );
    assert_eq!(memory.bytes[..512], [0xEE; 512]);
}

#[test]
fn a_read_into_guest_memory_gives_the_same_from_the_cache_and_by_the_thread() {
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| (n / 3) as u8).collect();
    let memory = MemoryImage::numbered(2048);
    memory.0.lock().expect("whole").bytes.clone_from(&bytes);
    // Whether this host can without waiting is its business.
    let cached = raw_on_disk(&bytes).cached().expect("a file has a cache");
    let can = cached.read(0, &mut [0; 512]);
    for (offset, lens, hole) in [
        (0, &[512][..], false),
        (512, &[1, 0, 1023, 0x1_0000], false),
        (4096, &[3, 0x400, 0x1FD], true),
        (1 << 19, &[0x1_0000; 8], false),
        ((1 << 20) - 512, &[511, 1], false),
    ] {
        let into = buffers(lens, hole);
        let read = |into: &[Buffer]| Operation::ReadInto {
            offset,
            into: into.to_vec(),
        };
        let mut quicks = Vec::new();
        let outcomes = [
            // A file, of which the host has all in memory; its thread, because something is under way; an image without a cache.
            (threaded(Box::new(raw_on_disk(&bytes))), false),
            (threaded(Box::new(raw_on_disk(&bytes))), true),
            (threaded(Box::new(memory.clone())), false),
        ]
        .map(|((mut disks, disk, wait), busy)| {
            let mut dma = dma();
            if busy {
                disks.ask(disk, Operation::Flush);
            }
            let ticket = disks.ask(disk, read(&into));
            let quick = disks.submit(&mut dma);
            assert!(!(quick && busy));
            quicks.push(quick);
            wait(usize::from(busy) + usize::from(!quick));
            let done = std::iter::from_fn(|| disks.take(disk)).last().expect("done");
            assert_eq!(done.ticket, ticket);
            if let Data::Held(data) = done.result.expect("read") {
                assert!(!quick);
                dma.scatter(&into, &data);
            }
            let mut ram = vec![0; 2 << 20];
            dma.ram().read(GuestPhys(0), &mut ram).expect("RAM");
            ram
        });
        assert_eq!(quicks, [can && !hole, false, false]);
        assert!(
            outcomes[0] == outcomes[1] && outcomes[0] == outcomes[2],
            "{lens:?}"
        );
        let mut expected = Vec::new();
        let mut dma = dma();
        dma.scatter(&into, &bytes[offset as usize..][..Buffer::total(&into) as usize]);
        expected.resize(2 << 20, 0);
        dma.ram().read(GuestPhys(0), &mut expected).expect("RAM");
        assert!(outcomes[0] == expected, "{lens:?}");
    }
}

#[test]
fn what_is_withdrawn_does_not_happen() {
    let image = MemoryImage::numbered(8);
    let mut disks = Disks::default();
    let disk = disks.add_here("d", Box::new(image.clone()), false);
    let other = disks.add_here("e", Box::new(image.clone()), false);
    let write = |offset| Operation::WriteFrom {
        offset,
        from: buffers(&[512], false),
        durable: false,
    };
    disks.ask(disk, write(0));
    let kept = disks.ask(other, write(512));
    disks.withdraw(disk);
    assert!(disks.submit(&mut dma()));
    assert_eq!(disks.take(disk), None);
    assert_eq!(disks.take(other).map(|d| d.ticket), Some(kept));
    assert_eq!(image.0.lock().expect("whole").writes, [(512, 512)]);
}

#[test]
fn the_devices_thread_reads_no_more_at_once_than_it_has_time_for() {
    let image = MemoryImage::numbered(4096);
    let before = image.0.lock().expect("whole").bytes.clone();
    let (mut disks, disk, wait) = threaded(Box::new(InMemory(image, before)));
    let read = |len| Operation::Read { offset: 0, len };
    for len in [CACHED_MAX / 2, CACHED_MAX / 2, 512] {
        disks.ask(disk, read(len));
    }
    assert!(disks.submit(&mut dma()));
    wait(1);
    let ends = std::iter::from_fn(|| disks.take(disk)).count();
    assert_eq!(ends, 3);
}
