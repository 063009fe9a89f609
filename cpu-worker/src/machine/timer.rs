//! The timer thread: sleeps until the earliest deadline of the core complex and then sets the exit word.
//!
//! Nothing ticks. The vCPU tells the thread a deadline only when that is earlier than the one it already sleeps for;
//! a later one is found when it wakes too early.
//!
//! While the vCPU is not idle, the thread also asks it for a heartbeat four times a second. Only the vCPU's thread beats, and
//! it does so when it comes by: counting instructions instead was seen to take seconds for a guest whose
//! every instruction is an access to a device of a busy host.

use std::sync::Arc;
use std::thread::JoinHandle;

use quintet_protocol::clock::VmClock;
use quintet_protocol::doorbell::{Doorbell, Sleeper};
use quintet_protocol::sync::{AtomicBool, AtomicU64, Ordering};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC, VmTime};

const NEVER: u64 = u64::MAX;
/// Longest sleep of the thread, in nanoseconds: how late it can notice a clock that was set going again.
const LONGEST: u64 = NANOS_PER_SEC;
/// Nanoseconds between two heartbeats of a vCPU that executes.
const BEAT: u64 = NANOS_PER_SEC / 4;

#[derive(Debug)]
struct Shared {
    /// VM time of the next deadline.
    deadline: AtomicU64,
    /// VM time that the thread sleeps until.
    sleeping: AtomicU64,
    /// The vCPU executes, or should.
    busy: AtomicBool,
    /// The vCPU is asked for a heartbeat.
    beat: AtomicBool,
    stop: AtomicBool,
}

/// The vCPU's end.
#[derive(Debug)]
pub struct TimerArm {
    shared: Arc<Shared>,
    bell: Doorbell,
    last: u64,
}

impl TimerArm {
    /// Says whether the vCPU executes; one that is idle need not beat.
    pub fn set_busy(&self, busy: bool) {
        self.shared.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether a heartbeat is asked for; asks are not counted.
    pub fn take_beat(&self) -> bool {
        self.shared.beat.load(Ordering::Relaxed) && self.shared.beat.swap(false, Ordering::Relaxed)
    }

    /// Sets the next deadline.
    pub fn arm(&mut self, deadline: Option<VmTime>) {
        let deadline = deadline.map_or(NEVER, |t| t.0);
        if deadline == self.last {
            return;
        }
        self.last = deadline;
        self.shared.deadline.store(deadline, Ordering::SeqCst);
        if deadline < self.shared.sleeping.load(Ordering::SeqCst) {
            self.bell.ring();
        }
    }
}

/// The thread, stopped and joined when dropped.
#[derive(Debug)]
pub struct TimerThread {
    shared: Arc<Shared>,
    bell: Doorbell,
    thread: Option<JoinHandle<()>>,
}

impl TimerThread {
    /// Starts the thread. `sleeper` is its own; `bell` rings it, `exit` is the doorbell of the vCPU.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn start(
        clock: VmClock,
        sleeper: Sleeper,
        bell: Doorbell,
        exit: Doorbell,
    ) -> std::io::Result<(Self, TimerArm)> {
        let shared = Arc::new(Shared {
            deadline: AtomicU64::new(NEVER),
            sleeping: AtomicU64::new(NEVER),
            busy: AtomicBool::new(false),
            beat: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let arm = TimerArm {
            shared: Arc::clone(&shared),
            bell: bell.clone(),
            last: NEVER,
        };
        let mine = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("timer".into())
            .stack_size(128 << 10)
            .spawn(move || run(&mine, &clock, &sleeper, &exit))?;
        Ok((
            Self {
                shared,
                bell,
                thread: Some(thread),
            },
            arm,
        ))
    }
}

impl Drop for TimerThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.bell.force();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, clock: &VmClock, sleeper: &Sleeper, exit: &Doorbell) {
    let mut rung_for = NEVER;
    let mut next_beat = HostTime::after(BEAT);
    while !shared.stop.load(Ordering::SeqCst) {
        let deadline = shared.deadline.load(Ordering::SeqCst);
        if deadline != NEVER && deadline != rung_for && clock.now().0 >= deadline {
            // Once for each deadline: the vCPU answers by setting another.
            rung_for = deadline;
            exit.ring();
            continue;
        }
        let waits_for = if deadline == rung_for { NEVER } else { deadline };
        shared.sleeping.store(waits_for, Ordering::SeqCst);
        if shared.deadline.load(Ordering::SeqCst) != deadline {
            continue;
        }
        let mut longest = HostTime::after(LONGEST);
        if shared.busy.load(Ordering::Relaxed) {
            if HostTime::now() >= next_beat {
                next_beat = HostTime::after(BEAT);
                shared.beat.store(true, Ordering::Relaxed);
                exit.ring();
            }
            longest = next_beat;
        }
        let until = match waits_for {
            NEVER => longest,
            t => clock
                .host_deadline(VmTime(t))
                .map_or(longest, |host| host.min(longest)),
        };
        sleeper.park(until, || false);
    }
}
