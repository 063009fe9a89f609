//! The life of a machine and of its workers, as a state machine that touches nothing.
//!
//! What happened goes in as an [`Input`] with the time, what to do comes out as [`Action`]s. Processes, clocks
//! and files are the coordinator's affair, so that every path through a crash can be tested without
//! crashing anything (S3.100–S3.105, with the amendments for the io-worker and for resets that
//! `docs/lifecycle.md` describes).

mod backoff;
mod hang;
mod policy;

use core::time::Duration;

pub use backoff::{Backoff, Jitter};
pub use hang::{HangVerdict, HangWatch, Sample};
pub use policy::Policy;

use crate::handshake::Role;
use crate::status::{GuestEvent, MachineState, PeerState, ResetCause};

/// Time since the coordinator started.
pub type Now = Duration;

/// How a worker's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// In good order.
    Stopped,
    /// By a signal, a panic or an error that a restart may cure.
    Crashed(String),
    /// Because its configuration cannot work.
    Config(String),
}

/// Why the machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched it off.
    PoweredOff,
    /// The user or a signal asked for it; the number is the exit status to use.
    Asked(u8),
    /// The configuration cannot work.
    Config(String),
    /// A worker failed for good.
    WorkerFailed {
        /// Which.
        role: Role,
        /// How it ended the last time.
        reason: String,
    },
    /// The guest reset itself although `--no-reboot` was given.
    NoReboot(ResetCause),
    /// The guest wrote this to the exit port.
    ExitPort(u32),
    /// The time limit passed.
    TimeLimit,
}

impl Outcome {
    /// Exit status of the command (see `docs/lifecycle.md`).
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::PoweredOff => 0,
            Self::Asked(status) => *status,
            Self::Config(_) => 1,
            Self::WorkerFailed { .. } => 2,
            Self::NoReboot(_) => 3,
            Self::ExitPort(v) => (*v << 1) as u8 | 1,
            Self::TimeLimit => 124,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Start all workers.
    Start,
    /// A process that somebody else has started is there.
    Joined(Role, u32),
    /// A worker said that it is ready.
    Ready(Role, u32),
    /// A worker's process has been reaped.
    Died(Role, u32, Death),
    /// A debugger or a stop signal took hold of a worker, or let it go.
    Held(Role, bool),
    /// A worker makes no progress.
    Hung(Role, u32),
    /// A worker has carried out the reset with this number.
    ResetDone(Role, u32),
    /// The guest did something that concerns the whole machine.
    Guest(GuestEvent),
    /// The user pauses the machine.
    Pause,
    /// The user lets it run again. Also cuts every backoff short.
    Resume,
    /// The guest's debugger holds the vCPUs, or lets them go.
    Debugged(bool),
    /// The user resets the guest.
    Reset,
    /// A worker is to end in good order and to have a successor, who is started with something else.
    Replace(Role),
    /// End in good order.
    Stop(Outcome),
    /// Time has passed.
    Tick,
}

/// Something to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process for the role, or have somebody start it. The one before has been reaped.
    Spawn(Role, u32),
    /// Kill the process of this generation.
    Kill(Role, u32, &'static str),
    /// Set the stop bit of the role. It is clear again for the next one.
    RequestStop(Role),
    /// Let VM time run or stand.
    Clock(bool),
    /// Publish states, generations and the reset number, then set all exit words and ring all doorbells.
    Publish,
    /// All processes are gone.
    Finished(Outcome),
}

#[derive(Clone, Debug)]
struct Worker {
    state: PeerState,
    /// A process of this role exists, or is waited for.
    alive: bool,
    /// It is waited for: somebody else starts it.
    awaited: bool,
    /// It has been asked to make room for a successor.
    replaced: bool,
    generation: u32,
    held: bool,
    deaths: u32,
    ready_since: Option<Now>,
    deadline: Option<Now>,
    spawn_at: Option<Now>,
    reset_done: u32,
    backoff: Backoff,
    last_death: String,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    policy: Policy,
    machine: MachineState,
    workers: [Worker; 4],
    reset_generation: u32,
    reset_deadline: Option<Now>,
    paused: bool,
    /// By the guest's debugger; each of the two can hold the machine alone.
    debugged: bool,
    clock: bool,
    ending: Option<Ending>,
    finished: bool,
}

