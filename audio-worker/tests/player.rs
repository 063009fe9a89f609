//! The player over a ring in private memory, with VM time set by hand.

mod support;

use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use quintet_audio_worker::player::{PERIOD, Pacer, Player, Step};
use quintet_audio_worker::sink::{HashSink, NullSink, Sink, WavSink};
use quintet_protocol::audio::{Format, HEAD_BYTES, PREFILL, PlaybackConsumer, PlaybackProducer, RING_BYTES};
use quintet_protocol::shm::{Map, View, ViewMut};
use quintet_protocol::time::VmTime;

type Producer = PlaybackProducer<ViewMut, View>;

fn part(len: usize) -> ViewMut {
    ViewMut::new(Arc::new(Map::anonymous(len as u64).expect("anonymous map")))
}

fn stream(rate: u32, channels: u32, sink: impl Sink + 'static) -> (Producer, Player) {
    let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
    let producer = PlaybackProducer::attach(ours.clone(), theirs.view().clone(), Format::new(rate, channels));
    let ring = PlaybackConsumer::attach(theirs, ours.view().clone(), rate);
    (
        producer,
        Player::new(ring, support::no_speaker(), Box::new(sink), 48_000),
    )
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn the_pace_never_drifts_whatever_the_wake_ups() {
    let start = VmTime(123);
    let mut pacer = Pacer::new(44_100, start);
    let mut now = start;
    let mut step = 1;
    while now.since(start) < 3600 * SECOND {
        step = step * 7 % 1_999_993 + 1;
        now = now + step * 1000;
        pacer.take(pacer.due(now));
        assert_eq!(pacer.taken(), VmTime(now.since(start)).ticks(44_100));
    }
}

#[test]
fn a_deadline_is_the_first_instant_at_which_the_frames_are_due() {
    let mut pacer = Pacer::new(44_100, VmTime(5));
    for _ in 0..1000 {
        let at = pacer.due_at(PERIOD as u64);
        assert_eq!(
            (pacer.due(at - 1), pacer.due(at)),
            (PERIOD as u64 - 1, PERIOD as u64)
        );
        pacer.take(PERIOD as u64);
    }
}

#[test]
fn a_second_of_sound_takes_a_second_of_vm_time_and_loses_nothing() {
    let sink = HashSink::default();
    let (mut producer, mut player) = stream(48_000, 2, sink.clone());
    let (expected_sink, mut sent) = (HashSink::default(), Vec::new());
    producer.push(&[0.0; 2 * 4096]);
    sent.extend([0.0; 2 * 4096]);
    producer.set_running(true);
    let mut now = VmTime(7);
    let start = now;
    let mut value = 0.0_f32;
    loop {
        let step = player.step(now);
        assert_eq!(step.missing, 0);
        let Some(next) = step.next else {
            panic!("the stream runs")
        };
        if next.since(start) > SECOND {
            break;
        }
        assert!(next > now, "a busy loop");
        now = next;
        let block: Vec<f32> = (0..2 * PERIOD).map(|index| value + index as f32).collect();
        value += block.len() as f32;
        assert_eq!(producer.push(&block), PERIOD as u32);
        sent.extend(block);
    }
    let played = sink.digest().frames;
    assert_eq!(played, 48_000 / PERIOD as u64 * PERIOD as u64);
    let mut same: Box<dyn Sink> = Box::new(expected_sink.clone());
    same.start(Format::new(48_000, 2));
    same.play(&sent[..played as usize * 2], played as usize);
    assert_eq!(sink.digest(), expected_sink.digest());
}

#[test]
fn while_vm_time_stands_still_nothing_is_taken_and_nothing_missing() {
    let (mut producer, mut player) = stream(48_000, 2, NullSink);
    producer.push(&[0.5; 64]);
    producer.set_running(true);
    for _ in 0..3 {
        let step = player.step(VmTime(SECOND));
        assert_eq!((step.played, step.missing, player.level()), (0, 0, 32));
    }
}

#[test]
fn a_stream_that_runs_dry_counts_what_is_missing() {
    let (mut producer, mut player) = stream(48_000, 1, NullSink);
    producer.push(&[0.5; 100]);
    producer.set_running(true);
    player.step(VmTime(0));
    let step = player.step(VmTime(SECOND / 48_000 * PERIOD as u64 + 1000));
    assert_eq!((step.played, step.missing), (100, PERIOD as u64 - 100));
    assert_eq!(player.underruns(), PERIOD as u32 - 100);
}

#[test]
fn a_stopped_stream_is_played_to_its_end_and_nothing_is_missing() {
    let sink = HashSink::default();
    let (mut producer, mut player) = stream(48_000, 1, sink.clone());
    producer.push(&[0.5; 700]);
    producer.set_running(true);
    player.step(VmTime(0));
    producer.set_running(false);
    let step = player.step(VmTime(SECOND));
    assert_eq!(
        step,
        Step {
            played: 700,
            missing: 0,
            next: None
        }
    );
    assert!(!player.is_awake());
    assert_eq!((sink.digest().frames, player.underruns()), (700, 0));
}

#[test]
fn after_a_long_hold_up_the_sound_goes_on_from_now() {
    let sink = HashSink::default();
    let (mut producer, mut player) = stream(48_000, 1, sink.clone());
    producer.set_running(true);
    player.step(VmTime(0));
    producer.push(&[0.5; 5000]);
    let step = player.step(VmTime(60 * SECOND));
    assert_eq!((step.played, step.missing, player.level()), (0, 0, 0));
    assert_eq!(
        step.next,
        Some(VmTime(60 * SECOND) + VmTime::from_ticks(PERIOD as u64, 48_000).0)
    );
}

#[test]
fn a_broken_ring_is_silence_until_it_is_made_again() {
    let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
    let mut producer: Producer =
        PlaybackProducer::attach(ours.clone(), theirs.view().clone(), Format::new(48_000, 2));
    let ring = PlaybackConsumer::attach(theirs, ours.view().clone(), 48_000);
    let mut player = Player::new(ring, support::no_speaker(), Box::new(NullSink), 48_000);
    producer.set_running(true);
    ours.store_u32(0, 0x1234, quintet_protocol::sync::Ordering::Release);
    assert_eq!(player.step(VmTime(0)), Step::default());
    producer.set_format(Format::new(48_000, 2));
    assert!(player.step(VmTime(0)).next.is_some());
}

fn scratch_file() -> (OwnedFd, std::fs::File) {
    let fd = rustix::fs::memfd_create("sound", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    let copy = fd.as_fd().try_clone_to_owned().expect("a copy");
    (fd, std::fs::File::from(copy))
}

fn samples_in(fd: &OwnedFd) -> (hound::WavSpec, Vec<i16>) {
    let mut file = std::fs::File::from(fd.try_clone().expect("a copy"));
    file.rewind().expect("rewinds");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("reads");
    let reader = hound::WavReader::new(std::io::Cursor::new(bytes)).expect("a WAV file");
    (
        reader.spec(),
        reader
            .into_samples()
            .map(|sample| sample.expect("a sample"))
            .collect(),
    )
}

#[test]
fn a_wav_file_holds_what_was_played_as_16_bit_stereo() {
    let (fd, file) = scratch_file();
    let mut sink = WavSink::new(file, 22_050).expect("a sink");
    sink.start(Format::new(22_050, 1));
    sink.play(&[0.0, 0.5, 1.0, -1.0, 7.0], 5);
    sink.stop();
    let (spec, samples) = samples_in(&fd);
    assert_eq!(
        (spec.channels, spec.sample_rate, spec.bits_per_sample),
        (2, 22_050, 16)
    );
    let expected: Vec<i16> = [0, 16_384, 32_767, -32_767, 32_767]
        .into_iter()
        .flat_map(|s| [s, s])
        .collect();
    assert_eq!(samples, expected);
}

#[test]
fn a_successor_appends_to_the_wav_file() {
    let (fd, file) = scratch_file();
    let mut first = WavSink::new(file, 48_000).expect("a sink");
    first.start(Format::new(48_000, 2));
    first.play(&[0.25, -0.25], 1);
    first.stop();
    // Killed: neither flushed nor dropped.
    first.play(&[1.0; 4], 2);
    std::mem::forget(first);
    let copy = std::fs::File::from(fd.try_clone().expect("a copy"));
    let mut second = WavSink::new(copy, 8000).expect("takes over");
    second.start(Format::new(48_000, 2));
    second.play(&[0.5, -0.5], 1);
    drop(second);
    assert_eq!(samples_in(&fd).1, [8192, -8192, 16_384, -16_384]);
}

#[test]
fn a_file_with_something_else_in_it_is_refused() {
    use std::io::Write as _;
    let (_, mut file) = scratch_file();
    file.write_all(b"not a sound").expect("writes");
    assert!(WavSink::new(file, 48_000).is_err());
}

#[test]
fn streams_of_other_rates_are_brought_to_that_of_the_wav_file() {
    let (fd, file) = scratch_file();
    let mut sink = WavSink::new(file, 48_000).expect("a sink");
    for (rate, value) in [(44_100, 0.25), (48_000, 0.5), (8000, 0.125)] {
        sink.start(Format::new(rate, 2));
        sink.play(&vec![value; rate as usize * 2], rate as usize);
        sink.stop();
    }
    drop(sink);
    let (spec, samples) = samples_in(&fd);
    assert_eq!((spec.sample_rate, samples.len()), (48_000, 3 * 96_000));
    for (at, level) in [(0.5, 8192), (1.5, 16_384), (2.5, 4096)] {
        let sample = i32::from(samples[(at * 96_000.0) as usize]);
        assert!((sample - level).abs() <= 1, "{at}: {sample}");
    }
}

/// A sink that waits for frames for a tenth of a second.
#[derive(Debug)]
struct Patient(HashSink);

impl Sink for Patient {
    fn start(&mut self, format: Format) {
        self.0.start(format);
    }
    fn patience(&self, format: Format) -> u64 {
        u64::from(format.rate / 10)
    }
    fn play(&mut self, samples: &[f32], real: usize) {
        self.0.play(samples, real);
    }
    fn stop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn a_sink_that_can_wait_has_silence_only_for_what_is_too_late() {
    let sink = HashSink::default();
    let (mut producer, mut player) = stream(48_000, 1, Patient(sink.clone()));
    producer.set_running(true);
    let start = VmTime(3);
    assert_eq!(player.step(start).missing, 0);
    let at = |milliseconds: u64| start + milliseconds * 1_000_000;
    // 90 ms late: waited for, a look each period.
    let step = player.step(at(90));
    assert_eq!((step.played, step.missing), (0, 0));
    let next = step.next.expect("the stream runs");
    assert!(next > at(90) && next <= at(90) + VmTime::from_ticks(PERIOD as u64, 48_000).0);
    // There at last, and none ahead of its time: 4320 frames are due, in whole periods.
    assert_eq!(producer.push(&[0.5; 6000]), 6000);
    let step = player.step(at(90));
    assert_eq!((step.played, step.missing), (8 * PERIOD as u64, 0));
    let step = player.step(at(125));
    assert_eq!((step.played, step.missing), (3 * PERIOD as u64, 0));
    // 9600 frames are due, 6000 came, and those before the last tenth of a second are missing.
    let step = player.step(at(300));
    let (played, missing) = (step.played, step.missing);
    let before = 11 * PERIOD as u64;
    assert_eq!(
        (before + played, before + played + missing),
        (6000, 14_400 - 4800)
    );
    assert_eq!(u64::from(player.underruns()), missing);
}

#[test]
fn a_successor_goes_on_with_what_has_piled_up() {
    let (ours, theirs) = (part(RING_BYTES), part(HEAD_BYTES));
    let mut producer: Producer =
        PlaybackProducer::attach(ours.clone(), theirs.view().clone(), Format::new(48_000, 1));
    producer.set_running(true);
    let sink = HashSink::default();
    for (frames, at) in [(3000, 0), (4000, SECOND)] {
        let ring = PlaybackConsumer::attach(theirs.clone(), ours.view().clone(), 48_000);
        producer.push(&vec![0.5; frames]);
        let mut player = Player::new(
            ring,
            support::no_speaker(),
            Box::new(Patient(sink.clone())),
            48_000,
        );
        player.step(VmTime(at));
        player.step(VmTime(at + SECOND / 4));
    }
    assert_eq!((sink.digest().frames, producer.overruns()), (7000, 0));
}

#[test]
fn what_a_late_producer_sends_at_once_does_not_delay_the_sound_for_ever() {
    let (mut producer, mut player) = stream(48_000, 1, NullSink);
    producer.push(&[0.5; 2 * PERIOD + 6000]);
    producer.set_running(true);
    let (mut now, mut levels) = (VmTime(0), Vec::new());
    for _ in 0..48_000 * 3 / PERIOD {
        let step = player.step(now);
        assert_eq!(step.missing, 0);
        levels.push(player.level());
        now = step.next.expect("the stream runs");
        producer.push(&[0.5; PERIOD]);
    }
    // For a second it may be needed.
    assert!(levels[48_000 / PERIOD / 2] > 6000, "{levels:?}");
    let end = *levels.last().expect("levels");
    assert!((PREFILL..=3 * PREFILL).contains(&end), "{levels:?}");
}
