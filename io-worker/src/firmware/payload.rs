//! Files that the guest boots from, as the loaders see them: bytes nobody vouches for.
//!
//! The transport has checked length and digest, which says that the bytes are those the user named and
//! nothing about what they are. Loaders therefore read through [`Source`], which knows its length, and
//! write through [`Loader`], which refuses whatever is not free RAM.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamError};
use quintet_protocol::shm::View;

use super::place::Places;

/// Why a kernel or an initrd cannot be booted. The file's name is added by whoever knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file has no bytes.
    #[error("Empty file")]
    Empty,
    /// None of the formats that can be booted.
    #[error("Not a kernel: neither a bzImage nor a multiboot or PVH ELF (begins with {0})")]
    NotAKernel(String),
    /// A kernel inside a compressed file.
    #[error("Compressed with {0}: unpack it first")]
    Compressed(&'static str),
    /// The file ends before something it announces.
    #[error("Truncated: {what} needs {need} bytes, the file has {have}")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Length that the file would need, in bytes.
        need: u64,
        /// Length that it has, in bytes.
        have: u64,
    },
    /// A field with a value that the format does not allow, or that cannot be honoured here.
    #[error("{what} is {value:#x}, which cannot be right")]
    Field {
        /// Name of the field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A boot protocol from before the first 32-bit entry.
    #[error("Linux boot protocol {}.{:02} is too old; 2.02 is the first that works", .0 >> 8, .0 & 0xFF)]
    TooOld(u16),
    /// Something that may lie anywhere finds no room.
    #[error("{what} of {} does not fit into {ram_mib} MiB of RAM", Size(*.len))]
    NoRoom {
        /// What does not fit.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// RAM of the guest in MiB.
        ram_mib: u64,
    },
    /// Something that must lie at one place would lie outside RAM or on top of something else.
    #[error("{what} of {} at {at:#x} does not lie in free RAM ({ram_mib} MiB)", Size(*.len))]
    NotFree {
        /// What it is.
        what: &'static str,
        /// Guest physical address it asks for.
        at: u64,
        /// Its length in bytes.
        len: u64,
        /// RAM of the guest in MiB.
        ram_mib: u64,
    },
    /// The command line is longer than the kernel takes.
    #[error("The command line has {len} bytes, this kernel takes {max}")]
    CommandLine {
        /// Its length in bytes.
        len: u64,
        /// The longest that is possible, in bytes.
        max: u64,
    },
    /// A NUL inside a command line.
    #[error("The command line contains a NUL byte")]
    Nul,
    /// More modules than the format carries.
    #[error("{given} initrds given, this kind of kernel takes {max}")]
    Modules {
        /// How many were given.
        given: u64,
        /// How many are possible.
        max: u64,
    },
    /// Less RAM than the firmware's own tables need.
    #[error("{0} KiB of RAM are too few; at least 2 MiB are needed")]
    TooLittleRam(u64),
    /// An address that turned out not to be RAM after all.
    #[error(transparent)]
    Ram(#[from] RamError),
}

/// A length for people: bytes up to 64 KiB, then KiB, then MiB.
struct Size(u64);

impl core::fmt::Display for Size {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            n if n < 64 << 10 => write!(f, "{n} bytes"),
            n if n < 64 << 20 => write!(f, "{} KiB", n.div_ceil(1024)),
            n => write!(f, "{} MiB", n.div_ceil(1 << 20)),
        }
    }
}

/// Bytes of a known length.
pub trait Source {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Copies the bytes from `offset` on. The caller has checked that they exist.
    fn read_at(&self, offset: u64, into: &mut [u8]);

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Source for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) {
        into.copy_from_slice(&self[offset as usize..][..into.len()]);
    }
}

impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) {
        self.as_slice().read_at(offset, into);
    }
}

impl Source for View {
    fn len(&self) -> u64 {
        View::len(self) as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) {
        self.read_bytes(offset as usize, into);
    }
}

/// Reads `N` bytes at `offset`.
///
/// # Errors
/// [`LoadError::Truncated`], naming `what`.
pub fn array<const N: usize>(
    source: &dyn Source,
    offset: u64,
    what: &'static str,
) -> Result<[u8; N], LoadError> {
    check(source, offset, N as u64, what)?;
    let mut bytes = [0; N];
    source.read_at(offset, &mut bytes);
    Ok(bytes)
}

/// Reads up to `max` bytes from the start.
pub fn head(source: &dyn Source, max: u64) -> Vec<u8> {
    let mut bytes = vec![0; source.len().min(max) as usize];
    source.read_at(0, &mut bytes);
    bytes
}

