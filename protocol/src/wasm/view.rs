//! Views of a linear memory that detach when it grows (S2.31–S2.36).
//!
//! "Detach" cannot unmap: each process has its own map. A view carries the generation it was made in, every access
//! compares it with the published one, and because memory grows in place inside guest RAM an access that races
//! with a growth touches valid memory. So there is no reference to the bytes anywhere, only copies and words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::words::{MemoryReader, MemoryState, MemoryWords};
use crate::addr::GuestPhys;
use crate::handshake::Role;
use crate::ram::{GUEST_BASE, GuestRam, MAP_START};
use crate::seqlock::SeqError;
use crate::shm::{View, Word};
use crate::status::{PeerState, StatusReader, StatusWord};
use crate::sync::Ordering;

/// Longest sleep without a look at the process that owns the memory, in nanoseconds: it may have died silently.
const SLICE: u64 = 100_000_000;

/// Why an access through a view did not take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The memory has grown, or is gone, since the view was made.
    #[error("The view of generation {had} is detached; the memory is in generation {now}")]
    Detached {
        /// Generation of the view.
        had: u32,
        /// Generation of the memory.
        now: u32,
    },
    /// The process that has the memory is dead or about to be replaced (S2.34).
    #[error("The view is detached: the process that had the memory is gone")]
    OwnerGone,
    /// Some byte lies beyond the end (S2.8).
    #[error("{len} bytes at {offset:#x} are not all inside a memory of {size:#x} bytes")]
    OutOfBounds {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Size of the view in bytes.
        size: u64,
    },
    /// This process may only read (S2.36).
    #[error("This process may only read the memory")]
    ReadOnly,
    /// There is no memory (S2.23).
    #[error("There is no linear memory ({0:?})")]
    NoMemory(MemoryState),
    /// The words cannot be read.
    #[error(transparent)]
    Stuck(#[from] SeqError),
}

/// How this process reaches guest RAM.
#[derive(Clone, Debug)]
enum Bytes {
    Writable(GuestRam),
    /// The map from [`MAP_START`] on, read-only.
    ReadOnly(View),
}

#[derive(Debug)]
struct Shared {
    words: MemoryReader,
    owner: Option<Owner>,
    bytes: Bytes,
}

/// The coordinator's words on the process that has the memory.
#[derive(Clone, Debug)]
struct Owner {
    process: Word,
    state: Word,
}

impl Owner {
    fn new(coordinator: &StatusReader) -> Self {
        Self {
            process: coordinator.word(StatusWord::generation(Role::Cpu)),
            state: coordinator.word(StatusWord::peer(Role::Cpu)),
        }
    }

    /// Whether `process` is the newest one and lives.
    #[inline]
    fn is(&self, process: u32) -> bool {
        self.process.load(Ordering::Acquire) == process
            && !matches!(
                PeerState::from_u32(self.state.load(Ordering::Acquire)),
                Some(PeerState::Restarting | PeerState::Failed | PeerState::Absent) | None
            )
    }
}

/// The linear memory of the running module, seen from any process. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct LiveMemory(Arc<Shared>);

impl LiveMemory {
    /// Over a writable map of guest RAM. `coordinator` tells whether the owner is alive; without it only the words
    /// are believed, which is enough inside the owner's process.
    pub fn new(words: MemoryReader, coordinator: Option<StatusReader>, ram: GuestRam) -> Self {
        Self(Arc::new(Shared {
            words,
            owner: coordinator.map(|words| Owner::new(&words)),
            bytes: Bytes::Writable(ram),
        }))
    }

    /// Over a read-only map of guest RAM from file offset [`MAP_START`] on.
    pub fn read_only(words: MemoryReader, coordinator: Option<StatusReader>, map: View) -> Self {
        Self(Arc::new(Shared {
            words,
            owner: coordinator.map(|words| Owner::new(&words)),
            bytes: Bytes::ReadOnly(map),
        }))
    }

    /// What is published.
    ///
    /// # Errors
    /// [`SeqError::Stuck`].
    pub fn words(&self) -> Result<MemoryWords, SeqError> {
        self.0.words.read()
    }

