//! The portable back end: named shared memory and process-shared events, for hosts without memfd and futex.
//!
//! The same [`Map`]s, and so the same views, rings and doorbells, over `shared_memory` and `raw_sync`. It is tested on
//! Linux and is not what Linux uses: a killed process leaves its named segment behind, a process killed inside
//! an event leaves the event's mutex locked for ever, every process that knows a name may write, and nobody is kept
//! from truncating. [`LIMITS`] says so to the user.
//!
//! Timed waits of `raw_sync` follow the host's calendar clock and were seen to fail at once. So each of its errors
//! counts as a wake-up without reason, the clock is kept by the caller, and a wait that failed early is
//! stretched by `EARLY`, lest a broken event become a busy loop.
#![allow(unsafe_code, reason = "events are placed into shared memory by raw pointer")]

use std::time::Duration;

use raw_sync::Timeout;
use raw_sync::events::{Event, EventInit as _, EventState};
use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::{Map, View, ViewMut};
use crate::sync::CACHE_LINE;
use crate::time::HostTime;

/// What this back end cannot do, to be shown at start-up.
pub const LIMITS: &str = "Portable back end: shared memory has names, stays behind after a crash until the next start, and is \
                          neither read-only nor sealed; a worker killed while it sleeps or wakes another may hang the machine";

/// Offset of the event in a doorbell's line: behind the word.
const EVENT_AT: usize = 8;
/// How long a wait that failed early is stretched, in nanoseconds.
const EARLY: u64 = 500_000;

/// Why a portable segment could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// The host refused.
    #[error("Cannot {what} shared memory of {len} bytes")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Length in bytes.
        len: u64,
        /// The host's answer.
        source: ShmemError,
    },
    /// The segment found under the name is shorter than it should be.
    #[error("Shared memory {id} has {found} bytes instead of {expected}")]
    Length {
        /// The segment's name.
        id: String,
        /// Its length in bytes.
        found: usize,
        /// The length expected, in bytes.
        expected: u64,
    },
    /// An event could not be placed.
    #[error("Cannot place an event: {0}")]
    Event(String),
}

/// A segment with a name. The name goes when the value that made it is dropped, not when its process is killed.
pub struct PortableSegment {
    memory: Shmem,
    len: u64,
}

// SAFETY: the value is a name, a length and an address that only its drop uses; what lies there is reached through
// maps of their own.
unsafe impl Send for PortableSegment {}
// SAFETY: as for `Send`.
unsafe impl Sync for PortableSegment {}

impl std::fmt::Debug for PortableSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortableSegment")
            .field("id", &self.id())
            .field("len", &self.len)
            .finish()
    }
}

impl PortableSegment {
    /// Makes a zeroed segment of `len` bytes under the name `id`, which starts with a slash and is taken by nobody.
    ///
    /// # Errors
    /// [`PortableError::Host`].
    pub fn create(id: &str, len: u64) -> Result<Self, PortableError> {
        let memory = ShmemConf::new().os_id(id).size(len as usize).create();
        let memory = memory.map_err(|source| PortableError::Host {
            what: "create",
            len,
            source,
        })?;
        Ok(Self { memory, len })
    }

    /// The name, to be told to other processes.
    pub fn id(&self) -> &str {
        self.memory.get_os_id()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the segment has no bytes; never true.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Maps `[start, start + len)` of the segment `id`. The host would let everybody write it; `writable` says whether
/// this process may, and nothing but the types keeps it from doing so.
///
/// # Errors
/// [`PortableError`].
pub fn open(id: &str, start: u64, len: u64, writable: bool) -> Result<Map, PortableError> {
    let memory = ShmemConf::new().os_id(id).open();
    let memory = memory.map_err(|source| PortableError::Host {
        what: "open",
        len,
        source,
    })?;
    if start
        .checked_add(len)
        .is_none_or(|end| (memory.len() as u64) < end)
    {
        return Err(PortableError::Length {
            id: id.to_owned(),
            found: memory.len(),
            expected: start.saturating_add(len),
        });
    }
    Ok(Map::portable(memory, start as usize, len as usize, writable))
}

/// Places the event of a doorbell into its line, behind the word; once, by the process that makes the segment.
///
/// # Errors
/// [`PortableError::Event`]. Panics when the line is shorter than [`CACHE_LINE`].
pub fn place_event(line: &ViewMut) -> Result<(), PortableError> {
    assert!(
        line.len() >= CACHE_LINE && Event::size_of(None) + EVENT_AT + 16 <= CACHE_LINE,
        "no room for an event"
    );
    let at = line.view().address(EVENT_AT, CACHE_LINE - EVENT_AT);
    // SAFETY: the event with its padding fits the rest of the line, which is mapped, writable and used for nothing
    // else. Nobody waits on it yet.
    unsafe { Event::new(at, true) }
        .map(drop)
        .map_err(|e| PortableError::Event(e.to_string()))
}

/// Waits at most `nanos` nanoseconds. Every return means: look again.
pub(crate) fn wait(line: &View, nanos: u64) {
    let start = HostTime::now();
    let at = line.address(EVENT_AT, CACHE_LINE - EVENT_AT);
    // SAFETY: `place_event` has put an event there; portable maps are writable. A peer that scribbles over it is
    // beyond what this back end promises.
    let woken = match unsafe { Event::from_existing(at) } {
        Ok((event, _)) => event.wait(Timeout::Val(Duration::from_nanos(nanos))).is_ok(),
        Err(_) => false,
    };
    let passed = HostTime::now().since(start);
    if !woken && passed < nanos {
        std::thread::sleep(Duration::from_nanos(EARLY.min(nanos - passed)));
    }
}

/// Wakes the sleeper.
pub(crate) fn wake(line: &View) {
    let at = line.address(EVENT_AT, CACHE_LINE - EVENT_AT);
    // SAFETY: as in `wait`.
    if let Ok((event, _)) = unsafe { Event::from_existing(at) } {
        let _ = event.set(EventState::Signaled);
    }
}