/// Reads `len` bytes at `offset`; `len` must have been bounded by the caller.
///
/// # Errors
/// [`LoadError::Truncated`], naming `what`.
pub fn bytes(source: &dyn Source, offset: u64, len: u64, what: &'static str) -> Result<Vec<u8>, LoadError> {
    check(source, offset, len, what)?;
    let mut bytes = vec![0; len as usize];
    source.read_at(offset, &mut bytes);
    Ok(bytes)
}

/// Checks that `len` bytes at `offset` exist.
///
/// # Errors
/// [`LoadError::Truncated`], naming `what`.
pub fn check(source: &dyn Source, offset: u64, len: u64, what: &'static str) -> Result<(), LoadError> {
    let need = offset.saturating_add(len);
    if need > source.len() {
        Err(LoadError::Truncated {
            what,
            need,
            have: source.len(),
        })
    } else {
        Ok(())
    }
}

/// One file with the words the user gave it.
#[derive(Clone, Copy)]
pub struct Module<'a> {
    /// Its contents.
    pub data: &'a dyn Source,
    /// File name and arguments as multiboot modules carry them: "F ARGS".
    pub command_line: &'a str,
}

impl core::fmt::Debug for Module<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Module({:?}, {} bytes)", self.command_line, self.data.len())
    }
}

/// Guest RAM during boot: what is free, and copies into it.
#[derive(Debug)]
pub struct Loader<'a> {
    ram: &'a GuestRam,
    /// What is still free.
    pub places: Places,
}

impl<'a> Loader<'a> {
    /// Loads into `ram` where `places` says there is room.
    pub fn new(ram: &'a GuestRam, places: Places) -> Self {
        Self { ram, places }
    }

    /// RAM of the guest in MiB, for messages.
    pub fn ram_mib(&self) -> u64 {
        self.ram.layout().total() >> 20
    }

    /// Takes `[at, at + len)`.
    ///
    /// # Errors
    /// [`LoadError::NotFree`], naming `what`.
    pub fn take(&mut self, at: u64, len: u64, what: &'static str) -> Result<(), LoadError> {
        if self.places.take(at, len) {
            Ok(())
        } else {
            Err(LoadError::NotFree {
                what,
                at,
                len,
                ram_mib: self.ram_mib(),
            })
        }
    }

    /// Takes the lowest free `len` bytes below `limit`, aligned to `align`.
    ///
    /// # Errors
    /// [`LoadError::NoRoom`], naming `what`.
    pub fn lowest(&mut self, len: u64, align: u64, limit: u64, what: &'static str) -> Result<u64, LoadError> {
        self.places.lowest(len, align, limit).ok_or(LoadError::NoRoom {
            what,
            len,
            ram_mib: self.ram_mib(),
        })
    }

    /// Takes the highest free `len` bytes below `limit`, aligned to a page.
    ///
    /// # Errors
    /// [`LoadError::NoRoom`], naming `what`.
    pub fn highest(&mut self, len: u64, limit: u64, what: &'static str) -> Result<u64, LoadError> {
        self.places.highest(len, 4096, limit).ok_or(LoadError::NoRoom {
            what,
            len,
            ram_mib: self.ram_mib(),
        })
    }

    /// Copies `len` bytes of `source` from `offset` to `at`, which has been taken.
    ///
    /// # Errors
    /// [`LoadError::Truncated`] when the source is too short, [`LoadError::Ram`].
    pub fn copy(&self, source: &dyn Source, offset: u64, len: u64, at: u64) -> Result<(), LoadError> {
        check(source, offset, len, "its contents")?;
        let mut block = vec![0; len.min(1 << 20) as usize];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(1 << 20) as usize;
            source.read_at(offset + done, &mut block[..n]);
            self.ram.write(GuestPhys(at + done), &block[..n])?;
            done += n as u64;
        }
        Ok(())
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Errors
    /// [`LoadError::Ram`].
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), LoadError> {
        Ok(self.ram.write(GuestPhys(at), bytes)?)
    }

    /// Clears `len` bytes at `at`, which have been taken: RAM keeps its contents over a reset.
    ///
    /// # Errors
    /// [`LoadError::Ram`].
    pub fn zero(&self, at: u64, len: u64) -> Result<(), LoadError> {
        let block = vec![0; len.min(1 << 20) as usize];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(1 << 20);
            self.ram.write(GuestPhys(at + done), &block[..n as usize])?;
            done += n;
        }
        Ok(())
    }
}
