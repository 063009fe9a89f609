//! Workers that somebody else starts (`--external`): the line to type, and who comes.
//!
//! Nothing is started; the line is printed, and the process that it becomes asks to be let in through the control socket, where the kernel
//! says whose it is. What it says is checked against what is waited for; whoever else comes is told why not, and nothing changes.

use std::os::fd::OwnedFd;

use quintet_protocol::control::{Answer, ErrorCode, MachineError};
use quintet_protocol::handshake::Role;
use quintet_protocol::handshake::by_hand::{Ticket, command};
use quintet_protocol::lifecycle::Input;
use rustix::net::sockopt::socket_peercred;

use super::Machine;
use super::requests::reply;
use crate::trace::Track;

/// What of the confinement a process lacks that was not forked by the coordinator, whatever it applies itself.
pub(super) const GAP: &str =
    "started by hand: no parent-death signal, the open files of whoever started it, and free until it joined";

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("This command is of a machine \"{0}\" that is gone")]
    OtherMachine(String),
    #[error("The machine \"{0}\" is ending")]
    Ending(String),
    #[error("The machine \"{machine}\" starts its {role} itself")]
    NotByHand { machine: String, role: Role },
    #[error(
        "This command was for process {asked} of the {role}, which is past; process {generation} is next"
    )]
    Past { role: Role, asked: u32, generation: u32 },
    #[error("The {role} of \"{machine}\" runs already, as process {pid}")]
    Runs { role: Role, machine: String, pid: u32 },
    #[error("The {role} of \"{machine}\" has ended, and its successor is not due yet")]
    NotDue { role: Role, machine: String },
    #[error("A worker belongs to the user whose machine it is")]
    OtherUser,
    #[error("The {0} could not be let in: {1}")]
    Host(Role, std::io::Error),
}

impl Refusal {
    /// What to do about it.
    fn remedy(&self) -> &'static str {
        match self {
            Self::OtherMachine(_) | Self::Past { .. } | Self::NotDue { .. } => {
                "`quintet status` shows the command that is waited for"
            }
            Self::NotByHand { .. } => "--external lets somebody else do it",
            Self::Ending(_) | Self::Runs { .. } | Self::OtherUser | Self::Host(..) => "",
        }
    }
}

impl Machine {
    fn ticket(&self, role: Role) -> Ticket {
        Ticket {
            instance: self.set.instance(),
            generation: self.life.generation(role),
        }
    }

    /// The line to type for a worker that is waited for.
    pub(super) fn awaited_command(&self, role: Role) -> Option<String> {
        let ticket = self.ticket(role);
        let program = self.fleet.program(role)?;
        let awaited = self.life.awaits(role, ticket.generation);
        awaited.then(|| command(&program, &self.config.name, ticket))
    }

    /// Asks the user to start a worker.
    pub(super) fn announce(&self, role: Role) {
        if let Some(command) = self.awaited_command(role) {
            eprintln!("quintet: the {role} waits to be started by hand: {command}");
            self.journal
                .note(Track::Life(role), "waits to be started by hand", "");
        }
    }

    /// Lets the process at the other end of `socket` be a worker, or tells it why not.
    pub(super) fn join(&mut self, role: Role, ticket: Ticket, socket: &OwnedFd) {
        match self.let_in(role, ticket, socket) {
            Ok(pid) => {
                let generation = ticket.generation;
                self.journal.born(role, generation, Some(pid));
                self.step(Input::Joined(role, generation));
            }
            Err(refusal) => {
                tracing::info!("somebody who would be the {role} was refused: {refusal}");
                let text = refusal.to_string();
                let error = MachineError::new(ErrorCode::InvalidConfig, &text, refusal.remedy());
                reply(socket, &Answer::Error(error));
            }
        }
    }

    fn let_in(&mut self, role: Role, ticket: Ticket, socket: &OwnedFd) -> Result<u32, Refusal> {
        let machine = self.config.name.clone();
        let due = self.ticket(role);
        if ticket.instance != due.instance {
            return Err(Refusal::OtherMachine(machine));
        }
        if self.life.outcome().is_some() {
            return Err(Refusal::Ending(machine));
        }
        if !self.fleet.is_by_hand(role) {
            return Err(Refusal::NotByHand { machine, role });
        }
        if ticket.generation != due.generation {
            return Err(Refusal::Past {
                role,
                asked: ticket.generation,
                generation: due.generation,
            });
        }
        if !self.life.awaits(role, due.generation) {
            return Err(match self.fleet.pid(role) {
                Some(pid) => Refusal::Runs { role, machine, pid },
                None => Refusal::NotDue { role, machine },
            });
        }
        // Root may ask for anything, but a worker of root's could not be ended.
        let user = rustix::process::geteuid();
        let peer = socket_peercred(socket).ok().filter(|peer| peer.uid == user);
        let pid = peer.ok_or(Refusal::OtherUser)?.pid;
        let generation = ticket.generation;
        self.fleet
            .admit(role, generation, pid, socket)
            .map_err(|e| Refusal::Host(role, e))?;
        Ok(pid.as_raw_pid().unsigned_abs())
    }
}
