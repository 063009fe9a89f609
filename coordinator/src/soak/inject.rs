//! Doing one fault to a machine and waiting until all is well again.
//!
//! One at a time: so that a recovery is that fault's, and a violation has one suspect.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use quintet_protocol::control::{Request, StatusReport};
use quintet_protocol::handshake::Role;
use quintet_protocol::status::{MachineState, PeerState};
use rustix::process::{Pid, Signal};

use super::disk_fault::DiskFault;
use super::fault::Fault;
use super::hostile::HostileRing;
use super::machine::{Machine, signal};
use super::pressure::Pressure;
use super::schedule::Entry;

/// How long a machine may take until all is well again: a watchdog, not a measurement.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often a machine is asked whether all is well again.
const LOOK: Duration = Duration::from_millis(10);
/// How long memory is taken and kept at most.
const PRESSING: Duration = Duration::from_secs(30);
/// Shortest and longest time for which a slow worker is stopped, or let run, in milliseconds.
const SLOW_MS: (u64, u64) = (10, 60);

/// A fault that is being injected.
#[derive(Debug)]
pub struct Injection {
    entry: Entry,
    /// Where the disk's image lies.
    disk: PathBuf,
    step: Step,
    /// When the step is to be looked at.
    due: Instant,
    /// When this began or, once the fault is over, when that was.
    since: Instant,
}

#[derive(Debug)]
enum Step {
    /// The machine is not yet in a state in which it can be done.
    Before,
    /// The worker is stopped, or stopped and let run by turns.
    Holding {
        process: OwnedFd,
        stopped: bool,
        turns: u64,
        until: Instant,
    },
    /// The machine is paused.
    Paused { until: Instant },
    /// The io-worker is being stopped, for its disk to fail or not to fail any more.
    Changing {
        process: OwnedFd,
        io: Pid,
        fault: Option<DiskFault>,
        since: Instant,
    },
    /// The disk fails.
    Failing {
        process: OwnedFd,
        fault: DiskFault,
        until: Instant,
    },
    /// The ring is being filled with rubbish, until so long and until somebody names the worker for it.
    Scribbling {
        process: OwnedFd,
        generation: u32,
        ring: HostileRing,
        until: Instant,
    },
    /// Memory is being taken, or is taken.
    Pressing { pressure: Pressure, until: Instant },
    /// All is to become well again, in a worker of at least this generation.
    Recovering(Option<(Role, u32)>),
}

/// What became of a look.
#[derive(Debug, PartialEq, Eq)]
pub enum Progressed {
    /// There is more to do.
    Going,
    /// The fault is being done from now on; its traces are expected.
    Done(Fault),
    /// All is well again after so long, the fault's own time not counted.
    Well(Duration),
    /// It did not become well, or could not be done; a sentence.
    Stuck(String),
}

/// Whether a machine does all that it is to do.
pub fn well(report: &StatusReport) -> bool {
    report.state == MachineState::Running && report.workers.iter().all(|w| w.state == PeerState::Running)
}

impl Injection {
    /// A fault that is due, in a machine whose disk's image is the file `disk`.
    pub fn new(entry: Entry, disk: PathBuf) -> Self {
        let now = Instant::now();
        Self {
            entry,
            disk,
            step: Step::Before,
            due: now,
            since: now,
        }
    }

    /// When it is to be looked at next.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// What it is.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// Ends it before its time: what is held is let go.
    pub fn cut_short(&mut self) {
        self.due = Instant::now();
        match &mut self.step {
            Step::Holding { until, .. }
            | Step::Paused { until }
            | Step::Failing { until, .. }
            | Step::Scribbling { until, .. }
            | Step::Pressing { until, .. } => *until = self.due,
            Step::Before | Step::Changing { .. } | Step::Recovering(_) => {}
        }
    }

