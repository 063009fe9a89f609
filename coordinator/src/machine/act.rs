//! Carrying out what the lifecycle decided.

use quintet_protocol::handshake::Role;
use quintet_protocol::lifecycle::{Action, Death, Input};
use quintet_protocol::status::StatusWord;

use super::Machine;
use crate::trace::Track;

impl Machine {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Spawn(role, generation) => {
                let bits = self.status.load(StatusWord::StopRequested);
                self.status
                    .store(StatusWord::StopRequested, bits & !(1 << role.index()));
                if self.fleet.is_by_hand(role) {
                    return self.announce(role);
                }
                self.journal.expect(role);
                let spawned = self.fleet.spawn(role, generation);
                // A thread's events are its process's, which is ours.
                let pid = self.fleet.pid(role).filter(|_| spawned.is_ok());
                self.journal.born(role, generation, pid);
                if let Err(e) = spawned {
                    let death = Death::Crashed(format!("it could not be started: {e}"));
                    self.step(Input::Died(role, generation, death));
                }
            }
            Action::Kill(role, generation, why) => {
                tracing::warn!("killing the {role}: {why}");
                self.fleet.doom(role, generation, why.to_owned());
            }
            Action::RequestStop(role) => {
                let bits = self.status.load(StatusWord::StopRequested);
                self.status
                    .store(StatusWord::StopRequested, bits | 1 << role.index());
                self.wake_everybody();
            }
            Action::Clock(true) => {
                self.clock.resume();
                self.journal.note(Track::Main, "VM time goes on", "");
                // Who sleeps until a moment of VM time could not tell when that would be while it stood still.
                self.wake_everybody();
            }
            Action::Clock(false) => {
                self.clock.pause();
                self.journal.note(Track::Main, "VM time stands still", "");
            }
            Action::Publish => self.publish(),
            Action::Finished(outcome) => self.outcome = Some(outcome),
        }
    }

    /// Publishes states and generations, then wakes everybody who may be waiting for one of them to change.
    fn publish(&mut self) {
        for role in Role::WORKERS {
            self.status
                .store(StatusWord::generation(role), self.life.generation(role));
            self.status
                .store(StatusWord::peer(role), self.life.peer(role) as u32);
            self.journal.state(Track::Life(role), self.life.peer(role));
        }
        self.status
            .store(StatusWord::ResetGeneration, self.life.reset_generation());
        self.journal.state(Track::Machine, self.life.machine());
        let state = self.life.machine() as u32;
        if self.status.load(StatusWord::MachineState) != state {
            self.status.store(StatusWord::MachineState, state);
            self.status.add(StatusWord::RunEpoch, 1);
        }
        self.wake_everybody();
    }

    /// Sets all exit words and rings all doorbells, whether or not anybody seems to sleep: a process that died may
    /// have taken a ring with it.
    pub(super) fn wake_everybody(&self) {
        for doorbell in &self.doorbells {
            doorbell.force();
        }
    }
}
