//! The VM clock: host monotonic time minus an offset that only the coordinator writes.
//!
//! Every process computes the same VM time from the same two words, so no message carries time and nothing
//! ticks. While the guest is paused the words hold the time at which it stands. Counting ticks in a shared
//! word was rejected: somebody would have to be awake to count.
//!
//! The clock never runs backwards as seen by one process: a reading taken in the instant between the
//! coordinator's look at the host clock and its publication of a pause is remembered, and later readings are
//! held at it until the clock has caught up.

use std::sync::Arc;

use crate::seqlock::{ReadLimit, SEQ_HEADER, SeqReader, SeqWriter};
use crate::shm::{View, ViewMut};
use crate::sync::{AtomicU64, Ordering};
use crate::time::{HostTime, VmTime};

/// Bytes of the clock's record: state (u64), value (u64).
pub const CLOCK_RECORD: usize = 16;

const FROZEN: u64 = 0;
/// State of a clock that runs: its value is the host's monotonic time at VM time zero, in nanoseconds. Of one that stands the
/// value is the VM time.
pub const RUNNING: u64 = 1;

/// A reader of the VM clock. Cloning is cheap; clones share what they remember.
#[derive(Clone, Debug)]
pub struct VmClock {
    source: Source,
    /// The latest time this process has been told.
    latest: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum Source {
    Shared(SeqReader<View>),
    /// A clock set by hand, for tests: the latest time is all there is.
    Manual,
}

impl VmClock {
    /// The clock whose seqlock starts `words`, in the coordinator's control file.
    pub fn new(words: View) -> Self {
        // The writer holds the lock for some nanoseconds; one that is stuck longer has died, and then the
        // time stands still anyway.
        let limit = ReadLimit {
            tries: 4096,
            nanos: 1_000_000,
        };
        Self {
            source: Source::Shared(SeqReader::with_limit(words, limit)),
            latest: Arc::default(),
        }
    }

    /// A clock that stands still until its [`TestClock`] moves it.
    pub fn manual() -> (Self, TestClock) {
        let latest = Arc::new(AtomicU64::new(0));
        (
            Self {
                source: Source::Manual,
                latest: Arc::clone(&latest),
            },
            TestClock(latest),
        )
    }

    /// The VM time now. Some tens of nanoseconds; no system call.
    pub fn now(&self) -> VmTime {
        let Source::Shared(reader) = &self.source else {
            return VmTime(self.latest.load(Ordering::Acquire));
        };
        let Ok((_, (state, value))) = reader.read_with(record) else {
            return VmTime(self.latest.load(Ordering::Relaxed));
        };
        let time = if state == RUNNING {
            HostTime::now().0.saturating_sub(value)
        } else {
            value
        };
        VmTime(self.latest.fetch_max(time, Ordering::Relaxed).max(time))
    }

    /// Whether the clock runs.
    pub fn is_running(&self) -> bool {
        match &self.source {
            Source::Shared(reader) => matches!(reader.read_with(record), Ok((_, (RUNNING, _)))),
            Source::Manual => true,
        }
    }

    /// When the host clock will read such that VM time is `at`, if the clock keeps running; `None` while it
    /// stands still. For sleeping until a device's deadline.
    pub fn host_deadline(&self, at: VmTime) -> Option<HostTime> {
        match &self.source {
            Source::Shared(reader) => match reader.read_with(record) {
                Ok((_, (RUNNING, offset))) => Some(HostTime(offset.saturating_add(at.0))),
                _ => None,
            },
            Source::Manual => None,
        }
    }
}

fn record(words: &View) -> (u64, u64) {
    (
        words.load_u64(SEQ_HEADER, Ordering::Relaxed),
        words.load_u64(SEQ_HEADER + 8, Ordering::Relaxed),
    )
}

/// The hand that moves a clock made by [`VmClock::manual`].
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    /// Moves the clock `nanos` nanoseconds on and returns the new time.
    pub fn advance(&self, nanos: u64) -> VmTime {
        VmTime(self.0.fetch_add(nanos, Ordering::AcqRel) + nanos)
    }

    /// Moves the clock to `to`; earlier times than now are ignored.
    pub fn set(&self, to: VmTime) {
        self.0.fetch_max(to.0, Ordering::AcqRel);
    }
}

/// The writing end, in the coordinator.
#[derive(Debug)]
pub struct ClockMaster {
    writer: SeqWriter<ViewMut>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Standing at this VM time.
    Frozen(VmTime),
    /// Running with this offset since this VM time.
    Running { offset: u64, since: VmTime },
}

