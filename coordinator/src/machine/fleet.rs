//! The workers as what they run in: processes, forked here or started by hand, or threads with `--single-process`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use quintet_protocol::handshake::Role;
use quintet_protocol::handshake::confine::EXIT_TRAPPED;
use quintet_protocol::handshake::worker::{EXIT_CONFIG, EXIT_ORPHANED, EXIT_STOPPED};
use quintet_protocol::layout::SegmentSet;
use quintet_protocol::lifecycle::{Death, HangVerdict, HangWatch, Sample};
use quintet_protocol::payload::{Outgoing, TransferError, TransportTrace, send_fd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::crew::Crew;
use crate::config::{MachineConfig, UsageError};
use crate::gdb::Relay;
use crate::single::Threads;
use crate::supervise::log::{LastWords, follow};
use crate::supervise::spawner::Spawner;
use crate::supervise::start::{Begun, Common, Heads, Listener, Plan, admit, begin, unblock};
use crate::supervise::startdir::StartDir;

/// A process that lives.
#[derive(Debug)]
struct Living {
    generation: u32,
    origin: Origin,
    pidfd: OwnedFd,
    server: String,
    /// Its start-up conversation goes on.
    starting: bool,
    /// Why it is being killed.
    doom: Option<String>,
    log: Option<JoinHandle<()>>,
}

/// Where a process comes from.
#[derive(Debug)]
enum Origin {
    /// Forked here.
    Child(Child),
    /// Started by hand; its number. Its parent reaps it.
    ByHand(u32),
}

impl Origin {
    fn pid(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::ByHand(pid) => *pid,
        }
    }
}

/// One role.
#[derive(Debug)]
struct Slot {
    plan: Plan,
    /// Somebody else starts its processes.
    by_hand: bool,
    living: Option<Living>,
    words: LastWords,
    watch: HangWatch,
}

/// All workers.
#[derive(Debug)]
pub(super) struct Fleet {
    kind: Kind,
    spawner: Spawner,
    /// Our end of the socket for orders to the cpu-worker, when it runs modules; a new one for each life, so that no
    /// order for one reaches its successor.
    orders: Option<OwnedFd>,
    modules: bool,
    /// Between the guest's debugger and the cpu-worker.
    debugger: Option<Relay>,
    hang_timeout: Duration,
}

#[derive(Debug)]
enum Kind {
    Processes(Box<Processes>),
    Threads(Box<Threads>),
}

#[derive(Debug)]
struct Processes {
    common: Arc<Common>,
    slots: [Slot; 4],
    start_dir: StartDir,
    listener: Listener,
    /// Its closing tells every worker that we are gone.
    _lifeline: OwnedFd,
}

