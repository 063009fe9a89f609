//! Our own overlay: a file that takes what is written to a disk, over an image that stays as it is
//! (docs/adr/0082-overlays.md).
//!
//! A cluster comes into the overlay with the first write to it, whole, behind those that are there; from then on it is
//! written in place. Its entry in the table is written by the guest's next flush, and only when its data is where a loss of
//! power leaves it: so what the table speaks of is there, and a write that was not flushed is all gone or at most in a
//! cluster that was flushed before, where sectors are old or new as on any disk. Until then the entry is in the
//! [`Scratch`], for the successor of a process that was killed.
//!
//! With `snapshot=on` the file has no name and nobody will open it again: entries go to the table at once, and a flush does
//! nothing.
//!
//! A log of all writes was rejected, because it grows with each one and needs to be cleaned up; entries with states that
//! change, because a torn sector could take what was flushed with it.

pub mod header;
mod map;

use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};

use header::{CLUSTER, HEADER, Header};
pub use map::entry;
use map::{Map, MapError, Replay, groups};

use super::file::{ImageFile, PageCache};
use super::scratch::Scratch;
use super::{Cached, Image, ImageError};

/// Bytes of the table that are read at a time.
const STEP: u64 = 1 << 20;
/// Most bytes that come into the overlay in one write: memory that a copy of them takes.
const COPY: u64 = 4 << 20;

/// What an overlay needs of its file; tests have one that loses power.
pub trait Store: Send + Debug {
    /// Bytes in it.
    ///
    /// # Errors
    /// [`ImageError`], as for the others.
    fn size(&self) -> Result<u64, ImageError>;
    /// Fills `into`.
    ///
    /// # Errors
    /// [`ImageError`].
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), ImageError>;
    /// Writes all of it, growing the file.
    ///
    /// # Errors
    /// [`ImageError`].
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError>;
    /// Puts everything before it where a loss of power leaves it.
    ///
    /// # Errors
    /// [`ImageError`].
    fn flush(&mut self) -> Result<(), ImageError>;
    /// Cuts the file short or has it grow by zeros.
    ///
    /// # Errors
    /// [`ImageError`].
    fn set_len(&mut self, len: u64) -> Result<(), ImageError>;
    /// Zeros, `false` if only writing them helps.
    ///
    /// # Errors
    /// [`ImageError`].
    fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> Result<bool, ImageError>;
    /// The next range that is not a hole.
    ///
    /// # Errors
    /// [`ImageError`].
    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, ImageError>;
    /// What of it the host has in memory.
    fn cached(&self) -> Option<Box<dyn Cached>> {
        None
    }
}

impl Store for ImageFile {
    fn size(&self) -> Result<u64, ImageError> {
        Self::size(self)
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        Self::read(self, offset, into)
    }
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        Self::write(self, offset, from)
    }
    fn flush(&mut self) -> Result<(), ImageError> {
        Self::flush(self)
    }
    fn set_len(&mut self, len: u64) -> Result<(), ImageError> {
        Self::set_len(self, len)
    }
    fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> Result<bool, ImageError> {
        Self::zero(self, offset, len, unmap)
    }
    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, ImageError> {
        Self::next_data(self, offset)
    }
    fn cached(&self) -> Option<Box<dyn Cached>> {
        Some(Box::new(PageCache {
            file: self.shared(),
            held: u64::MAX,
        }))
    }
}

