//! What the machine tells of itself: `quintet status`, `top` and the metrics read nothing else.

use std::cmp::Reverse;

use quintet_protocol::control::{
    DiskReport, ExitReport, InterruptReport, LatencyReport, RingReport, SoundReport, StatusReport,
    WorkerReport,
};
use quintet_protocol::handshake::Role;
use quintet_protocol::profile::LINES;
use quintet_protocol::status::{PeerState, StatusWord, WorkerState};

use super::Machine;

/// Causes that are told: a packet has an end.
const MOST_EXITS: usize = 64;

impl Machine {
    /// All of it.
    pub(super) fn report(&self) -> StatusReport {
        let workers = Role::WORKERS
            .into_iter()
            .map(|role| {
                let seen = &self.seen[role.index() - 1];
                let said = WorkerState::from_u32(seen.status.load(StatusWord::WorkerState));
                let state = self.life.peer(role);
                WorkerReport {
                    role,
                    pid: self.fleet.pid(role).map(|p| p as i32),
                    state,
                    parked: state == PeerState::Running && said == Some(WorkerState::Parked),
                    beats: seen.status.load(StatusWord::Heartbeat),
                    generation: self.life.generation(role),
                    deaths: self.life.deaths(role),
                    last_death: seen.last_death.clone(),
                    left_under_way: seen.left_under_way,
                    broken: seen.broken,
                    unconfined: self.confined.of(role).to_vec(),
                    awaited: self.awaited_command(role),
                }
            })
            .collect();
        let said = |role: Role, word| self.seen[role.index() - 1].status.load(word);
        StatusReport {
            name: self.config.name.clone(),
            pid: std::process::id() as i32,
            state: self.life.machine(),
            uptime_ms: self.now().as_millis() as u64,
            vm_time_ms: self.ends.clock().now().0 / 1_000_000,
            ram: self.config.ram.total(),
            resets: self.life.reset_generation(),
            workers,
            unconfined: self.confined.of_coordinator(),
            sound: SoundReport {
                level: said(Role::Audio, StatusWord::AudioLevel),
                missing: said(Role::Audio, StatusWord::AudioUnderrun),
                dropped: said(Role::Io, StatusWord::AudioOverrun),
                unheard: self.ends.unheard_frames(),
            },
            disks: DiskReport {
                under_way: said(Role::Io, StatusWord::DiskRequests),
                read: said(Role::Io, StatusWord::DiskRead),
                written: said(Role::Io, StatusWord::DiskWritten),
                flushes: said(Role::Io, StatusWord::DiskFlushes),
            },
            drives: self.drives(),
            exits: self.exits(),
            interrupts: self.interrupts(),
            latency: LatencyReport {
                echo: said(Role::Gpu, StatusWord::EchoLatency),
            },
            rings: self
                .ends
                .traffic()
                .into_iter()
                .map(|(name, traffic)| RingReport {
                    name: name.to_owned(),
                    traffic,
                })
                .collect(),
            single_process: self.config.single_process,
            error: self.error.clone(),
        }
    }

    fn exits(&self) -> Vec<ExitReport> {
        let reader = self.ends.profile_reader();
        let lines = (0..LINES as u16).map(|n| reader.line(n));
        let mut exits: Vec<ExitReport> = lines
            .filter(|line| line.count > 0)
            .map(|line| ExitReport {
                cause: line.name,
                count: line.count,
            })
            .collect();
        exits.sort_by_key(|exit| Reverse(exit.count));
        exits.truncate(MOST_EXITS);
        exits
    }

    fn interrupts(&self) -> Vec<InterruptReport> {
        let wires = (0..).zip(self.ends.wires());
        wires
            .filter(|(_, wire)| wire.edges > 0)
            .map(|(line, wire)| InterruptReport {
                line,
                edges: wire.edges,
            })
            .collect()
    }
}
