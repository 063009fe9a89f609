//! A module's sound: its frames into the playback ring.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::audio::{Format, PREFILL, PlaybackProducer};
use quintet_protocol::layout::{Ends, SleeperId};
use quintet_protocol::ram::GuestRam;
use quintet_protocol::shm::{View, ViewMut};
use quintet_protocol::wasm::service::MAX_DATA;
use quintet_protocol::wasm::{Errno, Span};

/// Frames per second while nobody has said what the host's rate is.
const RATE: u32 = 48_000;
/// Bytes of a frame: two samples of f32.
const FRAME: u32 = 8;

/// The stream of the module that runs; made by its first frames.
#[derive(Debug)]
pub(super) struct Sound {
    ends: Ends,
    stream: Option<PlaybackProducer<ViewMut, View>>,
}

impl Sound {
    pub(super) fn new(ends: Ends) -> Self {
        Self { ends, stream: None }
    }

    /// Frames per second.
    pub(super) fn rate(&self) -> u32 {
        let known = |s: &PlaybackProducer<ViewMut, View>| s.format().rate;
        self.stream.as_ref().map_or(RATE, known)
    }

    /// Takes as many frames as fit; answers how many.
    pub(super) fn play(&mut self, ram: &GuestRam, data: Span) -> Result<Vec<u8>, Errno> {
        let starts = self.stream.is_none();
        let stream = self.stream.get_or_insert_with(|| {
            let mut stream = self.ends.playback_producer(Format::new(RATE, 2));
            stream.push(&[0.0; 2 * PREFILL as usize]);
            stream
        });
        let frames = (data.len.min(MAX_DATA) / FRAME).min(stream.free());
        let mut bytes = vec![0; (frames * FRAME) as usize];
        ram.read(GuestPhys(data.at.into()), &mut bytes)
            .map_err(|_| Errno::INVAL)?;
        let samples: Vec<f32> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        let taken = stream.push(&samples);
        if starts {
            stream.set_running(true);
            self.ends.doorbell(SleeperId::Audio).ring();
        }
        Ok(taken.to_le_bytes().to_vec())
    }

    /// Ends the stream; what is in the ring is lost.
    pub(super) fn end(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.set_running(false);
        }
    }
}