#[derive(Clone, Debug)]
struct Ending {
    outcome: Outcome,
    /// Index into [`STOP_ORDER`] of the group that has been asked to stop.
    group: usize,
    deadline: Now,
}

/// Who is asked to stop when: nobody loses the peer it still needs.
const STOP_ORDER: [&[Role]; 3] = [&[Role::Cpu], &[Role::Io], &[Role::Gpu, Role::Audio]];

/// Without which the guest cannot go on.
fn essential(role: Role) -> bool {
    matches!(role, Role::Cpu | Role::Io)
}

impl Lifecycle {
    /// A stopped machine. `seed` drives the jitter of the backoff.
    pub fn new(policy: Policy, seed: u64) -> Self {
        let worker = |i: usize| Worker {
            state: PeerState::Absent,
            alive: false,
            awaited: false,
            replaced: false,
            generation: 0,
            held: false,
            deaths: 0,
            ready_since: None,
            deadline: None,
            spawn_at: None,
            reset_done: 0,
            backoff: Backoff::new(
                policy.backoff_first,
                policy.backoff_max,
                Jitter::new(seed ^ i as u64),
            ),
            last_death: String::new(),
        };
        Self {
            policy,
            machine: MachineState::Stopped,
            workers: std::array::from_fn(worker),
            reset_generation: 0,
            reset_deadline: None,
            paused: false,
            debugged: false,
            clock: false,
            ending: None,
            finished: false,
        }
    }

    /// State of the machine.
    pub fn machine(&self) -> MachineState {
        self.machine
    }

    /// State of a worker.
    pub fn peer(&self, role: Role) -> PeerState {
        let w = self.worker(role);
        if w.held && w.alive {
            PeerState::Held
        } else {
            w.state
        }
    }

    /// Generation of the newest process of a role; 0 before the first.
    pub fn generation(&self, role: Role) -> u32 {
        self.worker(role).generation
    }

    /// Deaths of a role in a row.
    pub fn deaths(&self, role: Role) -> u32 {
        self.worker(role).deaths
    }

    /// Whether [`Input::Replace`] would be obeyed: the worker runs, nobody holds it, and the machine is not ending.
    pub fn can_be_replaced(&self, role: Role) -> bool {
        self.peer(role) == PeerState::Running && self.ending.is_none()
    }

    /// Whether a worker has been asked to make room for its successor.
    pub fn is_replaced(&self, role: Role) -> bool {
        self.worker(role).replaced
    }

    /// Number of the newest reset; 1 is the power-on.
    pub fn reset_generation(&self) -> u32 {
        self.reset_generation
    }

