//! The PC speaker: from the level of its line to samples.
//!
//! A sample is the mean of the level over the sample's time, computed and not sampled, so that tones keep their pitch, and
//! pulse-width modulation far beyond the rate of the samples comes out as what it stands for. What is rendered lies
//! a fiftieth of a second back: changes that come late are still in their place. A speaker gives no steady deflection, so what
//! rests is silence, whether high or low.

use std::collections::VecDeque;
use std::f32::consts::TAU;

use quintet_protocol::speaker::{PIT_HZ, SLOTS, SpeakerReader, Wave};
use quintet_protocol::time::{NANOS_PER_SEC, VmTime};

/// By how much the speaker is heard late, in nanoseconds: longer than cpu-worker takes to tell of a change.
const DELAY: u64 = NANOS_PER_SEC / 50;
/// How long after the last change a line that rests is still looked at, in nanoseconds of VM time.
const LINGER: u64 = NANOS_PER_SEC;
/// Parts of a pulse that times are computed in.
const PARTS: u64 = 256;
/// From low to high, of full scale 1: as loud as other sources usually are.
const STEP: f32 = 0.5;
/// Below this nothing is heard, in Hz: a paper cone of two inches gives less than that.
const LOWEST: f32 = 20.0;
/// Pulses that a one-shot lasts at the most: no honest change lies further ahead.
const AHEAD_MAX: u64 = 0x1_0001;
/// Waves that wait for their time; a guest that changes the line more often within [`DELAY`] loses the oldest.
const WAITING_MAX: usize = 8192;

/// The consumer of the line.
#[derive(Debug)]
pub struct Speaker {
    line: SpeakerReader,
    /// What the line does now, where the rendering stands.
    wave: Wave,
    /// What it does later, by when.
    later: VecDeque<Wave>,
    /// Pulse of the last change that is known of.
    changed: u64,
    /// The last mean level, and what is left of all before.
    mean: f32,
    left: f32,
}

impl Speaker {
    /// Listens to `line`.
    pub fn new(line: SpeakerReader) -> Self {
        Self {
            line,
            wave: Wave::default(),
            later: VecDeque::new(),
            changed: 0,
            mean: 0.0,
            left: 0.0,
        }
    }

    /// Whether there is something that has not been listened to.
    pub fn has_news(&self) -> bool {
        self.line.has_news()
    }

    /// Takes what cpu-worker has told until now; a writer that does not stop is listened to again later.
    pub fn listen(&mut self, now: VmTime) {
        let latest = now.ticks(PIT_HZ) + AHEAD_MAX;
        for _ in 0..SLOTS {
            let Some(wave) = self.line.take() else { break };
            // It revokes what was to come then and later.
            while self.later.back().is_some_and(|last| last.from >= wave.from) {
                self.later.pop_back();
            }
            if self.later.len() == WAITING_MAX {
                self.advance();
            }
            if wave.is_heard_after(&self.newest()) {
                self.changed = self.changed.max(wave.from.min(latest));
            }
            self.later.push_back(wave);
        }
    }

    fn newest(&self) -> Wave {
        self.later.back().copied().unwrap_or(self.wave)
    }

    fn advance(&mut self) {
        if let Some(wave) = self.later.pop_front() {
            self.wave = wave;
        }
    }

    /// Whether something is to be heard at `now`.
    pub fn sounds(&self, now: VmTime) -> bool {
        let last = VmTime::from_ticks(self.changed, PIT_HZ);
        self.newest().is_tone() || self.changed != 0 && now.since(last) < LINGER
    }

    /// Adds what is heard from VM time `at` on to interleaved samples of `rate` frames a second.
    pub fn mix(&mut self, at: VmTime, rate: u32, channels: usize, samples: &mut [f32]) {
        // By the frame's number and not by adding up, so that there is no drift within a call; calls start at the pacer's times.
        let start =
            u128::from(at.0.saturating_sub(DELAY)) * u128::from(PIT_HZ * PARTS) / u128::from(NANOS_PER_SEC);
        let time = |n: usize| start as u64 + n as u64 * PIT_HZ * PARTS / u64::from(rate);
        let keep = 1.0 - TAU * LOWEST / rate as f32;
        for (n, frame) in samples.chunks_exact_mut(channels).enumerate() {
            let (from, to) = (time(n), time(n + 1));
            let mean = self.high_parts(from, to) as f32 / (to - from) as f32;
            self.left = (self.left + (mean - self.mean) * STEP) * keep;
            self.mean = mean;
            for sample in frame {
                *sample = (*sample + self.left).clamp(-1.0, 1.0);
            }
        }
    }

    /// For how long the line is high in a span, all in parts of a pulse. What lies before it is past.
    fn high_parts(&mut self, from: u64, to: u64) -> u64 {
        let (mut high, mut at) = (0, from);
        while let Some(next) = self.later.front() {
            let begin = next.from.saturating_mul(PARTS);
            if begin >= to {
                break;
            }
            if begin > at {
                high += high_until(&self.wave, begin) - high_until(&self.wave, at);
                at = begin;
            }
            self.advance();
        }
        high + high_until(&self.wave, to) - high_until(&self.wave, at)
    }
}

/// For how long a wave has been high at `t` since it began, in parts of a pulse, but for a constant.
fn high_until(wave: &Wave, t: u64) -> u64 {
    let t = t.saturating_sub(wave.from.saturating_mul(PARTS));
    if wave.period == 0 {
        return if wave.high == 0 { 0 } else { t };
    }
    // Whatever the writer says, a line is high for no longer than the time that passes.
    let period = u64::from(wave.period) * PARTS;
    let high = u64::from(wave.high.min(wave.period)) * PARTS;
    let t = t.saturating_add(u64::from(wave.phase) * PARTS);
    t / period * high + (t % period).min(high)
}
