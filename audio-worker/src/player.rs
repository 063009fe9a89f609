//! Frames out of the ring, at the pace of VM time.
//!
//! How many frames are due is computed from the stream's start each time, never summed up from periods, so there is no
//! drift, however late or early the wake-ups are. While VM time stands still, nothing is due.

use quintet_protocol::audio::{Format, PREFILL, PlaybackConsumer};
use quintet_protocol::shm::{View, ViewMut};
use quintet_protocol::time::VmTime;

use crate::sink::Sink;

/// Frames that are taken at a time: a power of two, some 10 ms at usual rates.
pub const PERIOD: usize = 512;
/// Longest gap that is made up for, in seconds. After a longer one (a debugger held the process) the stream starts
/// anew.
const GAP: u64 = 2;

/// Frames due since a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacer {
    rate: u32,
    start: VmTime,
    taken: u64,
}

impl Pacer {
    /// A stream of `rate` frames per second that starts now.
    pub fn new(rate: u32, now: VmTime) -> Self {
        Self {
            rate,
            start: now,
            taken: 0,
        }
    }

    /// Frames that should have been taken by `now` and have not.
    pub fn due(&self, now: VmTime) -> u64 {
        VmTime(now.since(self.start))
            .ticks(u64::from(self.rate))
            .saturating_sub(self.taken)
    }

    /// Counts frames as taken.
    pub fn take(&mut self, frames: u64) {
        self.taken += frames;
    }

    /// When `frames` more will be due.
    pub fn due_at(&self, frames: u64) -> VmTime {
        self.start + VmTime::from_ticks(self.taken + frames, u64::from(self.rate)).0
    }

    /// Frames taken since the start.
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

/// What a [`Player::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Frames from the ring that went to the sink.
    pub played: u64,
    /// Frames of silence in their place, counted as missing.
    pub missing: u64,
    /// When to come again; `None` when there is no stream, until the producer rings.
    pub next: Option<VmTime>,
}

/// The consumer of the playback ring with a sink behind it.
#[derive(Debug)]
pub struct Player {
    ring: PlaybackConsumer<ViewMut, View>,
    sink: Box<dyn Sink>,
    stream: Option<(Format, Pacer)>,
    period: [f32; PERIOD * 2],
    /// An error of the ring that has been told.
    told: bool,
}

impl Player {
    /// Plays what is in `ring` to `sink`.
    pub fn new(ring: PlaybackConsumer<ViewMut, View>, sink: Box<dyn Sink>) -> Self {
        Self {
            ring,
            sink,
            stream: None,
            period: [0.0; PERIOD * 2],
            told: false,
        }
    }

    /// Whether there is something to play, for a sleeper's condition.
    pub fn is_awake(&self) -> bool {
        self.ring.is_running() || self.stream.is_some()
    }

    /// Frames in the ring.
    pub fn level(&self) -> u32 {
        self.ring.level()
    }

    /// Output frames missing so far; wraps.
    pub fn underruns(&self) -> u32 {
        self.ring.underruns()
    }

    /// Takes what is due. A stream that the producer has stopped is played to its end, and then forgotten.
    pub fn step(&mut self, now: VmTime) -> Step {
        let running = self.ring.is_running();
        let Some((format, mut pacer)) = self.stream_at(now, running) else {
            return Step::default();
        };
        let mut step = Step::default();
        loop {
            let due = usize::try_from(pacer.due(now)).unwrap_or(usize::MAX).min(PERIOD);
            // The rest of a stopped stream: what is not there is not missing.
            let frames = if running {
                due
            } else {
                due.min(self.ring.level() as usize)
            };
            if frames == 0 || running && due < PERIOD {
                break;
            }
            let samples = &mut self.period[..frames * format.channels as usize];
            let filled = self.ring.fill(samples);
            self.sink.play(samples, filled.frames as usize);
            pacer.take(frames as u64);
            step.played += u64::from(filled.frames);
            step.missing += u64::from(filled.missing);
        }
        if !running && self.ring.level() == 0 {
            self.stream = None;
            self.sink.stop();
        } else {
            step.next = Some(pacer.due_at(PERIOD as u64));
            self.stream = Some((format, pacer));
        }
        step
    }

    /// The stream that is to be played, started if need be.
    fn stream_at(&mut self, now: VmTime, running: bool) -> Option<(Format, Pacer)> {
        let format = match self.ring.refresh() {
            Ok(format) => {
                self.told = false;
                format
            }
            Err(error) => {
                if !core::mem::replace(&mut self.told, true) {
                    tracing::error!("{error}; no sound until the ring is made again");
                }
                None
            }
        };
        let Some(format) = format.filter(|_| running || self.stream.is_some()) else {
            if self.stream.take().is_some() {
                self.sink.stop();
            }
            return None;
        };
        match self.stream {
            Some((old, pacer)) if old == format && pacer.due(now) <= GAP * u64::from(format.rate) => {}
            old => {
                if old.is_some_and(|(old, _)| old == format) {
                    tracing::warn!("Held up for more than {GAP} s: the sound goes on from now");
                    self.ring.skip_to_write();
                } else {
                    self.sink.start(format);
                }
                let lead = self.sink.lead(format);
                if self.ring.is_inherited() {
                    // What came in while nobody took anything would leave no room for a late consumer.
                    self.ring.skip_to_level(lead.max(PREFILL));
                }
                let lack = lead.saturating_sub(self.ring.level());
                let wait = VmTime::from_ticks(lack.into(), format.rate.into());
                self.stream = Some((format, Pacer::new(format.rate, now + wait.0)));
            }
        }
        self.stream
    }

    /// Ends the sink in good order.
    pub fn finish(&mut self) {
        self.sink.stop();
    }
}