    /// Why the machine is ending, once it is.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.ending.as_ref().map(|e| &e.outcome)
    }

    /// When [`Input::Tick`] is due, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Now> {
        let workers = self
            .workers
            .iter()
            .flat_map(|w| [w.deadline, w.spawn_at])
            .flatten();
        let ending = self
            .ending
            .as_ref()
            .filter(|_| !self.finished)
            .map(|e| e.deadline);
        workers.chain(self.reset_deadline).chain(ending).min()
    }

    /// Takes note of something that happened and answers what to do.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Action> {
        let before = self.published();
        let mut out = Vec::new();
        self.apply(now, input, &mut out);
        self.advance(now, &mut out);
        self.settle(now);
        let run = self.machine == MachineState::Running
            && self.ending.is_none()
            && !Role::WORKERS
                .into_iter()
                .any(|r| essential(r) && self.worker(r).held);
        if run != self.clock {
            self.clock = run;
            // Stand still before anything else is seen; run after all of it.
            let at = if run { out.len() } else { 0 };
            out.insert(at, Action::Clock(run));
        }
        if self.published() != before {
            // Before any spawn, so that the new process finds its own generation.
            let at = out
                .iter()
                .take_while(|a| matches!(a, Action::Clock(false)))
                .count();
            out.insert(at, Action::Publish);
        }
        if let Some(e) = &self.ending
            && !self.finished
            && self.workers.iter().all(|w| !w.alive)
        {
            self.finished = true;
            out.push(Action::Finished(e.outcome.clone()));
        }
        out
    }

    fn apply(&mut self, now: Now, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Start if self.machine == MachineState::Stopped && self.ending.is_none() => {
                self.machine = MachineState::Starting;
                self.reset_generation = 1;
                for role in Role::WORKERS {
                    self.spawn(now, role, out);
                }
            }
            Input::Joined(role, generation) if self.awaits(role, generation) => {
                let patience = self.policy.by_hand_patience;
                let w = self.worker_mut(role);
                w.awaited = false;
                w.deadline = Some(now + patience);
            }
            Input::Ready(role, generation) if self.current(role, generation) => {
                let w = self.worker_mut(role);
                w.state = PeerState::Running;
                w.ready_since = Some(now);
                w.deadline = None;
            }
            Input::Died(role, generation, death) if self.current(role, generation) => {
                self.died(now, role, death);
            }
            Input::Held(role, held) => self.worker_mut(role).held = held,
            Input::Hung(role, generation) if self.current(role, generation) => {
                self.worker_mut(role).state = PeerState::Hung;
                out.push(Action::Kill(role, generation, "it made no progress"));
            }
            Input::ResetDone(role, generation) => self.worker_mut(role).reset_done = generation,
            Input::Guest(event) => self.guest(now, event),
            Input::Pause => self.paused = true,
            Input::Resume => {
                self.paused = false;
                for w in &mut self.workers {
                    w.backoff.reset();
                    w.spawn_at = w.spawn_at.map(|_| now);
                }
            }
            Input::Debugged(holds) => self.debugged = holds,
            Input::Reset => self.reset(now),
            Input::Replace(role) if self.can_be_replaced(role) => {
                let patience = self.patience(&[role]);
                let w = self.worker_mut(role);
                (w.state, w.replaced) = (PeerState::Restarting, true);
                w.deadline = Some(now + patience);
                out.push(Action::RequestStop(role));
            }
            Input::Stop(outcome) => self.end(now, outcome),
            // Messages of processes that are gone, and a second start (S3.103).
            Input::Start
            | Input::Replace(_)
            | Input::Joined(..)
            | Input::Ready(..)
            | Input::Died(..)
            | Input::Hung(..)
            | Input::Tick => {}
        }
    }

    fn guest(&mut self, now: Now, event: GuestEvent) {
        match event {
            GuestEvent::PowerOff => self.end(now, Outcome::PoweredOff),
            GuestEvent::ExitPort(value) => self.end(now, Outcome::ExitPort(value)),
            GuestEvent::BadImage => self.end(now, Outcome::Config(String::new())),
            // By the debugger, that is.
            GuestEvent::Reset(ResetCause::User) => self.reset(now),
            GuestEvent::Reset(cause) if self.policy.no_reboot => self.end(now, Outcome::NoReboot(cause)),
            GuestEvent::Reset(_) => self.reset(now),
        }
    }

    fn reset(&mut self, now: Now) {
        if self.ending.is_some() || matches!(self.machine, MachineState::Stopped | MachineState::Failed) {
            return;
        }
        self.reset_generation += 1;
        self.reset_deadline = Some(now + self.ack());
    }

    /// How long a reset may take.
    fn ack(&self) -> Duration {
        self.policy.patience(self.policy.ack, &[Role::Cpu, Role::Io])
    }

    fn died(&mut self, now: Now, role: Role, death: Death) {
        let policy = self.policy;
        let ending = self.ending.is_some();
        let w = self.worker_mut(role);
        (w.alive, w.awaited) = (false, false);
        let replaced = std::mem::take(&mut w.replaced);
        w.held = false;
        w.deadline = None;
        let stable = w
            .ready_since
            .take()
            .is_some_and(|since| now.saturating_sub(since) >= policy.stable);
        if ending {
            w.state = PeerState::Absent;
            return;
        }
        if replaced {
            // It did as it was told, however it ended.
            w.spawn_at = Some(now);
            return;
        }
        let reason = match death {
            Death::Stopped => "it ended without being asked to".to_owned(),
            Death::Crashed(reason) => reason,
            // What worked for a predecessor may work again: a display, a file.
            Death::Config(text) if w.generation > 1 => text,
            Death::Config(text) => {
                w.state = PeerState::Failed;
                return self.end(now, Outcome::Config(text));
            }
        };
        w.last_death = reason.clone();
        w.deaths = if stable { 1 } else { w.deaths + 1 };
        let last = role == Role::Cpu && policy.ends_with_cpu;
        if w.deaths >= policy.deaths || last {
            w.state = PeerState::Failed;
            if essential(role) || (role == Role::Gpu && policy.needs_gpu) {
                self.end(now, Outcome::WorkerFailed { role, reason });
            }
            return;
        }
        w.state = PeerState::Restarting;
        w.spawn_at = Some(now + w.backoff.next_delay());
        if role == Role::Cpu {
            // Its state died with it: the guest starts anew, its RAM and CMOS as they are.
            self.reset_generation += 1;
            self.reset_deadline = None;
        }
    }

    /// What is due at `now`.
    fn advance(&mut self, now: Now, out: &mut Vec<Action>) {
        for role in Role::WORKERS {
            let w = self.worker_mut(role);
            if w.deadline.is_some_and(|d| d <= now) {
                w.deadline = None;
                let generation = w.generation;
                let what = match w.replaced {
                    true => "it did not end in time",
                    false => "it did not become ready in time",
                };
                if !w.held {
                    out.push(Action::Kill(role, generation, what));
                }
            }
            if self.worker(role).spawn_at.is_some_and(|at| at <= now) && self.ending.is_none() {
                self.spawn(now, role, out);
            }
        }
        if self.reset_deadline.is_some_and(|d| d <= now) {
            self.reset_deadline = None;
            let both = [Role::Io, Role::Cpu];
            // Each needs the other for it; they are given the time anew when both are there.
            let alone = both.into_iter().any(|role| self.worker(role).awaited);
            for role in both.into_iter().filter(|_| !alone) {
                let w = self.worker(role);
                if w.alive && !w.held && w.reset_done != self.reset_generation {
                    out.push(Action::Kill(
                        role,
                        w.generation,
                        "it did not carry out a reset in time",
                    ));
                    break;
                }
            }
        }
        self.advance_ending(now, out);
    }

    fn advance_ending(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(mut ending) = self.ending.take() else {
            return;
        };
        if ending.group == usize::MAX {
            ending.group = 0;
            ending.deadline = now + self.patience(STOP_ORDER[0]);
            out.extend(STOP_ORDER[0].iter().map(|&r| Action::RequestStop(r)));
        }
        while let Some(group) = STOP_ORDER.get(ending.group) {
            if group.iter().any(|&r| self.worker(r).alive) {
                if now < ending.deadline {
                    break;
                }
                for &role in *group {
                    let w = self.worker(role);
                    if w.alive {
                        out.push(Action::Kill(role, w.generation, "it did not end in time"));
                    }
                }
                // Killed processes are reaped soon; look again then, or kill again.
                ending.deadline = now + self.policy.stop;
                break;
            }
            ending.group += 1;
            if let Some(next) = STOP_ORDER.get(ending.group) {
                ending.deadline = now + self.patience(next);
                out.extend(next.iter().map(|&r| Action::RequestStop(r)));
            }
        }
        self.ending = Some(ending);
    }

    /// How long a group may take to stop.
    fn patience(&self, group: &[Role]) -> Duration {
        let usual = match group.contains(&Role::Io) && self.peer(Role::Io) == PeerState::Running {
            true => self.policy.flush,
            false => self.policy.stop,
        };
        self.policy.patience(usual, group)
    }

    /// The machine's state from its parts.
    fn settle(&mut self, now: Now) {
        if let Some(e) = &self.ending {
            self.machine = match e.outcome {
                Outcome::PoweredOff | Outcome::ExitPort(_) => MachineState::PoweredOff,
                Outcome::WorkerFailed { .. } | Outcome::Config(_) => MachineState::Failed,
                _ => MachineState::Stopped,
            };
            return;
        }
        if self.machine == MachineState::Stopped {
            return;
        }
        let running = |r: Role| self.worker(r).state == PeerState::Running;
        let first_start = self.machine == MachineState::Starting
            && Role::WORKERS
                .into_iter()
                .any(|r| self.worker(r).state == PeerState::Starting);
        if first_start {
            return;
        }
        if !running(Role::Cpu) || !running(Role::Io) {
            self.machine = if self.machine == MachineState::Starting {
                self.machine
            } else {
                MachineState::Restarting
            };
            return;
        }
        let reset_done = [Role::Cpu, Role::Io]
            .into_iter()
            .all(|r| self.worker(r).reset_done == self.reset_generation);
        if !reset_done {
            self.machine = MachineState::Resetting;
            if self.reset_deadline.is_none() {
                self.reset_deadline = Some(now + self.ack());
            }
            return;
        }
        let all = Role::WORKERS.into_iter().all(running);
        self.reset_deadline = None;
        if all {
            self.workers.iter_mut().for_each(|w| w.backoff.reset());
        }
        self.machine = if self.paused || self.debugged {
            MachineState::Paused
        } else {
            MachineState::Running
        };
    }

    fn spawn(&mut self, now: Now, role: Role, out: &mut Vec<Action>) {
        let start = self.policy.start;
        let by_hand = self.policy.by_hand[role.index() - 1];
        let w = self.worker_mut(role);
        w.generation += 1;
        (w.alive, w.awaited) = (true, by_hand);
        w.state = PeerState::Starting;
        w.spawn_at = None;
        // A person has all the time in the world.
        w.deadline = (!by_hand).then_some(now + start);
        w.ready_since = None;
        w.reset_done = 0;
        out.push(Action::Spawn(role, w.generation));
    }

    fn end(&mut self, now: Now, outcome: Outcome) {
        if self.ending.is_none() {
            for w in &mut self.workers {
                w.spawn_at = None;
                if std::mem::take(&mut w.awaited) {
                    // Nobody is there who could end.
                    (w.alive, w.state) = (false, PeerState::Absent);
                }
            }
            self.ending = Some(Ending {
                outcome,
                group: usize::MAX,
                deadline: now,
            });
        }
    }

    /// What [`Action::Publish`] publishes.
    fn published(&self) -> (MachineState, u32, [(PeerState, u32); 4]) {
        let peers = Role::WORKERS.map(|r| (self.peer(r), self.generation(r)));
        (self.machine, self.reset_generation, peers)
    }

    /// Whether this process of a role is to be started by somebody else, and has not been.
    pub fn awaits(&self, role: Role, generation: u32) -> bool {
        self.current(role, generation) && self.worker(role).awaited
    }

    fn current(&self, role: Role, generation: u32) -> bool {
        let w = self.worker(role);
        w.alive && w.generation == generation
    }

    fn worker(&self, role: Role) -> &Worker {
        &self.workers[role.index() - 1]
    }

    fn worker_mut(&mut self, role: Role) -> &mut Worker {
        &mut self.workers[role.index() - 1]
    }
}

#[cfg(test)]
mod tests;
