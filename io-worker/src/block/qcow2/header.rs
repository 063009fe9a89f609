//! What is looked at before the format library sees an image: the library looks less closely, and what it would open is
//! the coordinator's to open. Fields as in QEMU's docs/interop/qcow2.txt.

use crate::block::SECTOR;

/// Bytes of a file's beginning that are looked at: the header with the name of a backing file, which lies in the first cluster.
pub const HEAD: usize = 64 << 10;
/// How an image begins.
pub const MAGIC: [u8; 4] = *b"QFI\xFB";
/// Where the features are that a program must know, and their bit that says that reference counts may be wrong.
pub(super) const INCOMPATIBLE: u64 = 72;
pub(super) const DIRTY: u64 = 1;
const CORRUPT: u64 = 2;
const EXTERNAL: u64 = 4;
/// Most bytes of an L1 table and of a refcount table, as in QEMU.
pub(super) const L1_MOST: u64 = 32 << 20;
pub(super) const REFCOUNTS_MOST: u64 = 8 << 20;

/// What the rest of an image is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the disk.
    pub disk_len: u64,
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// Where the table of tables is, and its bytes.
    pub l1: (u64, u64),
    /// Where the table of refcount blocks is, and its bytes.
    pub refcounts: (u64, u64),
}

/// Why an image is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    /// Another format.
    #[error("is not in the format qcow2")]
    Foreign,
    /// A version of it that is not known.
    #[error("is in version {0} of the format qcow2; 2 and 3 are known")]
    Version(u32),
    /// Made over another image.
    #[error(
        "has a backing file, \"{0}\", which is not opened; \
         make one image of both with qemu-img convert -O qcow2, or an overlay of Quintet's with overlay=FILE"
    )]
    Backing(String),
    /// The sectors are elsewhere.
    #[error(
        "keeps its data in another file, which does not work yet; qemu-img convert -O qcow2 makes one file of both"
    )]
    External,
    /// Encrypted.
    #[error("is encrypted, which does not work yet")]
    Encrypted,
    /// Somebody has found it damaged before.
    #[error("is marked as corrupt; qemu-img check -r all repairs what can be repaired")]
    Corrupt,
    /// A machine died while it was writing to it.
    #[error(
        "was not closed, and its reference counts may be wrong: qemu-img check -r all repairs them; \
         without that it can be read, with ro=on or snapshot=on"
    )]
    Dirty,
    /// Features that nobody here knows.
    #[error(
        "has features that are not known (bits {0:#x}), such as extended L2 entries or another compression"
    )]
    Features(u64),
    /// Internal snapshots.
    #[error(
        "has {0} internal snapshots, with which it can only be read: with ro=on, snapshot=on or overlay=FILE; \
         qemu-img snapshot -d removes them"
    )]
    Snapshots(u32),
    /// Version 2, to be written.
    #[error(
        "is in version 2 of the format, which cannot be written safely; qemu-img amend -o compat=1.1 makes it \
         version 3, and with ro=on, snapshot=on or overlay=FILE it can be used as it is"
    )]
    Old,
    /// A value that no image has.
    #[error("is damaged: its header has a senseless {0}")]
    Senseless(&'static str),
    /// Cut short.
    #[error("is truncated: its {0} lies past the end of the file")]
    Truncated(&'static str),
}

/// Looks at the first bytes (up to [`HEAD`]) of a file of `file_len` bytes; `write` if it is to be written to.
///
/// # Errors
/// [`Qcow2Error`].
pub fn check(head: &[u8], file_len: u64, write: bool) -> Result<Layout, Qcow2Error> {
    if !head.starts_with(&MAGIC) {
        return Err(Qcow2Error::Foreign);
    }
    let bytes = |at: usize, n: usize| head.get(at..at + n).ok_or(Qcow2Error::Truncated("header"));
    let word = |at| -> Result<u32, Qcow2Error> {
        Ok(bytes(at, 4)?
            .iter()
            .fold(0, |all, byte| all << 8 | u32::from(*byte)))
    };
    let long = |at| -> Result<u64, Qcow2Error> { Ok(u64::from(word(at)?) << 32 | u64::from(word(at + 4)?)) };
    let version = word(4)?;
    if !(2..=3).contains(&version) {
        return Err(Qcow2Error::Version(version));
    }
    let cluster_bits = word(20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(Qcow2Error::Senseless("size of clusters"));
    }
    let cluster = 1_u64 << cluster_bits;
    let disk_len = long(24)?;
    // Half the largest offset of the host's: nothing overflows.
    if disk_len == 0 || !disk_len.is_multiple_of(SECTOR) || disk_len > 1 << 60 {
        return Err(Qcow2Error::Senseless("length of the disk"));
    }
    let features = match version {
        2 => 0,
        _ => long(INCOMPATIBLE as usize)?,
    };
    if features & CORRUPT != 0 {
        return Err(Qcow2Error::Corrupt);
    }
    if features & EXTERNAL != 0 {
        return Err(Qcow2Error::External);
    }
    if features & !(DIRTY | CORRUPT | EXTERNAL) != 0 {
        return Err(Qcow2Error::Features(features));
    }
    if word(32)? != 0 {
        return Err(Qcow2Error::Encrypted);
    }
    let backing = long(8)?;
    if backing != 0 {
        let len = (word(16)? as usize).min(1023);
        let name = usize::try_from(backing)
            .ok()
            .and_then(|at| head.get(at..at.checked_add(len)?))
            .unwrap_or(b"?");
        // The name is the image's: nothing of it may reach a terminal as it is.
        let name = String::from_utf8_lossy(name).escape_debug().to_string();
        return Err(Qcow2Error::Backing(name));
    }
    // Eight bytes each, as many as tables of a cluster for the disk.
    let l1 = (long(40)?, u64::from(word(36)?) * 8);
    let refcounts = (long(48)?, u64::from(word(56)?) * cluster);
    let needed = disk_len.div_ceil(cluster).div_ceil(cluster / 8) * 8;
    if l1.1 > L1_MOST || l1.1 < needed {
        return Err(Qcow2Error::Senseless("size of its L1 table"));
    }
    if refcounts.1 > REFCOUNTS_MOST || refcounts.1 == 0 {
        return Err(Qcow2Error::Senseless("size of its refcount table"));
    }
    for ((at, len), what, place) in [
        (l1, "L1 table", "place for its L1 table"),
        (refcounts, "refcount table", "place for its refcount table"),
    ] {
        if at < cluster || !at.is_multiple_of(cluster) {
            return Err(Qcow2Error::Senseless(place));
        }
        if at
            .checked_add(len)
            .is_none_or(|end| end > file_len.next_multiple_of(cluster))
        {
            return Err(Qcow2Error::Truncated(what));
        }
    }
    if version > 2 {
        extensions(word, word(100)? as usize, cluster as usize)?;
    }
    let snapshots = word(60)?;
    if write && version == 2 {
        return Err(Qcow2Error::Old);
    }
    if write && features & DIRTY != 0 {
        return Err(Qcow2Error::Dirty);
    }
    if write && snapshots != 0 {
        return Err(Qcow2Error::Snapshots(snapshots));
    }
    Ok(Layout {
        disk_len,
        version,
        cluster,
        l1,
        refcounts,
    })
}

/// Looks at the extensions behind a header of so many bytes: they must end in the first cluster, and in what is looked at. The
/// library panics when a piece of the table of names is one byte long.
fn extensions(
    word: impl Fn(usize) -> Result<u32, Qcow2Error>,
    mut at: usize,
    cluster: usize,
) -> Result<(), Qcow2Error> {
    const NAMES: u32 = 0x6803_F857;
    /// Bytes of a name.
    const NAME: usize = 48;
    let senseless = Err(Qcow2Error::Senseless("extension of the header"));
    let end = cluster.min(HEAD);
    if at < 104 || !at.is_multiple_of(8) {
        return Err(Qcow2Error::Senseless("length of its header"));
    }
    loop {
        if at + 8 > end {
            return senseless;
        }
        let (kind, len) = (word(at)?, word(at + 4)? as usize);
        if kind == 0 {
            return Ok(());
        }
        if len > end || kind == NAMES && !len.is_multiple_of(NAME) {
            return senseless;
        }
        at += 8 + len.next_multiple_of(8);
    }
}
