//! The timeline: what each worker tells about its work, for `--trace FILE`.
//!
//! Each worker has a ring of its own for events of one fixed size, and one thread that writes it, the one that does the
//! worker's work. The coordinator reads the rings and makes a file of them. Whether it does is a word beside the head of the
//! ring, stored before the worker is started: where it is not set, [`Tracer`] is empty, and an event is one branch on a
//! local word, without a clock read or a touch of shared memory.
//!
//! A span is one event, pushed when it ends: so spans nest and end whoever dies, and what a killed process had begun is
//! missing instead of open. Two events, begin and end, were rejected for that, and for being twice as dear. Text does not
//! travel: a kind is a number, and its name lies in [`Kind`].
//!
//! Nobody waits: what finds no room is counted, and the count goes ahead of the next event that finds some. The reader
//! believes nothing: an event of an unknown kind, of another worker's kind, from the future or from before the trace is
//! refused ([`Event::check`]).

mod kind;

use std::sync::{Arc, Mutex, PoisonError};

pub use kind::{Kind, Shape, Show};

use crate::handshake::Role;
use crate::layout::{Ends, Region};
use crate::ring::Producer;
use crate::sync::Ordering;
use crate::time::HostTime;

/// Bytes of an event.
pub const EVENT_SIZE: usize = 32;
/// Tracks beside the worker's own that a reader tells apart.
pub const TRACKS: u16 = 64;
/// Where the word that turns a worker's tracing on lies in the consumer's part of its ring.
const ON_AT: usize = 16;
/// In place of a kind's number: `value` events found no room before this one.
const DROPPED: u16 = u16::MAX;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it began, in nanoseconds of the host's monotonic clock.
    pub at: HostTime,
    /// How long it lasted, in nanoseconds; 0 for a moment.
    pub lasted: u64,
    /// What [`Kind::show`] says.
    pub value: u64,
    /// Which process of the worker's role, counted from 1.
    pub generation: u32,
    /// For [`Shape::Beside`] the number of what it belongs to, such as a disk; below [`TRACKS`].
    pub track: u16,
    /// What happened.
    pub what: What,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// One of the kinds.
    Kind(Kind),
    /// So many events as the value says found no room.
    Dropped,
}

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// Not of an event's size.
    #[error("A record of {0} bytes is no event")]
    Size(usize),
    /// No kind has this number.
    #[error("There is no event number {0}")]
    Kind(u16),
    /// Another worker's kind.
    #[error("{0:?} is not the writer's")]
    Role(Kind),
    /// It began before the trace, or ended in the future.
    #[error("It happened at no time of the trace")]
    Time,
    /// No such track.
    #[error("Track {0} is too high")]
    Track(u16),
}

impl Event {
    /// As it lies in a ring.
    pub fn to_record(&self) -> [u8; EVENT_SIZE] {
        let kind = match self.what {
            What::Kind(kind) => kind as u16,
            What::Dropped => DROPPED,
        };
        let mut record = [0; EVENT_SIZE];
        record[..8].copy_from_slice(&self.at.0.to_le_bytes());
        record[8..16].copy_from_slice(&self.lasted.to_le_bytes());
        record[16..24].copy_from_slice(&self.value.to_le_bytes());
        record[24..28].copy_from_slice(&self.generation.to_le_bytes());
        record[28..30].copy_from_slice(&self.track.to_le_bytes());
        record[30..].copy_from_slice(&kind.to_le_bytes());
        record
    }

