//! Which clusters of a disk are in its overlay: the table in the file, and the same in memory.
//!
//! An entry is written once, when its cluster comes into the overlay: eight bytes of zeros become the number of a data
//! cluster (counted from 1) with a checksum behind it, over the overlay's identity, the entry's own number, and that
//! number. A sector of the table that is written again holds the old entries unchanged, so a torn one loses none. Four bytes
//! in memory for each 64 KiB of disk, in pieces that are made when they are needed: 64 MiB for a full TiB.

use std::ops::Range;

/// Entries of a piece.
const PIECE: usize = 4096;

/// Where the clusters of a disk are; data clusters are counted from 0.
#[derive(Debug)]
pub struct Map {
    pieces: Vec<Option<Box<[u32]>>>,
    /// Data clusters in use: the last one's number and one.
    used: u32,
}

/// A table that is not as we write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The checksum is wrong.
    #[error("the entry of cluster {0} has a wrong checksum")]
    Checksum(u32),
    /// More data than the file has.
    #[error("cluster {0} lies past the end of the file, which has been cut short")]
    Past(u32),
    /// Two of one.
    #[error("cluster {0} lies where another one does")]
    Twice(u32),
}

/// The entry for `cluster`, which lies in `data` of the overlay with this identity.
pub fn entry(id: [u8; 16], cluster: u32, data: u32) -> u64 {
    let number = data + 1;
    let mut hash = crc32fast::Hasher::new();
    hash.update(&id);
    hash.update(&cluster.to_le_bytes());
    hash.update(&number.to_le_bytes());
    u64::from(number) | u64::from(hash.finalize()) << 32
}

impl Map {
    /// A disk of so many clusters, none of them in the overlay.
    pub fn new(clusters: u32) -> Self {
        Self {
            pieces: vec![None; (clusters as usize).div_ceil(PIECE)],
            used: 0,
        }
    }

    /// The data cluster that a cluster is in, if it is.
    pub fn get(&self, cluster: u32) -> Option<u32> {
        let (piece, at) = (cluster as usize / PIECE, cluster as usize % PIECE);
        self.pieces.get(piece)?.as_ref()?[at].checked_sub(1)
    }

    /// Puts a cluster into a data cluster, which is in use from then on.
    pub fn set(&mut self, cluster: u32, data: u32) {
        let (piece, at) = (cluster as usize / PIECE, cluster as usize % PIECE);
        if let Some(piece) = self.pieces.get_mut(piece) {
            piece.get_or_insert_with(|| vec![0; PIECE].into())[at] = data + 1;
            self.used = self.used.max(data + 1);
        }
    }

    /// Has the next data cluster be at least this one.
    pub fn leave_out(&mut self, next: u32) {
        self.used = self.used.max(next);
    }

    /// How many data clusters are in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// What can be done in one piece from byte `offset` of the disk on, at most `len` bytes: where it is among the bytes of
    /// the data clusters, or `None` while it is the base's, and how many bytes.
    pub fn run(&self, offset: u64, len: u64, cluster_len: u64) -> (Option<u64>, u64) {
        let first = (offset / cluster_len) as u32;
        let begin = self.get(first);
        let mut end = cluster_len - offset % cluster_len;
        let mut next = first;
        while end < len {
            next += 1;
            if self.get(next) != begin.map(|data| data + (next - first)) {
                break;
            }
            end += cluster_len;
        }
        let at = begin.map(|data| u64::from(data) * cluster_len + offset % cluster_len);
        (at, end.min(len))
    }
}

/// Takes a table in, piece by piece.
#[derive(Debug)]
pub struct Replay {
    map: Map,
    id: [u8; 16],
    /// Data clusters that the file has.
    held: u32,
    taken: Vec<u64>,
}

impl Replay {
    /// The table of a disk of `clusters` in a file that has `held` data clusters.
    pub fn new(id: [u8; 16], clusters: u32, held: u32) -> Self {
        Self {
            map: Map::new(clusters),
            id,
            held,
            taken: vec![0; (held as usize).div_ceil(64)],
        }
    }

    /// Takes in the entries from `first` on, eight bytes each.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn entries(&mut self, first: u32, bytes: &[u8]) -> Result<(), MapError> {
        for (cluster, bytes) in (first..).zip(bytes.as_chunks::<8>().0) {
            let found = u64::from_le_bytes(*bytes);
            if found == 0 {
                continue;
            }
            let data = (found as u32)
                .checked_sub(1)
                .filter(|&data| data < u32::MAX - 1 && entry(self.id, cluster, data) == found)
                .ok_or(MapError::Checksum(cluster))?;
            self.take(cluster, data)?;
        }
        Ok(())
    }

    /// Takes in what was not in the table yet.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn take(&mut self, cluster: u32, data: u32) -> Result<(), MapError> {
        if self.map.get(cluster) == Some(data) {
            return Ok(());
        }
        if data >= self.held {
            return Err(MapError::Past(cluster));
        }
        let (word, bit) = (data as usize / 64, 1 << (data % 64));
        if self.taken[word] & bit != 0 || self.map.get(cluster).is_some() {
            return Err(MapError::Twice(cluster));
        }
        self.taken[word] |= bit;
        self.map.set(cluster, data);
        Ok(())
    }

    /// Whether a cluster is known already.
    pub fn has(&self, cluster: u32) -> bool {
        self.map.get(cluster).is_some()
    }

    /// All of it.
    pub fn done(self) -> Map {
        self.map
    }
}

/// Groups of entries that follow one another: where each group begins and its bytes.
pub fn groups(id: [u8; 16], mut entries: Vec<(u32, u32)>) -> Vec<(Range<u32>, Vec<u8>)> {
    entries.sort_unstable();
    let mut groups: Vec<(Range<u32>, Vec<u8>)> = Vec::new();
    for (cluster, data) in entries {
        let bytes = entry(id, cluster, data).to_le_bytes();
        match groups.last_mut() {
            Some((range, held)) if range.end == cluster => {
                range.end += 1;
                held.extend(bytes);
            }
            _ => groups.push((cluster..cluster + 1, bytes.into())),
        }
    }
    groups
}
