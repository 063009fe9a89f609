//! A running machine: the main loop that turns what happens into inputs of `protocol::lifecycle`, and carries out
//! what that answers.
//!
//! One thread owns all state and sleeps in one `poll` on the workers' pidfds, signals and an eventfd; helper
//! threads (spawner, start-up conversations, serial streams, control socket, doorbell) only send it events.

mod act;
pub mod attach;
mod by_hand;
mod confined;
mod crew;
mod fleet;
mod jobs;
pub mod media;
mod observe;
mod report;
mod requests;
mod shelf;
mod window;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use quintet_protocol::clock::ClockMaster;
use quintet_protocol::control::{BrokenReport, ErrorCode, MachineError, Request};
use quintet_protocol::doorbell::{Doorbell, SpinPolicy};
use quintet_protocol::handshake::{FileId, Mapped, Role};
use quintet_protocol::layout::{Ends, Region, SegmentSet, SleeperId};
use quintet_protocol::lifecycle::{Death, Input, Lifecycle, Outcome, Policy};
use quintet_protocol::payload::{Outgoing, TransportTrace};
use quintet_protocol::ring::Producer;
use quintet_protocol::shm::portable;
use quintet_protocol::status::{PeerState, StatusReader, StatusWord, StatusWriter};
use quintet_protocol::stream::{StreamReader, StreamWriter};
use quintet_protocol::time::HostTime;
use quintet_protocol::wasm::{JobReport, STDIN_STREAM};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::config::{Backend, FIRST_DEBUGCON_STREAM, MachineConfig, StreamTarget, UsageError};
use crate::control::server::Server;
use crate::gdb::{GdbArg, Relay};
use crate::metrics::{Asker, MetricsArg};
use crate::profile::{self, Profiling};
use crate::signals::Signals;
use crate::streams::{Intake, Outlet, Pump, Sink};
use crate::supervise::names;
use crate::supervise::start::{Heads, random_u64};
use crate::terminal::{RawTerminal, Typed};
use crate::trace::{self, Journal, Traced, Track};
use crate::wasm::{Jobs, Made, Maker, Source};
use crate::window_files::WindowFiles;
use attach::Awaited;
use confined::Confined;
use crew::Crew;
use fleet::Fleet;
use requests::Waiting;
use shelf::Shelf;

/// Traces of payloads that are kept.
const TRACES: usize = 16;

/// Something a helper thread has to say.
#[derive(Debug)]
pub enum Event {
    /// A start-up conversation is over.
    Started {
        /// Which worker.
        role: Role,
        /// Which of its processes.
        generation: u32,
        /// What it mapped, or why it must not run.
        result: Result<Mapped, String>,
    },
    /// A worker that is a thread has ended.
    ThreadEnded(Role, u32, Death),
    /// Somebody asks something through the control socket.
    ///
    /// A descriptor may have come with it; the last one is the socket.
    Request(Request, Option<OwnedFd>, OwnedFd),
    /// A job is ready to be executed, or never will be.
    Made(Box<Made>),
    /// How a module has travelled.
    Travelled(Box<TransportTrace>),
    /// A key at the terminal that is for us.
    Escape(Typed),
    /// A doorbell rang.
    Rung,
}

/// Wakes the main loop. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// One that nobody waits for yet.
    ///
    /// # Errors
    /// The host's, when it has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?)))
    }

    /// Makes the main loop look at its events.
    pub fn wake(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Forgets what has woken it; whoever sleeps on it looks at its reasons afterwards.
    pub fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }

    /// For sleeping on it.
    pub fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&*self.0, PollFlags::IN)
    }
}

