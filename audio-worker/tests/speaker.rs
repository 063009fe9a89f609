//! The PC speaker, from waves on its line to what a sink gets, with VM time set by hand.

mod support;

use std::f64::consts::TAU;
use std::sync::{Arc, Mutex};

use quintet_audio_worker::player::Player;
use quintet_audio_worker::sink::Sink;
use quintet_protocol::audio::{Format, HEAD_BYTES, PlaybackConsumer, PlaybackProducer, RING_BYTES};
use quintet_protocol::shm::{Map, View, ViewMut};
use quintet_protocol::speaker::{PIT_HZ, SpeakerWriter, Wave};
use quintet_protocol::time::VmTime;

const SECOND: u64 = 1_000_000_000;
const RATE: u32 = 48_000;
/// By how much the speaker is heard late, in frames.
const DELAY: usize = RATE as usize / 50;

/// Keeps the left samples, and in which formats they came.
#[derive(Clone, Debug, Default)]
struct Tape(Arc<Mutex<(Vec<f32>, Vec<u32>)>>);

impl Sink for Tape {
    fn start(&mut self, format: Format) {
        self.0.lock().expect("a tape").1.push(format.rate);
    }

    fn play(&mut self, samples: &[f32], _: usize) {
        let left = samples.chunks_exact(2).map(|frame| {
            assert_eq!(frame[0], frame[1]);
            frame[0]
        });
        self.0.lock().expect("a tape").0.extend(left);
    }

    fn stop(&mut self) {
        self.0.lock().expect("a tape").1.push(0);
    }
}

struct Rig {
    ring: PlaybackProducer<ViewMut, View>,
    line: SpeakerWriter,
    player: Player,
    tape: Tape,
    now: VmTime,
}

impl Rig {
    fn new() -> Self {
        let part = |len: usize| ViewMut::new(Arc::new(Map::anonymous(len as u64).expect("anonymous map")));
        let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
        let ring = PlaybackProducer::attach(ours.clone(), theirs.view().clone(), Format::new(44_100, 2));
        let consumer = PlaybackConsumer::attach(theirs, ours.view().clone(), RATE);
        let (line, speaker) = support::line();
        let tape = Tape::default();
        Self {
            ring,
            line,
            player: Player::new(consumer, speaker, Box::new(tape.clone()), RATE),
            tape,
            now: VmTime(SECOND),
        }
    }

    fn pulse(&self) -> u64 {
        self.now.ticks(PIT_HZ)
    }

    /// Lets time pass as the worker's loop does. What lies in `during` happens every `every` nanoseconds.
    fn pass(&mut self, nanos: u64, every: u64, mut during: impl FnMut(u64, &mut SpeakerWriter)) {
        let end = self.now + nanos;
        while self.now < end {
            self.now = self.now + every.min(end.since(self.now));
            during(self.now.ticks(PIT_HZ), &mut self.line);
            self.player.step(self.now);
        }
    }

    fn taken(&self) -> Vec<f32> {
        std::mem::take(&mut self.tape.0.lock().expect("a tape").0)
    }

    fn formats(&self) -> Vec<u32> {
        self.tape.0.lock().expect("a tape").1.clone()
    }
}

/// A square wave of `hz`.
fn tone(from: u64, hz: u64) -> Wave {
    let period = (PIT_HZ / hz) as u32;
    Wave {
        from,
        phase: 0,
        high: period.div_ceil(2),
        period,
    }
}

fn rises(samples: &[f32]) -> usize {
    samples.windows(2).filter(|w| w[0] < 0.0 && w[1] >= 0.0).count()
}

/// Amplitude of a frequency in some samples.
fn amplitude(samples: &[f32], rate: u32, hz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, s) in samples.iter().enumerate() {
        let angle = TAU * hz * n as f64 / f64::from(rate);
        re += f64::from(*s) * angle.cos();
        im += f64::from(*s) * angle.sin();
    }
    2.0 * (re * re + im * im).sqrt() / samples.len() as f64
}

#[test]
fn a_tone_has_its_pitch_and_ends() {
    let mut rig = Rig::new();
    assert!(!rig.player.is_awake());
    rig.line.push(tone(rig.pulse(), 440));
    assert!(rig.player.is_awake());
    rig.pass(SECOND, 7_000_000, |_, _| {});
    rig.line.push(Wave::rest(rig.pulse(), false));
    rig.pass(SECOND / 2, 7_000_000, |_, _| {});
    let samples = rig.taken();
    let sound = &samples[DELAY..DELAY + RATE as usize * 9 / 10];
    let hz = PIT_HZ as f64 / (PIT_HZ / 440) as f64;
    assert!((395..=397).contains(&rises(sound)), "{}", rises(sound));
    // The first of a square wave's harmonics, and no even ones.
    let first = amplitude(&sound[..40_000], RATE, hz);
    assert!((first / 0.25 * TAU / 8.0 - 1.0).abs() < 0.02, "{first}");
    assert!(amplitude(&sound[..40_000], RATE, 2.0 * hz) < 0.01 * first);
    assert!(samples.len() >= RATE as usize * 148 / 100, "{}", samples.len());
    let after = &samples[samples.len() - 8000..];
    assert!(after.iter().all(|s| s.abs() < 1e-3));
    // Then it sleeps.
    rig.pass(2 * SECOND, 50_000_000, |_, _| {});
    assert!(!rig.player.is_awake());
    assert_eq!(rig.formats(), [RATE, 0]);
}

