//! The life of the cpu-worker's process around its vCPU: start, run, idle, pause, reset, end.

use quintet_protocol::boot_state::EntryMode;
use quintet_protocol::doorbell::{Sleeper, SpinPolicy};
use quintet_protocol::handshake::config::{Accel, CpuConfig};
use quintet_protocol::handshake::{Role, WorkerContext, WorkerError};
use quintet_protocol::layout::{Ends, Region, SleeperId};
use quintet_protocol::mirror::MIRRORS;
use quintet_protocol::profile::Activity as Doing;
use quintet_protocol::status::{GuestEvent, MachineState, ResetCause, WorkerState, WorkerStatus};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC};
use quintet_protocol::trace::Kind;

use super::debugger::{Debugger, Turn};
use super::{IoClient, MachineBus, Request, SpeakerLine, TimerThread, boot};
use crate::bus::Bus as _;
use crate::core_complex::{CoreComplex, CoreConfig, ResetCause as GuestReset, ResetKind};
use crate::cpuid::Model;
use crate::exec::{ExitWord, RunExit, Vcpu};
use crate::jit::{self, CODE_BYTES, CodeMemory, Jit, Told, shown::Published};
use crate::state::Activity;
use crate::vga::Vga;

/// Longest sleep of an idle or paused vCPU, in nanoseconds; doorbells wake it earlier.
const LONGEST: u64 = NANOS_PER_SEC;

/// What keeps the vCPU's thread going.
struct Runner {
    cpu: Box<Vcpu>,
    status: WorkerStatus,
    sleeper: Sleeper,
    ends: Ends,
    /// The reset generation that the vCPU runs in; 0 before the first start.
    generation: u32,
    /// It has slept since the vCPU last executed, and may have taken rings that were meant for the vCPU.
    slept: bool,
    debugger: Option<Debugger>,
    _timer: TimerThread,
    _shown: Published,
    told: Told,
    /// The debugger that was let in last.
    tracer: u32,
}

/// Runs the cpu-worker until the coordinator tells it to end.
///
/// # Errors
/// [`WorkerError::Config`] for an impossible configuration, others when the shared memory contradicts itself.
pub fn run(context: WorkerContext) -> Result<(), WorkerError> {
    run_with(context, CodeMemory::new(CODE_BYTES).ok())
}

/// As [`run`], with memory for translated code that was mapped before this process was confined.
///
/// # Errors
/// As [`run`].
#[allow(
    clippy::needless_pass_by_value,
    reason = "the context belongs to the worker for its life"
)]
pub fn run_with(mut context: WorkerContext, code: Option<CodeMemory>) -> Result<(), WorkerError> {
    let config: CpuConfig = context.config()?;
    if config.wasm {
        return quintet_wasm::worker::run(&context);
    }
    let model = Model::parse(&config.model).map_err(|e| WorkerError::Config(e.to_string()))?;
    let status = WorkerStatus::new(&context);
    status.set_state(WorkerState::Starting);
    let ends = Ends::new(&context.maps);
    // Decided by the coordinator: a confined process cannot look at the host's cores and quotas.
    let policy = if config.spin_nanos == 0 {
        SpinPolicy::NEVER
    } else {
        SpinPolicy::LONG
    };
    let broken = |what: String| WorkerError::Peer { peer: Role::Io, what };

    let clock = ends.clock();
    let (timer, arm) = TimerThread::start(clock.clone(), ends.doorbell(SleeperId::Vcpu(0)))
        .map_err(|e| WorkerError::Failed(format!("Cannot start the timer thread: {e}")))?;

    let sleeper = ends.sleeper(SleeperId::Vcpu(0), policy);
    let exit_word = ExitWord::shared(ends.view_mut(Region::doorbell(SleeperId::Vcpu(0))), 0);
    let profile = ends.profile_writer();
    let tracer = ends.tracer(Role::Cpu, context.generation);
    let io = IoClient::new(
        0,
        ends.command_producer(0).map_err(|e| broken(e.to_string()))?,
        ends.reply_reader(0),
        (0..MIRRORS).map(|n| ends.mirror_reader(n)).collect(),
        ends.decode_map_reader(),
        sleeper.clone(),
        ends.doorbell(SleeperId::Io),
        ends.doorbell(SleeperId::Vcpu(0)),
        status.clone(),
        profile.clone(),
        tracer.clone(),
    );
    let core = CoreComplex::new(CoreConfig {
        tsc_hz: model.tsc_hz(),
        unix_nanos: i128::from(config.rtc_base) * i128::from(NANOS_PER_SEC),
        ram: context.ram.layout(),
        phys_bits: crate::mmu::MAXPHYADDR,
        cmos: config.cmos.clone(),
    });
    let bus = MachineBus::new(
        core,
        io,
        clock,
        ends.wire_reader(),
        ends.code_map_writer(),
        ends.invalidation_reader().map_err(|e| broken(e.to_string()))?,
        ends.rom(),
        Vga::new(ends.vram_writer().map_err(|e| broken(e.to_string()))?),
        SpeakerLine::new(ends.speaker_writer(), ends.doorbell(SleeperId::Audio)),
        arm,
        context.ram.layout().total() / 4096,
    );
    let mut cpu = Box::new(Vcpu::new(context.ram.clone(), Box::new(bus), model, exit_word));
    cpu.profile = profile;
    cpu.tracer = tracer;
    if config.accel == Accel::Jit {
        cpu.jit = code.and_then(|code| Jit::new(code, jit::HOT));
        if let Some(jit) = &mut cpu.jit {
            jit.name_in(cpu.profile.clone());
        }
        if config.check_jit {
            cpu.trial = Some(Box::default());
        }
        if cpu.jit.is_none() {
            tracing::warn!(
                "this host cannot execute translated code (--accel jit): everything is interpreted"
            );
        }
    }
    let debugger = match config.debugger {
        Some(asked) => {
            let socket = context.host_fds.drain(..).next();
            let socket = socket
                .ok_or_else(|| WorkerError::Config("There is no socket for the debugger".to_owned()))?;
            cpu.enable_points();
            Some(Debugger::new(socket, asked.wait, &status))
        }
        None => None,
    };
    let shown = Published::new(&cpu);
    let runner = Runner {
        cpu,
        status: status.clone(),
        sleeper,
        ends,
        generation: 0,
        slept: false,
        debugger,
        _timer: timer,
        _shown: shown,
        told: Told::default(),
        tracer: 0,
    };
    status.set_ready();
    runner.run();
    status.set_state(WorkerState::Stopping);
    Ok(())
}

