//! The first 4 KiB of an overlay: what it is, and over which image it was made (docs/adr/0082-overlays.md).
//!
//! Everything is little-endian. The base is known by its length and its time of change: an overlay over anything else
//! would mix two file systems. qcow2's backing file has neither, so that a changed base is found by the guest.

use crate::block::SECTOR;

/// Bytes of the header; the checksum is in the last four.
pub const HEADER: usize = 4096;
/// Bytes of a cluster, the unit in which an overlay takes over from its base.
pub const CLUSTER: u64 = 64 << 10;
/// How the file begins.
pub const MAGIC: [u8; 8] = *b"QuintOvl";
/// Version of the format.
const VERSION: u32 = 1;
/// Most bytes of the base's name that are kept.
const NAME: usize = 2048;
const NAME_AT: usize = 84;

/// What a base is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The name by which it was given, for messages.
    pub name: String,
    /// Bytes of its file.
    pub file_len: u64,
    /// When it was last changed: seconds and nanoseconds since 1970; zero for a block device.
    pub changed: (i64, u32),
    /// Number of its format, as in `DiskFormat`.
    pub format: u32,
}

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the disk.
    pub disk_len: u64,
    /// The image below.
    pub base: Base,
    /// Of this overlay alone; goes into the checksums of its entries.
    pub id: [u8; 16],
}

/// Why a file is no overlay that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Another kind of file.
    #[error("is not an overlay of Quintet's")]
    Foreign,
    /// Ours, but changed.
    #[error("is damaged: the checksum of its header is wrong")]
    Checksum,
    /// Ours, but newer.
    #[error("is an overlay of version {0}, and this program knows version {VERSION}")]
    Version(u32),
    /// Values that no header has.
    #[error("is damaged: its header makes no sense")]
    Senseless,
    /// Made over a disk of another size.
    #[error("was made over a disk of {0} bytes, and \"{1}\" has {2}")]
    Length(u64, String, u64),
    /// Made over a file that is another now.
    #[error(
        "was made over \"{made}\" ({len} bytes, of {seconds}.{nanos:09}), and \"{name}\" is another file or was changed \
         since: what is on both would be mixed. Use the base as it was; if only its time is wrong, \
         touch -d @{seconds}.{nanos:09} puts it right"
    )]
    Base {
        /// The base's name then.
        made: String,
        /// Its length then.
        len: u64,
        /// Its time then.
        seconds: i64,
        /// Its time then.
        nanos: u32,
        /// The name now.
        name: String,
    },
}

impl Header {
    /// Whether a disk can have this length.
    pub fn fits(disk_len: u64) -> bool {
        disk_len > 0 && disk_len.is_multiple_of(SECTOR) && disk_len.div_ceil(CLUSTER) < u64::from(u32::MAX)
    }

    /// Clusters of the disk.
    pub fn clusters(&self) -> u32 {
        self.disk_len.div_ceil(CLUSTER) as u32
    }

    /// Where the entry of a cluster is.
    pub fn entry_at(cluster: u32) -> u64 {
        CLUSTER + u64::from(cluster) * 8
    }

    /// Where the first cluster of data is.
    pub fn data_at(&self) -> u64 {
        Self::entry_at(self.clusters()).next_multiple_of(CLUSTER)
    }

    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut name = self.base.name.as_str();
        while name.len() > NAME {
            name = &name[..name.floor_char_boundary(name.len() - 1)];
        }
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(CLUSTER.trailing_zeros().to_le_bytes());
        bytes.extend(self.disk_len.to_le_bytes());
        bytes.extend(self.base.file_len.to_le_bytes());
        bytes.extend(self.base.changed.0.to_le_bytes());
        bytes.extend(self.base.changed.1.to_le_bytes());
        bytes.extend(self.base.format.to_le_bytes());
        bytes.extend(self.id);
        bytes.extend(Self::entry_at(0).to_le_bytes());
        bytes.extend(self.data_at().to_le_bytes());
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.resize(HEADER - 4, 0);
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, the first of a file.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let (Some(bytes), true) = (bytes.get(..HEADER), bytes.starts_with(&MAGIC)) else {
            return Err(HeaderError::Foreign);
        };
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        // The version first: another one may have its checksum elsewhere.
        if word(8) != VERSION {
            return Err(HeaderError::Version(word(8)));
        }
        if word(HEADER - 4) != crc32fast::hash(&bytes[..HEADER - 4]) {
            return Err(HeaderError::Checksum);
        }
        let name = (word(80) as usize)
            .checked_add(NAME_AT)
            .and_then(|end| bytes.get(NAME_AT..end))
            .and_then(|name| std::str::from_utf8(name).ok())
            .ok_or(HeaderError::Senseless)?;
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[48..64]);
        let header = Self {
            disk_len: long(16),
            base: Base {
                name: name.to_owned(),
                file_len: long(24),
                changed: (long(32).cast_signed(), word(40)),
                format: word(44),
            },
            id,
        };
        let placed = word(12) == CLUSTER.trailing_zeros() && long(64) == Self::entry_at(0);
        match Self::fits(header.disk_len) && placed && long(72) == header.data_at() {
            true => Ok(header),
            false => Err(HeaderError::Senseless),
        }
    }

    /// Whether this is an overlay for `base`, a disk of `disk_len` bytes.
    ///
    /// # Errors
    /// [`HeaderError::Base`] and [`HeaderError::Length`].
    pub fn check(&self, base: &Base, disk_len: u64) -> Result<(), HeaderError> {
        let known = &self.base;
        if (known.file_len, known.changed, known.format) != (base.file_len, base.changed, base.format) {
            return Err(HeaderError::Base {
                made: known.name.clone(),
                len: known.file_len,
                seconds: known.changed.0,
                nanos: known.changed.1,
                name: base.name.clone(),
            });
        }
        match self.disk_len == disk_len {
            true => Ok(()),
            false => Err(HeaderError::Length(self.disk_len, base.name.clone(), disk_len)),
        }
    }
}