impl Fleet {
    /// Prepares the workers of a machine; none is started.
    pub(super) fn new(
        config: &MachineConfig,
        crew: Crew,
        set: Arc<SegmentSet>,
        heads: Heads,
        payloads: Vec<Outgoing>,
        listener: Listener,
        debugger: Option<Relay>,
    ) -> Result<Self, UsageError> {
        let hang_timeout = config.hang_timeout;
        let Crew {
            plans,
            binaries,
            spawner,
            ..
        } = crew;
        let cannot = |what: &str, e: &dyn std::fmt::Display| UsageError(format!("Cannot {what}: {e}"));
        let fleet = move |kind| Self {
            kind,
            spawner,
            orders: None,
            modules: config.wasm.is_some(),
            debugger,
            hang_timeout,
        };
        let Some(binaries) = binaries else {
            let (events, waker) = listener;
            let threads = Threads::new(set, payloads, plans, events, waker);
            return Ok(fleet(Kind::Threads(Box::new(threads))));
        };
        let (parent_pipe, lifeline) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| cannot("make a pipe", &e))?;
        let slots = plans.map(|plan| Slot {
            by_hand: config.external.contains(&plan.role),
            plan,
            living: None,
            words: LastWords::default(),
            watch: HangWatch::new(hang_timeout),
        });
        let processes = Processes {
            common: Arc::new(Common {
                set,
                heads,
                binaries,
                payloads,
                parent_pipe,
            }),
            slots,
            start_dir: StartDir::new(),
            listener,
            _lifeline: lifeline,
        };
        Ok(fleet(Kind::Processes(Box::new(processes))))
    }

    /// Starts a worker. The one before has been reaped. Does nothing for one that is started by hand.
    pub(super) fn spawn(&mut self, role: Role, generation: u32) -> std::io::Result<()> {
        if self.is_by_hand(role) {
            return Ok(());
        }
        let theirs = self.attach(role)?;
        match &mut self.kind {
            Kind::Processes(p) => p.spawn(role, generation, theirs, &self.spawner, self.hang_timeout),
            Kind::Threads(t) => t.spawn(role, generation, theirs),
        }
    }

    /// Whether somebody else starts this worker.
    pub(super) fn is_by_hand(&self, role: Role) -> bool {
        match &self.kind {
            Kind::Processes(p) => p.slots[role.index() - 1].by_hand,
            Kind::Threads(_) => false,
        }
    }

    /// Where the program of a worker is.
    pub(super) fn program(&self, role: Role) -> Option<PathBuf> {
        match &self.kind {
            Kind::Processes(p) => Some(p.common.binaries.path(role)),
            Kind::Threads(_) => None,
        }
    }

    /// Takes the process `pid`, which asks through `socket`, as a worker. It was found to be the one that is waited for.
    ///
    /// # Errors
    /// The host's, also when the process has gone; nothing has changed then.
    pub(super) fn admit(
        &mut self,
        role: Role,
        generation: u32,
        pid: Pid,
        socket: &OwnedFd,
    ) -> std::io::Result<()> {
        let theirs = self.attach(role)?;
        match &mut self.kind {
            Kind::Processes(p) => p.admit(role, generation, theirs, (pid, socket), self.hang_timeout),
            Kind::Threads(_) => Err(std::io::Error::other("the workers are threads")),
        }
    }

    /// The end of a socket that a worker is given, if there is something to tell it in its life.
    fn attach(&mut self, role: Role) -> std::io::Result<Option<OwnedFd>> {
        let mut theirs = None;
        if self.modules && role == Role::Cpu {
            let (ours, orders) = socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None,
            )?;
            self.orders = Some(ours);
            theirs = Some(orders);
        }
        if let Some(relay) = &self.debugger
            && role == Role::Cpu
        {
            theirs = Some(relay.attach()?);
        }
        Ok(theirs)
    }

    /// Kills a worker; `why` becomes the reason of its death. A thread cannot be killed.
    pub(super) fn doom(&mut self, role: Role, generation: u32, why: String) {
        match &mut self.kind {
            Kind::Processes(p) => p.doom(role, generation, why),
            Kind::Threads(t) => t.give_up_on(role, generation, why),
        }
    }

    /// Has the successors of a worker started with another configuration, and with `file` in place of host descriptor `at`: of those
    /// that are there, `replaced` are given up.
    pub(super) fn change_plan(
        &mut self,
        role: Role,
        config: Vec<u8>,
        (at, replaced): (usize, usize),
        file: Option<OwnedFd>,
    ) {
        let plan = match &mut self.kind {
            Kind::Processes(p) => &mut p.slot(role).plan,
            Kind::Threads(t) => t.plan(role),
        };
        plan.config = config;
        plan.host_fds.splice(at..at + replaced, file);
    }

    /// Sends an order to the cpu-worker.
    pub(super) fn order(&self, message: &[u8], fd: BorrowedFd<'_>) -> Result<(), TransferError> {
        match &self.orders {
            Some(socket) => send_fd(socket, message, fd),
            None => Err(TransferError::Closed),
        }
    }

    /// A start-up conversation has ended.
    pub(super) fn start_is_over(&mut self, role: Role, generation: u32) {
        if let Kind::Processes(p) = &mut self.kind
            && let Some(living) = p.slot(role).living.as_mut()
            && living.generation == generation
            && living.starting
        {
            living.starting = false;
            p.start_dir.leave();
        }
    }

    /// The next worker that has died.
    pub(super) fn reap(&mut self) -> Option<(Role, u32, Death)> {
        match &mut self.kind {
            Kind::Processes(p) => Role::WORKERS.into_iter().find_map(|role| p.reap(role)),
            Kind::Threads(_) => None,
        }
    }

    /// The pidfds to poll.
    pub(super) fn pidfds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let slots: &[Slot] = match &self.kind {
            Kind::Processes(p) => &p.slots,
            Kind::Threads(_) => &[],
        };
        slots
            .iter()
            .filter_map(|s| s.living.as_ref())
            .map(|l| l.pidfd.as_fd())
    }

    /// The process of a worker; our own for a thread.
    pub(super) fn pid(&self, role: Role) -> Option<u32> {
        match &self.kind {
            Kind::Processes(p) => p.slots[role.index() - 1].living.as_ref().map(|l| l.origin.pid()),
            Kind::Threads(_) => Some(std::process::id()),
        }
    }

    /// The process to watch for hangs; `None` for a thread, which may be under a debugger at any time.
    pub(super) fn pid_to_watch(&self, role: Role) -> Option<u32> {
        matches!(self.kind, Kind::Processes(_))
            .then(|| self.pid(role))
            .flatten()
    }

    /// How often to look.
    pub(super) fn look_interval(&self) -> Duration {
        HangWatch::new(self.hang_timeout).interval()
    }

    /// What follows from a look at a worker.
    pub(super) fn judge(&mut self, role: Role, sample: Sample) -> HangVerdict {
        match &mut self.kind {
            Kind::Processes(p) => p.slot(role).watch.look(sample),
            Kind::Threads(_) => HangVerdict::Well,
        }
    }

    /// The way of a payload to `role`, what was seen of it here before what `arrived` says.
    pub(super) fn trace(&self, role: Role, arrived: &TransportTrace) -> TransportTrace {
        let mut whole = TransportTrace::new(format!("{} -> {role}", arrived.name));
        if let Kind::Processes(p) = &self.kind
            && let Some(sent) = p.common.payloads.iter().find(|p| p.kind().text() == arrived.name)
        {
            whole.join(sent.trace());
        }
        whole.join(arrived);
        whole
    }

    /// What a worker that died had printed.
    pub(super) fn last_words(&self, role: Role) -> Vec<String> {
        match &self.kind {
            Kind::Processes(p) => p.slots[role.index() - 1].words.all(),
            Kind::Threads(_) => Vec::new(),
        }
    }
}

