//! Directories as WASI preview 1 lists them.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use quintet_protocol::wasm::Errno;
use rustix::fs::{FileType, RawDir, SeekFrom, seek};

use super::files::{errno, file_type};

/// Bytes of a `dirent` before its name.
const DIRENT: usize = 24;
/// Most entries of a directory; the rest is not listed.
const MOST: usize = 100_000;

/// What a directory had in it when its listing began. Both `.` and `..` are left out: the second leads outside.
#[derive(Debug)]
pub(super) struct Listing(Vec<(u64, u8, Vec<u8>)>);

impl Listing {
    /// Reads a directory from its start.
    pub(super) fn read(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        seek(dir, SeekFrom::Start(0)).map_err(errno)?;
        let mut entries = Vec::new();
        let mut buffer = [const { MaybeUninit::uninit() }; 8192];
        let mut raw = RawDir::new(dir, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && entries.len() < MOST {
                entries.push((entry.ino(), type_of(entry.file_type()), name.to_vec()));
            }
        }
        Ok(Self(entries))
    }

    /// The entries from `cookie` on, as many bytes of them as `room` has. Less than `room` means that this is the end.
    pub(super) fn from(&self, cookie: u64, room: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let first = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (n, (inode, kind, name)) in self.0.iter().enumerate().skip(first) {
            let start = bytes.len();
            bytes.extend((n as u64 + 1).to_le_bytes());
            bytes.extend(inode.to_le_bytes());
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.push(*kind);
            bytes.resize(start + DIRENT, 0);
            bytes.extend(name);
            if bytes.len() >= room {
                bytes.truncate(room);
                break;
            }
        }
        bytes
    }
}

fn type_of(kind: FileType) -> u8 {
    file_type(kind.as_raw_mode())
}
