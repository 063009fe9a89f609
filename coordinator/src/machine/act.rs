//! Carrying out what the lifecycle decided.

use quintet_protocol::handshake::Role;
use quintet_protocol::lifecycle::{Action, Death, Input};
use quintet_protocol::status::StatusWord;

use super::Machine;

impl Machine {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Spawn(role, generation) => {
                if let Err(e) = self.fleet.spawn(role, generation) {
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
                // Who sleeps until a moment of VM time could not tell when that would be while it stood still.
                self.wake_everybody();
            }
            Action::Clock(false) => {
                self.clock.pause();
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
        }
        self.status
            .store(StatusWord::ResetGeneration, self.life.reset_generation());
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
