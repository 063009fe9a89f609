//! Disk images: what a controller asks of them, and the threads that do it.
//!
//! A controller asks through [`Disks`], which every call of a device is lent. What it asks is held back until the
//! commit that records the request, then done by a thread of the image's own, in the order of asking: host I/O never
//! blocks the devices. A successor finds the request in the controller's committed state and asks again. So a write
//! reaches the image before its completion is visible, perhaps twice, and never after a later write: that one is asked
//! for when this one's completion has been committed, or, by a controller that has several under way, behind it.
//!
//! A read of what the host has in memory needs no thread: it is tried at the moment of submission, if the thread has
//! nothing to do, and waits for nothing.
//!
//! io_uring was rejected: the io-worker's filter has no place for it, and its requests would outlive the process that
//! made them.

mod error;
mod file;
pub mod overlay;
pub mod qcow2;
mod raw;
mod scratch;

mod timeline;

pub use error::ImageError;
pub use file::ImageFile;
pub use raw::RawImage;
pub use scratch::Scratch;

use std::collections::{HashSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use quintet_protocol::trace::Tracer;

use timeline::Timeline;

/// Bytes of a sector of a hard disk, and the unit of an image's length.
pub const SECTOR: u64 = 512;
/// Bytes of zeros that are written at a time.
const ZEROS: u64 = 256 << 10;
/// Most bytes that are read by the devices' thread, which has to copy them: some 20 µs.
const CACHED_MAX: usize = 256 << 10;
/// How long an image may keep what only its successor would find, while nothing is asked of it.
const SETTLE: Duration = Duration::from_secs(1);

/// What is in a drive that nothing is in.
#[derive(Clone, Copy, Debug)]
pub struct NoMedium;

impl Image for NoMedium {
    fn len(&self) -> u64 {
        0
    }

    fn read(&mut self, _offset: u64, _into: &mut [u8]) -> Result<(), ImageError> {
        Err(rustix::io::Errno::NOMEDIUM.into())
    }

    fn write(&mut self, _offset: u64, _from: &[u8]) -> Result<(), ImageError> {
        Err(rustix::io::Errno::NOMEDIUM.into())
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        Ok(())
    }
}

/// What holds the sectors of a disk: a format, above a file or above another image.
pub trait Image: Send + std::fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there are no sectors.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads at a byte offset; the range lies inside.
    ///
    /// # Errors
    /// [`ImageError`].
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ImageError>;

    /// Writes at a byte offset; the range lies inside.
    ///
    /// # Errors
    /// [`ImageError`].
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError>;

    /// Puts what has been written where a loss of power leaves it.
    ///
    /// # Errors
    /// [`ImageError`].
    fn flush(&mut self) -> Result<(), ImageError>;

    /// Whether there is something that a loss of power loses, and that a process which is killed with all others loses
    /// as well: it is flushed when the image has had nothing to do for a while.
    fn is_unsettled(&self) -> bool {
        false
    }

    /// Gives a range that lies inside back to the host, as far as that is possible; what it reads as is not defined.
    ///
    /// # Errors
    /// [`ImageError`].
    fn discard(&mut self, _offset: u64, _len: u64) -> Result<(), ImageError> {
        Ok(())
    }

    /// Makes a range that lies inside read as zeros; with `unmap`, giving it back to the host if that is possible.
    ///
    /// # Errors
    /// [`ImageError`].
    fn zero(&mut self, offset: u64, len: u64, _unmap: bool) -> Result<(), ImageError> {
        write_zeros(self, offset, len)
    }

    /// A second way to the same bytes, for reads that wait for nothing; `None` for an image that has none.
    fn cached(&self) -> Option<Box<dyn Cached>> {
        None
    }
}

/// Writes zeros, which every image can.
fn write_zeros<I: Image + ?Sized>(image: &mut I, offset: u64, len: u64) -> Result<(), ImageError> {
    write_zeros_by(offset, len, |offset, zeros| image.write(offset, zeros))
}

/// Has `write` write zeros, some at a time.
fn write_zeros_by(
    offset: u64,
    len: u64,
    mut write: impl FnMut(u64, &[u8]) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let zeros = vec![0; len.min(ZEROS) as usize];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(ZEROS);
        write(offset + done, &zeros[..n as usize])?;
        done += n;
    }
    Ok(())
}