/// What the main loop has of one worker.
#[derive(Debug)]
struct Seen {
    status: StatusReader,
    events: u32,
    last_death: String,
    /// Disk requests under way at that time.
    left_under_way: u32,
    /// What it said last of its peers' rings.
    faults: Option<(Role, u32)>,
    /// What others said of its own, in its present life.
    broken: Option<BrokenReport>,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    started: Instant,
    life: Lifecycle,
    fleet: Fleet,
    set: Arc<SegmentSet>,
    status: StatusWriter,
    clock: ClockMaster,
    doorbells: Vec<Doorbell>,
    seen: [Seen; 4],
    confined: Confined,
    /// What will not be heard has been told.
    told_sound: bool,
    ends: Ends,
    pump: Option<Pump>,
    events: Receiver<Event>,
    waker: Waker,
    waiting: Vec<Waiting>,
    /// The run epoch that the vCPUs have obeyed, as last seen.
    obeyed: u32,
    /// The guest's debugger holds the vCPUs, as last seen.
    debugged: bool,
    /// Workers for whose debuggers the guest waits.
    awaited: Vec<Awaited>,
    /// Diskettes and discs that are at hand.
    shelves: [Shelf; 2],
    /// What the window keeps for its user.
    window_files: Arc<WindowFiles>,
    /// Key presses asked for on the command line.
    keys: Producer,
    error: Option<MachineError>,
    /// How the newest payloads travelled.
    traces: Vec<TransportTrace>,
    /// What a machine for modules has to do.
    jobs: Option<Jobs>,
    /// Number of the job that it was started with.
    first: Option<u32>,
    /// What became of that.
    job: Option<JobReport>,
    next_look: Duration,
    outcome: Option<Outcome>,
    /// What happens here, for the timeline.
    journal: Journal,
}

/// Runs a machine to its end and answers the exit status.
///
/// # Errors
/// [`UsageError`] for whatever keeps it from starting.
pub fn run(config: MachineConfig, signals: &Signals) -> Result<u8, UsageError> {
    let payloads = config.payloads()?;
    let end = run_with(config, payloads, None, signals)?;
    Ok(end.outcome.exit_status())
}

/// How a machine ended.
#[derive(Debug)]
pub struct End {
    /// Why.
    pub outcome: Outcome,
    /// What its first module came to, if it had one that has ended.
    pub job: Option<JobReport>,
}

