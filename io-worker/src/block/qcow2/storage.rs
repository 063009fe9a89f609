//! What the format library reads and writes: the image, with its metadata held back until the guest flushes.
//!
//! The library writes tables as it likes, an L1 entry before the reference count of what it points to, and asks for no
//! barrier in between. So nothing of that goes to the file at once. What it writes are pages in memory; when a request has
//! been carried out, they are added to the [`Scratch`] as one: the successor of a process that was killed finds all changes of a
//! request or none, and repeats the request. A flush of the guest's puts them into the file, in an order that a loss of power
//! cannot turn against it ([`Metadata::settle`]). The guest's data goes to its place at once.
#![allow(
    unsafe_code,
    reason = "the format library's storage interface has unsafe methods"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use imago::Storage;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::drivers::CommonStorageHelper;

use super::header::{DIRTY, INCOMPATIBLE, L1_MOST, Layout, REFCOUNTS_MOST};
use crate::block::{ImageError, ImageFile, Scratch, write_zeros_by};

/// Bytes of a page: the least of a cluster, so that no page has both a table and data.
const PAGE: u64 = 512;
/// The bits of an entry of the L1 or the refcount table that say where a table is.
const PLACE: u64 = 0x00FF_FFFF_FFFF_FE00;
/// Where the header says where and how large these tables are, and the end of that.
const ROOTS: std::ops::Range<u64> = 36..60;
/// The byte with the bit that says that reference counts may be wrong.
const DIRTY_AT: u64 = INCOMPATIBLE + 7;

/// The file of an image, for the library.
pub(super) struct Metadata {
    inner: Mutex<Inner>,
    helper: CommonStorageHelper,
}

type Page = Box<[u8; PAGE as usize]>;

#[derive(Debug)]
struct Inner {
    file: ImageFile,
    layout: Layout,
    /// What is not in the file yet.
    pages: BTreeMap<u64, Page>,
    /// What the request under way has written: records of offset, length, and bytes up to a multiple of 8.
    request: Vec<u8>,
    /// `None` for an image that is only read.
    scratch: Option<Scratch>,
}

