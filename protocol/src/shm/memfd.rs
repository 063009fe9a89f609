//! Segments as sealed memfds: anonymous, freed with the last process, and of a size nobody can change.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

/// Why a segment could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The host refused the memory.
    #[error("Cannot create the {name} segment of {len} bytes; try a smaller size")]
    Create {
        /// Debug name of the segment.
        name: String,
        /// Length asked for, in bytes.
        len: u64,
        /// The host's answer.
        source: rustix::io::Errno,
    },
    /// The segment could not be sealed or opened again for reading.
    #[error("Cannot {what} the {name} segment")]
    Prepare {
        /// What was tried.
        what: &'static str,
        /// Debug name of the segment.
        name: String,
        /// The host's answer.
        source: rustix::io::Errno,
    },
}

/// A segment in the process that made it: the unit of write permission.
///
/// Sealed against shrinking, growing and further seals, so that no peer can cause a SIGBUS by truncation.
/// Not `F_SEAL_FUTURE_WRITE`: a restarted writer must be able to map it again.
#[derive(Debug)]
pub struct Segment {
    fd: OwnedFd,
    len: u64,
    name: String,
}

impl Segment {
    /// Makes a zeroed segment of `len` bytes. `name` is shown in `/proc/PID/maps` only.
    ///
    /// # Errors
    /// [`SegmentError`] when the host has no memory, descriptors or memfds left.
    pub fn create(name: &str, len: u64) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Create {
            name: name.to_owned(),
            len,
            source,
        };
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(failed)?;
        rustix::fs::ftruncate(&fd, len).map_err(failed)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(
            |source| SegmentError::Prepare {
                what: "seal",
                name: name.to_owned(),
                source,
            },
        )?;
        Ok(Self {
            fd,
            len,
            name: name.to_owned(),
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the segment has no bytes (such a segment is never made by the coordinator).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The read-write descriptor, for the one process that writes the segment.
    pub fn writer(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A descriptor opened read-only, for everybody else: a writable shared map of it is refused.
    ///
    /// # Errors
    /// [`SegmentError::Prepare`] when `/proc` is not mounted or descriptors have run out.
    pub fn reader(&self) -> Result<OwnedFd, SegmentError> {
        use std::os::fd::AsRawFd as _;
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|source| {
            SegmentError::Prepare {
                what: "open for reading",
                name: self.name.clone(),
                source,
            }
        })
    }
}
