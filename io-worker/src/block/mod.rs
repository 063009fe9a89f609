//! Disk images: what a controller asks of them, and the threads that do it.
//!
//! A controller asks through [`Disks`], which every call of a device is lent. What it asks is held back until the
//! commit that records the request, then done by a thread of the image's own, in the order of asking: host I/O never
//! blocks the devices. A successor finds the request in the controller's committed state and asks again. So a write
//! reaches the image before its completion is visible, perhaps twice, and never after a later write: that one is asked
//! for when this one's completion has been committed, or, by a controller that has several under way, behind it.
//!
//! Data has two ways. A device that must look at it, or that walks its own tables, is given what was read and gives what is to be
//! written. A device whose driver names buffers for as long as the request takes passes on their addresses
//! ([`Operation::ReadInto`], [`Operation::WriteFrom`]): what is written is then collected piece by piece at the submission, while the thread
//! writes the piece before. Such a device takes back what it has asked for and forgets in the same turn
//! ([`Disks::withdraw`]): past its reset the buffers are the driver's again.
//!
//! A read of what the host has in memory needs no thread: it is tried at the moment of submission, if the thread has
//! nothing to do, waits for nothing, and goes straight into the driver's buffers where there are any.
//!
//! io_uring was rejected: the io-worker's filter has no place for it, and its requests would outlive the process that
//! made them.

mod error;
mod file;
pub mod overlay;
pub mod qcow2;
mod raw;
mod scratch;
mod thread;
mod timeline;

pub use error::ImageError;
pub use file::ImageFile;
pub use raw::RawImage;
pub use scratch::Scratch;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use quintet_protocol::trace::Tracer;

use crate::dma::{Buffer, Dma};
use thread::{Hands, Order};
use timeline::Timeline;

/// Bytes of a sector of a hard disk, and the unit of an image's length.
pub const SECTOR: u64 = 512;
/// Bytes of zeros that are written at a time.
const ZEROS: u64 = 256 << 10;
/// Most bytes that are read by the devices' thread after a commit: the host's copy of them takes some 170 µs, in which it does nothing
/// else.
const CACHED_MAX: usize = 1 << 20;

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

    /// The same into guest memory, of which some may have been written when it answers `false`.
    fn read_into(&self, offset: u64, dma: &mut Dma, into: &[Buffer]) -> bool {
        let mut data = vec![0; Buffer::total(into) as usize];
        let read = self.read(offset, &mut data);
        if read {
            dma.scatter(into, &data);
        }
        read
    }
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
    /// Read as many bytes as these buffers have at byte `offset`, either straight into them ([`Data::Placed`]) or for the device to
    /// put there.
    ReadInto {
        /// Byte offset.
        offset: u64,
        /// Where to.
        into: Vec<Buffer>,
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
    /// Write what is in these buffers when it is submitted at byte `offset`.
    WriteFrom {
        /// Byte offset.
        offset: u64,
        /// Where from.
        from: Vec<Buffer>,
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

impl Operation {
    /// Bytes that it is about; `None` past 2^64.
    fn range(&self) -> Option<std::ops::Range<u64>> {
        let (offset, len) = match self {
            Self::Read { offset, len } => (*offset, *len as u64),
            Self::ReadInto { offset, into } => (*offset, Buffer::total(into)),
            Self::Write { offset, data, .. } => (*offset, data.len() as u64),
            Self::WriteFrom { offset, from, .. } => (*offset, Buffer::total(from)),
            Self::Flush => (0, 0),
            Self::Discard { offset, len } | Self::Zero { offset, len, .. } => (*offset, *len),
        };
        Some(offset..offset.checked_add(len)?)
    }

    /// As [`Self::range`], how many they are; none past 2^64.
    fn bytes(&self) -> u64 {
        self.range().map_or(0, |range| range.end - range.start)
    }

    /// Whether the image is another after it.
    fn changes(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::ReadInto { .. } | Self::Flush)
    }
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
    /// What it gave.
    pub result: Result<Data, DiskError>,
}

/// What a request gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// What was read; nothing for all that does not read.
    Held(Vec<u8>),
    /// It is in the buffers that were to take it.
    Placed,
}

impl Data {
    /// What was read and not placed.
    pub fn held(self) -> Vec<u8> {
        match self {
            Self::Held(data) => data,
            Self::Placed => Vec::new(),
        }
    }
}

