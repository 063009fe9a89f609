//! Memory for translated code, mapped twice: once to write it, once to execute it.
//!
//! No page is ever writable and executable by one address. Both maps are made before the process is confined;
//! afterwards nothing executable can be mapped any more.
#![allow(unsafe_code, reason = "machine code is written and executed")]

use core::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Room for translated code, in bytes: within reach of a 32-bit displacement.
pub const CODE_BYTES: usize = 64 << 20;

/// Memory that is written at one address and executed at another.
#[derive(Debug)]
pub struct CodeMemory {
    write: NonNull<u8>,
    execute: NonNull<u8>,
    len: usize,
}

// SAFETY: the maps belong to this value alone; nothing about them is tied to a thread.
unsafe impl Send for CodeMemory {}

impl CodeMemory {
    /// Maps `len` bytes twice.
    ///
    /// # Errors
    /// What memfd_create or mmap say; with a policy that forbids executable maps, always.
    pub fn new(len: usize) -> Result<Self, rustix::io::Errno> {
        let file = memfd_create("quintet-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, len as u64)?;
        let map = |prot| {
            // SAFETY: a new map at an address of the kernel's choice disturbs nothing.
            unsafe { mmap(core::ptr::null_mut(), len, prot, MapFlags::SHARED, &file, 0) }
                .map(|p| NonNull::new(p.cast::<u8>()).expect("mmap does not give null"))
        };
        let write = map(ProtFlags::READ | ProtFlags::WRITE)?;
        let execute = match map(ProtFlags::READ | ProtFlags::EXEC) {
            Ok(p) => p,
            Err(e) => {
                // SAFETY: mapped above, and not yet known to anybody.
                let _ = unsafe { munmap(write.as_ptr().cast(), len) };
                return Err(e);
            }
        };
        Ok(Self { write, execute, len })
    }

    /// Bytes of it.
    pub fn size(&self) -> usize {
        self.len
    }

    /// Address that the byte at `offset` executes at.
    pub fn address(&self, offset: usize) -> u64 {
        self.execute.as_ptr() as u64 + offset as u64
    }

    /// What was written at `offset`.
    ///
    /// # Panics
    /// When it lies outside.
    pub fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        assert!(N <= self.len && offset <= self.len - N);
        let mut bytes = [0; N];
        // SAFETY: inside the writable map by the assertion; only this thread writes there, and not now.
        unsafe { core::ptr::copy_nonoverlapping(self.write.as_ptr().add(offset), bytes.as_mut_ptr(), N) };
        bytes
    }

    /// Writes code at `offset`.
    ///
    /// # Panics
    /// When it does not fit.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(bytes.len() <= self.len && offset <= self.len - bytes.len());
        // SAFETY: inside the writable map by the assertion. The same bytes may be fetched by this thread later;
        // x86 keeps instruction fetch coherent with stores.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.write.as_ptr().add(offset), bytes.len());
        }
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        // SAFETY: both maps are ours; translated code is executed only through a translator that owns this.
        unsafe {
            let _ = munmap(self.write.as_ptr().cast(), self.len);
            let _ = munmap(self.execute.as_ptr().cast(), self.len);
        }
    }
}