    /// What a record says, if it can be true of a worker `role`, of a trace that began at `since` and is read at `now`.
    ///
    /// # Errors
    /// [`BadEvent`].
    pub fn check(record: &[u8], role: Role, since: HostTime, now: HostTime) -> Result<Self, BadEvent> {
        let record: &[u8; EVENT_SIZE] = record.try_into().map_err(|_| BadEvent::Size(record.len()))?;
        let half = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
        let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"));
        let number = half(30);
        let what = if number == DROPPED {
            What::Dropped
        } else {
            let kind = Kind::from_number(number).ok_or(BadEvent::Kind(number))?;
            if kind.role() != role {
                return Err(BadEvent::Role(kind));
            }
            What::Kind(kind)
        };
        let event = Self {
            at: HostTime(word(0)),
            lasted: word(8),
            value: word(16),
            generation: u32::from(half(24)) | u32::from(half(26)) << 16,
            track: half(28),
            what,
        };
        let end = event.at.0.checked_add(event.lasted);
        if event.at < since || end.is_none_or(|end| end > now.0) {
            return Err(BadEvent::Time);
        }
        if event.track >= TRACKS {
            return Err(BadEvent::Track(event.track));
        }
        Ok(event)
    }
}

/// Where a span began; nowhere while nothing is traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begun(u64);

/// A worker's end. Clones write the same ring and belong to the same thread.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Mutex<Pen>>>);

/// The mutex around it is never waited for: one thread writes. It is there because the handle moves to that thread.
#[derive(Debug)]
struct Pen {
    ring: Producer,
    generation: u32,
    dropped: u64,
}

impl Pen {
    fn push(&mut self, what: What, track: u16, at: u64, lasted: u64, value: u64) {
        let mut event = Event {
            at: HostTime(at),
            lasted,
            value,
            generation: self.generation,
            track,
            what,
        };
        if self.dropped > 0 {
            let told = Event {
                at: HostTime(at.saturating_add(lasted)),
                lasted: 0,
                value: self.dropped,
                what: What::Dropped,
                track: 0,
                ..event
            };
            if self.ring.push(&told.to_record()).is_err() {
                self.dropped += 1;
                return;
            }
            self.dropped = 0;
        }
        event.track = track.min(TRACKS - 1);
        if self.ring.push(&event.to_record()).is_err() {
            self.dropped += 1;
        }
    }
}

impl Tracer {
    /// The end of process `generation` of `role`: empty unless the coordinator wants a trace.
    pub fn attach(ends: &Ends, role: Role, generation: u32) -> Self {
        let wanted = ends
            .view(Region::trace_head(role))
            .load_u32(ON_AT, Ordering::Acquire);
        if wanted == 0 {
            return Self::default();
        }
        match ends.trace_producer(role) {
            Ok(ring) => Self(Some(Arc::new(Mutex::new(Pen {
                ring,
                generation,
                dropped: 0,
            })))),
            Err(error) => {
                tracing::warn!(%error, "nothing of this worker is traced");
                Self::default()
            }
        }
    }

    /// Whether anything is traced.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A span begins now.
    #[inline]
    pub fn begin(&self) -> Begun {
        Begun(if self.is_on() { HostTime::now().0 } else { 0 })
    }

    /// What began at `begun` has ended.
    #[inline]
    pub fn end(&self, kind: Kind, begun: Begun, value: u64) {
        self.end_on(kind, 0, begun, value);
    }

    /// As [`Self::end`], of the thing numbered `track`.
    #[inline]
    pub fn end_on(&self, kind: Kind, track: u16, begun: Begun, value: u64) {
        if let Some(pen) = &self.0 {
            let now = HostTime::now();
            Self::push(pen, kind, track, begun.0, now.since(HostTime(begun.0)), value);
        }
    }

    /// Something happens now.
    #[inline]
    pub fn instant(&self, kind: Kind, value: u64) {
        if let Some(pen) = &self.0 {
            Self::push(pen, kind, 0, HostTime::now().0, 0, value);
        }
    }

    #[cold]
    fn push(pen: &Mutex<Pen>, kind: Kind, track: u16, at: u64, lasted: u64, value: u64) {
        pen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(What::Kind(kind), track, at, lasted, value);
    }
}

/// Says that worker `role` is to trace, in the coordinator, before the worker is started.
pub fn turn_on(ends: &Ends, role: Role) {
    ends.view_mut(Region::trace_head(role))
        .store_u32(ON_AT, 1, Ordering::Release);
}

#[cfg(all(test, not(loom)))]
mod tests;