#[derive(Debug)]
enum Worker {
    /// A thread of its own.
    Thread {
        to: Option<Sender<(Ticket, Order)>>,
        from: Receiver<Done>,
        thread: Option<JoinHandle<()>>,
    },
    /// The caller's, at the moment of submission: for tests.
    Here(Hands, VecDeque<Done>),
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
        let sectors = u32::try_from(operation.bytes() / SECTOR).unwrap_or(u32::MAX);
        match operation {
            Operation::Read { .. } | Operation::ReadInto { .. } => {
                self.read = self.read.wrapping_add(sectors);
            }
            Operation::Write { durable, .. }
            | Operation::WriteFrom { durable, .. }
            | Operation::Zero { durable, .. } => {
                self.written = self.written.wrapping_add(sectors);
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
        image: Box<dyn Image>,
        read_only: bool,
        ring: impl Fn() + Send + 'static,
    ) -> std::io::Result<DiskId> {
        let (len, cached) = (image.len(), image.cached());
        let mut hands = Hands::new(name, image);
        let (to, orders) = channel();
        let (report, from) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("disk-{}", self.disks.len()))
            .spawn(move || {
                hands.run(&orders, |ticket, result| {
                    let result = result.map(Data::Held);
                    let heard = report.send(Done { ticket, result }).is_ok();
                    ring();
                    heard
                });
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
        let worker = Worker::Here(Hands::new(name, image), VecDeque::new());
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

    /// Takes back what was asked of a disk and not submitted: whoever asked wants it no more, and nothing of it happens.
    pub fn withdraw(&mut self, disk: DiskId) {
        for (ticket, _) in self.disks[usize::from(disk.0)].staged.drain(..) {
            self.timeline.ended(disk, ticket);
        }
    }

    /// Hands everything that was asked to the threads: after the commit that records it. Answers whether some of it
    /// is done already.
    pub fn submit(&mut self, dma: &mut Dma) -> bool {
        let mut done = false;
        let mut at_once = CACHED_MAX as u64;
        for disk in &mut self.disks {
            while let Some((ticket, operation)) = disk.staged.pop_front() {
                self.traffic.count(&operation);
                let refused = refusal(&operation, disk.len, disk.read_only);
                if refused.is_none()
                    && disk.under_way == 0
                    && operation.bytes() <= at_once
                    && let Some(data) = disk.read_cached(&operation, dma)
                {
                    at_once -= operation.bytes();
                    let result = Ok(data);
                    disk.at_once.push_back(Done { ticket, result });
                    done = true;
                    continue;
                }
                disk.under_way += usize::from(matches!(disk.worker, Worker::Thread { .. }));
                match refused {
                    // Goes the way of any other, to keep the order.
                    Some(why) => {
                        tracing::warn!(disk = disk.name, why, "request refused");
                        done |= disk.give(ticket, Order::Refuse);
                    }
                    None => thread::orders(operation, dma, |order| done |= disk.give(ticket, order)),
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
            Worker::Here(_, ended) => ended.pop_front(),
        }
    }
}

impl Disk {
    /// Has it done; answers whether a request has ended by that already.
    fn give(&mut self, ticket: Ticket, order: Order) -> bool {
        match &mut self.worker {
            Worker::Thread { to, .. } => {
                if let Some(to) = to {
                    let _ = to.send((ticket, order));
                }
                false
            }
            Worker::Here(hands, ended) => {
                let result = hands.carry_out(order).map(|r| r.map(Data::Held));
                let done = result.map(|result| Done { ticket, result });
                let any = done.is_some();
                ended.extend(done);
                any
            }
        }
    }

    /// What a read gives, if the host has it in memory.
    fn read_cached(&self, operation: &Operation, dma: &mut Dma) -> Option<Data> {
        let cached = self.cached.as_deref()?;
        match operation {
            Operation::Read { offset, len } => {
                let mut data = vec![0; *len];
                cached.read(*offset, &mut data).then_some(Data::Held(data))
            }
            Operation::ReadInto { offset, into } => {
                cached.read_into(*offset, dma, into).then_some(Data::Placed)
            }
            _ => None,
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
    if operation.range().is_none_or(|range| range.end > disk_len) {
        return Some("a range past the end");
    }
    (read_only && operation.changes()).then_some("a write to a read-only image")
}

#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod tests;
