//! Memfds whose contents nobody can change any more.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::{HEAD, MAX_PAYLOAD, Stage, TransportTrace, head, hex};

/// The seals that a payload carries (S1.22). `FUTURE_WRITE` would not do: a map made before stays writable.
pub const FULL_SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Why a payload could not be prepared. Nothing has been sent then.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Empty, or larger than a payload may be.
    #[error("A payload of {len} bytes cannot be sent; 1 to {MAX_PAYLOAD} are possible")]
    Size {
        /// Length in bytes.
        len: u64,
    },
    /// The host has no memory or no descriptors left.
    #[error("Cannot put {len} bytes into a memfd")]
    Memfd {
        /// Length in bytes.
        len: u64,
        /// The host's answer.
        source: Errno,
    },
    /// A writable map of the memfd is alive (S1.23), or the host's kernel keeps one of its pages in use.
    #[error("Cannot seal a payload: for a second, a writable map of it existed or its pages were in use")]
    Busy,
    /// The host refused the seals for another reason.
    #[error("Cannot seal a payload")]
    Seal(#[source] Errno),
    /// What was read back is not what was written.
    #[error("Payload changed {stage}: first bytes were {was}, are {is}")]
    Changed {
        /// Between which stages.
        stage: &'static str,
        /// Head of the source.
        was: String,
        /// Head of the memfd.
        is: String,
    },
}

/// How long a memfd may be in use before [`seal`] gives up.
const IN_USE: Duration = Duration::from_secs(1);

/// Applies [`FULL_SEALS`].
///
/// EBUSY has two causes: a writable shared map (S1.23), and a page that the host's kernel holds for a moment, because it is
/// moving it, writing it to swap or still has it in a pipe. The second passes by itself, so it is asked again for up to a second.
///
/// # Errors
/// [`SealError::Busy`] while a writable shared map is alive or a page stays in use; [`SealError::Seal`].
pub fn seal(fd: impl AsFd) -> Result<(), SealError> {
    let deadline = Instant::now() + IN_USE;
    loop {
        match rustix::fs::fcntl_add_seals(&fd, FULL_SEALS) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(IN_USE / 100),
            Err(Errno::BUSY) => return Err(SealError::Busy),
            Err(other) => return Err(SealError::Seal(other)),
        }
    }
}

/// A sealed memfd that holds `bytes`. Written by `pwrite`, so that no map exists that could delay the seal,
/// and its head is compared after the write and after the seal (S1.11).
///
/// # Errors
/// [`SealError`].
pub fn sealed_memfd(bytes: &[u8]) -> Result<OwnedFd, SealError> {
    sealed_memfd_traced(bytes, &mut TransportTrace::default())
}

/// An empty memfd that can be written and then sealed.
///
/// # Errors
/// [`SealError::Memfd`].
pub fn open_memfd() -> Result<OwnedFd, SealError> {
    let failed = |source| SealError::Memfd { len: 0, source };
    // Kernels before 6.3 do not know NOEXEC_SEAL and answer EINVAL.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    rustix::fs::memfd_create("quintet-payload", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create("quintet-payload", flags))
        .map_err(failed)
}

/// [`sealed_memfd`], noting what is there after writing and after sealing.
pub(super) fn sealed_memfd_traced(bytes: &[u8], trace: &mut TransportTrace) -> Result<OwnedFd, SealError> {
    let len = bytes.len() as u64;
    let failed = |source| SealError::Memfd { len, source };
    let fd = open_memfd()?;
    rustix::fs::ftruncate(&fd, len).map_err(failed)?;
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(&fd, &bytes[done..], done as u64) {
            Ok(0) => return Err(failed(Errno::NOSPC)),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    check_head(&fd, bytes, "between writing and sealing")?;
    trace.descriptor(Stage::Written, fd.as_fd());
    seal(&fd)?;
    check_head(&fd, bytes, "while being sealed")?;
    trace.descriptor(Stage::Sealed, fd.as_fd());
    Ok(fd)
}

fn check_head(fd: &OwnedFd, bytes: &[u8], stage: &'static str) -> Result<(), SealError> {
    let mut is = [0; HEAD];
    let n = bytes.len().min(HEAD);
    rustix::io::pread(fd, &mut is[..n], 0).map_err(|source| SealError::Memfd {
        len: bytes.len() as u64,
        source,
    })?;
    let was = head(bytes);
    if is == was {
        Ok(())
    } else {
        Err(SealError::Changed {
            stage,
            was: hex(&was),
            is: hex(&is),
        })
    }
}
