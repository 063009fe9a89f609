//! The one thread that starts processes.
//!
//! The kernel's parent-death signal fires when the *thread* that forked ends, so all children are forked by a thread
//! that lives as long as the process. A child sets the signal, and then compares its parent with the one it was told: the
//! parent may have died in between.
#![allow(unsafe_code, reason = "the steps between fork and exec")]

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use quintet_protocol::handshake::Role;
use quintet_protocol::handshake::worker::CONNECT_ARGUMENT;
use rustix::process::{Pid, PidfdFlags};

use super::binaries::Binaries;

/// A process to start.
#[derive(Debug)]
pub struct Order {
    /// Which worker.
    pub role: Role,
    /// Name of the one-shot server that it connects to.
    pub server: String,
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

/// The spawning thread.
#[derive(Debug)]
pub struct Spawner {
    jobs: Sender<Job>,
}

impl Spawner {
    /// Starts the thread. It ends with the process, never before.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn start(binaries: Binaries) -> std::io::Result<Self> {
        let (jobs, orders) = channel::<Job>();
        let binaries = Arc::new(binaries);
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (order, answer) in orders {
                    let _ = answer.send(spawn(&binaries, order));
                }
                // The last order has been given, but its process may live: this thread must too.
                loop {
                    std::thread::park();
                }
            })?;
        Ok(Self { jobs })
    }

    /// Starts a process.
    ///
    /// # Errors
    /// The host's.
    pub fn spawn(&self, order: Order) -> std::io::Result<Spawned> {
        let (answer, result) = channel();
        let gone = || std::io::Error::other("the spawning thread is gone");
        self.jobs.send((order, answer)).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

fn spawn(binaries: &Binaries, order: Order) -> std::io::Result<Spawned> {
    let binary = binaries.of(order.role);
    let inherit: Vec<RawFd> = order.inherit.iter().map(|fd| fd.as_raw_fd()).collect();
    let parent = rustix::process::getpid();
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command
        .arg0(order.role.binary())
        .args([CONNECT_ARGUMENT, &order.server])
        .env("QUINTET_LOG", &order.log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
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
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    drop(order.inherit);
    Ok(Spawned { child, pidfd })
}

/// Starts a process that handles one order and ends: all three standard streams are pipes. To be called by a thread
/// that outlives it.
///
/// # Errors
/// The host's.
pub fn spawn_compiler(binary: BorrowedFd<'_>, inherit: Vec<OwnedFd>) -> std::io::Result<Child> {
    let numbers: Vec<RawFd> = inherit.iter().map(|fd| fd.as_raw_fd()).collect();
    let parent = rustix::process::getpid();
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command
        .arg0(crate::wasm::BINARY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("RUST_BACKTRACE", "0")
        .process_group(0);
    // SAFETY: the closure only makes async-signal-safe system calls and neither allocates nor locks.
    unsafe {
        command.pre_exec(move || prepare(parent, &numbers));
    }
    let child = command.spawn()?;
    drop(inherit);
    Ok(child)
}

/// Between fork and exec, in the child.
fn prepare(parent: Pid, inherit: &[RawFd]) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        // The coordinator died between fork and the line above: nobody would end this process.
        return Err(rustix::io::Errno::SRCH.into());
    }
    for &fd in inherit {
        // SAFETY: the parent keeps these descriptors open until the spawn has returned.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    Ok(())
}