/// What of an image the host has in memory. Only asked while nothing is under way in the image.
pub trait Cached: Send + std::fmt::Debug {
    /// Fills `into` from a byte offset if that takes no waiting for a disk; `false` otherwise, and for errors.
    fn read(&self, offset: u64, into: &mut [u8]) -> bool;
}

/// A disk, by its number in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskId(pub u8);

/// A request under way. Numbers do not outlive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What can be asked. Ranges must lie within the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read `len` bytes at byte `offset`.
    Read {
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// Write at byte `offset`.
    Write {
        /// Byte offset.
        offset: u64,
        /// What.
        data: Vec<u8>,
        /// Done only when it is where a loss of power leaves it.
        durable: bool,
    },
    /// Put all that was written where a loss of power leaves it.
    Flush,
    /// Give a range back to the host, whatever it reads as then.
    Discard {
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make a range read as zeros.
    Zero {
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
        /// It may be given back to the host.
        unmap: bool,
        /// Done only when it is where a loss of power leaves it.
        durable: bool,
    },
}

/// The host could not do it; the log has its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The host could not do what was asked of an image")]
pub struct DiskError;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub ticket: Ticket,
    /// What was read; empty for the others.
    pub result: Result<Vec<u8>, DiskError>,
}

#[derive(Debug)]
enum Worker {
    /// A thread of its own.
    Thread {
        to: Option<Sender<(Ticket, Operation)>>,
        from: Receiver<Done>,
        thread: Option<JoinHandle<()>>,
    },
    /// The caller's, at the moment of submission: for tests.
    Here(Box<dyn Image>, Log, VecDeque<Done>),
}

#[derive(Debug)]
struct Disk {
    name: String,
    len: u64,
    read_only: bool,
    staged: VecDeque<(Ticket, Operation)>,
    worker: Worker,
    cached: Option<Box<dyn Cached>>,
    /// Requests that the thread has, or has done and nobody has taken.
    under_way: usize,
    /// Done without the thread, before all that it has.
    at_once: VecDeque<Done>,
}

/// What was asked of the disks, for whoever looks at the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sectors to read.
    pub read: u32,
    /// Sectors to write, zeros included.
    pub written: u32,
    /// Flushes, writes that are done only when they last included.
    pub flushes: u32,
}

impl Traffic {
    fn count(&mut self, operation: &Operation) {
        let sectors = |len: u64| u32::try_from(len / SECTOR).unwrap_or(u32::MAX);
        match operation {
            Operation::Read { len, .. } => self.read = self.read.wrapping_add(sectors(*len as u64)),
            Operation::Write { data, durable, .. } => {
                self.written = self.written.wrapping_add(sectors(data.len() as u64));
                self.flushes = self.flushes.wrapping_add(u32::from(*durable));
            }
            Operation::Zero { len, durable, .. } => {
                self.written = self.written.wrapping_add(sectors(*len));
                self.flushes = self.flushes.wrapping_add(u32::from(*durable));
            }
            Operation::Flush => self.flushes = self.flushes.wrapping_add(1),
            Operation::Discard { .. } => {}
        }
    }
}

/// All disks of the machine.
#[derive(Debug, Default)]
pub struct Disks {
    disks: Vec<Disk>,
    next: u64,
    traffic: Traffic,
    timeline: Timeline,
}

impl Disks {
    /// Tells `tracer` of every request from now on.
    pub fn trace(&mut self, tracer: Tracer) {
        self.timeline = Timeline::new(tracer);
    }

    fn push(
        &mut self,
        name: &str,
        len: u64,
        read_only: bool,
        worker: Worker,
        cached: Option<Box<dyn Cached>>,
    ) -> DiskId {
        self.disks.push(Disk {
            name: name.to_owned(),
            len,
            read_only,
            staged: VecDeque::new(),
            worker,
            cached,
            under_way: 0,
            at_once: VecDeque::new(),
        });
        DiskId(self.disks.len() as u8 - 1)
    }

