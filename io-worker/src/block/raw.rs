//! Raw images: byte n of the file is byte n of the disk.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite};

use super::{Cached, Image, write_zeros};

/// A raw image behind a descriptor that the coordinator opened and locked.
#[derive(Debug)]
pub struct RawImage {
    file: Arc<OwnedFd>,
    /// Bytes in the file.
    held: u64,
    /// Bytes of the disk: `held`, rounded up.
    len: u64,
}

impl RawImage {
    /// The image in `file`, its length rounded up to a multiple of `unit` bytes; what lies past the file's end reads
    /// as zeros.
    ///
    /// # Errors
    /// The host's, when it cannot tell the length.
    pub fn new(file: OwnedFd, unit: u64) -> std::io::Result<Self> {
        // A block device has its length at its end.
        let held = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
        Ok(Self {
            file: Arc::new(file),
            held,
            len: held.next_multiple_of(unit),
        })
    }
}

#[cfg(test)]
impl RawImage {
    pub(super) fn file_for_tests(&self) -> &OwnedFd {
        &self.file
    }
}

impl Image for RawImage {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            if at >= self.held {
                into[done..].fill(0);
                break;
            }
            match pread(&*self.file, &mut into[done..], at) {
                // Somebody has cut the file short.
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> std::io::Result<()> {
        let mut done = 0;
        while done < from.len() {
            match pwrite(&*self.file, &from[done..], offset + done as u64) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.held = self.held.max(offset + from.len() as u64);
        Ok(())
    }

    fn discard(&mut self, offset: u64, len: u64) -> std::io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&*self.file, flags, offset, len) {
            // A wish that this host cannot grant.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::INVAL) => Ok(()),
            Err(Errno::INTR) => self.discard(offset, len),
            Err(error) => Err(error.into()),
        }
    }

    fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> std::io::Result<()> {
        let way = match unmap {
            true => FallocateFlags::PUNCH_HOLE,
            false => FallocateFlags::ZERO_RANGE,
        };
        loop {
            match fallocate(&*self.file, way | FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // Without help of the file system, or for a range that a block device has no unit for.
                Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        write_zeros(self, offset, len)
    }

    fn cached(&self) -> Option<Box<dyn Cached>> {
        Some(Box::new(PageCache {
            file: Arc::clone(&self.file),
            held: self.held,
        }))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        loop {
            match rustix::fs::fdatasync(&*self.file) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// The host's page cache: reads from there fail rather than wait.
#[derive(Debug)]
struct PageCache {
    file: Arc<OwnedFd>,
    /// Bytes that were in the file at the start.
    held: u64,
}

impl Cached for PageCache {
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        let inside = offset
            .checked_add(into.len() as u64)
            .is_some_and(|end| end <= self.held);
        let len = into.len();
        let mut pieces = [IoSliceMut::new(into)];
        inside && preadv2(&*self.file, &mut pieces, offset, ReadWriteFlags::NOWAIT) == Ok(len)
    }
}
