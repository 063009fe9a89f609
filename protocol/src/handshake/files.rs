//! What is the same in every shared file: its head, and how long it is.
//!
//! The first [`HEAD_LEN`] bytes of each worker's map of a file are the file's head. Its last 128 bytes hold the
//! header (magic, version, layout hash, instance, file) and the probe window, and nothing else of the head is
//! ever touched, so it costs one page. Of guest RAM the head is the end of the reserved region, just below
//! guest physical zero (S3.20): one rule for all files, and the probe window where the contract puts it.
//! The contents, with offsets of their own from zero, follow the head.

use super::{FileId, PROTOCOL_VERSION};
use crate::ram::{GUEST_BASE, MAP_START, RUNTIME_RESERVED, RamLayout, WASM_PAGE};
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;

/// Length of the head of a file's map, in bytes: a multiple of every host page size up to 64 KiB.
pub const HEAD_LEN: usize = WASM_PAGE as usize;
/// Length of the probe window, in bytes: the last of the head (S3.20).
pub const PROBE_WINDOW: usize = 64;
/// Length of what is kept free at the end of the reserved region, in bytes: header and probe window (S3.20).
pub const TAIL_GUARD: usize = 128;
/// Offset of the probe window in the head, in bytes.
pub const PROBE_OFFSET: usize = HEAD_LEN - PROBE_WINDOW;
/// Offset of the header in the head, in bytes.
pub const HEADER_OFFSET: usize = HEAD_LEN - TAIL_GUARD;

const _: () = assert!(TAIL_GUARD >= PROBE_WINDOW && PROBE_WINDOW == 64);
const _: () = assert!(MAP_START + HEAD_LEN as u64 == GUEST_BASE);

/// First word of a header, "QSEG" in memory.
pub const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"QSEG");

const MAGIC: usize = HEADER_OFFSET;
const VERSION: usize = HEADER_OFFSET + 4;
/// Offset of the layout hash (u64, [`layout_hash`]) in the head, in bytes.
pub const LAYOUT_OFFSET: usize = HEADER_OFFSET + 8;
const LAYOUT: usize = LAYOUT_OFFSET;
const INSTANCE: usize = HEADER_OFFSET + 16;
const FILE: usize = HEADER_OFFSET + 24;

/// Why a file's header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a file of ours, or mapped at a wrong offset.
    #[error("{file:?} starts with {found:#010x} instead of {HEADER_MAGIC:#010x}: wrong file or wrong offset")]
    Magic {
        /// Which file was expected.
        file: FileId,
        /// The word in its place.
        found: u32,
    },
    /// The file of another build.
    #[error("{file:?} has layout version {version}, hash {layout:#x}: made by another build")]
    Layout {
        /// Which file was expected.
        file: FileId,
        /// Its protocol version.
        version: u32,
        /// Its layout hash.
        layout: u64,
    },
    /// The file of another machine.
    #[error("{file:?} belongs to machine {found:#x}, not to {expected:#x}")]
    Instance {
        /// Which file was expected.
        file: FileId,
        /// The machine in its header.
        found: u64,
        /// This machine.
        expected: u64,
    },
    /// Another file of this machine.
    #[error("File number {found} was mapped as {file:?}: descriptors are mixed up")]
    File {
        /// Which file was expected.
        file: FileId,
        /// The number in its header.
        found: u32,
    },
}

impl FileId {
    /// Number of the file in headers and hashes: its place in [`FileId::every`].
    pub fn number(self) -> u32 {
        Self::every()
            .position(|f| f == self)
            .expect("every file is listed") as u32
    }

    /// Where a map of the file starts, as an offset into it, in bytes.
    pub const fn map_start(self) -> u64 {
        match self {
            Self::GuestRam => MAP_START,
            _ => 0,
        }
    }
}

/// Writes the header into the head of a new file.
pub fn write_header(head: &ViewMut, file: FileId, layout: u64, instance: u64) {
    head.store_u64(LAYOUT, layout, Ordering::Relaxed);
    head.store_u64(INSTANCE, instance, Ordering::Relaxed);
    head.store_u32(FILE, file.number(), Ordering::Relaxed);
    head.store_u32(VERSION, PROTOCOL_VERSION, Ordering::Relaxed);
    head.store_u32(MAGIC, HEADER_MAGIC, Ordering::Release);
}

