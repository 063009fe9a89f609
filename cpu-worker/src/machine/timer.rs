//! The timer thread: waits until the earliest deadline of the core complex and then sets the exit word.
//!
//! Nothing ticks. The thread waits for a timer of the host (`timerfd`) which the vCPU sets itself: a guest that asks for
//! an interrupt every few milliseconds and halts in between, as a kernel with a periodic tick does, never wakes the thread at all, because
//! an idle vCPU sleeps until the deadline by itself and stops the timer meanwhile. Rejected: a doorbell that tells the thread
//! its new deadline, which woke it twice for each such tick (docs/performance.md has both figures), and a signal to the vCPU's thread, because worker
//! libraries install no handlers.
//!
//! While the vCPU is not idle, the thread also asks it for a heartbeat four times a second. Only the vCPU's thread beats, and
//! it does so when it comes by: counting instructions instead was seen to take seconds for a guest whose
//! every instruction is an access to a device of a busy host.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use quintet_protocol::clock::VmClock;
use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::sync::{AtomicBool, AtomicU64, Ordering};
use quintet_protocol::time::{HostTime, NANOS_PER_SEC, VmTime};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

const NEVER: u64 = u64::MAX;
/// Longest sleep of the thread, in nanoseconds.
const LONGEST: u64 = NANOS_PER_SEC;
/// Nanoseconds between two looks at a clock that stands still before a deadline.
const STANDING: u64 = NANOS_PER_SEC / 50;
/// Nanoseconds between two heartbeats of a vCPU that executes.
const BEAT: u64 = NANOS_PER_SEC / 4;

#[derive(Debug)]
struct Shared {
    /// The host's timer, set by the vCPU and waited for by the thread.
    alarm: OwnedFd,
    /// VM time of the next deadline.
    deadline: AtomicU64,
    /// VM time that the thread waits for without the alarm.
    waiting: AtomicU64,
    /// The vCPU executes, or should.
    busy: AtomicBool,
    /// The vCPU is asked for a heartbeat.
    beat: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Sets the alarm; a time of zero stops it. The host refuses none of the times that are given here.
    fn alarm_at(&self, at: HostTime) {
        let value = timespec(at.0);
        let never = timespec(0);
        let timer = Itimerspec {
            it_interval: never,
            it_value: value,
        };
        if let Err(error) = timerfd_settime(&self.alarm, TimerfdTimerFlags::ABSTIME, &timer) {
            tracing::debug!(%error, "timer not set");
        }
    }
}

fn timespec(nanos: u64) -> Timespec {
    Timespec {
        tv_sec: (nanos / NANOS_PER_SEC) as i64,
        tv_nsec: (nanos % NANOS_PER_SEC) as i64,
    }
}

/// The vCPU's end.
#[derive(Debug)]
pub struct TimerArm {
    shared: Arc<Shared>,
    clock: VmClock,
    last: u64,
    /// The alarm is set, for a time that may have passed.
    set: bool,
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
        if deadline == NEVER {
            if core::mem::take(&mut self.set) {
                self.shared.alarm_at(HostTime(0));
            }
        } else if deadline < self.shared.waiting.load(Ordering::SeqCst) {
            // While VM time stands still there is no such moment: the thread is to see to it.
            let at = self.clock.host_deadline(VmTime(deadline));
            self.set = true;
            self.shared.alarm_at(at.unwrap_or_default().max(HostTime(1)));
        }
    }
}

/// The thread, stopped and joined when dropped.
#[derive(Debug)]
pub struct TimerThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl TimerThread {
    /// Starts the thread. `exit` is the doorbell of the vCPU.
    ///
    /// # Errors
    /// The host's, when it has no thread or descriptor left.
    pub fn start(clock: VmClock, exit: Doorbell) -> std::io::Result<(Self, TimerArm)> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let shared = Arc::new(Shared {
            alarm: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            deadline: AtomicU64::new(NEVER),
            waiting: AtomicU64::new(NEVER),
            busy: AtomicBool::new(false),
            beat: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let arm = TimerArm {
            shared: Arc::clone(&shared),
            clock: clock.clone(),
            last: NEVER,
            set: false,
        };
        let mine = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("timer".into())
            .stack_size(128 << 10)
            .spawn(move || run(&mine, &clock, &exit))?;
        Ok((
            Self {
                shared,
                thread: Some(thread),
            },
            arm,
        ))
    }
}

impl Drop for TimerThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.alarm_at(HostTime(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, clock: &VmClock, exit: &Doorbell) {
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
        shared.waiting.store(waits_for, Ordering::SeqCst);
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
                .unwrap_or_else(|| HostTime::after(STANDING))
                .min(longest),
        };
        wait(&shared.alarm, until);
    }
}

/// Waits for the alarm, until `until` at the latest, and takes what it says.
fn wait(alarm: &OwnedFd, until: HostTime) {
    let rest = timespec(until.since(HostTime::now()));
    let _ = poll(&mut [PollFd::new(alarm, PollFlags::IN)], Some(&rest));
    let mut expirations = [0; 8];
    let _ = rustix::io::read(alarm, &mut expirations);
}