impl Metadata {
    /// The image in `file`, with the changes that a predecessor left in the scratch.
    pub(super) fn new(
        file: ImageFile,
        layout: Layout,
        scratch: Option<(Scratch, Vec<u8>)>,
    ) -> Result<Self, ImageError> {
        let mut inner = Inner {
            file,
            layout,
            pages: BTreeMap::new(),
            request: Vec::new(),
            scratch: None,
        };
        if let Some((scratch, bytes)) = scratch {
            let mut rest = &bytes[..];
            while let Some((head, tail)) = rest.split_at_checked(16) {
                let long = |at: usize| {
                    head[at..at + 8]
                        .iter()
                        .rev()
                        .fold(0, |all, b| all << 8 | u64::from(*b))
                };
                let (offset, len) = (long(0), long(8));
                let padded = usize::try_from(len)
                    .ok()
                    .and_then(|len| len.checked_next_multiple_of(8));
                let Some((data, tail)) = padded
                    .and_then(|padded| tail.split_at_checked(padded))
                    .filter(|_| offset.checked_add(len).is_some_and(|end| end < 1 << 62))
                else {
                    return Err(ImageError::Damaged(
                        "its record of unflushed changes makes no sense".into(),
                    ));
                };
                inner.change(offset, &data[..len as usize])?;
                rest = tail;
            }
            inner.scratch = Some(scratch);
        }
        Ok(Self {
            inner: Mutex::new(inner),
            helper: CommonStorageHelper::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes data of the guest's.
    pub(super) fn write_data(&self, offset: u64, data: &[u8]) -> Result<(), ImageError> {
        self.inner().write_data(offset, data)
    }

    /// Zeros data of the guest's.
    pub(super) fn zero_data(&self, offset: u64, len: u64) -> Result<(), ImageError> {
        if offset.checked_add(len).is_none_or(|end| end > 1 << 62) {
            return Err(ImageError::Damaged("it points past all files".into()));
        }
        self.inner().zero_data(offset, len)
    }

    /// Whether there are L2 tables that would be copied before they are changed.
    pub(super) fn shares_tables(&self) -> Result<bool, ImageError> {
        const OWN: u64 = 1 << 63;
        let inner = self.inner();
        let entries = inner.entries(inner.layout.l1)?;
        Ok(entries.iter().any(|entry| entry & PLACE != 0 && entry & OWN == 0))
    }

    /// Whether clusters have no reference count that come before some that have. The library looks for the first free cluster there, needs
    /// a place for that one's count first, looks for the first free cluster, and so on until its stack ends.
    pub(super) fn has_gaps(&self) -> Result<bool, ImageError> {
        let inner = self.inner();
        let entries = inner.entries(inner.layout.refcounts)?;
        let there = |entry: &u64| entry & PLACE != 0;
        let counted = entries.iter().rposition(there).map_or(0, |last| last + 1);
        Ok(counted == 0 || !entries[..counted].iter().all(there))
    }

    /// Has what the request has changed outlive this process.
    pub(super) fn end_request(&self) -> Result<(), ImageError> {
        let inner = &mut *self.inner();
        if inner.request.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut inner.request);
        match &mut inner.scratch {
            Some(scratch) => scratch.add(&records),
            None => Ok(()),
        }
    }

    /// Whether there is anything that is not in the file.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.inner().pages.is_empty()
    }

    /// Whether no more should be held back: there is much of it, or a table has moved, so that its old place is free, to which
    /// the file points.
    pub(super) fn is_due(&self) -> Result<bool, ImageError> {
        let inner = self.inner();
        let full = inner
            .scratch
            .as_ref()
            .is_some_and(|s| s.len() >= Scratch::MOST / 4);
        let moved =
            inner.pages.contains_key(&0) && inner.roots()? != [inner.layout.l1, inner.layout.refcounts];
        Ok(full || moved)
    }

    /// Puts all of it into the file, where a loss of power leaves it.
    pub(super) fn settle(&self) -> Result<(), ImageError> {
        self.inner().settle()
    }
}

impl Inner {
    /// Changes pages, and answers what is other than it was: where, and how many bytes.
    fn change(&mut self, offset: u64, bytes: &[u8]) -> Result<Vec<(u64, usize)>, ImageError> {
        let first = offset / PAGE * PAGE;
        let end = (offset + bytes.len() as u64).next_multiple_of(PAGE);
        let mut old = vec![0; (end - first) as usize];
        self.read_as_it_is(first, &mut old)?;
        let mut new = old.clone();
        new[(offset - first) as usize..][..bytes.len()].copy_from_slice(bytes);
        let held = self.file.size()?;
        let mut changed: Vec<(u64, usize)> = Vec::new();
        let pages = old.as_chunks().0.iter().zip(new.as_chunks().0);
        for (number, (old, new)) in (first / PAGE..).zip(pages) {
            let at = number * PAGE;
            // A table is there to its end, zeros or not.
            if old == new && (at < held || self.pages.contains_key(&number)) {
                continue;
            }
            self.pages.insert(number, Box::new(*new));
            match changed.last_mut() {
                Some((from, len)) if *from + *len as u64 == at => *len += PAGE as usize,
                _ => changed.push((at, PAGE as usize)),
            }
        }
        Ok(changed)
    }

