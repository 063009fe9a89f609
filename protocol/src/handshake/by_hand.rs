//! A worker that somebody starts by hand (`--external`), under whatever tool he likes.
//!
//! Such a process inherits nothing from the coordinator. It asks for everything through the machine's control socket, where the kernel
//! says who it is, and the answer brings what a forked child is born with: the name of its one-shot server, and the
//! descriptors, by SCM_RIGHTS, beside the numbers by which the hello speaks of them. From there on its start is that of any worker. Its command line
//! needs nothing of the environment, so that a tool can stand in front of it, whether that executes it or is its parent.
//!
//! A launcher that takes the descriptors and becomes the worker was rejected: tools that live in the process (valgrind, rr) would have to follow
//! an `exec`, and the numbers might be taken. So was a server that waits as long as the user does: it has a name in the file system, and
//! whoever connects first uses it up.

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{SendFlags, send, sockopt};
use serde::{Deserialize, Serialize};

use super::worker::MESSAGE_DEADLINE;
use super::{MessageError, Role};
use crate::control::{Answer, DialError, MachineError, Request, decode_answer, dial, encode_request};
use crate::payload::{TransferError, receive_fds};

/// First argument of the command line of a worker that is started by hand; the machine's name and a [`Ticket`] follow.
pub const JOIN_ARGUMENT: &str = "--join";

/// Which process of which machine somebody means to start. No secret: who may join is decided by his user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Identity of the machine.
    pub instance: u64,
    /// Which of the role's processes, from 1.
    pub generation: u32,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.instance, self.generation)
    }
}

/// A text that is no [`Ticket`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a ticket; type the command as quintet printed it")]
pub struct TicketError(String);

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let parse = || {
            let (instance, generation) = text.split_once('.')?;
            Some(Self {
                instance: u64::from_str_radix(instance, 16).ok()?,
                generation: generation.parse().ok()?,
            })
        };
        parse()
            .filter(|ticket| ticket.to_string() == text)
            .ok_or_else(|| TicketError(text.to_owned()))
    }
}

/// What a worker that was started by hand is told, beside its descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Name of the one-shot server.
    pub server: String,
    /// The numbers by which the hello speaks of the descriptors, in the order in which these came.
    pub numbers: Vec<i32>,
    /// Log filter.
    pub log: String,
    /// Whether it is to be confined: then a panic must not look for symbols in files.
    pub confined: bool,
}

/// The line to type in a shell.
pub fn command(program: &Path, name: &str, ticket: Ticket) -> String {
    let program = program.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    let program = match program.chars().all(plain) {
        true => program,
        false => format!("'{}'", program.replace('\'', r"'\''")),
    };
    // A machine's name is plain: see `check_name`.
    format!("{program} {JOIN_ARGUMENT} {name} {ticket}")
}

/// Why a process may not be a worker.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The command line was not printed by us.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The machine could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The conversation broke off.
    #[error("Cannot talk to the machine \"{name}\"")]
    Lost {
        /// Which machine.
        name: String,
        /// Why.
        source: Errno,
    },
    /// No answer came whole.
    #[error("The machine \"{name}\" does not answer")]
    Silent {
        /// Which machine.
        name: String,
        /// Why.
        source: TransferError,
    },
    /// The machine is of another build.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// It said no.
    #[error("{}", refusal(.0))]
    Refused(MachineError),
    /// It said something else.
    #[error("The machine \"{0}\" answers strangely")]
    Strange(String),
}

fn refusal(e: &MachineError) -> String {
    match e.suggestion.as_str() {
        "" => e.message.clone(),
        suggestion => format!("{}; {suggestion}", e.message),
    }
}

/// Asks the machine `name` to be its `role`, and answers what it said, with the descriptors by the hello's numbers.
///
/// # Errors
/// [`JoinError`]; the machine is as it was then.
pub(super) fn join(
    role: Role,
    name: &str,
    ticket: &str,
) -> Result<(Joined, BTreeMap<i32, OwnedFd>), JoinError> {
    let ticket: Ticket = ticket.parse()?;
    let socket = dial(name)?;
    let lost = |source| JoinError::Lost {
        name: name.to_owned(),
        source,
    };
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(MESSAGE_DEADLINE)).map_err(lost)?;
    let request = encode_request(&Request::Join(role, ticket));
    send(&socket, &request, SendFlags::NOSIGNAL).map_err(lost)?;
    let (packet, fds) = receive_fds(&socket).map_err(|source| JoinError::Silent {
        name: name.to_owned(),
        source,
    })?;
    match decode_answer(&packet)? {
        Answer::Joined(joined) if joined.numbers.len() == fds.len() => {
            let fds = joined.numbers.iter().copied().zip(fds).collect();
            Ok((joined, fds))
        }
        Answer::Error(e) => Err(JoinError::Refused(e)),
        _ => Err(JoinError::Strange(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_comes_back_from_its_text_and_from_no_other() {
        let ticket = Ticket {
            instance: 0x00C0_FFEE,
            generation: 12,
        };
        assert_eq!(ticket.to_string(), "0000000000c0ffee.12");
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
        for wrong in [
            "",
            ".",
            "12",
            "0000000000c0ffee.",
            "c0ffee.12",
            "0000000000c0ffee.+12",
            "0000000000C0FFEE.12",
            "0000000000c0ffee.12 ",
        ] {
            assert_eq!(wrong.parse::<Ticket>(), Err(TicketError(wrong.to_owned())));
        }
    }

    #[test]
    fn a_program_is_quoted_where_a_shell_would_misread_it() {
        let ticket = Ticket {
            instance: 1,
            generation: 2,
        };
        let line = |program: &str| command(Path::new(program), "vm", ticket);
        assert_eq!(line("/a/b-c"), "/a/b-c --join vm 0000000000000001.2");
        assert_eq!(line("/a b"), "'/a b' --join vm 0000000000000001.2");
        assert_eq!(line("/a'b"), r"'/a'\''b' --join vm 0000000000000001.2");
    }

    #[test]
    fn who_finds_no_machine_says_so() {
        let error =
            |name: &str, ticket: &str| join(Role::Gpu, name, ticket).expect_err("refused").to_string();
        let nobody = format!("nobody-{}", std::process::id());
        assert!(error(&nobody, "0000000000000001.1").contains("There is no machine"));
        assert!(error(&nobody, "1").contains("not a ticket"));
    }
}
