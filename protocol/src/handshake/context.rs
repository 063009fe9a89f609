//! What a worker library is given.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::files::HEAD_LEN;
use super::{FileId, Role};
use crate::payload::Payload;
use crate::ram::GuestRam;
use crate::shm::{Map, View, ViewMut};

/// Why a worker ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The configuration cannot work, now or after a restart: the worker has failed for good.
    #[error("{0}")]
    Config(String),
    /// A peer broke the protocol in a way that this worker cannot live with.
    #[error("{peer} broke the protocol: {what}")]
    Peer {
        /// Who.
        peer: Role,
        /// What was wrong.
        what: String,
    },
    /// Anything else; a restart may help.
    #[error("{0}")]
    Failed(String),
}

/// The maps of the shared files, by file. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct MapSet {
    maps: BTreeMap<FileId, Arc<Map>>,
}

impl MapSet {
    /// Adds the map of a file; a second one for the same file replaces the first.
    pub fn insert(&mut self, id: FileId, map: Map) {
        self.maps.insert(id, Arc::new(map));
    }

    /// As [`Self::insert`] for a map that is shared already.
    pub fn insert_shared(&mut self, id: FileId, map: Arc<Map>) {
        self.maps.insert(id, map);
    }

    /// The map of a file.
    pub fn map(&self, id: FileId) -> Option<&Arc<Map>> {
        self.maps.get(&id)
    }

    /// A reader's view of a file's contents, behind its head. Panics when the file is not among the maps, which a
    /// hello that was checked rules out.
    pub fn view(&self, id: FileId) -> View {
        let whole = self.whole(id);
        whole.slice(HEAD_LEN, whole.len() - HEAD_LEN)
    }

    /// The writer's view of a file's contents; `None` when this process holds it read-only or not at all.
    pub fn view_mut(&self, id: FileId) -> Option<ViewMut> {
        let whole = self.whole_mut(id)?;
        Some(whole.slice(HEAD_LEN, whole.len() - HEAD_LEN))
    }

    /// A reader's view of a file's head: header and probe window. Panics as [`Self::view`].
    pub fn head(&self, id: FileId) -> View {
        self.whole(id).slice(0, HEAD_LEN)
    }

    /// The writer's view of a file's head; `None` as for [`Self::view_mut`].
    pub fn head_mut(&self, id: FileId) -> Option<ViewMut> {
        Some(self.whole_mut(id)?.slice(0, HEAD_LEN))
    }

    fn whole(&self, id: FileId) -> View {
        View::new(Arc::clone(
            self.maps
                .get(&id)
                .unwrap_or_else(|| panic!("{id:?} is not mapped")),
        ))
    }

    fn whole_mut(&self, id: FileId) -> Option<ViewMut> {
        let map = self.maps.get(&id)?;
        map.is_writable().then(|| ViewMut::new(Arc::clone(map)))
    }

    /// The files that are mapped.
    pub fn ids(&self) -> impl Iterator<Item = FileId> + '_ {
        self.maps.keys().copied()
    }
}

/// The read end of the pipe by which a worker notices that its coordinator is gone, when the kernel's
/// parent-death signal did not reach it.
#[derive(Debug)]
pub struct ParentWatch {
    pipe: Option<OwnedFd>,
}

impl ParentWatch {
    /// Watches `pipe`; `None` for a worker that is a thread of the coordinator.
    pub fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe }
    }

    /// Starts a thread that calls `gone` once every write end of the pipe is closed. The thread sleeps in
    /// `poll` until then and costs nothing. Does nothing within the coordinator's own process.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn spawn(self, gone: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let Some(pipe) = self.pipe else { return Ok(()) };
        std::thread::Builder::new()
            .name("parent-watch".into())
            .stack_size(64 << 10)
            .spawn(move || {
                use rustix::event::{PollFd, PollFlags, poll};
                loop {
                    let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
                    match poll(&mut fds, None) {
                        Ok(_)
                            if fds[0]
                                .revents()
                                .intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) =>
                        {
                            break;
                        }
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(_) => break,
                    }
                }
                gone();
            })?;
        Ok(())
    }
}

/// A worker's machine: what `run` of each worker library is given.
#[derive(Debug)]
pub struct WorkerContext {
    /// What this worker is.
    pub role: Role,
    /// Counts the processes that have had this role in this machine, from 1. More than 1 means: take over.
    pub generation: u32,
    /// Identity of the machine.
    pub instance: u64,
    /// Guest RAM.
    pub ram: GuestRam,
    /// All shared files, guest RAM included.
    pub maps: MapSet,
    /// Postcard bytes of the role's type in [`super::config`].
    pub config: Vec<u8>,
    /// Kernels, initrds, firmware, in the order given on the command line.
    pub payloads: Vec<Payload>,
    /// Host files and devices that the coordinator opened for this worker.
    pub host_fds: Vec<OwnedFd>,
}

impl WorkerContext {
    /// The configuration as its type.
    ///
    /// # Errors
    /// [`WorkerError::Config`] when the bytes do not parse.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, WorkerError> {
        postcard::from_bytes(&self.config).map_err(|e| {
            WorkerError::Config(format!("Configuration of the {} does not parse: {e}", self.role))
        })
    }
}