/// As [`run`], with what the guest is made of: payloads of a PC, or the first module of a machine for modules.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    mut config: MachineConfig,
    payloads: Vec<Outgoing>,
    first: Option<Source>,
    signals: &Signals,
) -> Result<End, UsageError> {
    let cannot = |what: &str, e: &dyn std::fmt::Display| UsageError(format!("Cannot {what}: {e}"));
    // What the user named is opened before anything is made.
    let mut sinks = vec![Sink::open(&config.serial)?];
    for console in &config.debugcon {
        sinks.push(Sink::open(&console.target)?);
    }
    let profile = config.profile.as_deref().map(profile::create).transpose()?;
    let trace = config.trace.as_deref().map(trace::create).transpose()?;
    let debugger = config.gdb.as_ref().map(GdbArg::listen).transpose()?;
    let metrics = config.metrics.as_ref().map(MetricsArg::listen).transpose()?;
    let window_files = match config.gpu.headless {
        true => WindowFiles::default(),
        false => WindowFiles::open(),
    };
    config.gpu.window = window_files.found();
    let (sender, events) = channel();
    let waker = Waker::new().map_err(|e| cannot("make an eventfd", &e))?;
    let server = Server::bind(&config.name).map_err(|e| UsageError(e.to_string()))?;

    let set = Arc::new(segments(&config)?);
    let maps = set
        .maps_of_coordinator()
        .map_err(|e| cannot("map the shared memory", &e))?;
    let heads = Heads::map(&set).map_err(|e| cannot("map the shared memory", &e))?;
    let ends = Ends::new(&maps);
    let own = maps
        .view_mut(FileId::Control(Role::Coordinator))
        .expect("our own file is writable");
    let status = StatusWriter::new(&own, Role::Coordinator);
    status.set_guest_memory(config.ram);
    let clock = ends.clock_master();

    // From here on files can be opened only as far as the coordinator's own confinement allows.
    let mut crew = Crew::assemble(&config, &window_files)?;
    let compiler = crew.compiler.take();
    let confined = std::mem::take(&mut crew.confined);
    let shelves = std::mem::take(&mut crew.shelves);
    let debugger = debugger
        .map(|listener| Relay::start(listener, status.clone(), ends.doorbell(SleeperId::Vcpu(0))))
        .transpose()
        .map_err(|e| cannot("start a thread", &e))?;
    let fleet = Fleet::new(
        &config,
        crew,
        Arc::clone(&set),
        heads,
        payloads,
        (sender.clone(), waker.clone()),
        debugger,
    )?;
    let policy = Policy {
        stable: config.stable_after,
        no_reboot: config.io.no_reboot,
        ends_with_cpu: config.io.no_reboot || config.cpu.check_jit,
        needs_gpu: !config.gpu.headless,
        by_hand: Role::WORKERS.map(|role| config.external.contains(&role)),
        ..Policy::default()
    };
    let seen = Role::WORKERS.map(|role| Seen {
        status: StatusReader::of(&maps, role),
        events: 0,
        last_death: String::new(),
        left_under_way: 0,
        faults: None,
        broken: None,
    });
    let guest = config.wasm.is_some();
    let pump = start_pump(&ends, sinks, guest).map_err(|e| cannot("start the serial streams", &e))?;
    let terminal = match config.serial {
        // A program is typed to in lines, as to any other on this terminal.
        StreamTarget::Stdio if !guest => RawTerminal::enter(),
        _ => RawTerminal::none(),
    };
    let input = if guest {
        let head = ends.view(Region::guest_in_head());
        StreamWriter::attach(ends.view_mut(Region::stream_in(STDIN_STREAM)), head, 0)
    } else {
        ends.stream_in_writer(0)
    };
    let mut input = input.map_err(|e| cannot("use the shared memory", &e))?;
    let _intake = if config.serial == StreamTarget::Stdio {
        let reader = ends.doorbell(if guest { SleeperId::Vcpu(0) } else { SleeperId::Io });
        let intake = Intake::start(input, reader, terminal.is_raw(), sender.clone(), waker.clone());
        Some(intake.map_err(|e| cannot("read standard input", &e))?)
    } else {
        input.end();
        None
    };
    let many = config.wasm.as_ref().is_some_and(|wasm| wasm.stay);
    let jobs = compiler.map(|compiler| Jobs::new(Maker::new(compiler, many, sender.clone(), waker.clone())));
    listen_for_doorbell(&ends, sender.clone(), waker.clone()).map_err(|e| cannot("start a thread", &e))?;
    let asker = Asker {
        events: sender.clone(),
        waker: waker.clone(),
    };
    // The name of its socket goes when this function ends.
    let _leftover = metrics
        .map(|listener| listener.start(asker))
        .transpose()
        .map_err(|e| cannot("start a thread", &e))?;
    server
        .start(sender, waker.clone())
        .map_err(|e| cannot("start a thread", &e))?;

    let keys = ends
        .lifecycle_to_producer(Role::Gpu)
        .map_err(|e| cannot("use the shared memory", &e))?;

    let traced = trace
        .map(|file| Traced::start(file, &ends))
        .transpose()
        .map_err(|e| cannot("trace", &e))?;
    let awaited = Awaited::of(&config.wait_for_debugger);
    let mut machine = Machine {
        life: Lifecycle::new(policy, set.instance()),
        started: Instant::now(),
        doorbells: ends.all_doorbells(),
        fleet,
        set,
        status,
        clock,
        seen,
        confined,
        told_sound: false,
        ends,
        pump: Some(pump),
        events,
        waker,
        waiting: Vec::new(),
        obeyed: 0,
        debugged: false,
        awaited,
        shelves,
        window_files: Arc::new(window_files),
        keys,
        error: None,
        traces: Vec::new(),
        jobs,
        first: None,
        job: None,
        next_look: Duration::ZERO,
        outcome: None,
        journal: traced.as_ref().map(Traced::journal).unwrap_or_default(),
        config,
    };
    let profiling = profile
        .map(|file| Profiling::start(file, machine.ends.profile_reader()))
        .transpose()
        .map_err(|e| cannot("start a thread", &e))?;
    machine.report_what_is_open();
    machine.begin_with(first);
    let outcome = machine.live(signals);
    if let Some(pump) = machine.pump.take() {
        pump.finish(Duration::from_secs(2));
    }
    drop(terminal);
    machine.keep_window();
    if let Some(Err(error)) = profiling.map(Profiling::finish) {
        eprintln!("quintet: Cannot write the profile: {error}");
    }
    machine.report_end(&outcome);
    if let Some(traced) = traced {
        traced.finish();
    }
    machine.refuse_jobs();
    Ok(End {
        outcome,
        job: machine.job.take(),
    })
}

/// Makes the shared memory.
fn segments(config: &MachineConfig) -> Result<SegmentSet, UsageError> {
    names::sweep_segments();
    let set = match config.backend {
        Backend::Memfd => SegmentSet::create(config.ram, random_u64()),
        Backend::Portable => {
            eprintln!("quintet: {}", portable::LIMITS);
            SegmentSet::create_portable(config.ram, random_u64(), &names::own_prefix())
        }
    };
    let set = set.and_then(|set| match config.wasm {
        Some(_) => set.with_memories(),
        None => Ok(set),
    });
    set.map_err(|e| {
        UsageError(format!(
            "{}; try a smaller --ram",
            quintet_protocol::handshake::worker::with_sources(&e)
        ))
    })
}

