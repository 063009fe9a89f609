//! Maps of segments. The only `mmap` of the project.
#![allow(unsafe_code, reason = "the one module that maps shared memory")]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

/// Why a map could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The host refused the map.
    #[error("Cannot map {len} bytes at offset {offset:#x}")]
    Mmap {
        /// Length asked for, in bytes.
        len: usize,
        /// File offset asked for, in bytes.
        offset: u64,
        /// The host's answer.
        source: rustix::io::Errno,
    },
    /// A length of zero, or larger than the host's address space.
    #[error("A map of {0} bytes is not possible")]
    Length(u64),
}

/// A live map of part of a segment, or of anonymous memory. Unmapped on drop.
#[derive(Debug)]
pub struct Map {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    owner: Owner,
}

/// Who gives the address range back.
enum Owner {
    /// This module, by `munmap`.
    Mmap,
    /// The portable back end.
    Portable {
        /// Unmaps itself on drop.
        _memory: shared_memory::Shmem,
    },
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mmap => "Mmap",
            Self::Portable { .. } => "Portable",
        })
    }
}

// SAFETY: a map is an address range, not data: every access goes through `View`/`ViewMut`, which use atomic
// or volatile operations only, and other processes write the same memory anyway.
unsafe impl Send for Map {}
// SAFETY: as for `Send`.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of `fd` from `offset` shared and writable.
    ///
    /// # Errors
    /// [`MapError`] when the length is zero, the descriptor is read-only, or the host refuses.
    pub fn read_write(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MapError> {
        Self::file(fd, offset, len, true)
    }

    /// Maps `len` bytes of `fd` from `offset` shared and read-only.
    ///
    /// # Errors
    /// [`MapError`] when the length is zero or the host refuses.
    pub fn read_only(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MapError> {
        Self::file(fd, offset, len, false)
    }

    /// Maps the first `len` bytes of `fd` private and read-only: for files whose contents are sealed. The pages are there from
    /// the start, since all are read for the digest: one call instead of a fault for every 64 KiB.
    ///
    /// # Errors
    /// [`MapError`] when the length is zero or the host refuses.
    pub fn private(fd: BorrowedFd<'_>, len: u64) -> Result<Self, MapError> {
        let len = Self::check(len)?;
        // SAFETY: a fresh map at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::PRIVATE | MapFlags::POPULATE,
                fd,
                0,
            )
        }
        .map_err(|source| MapError::Mmap {
            len,
            offset: 0,
            source,
        })?;
        Self::from_raw(base.cast(), len, false)
    }

    /// Zeroed private memory behind the same interface: for tests and for fast twins within one process.
    ///
    /// # Errors
    /// [`MapError`] when the length is zero or the host refuses.
    pub fn anonymous(len: u64) -> Result<Self, MapError> {
        let len = Self::check(len)?;
        // SAFETY: a fresh anonymous map at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(|source| MapError::Mmap {
            len,
            offset: 0,
            source,
        })?;
        Self::from_raw(base.cast(), len, true)
    }

    fn check(len: u64) -> Result<usize, MapError> {
        match usize::try_from(len) {
            Ok(n) if n > 0 && n <= isize::MAX as usize => Ok(n),
            _ => Err(MapError::Length(len)),
        }
    }

    fn file(fd: BorrowedFd<'_>, offset: u64, len: u64, writable: bool) -> Result<Self, MapError> {
        let len = Self::check(len)?;
        let prot = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a fresh map at an address of the kernel's choice overlaps nothing. Segments are sealed
        // against shrinking, so pages inside the file stay valid.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, fd, offset) }
            .map_err(|source| MapError::Mmap { len, offset, source })?;
        Self::from_raw(base.cast(), len, writable)
    }

    fn from_raw(base: *mut u8, len: usize, writable: bool) -> Result<Self, MapError> {
        let base = NonNull::new(base).ok_or(MapError::Length(len as u64))?;
        Ok(Self {
            base,
            len,
            writable,
            owner: Owner::Mmap,
        })
    }

    /// The part `[start, start + len)` of a portable segment, which the caller has checked to lie inside. The host
    /// maps it writable; `writable` says whether this process may make use of that.
    pub(super) fn portable(memory: shared_memory::Shmem, start: usize, len: usize, writable: bool) -> Self {
        assert!(
            start <= memory.len() && len <= memory.len() - start,
            "part of a segment"
        );
        // SAFETY: `start` lies inside the segment by the check above.
        let base =
            NonNull::new(unsafe { memory.as_ptr().add(start) }).expect("an open segment has an address");
        Self {
            base,
            len,
            writable,
            owner: Owner::Portable { _memory: memory },
        }
    }

    /// Whether the map belongs to the portable back end.
    pub fn is_portable(&self) -> bool {
        matches!(self.owner, Owner::Portable { .. })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the map is empty; never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the map may be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Host address of the first byte. Dereference it with volatile or atomic operations only.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.is_portable() {
            return;
        }
        // SAFETY: base and len are those of a map this value owns; views keep it alive through an `Arc`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
