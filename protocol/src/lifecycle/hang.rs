//! When a worker that does not beat is hung, and when it is only slow, idle or held (S3.104 as amended).
//!
//! A plain timeout was rejected: on a busy host, after a suspend, or under a debugger it kills workers that
//! are well. A worker is hung only if it was given the processor and did nothing with it that counts, or if it
//! stayed blocked although it does not claim to be parked, while this watch itself was on time.

use core::time::Duration;

use super::Now;

/// What the coordinator sees of a worker at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Now,
    /// Its heartbeat word.
    pub beat: u32,
    /// It says that it is parked.
    pub parked: bool,
    /// Processor time of all its threads since it started.
    pub cpu: Duration,
    /// None of its threads is runnable.
    pub blocked: bool,
    /// A debugger or a stop signal holds it.
    pub held: bool,
}

/// What follows from the samples so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangVerdict {
    /// It beats, or it need not.
    Well,
    /// It has not beaten for a while, but there is an excuse.
    Late,
    /// It is held; time does not count.
    Held,
    /// Kill it.
    Hung,
}

/// Watches one process.
#[derive(Clone, Debug)]
pub struct HangWatch {
    timeout: Duration,
    /// How many times as much silence and processor time it is given.
    patience: u32,
    last: Option<Sample>,
    /// Where the current silence began.
    silent: Option<Silence>,
}

#[derive(Clone, Copy, Debug)]
struct Silence {
    since: Now,
    cpu: Duration,
    blocked: bool,
}

/// Processor time without a beat that makes a worker hung.
const CPU_LIMIT: Duration = Duration::from_secs(1);
/// How many times slower than itself a worker may be under a tool: valgrind's memcheck takes 20 to 30 times as long (Valgrind User Manual, 2.1).
const TOOL: u32 = 30;

impl HangWatch {
    /// A watch that allows `timeout` of blocked silence: 2 s, less in tests (S3.104).
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            patience: 1,
            last: None,
            silent: None,
        }
    }

    /// A watch over a worker that runs under a tool, which may slow it down.
    pub fn patient(timeout: Duration) -> Self {
        Self {
            patience: TOOL,
            ..Self::new(timeout)
        }
    }

    /// How often to look: a quarter of the timeout, not more than every 25 ms (S3.104).
    pub fn interval(&self) -> Duration {
        (self.timeout / 4).max(Duration::from_millis(25))
    }

    /// Takes a look.
    pub fn look(&mut self, s: Sample) -> HangVerdict {
        let last = self.last.replace(s);
        if s.held {
            self.silent = None;
            return HangVerdict::Held;
        }
        // If this watch was late, so may everything else have been: count anew from here.
        let late = last.is_some_and(|l| s.at.saturating_sub(l.at) > self.interval() * 2);
        let beat = last.is_none_or(|l| l.beat != s.beat || l.held);
        if beat || s.parked || late {
            self.silent = None;
            if !s.parked {
                self.silent = Some(Silence {
                    since: s.at,
                    cpu: s.cpu,
                    blocked: true,
                });
            }
            return HangVerdict::Well;
        }
        let Some(silence) = &mut self.silent else {
            self.silent = Some(Silence {
                since: s.at,
                cpu: s.cpu,
                blocked: s.blocked,
            });
            return HangVerdict::Well;
        };
        silence.blocked &= s.blocked && last.is_none_or(|l| l.cpu == s.cpu);
        let quiet = s.at.saturating_sub(silence.since);
        if quiet < self.timeout * self.patience {
            return HangVerdict::Late;
        }
        let used = s.cpu.saturating_sub(silence.cpu);
        if used > CPU_LIMIT * self.patience || silence.blocked {
            HangVerdict::Hung
        } else {
            HangVerdict::Late
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 500;

    /// Runs one sample every 500 ms and answers the verdicts.
    fn run(n: u64, mut sample: impl FnMut(u64, &mut Sample)) -> Vec<HangVerdict> {
        let mut watch = HangWatch::new(Duration::from_secs(2));
        (0..n)
            .map(|i| {
                let mut s = Sample {
                    at: Duration::from_millis(i * STEP),
                    beat: 0,
                    parked: false,
                    cpu: Duration::ZERO,
                    blocked: false,
                    held: false,
                };
                sample(i, &mut s);
                watch.look(s)
            })
            .collect()
    }

    #[test]
    fn s3_104_a_worker_that_burns_a_second_without_a_beat_is_hung() {
        let v = run(8, |i, s| s.cpu = Duration::from_millis(i * STEP));
        assert!(!v[..4].contains(&HangVerdict::Hung));
        assert_eq!(v[4..].first(), Some(&HangVerdict::Hung));
    }

    #[test]
    fn s3_104_a_worker_that_stays_blocked_without_being_parked_is_hung() {
        let v = run(8, |_, s| s.blocked = true);
        assert!(!v[..4].contains(&HangVerdict::Hung));
        assert_eq!(v[4], HangVerdict::Hung);
    }

    #[test]
    fn a_worker_that_gets_no_processor_time_is_late_and_never_hung() {
        let v = run(100, |i, s| s.cpu = Duration::from_millis(i * 5));
        assert!(!v.contains(&HangVerdict::Hung));
        assert_eq!(v[99], HangVerdict::Late);
    }

    #[test]
    fn a_parked_worker_need_not_beat() {
        assert!(
            run(100, |_, s| (s.parked, s.blocked) = (true, true))
                .iter()
                .all(|v| *v == HangVerdict::Well)
        );
    }

    #[test]
    fn a_beating_worker_is_well_however_busy() {
        let v = run(100, |i, s| {
            (s.beat, s.cpu) = (i as u32, Duration::from_millis(i * STEP));
        });
        assert!(v.iter().all(|v| *v == HangVerdict::Well));
    }

    #[test]
    fn a_held_worker_is_held_and_counts_anew_when_let_go() {
        let v = run(150, |i, s| (s.held, s.blocked) = (i < 120, true));
        assert!(v[..120].iter().all(|v| *v == HangVerdict::Held));
        assert!(!v[120..124].contains(&HangVerdict::Hung), "{:?}", &v[120..124]);
        assert!(v[124..].contains(&HangVerdict::Hung));
    }

    #[test]
    fn a_worker_under_a_tool_is_given_thirty_times_as_much() {
        let mut watch = HangWatch::patient(Duration::from_secs(2));
        let mut at = |i: u64| {
            watch.look(Sample {
                at: Duration::from_millis(i * STEP),
                beat: 0,
                parked: false,
                cpu: Duration::from_millis(i * STEP),
                blocked: false,
                held: false,
            })
        };
        let v: Vec<_> = (0..=120).map(&mut at).collect();
        assert!(!v[..120].contains(&HangVerdict::Hung));
        assert_eq!(v[120], HangVerdict::Hung);
    }

    #[test]
    fn a_late_coordinator_accuses_nobody() {
        let v = run(100, |i, s| (s.at, s.blocked) = (Duration::from_secs(i * 2), true));
        assert!(!v.contains(&HangVerdict::Hung));
    }

    #[test]
    fn s3_104_the_interval_is_a_quarter_of_the_timeout_and_at_least_25_ms() {
        assert_eq!(
            HangWatch::new(Duration::from_secs(2)).interval(),
            Duration::from_millis(500)
        );
        assert_eq!(
            HangWatch::new(Duration::from_millis(60)).interval(),
            Duration::from_millis(25)
        );
    }
}
