//! One look at a machine from outside: what it says of itself, and what the host says of its processes.

use std::fs;

use quintet_protocol::control::{RingReport, SoundReport, StatusReport};
use quintet_protocol::handshake::Role;
use quintet_protocol::status::{MachineState, PeerState};

use crate::supervise::process;

/// A look at a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Since the guest began, in milliseconds of this process's clock.
    pub at_ms: u64,
    /// Nothing was being done to the machine at the time, and what had been done was over.
    pub quiet: bool,
    /// State of the machine.
    pub state: MachineState,
    /// Since its coordinator started, in milliseconds.
    pub uptime_ms: u64,
    /// VM time in milliseconds.
    pub vm_time_ms: u64,
    /// Resets so far, power-on included.
    pub resets: u32,
    /// Its processes, the coordinator first; those that are gone at the moment are missing.
    pub processes: Vec<ProcessSample>,
    /// Its workers' lives, in the order of their roles.
    pub workers: Vec<WorkerSample>,
    /// Its rings.
    pub rings: Vec<RingReport>,
    /// What is lost of its sound.
    pub sound: SoundReport,
    /// What has come of the guest so far.
    pub done: Done,
}

/// What has come of our own guest so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Rounds.
    pub rounds: u64,
    /// Pictures of it that were compared with what it drew.
    pub pictures: u64,
}

/// What the machine says of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSample {
    /// Which.
    pub role: Role,
    /// Its state.
    pub state: PeerState,
    /// It sleeps until something happens.
    pub parked: bool,
    /// Its heartbeat.
    pub beats: u32,
    /// How many processes have had the role.
    pub generation: u32,
    /// How the last one before this ended.
    pub last_death: String,
}

/// What the host says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSample {
    /// Which.
    pub role: Role,
    /// How many processes have had the role; 1 for the coordinator.
    pub generation: u32,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Entries of its memory map.
    pub maps: u64,
    /// Proportional set size without guest RAM, in bytes.
    pub memory: u64,
}

impl Sample {
    /// Puts a machine's report and what the host says of its processes together.
    pub fn new(report: &StatusReport, at_ms: u64, quiet: bool, done: Done) -> Self {
        let mut processes: Vec<_> = look(Role::Coordinator, 1, report.pid).into_iter().collect();
        for worker in &report.workers {
            processes.extend(
                worker
                    .pid
                    .and_then(|pid| look(worker.role, worker.generation, pid)),
            );
        }
        Self {
            at_ms,
            quiet,
            state: report.state,
            uptime_ms: report.uptime_ms,
            vm_time_ms: report.vm_time_ms,
            resets: report.resets,
            processes,
            workers: report
                .workers
                .iter()
                .map(|w| WorkerSample {
                    role: w.role,
                    state: w.state,
                    parked: w.parked,
                    beats: w.beats,
                    generation: w.generation,
                    last_death: w.last_death.clone(),
                })
                .collect(),
            rings: report.rings.clone(),
            sound: report.sound,
            done,
        }
    }

    /// The process of a role.
    pub fn process(&self, role: Role) -> Option<&ProcessSample> {
        self.processes.iter().find(|p| p.role == role)
    }

    /// Memory of all processes together, in bytes.
    pub fn memory(&self) -> u64 {
        self.processes.iter().map(|p| p.memory).sum()
    }

    /// Open descriptors of all processes together.
    pub fn descriptors(&self) -> u64 {
        self.processes.iter().map(|p| p.descriptors).sum()
    }
}

fn look(role: Role, generation: u32, pid: i32) -> Option<ProcessSample> {
    let entries = |folder: &str| {
        let list = fs::read_dir(format!("/proc/{pid}/{folder}")).ok()?;
        Some(list.flatten().count() as u64)
    };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    Some(ProcessSample {
        role,
        generation,
        descriptors: entries("fd")?,
        threads: entries("task")?,
        maps: maps.lines().count() as u64,
        memory: process::pss(u32::try_from(pid).ok()?)?,
    })
    // One that died in between has no map left.
    .filter(|p| p.maps > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_descriptors_threads_maps_and_memory() {
        let me = std::process::id() as i32;
        let before = look(Role::Coordinator, 1, me).expect("alive");
        assert!(before.threads > 0 && before.maps > 10 && before.memory > 1 << 16);
        let files: Vec<_> = (0..50)
            .map(|_| fs::File::open("/dev/null").expect("opens"))
            .collect();
        let after = look(Role::Coordinator, 1, me).expect("alive");
        // Other tests of this process open and close some too.
        assert!(
            after.descriptors >= before.descriptors + 30,
            "{before:?} {after:?}"
        );
        drop(files);
        assert_eq!(look(Role::Io, 1, 1 << 23), None);
    }
}