impl Runner {
    fn bus(&mut self) -> &mut MachineBus {
        let bus: &mut dyn core::any::Any = &mut *self.cpu.bus;
        bus.downcast_mut()
            .expect("the bus of this process is a MachineBus")
    }

    fn run(mut self) {
        while !self.status.stop_requested() {
            let tracer = self.status.tracer();
            if core::mem::replace(&mut self.tracer, tracer) != tracer {
                if tracer != 0 {
                    self.told.expect();
                }
                self.tell();
            }
            if !self.obey() {
                continue;
            }
            if core::mem::take(&mut self.slept) {
                self.cpu.exit_word.set();
            }
            // It comes back when a heartbeat is due, which the timer thread tells it by the exit word.
            let (begun, before) = (self.cpu.tracer.begin(), self.cpu.instructions);
            let exit = self.cpu.run(u64::MAX);
            let executed = self.cpu.instructions.wrapping_sub(before);
            self.cpu.tracer.end(Kind::Run, begun, executed);
            match exit {
                RunExit::Budget => {}
                RunExit::Idle => {
                    self.tell();
                    self.idle();
                }
                RunExit::Requested => {
                    self.beat();
                    self.tell();
                    self.requests();
                }
                RunExit::Held => {
                    if let Some(debugger) = &mut self.debugger {
                        debugger.held(&mut self.cpu, &self.status);
                    }
                }
                RunExit::Shutdown => {
                    self.report(GuestEvent::Reset(ResetCause::TripleFault));
                    self.await_change();
                }
            }
        }
    }

    /// Tells a debugger what is translated, if one listens or is on its way.
    fn tell(&mut self) {
        if let Some(jit) = &self.cpu.jit {
            self.told.tell(jit);
        }
    }

    fn beat(&self) {
        self.status.beat();
        let cpu = &self.cpu;
        tracing::trace!(
            rip = format_args!("{:#x}", cpu.rip()),
            instructions = cpu.instructions,
            "vCPU runs"
        );
    }

    /// Obeys the machine's state; whether the vCPU is to execute now.
    fn obey(&mut self) -> bool {
        let epoch = self.status.run_epoch();
        let state = self.status.machine_state();
        let wanted = self.status.reset_generation();
        let sent = self.status.debugger_sent();
        self.bus().obey(epoch, sent);
        if wanted != self.generation || self.generation == 0 {
            return self.start(wanted) && !self.debugger.as_ref().is_some_and(Debugger::holds);
        }
        if !self.obey_debugger(state == MachineState::Running) {
            return false;
        }
        match state {
            MachineState::Running => true,
            _ => {
                self.park(|_| false);
                false
            }
        }
    }

