//! All files of a machine, made at once, on either back end.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use super::{Region, SleeperId};
use crate::handshake::files::{self, HEAD_LEN, HeaderError};
use crate::handshake::{FileGrant, FileId, FileSource, MapSet, Role};
use crate::ram::{GuestRam, RamLayout};
use crate::shm::portable::{self, PortableError, PortableSegment};
use crate::shm::{Map, MapError, Segment, SegmentError, ViewMut};

/// Why a machine's files could not be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A file could not be made.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A file of the portable back end could not be made or mapped.
    #[error("Cannot use the file {file:?}")]
    Portable {
        /// The file.
        file: FileId,
        /// Why not.
        source: PortableError,
    },
    /// A file could not be mapped.
    #[error("Cannot map the file {file:?}")]
    Map {
        /// The file.
        file: FileId,
        /// Why not.
        source: MapError,
    },
    /// A file is not what it should be.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// A file on its back end.
#[derive(Debug)]
enum Store {
    /// Sealed memory without a name.
    Memfd(Segment),
    /// Memory with a name.
    Portable(PortableSegment),
}

/// The files of one machine, in the process that makes them. Names of the portable back end go with this value.
#[derive(Debug)]
pub struct SegmentSet {
    files: Vec<(FileId, Store)>,
    ram: RamLayout,
    instance: u64,
    /// What names of the portable back end begin with.
    prefix: Option<String>,
}

