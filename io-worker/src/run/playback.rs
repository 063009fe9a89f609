//! The producer's end of the playback ring, for sound devices.

use quintet_protocol::audio::{Format, PREFILL, PlaybackProducer, RATE_DEFAULT, RING_FRAMES_MAX};
use quintet_protocol::layout::{Ends, SleeperId};
use quintet_protocol::shm::{View, ViewMut};

use crate::sound::Playback;

/// Channels that devices play.
const STEREO: u32 = 2;

/// A card's stream: a second or more fits, so that workers on a busy host may be late without losing a frame. The latency is
/// not the ring's to bound: consumers pass over what they never need.
fn format(rate: u32) -> Format {
    Format {
        capacity: RING_FRAMES_MAX,
        ..Format::new(rate, STEREO)
    }
}

/// Puts what has been committed into the ring.
#[derive(Debug)]
pub(super) struct PlaybackOut {
    ends: Ends,
    ring: Option<PlaybackProducer<ViewMut, View>>,
    running: bool,
    overruns: u32,
    /// What a predecessor left has been looked after.
    settled: bool,
}

impl PlaybackOut {
    pub(super) fn new(ends: Ends) -> Self {
        Self {
            ends,
            ring: None,
            running: false,
            overruns: 0,
            settled: false,
        }
    }

    /// Frames that found the ring full, in this process's life and those before it; wraps.
    pub(super) fn overruns(&self) -> u32 {
        self.overruns
    }

    /// Publishes what is staged.
    pub(super) fn publish(&mut self, playback: &mut Playback) {
        let staged = playback.take();
        if !std::mem::replace(&mut self.settled, true) && staged.rate.is_none() {
            // A stream that a predecessor left running has ended with it.
            let left = self.ends.playback_producer(format(RATE_DEFAULT));
            self.overruns = left.overruns();
        }
        let wanted = staged.rate.map(format);
        if let Some(format) = wanted
            && self.ring.as_ref().is_none_or(|ring| ring.format() != format)
        {
            // By attaching, because what a module played may lie behind.
            self.ring = Some(self.ends.playback_producer(format));
            self.running = false;
        }
        let Some(ring) = &mut self.ring else { return };
        if staged.begins {
            let lack = PREFILL.saturating_sub(ring.level());
            ring.push(&vec![0.0; (lack * STEREO) as usize]);
        }
        if !staged.frames.is_empty() {
            ring.push(&staged.frames);
        }
        self.overruns = ring.overruns();
        if self.running != staged.rate.is_some() {
            self.running = staged.rate.is_some();
            ring.set_running(self.running);
            if self.running {
                self.ends.doorbell(SleeperId::Audio).ring();
            }
        }
    }
}