#[test]
fn a_line_that_rests_high_is_silent_and_lets_the_worker_sleep() {
    let mut rig = Rig::new();
    rig.line.push(Wave::rest(rig.pulse(), true));
    rig.pass(3 * SECOND, 10_000_000, |_, _| {});
    let samples = rig.taken();
    assert!(samples[..DELAY].iter().any(|s| s.abs() > 0.3), "no click");
    assert!(samples[samples.len() - 1000..].iter().all(|s| s.abs() < 1e-3));
    assert!(!rig.player.is_awake());
}

/// Samples by the width of pulses, as programs of the time did: a carrier that is not heard carries a sine.
#[test]
fn the_width_of_pulses_is_heard_as_what_it_stands_for() {
    let mut rig = Rig::new();
    let (carrier, hz) = (PIT_HZ / 18_000, 500.0);
    let mut next = rig.pulse();
    rig.pass(SECOND, 3_000_000, |now, line| {
        while next < now {
            let sine = (TAU * hz * next as f64 / PIT_HZ as f64).sin();
            let high = (carrier as f64 * (0.5 + 0.4 * sine)) as u64;
            line.push(Wave::rest(next, true));
            line.push(Wave::rest(next + high, false));
            next += carrier;
        }
    });
    let samples = rig.taken();
    let sound = &samples[2 * DELAY..2 * DELAY + 43_200];
    let heard = amplitude(sound, RATE, hz);
    assert!((heard - 0.4 * 0.5).abs() < 0.01, "{heard}");
    for other in [250.0, 750.0, 1000.0, 1500.0, 3000.0] {
        assert!(amplitude(sound, RATE, other) < 0.01, "{other} Hz");
    }
}

#[test]
fn a_one_shot_that_is_revoked_does_not_come() {
    let mut rig = Rig::new();
    let at = rig.pulse();
    rig.line.push(Wave::rest(at, false));
    rig.line.push(Wave::rest(at + 60_000, true));
    rig.pass(SECOND / 100, 1_000_000, |_, _| {});
    rig.line.push(Wave::rest(rig.pulse(), false));
    rig.pass(SECOND / 2, 5_000_000, |_, _| {});
    assert!(rig.taken().iter().all(|s| *s == 0.0));
}

#[test]
fn the_speaker_is_mixed_into_what_a_card_plays_and_goes_on_behind_it() {
    let mut rig = Rig::new();
    let card = |n: usize| (TAU * 3000.0 * n as f64 / 44_100.0).sin() as f32 * 0.2;
    rig.line.push(tone(rig.pulse(), 500));
    rig.ring
        .push(&(0..2000).flat_map(|n| [card(n); 2]).collect::<Vec<_>>());
    rig.ring.set_running(true);
    let mut n = 2000;
    for _ in 0..100 {
        rig.pass(SECOND / 100, SECOND / 100, |_, _| {});
        let block: Vec<f32> = (n..n + 441).flat_map(|n| [card(n); 2]).collect();
        rig.ring.push(&block);
        n += 441;
    }
    let both = rig.taken();
    let part = &both[2000..2000 + 39_690];
    assert!((amplitude(part, 44_100, 3000.0) - 0.2).abs() < 0.01);
    let hz = PIT_HZ as f64 / (PIT_HZ / 500) as f64;
    assert!((amplitude(part, 44_100, hz) - 0.25 * 8.0 / TAU).abs() < 0.01);
    rig.ring.set_running(false);
    rig.pass(SECOND, SECOND / 100, |_, _| {});
    let alone = rig.taken();
    let part = &alone[alone.len() - 24_000..];
    assert!((amplitude(part, RATE, hz) - 0.25 * 8.0 / TAU).abs() < 0.01);
    assert!(amplitude(part, RATE, 3000.0) < 0.005);
    assert_eq!(rig.formats(), [44_100, 0, RATE]);
}

#[test]
fn whatever_a_lying_writer_says_samples_are_samples_and_the_worker_sleeps_again() {
    let mut rig = Rig::new();
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut draw = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if random.is_multiple_of(3) {
            u64::MAX >> (random >> 58)
        } else {
            random >> (random & 63)
        }
    };
    rig.pass(2 * SECOND, 5_000_000, |_, line| {
        for _ in 0..draw() % 100 {
            line.push(Wave {
                from: draw(),
                phase: draw() as u32,
                high: draw() as u32,
                period: draw() as u32,
            });
        }
    });
    assert!(rig.taken().iter().all(|s| s.is_finite() && s.abs() <= 1.0));
    rig.line.push(Wave::rest(0, false));
    rig.pass(3 * SECOND, 5_000_000, |_, _| {});
    assert!(!rig.player.is_awake());
}
