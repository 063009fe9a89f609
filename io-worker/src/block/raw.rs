//! Raw images: byte n of the file is byte n of the disk.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, pread, pwrite};

use super::Image;

/// A raw image behind a descriptor that the coordinator opened and locked.
#[derive(Debug)]
pub struct RawImage {
    file: OwnedFd,
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
            file,
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
            match pread(&self.file, &mut into[done..], at) {
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
            match pwrite(&self.file, &from[done..], offset + done as u64) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.held = self.held.max(offset + from.len() as u64);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        loop {
            match rustix::fs::fdatasync(&self.file) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}