    /// Lets the debugger do what it wants; whether it lets the vCPU execute.
    fn obey_debugger(&mut self, running: bool) -> bool {
        let Some(debugger) = &mut self.debugger else {
            return true;
        };
        match debugger.serve(&mut self.cpu, &self.status, self.generation, running) {
            Turn::Run => return true,
            Turn::Hold => {
                let nap = debugger.nap(LONGEST);
                self.park_for(nap, |r| {
                    r.debugger.as_ref().is_some_and(|d| d.has_news(&r.status))
                });
            }
            Turn::Again => {
                self.beat();
                self.requests();
            }
            Turn::Sleep => self.idle(),
        }
        false
    }

    /// Starts the guest in reset generation `wanted` once io-worker has prepared it.
    fn start(&mut self, wanted: u32) -> bool {
        let boot = match self.ends.guest_start(wanted) {
            Ok(Some(boot)) => boot,
            Ok(None) => {
                self.park(|_| false);
                return false;
            }
            Err(error) => {
                tracing::debug!(%error, "boot state not read");
                self.park(|_| false);
                return false;
            }
        };
        let kind = match self.generation {
            0 => ResetKind::Cold,
            _ => ResetKind::Warm,
        };
        let now = self.bus().now();
        self.bus().restart(now, kind, boot.mode == EntryMode::Reset);
        self.cpu.reset();
        self.cpu.take_held();
        self.cpu.discard_code();
        boot::enter(&mut self.cpu, &boot);
        self.generation = wanted;
        self.cpu.tracer.instant(Kind::Start, wanted.into());
        self.status.set_reset_done(wanted);
        self.ends.doorbell(SleeperId::Coordinator).ring();
        true
    }

    /// HLT with nothing deliverable: sleeps until somebody rings or a device of our own is due.
    fn idle(&mut self) {
        self.bus().arm_timer(true);
        self.status.set_state(WorkerState::Parked);
        let before = self.cpu.profile.begin(Doing::Idle.line());
        let begun = self.cpu.tracer.begin();
        let until = self.bus().host_deadline().unwrap_or(HostTime::after(LONGEST));
        self.sleeper.rest(until.min(HostTime::after(LONGEST)));
        self.cpu.tracer.end(Kind::Idle, begun, 0);
        self.cpu.profile.resume(before);
        self.status.set_state(WorkerState::Running);
        self.slept = true;
    }

    /// Sleeps, saying so, until rung or for the longest time.
    fn park(&mut self, ready: impl Fn(&Self) -> bool) {
        self.park_for(LONGEST, ready);
    }

    /// As [`Self::park`], for at most `nanos` nanoseconds.
    fn park_for(&mut self, nanos: u64, ready: impl Fn(&Self) -> bool) {
        self.bus().arm_timer(true);
        self.status.set_state(WorkerState::Parked);
        let sleeper = self.sleeper.clone();
        let before = self.cpu.profile.begin(Doing::Idle.line());
        let begun = self.cpu.tracer.begin();
        sleeper.park(HostTime::after(nanos), || ready(self));
        self.cpu.tracer.end(Kind::Stands, begun, 0);
        self.cpu.profile.resume(before);
        self.status.set_state(WorkerState::Running);
        self.slept = true;
        // Nothing is executed now, but what was is to be seen.
        if self.bus().is_frame_begun() {
            self.cpu.close_vram();
        }
    }

    fn report(&self, event: GuestEvent) {
        self.status.report(event);
        self.ends.doorbell(SleeperId::Coordinator).ring();
    }

    /// After an end of the guest: nothing more is executed until the coordinator decides.
    fn await_change(&mut self) {
        let (generation, epoch) = (self.generation, self.status.run_epoch());
        while !self.status.stop_requested()
            && self.status.reset_generation() == generation
            && (self.status.run_epoch() == epoch || self.status.machine_state() == MachineState::Running)
        {
            self.park(|_| false);
        }
    }

    /// Carries out what the bus asked for.
    fn requests(&mut self) {
        while let Some(request) = self.bus().take_request() {
            match request {
                Request::Coordinator => {}
                Request::PowerOff => {
                    self.report(GuestEvent::PowerOff);
                    self.await_change();
                }
                Request::Reset(cause) => {
                    self.report(GuestEvent::Reset(match cause {
                        GuestReset::Port92 => ResetCause::Port92,
                        GuestReset::Cf9Soft | GuestReset::Cf9Hard => ResetCause::Cf9,
                    }));
                    self.await_change();
                }
                Request::Init => {
                    self.cpu.reset();
                    self.cpu.state.activity = Activity::WaitForSipi;
                }
                Request::Sipi(vector) => self.cpu.start_up(vector),
            }
        }
    }
}
