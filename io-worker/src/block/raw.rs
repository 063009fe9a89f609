//! Raw images: byte n of the file is byte n of the disk.

use std::os::fd::OwnedFd;

use super::file::{ImageFile, PageCache};
use super::{Cached, Image, ImageError, write_zeros};

/// A raw image behind a descriptor that the coordinator opened and locked.
#[derive(Debug)]
pub struct RawImage {
    file: ImageFile,
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
    pub fn new(file: OwnedFd, unit: u64) -> Result<Self, ImageError> {
        let file = ImageFile::new(file);
        let held = file.size()?;
        Ok(Self {
            file,
            held,
            len: held.next_multiple_of(unit),
        })
    }
}

impl Image for RawImage {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        let inside = self.held.saturating_sub(offset).min(into.len() as u64) as usize;
        let (inside, past) = into.split_at_mut(inside);
        past.fill(0);
        self.file.read(offset, inside)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        self.file.write(offset, from)?;
        self.held = self.held.max(offset + from.len() as u64);
        Ok(())
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), ImageError> {
        self.file.discard(offset, len)
    }

    fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), ImageError> {
        match self.file.zero(offset, len, unmap)? {
            true => Ok(()),
            false => write_zeros(self, offset, len),
        }
    }

    fn cached(&self) -> Option<Box<dyn Cached>> {
        Some(Box::new(PageCache {
            file: self.file.shared(),
            held: self.held,
        }))
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        self.file.flush()
    }
}

#[cfg(test)]
impl RawImage {
    pub(super) fn file_for_tests(&self) -> &ImageFile {
        &self.file
    }
}