impl From<MapError> for ImageError {
    fn from(error: MapError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What becomes of the overlay at the end.
#[derive(Debug)]
enum Life {
    /// It is used again: entries that the table does not have yet, which are also in the scratch.
    Kept(Scratch, Vec<(u32, u32)>),
    /// It is thrown away.
    Temporary,
}

/// A disk whose writes go to an overlay.
#[derive(Debug)]
pub struct Overlay<S> {
    store: S,
    header: Header,
    base: Box<dyn Image>,
    map: Arc<RwLock<Map>>,
    life: Life,
}

impl<S: Store> Overlay<S> {
    /// The overlay in `store` over `base`; `scratch` is where entries wait for a flush and what waits there, `None` for an
    /// overlay that is thrown away.
    ///
    /// # Errors
    /// [`ImageError::Damaged`], and then nothing has been changed; the host's.
    pub fn open(
        mut store: S,
        base: Box<dyn Image>,
        scratch: Option<(Scratch, Vec<u8>)>,
    ) -> Result<Self, ImageError> {
        let len = store.size()?;
        let mut bytes = vec![0; len.min(HEADER as u64) as usize];
        store.read(0, &mut bytes)?;
        let damaged = |what: &dyn std::fmt::Display| Err(ImageError::Damaged(what.to_string()));
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            Err(error) => return damaged(&format_args!("it {error}")),
        };
        if header.disk_len != base.len() {
            return damaged(&format_args!(
                "it is for a disk of {} bytes, and there are {}",
                header.disk_len,
                base.len()
            ));
        }
        let (clusters, data_at) = (header.clusters(), header.data_at());
        let Some(held) = len.checked_sub(data_at) else {
            return damaged(&"it has been cut short");
        };
        let held = (held / CLUSTER).min(u64::from(u32::MAX)) as u32;
        let mut replay = Replay::new(header.id, clusters, held);
        let end = Header::entry_at(clusters);
        let mut at = Header::entry_at(0);
        while let Some(range) = store.next_data(at)?.filter(|range| range.start < end) {
            // Whole sectors have whole entries.
            at = range.start.max(at) & !7;
            let step = (range.end.min(end) - at).min(STEP).next_multiple_of(8);
            let mut bytes = vec![0; step as usize];
            store.read(at, &mut bytes)?;
            replay.entries(((at - Header::entry_at(0)) / 8) as u32, &bytes)?;
            at += step;
        }
        let life = match scratch {
            None => Life::Temporary,
            Some((scratch, bytes)) => {
                let mut waiting = Vec::new();
                for record in bytes.as_chunks::<8>().0 {
                    let record = u64::from_le_bytes(*record);
                    let (cluster, data) = (record as u32, (record >> 32) as u32);
                    if cluster >= clusters {
                        return damaged(&"its record of unflushed changes makes no sense");
                    }
                    if !replay.has(cluster) {
                        waiting.push((cluster, data));
                    }
                    replay.take(cluster, data)?;
                }
                Life::Kept(scratch, waiting)
            }
        };
        let map = replay.done();
        // What lies behind was never spoken of.
        let used = data_at + u64::from(map.used()) * CLUSTER;
        if used < len {
            store.set_len(used)?;
        }
        Ok(Self {
            store,
            header,
            base,
            map: Arc::new(RwLock::new(map)),
            life,
        })
    }

    fn run(&self, offset: u64, len: u64) -> (Option<u64>, u64) {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let (at, len) = map.run(offset, len, CLUSTER);
        (at.map(|at| self.header.data_at() + at), len)
    }

    /// Where the next cluster comes in, and its number.
    fn end(&self) -> Result<(u64, u32), ImageError> {
        let used = self.map.read().unwrap_or_else(PoisonError::into_inner).used();
        if used >= u32::MAX - (COPY / CLUSTER) as u32 - 1 {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into());
        }
        Ok((self.header.data_at() + u64::from(used) * CLUSTER, used))
    }

    /// Writes where the base's bytes are in sight: takes the clusters over.
    fn take_over(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        let (at, data) = self.end()?;
        let first = offset / CLUSTER;
        let begin = first * CLUSTER;
        let end = offset + from.len() as u64;
        let count = end.div_ceil(CLUSTER) - first;
        let mut bytes = vec![0; (count * CLUSTER) as usize];
        let (head, tail) = ((offset - begin) as usize, (end - begin) as usize);
        // What the disk ends with may be less than a cluster.
        let held = (begin + count * CLUSTER).min(self.header.disk_len) - begin;
        self.base.read(begin, &mut bytes[..head])?;
        if (tail as u64) < held {
            self.base.read(end, &mut bytes[tail..held as usize])?;
        }
        bytes[head..tail].copy_from_slice(from);
        self.store.write(at, &bytes)?;
        self.enter(first as u32, data, count as u32)
    }

