//! The life of the gpu-worker: sleep, look, draw, sleep.
//!
//! While the guest draws, the loop looks at VRAM once per frame and nobody has to tell it. When a look finds
//! nothing, it arms itself (see [`quintet_protocol::vram`]): the next change rings. It then looks once more,
//! a frame later once more, and only then sleeps without a deadline, so that a still screen costs nothing. A tick
//! at frame rate was rejected for the same reason.

use quintet_protocol::clock::VmClock;
use quintet_protocol::doorbell::{Doorbell, Sleeper, SpinPolicy};
use quintet_protocol::framebuffer::ShotWriter;
use quintet_protocol::handshake::config::GpuConfig;
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, Region, SleeperId};
use quintet_protocol::shm::ViewMut;
use quintet_protocol::status::{StatusWord, WorkerState, WorkerStatus};
use quintet_protocol::sync::{Ordering, fence};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC};

use crate::input::InputPump;
use crate::scanout::{Refresh, Scanout};

/// Shortest time between two frames, in nanoseconds: 60 Hz.
const FRAME: u64 = NANOS_PER_SEC / 60;
/// Shortest time between two beats, in nanoseconds.
const BEAT: u64 = NANOS_PER_SEC / 4;
/// How long to wait for room in the input ring, in nanoseconds.
const RETRY: u64 = NANOS_PER_SEC / 200;
/// A sleep without a deadline, as the host's clock knows it.
const FOR_EVER: u64 = u64::MAX;

/// Runs the gpu-worker until it is told to stop.
///
/// # Errors
/// [`WorkerError::Config`] for a configuration that does not parse, [`WorkerError::Peer`] when a peer broke a ring.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the signature is that of every worker's run"
)]
pub fn run(context: WorkerContext) -> Result<(), WorkerError> {
    let config: GpuConfig = context.config()?;
    if !config.headless {
        tracing::info!(
            "{}: this build has no window; screenshots show the screen",
            config.title
        );
    }
    Worker::new(&context)?.run()
}

/// How far the loop is on its way to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Something was drawn; the next look is at the next frame.
    Awake,
    /// Armed; the look after that is done.
    Armed,
    /// Still nothing a frame after arming: nothing is under way.
    Quiet,
}

struct Worker {
    status: WorkerStatus,
    clock: VmClock,
    sleeper: Sleeper,
    coordinator: Doorbell,
    io: Doorbell,
    armed: ViewMut,
    scanout: Scanout,
    shots: ShotWriter,
    input: InputPump,
    beaten: HostTime,
}

impl Worker {
    fn new(context: &WorkerContext) -> Result<Self, WorkerError> {
        let ends = Ends::new(&context.maps);
        let broken = |peer: Role| move |what: String| WorkerError::Peer { peer, what };
        let vram = ends
            .vram_reader()
            .map_err(|error| WorkerError::Config(error.to_string()))?;
        let from = ends
            .lifecycle_to_consumer(Role::Gpu)
            .map_err(|error| broken(Role::Coordinator)(error.to_string()))?;
        let to = ends
            .input_producer()
            .map_err(|error| broken(Role::Io)(error.to_string()))?;
        Ok(Self {
            status: WorkerStatus::new(context),
            clock: ends.clock(),
            sleeper: ends.sleeper(SleeperId::Gpu, SpinPolicy::NEVER),
            coordinator: ends.doorbell(SleeperId::Coordinator),
            io: ends.doorbell(SleeperId::Io),
            armed: ends.view_mut(Region::vram_armed()),
            scanout: Scanout::new(vram, ends.frame_writer(), ends.epoch_wish()),
            shots: ends.shot_writer(),
            input: InputPump::new(from, to, context.generation > 1),
            beaten: HostTime(0),
        })
    }

    fn run(mut self) -> Result<(), WorkerError> {
        self.status.set_state(WorkerState::Starting);
        self.scanout.refresh(self.clock.now());
        tracing::info!("Showing {}", self.scanout.mode());
        self.status.set_ready();
        self.coordinator.ring();
        let mut stage = Stage::Awake;
        let mut next_frame = HostTime::after(FRAME);
        loop {
            self.sleeper.take();
            if self.status.stop_requested() {
                self.status.set_state(WorkerState::Stopping);
                return Ok(());
            }
            self.obey();
            let blocked = self.pass_input_on()?;
            self.answer_screenshots();
            self.beat();

            let now = HostTime::now();
            let dirty = self.scanout.is_dirty();
            let deadline = if dirty && now < next_frame {
                next_frame
            } else if dirty {
                let mode = self.scanout.mode();
                if self.scanout.refresh(self.clock.now()) != Refresh::Same && mode != self.scanout.mode() {
                    tracing::info!("Showing {}", self.scanout.mode());
                }
                stage = Stage::Awake;
                next_frame = HostTime::after(FRAME);
                next_frame
            } else {
                match stage {
                    Stage::Awake if now < next_frame => next_frame,
                    Stage::Awake => {
                        self.arm();
                        stage = Stage::Armed;
                        next_frame = HostTime::after(FRAME);
                        continue;
                    }
                    Stage::Armed if now < next_frame => next_frame,
                    Stage::Armed => {
                        stage = Stage::Quiet;
                        continue;
                    }
                    Stage::Quiet => HostTime(FOR_EVER),
                }
            };
            let deadline = if blocked {
                deadline.min(HostTime::after(RETRY))
            } else {
                deadline
            };
            self.sleep(deadline, dirty);
        }
    }

    /// Sleeps until the deadline, a ring, or something to do besides drawing; while nothing is to be drawn, also until
    /// there is.
    fn sleep(&self, deadline: HostTime, dirty: bool) {
        let long = deadline == HostTime(FOR_EVER);
        if long {
            self.status.set_state(WorkerState::Parked);
        }
        let epoch = self.status.run_epoch();
        let reset = self.status.reset_generation();
        self.sleeper.park(deadline, || {
            self.status.stop_requested()
                || self.shots.pending().is_some()
                || self.status.run_epoch() != epoch
                || self.status.reset_generation() != reset
                || long && !dirty && (self.input.has_pending() || self.scanout.is_dirty())
        });
        if long {
            self.status.set_state(WorkerState::Running);
        }
    }

    /// Says that the machine's state and its resets have been noticed. The screen needs no reset of its own: cpu-worker
    /// resets the registers (S3.87).
    fn obey(&self) {
        let epoch = self.status.run_epoch();
        self.status.set_reset_done(self.status.reset_generation());
        self.status.epoch_seen(epoch);
    }

    fn arm(&self) {
        let armed = self.armed.load_u32(0, Ordering::Relaxed).wrapping_add(1);
        self.armed.store_u32(0, armed, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn pass_input_on(&mut self) -> Result<bool, WorkerError> {
        let pumped = self.input.pump().map_err(|error| WorkerError::Peer {
            peer: Role::Coordinator,
            what: error.to_string(),
        })?;
        if pumped.events > 0 {
            let own = self.status.own();
            own.add(StatusWord::InputBatches, 1);
            own.store(StatusWord::InputEvents, self.input.events());
            self.io.nudge();
        }
        Ok(pumped.blocked)
    }

    fn answer_screenshots(&mut self) {
        if let Some(request) = self.shots.pending() {
            let file = self.scanout.screenshot(self.clock.now());
            self.shots.answer(request, file.as_deref());
            self.coordinator.ring();
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