    /// Adds an image with a thread that calls `ring` after each request. `name` is for the log.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn add(
        &mut self,
        name: &str,
        mut image: Box<dyn Image>,
        read_only: bool,
        ring: impl Fn() + Send + 'static,
    ) -> std::io::Result<DiskId> {
        let (len, cached, shown) = (image.len(), image.cached(), name.to_owned());
        let (to, orders) = channel::<(Ticket, Operation)>();
        let (report, from) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("disk-{}", self.disks.len()))
            .spawn(move || {
                let mut log = Log::new(shown);
                while let Some((ticket, operation)) = next(&orders, &mut *image, &mut log) {
                    let result = carry_out(&mut log, &mut *image, operation);
                    if report.send(Done { ticket, result }).is_err() {
                        break;
                    }
                    ring();
                }
                // Whoever stopped asking may not come back.
                if image.is_unsettled() {
                    settle(&mut *image, &mut log);
                }
            })?;
        Ok(self.push(
            name,
            len,
            read_only,
            Worker::Thread {
                to: Some(to),
                from,
                thread: Some(thread),
            },
            cached,
        ))
    }

    /// Adds an image whose requests are done by the thread that submits them.
    pub fn add_here(&mut self, name: &str, image: Box<dyn Image>, read_only: bool) -> DiskId {
        let len = image.len();
        let worker = Worker::Here(image, Log::new(name.to_owned()), VecDeque::new());
        self.push(name, len, read_only, worker, None)
    }

    /// Length of a disk in bytes.
    pub fn len_of(&self, disk: DiskId) -> u64 {
        self.disks[usize::from(disk.0)].len
    }

    /// Whether a disk refuses writes.
    pub fn is_read_only(&self, disk: DiskId) -> bool {
        self.disks[usize::from(disk.0)].read_only
    }

    /// Asks; begun after the next commit. A request outside the disk, or a write to one that is read-only, ends as
    /// one that the host could not do.
    pub fn ask(&mut self, disk: DiskId, operation: Operation) -> Ticket {
        self.next += 1;
        let ticket = Ticket(self.next);
        self.timeline.asked(disk, ticket, &operation);
        let disk = &mut self.disks[usize::from(disk.0)];
        disk.staged.push_back((ticket, operation));
        ticket
    }

    /// Requests that were asked for and whose end has not been taken.
    pub fn under_way(&self) -> usize {
        let of = |d: &Disk| d.staged.len() + d.under_way + d.at_once.len();
        self.disks.iter().map(of).sum()
    }

    /// What was handed to the threads since the last call.
    pub fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Whether anything waits for a commit.
    pub fn has_staged(&self) -> bool {
        self.disks.iter().any(|d| !d.staged.is_empty())
    }

    /// Hands everything that was asked to the threads: after the commit that records it. Answers whether some of it
    /// is done already.
    pub fn submit(&mut self) -> bool {
        let mut done = false;
        for disk in &mut self.disks {
            while let Some((ticket, operation)) = disk.staged.pop_front() {
                self.traffic.count(&operation);
                let operation = match refusal(&operation, disk.len, disk.read_only) {
                    // Goes through the thread like any other, to keep the order.
                    Some(why) => {
                        tracing::warn!(disk = disk.name, why, "request refused");
                        Operation::Read {
                            offset: u64::MAX,
                            len: 0,
                        }
                    }
                    None => operation,
                };
                match &mut disk.worker {
                    Worker::Thread { to, .. } => {
                        if disk.under_way == 0
                            && let Some(data) = read_cached(disk.cached.as_deref(), &operation)
                        {
                            let result = Ok(data);
                            disk.at_once.push_back(Done { ticket, result });
                            done = true;
                        } else if let Some(to) = to {
                            disk.under_way += 1;
                            let _ = to.send((ticket, operation));
                        }
                    }
                    Worker::Here(image, log, ended) => {
                        let result = carry_out(log, &mut **image, operation);
                        ended.push_back(Done { ticket, result });
                        done = true;
                    }
                }
            }
        }
        done
    }

    /// The next request of a disk that has ended, in the order of asking.
    pub fn take(&mut self, disk: DiskId) -> Option<Done> {
        let done = self.next_done(disk)?;
        self.timeline.ended(disk, done.ticket);
        Some(done)
    }

    fn next_done(&mut self, disk: DiskId) -> Option<Done> {
        let disk = &mut self.disks[usize::from(disk.0)];
        match &mut disk.worker {
            Worker::Thread { from, .. } => disk.at_once.pop_front().or_else(|| {
                let done = from.try_recv().ok()?;
                disk.under_way -= 1;
                Some(done)
            }),
            Worker::Here(_, _, ended) => ended.pop_front(),
        }
    }
}