    /// Has the map speak of clusters whose data has been written.
    fn enter(&mut self, first: u32, data: u32, count: u32) -> Result<(), ImageError> {
        let entries = (0..count).map(|n| (first + n, data + n));
        match &mut self.life {
            Life::Kept(scratch, waiting) => {
                let records: Vec<u8> = entries
                    .clone()
                    .flat_map(|(cluster, data)| (u64::from(cluster) | u64::from(data) << 32).to_le_bytes())
                    .collect();
                scratch.add(&records)?;
                waiting.extend(entries.clone());
            }
            Life::Temporary => {
                for (range, bytes) in groups(self.header.id, entries.clone().collect()) {
                    let written = self.store.write(Header::entry_at(range.start), &bytes);
                    if written.is_err() {
                        // Some of it may be in the table: nothing else may come to the same place.
                        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
                        map.leave_out(data + count);
                        return written;
                    }
                }
            }
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        for (cluster, data) in entries {
            map.set(cluster, data);
        }
        drop(map);
        match &self.life {
            Life::Kept(scratch, _) if scratch.len() >= Scratch::MOST => self.flush(),
            _ => Ok(()),
        }
    }

    /// Makes whole clusters of the base's zeros.
    fn take_over_zeros(&mut self, cluster: u32) -> Result<(), ImageError> {
        let (at, data) = self.end()?;
        let end = at + CLUSTER;
        if self.store.size()? < end {
            self.store.set_len(end)?;
        }
        if !self.store.zero(at, CLUSTER, true)? {
            self.store.write(at, &vec![0; CLUSTER as usize])?;
        }
        self.enter(cluster, data, 1)
    }

    fn zero_base(&mut self, offset: u64, len: u64) -> Result<(), ImageError> {
        let (mut offset, end) = (offset, offset + len);
        let mut bytes = vec![0; CLUSTER as usize];
        while offset < end {
            let cluster = offset / CLUSTER;
            let cluster_end = ((cluster + 1) * CLUSTER).min(self.header.disk_len);
            let until = end.min(cluster_end);
            let piece = &mut bytes[..(until - offset) as usize];
            self.base.read(offset, piece)?;
            if piece.iter().any(|byte| *byte != 0) {
                if offset == cluster * CLUSTER && until == cluster_end {
                    self.take_over_zeros(cluster as u32)?;
                } else {
                    piece.fill(0);
                    let zeros = piece.to_vec();
                    self.take_over(offset, &zeros)?;
                }
            }
            offset = until;
        }
        Ok(())
    }
}

impl<S: Store> Image for Overlay<S> {
    fn len(&self) -> u64 {
        self.header.disk_len
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        let mut done = 0;
        while done < into.len() {
            let offset = offset + done as u64;
            let (at, len) = self.run(offset, (into.len() - done) as u64);
            let piece = &mut into[done..done + len as usize];
            match at {
                Some(at) => self.store.read(at, piece)?,
                None => self.base.read(offset, piece)?,
            }
            done += len as usize;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), ImageError> {
        let mut done = 0;
        while done < from.len() {
            let offset = offset + done as u64;
            let (at, mut len) = self.run(offset, (from.len() - done) as u64);
            match at {
                Some(at) => self.store.write(at, &from[done..done + len as usize])?,
                None => {
                    len = len.min(COPY - offset % CLUSTER);
                    self.take_over(offset, &from[done..done + len as usize])?;
                }
            }
            done += len as usize;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        let Life::Kept(scratch, waiting) = &mut self.life else {
            return Ok(());
        };
        self.store.flush()?;
        if !waiting.is_empty() {
            for (range, bytes) in groups(self.header.id, waiting.clone()) {
                self.store.write(Header::entry_at(range.start), &bytes)?;
            }
            self.store.flush()?;
            scratch.clear()?;
            waiting.clear();
        }
        Ok(())
    }

    fn is_unsettled(&self) -> bool {
        matches!(&self.life, Life::Kept(_, waiting) if !waiting.is_empty())
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), ImageError> {
        let (mut offset, end) = (offset, offset + len);
        while offset < end {
            let (at, len) = self.run(offset, end - offset);
            if let Some(at) = at {
                self.store.zero(at, len, true)?;
            }
            offset += len;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), ImageError> {
        let (mut offset, end) = (offset, offset + len);
        while offset < end {
            let (at, len) = self.run(offset, end - offset);
            match at {
                Some(at) => {
                    if !self.store.zero(at, len, unmap)? {
                        super::write_zeros_by(offset, len, |offset, zeros| self.write(offset, zeros))?;
                    }
                }
                None => self.zero_base(offset, len)?,
            }
            offset += len;
        }
        Ok(())
    }

    fn cached(&self) -> Option<Box<dyn Cached>> {
        Some(Box::new(InMemory {
            map: Arc::clone(&self.map),
            data_at: self.header.data_at(),
            store: self.store.cached()?,
            base: self.base.cached(),
        }))
    }
}

/// What the host has in memory of an overlay and its base.
#[derive(Debug)]
struct InMemory {
    map: Arc<RwLock<Map>>,
    data_at: u64,
    store: Box<dyn Cached>,
    base: Option<Box<dyn Cached>>,
}

impl Cached for InMemory {
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        // Nothing is under way in the image, so nobody holds it for writing; it is not waited for anyhow.
        let Ok(map) = self.map.try_read() else {
            return false;
        };
        let mut done = 0;
        while done < into.len() {
            let offset = offset + done as u64;
            let (at, len) = map.run(offset, (into.len() - done) as u64, CLUSTER);
            let piece = &mut into[done..done + len as usize];
            let read = match (at, &self.base) {
                (Some(at), _) => self.store.read(self.data_at + at, piece),
                (None, Some(base)) => base.read(offset, piece),
                (None, None) => false,
            };
            if !read {
                return false;
            }
            done += len as usize;
        }
        true
    }
}

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod tests;
