//! QEMU's qcow2, by the library `imago` (docs/adr/0083-qcow2.md).
//!
//! The library knows the format; what it does to the file goes through `storage::Metadata`, which makes one step of each
//! request, and through [`header::check`], which refuses what it would take too lightly.

pub mod header;
mod storage;

use std::os::fd::OwnedFd;

use header::{HEAD, Layout, check};
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _, ShallowMapping};
use storage::Metadata;

use super::file::ImageFile;
use super::scratch::Scratch;
use super::{Image, ImageError, write_zeros_by};

/// Most bytes that one step changes.
const STEP: u64 = 1 << 20;

/// A qcow2 image behind a descriptor that the coordinator opened and locked.
#[derive(Debug)]
pub struct Qcow2Image {
    access: FormatAccess<Metadata>,
    layout: Layout,
}

impl Qcow2Image {
    /// The image in `file`; `scratch` is where changes wait for a flush and what waits there, `None` for an image that is only
    /// read.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] for what no image is like; the host's.
    pub fn new(file: OwnedFd, scratch: Option<(Scratch, Vec<u8>)>) -> Result<Self, ImageError> {
        let file = ImageFile::new(file);
        let (write, len) = (scratch.is_some(), file.size()?);
        let mut head = vec![0; HEAD];
        let held = file.read_some(0, &mut head)?;
        // A predecessor may have been killed while the bit was set; the coordinator has seen that it was not before.
        if let Some(byte) = head.get_mut(header::INCOMPATIBLE as usize + 7).filter(|_| write) {
            *byte &= !(header::DIRTY as u8);
        }
        let layout = check(&head[..held], len, write).map_err(|e| ImageError::Damaged(format!("it {e}")))?;
        let metadata = Metadata::new(file, layout, scratch)?;
        if write && metadata.shares_tables()? {
            return Err(ImageError::Damaged(
                "it says that its tables belong to a snapshot, and there is none; qemu-img check -r all repairs that"
                    .into(),
            ));
        }
        if write && metadata.has_gaps()? {
            return Err(ImageError::Damaged(
                "its reference counts have gaps, with which it can only be read: with ro=on, snapshot=on or overlay=FILE; \
                 qemu-img convert -O qcow2 makes an image without"
                    .into(),
            ));
        }
        let qcow2 = Qcow2::<Metadata>::builder(metadata)
            .write(write)
            .backing(None)
            .data_file(None)
            .open(DenyImplicitOpenGate::default())?;
        let image = Self {
            access: FormatAccess::new(qcow2),
            layout,
        };
        if write {
            // The library clears features that it does not keep up.
            image.end(Ok(()), false)?;
        }
        Ok(image)
    }

    fn file(&self) -> Result<&Metadata, ImageError> {
        let files = self.access.inner().collect_storage_dependencies();
        files
            .first()
            .copied()
            .ok_or_else(|| ImageError::Damaged("it has no file".into()))
    }

    /// How far from `offset` writing frees no cluster: none is compressed, and none is shared; 0 if one is there.
    fn plain(&self, offset: u64, len: u64) -> Result<u64, ImageError> {
        let mut done = 0;
        while done < len {
            match self.access.get_shallow_mapping(offset + done, len - done)? {
                (ShallowMapping::Special { .. } | ShallowMapping::Raw { writable: false, .. }, _)
                | (_, 0) => {
                    break;
                }
                (_, n) => done += n,
            }
        }
        Ok(done.min(len))
    }

    /// Zeros in a place where writing frees no cluster. The library's own way, the zero flag, would have the next write move the
    /// cluster and free its place, while the file may still say that the old data is there.
    fn clear(&self, offset: u64, len: u64) -> Result<(), ImageError> {
        let mut done = 0;
        while done < len {
            let (mapping, n) = self.access.get_shallow_mapping(offset + done, len - done)?;
            if let ShallowMapping::Raw { storage, offset, .. } = mapping {
                storage.zero_data(offset, n)?;
            }
            if n == 0 {
                return Err(ImageError::Damaged("it ends before the disk".into()));
            }
            done += n;
        }
        Ok(())
    }

    fn change(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        let mut done = 0;
        while done < from.len() {
            let at = offset + done as u64;
            let mapping = self
                .access
                .prepare_data_mapping(at, (from.len() - done) as u64, true)?;
            let n = (mapping.length() as usize).min(from.len() - done);
            mapping
                .storage()
                .write_data(mapping.offset(), &from[done..done + n])?;
            self.access.commit_data_mapping(mapping)?;
            done += n;
        }
        Ok(())
    }

    /// Ends a step, also one that failed half way: what the library has in memory is consistent.
    fn end(&self, outcome: Result<(), ImageError>, settle: bool) -> Result<(), ImageError> {
        let flushed = self.access.flush();
        let file = self.file()?;
        let ended = file.end_request();
        outcome?;
        flushed?;
        ended?;
        match settle || file.is_due()? {
            true => file.settle(),
            false => Ok(()),
        }
    }

    /// Does `step` piece by piece. What was compressed is done a cluster at a time, and settled: its old place is free then, and must
    /// not be written to while the file still points there.
    fn pieces(
        &mut self,
        offset: u64,
        len: u64,
        mut step: impl FnMut(&mut Self, u64, u64, bool) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let wanted = (len - done).min(STEP);
            let plain = self.plain(at, wanted)?;
            let n = match plain {
                0 => (self.layout.cluster - at % self.layout.cluster).min(wanted),
                plain => plain,
            };
            let outcome = step(self, at, n, plain > 0);
            self.end(outcome, plain == 0)?;
            done += n;
        }
        Ok(())
    }
}

impl Image for Qcow2Image {
    fn len(&self) -> u64 {
        self.layout.disk_len
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        Ok(self.access.read(into, offset)?)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        self.pieces(offset, from.len() as u64, |image, at, n, _| {
            let start = (at - offset) as usize;
            image.change(at, &from[start..start + n as usize])
        })
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        self.end(Ok(()), true)
    }

    fn is_unsettled(&self) -> bool {
        self.file().is_ok_and(Metadata::is_unsettled)
    }

    fn zero(&mut self, offset: u64, len: u64, _unmap: bool) -> Result<(), ImageError> {
        self.pieces(offset, len, |image, at, n, plain| match plain {
            true => image.clear(at, n),
            false => write_zeros_by(at, n, |at, zeros| image.change(at, zeros)),
        })
    }
}

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