impl Drop for Disks {
    /// Waits for what is under way: whoever opens the image next finds nobody else writing to it.
    fn drop(&mut self) {
        for disk in &mut self.disks {
            if let Worker::Thread { to, thread, .. } = &mut disk.worker {
                to.take();
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
        }
    }
}

fn refusal(operation: &Operation, disk_len: u64, read_only: bool) -> Option<&'static str> {
    let inside = |offset: u64, len: usize| offset.checked_add(len as u64).is_some_and(|end| end <= disk_len);
    match operation {
        Operation::Read { offset, len } if !inside(*offset, *len) => Some("a read past the end"),
        Operation::Write { offset, data, .. } if !inside(*offset, data.len()) => Some("a write past the end"),
        Operation::Discard { offset, len } | Operation::Zero { offset, len, .. }
            if offset.checked_add(*len).is_none_or(|end| end > disk_len) =>
        {
            Some("a range past the end")
        }
        Operation::Write { .. } | Operation::Discard { .. } | Operation::Zero { .. } if read_only => {
            Some("a write to a read-only image")
        }
        _ => None,
    }
}

/// What a read gives, if the host has it in memory.
fn read_cached(cached: Option<&dyn Cached>, operation: &Operation) -> Option<Vec<u8>> {
    match *operation {
        // What was refused is a read at the end of all offsets.
        Operation::Read { offset, len } if len <= CACHED_MAX && offset != u64::MAX => {
            let mut data = vec![0; len];
            cached?.read(offset, &mut data).then_some(data)
        }
        _ => None,
    }
}

/// What went wrong with one image: each cause is told once, since a full disk fails every write of a guest that goes on.
#[derive(Debug)]
struct Log {
    disk: String,
    told: HashSet<(&'static str, String)>,
}

impl Log {
    fn new(disk: String) -> Self {
        let told = HashSet::new();
        Self { disk, told }
    }

    /// Answers whether it was told.
    fn failed(&mut self, what: &'static str, error: &ImageError) -> bool {
        // An image can invent only so many causes.
        let new = self.told.len() < 64 && self.told.insert((what, error.cause()));
        if new {
            tracing::warn!(
                disk = self.disk,
                %error,
                "the host could not {what}; the guest sees a device error, this time and whenever it happens again"
            );
        }
        new
    }
}

/// The next order; while none comes, an image that has something to put in a safe place gets to do that.
fn next(
    orders: &Receiver<(Ticket, Operation)>,
    image: &mut dyn Image,
    log: &mut Log,
) -> Option<(Ticket, Operation)> {
    if image.is_unsettled() {
        match orders.recv_timeout(SETTLE) {
            Ok(order) => return Some(order),
            Err(RecvTimeoutError::Disconnected) => return None,
            // What failed is tried again when the guest asks for it, and not every second.
            Err(RecvTimeoutError::Timeout) => settle(image, log),
        }
    }
    orders.recv().ok()
}

fn settle(image: &mut dyn Image, log: &mut Log) {
    if let Err(error) = image.flush() {
        let _ = log.failed("flush", &error);
    }
}

fn carry_out(log: &mut Log, image: &mut dyn Image, operation: Operation) -> Result<Vec<u8>, DiskError> {
    let what = match operation {
        Operation::Read { .. } => "read",
        Operation::Write { .. } => "write",
        Operation::Flush => "flush",
        Operation::Discard { .. } => "discard",
        Operation::Zero { .. } => "write zeros",
    };
    let outcome = match operation {
        Operation::Read { offset: u64::MAX, .. } => return Err(DiskError),
        Operation::Read { offset, len } => {
            let mut data = vec![0; len];
            image.read(offset, &mut data).map(|()| data)
        }
        Operation::Write {
            offset,
            data,
            durable,
        } => image
            .write(offset, &data)
            .and_then(|()| if durable { image.flush() } else { Ok(()) })
            .map(|()| Vec::new()),
        Operation::Flush => image.flush().map(|()| Vec::new()),
        Operation::Discard { offset, len } => image.discard(offset, len).map(|()| Vec::new()),
        Operation::Zero {
            offset,
            len,
            unmap,
            durable,
        } => image
            .zero(offset, len, unmap)
            .and_then(|()| if durable { image.flush() } else { Ok(()) })
            .map(|()| Vec::new()),
    };
    outcome.map_err(|error| {
        let _ = log.failed(what, &error);
        DiskError
    })
}

#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod tests;
