//! All files of a machine, made at once.

use std::os::fd::{AsFd, OwnedFd};

use crate::handshake::files::{self, HeaderError};
use crate::handshake::{FileId, MapSet, Role};
use crate::ram::{GuestRam, RamLayout};
use crate::shm::{Map, MapError, Segment, SegmentError};

/// Why a machine's files could not be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A file could not be made.
    #[error(transparent)]
    Segment(#[from] SegmentError),
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

/// The files of one machine, in the process that makes them.
#[derive(Debug)]
pub struct SegmentSet {
    files: Vec<(FileId, Segment)>,
    ram: RamLayout,
    instance: u64,
}

impl SegmentSet {
    /// Makes every file, zeroed, with its header.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn create(ram: RamLayout, instance: u64) -> Result<Self, SetError> {
        let layout = files::layout_hash();
        let mut all = Vec::with_capacity(FileId::ALL.len());
        for file in FileId::ALL {
            let segment = Segment::create(&file.file_name(), files::file_len(file, ram))?;
            let head = Map::read_write(segment.writer(), file.map_start(), files::HEAD_LEN as u64)
                .map_err(|source| SetError::Map { file, source })?;
            let head = crate::shm::ViewMut::new(std::sync::Arc::new(head));
            files::write_header(&head, file, layout, instance);
            all.push((file, segment));
        }
        Ok(Self {
            files: all,
            ram,
            instance,
        })
    }

    /// Size of guest RAM.
    pub fn ram_layout(&self) -> RamLayout {
        self.ram
    }

    /// Identity of the machine.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// A file.
    pub fn segment(&self, file: FileId) -> &Segment {
        &self.files[file.number() as usize].1
    }

    /// The descriptor of a file that a process of `role` is to have: read-write where it writes, else opened
    /// read-only.
    ///
    /// # Errors
    /// [`SegmentError`] when descriptors have run out.
    pub fn descriptor(&self, file: FileId, role: Role) -> Result<OwnedFd, SetError> {
        let segment = self.segment(file);
        if file.writable_by(role) {
            let fd = segment
                .writer()
                .try_clone_to_owned()
                .map_err(|e| SegmentError::Prepare {
                    what: "duplicate",
                    name: segment.name().to_owned(),
                    source: rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::MFILE),
                })?;
            return Ok(fd);
        }
        Ok(segment.reader()?)
    }

    /// Maps every file as a process of `role` does, in this process: for the coordinator itself, for
    /// `--single-process`, and for tests. Headers are checked.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn maps(&self, role: Role) -> Result<MapSet, SetError> {
        let layout = files::layout_hash();
        let mut maps = MapSet::default();
        for (file, segment) in &self.files {
            let file = *file;
            let (start, fd) = (file.map_start(), self.descriptor(file, role)?);
            let len = segment.len() - start;
            let map = if file.writable_by(role) {
                Map::read_write(fd.as_fd(), start, len)
            } else {
                Map::read_only(fd.as_fd(), start, len)
            };
            maps.insert(file, map.map_err(|source| SetError::Map { file, source })?);
            files::check_header(&maps.head(file), file, layout, self.instance)?;
        }
        Ok(maps)
    }

    /// Maps guest RAM as cpu- and io-worker do.
    ///
    /// # Errors
    /// [`SetError::Map`].
    pub fn guest_ram(&self) -> Result<GuestRam, SetError> {
        let segment = self.segment(FileId::GuestRam);
        GuestRam::map(segment.writer(), self.ram).map_err(|source| SetError::Map {
            file: FileId::GuestRam,
            source,
        })
    }
}