    /// Goes on with it.
    pub fn look(&mut self, machine: &Machine) -> Progressed {
        let now = Instant::now();
        if now < self.due {
            return Progressed::Going;
        }
        self.due = now + LOOK;
        match &mut self.step {
            Step::Before => self.begin(machine, now),
            Step::Holding {
                process,
                stopped,
                turns,
                until,
            } => {
                if now >= *until {
                    // One that died meanwhile is seen by its generation.
                    signal(process, Signal::CONT);
                    self.recover(None, now);
                } else if matches!(self.entry.fault, Fault::Slow(_)) {
                    *stopped = !*stopped;
                    *turns += 1;
                    signal(process, if *stopped { Signal::STOP } else { Signal::CONT });
                    // Turns of changing length, or one rhythm of the machine would always be met in the same place.
                    let (least, most) = SLOW_MS;
                    let ms = least + (*turns * 7 + self.entry.lasts_ms) % (most - least);
                    self.due = (now + Duration::from_millis(ms)).min(*until);
                } else {
                    self.due = *until;
                }
                Progressed::Going
            }
            Step::Paused { until } => {
                self.due = *until;
                if now >= *until {
                    if let Err(e) = machine.tell(&Request::Resume) {
                        return Progressed::Stuck(format!("it did not resume: {e}"));
                    }
                    self.recover(None, now);
                }
                Progressed::Going
            }
            Step::Changing { .. } | Step::Failing { .. } => self.look_at_disk(now),
            Step::Scribbling {
                process,
                generation,
                ring,
                until,
            } => {
                let report = match ring.scribble().and_then(|()| machine.report()) {
                    Ok(report) => report,
                    Err(e) => return Progressed::Stuck(e),
                };
                let named = report
                    .workers
                    .iter()
                    .any(|w| w.role == Role::Gpu && w.broken.is_some());
                if named && now >= *until {
                    let successor = Some((Role::Gpu, *generation + 1));
                    signal(process, Signal::KILL);
                    self.recover(successor, now);
                    return Progressed::Going;
                }
                self.patience(now, "nobody named the gpu-worker", &report)
            }
            Step::Pressing { pressure, until } => {
                if pressure.is_over() || now >= *until {
                    self.recover(None, now);
                }
                Progressed::Going
            }
            Step::Recovering(successor) => {
                let report = match machine.report() {
                    Ok(report) => report,
                    Err(e) => return Progressed::Stuck(e),
                };
                let there = successor.is_none_or(|(role, generation)| {
                    let worker = report.workers.iter().find(|w| w.role == role);
                    worker.is_some_and(|w| w.generation >= generation)
                });
                if there && well(&report) {
                    return Progressed::Well(now - self.since);
                }
                self.patience(now, "it did not become well again", &report)
            }
        }
    }

    /// Goes on with a disk that is to fail, fails, or is to be well again.
    fn look_at_disk(&mut self, now: Instant) -> Progressed {
        match std::mem::replace(&mut self.step, Step::Before) {
            Step::Changing {
                process,
                io,
                fault,
                since,
            } if !DiskFault::may_change(io) => {
                let slow = now - since >= PATIENCE;
                if slow {
                    signal(&process, Signal::CONT);
                }
                self.step = Step::Changing {
                    process,
                    io,
                    fault,
                    since,
                };
                if slow {
                    return Progressed::Stuck(format!(
                        "the io-worker did not stop within {} s",
                        PATIENCE.as_secs()
                    ));
                }
            }
            Step::Changing {
                process, io, fault, ..
            } => {
                let cut = self.entry.fault == Fault::DiskError;
                let changed = match fault {
                    None => DiskFault::begin(io, &self.disk, cut).map(Some),
                    Some(mut fault) => fault.end().map(|()| None),
                };
                signal(&process, Signal::CONT);
                match changed {
                    Ok(Some(fault)) => {
                        let until = now + Duration::from_millis(self.entry.lasts_ms);
                        self.due = until;
                        self.step = Step::Failing {
                            process,
                            fault,
                            until,
                        };
                    }
                    Ok(None) => self.recover(None, now),
                    Err(why) => return Progressed::Stuck(why),
                }
            }
            Step::Failing {
                process,
                fault,
                until,
            } => {
                if now >= until {
                    signal(&process, Signal::STOP);
                    self.step = Step::Changing {
                        process,
                        io: fault.process(),
                        fault: Some(fault),
                        since: now,
                    };
                } else {
                    self.due = until;
                    self.step = Step::Failing {
                        process,
                        fault,
                        until,
                    };
                }
            }
            other => self.step = other,
        }
        Progressed::Going
    }

