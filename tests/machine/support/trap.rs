//! Kills a process at a chosen store into its shared memory: the processor's debug registers stop it there, nothing in the
//! program knows. A signal at a random time nearly never falls into the few microseconds in which a commit is made.

use std::mem::offset_of;
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// DR7: DR0 is on, in this thread, for writes of eight bytes (Intel SDM, volume 3, 18.2.4).
const WATCH_EIGHT_BYTES: u64 = 1 | 0b01 << 16 | 0b10 << 18;

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the store, or as many instructions behind it as was said.
    AtTheStore,
    /// The store did not come in time.
    Late,
    /// Somebody else was faster.
    Gone,
}

/// Kills a process when its first thread has written the eight bytes at `address`, `now` says that it is time, and it has
/// executed `steps` more instructions; at the latest after `patience`.
pub fn kill_at_store(pid: i32, address: u64, steps: u32, patience: Duration, now: impl Fn() -> bool) -> End {
    let traced = Traced {
        pid: Pid::from_raw(pid),
        deadline: Instant::now() + patience,
    };
    if !traced.seize() {
        return End::Gone;
    }
    traced.watch(address);
    let end = traced.run_to_store(steps, now);
    let _ = kill(traced.pid, Signal::SIGKILL);
    // The kernel keeps what is left of it until its tracer, too, has heard of its death.
    while traced.wait(Instant::now() + Duration::from_secs(10)).is_some() {}
    end
}

struct Traced {
    pid: Pid,
    deadline: Instant,
}

impl Traced {
    /// Takes hold of the process and stops it; answers whether there is one.
    fn seize(&self) -> bool {
        let held = ptrace::seize(self.pid, Options::empty()).and_then(|()| ptrace::interrupt(self.pid));
        held.is_ok() && self.wait(self.deadline).is_some()
    }

    fn watch(&self, address: u64) {
        let set = |n: usize, value: u64| {
            let register = offset_of!(libc::user, u_debugreg) + 8 * n;
            ptrace::write_user(self.pid, std::ptr::without_provenance_mut(register), value as i64)
                .expect("debug registers");
        };
        set(0, address);
        set(7, WATCH_EIGHT_BYTES);
    }

    /// Lets it run until it stops at the store and has made the steps.
    fn run_to_store(&self, steps: u32, now: impl Fn() -> bool) -> End {
        let mut signal = None;
        loop {
            let _ = ptrace::cont(self.pid, signal);
            match self.wait(self.deadline) {
                Some(Some(Signal::SIGTRAP)) if now() => break,
                Some(Some(Signal::SIGTRAP)) => signal = None,
                Some(other) => signal = other,
                None if Instant::now() < self.deadline => return End::Gone,
                None => return End::Late,
            }
        }
        for _ in 0..steps {
            let _ = ptrace::step(self.pid, None);
            if self.wait(self.deadline).is_none() {
                return End::Late;
            }
        }
        End::AtTheStore
    }

    /// Waits until it stops, and answers by which signal, if one caused it. None when it is dead or has not stopped in time.
    fn wait(&self, deadline: Instant) -> Option<Option<Signal>> {
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() >= deadline => return None,
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(20)),
                Ok(WaitStatus::Stopped(_, signal)) => return Some(Some(signal)),
                Ok(WaitStatus::PtraceEvent(..) | WaitStatus::PtraceSyscall(_)) => return Some(None),
                _ => return None,
            }
        }
    }
}
