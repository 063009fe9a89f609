//! The file behind an image, whatever its format: reads and writes at offsets, whole or not at all.
//!
//! After a failed `fdatasync` Linux takes the pages that it could not write for clean, so that the next one succeeds
//! although they are lost (fsync(2); QEMU's file-posix stops flushing for the same reason). So a file that could not be
//! flushed once is never called flushed again.

use std::io::IoSliceMut;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite};

use super::{Cached, ImageError};
use crate::dma::{Buffer, Dma};

/// A descriptor that the coordinator opened and locked.
#[derive(Debug)]
pub struct ImageFile {
    file: Arc<OwnedFd>,
    flush_lost: bool,
}

impl ImageFile {
    /// A file of which nothing was asked yet.
    pub fn new(file: OwnedFd) -> Self {
        Self {
            file: Arc::new(file),
            flush_lost: false,
        }
    }

    /// The descriptor, for a second way to the same bytes.
    pub fn shared(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.file)
    }

    /// Bytes in the file; a block device has its length at its end.
    ///
    /// # Errors
    /// The host's.
    pub fn size(&self) -> Result<u64, ImageError> {
        Ok(rustix::fs::seek(&*self.file, SeekFrom::End(0))?)
    }

    /// Fills `into` from `offset`; what lies past the end of the file is an error.
    ///
    /// # Errors
    /// The host's.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        match self.read_some(offset, into)? == into.len() {
            true => Ok(()),
            // Somebody has cut the file short.
            false => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// Fills `into` from `offset` as far as the file goes, and answers how far that is.
    ///
    /// # Errors
    /// The host's.
    pub fn read_some(&self, offset: u64, into: &mut [u8]) -> Result<usize, ImageError> {
        let mut done = 0;
        while done < into.len() {
            match pread(&*self.file, &mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Writes all of `from` at `offset`.
    ///
    /// # Errors
    /// The host's.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        #[cfg(test)]
        let from = trace::written(&self.file, offset, from)?;
        let mut done = 0;
        while done < from.len() {
            match pwrite(&*self.file, &from[done..], offset + done as u64) {
                Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Puts what was written where a loss of power leaves it.
    ///
    /// # Errors
    /// The host's, and [`ImageError::FlushLost`] for ever after one.
    pub fn flush(&mut self) -> Result<(), ImageError> {
        if self.flush_lost {
            return Err(ImageError::FlushLost);
        }
        #[cfg(test)]
        trace::flushed(&self.file)?;
        loop {
            match rustix::fs::fdatasync(&*self.file) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.flush_lost = true;
                    return Err(error.into());
                }
            }
        }
    }

    /// Gives a range back to the host, as far as it can take it.
    ///
    /// # Errors
    /// The host's.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), ImageError> {
        // A wish that this host may not be able to grant.
        self.allocate(FallocateFlags::PUNCH_HOLE, offset, len).map(|_| ())
    }

    /// Makes a range read as zeros, with `unmap` by giving it back; `false` if this host cannot but by writing them.
    ///
    /// # Errors
    /// The host's.
    pub fn zero(&self, offset: u64, len: u64, unmap: bool) -> Result<bool, ImageError> {
        let way = match unmap {
            true => FallocateFlags::PUNCH_HOLE,
            false => FallocateFlags::ZERO_RANGE,
        };
        self.allocate(way, offset, len)
    }

    fn allocate(&self, way: FallocateFlags, offset: u64, len: u64) -> Result<bool, ImageError> {
        #[cfg(test)]
        if trace::is_on() {
            // They are written instead.
            return Ok(false);
        }
        loop {
            match fallocate(&*self.file, way | FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                // Without help of the file system, or for a range that a block device has no unit for.
                Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::INVAL) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sets the file's length.
    ///
    /// # Errors
    /// The host's.
    pub fn set_len(&self, len: u64) -> Result<(), ImageError> {
        Ok(rustix::fs::ftruncate(&*self.file, len)?)
    }

    /// The next range from `offset` on that is not a hole, `None` after the last. A file system that knows no holes
    /// has one range.
    ///
    /// # Errors
    /// The host's.
    pub fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, ImageError> {
        let start = match rustix::fs::seek(&*self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL) => offset,
            Err(error) => return Err(error.into()),
        };
        let end = match rustix::fs::seek(&*self.file, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(Errno::INVAL) => self.size()?,
            Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok((start < end).then_some(start..end))
    }
}

/// The host's page cache: reads from there fail rather than wait.
#[derive(Debug)]
pub struct PageCache {
    /// The file.
    pub file: Arc<OwnedFd>,
    /// Bytes of it that can be asked for.
    pub held: u64,
}

impl Cached for PageCache {
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let len = into.len();
        let inside = self.holds(offset, len as u64);
        let mut pieces = [IoSliceMut::new(into)];
        inside && preadv2(&*self.file, &mut pieces, offset, ReadWriteFlags::NOWAIT) == Ok(len)
    }

    fn read_into(&self, offset: u64, dma: &mut Dma, into: &[Buffer]) -> bool {
        self.holds(offset, Buffer::total(into)) && dma.fill_from_cache(into, self.file.as_fd(), offset)
    }
}

impl PageCache {
    fn holds(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.held)
    }
}

/// Files whose process is killed after so many changes, and what was done to one of them.
#[cfg(test)]
pub(super) mod trace {
    use std::cell::RefCell;

    use super::*;

    #[derive(Debug)]
    pub(crate) enum Step {
        Write(u64, Vec<u8>),
        Flush,
    }

    #[derive(Debug)]
    pub(crate) struct Trace {
        /// The file that is watched.
        pub(crate) inode: u64,
        /// Changes, to any file, until the process is killed.
        pub(crate) fuel: u32,
        pub(crate) steps: Vec<Step>,
    }

    thread_local! {
        /// That of the test on this thread.
        pub(crate) static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
    }

    pub(super) fn is_on() -> bool {
        TRACE.with_borrow(Option::is_some)
    }

    fn killed() -> ImageError {
        std::io::Error::other("killed").into()
    }

    /// How much of a write gets done.
    pub(super) fn written<'a>(file: &OwnedFd, offset: u64, from: &'a [u8]) -> Result<&'a [u8], ImageError> {
        TRACE.with_borrow_mut(|trace| {
            let Some(trace) = trace else {
                return Ok(from);
            };
            let dead = trace.fuel == 0;
            trace.fuel = trace.fuel.saturating_sub(1);
            // Who is killed in a write has written whole sectors of it.
            let done = if dead {
                &from[..from.len() / 1024 * 512]
            } else {
                from
            };
            if rustix::fs::fstat(file)?.st_ino == trace.inode {
                trace.steps.push(Step::Write(offset, done.to_vec()));
            }
            match dead {
                true => {
                    pwrite(file, done, offset)?;
                    Err(killed())
                }
                false => Ok(from),
            }
        })
    }

    pub(super) fn flushed(file: &OwnedFd) -> Result<(), ImageError> {
        TRACE.with_borrow_mut(|trace| {
            let Some(trace) = trace else {
                return Ok(());
            };
            if trace.fuel == 0 {
                return Err(killed());
            }
            trace.fuel -= 1;
            if rustix::fs::fstat(file)?.st_ino == trace.inode {
                trace.steps.push(Step::Flush);
            }
            Ok(())
        })
    }
}