impl ClockMaster {
    /// A clock that stands at zero, in the seqlock that starts `words`.
    pub fn new(words: ViewMut) -> Self {
        let mut master = Self {
            writer: SeqWriter::new(words),
            state: State::Frozen(VmTime(0)),
        };
        master.publish();
        master
    }

    /// Stops the clock where it is and returns the time at which it stands. Stopping a stopped clock does nothing.
    pub fn pause(&mut self) -> VmTime {
        self.pause_at(HostTime::now())
    }

    /// Stops the clock at an earlier time than now, so that a death noticed late is not seen by the guest; not
    /// earlier than when it last began to run. Readings already taken are not taken back.
    pub fn pause_at(&mut self, at: HostTime) -> VmTime {
        match self.state {
            State::Frozen(at) => at,
            State::Running { offset, since } => {
                let host = at.min(HostTime::now());
                let at = VmTime(host.0.saturating_sub(offset)).max(since);
                self.state = State::Frozen(at);
                self.publish();
                at
            }
        }
    }

    /// Lets the clock run on from where it stands. Starting a running clock does nothing.
    pub fn resume(&mut self) {
        if let State::Frozen(at) = self.state {
            self.state = State::Running {
                offset: HostTime::now().0.saturating_sub(at.0),
                since: at,
            };
            self.publish();
        }
    }

    /// Whether the clock runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn publish(&mut self) {
        let (state, value) = match self.state {
            State::Frozen(at) => (FROZEN, at.0),
            State::Running { offset, .. } => (RUNNING, offset),
        };
        self.writer.write_with(|words| {
            words.store_u64(SEQ_HEADER, state, Ordering::Relaxed);
            words.store_u64(SEQ_HEADER + 8, value, Ordering::Relaxed);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;

    fn words() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(4096).unwrap()))
    }

    #[test]
    fn the_clock_stands_at_zero_until_it_is_started_and_then_runs() {
        let w = words();
        let mut master = ClockMaster::new(w.clone());
        let clock = VmClock::new(w.view().clone());
        assert_eq!(clock.now(), VmTime(0));
        assert_eq!(clock.host_deadline(VmTime(5)), None);
        master.resume();
        let a = clock.now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(clock.now().since(a) >= 2_000_000);
    }

    #[test]
    fn a_pause_takes_no_vm_time() {
        let w = words();
        let mut master = ClockMaster::new(w.clone());
        let clock = VmClock::new(w.view().clone());
        master.resume();
        let at = master.pause();
        assert_eq!(clock.now().max(at), clock.now());
        let frozen = clock.now();
        let host = HostTime::now();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(clock.now(), frozen);
        master.resume();
        let paused = HostTime::now().since(host);
        assert!(paused >= 5_000_000);
        // Since the start at zero, the clock has run everything but the pause.
        assert!(clock.now().0 + paused <= HostTime::now().0);
        assert!(clock.now() >= frozen);
    }

    #[test]
    fn a_process_never_sees_the_clock_run_backwards() {
        let w = words();
        let mut master = ClockMaster::new(w.clone());
        let clock = VmClock::new(w.view().clone());
        master.resume();
        std::thread::sleep(std::time::Duration::from_millis(3));
        let seen = clock.now();
        assert!(master.pause_at(HostTime(HostTime::now().0 - 2_000_000)) < seen);
        assert_eq!(clock.now(), seen);
        master.resume();
        assert!(clock.now() >= seen);
    }

    #[test]
    fn a_clock_left_busy_by_a_dead_coordinator_stands_still() {
        let w = words();
        let mut master = ClockMaster::new(w.clone());
        let clock = VmClock::new(w.view().clone());
        master.resume();
        let last = clock.now();
        w.store_u32(0, 0xFFFF_FFFF, Ordering::Relaxed);
        assert_eq!(clock.now(), last);
    }

    #[test]
    fn a_deadline_in_vm_time_is_met_in_host_time() {
        let w = words();
        let mut master = ClockMaster::new(w.clone());
        let clock = VmClock::new(w.view().clone());
        master.resume();
        let at = clock.now() + 3_000_000;
        let host = clock.host_deadline(at).unwrap();
        while HostTime::now() < host {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        assert!(clock.now() >= at);
    }

    #[test]
    fn a_test_clock_moves_by_hand_and_only_forwards() {
        let (clock, hand) = VmClock::manual();
        assert_eq!(clock.now(), VmTime(0));
        hand.advance(7);
        hand.set(VmTime(3));
        assert_eq!(clock.now(), VmTime(7));
    }
}
