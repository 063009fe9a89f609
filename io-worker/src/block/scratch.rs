//! What a format has to remember until the guest flushes, where the successor of a killed process finds it.
//!
//! A file in memory that the coordinator makes and every io-worker inherits: its first word says how many bytes behind
//! it count, and is written last. It is gone with the coordinator, like what a disk's own cache holds at a loss of
//! power. A place in the image file was rejected: after a crash of the host it could be there without what it speaks of.

use std::os::fd::OwnedFd;

use super::file::ImageFile;
use super::{ImageError, SECTOR};

/// Bytes of the word in front.
const WORD: u64 = 8;

/// A record of what is not in its place yet.
#[derive(Debug)]
pub struct Scratch {
    file: ImageFile,
    len: u64,
}

impl Scratch {
    /// Most bytes that are kept: a format flushes before there are more.
    pub const MOST: u64 = 32 << 20;

    /// The record in `file`, and what is in it.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] if it is not as it can have been left; the host's.
    pub fn open(file: OwnedFd) -> Result<(Self, Vec<u8>), ImageError> {
        let file = ImageFile::new(file);
        let mut word = [0; WORD as usize];
        let held = match file.size()? {
            0 => 0,
            _ => {
                file.read(0, &mut word)?;
                u64::from_le_bytes(word)
            }
        };
        // One request more than the most may have been taken in.
        if held > 2 * Self::MOST || held % WORD != 0 {
            return Err(ImageError::Damaged(format!(
                "its record of unflushed changes claims {held} bytes"
            )));
        }
        let mut bytes = vec![0; held as usize];
        file.read(WORD, &mut bytes)?;
        Ok((Self { file, len: held }, bytes))
    }

    /// Adds bytes, all of them or none; a multiple of 8.
    ///
    /// # Errors
    /// The host's.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        debug_assert!((bytes.len() as u64).is_multiple_of(WORD));
        self.file.write(WORD + self.len, bytes)?;
        let len = self.len + bytes.len() as u64;
        self.file.write(0, &len.to_le_bytes())?;
        self.len = len;
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The host's.
    pub fn clear(&mut self) -> Result<(), ImageError> {
        if self.len > 0 {
            self.file.write(0, &0_u64.to_le_bytes())?;
            self.len = 0;
            // Gives the memory back.
            self.file.set_len(SECTOR)?;
        }
        Ok(())
    }

    /// Bytes in it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
