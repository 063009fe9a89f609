//! The life of the audio-worker: asleep while no stream runs, else awake once per period.

use std::fs::File;

use quintet_protocol::clock::VmClock;
use quintet_protocol::doorbell::{Sleeper, SpinPolicy};
use quintet_protocol::handshake::config::{AudioConfig, AudioSink};
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, SleeperId};
use quintet_protocol::status::{StatusWord, WorkerState, WorkerStatus};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC, VmTime};
use quintet_protocol::trace::{Kind, Tracer};

use crate::player::Player;
use crate::sink::{HostSink, NullSink, Sink, WavSink};
use crate::speaker::Speaker;

/// Shortest time between two beats, in nanoseconds.
const BEAT: u64 = NANOS_PER_SEC / 4;

/// Runs the audio-worker until it is told to stop.
///
/// # Errors
/// [`WorkerError::Config`] for a configuration that does not parse, or a WAV sink without a usable file.
pub fn run(context: WorkerContext) -> Result<(), WorkerError> {
    let config: AudioConfig = context.config()?;
    let ends = Ends::new(&context.maps);
    let status = WorkerStatus::new(&context);
    status.set_state(WorkerState::Starting);
    let tracer = ends.tracer(Role::Audio, context.generation);
    let sink = open(&config, context)?;
    let player = Player::new(
        ends.playback_consumer(config.rate),
        Speaker::new(ends.speaker_reader()),
        sink,
        config.rate,
    );
    Worker {
        status,
        clock: ends.clock(),
        sleeper: ends.sleeper(SleeperId::Audio, SpinPolicy::NEVER),
        player,
        beaten: HostTime(0),
        tracer,
    }
    .run(|| ends.doorbell(SleeperId::Coordinator).ring());
    Ok(())
}

fn open(config: &AudioConfig, context: WorkerContext) -> Result<Box<dyn Sink>, WorkerError> {
    match config.sink {
        AudioSink::Null => Ok(Box::new(NullSink)),
        AudioSink::Host => {
            let sink = HostSink::new();
            Ok(Box::new(sink.map_err(|e| {
                WorkerError::Config(format!("No thread for the sound device: {e}"))
            })?))
        }
        AudioSink::Wav => {
            let fd = context
                .host_fds
                .into_iter()
                .next()
                .ok_or_else(|| WorkerError::Config("The WAV sink was given no file".into()))?;
            let sink = WavSink::new(File::from(fd), config.rate).map_err(|error| {
                WorkerError::Config(quintet_protocol::handshake::worker::with_sources(&error))
            })?;
            Ok(Box::new(sink))
        }
    }
}

struct Worker {
    status: WorkerStatus,
    clock: VmClock,
    sleeper: Sleeper,
    player: Player,
    beaten: HostTime,
    tracer: Tracer,
}

impl Worker {
    fn run(mut self, ready: impl FnOnce()) {
        self.status.set_ready();
        ready();
        loop {
            self.sleeper.take();
            if self.status.stop_requested() {
                break;
            }
            let epoch = self.status.run_epoch();
            self.status.set_reset_done(self.status.reset_generation());
            self.status.epoch_seen(epoch);
            self.beat();
            let begun = self.tracer.begin();
            let step = self.player.step(self.clock.now());
            if !self.clock.is_running() {
                self.player.hold();
            }
            self.tracer.end(Kind::Play, begun, step.played);
            if step.missing > 0 {
                self.tracer.instant(Kind::Underrun, step.missing);
            }
            let own = self.status.own();
            own.store(StatusWord::AudioLevel, self.player.level());
            own.store(StatusWord::AudioUnderrun, self.player.underruns());
            self.player.tell_unheard();
            self.sleep(step.next);
        }
        self.player.finish();
        self.status.set_state(WorkerState::Stopping);
    }

    /// Sleeps until frames are due at `next`; without a stream, and while VM time stands still, until something
    /// happens.
    fn sleep(&self, next: Option<VmTime>) {
        let deadline = next.and_then(|at| self.clock.host_deadline(at));
        if deadline.is_none() {
            self.status.set_state(WorkerState::Parked);
        }
        let (epoch, reset) = (self.status.run_epoch(), self.status.reset_generation());
        self.sleeper.park(deadline.unwrap_or(HostTime(u64::MAX)), || {
            self.status.stop_requested()
                || self.status.run_epoch() != epoch
                || self.status.reset_generation() != reset
                || deadline.is_none() && self.player.is_awake() && self.clock.is_running()
        });
        if deadline.is_none() {
            self.status.set_state(WorkerState::Running);
        }
    }

    fn beat(&mut self) {
        let now = HostTime::now();
        if now.since(self.beaten) >= BEAT {
            self.beaten = now;
            self.status.beat();
        }
    }
}