    /// Writes metadata: for later.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ImageError> {
        if self.scratch.is_none() {
            return Err(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem).into());
        }
        for (at, len) in self.change(offset, bytes)? {
            self.request.extend(at.to_le_bytes());
            self.request.extend((len as u64).to_le_bytes());
            let pages = self.pages.range(at / PAGE..(at + len as u64) / PAGE);
            for (_, page) in pages {
                self.request.extend(&page[..]);
            }
        }
        Ok(())
    }

    /// Writes data to its place; but where that was a table until now, the page would come over it later, and takes it in.
    fn write_data(&mut self, offset: u64, data: &[u8]) -> Result<(), ImageError> {
        let end = offset + data.len() as u64;
        self.is_no_root(offset, end)?;
        let held: Vec<u64> = self
            .pages
            .range(offset / PAGE..end.div_ceil(PAGE))
            .map(|(number, _)| *number)
            .collect();
        let mut at = offset;
        for number in held {
            let (from, to) = ((number * PAGE).max(offset), ((number + 1) * PAGE).min(end));
            self.file
                .write(at, &data[(at - offset) as usize..(from - offset) as usize])?;
            self.write(from, &data[(from - offset) as usize..(to - offset) as usize])?;
            at = to;
        }
        self.file.write(at, &data[(at - offset) as usize..])
    }

    /// No sound image has data where its header or a table of tables is.
    fn is_no_root(&self, offset: u64, end: u64) -> Result<(), ImageError> {
        let layout = &self.layout;
        let roots = [(0, layout.cluster), layout.l1, layout.refcounts];
        match roots.iter().any(|(at, len)| offset < at + len && end > *at) {
            true => Err(ImageError::Damaged("its data lies on its tables".into())),
            false => Ok(()),
        }
    }

    fn zero_data(&mut self, offset: u64, len: u64) -> Result<(), ImageError> {
        self.is_no_root(offset, offset + len)?;
        let held = self.pages.range(offset / PAGE..(offset + len).div_ceil(PAGE));
        if held.count() == 0 && offset + len <= self.file.size()? && self.file.zero(offset, len, false)? {
            return Ok(());
        }
        write_zeros_by(offset, len, |at, zeros| self.write_data(at, zeros))
    }

    /// Answers whether any of it is there, in the file or not yet.
    fn read_as_it_is(&self, offset: u64, into: &mut [u8]) -> Result<bool, ImageError> {
        let done = self.file.read_some(offset, into)?;
        into[done..].fill(0);
        let end = offset + into.len() as u64;
        let mut there = done > 0;
        for (number, page) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = ((number * PAGE).max(offset), ((number + 1) * PAGE).min(end));
            into[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from % PAGE) as usize..(from % PAGE + to - from) as usize]);
            there = true;
        }
        Ok(there)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        let there = self.read_as_it_is(offset, into)?;
        // The last cluster need not be there to its end, the others do.
        if !there && offset >= self.file.size()?.next_multiple_of(self.layout.cluster) {
            return Err(ImageError::Damaged("it has been cut short".into()));
        }
        // The coordinator has seen to that bit; it is set again while changes are put into the file.
        if (offset..offset + into.len() as u64).contains(&DIRTY_AT) && self.layout.version > 2 {
            into[(DIRTY_AT - offset) as usize] &= !(DIRTY as u8);
        }
        Ok(())
    }

    /// Where the L1 and the refcount table are, and their bytes.
    fn roots(&self) -> Result<[(u64, u64); 2], ImageError> {
        let mut bytes = [0; (ROOTS.end - ROOTS.start) as usize];
        self.read_as_it_is(ROOTS.start, &mut bytes)?;
        let number = |at: usize, n: usize| {
            bytes[at..at + n]
                .iter()
                .fold(0, |all, b| all << 8 | u64::from(*b))
        };
        // L1: entries, place; refcounts: place, clusters.
        let l1 = (number(4, 8), number(0, 4) * 8);
        let refcounts = (number(12, 8), number(20, 4) * self.layout.cluster);
        // Tables that lie on the header can have written anything there.
        match l1.1 <= L1_MOST && refcounts.1 <= REFCOUNTS_MOST && l1.0.max(refcounts.0) < 1 << 60 {
            true => Ok([l1, refcounts]),
            false => Err(ImageError::Damaged("its header was overwritten".into())),
        }
    }

    /// A table of numbers of eight bytes.
    fn entries(&self, (at, len): (u64, u64)) -> Result<Vec<u64>, ImageError> {
        let mut bytes = vec![0; len as usize];
        self.read_as_it_is(at, &mut bytes)?;
        let entries = bytes.as_chunks::<8>().0.iter();
        Ok(entries.map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    /// The clusters that a table of tables points to.
    fn tables(&self, (at, len): (u64, u64), into: &mut BTreeSet<u64>) -> Result<(), ImageError> {
        let places = self.entries((at, len))?.into_iter().map(|e| e & PLACE);
        into.extend(
            places
                .filter(|place| *place != 0)
                .map(|place| place / self.layout.cluster),
        );
        Ok(())
    }

    fn mark(&self, dirty: bool) -> Result<(), ImageError> {
        let mut byte = [0];
        self.file.read(DIRTY_AT, &mut byte)?;
        let marked = byte[0] & !(DIRTY as u8) | if dirty { DIRTY as u8 } else { 0 };
        match marked == byte[0] {
            true => Ok(()),
            false => self.file.write(DIRTY_AT, &[marked]),
        }
    }

    /// First what is data (the rest of a cluster that was written to in part), then tables that nobody points to yet or that
    /// point to data, then what points to tables. While reference counts do not match, the header says so: QEMU, and
    /// `qemu-img check -r all`, count again then.
    fn settle(&mut self) -> Result<(), ImageError> {
        if self.pages.is_empty() {
            return self.file.flush();
        }
        let [l1, refcounts] = self.roots()?;
        let mut tables = BTreeSet::new();
        self.tables(l1, &mut tables)?;
        self.tables(refcounts, &mut tables)?;
        let roots = [(0, self.layout.cluster), l1, refcounts];
        let class = |number: u64| {
            let at = number * PAGE;
            let root = roots.iter().any(|(from, len)| (*from..from + len).contains(&at));
            match (root, tables.contains(&(at / self.layout.cluster))) {
                (true, _) => 2,
                (false, true) => 1,
                (false, false) => 0,
            }
        };
        let mut classes: [Vec<(u64, &Page)>; 3] = Default::default();
        for (number, page) in &self.pages {
            classes[class(*number)].push((*number, page));
        }
        let [data, tables, roots] = classes;
        for (number, page) in data {
            self.file.write(number * PAGE, &page[..])?;
        }
        self.mark(true)?;
        self.file.flush()?;
        let both = !tables.is_empty() && !roots.is_empty();
        for (number, page) in tables {
            self.file.write(number * PAGE, &page[..])?;
        }
        if both {
            self.file.flush()?;
        }
        for (number, page) in roots {
            let mut page = *page.clone();
            if number == DIRTY_AT / PAGE {
                page[(DIRTY_AT % PAGE) as usize] |= DIRTY as u8;
            }
            self.file.write(number * PAGE, &page)?;
        }
        self.file.flush()?;
        // If this is lost, the image is repaired for nothing.
        self.mark(false)?;
        if let Some(scratch) = &mut self.scratch {
            scratch.clear()?;
        }
        self.pages.clear();
        (self.layout.l1, self.layout.refcounts) = (l1, refcounts);
        Ok(())
    }
}

fn host(error: ImageError) -> std::io::Error {
    match error {
        ImageError::Host(error) => error,
        other => std::io::Error::other(other),
    }
}

impl Storage for Metadata {
    fn size(&self) -> std::io::Result<u64> {
        let inner = self.inner();
        let pages = inner
            .pages
            .last_key_value()
            .map_or(0, |(number, _)| (number + 1) * PAGE);
        Ok(inner.file.size().map_err(host)?.max(pages))
    }

    // SAFETY: asks nothing of its caller.
    unsafe fn pure_readv(&self, mut into: IoVectorMut<'_>, offset: u64) -> std::io::Result<()> {
        let mut bytes = vec![0; usize::try_from(into.len()).map_err(std::io::Error::other)?];
        if offset.checked_add(into.len()).is_none_or(|end| end > 1 << 62) {
            return Err(host(ImageError::Damaged("it points past all files".into())));
        }
        self.inner().read(offset, &mut bytes).map_err(host)?;
        into.copy_from_slice(&bytes);
        Ok(())
    }

    // SAFETY: asks nothing of its caller.
    unsafe fn pure_writev(&self, from: IoVector<'_>, offset: u64) -> std::io::Result<()> {
        let mut bytes = vec![0; usize::try_from(from.len()).map_err(std::io::Error::other)?];
        if offset.checked_add(from.len()).is_none_or(|end| end > 1 << 62) {
            return Err(host(ImageError::Damaged("it points past all files".into())));
        }
        from.copy_into_slice(&mut bytes);
        self.inner().write(offset, &bytes).map_err(host)
    }

    // SAFETY: asks nothing of its caller.
    unsafe fn pure_write_zeroes(&self, offset: u64, len: u64) -> std::io::Result<()> {
        Self::zero_data(self, offset, len).map_err(host)
    }

    // SAFETY: asks nothing of its caller.
    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, len: u64) -> std::io::Result<()> {
        // SAFETY: asks nothing of its caller.
        unsafe { self.pure_write_zeroes(offset, len) }
    }

    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn settle_writes(&self) -> std::io::Result<()> {
        Ok(())
    }

    // SAFETY: there is nothing to lose.
    unsafe fn invalidate_cache(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("qcow2 file")
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the image")
    }
}
