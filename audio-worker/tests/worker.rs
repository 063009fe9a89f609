//! The whole worker in a thread, over the files of a machine, with the test as io-worker and coordinator.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quintet_audio_worker::run;
use quintet_protocol::audio::Format;
use quintet_protocol::clock::ClockMaster;
use quintet_protocol::handshake::config::{AudioConfig, AudioSink};
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, Region, SegmentSet, SleeperId};
use quintet_protocol::ram::{GuestRam, RamLayout};
use quintet_protocol::status::{StatusReader, StatusWord, WorkerState};
use quintet_protocol::sync::Ordering;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Machine {
    files: SegmentSet,
    coordinator: Ends,
    io: Ends,
    clock: ClockMaster,
    status: StatusReader,
}

impl Machine {
    fn new() -> Self {
        let files = SegmentSet::create(RamLayout::new(0x1_0000), 1).expect("files");
        let maps = files.maps(Role::Coordinator).expect("maps");
        let coordinator = Ends::new(&maps);
        let io = Ends::new(&files.maps(Role::Io).expect("maps"));
        let clock = coordinator.clock_master();
        let status = StatusReader::of(&maps, Role::Audio);
        Self {
            files,
            coordinator,
            io,
            clock,
            status,
        }
    }

    fn context(&self, sink: AudioSink) -> WorkerContext {
        WorkerContext {
            role: Role::Audio,
            generation: 1,
            instance: 1,
            ram: GuestRam::anonymous(RamLayout::new(0)).expect("no RAM"),
            maps: self.files.maps(Role::Audio).expect("maps"),
            config: postcard::to_stdvec(&AudioConfig { sink, rate: 48_000 }).expect("encodes"),
            payloads: Vec::new(),
            host_fds: Vec::new(),
        }
    }

    fn start(&self) -> JoinHandle<Result<(), WorkerError>> {
        let context = self.context(AudioSink::Null);
        let worker = std::thread::spawn(move || run(context));
        self.wait("ready", || self.status.load(StatusWord::ReadyAudio) == 1);
        worker
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn wait_parked(&self) {
        self.wait("sleep", || {
            self.status.load(StatusWord::WorkerState) == WorkerState::Parked as u32
        });
    }

    fn stop(&self, worker: JoinHandle<Result<(), WorkerError>>) {
        let control = self.coordinator.view_mut(Region::status(Role::Coordinator));
        control.store_u32(
            StatusWord::StopRequested.index() * 4,
            1 << Role::Audio.index(),
            Ordering::Release,
        );
        self.coordinator.doorbell(SleeperId::Audio).ring();
        worker
            .join()
            .expect("the worker panicked")
            .expect("the worker failed");
        assert_eq!(
            self.status.load(StatusWord::WorkerState),
            WorkerState::Stopping as u32
        );
    }
}

#[test]
fn a_stream_is_consumed_while_the_clock_runs_and_the_worker_sleeps_afterwards() {
    let mut machine = Machine::new();
    machine.clock.resume();
    let worker = machine.start();
    let mut producer = machine.io.playback_producer(Format::new(48_000, 2));
    assert_eq!(producer.host_rate(), Some(48_000));
    machine.wait_parked();
    producer.push(&[0.5; 2 * 8192]);
    assert_eq!(producer.free(), 0);
    producer.set_running(true);
    machine.io.doorbell(SleeperId::Audio).ring();
    machine.wait("room in the ring", || producer.free() >= 2048);
    producer.set_running(false);
    machine.wait("the end of the stream", || producer.level() == 0);
    machine.wait_parked();
    let beats = machine.status.load(StatusWord::Heartbeat);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        machine.status.load(StatusWord::Heartbeat),
        beats,
        "the worker woke up"
    );
    machine.stop(worker);
}

#[test]
fn a_paused_machine_is_silent_and_nothing_is_missing_when_it_goes_on() {
    let mut machine = Machine::new();
    machine.clock.resume();
    machine.clock.pause();
    let worker = machine.start();
    let mut producer = machine.io.playback_producer(Format::new(48_000, 2));
    producer.push(&[0.5; 2 * 8192]);
    producer.set_running(true);
    machine.io.doorbell(SleeperId::Audio).ring();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(producer.free(), 0);
    machine.wait_parked();
    machine.clock.resume();
    machine.coordinator.doorbell(SleeperId::Audio).ring();
    machine.wait("room in the ring", || producer.free() >= 512);
    assert_eq!(producer.underruns(), 0);
    machine.stop(worker);
}

#[test]
fn a_wav_sink_without_a_file_is_a_configuration_error() {
    let machine = Machine::new();
    assert!(matches!(
        run(machine.context(AudioSink::Wav)),
        Err(WorkerError::Config(_))
    ));
}
