//! The one thread that starts processes.
//!
//! The kernel's parent-death signal fires when the *thread* that forked ends, so all children are forked by a thread
//! that lives as long as the process. A child sets the signal, and then compares its parent with the one it was told: the
//! parent may have died in between.
#![allow(unsafe_code, reason = "the steps between fork and exec")]

use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quintet_protocol::handshake::Network;
use quintet_protocol::handshake::confine::{drop_capabilities, network};
use rustix::process::{Pid, PidfdFlags};

use crate::signals;

/// Longest time from an order to a process that executes its file. It covers a host that swaps.
const DEADLINE: Duration = Duration::from_secs(20);

/// Held while a process is being started. `Command::spawn` comes back when its pipe to the child ends, and a fork
/// that never executes anything, as the janitor is, would keep a copy of that pipe open.
static FORK: Mutex<()> = Mutex::new(());

/// Waits until no process is being started, and lets none begin while the answer lives.
pub(super) fn one_at_a_time() -> MutexGuard<'static, ()> {
    // There is nothing in it that a panic could have left half done.
    FORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process to start.
#[derive(Debug)]
pub struct Order {
    /// The executable, opened before.
    pub binary: Arc<File>,
    /// Name that it is listed by.
    pub name: &'static str,
    /// Arguments.
    pub args: Vec<String>,
    /// Its standard input; nothing without one.
    pub input: Option<OwnedFd>,
    /// Whether its standard output is a pipe to here; otherwise it goes nowhere.
    pub answers: bool,
    /// Descriptors that it inherits under their numbers here; closed here once it runs.
    pub inherit: Vec<OwnedFd>,
    /// Log filter.
    pub log: String,
    /// Whether it will be confined: then a panic must not look for symbols in files.
    pub confined: bool,
}

/// A process that runs.
#[derive(Debug)]
pub struct Spawned {
    /// Its handle, for reaping; the standard error is piped.
    pub child: Child,
    /// Readable once it is dead.
    pub pidfd: OwnedFd,
}

type Job = (Order, Sender<std::io::Result<Spawned>>);

/// The spawning thread. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Spawner {
    jobs: Sender<Job>,
    network: Network,
}

impl Spawner {
    /// Starts the thread. It ends with the process, never before. If `empty` is set and this process is privileged, the thread lives in a network
    /// namespace with nothing in it, and so do its children, and all of them are without privileges.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn start(empty: bool) -> std::io::Result<Self> {
        let (jobs, orders) = channel::<Job>();
        let (say, said) = channel();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                let _ = say.send(if empty { live_alone() } else { Network::Leave });
                for (order, answer) in orders {
                    if let Err(late) = answer.send(spawn(order))
                        && let Ok(mut spawned) = late.0
                    {
                        // Whoever ordered it has given up.
                        let _ = spawned.child.kill();
                        let _ = spawned.child.wait();
                    }
                }
                // The last order has been given, but its process may live: this thread must too.
                loop {
                    std::thread::park();
                }
            })?;
        let network = said.recv().map_err(std::io::Error::other)?;
        Ok(Self { jobs, network })
    }

    /// The network that processes are born with, and what is left for them to do about it.
    pub fn network(&self) -> Network {
        self.network.clone()
    }

    /// Starts a process.
    ///
    /// # Errors
    /// The host's, also when it takes too long.
    pub fn spawn(&self, order: Order) -> std::io::Result<Spawned> {
        let (answer, result) = channel();
        let gone = |_| std::io::Error::other("the spawning thread is gone");
        self.jobs.send((order, answer)).map_err(|e| gone(e.to_string()))?;
        result.recv_timeout(DEADLINE).map_err(|e| match e {
            std::sync::mpsc::RecvTimeoutError::Timeout => std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "the process was not started in time",
            ),
            e => gone(e.to_string()),
        })?
    }
}

/// Takes this thread out of the host's network, where that takes no user namespace, which a process of several threads cannot make.
fn live_alone() -> Network {
    let left = network::leave_by_privilege().is_ok();
    // What a worker cannot drop, it says itself.
    let _ = drop_capabilities();
    if left { Network::Empty } else { Network::Leave }
}

fn spawn(order: Order) -> std::io::Result<Spawned> {
    let inherit: Vec<RawFd> = order.inherit.iter().map(|fd| fd.as_raw_fd()).collect();
    let parent = rustix::process::getpid();
    let mut command = Command::new(format!("/proc/self/fd/{}", order.binary.as_raw_fd()));
    command
        .arg0(order.name)
        .args(&order.args)
        .env("QUINTET_LOG", &order.log)
        .stdin(order.input.map_or_else(Stdio::null, Stdio::from))
        .stdout(if order.answers {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stderr(Stdio::piped())
        // Signals of the terminal are for the coordinator, which ends its workers in order.
        .process_group(0);
    if order.confined {
        command.env("RUST_BACKTRACE", "0");
    }
    // SAFETY: the closure only makes async-signal-safe system calls and neither allocates nor locks.
    unsafe {
        command.pre_exec(move || prepare(parent, &inherit));
    }
    let forking = one_at_a_time();
    let child = command.spawn();
    drop(forking);
    let child = child?;
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    drop(order.inherit);
    Ok(Spawned { child, pidfd })
}

/// Between fork and exec, in the child.
fn prepare(parent: Pid, inherit: &[RawFd]) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        // The coordinator died between fork and the line above: nobody would end this process.
        return Err(rustix::io::Errno::SRCH.into());
    }
    signals::unblock()?;
    for &fd in inherit {
        // SAFETY: the parent keeps these descriptors open until the spawn has returned.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    Ok(())
}