    fn patience(&self, now: Instant, what: &str, report: &StatusReport) -> Progressed {
        if now - self.since < PATIENCE {
            return Progressed::Going;
        }
        let states: Vec<_> = report
            .workers
            .iter()
            .map(|w| format!("{} {:?}", w.role, w.state))
            .collect();
        Progressed::Stuck(format!(
            "{what} within {} s of {}: {:?}, {}",
            PATIENCE.as_secs(),
            self.entry.fault,
            report.state,
            states.join(", ")
        ))
    }

    fn recover(&mut self, successor: Option<(Role, u32)>, now: Instant) {
        self.step = Step::Recovering(successor);
        (self.since, self.due) = (now, now);
    }

    fn begin(&mut self, machine: &Machine, now: Instant) -> Progressed {
        let report = match machine.report() {
            Ok(report) => report,
            Err(e) => return Progressed::Stuck(e),
        };
        if !well(&report) {
            return self.patience(now, "it was not ready", &report);
        }
        let fault = self.entry.fault;
        let until = now + Duration::from_millis(self.entry.lasts_ms);
        match fault {
            Fault::Kill(_) | Fault::Stall(_) | Fault::Slow(_) => {
                let role = fault.role().expect("it is done to a worker");
                let Some((process, generation)) = machine.worker(role) else {
                    return self.patience(now, "the worker had no process", &report);
                };
                if matches!(fault, Fault::Kill(_)) {
                    if !signal(&process, Signal::KILL) {
                        return Progressed::Going;
                    }
                    self.recover(Some((role, generation + 1)), now);
                } else {
                    signal(&process, Signal::STOP);
                    self.step = Step::Holding {
                        process,
                        stopped: true,
                        turns: 0,
                        until,
                    };
                    self.due = until;
                    if matches!(fault, Fault::Slow(_)) {
                        self.due = now + Duration::from_millis(SLOW_MS.0);
                    }
                }
            }
            Fault::DiskError | Fault::DiskFull => {
                let io = report.workers.iter().find(|w| w.role == Role::Io);
                let io = io.and_then(|w| w.pid).and_then(Pid::from_raw);
                let (Some(io), Some((process, _))) = (io, machine.worker(Role::Io)) else {
                    return self.patience(now, "the worker had no process", &report);
                };
                signal(&process, Signal::STOP);
                self.step = Step::Changing {
                    process,
                    io,
                    fault: None,
                    since: now,
                };
            }
            Fault::HostileRing => {
                let Some((process, generation)) = machine.worker(Role::Gpu) else {
                    return self.patience(now, "the worker had no process", &report);
                };
                let gpu = report.workers.iter().find(|w| w.role == Role::Gpu);
                let pid = gpu.and_then(|w| w.pid).unwrap_or_default();
                match HostileRing::open(pid, self.entry.at_ms | 1) {
                    Ok(ring) => {
                        self.since = now;
                        self.step = Step::Scribbling {
                            process,
                            generation,
                            ring,
                            until,
                        };
                    }
                    Err(e) => return Progressed::Stuck(e),
                }
            }
            Fault::MemoryPressure => match Pressure::begin(Duration::from_millis(self.entry.lasts_ms)) {
                // Until there is nothing more to take, and for its time; a large host has more than one should wait for.
                Ok(pressure) => {
                    self.step = Step::Pressing {
                        pressure,
                        until: now + PRESSING,
                    };
                }
                Err(e) => return Progressed::Stuck(format!("no process to take memory: {e}")),
            },
            Fault::Pause => {
                if let Err(e) = machine.tell(&Request::Pause) {
                    return Progressed::Stuck(format!("it did not pause: {e}"));
                }
                self.step = Step::Paused { until };
                self.due = until;
            }
            Fault::Reset => {
                let started = Instant::now();
                if let Err(e) = machine.tell(&Request::Reset) {
                    return Progressed::Stuck(format!("it did not reset: {e}"));
                }
                self.recover(None, started);
            }
        }
        Progressed::Done(fault)
    }
}