impl SegmentSet {
    /// Makes every file, zeroed, with its header.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn create(ram: RamLayout, instance: u64) -> Result<Self, SetError> {
        Self::make(ram, instance, None)
    }

    /// As [`Self::create`] on the portable back end. Every name is `prefix`, which starts with a slash, and the file's
    /// own ([`FileId::file_name`]).
    ///
    /// # Errors
    /// [`SetError`].
    pub fn create_portable(ram: RamLayout, instance: u64, prefix: &str) -> Result<Self, SetError> {
        let set = Self::make(ram, instance, Some(prefix.to_owned()))?;
        for role in Role::ALL {
            set.place_events(role)?;
        }
        Ok(set)
    }

    fn make(ram: RamLayout, instance: u64, prefix: Option<String>) -> Result<Self, SetError> {
        let mut set = Self {
            files: Vec::with_capacity(FileId::ALL.len()),
            ram,
            instance,
            prefix,
        };
        FileId::ALL.into_iter().try_for_each(|file| set.add(file))?;
        Ok(set)
    }

    /// Makes the further memories of modules too, each as large as guest RAM below 4 GiB.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn with_memories(mut self) -> Result<Self, SetError> {
        FileId::MEMORIES.into_iter().try_for_each(|file| self.add(file))?;
        Ok(self)
    }

    fn add(&mut self, file: FileId) -> Result<(), SetError> {
        let len = files::file_len(file, self.ram);
        let store = match &self.prefix {
            None => Store::Memfd(Segment::create(&file.file_name(), len)?),
            Some(prefix) => {
                let segment = PortableSegment::create(&format!("{prefix}{}", file.file_name()), len);
                Store::Portable(segment.map_err(|source| SetError::Portable { file, source })?)
            }
        };
        self.files.push((file, store));
        files::write_header(&self.head(file)?, file, files::layout_hash(), self.instance);
        Ok(())
    }

    /// The files there are.
    pub fn files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.files.iter().map(|(file, _)| *file)
    }

    /// Places the events of a role's doorbells anew: what a killed process left of one may hang whoever uses it. Does
    /// nothing where doorbells are futexes. To be called while no process of the role lives.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn place_events(&self, role: Role) -> Result<(), SetError> {
        let file = FileId::Doorbells;
        if !self.is_portable() {
            return Ok(());
        }
        let whole = ViewMut::new(Arc::new(self.map(file, 0, self.len(file), true)?));
        for who in SleeperId::all().filter(|who| who.owner() == role) {
            let region = Region::doorbell(who);
            portable::place_event(&whole.slice(HEAD_LEN + region.offset, region.len))
                .map_err(|source| SetError::Portable { file, source })?;
        }
        Ok(())
    }

    /// Whether the files belong to the portable back end.
    pub fn is_portable(&self) -> bool {
        self.prefix.is_some()
    }

    /// Size of guest RAM.
    pub fn ram_layout(&self) -> RamLayout {
        self.ram
    }

    /// Identity of the machine.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    fn store(&self, file: FileId) -> &Store {
        &self.files[file.number() as usize].1
    }

    /// Length of a file, in bytes.
    pub fn len(&self, file: FileId) -> u64 {
        match self.store(file) {
            Store::Memfd(segment) => segment.len(),
            Store::Portable(segment) => segment.len(),
        }
    }

    /// What a process of `role` is told about a file, with the descriptor that it has to inherit under the number
    /// told: read-write where it writes, else opened read-only. The portable back end has names instead.
    ///
    /// # Errors
    /// [`SetError::Segment`] when descriptors have run out.
    pub fn grant(&self, file: FileId, role: Role) -> Result<(FileGrant, Option<OwnedFd>), SetError> {
        let (source, fd) = match self.store(file) {
            Store::Memfd(segment) => {
                let fd = descriptor(segment, file.writable_by(role))?;
                (FileSource::Descriptor(fd.as_raw_fd()), Some(fd))
            }
            Store::Portable(segment) => (FileSource::Name(segment.id().to_owned()), None),
        };
        let grant = FileGrant {
            id: file,
            source,
            len: self.len(file),
        };
        Ok((grant, fd))
    }

    pub(crate) fn map(&self, file: FileId, start: u64, len: u64, writable: bool) -> Result<Map, SetError> {
        match self.store(file) {
            Store::Memfd(segment) => {
                let fd = descriptor(segment, writable)?;
                let map = if writable {
                    Map::read_write(fd.as_fd(), start, len)
                } else {
                    Map::read_only(fd.as_fd(), start, len)
                };
                map.map_err(|source| SetError::Map { file, source })
            }
            Store::Portable(segment) => portable::open(segment.id(), start, len, writable)
                .map_err(|source| SetError::Portable { file, source }),
        }
    }

    /// A descriptor to read a file with, opened read-only; `None` from the portable back end.
    ///
    /// # Errors
    /// [`SetError::Segment`] when descriptors have run out.
    pub fn reader(&self, file: FileId) -> Result<Option<OwnedFd>, SetError> {
        match self.store(file) {
            Store::Memfd(segment) => Ok(Some(descriptor(segment, false)?)),
            Store::Portable(_) => Ok(None),
        }
    }

    /// The coordinator's writable map of a file's head, for the header and for probes.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn head(&self, file: FileId) -> Result<ViewMut, SetError> {
        let map = self.map(file, file.map_start(), HEAD_LEN as u64, true)?;
        Ok(ViewMut::new(Arc::new(map)))
    }

    /// Maps every file as a process of `role` does, in this process: for `--single-process` and for tests. Headers are
    /// checked.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn maps(&self, role: Role) -> Result<MapSet, SetError> {
        self.some_maps(role, |_| true)
    }

    /// As [`Self::maps`] for the coordinator of worker processes: everything but what is the guest's, which it never
    /// touches.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn maps_of_coordinator(&self) -> Result<MapSet, SetError> {
        let guests = |file| matches!(file, FileId::GuestRam | FileId::Memory(_));
        self.some_maps(Role::Coordinator, |file| !guests(file))
    }

    fn some_maps(&self, role: Role, wanted: impl Fn(FileId) -> bool) -> Result<MapSet, SetError> {
        let mut maps = MapSet::default();
        for file in self.files().filter(|&file| wanted(file)) {
            let start = file.map_start();
            maps.insert(
                file,
                self.map(file, start, self.len(file) - start, file.writable_by(role))?,
            );
            files::check_header(&maps.head(file), file, files::layout_hash(), self.instance)?;
        }
        Ok(maps)
    }

    /// Maps guest RAM as cpu- and io-worker do.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn guest_ram(&self) -> Result<GuestRam, SetError> {
        let file = FileId::GuestRam;
        let start = file.map_start();
        let map = self.map(file, start, self.len(file) - start, true)?;
        Ok(GuestRam::of_map(Arc::new(map), self.ram))
    }
}

fn descriptor(segment: &Segment, writable: bool) -> Result<OwnedFd, SegmentError> {
    if !writable {
        return segment.reader();
    }
    segment
        .writer()
        .try_clone_to_owned()
        .map_err(|e| SegmentError::Prepare {
            what: "duplicate",
            name: segment.name().to_owned(),
            source: rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::MFILE),
        })
}
