//! Input events on their way to io-worker.

use std::collections::VecDeque;

use quintet_protocol::input::{InputEvent, RECORD_MAX};
use quintet_protocol::ring::{Consumer, PopError, Producer, PushError};

/// Passes what the coordinator sends (typed text, chords) on to io-worker's input ring, and puts in what happens in
/// the window.
#[derive(Debug)]
pub struct InputPump {
    from: Consumer,
    to: Producer,
    /// An event that did not fit, and is first in line.
    held: Option<InputEvent>,
    /// Text to be typed as there is room.
    typed: VecDeque<InputEvent>,
    events: u32,
}

/// What [`InputPump::pump`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pumped {
    /// Events passed on.
    pub events: u32,
    /// More wait for room in the ring.
    pub blocked: bool,
}

impl InputPump {
    /// From the coordinator's ring to io-worker's. A successor starts with [`InputEvent::ReleaseAll`]: whatever its
    /// predecessor held down is up.
    pub fn new(from: Consumer, to: Producer, successor: bool) -> Self {
        Self {
            from,
            to,
            held: successor.then_some(InputEvent::ReleaseAll),
            typed: VecDeque::new(),
            events: 0,
        }
    }

    /// Whether something waits to be passed on.
    pub fn has_pending(&self) -> bool {
        self.held.is_some() || !self.typed.is_empty() || self.from.has_pending()
    }

    /// Puts in what happened in the window, at `ts_ms` milliseconds of VM time. Events that find no room are dropped, and so
    /// are all after them until everything is released: no key stays down because its release was lost.
    ///
    /// # Errors
    /// [`PumpError`] when io-worker's ring is broken.
    pub fn send(&mut self, event: InputEvent, ts_ms: u32) -> Result<(), PumpError> {
        if self.held.is_some() {
            self.held = Some(InputEvent::ReleaseAll);
            return Ok(());
        }
        if !self.typed.is_empty() {
            // A key between a Shift and its letter would change the text.
            self.typed.push_back(event);
            return Ok(());
        }
        match self.to.push(event.to_record(ts_ms).as_bytes()) {
            Ok(_) => self.events = self.events.wrapping_add(1),
            Err(PushError::Full { .. }) => self.held = Some(InputEvent::ReleaseAll),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Has events typed, before what the coordinator sends from now on, as there is room.
    pub fn type_events(&mut self, events: impl Iterator<Item = InputEvent>) {
        self.typed.extend(events);
    }

    /// Events that io-worker has not taken yet.
    pub fn depth(&mut self) -> u64 {
        let released = self.to.released().unwrap_or(0);
        self.to.number().saturating_sub(released)
    }

    /// Passes on what fits. Records that are no input events are dropped. Releases a record only after it is in
    /// io-worker's ring: a successor sends the last one again rather than lose it.
    ///
    /// # Errors
    /// [`PumpError`] when a peer's ring is broken.
    pub fn pump(&mut self) -> Result<Pumped, PumpError> {
        let mut events = 0;
        loop {
            let event = match self.held.take().or_else(|| self.typed.pop_front()) {
                Some(event) => event,
                None => {
                    let mut record = [0; RECORD_MAX];
                    match self.from.next(&mut record) {
                        Ok(None) => break,
                        Ok(Some(found)) => match InputEvent::from_record(&record[..found.len]) {
                            Ok((event, _)) => event,
                            Err(error) => {
                                tracing::warn!("{error}");
                                continue;
                            }
                        },
                        Err(error) if !error.is_corrupt() => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            match self.to.push(event.to_record(0).as_bytes()) {
                Ok(_) => {
                    events += 1;
                    self.from.release_all();
                }
                Err(PushError::Full { .. }) => {
                    self.held = Some(event);
                    return Ok(self.count(events, true));
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.from.release_all();
        Ok(self.count(events, false))
    }

    fn count(&mut self, events: u32, blocked: bool) -> Pumped {
        self.events = self.events.wrapping_add(events);
        Pumped { events, blocked }
    }

    /// Events passed on so far; wraps.
    pub fn events(&self) -> u32 {
        self.events
    }
}

/// A ring that is broken.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The coordinator's.
    #[error("The coordinator's ring is broken: {0}")]
    From(#[from] PopError),
    /// io-worker's.
    #[error("The input ring is broken: {0}")]
    To(#[from] PushError),
}