impl Processes {
    fn slot(&mut self, role: Role) -> &mut Slot {
        &mut self.slots[role.index() - 1]
    }

    fn spawn(
        &mut self,
        role: Role,
        generation: u32,
        orders: Option<OwnedFd>,
        spawner: &Spawner,
        hang_timeout: Duration,
    ) -> std::io::Result<()> {
        self.start_dir.enter()?;
        let plan = &self.slots[role.index() - 1].plan;
        let begun = begin(
            &self.common,
            plan,
            orders,
            generation,
            spawner,
            self.listener.clone(),
        );
        let Begun { mut spawned, server } = match begun {
            Ok(begun) => begun,
            Err(e) => {
                self.start_dir.leave();
                return Err(e);
            }
        };
        let (words, log) = match spawned.child.stderr.take() {
            Some(stderr) => follow(role, generation, stderr),
            None => (LastWords::default(), None),
        };
        let slot = self.slot(role);
        slot.words = words;
        slot.watch = HangWatch::new(hang_timeout);
        slot.living = Some(Living {
            generation,
            origin: Origin::Child(spawned.child),
            pidfd: spawned.pidfd,
            server,
            starting: true,
            doom: None,
            log,
        });
        Ok(())
    }

    fn admit(
        &mut self,
        role: Role,
        generation: u32,
        orders: Option<OwnedFd>,
        (pid, socket): (Pid, &OwnedFd),
        hang_timeout: Duration,
    ) -> std::io::Result<()> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // Who has hung up may be dead, and his number another's.
        if hung_up(socket) {
            return Err(std::io::Error::other("the process has gone"));
        }
        self.start_dir.enter()?;
        let pid = pid.as_raw_pid().unsigned_abs();
        let plan = &self.slots[role.index() - 1].plan;
        let admitted = admit(
            &self.common,
            plan,
            orders,
            generation,
            (pid, socket),
            self.listener.clone(),
        );
        let server = admitted.inspect_err(|_| self.start_dir.leave())?;
        let slot = self.slot(role);
        // What it prints is read by who has started it.
        slot.words = LastWords::default();
        slot.watch = HangWatch::patient(hang_timeout);
        slot.living = Some(Living {
            generation,
            origin: Origin::ByHand(pid),
            pidfd,
            server,
            starting: true,
            doom: None,
            log: None,
        });
        Ok(())
    }

    fn doom(&mut self, role: Role, generation: u32, why: String) {
        if let Some(living) = self.slot(role).living.as_mut()
            && living.generation == generation
        {
            living.doom.get_or_insert(why);
            let _ = pidfd_send_signal(&living.pidfd, Signal::KILL);
        }
    }

    fn reap(&mut self, role: Role) -> Option<(Role, u32, Death)> {
        let slot = &mut self.slots[role.index() - 1];
        let living = slot.living.as_ref()?;
        let mut fds = [PollFd::new(&living.pidfd, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if !matches!(poll(&mut fds, Some(&at_once)), Ok(1)) {
            return None;
        }
        let mut living = slot.living.take()?;
        let status = match &mut living.origin {
            Origin::Child(child) => Some(child.wait()),
            Origin::ByHand(_) => None,
        };
        if living.starting {
            unblock(&living.server);
            self.start_dir.leave();
        }
        // The pipe is closed with the process, so this ends.
        if let Some(log) = living.log.take() {
            let _ = log.join();
        }
        let death = match status {
            Some(Ok(status)) => death(status, living.doom, slot.words.last()),
            Some(Err(e)) => Death::Crashed(format!("its end could not be told: {e}")),
            None => Death::Crashed(living.doom.unwrap_or_else(|| BY_HAND.to_owned())),
        };
        Some((role, living.generation, death))
    }
}

/// All that is known of the end of a process that is not our child.
const BY_HAND: &str = "it was started by hand, so only who did that knows its exit status";

/// Whether the other end of a socket is closed.
fn hung_up(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    !matches!(poll(&mut fds, Some(&at_once)), Ok(0))
}

/// What an exit status means.
fn death(status: ExitStatus, doom: Option<String>, last_word: Option<String>) -> Death {
    let word = last_word.unwrap_or_default();
    let said = |otherwise: &str| {
        if word.is_empty() {
            otherwise.to_owned()
        } else {
            word.clone()
        }
    };
    if let Some(why) = doom {
        return Death::Crashed(why);
    }
    if let Some(signal) = status.signal() {
        let trapped = if signal == libc::SIGSYS {
            ", for a system call that its sandbox does not allow"
        } else {
            ""
        };
        return Death::Crashed(format!("killed by signal {signal}{trapped}"));
    }
    match status.code() {
        Some(c) if c == i32::from(EXIT_STOPPED) => Death::Stopped,
        Some(c) if c == i32::from(EXIT_CONFIG) => Death::Config(said("its configuration cannot work")),
        Some(c) if c == i32::from(EXIT_ORPHANED) => Death::Crashed("it believed us dead".to_owned()),
        Some(EXIT_TRAPPED) => Death::Crashed(said("a system call is not allowed by the sandbox")),
        Some(c) => Death::Crashed(said(&format!("exit status {c}"))),
        None => Death::Crashed("it ended in an unknown way".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, word: Option<&str>) -> Death {
        death(ExitStatus::from_raw(code << 8), None, word.map(str::to_owned))
    }

    #[test]
    fn exit_statuses_mean_what_workers_mean_by_them() {
        assert_eq!(exit(0, None), Death::Stopped);
        assert_eq!(
            exit(78, Some("no such model")),
            Death::Config("no such model".into())
        );
        assert_eq!(exit(70, Some("broken")), Death::Crashed("broken".into()));
        assert_eq!(exit(70, None), Death::Crashed("exit status 70".into()));
        let trapped = exit(
            EXIT_TRAPPED,
            Some("system call 257 (openat) is not allowed by the sandbox"),
        );
        assert_eq!(
            trapped,
            Death::Crashed("system call 257 (openat) is not allowed by the sandbox".into())
        );
    }

    #[test]
    fn a_signal_is_named_and_a_reason_of_ours_comes_first() {
        assert_eq!(
            death(ExitStatus::from_raw(9), None, None),
            Death::Crashed("killed by signal 9".into())
        );
        let doomed = death(
            ExitStatus::from_raw(9),
            Some("it hung".into()),
            Some("word".into()),
        );
        assert_eq!(doomed, Death::Crashed("it hung".into()));
    }
}
