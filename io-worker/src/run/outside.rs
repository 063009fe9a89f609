//! Byte streams and input rings as devices see them.
//!
//! Everything taken or put counts from the next commit on: [`Outside::positions`] goes into the commit,
//! [`Outside::publish`] follows it. A peer that breaks a stream loses that stream and nothing else; one that breaks its ring of
//! input loses what was in it, and is named to the coordinator.

use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::handshake::Role;
use quintet_protocol::input::{InputEvent, RECORD_MAX};
use quintet_protocol::layout::STREAMS;
use quintet_protocol::ring::{Consumer, Position};
use quintet_protocol::stream::{StreamReader, StreamWriter};

use crate::bus::{StreamIn, StreamOut, Streams};
use crate::module::Inputs;

/// Writers of the input rings, in their order.
const WRITERS: [Role; RINGS] = [Role::Gpu, Role::Coordinator];
/// Number of input rings.
pub const RINGS: usize = 2;

/// Where every stream and ring stands: part of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Positions {
    /// Bytes put out, per stream.
    pub out: [u64; STREAMS],
    /// Bytes taken in, per stream.
    pub input: [u64; STREAMS],
    /// Input records taken, per ring.
    pub keys: [Position; RINGS],
}

/// Counts of input events, for the status words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputCounts {
    /// Given to the keyboard.
    pub keys: u32,
    /// Given to the pointer.
    pub pointer: u32,
    /// Dropped: nobody knows them.
    pub dropped: u32,
}

/// The ends of all streams and rings.
#[derive(Debug)]
pub struct Outside {
    out: Vec<Option<StreamWriter>>,
    input: Vec<Option<StreamReader>>,
    keys: Vec<Consumer>,
    /// Writers whose rings were found broken since the last question, one entry each time.
    broken: Vec<Role>,
    coordinator: Doorbell,
    published: Positions,
    counts: InputCounts,
    /// What users do is for a module that asks for it, and not for devices.
    kept: bool,
}

impl Outside {
    /// The outside with these ends, all of which go on where `at` says.
    pub fn new(
        out: Vec<StreamWriter>,
        input: Vec<StreamReader>,
        keys: Vec<Consumer>,
        coordinator: Doorbell,
        at: Positions,
    ) -> Self {
        Self {
            out: out.into_iter().map(Some).collect(),
            input: input.into_iter().map(Some).collect(),
            keys,
            broken: Vec::new(),
            coordinator,
            published: at,
            counts: InputCounts::default(),
            kept: false,
        }
    }

    /// Keeps what users do from devices.
    pub fn keep_input(&mut self) {
        self.kept = true;
    }

    /// Where everything stands now. What is lost stands where it was.
    pub fn positions(&self) -> Positions {
        let mut at = self.published;
        for (to, end) in at.out.iter_mut().zip(&self.out) {
            *to = end.as_ref().map_or(*to, StreamWriter::position);
        }
        for (to, end) in at.input.iter_mut().zip(&self.input) {
            *to = end.as_ref().map_or(*to, StreamReader::position);
        }
        for (to, end) in at.keys.iter_mut().zip(&self.keys) {
            *to = end.position();
        }
        at
    }

    /// Whether anything was taken or put since the last publication.
    pub fn moved(&self) -> bool {
        self.positions() != self.published
    }

    /// Shows what has been committed, which is everything up to now.
    pub fn publish(&mut self) {
        let at = self.positions();
        if at == self.published {
            return;
        }
        for (end, upto) in self.out.iter_mut().zip(at.out) {
            if let Some(end) = end {
                end.publish(upto);
            }
        }
        for (end, upto) in self.input.iter_mut().zip(at.input) {
            if let Some(end) = end {
                end.release(upto);
            }
        }
        self.keys.iter_mut().for_each(Consumer::release_all);
        self.published = at;
        self.coordinator.ring();
    }

    /// Whose rings were found broken since the last call, once for each time.
    pub fn take_broken(&mut self) -> Vec<Role> {
        std::mem::take(&mut self.broken)
    }

    /// Counts since the start of this process.
    pub fn counts(&self) -> InputCounts {
        self.counts
    }
}

impl Streams for Outside {
    fn put(&mut self, stream: StreamOut, byte: u8) -> bool {
        let Some(slot) = self.out.get_mut(usize::from(stream.0)) else {
            return true;
        };
        let Some(end) = slot else { return true };
        match end.write(&[byte]) {
            Ok(n) => n == 1,
            Err(error) => {
                tracing::error!(stream = stream.0, %error, "outgoing stream given up");
                *slot = None;
                true
            }
        }
    }

    fn take(&mut self, stream: StreamIn) -> Option<u8> {
        let slot = self.input.get_mut(usize::from(stream.0))?;
        let mut byte = [0];
        match slot.as_mut()?.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            Ok(_) => None,
            Err(error) => {
                tracing::error!(stream = stream.0, %error, "incoming stream given up");
                *slot = None;
                None
            }
        }
    }

    fn take_input(&mut self) -> Option<InputEvent> {
        if self.kept { None } else { self.take_event() }
    }
}

impl Inputs for Outside {
    fn take_event(&mut self) -> Option<InputEvent> {
        let mut bytes = [0; RECORD_MAX];
        for (ring, writer) in self.keys.iter_mut().zip(WRITERS) {
            loop {
                let event = match ring.next(&mut bytes) {
                    Ok(None) => break,
                    Ok(Some(record)) => InputEvent::from_record(&bytes[..record.len]),
                    Err(error) if error.is_corrupt() => {
                        tracing::debug!(%writer, %error, "what was in an input ring is lost");
                        ring.skip_to_tail();
                        self.broken.push(writer);
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "input record dropped");
                        continue;
                    }
                };
                match event {
                    Ok((event, _)) => {
                        let count = match event {
                            InputEvent::Key { .. } | InputEvent::ReleaseAll => &mut self.counts.keys,
                            _ => &mut self.counts.pointer,
                        };
                        *count = count.wrapping_add(1);
                        return Some(event);
                    }
                    Err(error) => {
                        self.counts.dropped = self.counts.dropped.wrapping_add(1);
                        tracing::warn!(%error, "input record dropped");
                    }
                }
            }
        }
        None
    }
}