fn start_pump(ends: &Ends, mut sinks: Vec<Sink>, guest: bool) -> Result<Pump, Box<dyn std::error::Error>> {
    let mut outlets = Vec::new();
    if guest {
        // A module's standard output takes the place of the first serial line.
        let out = std::mem::replace(&mut sinks[0], Sink::None);
        for (n, sink) in [out, Sink::Stderr].into_iter().enumerate() {
            outlets.push(Outlet {
                reader: StreamReader::attach(
                    ends.view_mut(Region::guest_out_head(n)),
                    ends.view(Region::guest_out(n)),
                    0,
                )?,
                sink,
            });
        }
    }
    for (i, sink) in sinks.into_iter().enumerate() {
        // Stream 0 is the first serial line, 1 the second, which goes nowhere; then the debug consoles.
        let stream = if i == 0 {
            0
        } else {
            FIRST_DEBUGCON_STREAM as usize + i - 1
        };
        outlets.push(Outlet {
            reader: ends.stream_out_reader(stream)?,
            sink,
        });
    }
    outlets.push(Outlet {
        reader: ends.stream_out_reader(1)?,
        sink: Sink::None,
    });
    let writer = if guest { SleeperId::Vcpu(0) } else { SleeperId::Io };
    Ok(Pump::start(outlets, ends.doorbell(writer))?)
}

/// Turns rings of the coordinator's doorbell, a futex, into events of the main loop, which sleeps in `poll`.
fn listen_for_doorbell(ends: &Ends, events: Sender<Event>, waker: Waker) -> std::io::Result<()> {
    let sleeper = ends.sleeper(SleeperId::Coordinator, SpinPolicy::NEVER);
    std::thread::Builder::new()
        .name("doorbell".into())
        .spawn(move || {
            loop {
                let deadline = HostTime(HostTime::now().0 + 1_000_000_000);
                sleeper.park(deadline, || false);
                if events.send(Event::Rung).is_err() {
                    return;
                }
                waker.wake();
            }
        })?;
    Ok(())
}

