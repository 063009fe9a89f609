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
use quintet_protocol::input::InputEvent;
use quintet_protocol::layout::{Ends, Region, SleeperId};
use quintet_protocol::shm::ViewMut;
use quintet_protocol::status::{MachineState, StatusWord, WorkerState, WorkerStatus};
use quintet_protocol::sync::{Ordering, fence};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC};
use quintet_protocol::trace::{Kind, Tracer};

use crate::input::InputPump;
use crate::scanout::{Refresh, Scanout};
use crate::window;

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
/// [`WorkerError::Config`] for a configuration that does not parse and for a display that cannot be opened,
/// [`WorkerError::Peer`] when a peer broke a ring.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the signature is that of every worker's run"
)]
pub fn run(context: WorkerContext) -> Result<(), WorkerError> {
    let config: GpuConfig = context.config()?;
    let worker = Worker::new(&context)?;
    if config.headless {
        worker.run()
    } else {
        window::run(worker, &context, &config)
    }
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

/// What [`Worker::step`] leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, for good.
    Stop,
    /// Nothing until then, or a ring.
    Sleep(HostTime),
}

/// The worker's ends of the shared memory, and how far it is.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) status: WorkerStatus,
    pub(crate) clock: VmClock,
    pub(crate) sleeper: Sleeper,
    pub(crate) coordinator: Doorbell,
    io: Doorbell,
    armed: ViewMut,
    pub(crate) scanout: Scanout,
    shots: ShotWriter,
    pub(crate) input: InputPump,
    pub(crate) tracer: Tracer,
    beaten: HostTime,
    stage: Stage,
    next_frame: HostTime,
    /// Something waited to be drawn at the last look.
    dirty: bool,
    /// It has said that it sleeps.
    parked: bool,
    /// Somebody looks at the screen: what blinks is drawn.
    pub(crate) watched: bool,
    /// When something blinks next, once that has been looked up.
    blink: Option<HostTime>,
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
            tracer: ends.tracer(Role::Gpu, context.generation),
            beaten: HostTime(0),
            stage: Stage::Awake,
            next_frame: HostTime::after(FRAME),
            dirty: false,
            parked: false,
            watched: false,
            blink: None,
        })
    }

    fn run(mut self) -> Result<(), WorkerError> {
        self.begin();
        while let Next::Sleep(deadline) = self.step()? {
            self.sleep(deadline);
        }
        Ok(())
    }

    /// Draws the first picture and says that the worker is ready.
    pub(crate) fn begin(&mut self) {
        self.status.set_state(WorkerState::Starting);
        self.draw();
        tracing::info!("Showing {}", self.scanout.mode());
        self.status.set_ready();
        self.coordinator.ring();
    }

    /// Does whatever there is to do now, and says until when nothing is unless somebody rings.
    pub(crate) fn step(&mut self) -> Result<Next, WorkerError> {
        if std::mem::take(&mut self.parked) {
            self.status.set_state(WorkerState::Running);
        }
        loop {
            self.sleeper.take();
            if self.status.stop_requested() {
                self.status.set_state(WorkerState::Stopping);
                return Ok(Next::Stop);
            }
            self.obey();
            let blocked = self.pass_input_on()?;
            self.answer_screenshots();
            self.beat();

            let now = HostTime::now();
            let blink = self.blink();
            let dirty = self.scanout.is_dirty() || blink.is_some_and(|at| at <= now);
            let deadline = if dirty && now < self.next_frame {
                self.next_frame
            } else if dirty {
                let mode = self.scanout.mode();
                if self.draw() != Refresh::Same && mode != self.scanout.mode() {
                    tracing::info!("Showing {}", self.scanout.mode());
                }
                self.blink = None;
                self.stage = Stage::Awake;
                self.next_frame = HostTime::after(FRAME);
                self.next_frame
            } else {
                match self.stage {
                    Stage::Awake if now < self.next_frame => self.next_frame,
                    Stage::Awake => {
                        self.arm();
                        self.stage = Stage::Armed;
                        self.next_frame = HostTime::after(FRAME);
                        continue;
                    }
                    Stage::Armed if now < self.next_frame => self.next_frame,
                    Stage::Armed => {
                        self.stage = Stage::Quiet;
                        continue;
                    }
                    Stage::Quiet => HostTime(FOR_EVER),
                }
            };
            self.dirty = dirty;
            let deadline = deadline.min(blink.unwrap_or(HostTime(FOR_EVER)));
            return Ok(Next::Sleep(if blocked {
                deadline.min(HostTime::after(RETRY))
            } else {
                deadline
            }));
        }
    }

    /// Draws what changed, and publishes it.
    fn draw(&mut self) -> Refresh {
        let begun = self.tracer.begin();
        let refresh = self.scanout.refresh(self.clock.now());
        let frame = match refresh {
            Refresh::Frame(number) => number,
            Refresh::Same | Refresh::Waiting => 0,
        };
        self.tracer.end(Kind::Draw, begun, frame.into());
        refresh
    }

    /// When something on the screen blinks next: only when somebody watches, and while VM time goes on.
    fn blink(&mut self) -> Option<HostTime> {
        if !self.watched || self.status.machine_state() != MachineState::Running {
            self.blink = None;
            return None;
        }
        if self.blink.is_none() {
            let now = self.clock.now();
            let left = self.scanout.next_blink(now).map(|at| at.0.saturating_sub(now.0));
            self.blink = Some(left.map_or(HostTime(FOR_EVER), HostTime::after));
        }
        self.blink
    }

    /// Says that this worker is about to sleep until then; answers whether that is for long, when nobody is to expect a beat.
    pub(crate) fn tell_sleep(&mut self, deadline: HostTime) -> bool {
        self.parked = deadline == HostTime(FOR_EVER);
        if self.parked {
            self.status.set_state(WorkerState::Parked);
        }
        self.parked
    }

    /// Sleeps until the deadline, a ring, or something to do besides drawing; while nothing is to be drawn, also until
    /// there is.
    fn sleep(&mut self, deadline: HostTime) {
        let long = self.tell_sleep(deadline);
        let epoch = self.status.run_epoch();
        let reset = self.status.reset_generation();
        self.sleeper.park(deadline, || {
            self.status.stop_requested()
                || self.shots.pending().is_some()
                || self.status.run_epoch() != epoch
                || self.status.reset_generation() != reset
                || long && !self.dirty && (self.input.has_pending() || self.scanout.is_dirty())
        });
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

    /// Sends what happened in the window on to io-worker.
    pub(crate) fn send(&mut self, event: InputEvent) -> Result<(), WorkerError> {
        let now = (self.clock.now().0 / 1_000_000) as u32;
        self.input.send(event, now).map_err(|error| WorkerError::Peer {
            peer: Role::Io,
            what: error.to_string(),
        })?;
        self.tracer.instant(Kind::Input, 1);
        self.status
            .own()
            .store(StatusWord::InputEvents, self.input.events());
        self.io.ring();
        Ok(())
    }

    fn pass_input_on(&mut self) -> Result<bool, WorkerError> {
        let pumped = self.input.pump().map_err(|error| WorkerError::Peer {
            peer: Role::Coordinator,
            what: error.to_string(),
        })?;
        if pumped.events > 0 {
            let own = self.status.own();
            own.add(StatusWord::InputBatches, 1);
            self.tracer.instant(Kind::Input, pumped.events.into());
            own.store(StatusWord::InputEvents, self.input.events());
            self.io.ring();
        }
        Ok(pumped.blocked)
    }

    fn answer_screenshots(&mut self) {
        if let Some(request) = self.shots.pending() {
            let begun = self.tracer.begin();
            let file = self.scanout.screenshot(self.clock.now());
            self.tracer.end(Kind::Shot, begun, 0);
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