    /// A view of the memory as it is now. Equal to an earlier one as long as nothing has changed (S2.2, S2.22).
    ///
    /// # Errors
    /// [`ViewError::NoMemory`], [`ViewError::OwnerGone`], [`ViewError::Stuck`].
    pub fn view(&self) -> Result<MemoryView, ViewError> {
        let words = self.0.words.read()?;
        if words.state != MemoryState::Live {
            return Err(ViewError::NoMemory(words.state));
        }
        if self.0.owner.as_ref().is_some_and(|o| !o.is(words.owner)) {
            return Err(ViewError::OwnerGone);
        }
        Ok(MemoryView {
            current: self.0.words.generation().clone(),
            owner_now: self.0.owner.clone(),
            shared: Arc::clone(&self.0),
            id: words.id,
            generation: words.generation,
            owner: words.owner,
            len: words.bytes(),
        })
    }

    /// Sleeps until `view` is detached (S2.33); false when `timeout` passed first.
    pub fn wait_detached(&self, view: &MemoryView, timeout: Duration) -> bool {
        let start = Instant::now();
        loop {
            if view.check().is_err() {
                return true;
            }
            let left = timeout.saturating_sub(start.elapsed()).as_nanos() as u64;
            if left == 0 {
                return false;
            }
            self.0.words.sleep(view.generation, left.min(SLICE));
        }
    }
}

/// The memory as it was in one generation.
#[derive(Clone, Debug)]
pub struct MemoryView {
    /// What a check compares: its places are looked up once, and not behind another pointer.
    current: Word,
    owner_now: Option<Owner>,
    shared: Arc<Shared>,
    id: u32,
    generation: u32,
    owner: u32,
    len: u64,
}

impl PartialEq for MemoryView {
    /// The same memory in the same generation (S2.2).
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.generation) == (other.id, other.generation)
    }
}

impl Eq for MemoryView {}

impl MemoryView {
    /// Whether the view is still attached: one word, and two of the coordinator's outside the owner's process.
    ///
    /// # Errors
    /// [`ViewError::Detached`], [`ViewError::OwnerGone`].
    #[inline]
    pub fn check(&self) -> Result<(), ViewError> {
        let now = self.current.load(Ordering::Acquire);
        if now != self.generation {
            return Err(ViewError::Detached {
                had: self.generation,
                now,
            });
        }
        match &self.owner_now {
            Some(owner) if !owner.is(self.owner) => Err(ViewError::OwnerGone),
            _ => Ok(()),
        }
    }

    /// Size in bytes; 0 once detached (S2.3).
    pub fn len(&self) -> u64 {
        if self.check().is_ok() { self.len } else { 0 }
    }

    /// Whether there is nothing to see.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Generation that the view was made in.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    fn range(&self, offset: u64, len: usize) -> Result<(), ViewError> {
        self.check()?;
        let (len, size) = (len as u64, self.len);
        if offset <= size && len <= size - offset {
            Ok(())
        } else {
            Err(ViewError::OutOfBounds { offset, len, size })
        }
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`ViewError`]; `into` is unchanged then.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), ViewError> {
        self.range(offset, into.len())?;
        let out = ViewError::OutOfBounds {
            offset,
            len: into.len() as u64,
            size: self.len,
        };
        match &self.shared.bytes {
            Bytes::Writable(ram) => ram.read(GuestPhys(offset), into).map_err(|_| out),
            Bytes::ReadOnly(map) => {
                let at = GUEST_BASE - MAP_START + offset;
                if at + into.len() as u64 > map.len() as u64 {
                    return Err(out);
                }
                map.read_bytes(at as usize, into);
                Ok(())
            }
        }
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`ViewError`]; the memory is unchanged then.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), ViewError> {
        self.range(offset, from.len())?;
        match &self.shared.bytes {
            Bytes::Writable(ram) => ram
                .write(GuestPhys(offset), from)
                .map_err(|_| ViewError::OutOfBounds {
                    offset,
                    len: from.len() as u64,
                    size: self.len,
                }),
            Bytes::ReadOnly(_) => Err(ViewError::ReadOnly),
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "view_tests.rs"]
mod tests;