/// Checks the header in the head of a map.
///
/// # Errors
/// [`HeaderError`].
pub fn check_header(head: &View, file: FileId, layout: u64, instance: u64) -> Result<(), HeaderError> {
    let magic = head.load_u32(MAGIC, Ordering::Acquire);
    if magic != HEADER_MAGIC {
        return Err(HeaderError::Magic { file, found: magic });
    }
    let (version, theirs) = (
        head.load_u32(VERSION, Ordering::Relaxed),
        head.load_u64(LAYOUT, Ordering::Relaxed),
    );
    if version != PROTOCOL_VERSION || theirs != layout {
        return Err(HeaderError::Layout {
            file,
            version,
            layout: theirs,
        });
    }
    let machine = head.load_u64(INSTANCE, Ordering::Relaxed);
    if machine != instance {
        return Err(HeaderError::Instance {
            file,
            found: machine,
            expected: instance,
        });
    }
    let number = head.load_u32(FILE, Ordering::Relaxed);
    if number != file.number() {
        return Err(HeaderError::File { file, found: number });
    }
    Ok(())
}

/// Where an allocator in the reserved region of a memory of `memory` bytes must end (S3.24): below the tail
/// guard, and never in guest RAM. Nothing allocates there at present; WebAssembly guests will.
pub fn reserved_heap_end(memory: u64) -> u64 {
    memory.min(RUNTIME_RESERVED).saturating_sub(TAIL_GUARD as u64)
}

/// Length of a file of a machine with `ram`, head included, in bytes.
pub fn file_len(file: FileId, ram: RamLayout) -> u64 {
    match file {
        FileId::GuestRam => ram.file_len(),
        // As large as the first one can be: what nobody touches takes no memory.
        FileId::Memory(_) => HEAD_LEN as u64 + ram.low(),
        _ => HEAD_LEN as u64 + content_len(file),
    }
}

/// Length of the contents of every file whose length does not depend on guest RAM's, in bytes; multiples of 64 KiB.
fn content_len(file: FileId) -> u64 {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match file {
        FileId::GuestRam | FileId::Memory(_) => 0,
        FileId::Doorbells => 64 * KIB,
        FileId::Control(_) => MIB,
        FileId::IpcCpu => 16 * MIB,
        FileId::IpcIo => 32 * MIB,
        FileId::Devices => 16 * MIB,
        FileId::Input => MIB,
        FileId::Vram => 32 * MIB,
        FileId::Framebuffer => 64 * MIB,
        FileId::AudioIo | FileId::AudioHost => MIB,
        FileId::Trace(_) => MIB,
    }
}

/// Hash of what two builds must agree on: protocol version, files and their lengths.
pub fn layout_hash() -> u64 {
    let mut hash = Fnv::new();
    hash.add(u64::from(PROTOCOL_VERSION));
    hash.add(crate::layout::layout_hash());
    for (i, file) in FileId::every().enumerate() {
        hash.add(i as u64);
        hash.add(content_len(file));
    }
    for constant in [GUEST_BASE, MAP_START, HEADER_OFFSET as u64, PROBE_OFFSET as u64] {
        hash.add(constant);
    }
    hash.0
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    fn add(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    fn head() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(HEAD_LEN as u64).expect("map")))
    }

    #[test]
    fn s3_20_the_probe_window_is_the_last_64_bytes_below_guest_ram() {
        assert_eq!(MAP_START + PROBE_OFFSET as u64, RUNTIME_RESERVED - 64);
    }

    #[test]
    fn s3_24_the_reserved_heap_ends_below_the_tail_guard_and_the_memory() {
        assert_eq!(reserved_heap_end(u64::MAX), RUNTIME_RESERVED - TAIL_GUARD as u64);
        assert_eq!(reserved_heap_end(1 << 20), (1 << 20) - TAIL_GUARD as u64);
        assert_eq!(reserved_heap_end(3), 0);
    }

    #[test]
    fn s3_40_s3_41_a_header_is_checked_field_by_field() {
        let h = head();
        let check = |file, layout, instance| check_header(h.view(), file, layout, instance);
        assert!(matches!(
            check(FileId::Vram, 7, 9),
            Err(HeaderError::Magic { found: 0, .. })
        ));
        write_header(&h, FileId::Vram, 7, 9);
        assert_eq!(check(FileId::Vram, 7, 9), Ok(()));
        assert!(matches!(
            check(FileId::Vram, 8, 9),
            Err(HeaderError::Layout { layout: 7, .. })
        ));
        assert!(matches!(
            check(FileId::Vram, 7, 8),
            Err(HeaderError::Instance { found: 9, .. })
        ));
        assert!(matches!(
            check(FileId::Input, 7, 9),
            Err(HeaderError::File { .. })
        ));
    }

    #[test]
    fn every_file_is_a_whole_number_of_the_largest_pages() {
        let ram = RamLayout::new(64 << 10);
        for file in FileId::every() {
            assert_eq!(file_len(file, ram) % (64 << 10), 0, "{file:?}");
        }
    }
}