impl Machine {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// From the first spawn to the last reaping.
    fn live(&mut self, signals: &Signals) -> Outcome {
        self.step(Input::Start);
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            self.sleep(signals);
            while let Some(number) = signals.take() {
                // The convention of shells for a process that ended by a signal.
                self.step(Input::Stop(Outcome::Asked(128 + number as u8)));
            }
            while let Ok(event) = self.events.try_recv() {
                self.take(event);
            }
            self.reap();
            self.observe();
            self.tell();
            self.look_at_workers();
            if let Some(limit) = self.config.time_limit
                && self.now() >= limit
            {
                self.step(Input::Stop(Outcome::TimeLimit));
            }
            self.step(Input::Tick);
            self.obey_window();
            self.look_at_jobs();
            self.answer_waiting();
        }
    }

    /// Says what the user should know of a machine that runs: one that cannot start says why and nothing else.
    fn tell(&mut self) {
        let runs = |role: &Role| self.life.peer(*role) == PeerState::Running;
        if !Role::WORKERS.iter().all(runs) {
            return;
        }
        if self.config.sandbox
            && let Some(line) = self.confined.tell()
        {
            tracing::warn!("{line}");
        }
        if !std::mem::replace(&mut self.told_sound, true) {
            self.config.audio.tell(self.config.gpu.headless);
        }
    }

    /// Sleeps until something happens or is due.
    fn sleep(&self, signals: &Signals) {
        let now = self.now();
        let limit = self.config.time_limit.filter(|_| self.life.outcome().is_none());
        let waiting = self.waiting.iter().map(|w| w.deadline).min();
        let due = [self.life.next_deadline(), limit, waiting, Some(self.next_look)];
        let due = due
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now + Duration::from_secs(1));
        let wait = due.saturating_sub(now);
        let wait = Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let mut fds = vec![self.waker.poll_fd(), PollFd::new(signals, PollFlags::IN)];
        fds.extend(
            self.fleet
                .pidfds()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let _ = poll(&mut fds, Some(&wait));
        self.waker.clear();
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started {
                role,
                generation,
                result,
            } => self.started(role, generation, result),
            Event::ThreadEnded(role, generation, death) => self.died(role, generation, death),
            Event::Request(request, file, socket) => self.request(request, file, socket),
            Event::Made(made) => self.made(*made),
            Event::Travelled(trace) => self.note(*trace),
            Event::Rung => {
                if let Some(pump) = &self.pump {
                    pump.nudge();
                }
            }
            Event::Escape(Typed::Quit) => self.step(Input::Stop(Outcome::Asked(0))),
            Event::Escape(Typed::Reset) => self.step(Input::Reset),
            Event::Escape(_) => {
                eprintln!(
                    "Ctrl-A x ends the machine, Ctrl-A r resets it, Ctrl-A Ctrl-A is a Ctrl-A for the guest"
                );
            }
        }
    }

    fn started(&mut self, role: Role, generation: u32, result: Result<Mapped, String>) {
        self.fleet.start_is_over(role, generation);
        match result {
            Ok(mapped) => {
                self.journal
                    .note(Track::Life(role), "started", &format!("{role}.{generation}"));
                let mut missing = mapped.unconfined;
                if self.config.sandbox && self.fleet.is_by_hand(role) {
                    missing.push(by_hand::GAP.to_owned());
                }
                self.confined.learn(role, missing);
                for arrived in &mapped.traces {
                    self.note(self.fleet.trace(role, arrived));
                }
            }
            Err(reason) => self.fleet.doom(role, generation, reason),
        }
    }

    fn reap(&mut self) {
        while let Some((role, generation, death)) = self.fleet.reap() {
            self.died(role, generation, death);
        }
    }

    /// Keeps how a payload travelled.
    fn note(&mut self, trace: TransportTrace) {
        self.traces.push(trace);
        let old = self.traces.len().saturating_sub(TRACES);
        self.traces.drain(..old);
    }

    fn died(&mut self, role: Role, generation: u32, death: Death) {
        self.journal.died(role, &death);
        if role == Role::Cpu {
            self.job_died(&death);
        }
        if self.life.outcome().is_none() && !self.life.is_replaced(role) {
            let (reason, words) = match &death {
                Death::Stopped => ("it ended without being asked to".to_owned(), Vec::new()),
                Death::Crashed(reason) => (reason.clone(), self.fleet.last_words(role)),
                Death::Config(_) => (String::new(), Vec::new()),
            };
            if !matches!(death, Death::Config(_)) {
                tracing::warn!("the {role} died: {reason}");
                for line in &words {
                    tracing::warn!("its last words: {line}");
                }
                let remedy = match self.fleet.is_by_hand(role) {
                    true => "`quintet status` shows the command for its successor",
                    false => "It is started again by itself",
                };
                let text = format!("The {role} died: {reason}");
                let error = MachineError::new(ErrorCode::WorkerCrashed, &text, remedy);
                self.error = Some(error.with_detail(&words.join("\n")));
                let left = self.seen[Role::Io.index() - 1]
                    .status
                    .load(StatusWord::DiskRequests);
                let seen = &mut self.seen[role.index() - 1];
                (seen.last_death, seen.left_under_way, seen.broken) = (reason, left, None);
            }
        }
        self.step(Input::Died(role, generation, death));
    }

    fn step(&mut self, input: Input) {
        let now = self.now();
        for action in self.life.step(now, input) {
            self.act(action);
        }
    }

    /// What the user should know before the machine runs.
    fn report_what_is_open(&self) {
        if self.config.single_process {
            tracing::info!("single process: nothing is confined, and a worker's crash is everybody's");
        } else if !self.config.sandbox {
            eprintln!(
                "quintet: WARNING: --no-sandbox: the workers are not confined; run only guests you trust"
            );
        }
    }

    fn report_end(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Config(text) => {
                let text = if text.is_empty() {
                    "the image cannot be booted"
                } else {
                    text
                };
                eprintln!("quintet: {text}");
            }
            Outcome::WorkerFailed { role, reason } => {
                eprintln!("quintet: the {role} failed for good: {reason}");
            }
            Outcome::TimeLimit => eprintln!("quintet: the time limit has passed"),
            Outcome::NoReboot(cause) => tracing::info!("the guest reset itself: {cause:?}"),
            Outcome::PoweredOff | Outcome::Asked(_) | Outcome::ExitPort(_) => {}
        }
    }
}
