//! Looking at the workers: what they say in their status words, and whether they make progress.

use std::time::Duration;

use quintet_protocol::control::BrokenReport;
use quintet_protocol::handshake::Role;
use quintet_protocol::lifecycle::{HangVerdict, Input, Sample};
use quintet_protocol::status::{GuestEvent, PeerState, StatusWord, WorkerState};

use super::Machine;
use crate::supervise::process;

/// How often to look while a debugger is attached or waited for: what it stops is to be noticed soon, and that it went on.
const DEBUGGED_LOOK: Duration = Duration::from_millis(20);

impl Machine {
    /// Takes note of what the workers have said since the last look.
    pub(super) fn observe(&mut self) {
        // A vCPU that has stopped for a reset is what the io-worker sleeps for, and it rings only here.
        let obeyed = self.seen[Role::Cpu.index() - 1]
            .status
            .load(StatusWord::EpochSeen);
        if obeyed != self.obeyed {
            self.obeyed = obeyed;
            self.wake_everybody();
        }
        // First of all: time is not to run for a guest that is held from its start.
        let holds = self.seen[Role::Cpu.index() - 1]
            .status
            .load(StatusWord::DebuggerHolds);
        let debugged = holds != 0 || self.awaits_debuggers();
        if debugged != self.debugged {
            self.debugged = debugged;
            self.step(Input::Debugged(debugged));
        }
        let mut events: Vec<(Role, u32, GuestEvent)> = Vec::new();
        for role in Role::WORKERS {
            self.take_faults(role);
            let generation = self.life.generation(role);
            let status = &self.seen[role.index() - 1].status;
            let ready = status.load(StatusWord::ready(role));
            let reset_done = status.load(StatusWord::ResetDone);
            let event = status.guest_event();
            if ready == generation && self.life.peer(role) == PeerState::Starting {
                self.step(Input::Ready(role, generation));
            }
            // Worth a step only while somebody waits for it; repeating it changes nothing.
            if self.life.peer(role) == PeerState::Running && reset_done == self.life.reset_generation() {
                self.step(Input::ResetDone(role, reset_done));
            }
            events.extend(event.map(|(number, event)| (role, number, event)));
        }
        // The cpu-worker was looked at first and is listened to last: what io-worker said because of a write precedes
        // whatever the vCPU did after that write (an exit port, then a power-off).
        for (role, number, event) in events.into_iter().rev() {
            let seen = &mut self.seen[role.index() - 1].events;
            if *seen != number {
                *seen = number;
                tracing::debug!("{role}: {event:?}");
                self.step(Input::Guest(event));
            }
        }
    }

    /// Takes note of what a worker says of its peers' rings. A word is no proof, since a hostile worker may accuse an honest one:
    /// the accused is named and goes on.
    fn take_faults(&mut self, role: Role) {
        let found = self.seen[role.index() - 1].status.peer_faults();
        let before = std::mem::replace(&mut self.seen[role.index() - 1].faults, found);
        let Some((peer, now)) = found.filter(|_| found != before) else {
            return;
        };
        let new = now.wrapping_sub(before.map_or(0, |(_, times)| times)) & u32::MAX >> 3;
        let mut times = now;
        if let Some(accused) = peer.index().checked_sub(1) {
            let broken = &mut self.seen[accused].broken;
            times = broken.map_or(0, |b| b.times).saturating_add(new);
            *broken = Some(BrokenReport { by: role, times });
        }
        // Each doubling: who scribbles on does not fill the log.
        if times.checked_ilog2() != times.saturating_sub(new).checked_ilog2() {
            tracing::warn!("the {role} finds broken what the {peer} shares with it ({times} times so far)");
        }
    }

    /// Looks for workers that are held or hung, when it is time.
    pub(super) fn look_at_workers(&mut self) {
        let now = self.now();
        if now < self.next_look {
            return;
        }
        let mut traced = false;
        for role in Role::WORKERS {
            let generation = self.life.generation(role);
            let state = self.life.peer(role);
            if !matches!(state, PeerState::Running | PeerState::Held) {
                continue;
            }
            let Some(pid) = self.fleet.pid_to_watch(role) else {
                continue;
            };
            let Some(look) = process::look(pid) else { continue };
            let status = &self.seen[role.index() - 1].status;
            let said = WorkerState::from_u32(status.load(StatusWord::WorkerState));
            let sample = Sample {
                at: now,
                beat: status.load(StatusWord::Heartbeat),
                parked: said == Some(WorkerState::Parked),
                cpu: look.cpu,
                blocked: look.blocked,
                // One that a debugger lets run may be stopped at any time; it is late for nothing.
                held: look.stopped || look.traced,
            };
            traced |= look.traced;
            let verdict = self.fleet.judge(role, sample);
            if look.stopped != (state == PeerState::Held) {
                tracing::info!("the {role} is {}", if look.stopped { "held" } else { "let go" });
                self.step(Input::Held(role, look.stopped));
            }
            if verdict == HangVerdict::Hung {
                self.step(Input::Hung(role, generation));
            }
        }
        self.next_look = now
            + match self.life.outcome() {
                // Looks cost little, but an ending machine is not to be watched.
                Some(_) => Duration::from_secs(1),
                None if traced || !self.awaited.is_empty() => DEBUGGED_LOOK,
                None => self.fleet.look_interval(),
            };
    }
}
