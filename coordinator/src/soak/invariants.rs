//! What must hold of a machine whatever is done to it, judged from looks at it and from nothing else.
//!
//! Nothing here asks the host or the machine: samples and the list of what was done go in, violations come out. So each
//! rule is tested with the samples of a machine that breaks it.

use std::collections::{BTreeMap, VecDeque};

use quintet_protocol::handshake::Role;
use quintet_protocol::ring::Traffic;
use quintet_protocol::status::{MachineState, PeerState};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::hostile::HOSTILE_RING;
use super::sample::Sample;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When it was seen first, in milliseconds since the guest began.
    pub at_ms: u64,
    /// The invariant, by a name of docs/soak.md.
    pub invariant: String,
    /// What was seen, in a sentence.
    pub text: String,
    /// How often it was seen.
    pub times: u64,
}

/// Violations so far; the same one is kept once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

/// Most violations that are kept.
const MOST_VIOLATIONS: usize = 200;

impl Violations {
    /// Notes a violation; the same text of the same invariant is counted, not kept again.
    pub fn add(&mut self, at_ms: u64, invariant: &str, text: String) {
        if let Some(same) = self
            .0
            .iter_mut()
            .find(|v| v.invariant == invariant && v.text == text)
        {
            same.times += 1;
        } else if self.0.len() < MOST_VIOLATIONS {
            self.0.push(Violation {
                at_ms,
                invariant: invariant.to_owned(),
                text,
                times: 1,
            });
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Violation] {
        &self.0
    }

    /// All of them, given away.
    pub fn into_all(self) -> Vec<Violation> {
        self.0
    }
}

/// Quiet looks before a process's level is taken, and those that make it.
const LEVEL_LOOKS: usize = 8;
/// Quiet looks that must all be above that level: the socket of the question itself may still be open at any one of them.
const LEAK_LOOKS: usize = 30;
/// How long the guest, the clock or a heartbeat may stand still while nothing is being done to the machine, in milliseconds. A
/// watchdog for a host that is busy with other things, not a measurement.
const PATIENCE_MS: u64 = 60_000;
/// Growth of a process's memory that is none, in bytes: allocators and caches of translated code breathe.
const MEMORY_SLACK: u64 = 16 << 20;
/// VM time and the host's are read one after the other; a host may look away in between, in milliseconds.
const CLOCK_SLACK_MS: u64 = 2000;
/// Entries of a memory map that come and go with an allocator's arenas.
const MAPS_SLACK: u64 = 32;
/// Samples of memory that make a trend.
const TREND_LOOKS: usize = 40;

/// Something that a process may have only so much of.
#[derive(Debug, Default)]
struct Level {
    looks: usize,
    first: Option<u64>,
    recent: VecDeque<u64>,
}

impl Level {
    /// Takes a quiet look; answers what was the least when all of the newest looks are above it.
    fn look(&mut self, value: u64, slack: u64) -> Option<u64> {
        self.looks += 1;
        if self.looks <= 2 * LEVEL_LOOKS {
            if self.looks > LEVEL_LOOKS {
                self.first = Some(self.first.map_or(value, |first| first.min(value)));
            }
            return None;
        }
        self.recent.push_back(value);
        if self.recent.len() > LEAK_LOOKS {
            self.recent.pop_front();
        }
        let (was, is) = (self.first?, self.recent.iter().copied().min()?);
        (self.recent.len() == LEAK_LOOKS && is > was + slack).then_some(was)
    }
}

/// Something that must change now and then.
#[derive(Debug, Default)]
struct Standing {
    value: Option<u64>,
    /// Quiet time in which it stood, in milliseconds.
    stood: u64,
}

impl Standing {
    /// Takes a look after `passed` milliseconds; answers whether it has stood for too long.
    fn look(&mut self, value: u64, passed: u64, quiet: bool) -> bool {
        if self.value != Some(value) {
            self.value = Some(value);
            self.stood = 0;
        } else if quiet {
            self.stood += passed;
        }
        self.stood >= PATIENCE_MS
    }
}

/// The judge of a run.
#[derive(Debug)]
pub struct Invariants {
    /// Whether the guest is ours, so that rounds are to come.
    rounds: bool,
    found: Violations,
    kills: BTreeMap<Role, u32>,
    resets: u32,
    /// The ring of input is full of rubbish, or is being taken into use again.
    hostile: bool,
    levels: BTreeMap<(Role, &'static str), Level>,
    memory: BTreeMap<Role, Vec<u64>>,
    standing: BTreeMap<(&'static str, Option<Role>), Standing>,
    rings: BTreeMap<String, Traffic>,
    last: Option<Sample>,
}

impl Invariants {
    /// A judge of a machine whose guest is ours and prints `rounds`, or is not.
    pub fn new(rounds: bool) -> Self {
        Self {
            rounds,
            found: Violations::default(),
            kills: BTreeMap::new(),
            resets: 1,
            hostile: false,
            levels: BTreeMap::new(),
            memory: BTreeMap::new(),
            standing: BTreeMap::new(),
            rings: BTreeMap::new(),
            last: None,
        }
    }

    /// Something was done to the machine.
    pub fn injected(&mut self, fault: Fault) {
        if let Some(role) = fault.kills() {
            *self.kills.entry(role).or_default() += 1;
        }
        self.hostile |= fault == Fault::HostileRing;
        if fault.resets() {
            self.resets += 1;
        }
    }

    /// The fault is over, and recovered from.
    pub fn recovered(&mut self) {
        if std::mem::take(&mut self.hostile) {
            // What it counts has begun anew, and perhaps no look came by meanwhile.
            self.rings.remove(HOSTILE_RING);
        }
    }

    /// What was found, to add what was found elsewhere.
    pub fn found(&mut self) -> &mut Violations {
        &mut self.found
    }

    /// Gives what was found away.
    pub fn into_found(self) -> Violations {
        self.found
    }

    /// Judges a look.
    pub fn look(&mut self, sample: &Sample) {
        self.lives(sample);
        self.clock(sample);
        self.levels(sample);
        self.stands(sample);
        self.rings(sample, false);
        self.last = Some(sample.clone());
    }

    /// Deaths, resets and states.
    fn lives(&mut self, s: &Sample) {
        for worker in &s.workers {
            let expected = 1 + self.kills.get(&worker.role).copied().unwrap_or(0);
            if worker.generation > expected {
                let text = format!(
                    "the {} died {} times and was killed {}: {}",
                    worker.role,
                    worker.generation - 1,
                    expected - 1,
                    worker.last_death
                );
                self.found.add(s.at_ms, "deaths", text);
            }
            if worker.state == PeerState::Failed {
                let text = format!("the {} failed for good: {}", worker.role, worker.last_death);
                self.found.add(s.at_ms, "state", text);
            }
        }
        if s.resets > self.resets {
            let text = format!(
                "the guest was reset {} times, {} of them asked for",
                s.resets - 1,
                self.resets - 1
            );
            self.found.add(s.at_ms, "resets", text);
        }
        let gone = matches!(
            s.state,
            MachineState::Stopped | MachineState::PoweredOff | MachineState::Failed
        );
        if gone {
            self.found
                .add(s.at_ms, "state", format!("the machine is {:?}", s.state));
        }
    }

    /// VM time never runs backwards, nor faster than the host's.
    fn clock(&mut self, s: &Sample) {
        let Some(last) = &self.last else { return };
        if s.vm_time_ms < last.vm_time_ms {
            let text = format!(
                "VM time went back from {} to {} ms",
                last.vm_time_ms, s.vm_time_ms
            );
            self.found.add(s.at_ms, "time", text);
        }
        let (vm, host) = (
            s.vm_time_ms.saturating_sub(last.vm_time_ms),
            s.uptime_ms.saturating_sub(last.uptime_ms),
        );
        if vm > host + CLOCK_SLACK_MS {
            let text = format!("{vm} ms of VM time passed in {host} ms of the host's");
            self.found.add(s.at_ms, "time", text);
        }
    }

    /// What a process has of descriptors, threads and maps does not grow.
    fn levels(&mut self, s: &Sample) {
        for p in &s.processes {
            self.memory.entry(p.role).or_default().push(p.memory);
            if !s.quiet {
                continue;
            }
            for (what, value, slack) in [
                ("descriptors", p.descriptors, 0),
                ("threads", p.threads, 0),
                ("maps", p.maps, MAPS_SLACK),
            ] {
                let level = self.levels.entry((p.role, what)).or_default();
                if let Some(was) = level.look(value, slack) {
                    let text = format!("the {} had {was} {what} at first, and keeps more", p.role);
                    self.found.add(s.at_ms, what, text);
                }
            }
        }
    }

    /// The guest, the clock and heartbeats go on.
    fn stands(&mut self, s: &Sample) {
        let Some(last) = &self.last else { return };
        let passed = s.at_ms.saturating_sub(last.at_ms);
        let quiet = s.quiet && last.quiet && s.state == MachineState::Running;
        let mut late = Vec::new();
        let mut look = |what: &'static str, role: Option<Role>, value: u64, quiet: bool| {
            if self
                .standing
                .entry((what, role))
                .or_default()
                .look(value, passed, quiet)
            {
                late.push((what, role));
            }
        };
        look("time", None, s.vm_time_ms, quiet);
        if self.rounds {
            look("progress", None, s.done.rounds, quiet);
            look("pictures", None, s.done.pictures, quiet);
        }
        for w in &s.workers {
            let beats = u64::from(w.generation) << 32 | u64::from(w.beats);
            let due = quiet && w.state == PeerState::Running && !w.parked;
            look("heartbeat", Some(w.role), beats, due);
        }
        for (what, role) in late {
            let who = role.map_or_else(|| "the guest's".to_owned(), |r| format!("the {r}'s"));
            let text = format!(
                "{who} {what} stood for {} s with nothing done to the machine",
                PATIENCE_MS / 1000
            );
            self.found.add(s.at_ms, what, text);
        }
    }

    /// Every record that was pushed was popped or waits; at the end none waits.
    fn rings(&mut self, s: &Sample, at_end: bool) {
        for ring in &s.rings {
            let (name, now) = (&ring.name, ring.traffic);
            if self.hostile && name == HOSTILE_RING {
                continue;
            }
            if let Err(e) = now.check() {
                self.found
                    .add(s.at_ms, "rings", format!("the ring of {name}: {e}"));
            }
            if at_end && now.records() != 0 {
                let text = format!("{} {name} were never taken from their ring", now.records());
                self.found.add(s.at_ms, "rings", text);
            }
            if let Some(before) = self.rings.insert(name.clone(), now) {
                // The counts wrap, and grow by less than half of that between two looks.
                let back = |now: u32, before: u32| now.wrapping_sub(before) > 1 << 31;
                if back(now.pushed, before.pushed) || back(now.popped, before.popped) {
                    let text = format!("the counts of the ring of {name} went back");
                    self.found.add(s.at_ms, "rings", text);
                }
            }
        }
    }

    /// Whether rings of a paused machine still hold what will be taken from them.
    pub fn drained(sample: &Sample) -> bool {
        sample.rings.iter().all(|r| r.traffic.records() == 0)
    }

    /// Judges the whole run with its last look, at a machine that is paused.
    pub fn finish(&mut self, sample: &Sample) {
        self.rings(sample, true);
        for worker in &sample.workers {
            let expected = 1 + self.kills.get(&worker.role).copied().unwrap_or(0);
            if worker.generation < expected {
                let text = format!(
                    "the {} was killed {} times and replaced {}",
                    worker.role,
                    expected - 1,
                    worker.generation - 1
                );
                self.found.add(sample.at_ms, "deaths", text);
            }
        }
        if sample.resets < self.resets {
            let text = format!(
                "{} resets were asked for, and {} made",
                self.resets - 1,
                sample.resets - 1
            );
            self.found.add(sample.at_ms, "resets", text);
        }
        for (role, looks) in &self.memory {
            if let Some((was, is)) = grown(looks) {
                let text = format!("the {role} grew from {} to {} KiB", was >> 10, is >> 10);
                self.found.add(sample.at_ms, "memory", text);
            }
        }
    }
}

/// Whether memory grows: the least of the last quarter is above the most of the second quarter, by more than allocators and
/// caches do.
fn grown(looks: &[u64]) -> Option<(u64, u64)> {
    if looks.len() < TREND_LOOKS {
        return None;
    }
    let quarter = looks.len() / 4;
    let was = looks[quarter..2 * quarter].iter().copied().max()?;
    let is = looks[looks.len() - quarter..].iter().copied().min()?;
    (is > was + was / 4 + MEMORY_SLACK).then_some((was, is))
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
