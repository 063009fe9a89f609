//! The asking end of the control socket.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use quintet_protocol::control::{
    Answer, Request, StatusReport, address_prefix, decode_answer, dial, encode_request,
};
use quintet_protocol::handshake::worker::with_sources;
use quintet_protocol::payload::{Digest, TransferError, receive_with_fd, send_fd};
use rustix::io::Errno;
use rustix::net::{SendFlags, send, sockopt};

use crate::config::UsageError;

/// Longest wait for an answer: the machine's own patience and some.
const PATIENCE: Duration = Duration::from_secs(12);

/// Asks the machine `name`.
///
/// # Errors
/// [`UsageError`] when there is no such machine or it does not answer.
pub fn ask(name: &str, request: &Request) -> Result<Answer, UsageError> {
    ask_for_file(name, request).map(|(answer, _)| answer)
}

/// How the machine `name` is.
///
/// # Errors
/// As [`ask`], and what the machine itself says.
pub fn report(name: &str) -> Result<StatusReport, UsageError> {
    match ask(name, &Request::Status)? {
        Answer::Status(report) => Ok(*report),
        Answer::Error(e) => Err(UsageError(super::show::error(&e))),
        _ => Err(UsageError(format!("The machine \"{name}\" answers strangely"))),
    }
}

/// As [`ask`], with the descriptor that came with the answer, if one did.
///
/// # Errors
/// As [`ask`].
pub fn ask_for_file(name: &str, request: &Request) -> Result<(Answer, Option<OwnedFd>), UsageError> {
    Conversation::start(name, request, None)?.answer(Some(PATIENCE))
}

/// A request that has not been answered yet.
#[derive(Debug)]
pub struct Conversation {
    socket: OwnedFd,
    name: String,
}

impl Conversation {
    /// Asks the machine `name`, giving it a descriptor if there is one.
    ///
    /// # Errors
    /// [`UsageError`] when there is no such machine.
    pub fn start(name: &str, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<Self, UsageError> {
        let failed =
            |e: &dyn std::fmt::Display| UsageError(format!("Cannot talk to the machine \"{name}\": {e}"));
        let socket = dial(name).map_err(|e| UsageError(e.to_string()))?;
        let packet = encode_request(request);
        match fd {
            Some(fd) => send_fd(&socket, &packet, fd).map_err(|e| failed(&e))?,
            None => drop(send(&socket, &packet, SendFlags::NOSIGNAL).map_err(|e| failed(&e))?),
        }
        Ok(Self {
            socket,
            name: name.to_owned(),
        })
    }

    /// Sends the digest of the module that was submitted. That the machine has refused the module meanwhile is learnt from its
    /// answer.
    pub fn announce(&self, digest: &Digest) {
        let _ = send(&self.socket, digest, SendFlags::NOSIGNAL);
    }

    /// Waits for the answer, at most for `patience`, without it for as long as the machine lives.
    ///
    /// # Errors
    /// [`UsageError`] when none comes.
    pub fn answer(self, patience: Option<Duration>) -> Result<(Answer, Option<OwnedFd>), UsageError> {
        let name = &self.name;
        let failed =
            |e: &dyn std::fmt::Display| UsageError(format!("Cannot talk to the machine \"{name}\": {e}"));
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, patience)
            .map_err(|e| failed(&e))?;
        let received = match receive_with_fd(&self.socket) {
            // The machine has answered without reading all that was sent; the answer is there all the same.
            Err(TransferError::Receive(Errno::CONNRESET)) => receive_with_fd(&self.socket),
            received => received,
        };
        let (packet, file) = received.map_err(|e| match e {
            TransferError::Receive(Errno::AGAIN) => {
                UsageError(format!("The machine \"{name}\" does not answer"))
            }
            TransferError::Closed | TransferError::Receive(Errno::CONNRESET) => {
                UsageError(format!("The machine \"{name}\" ended before it answered"))
            }
            e => failed(&with_sources(&e)),
        })?;
        let answer = decode_answer(&packet)
            .map_err(|e| UsageError(format!("The machine \"{name}\" answers strangely: {e}")))?;
        Ok((answer, file))
    }
}

/// The names of this user's machines, sorted.
pub fn names() -> Vec<String> {
    let prefix = format!("@{}", address_prefix(rustix::process::geteuid().as_raw()));
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut names: Vec<String> = table
        .lines()
        .filter_map(|l| {
            l.split_whitespace()
                .nth(7)?
                .strip_prefix(&prefix)
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    // Accepted connections are listed under the address too.
    names.dedup();
    names
}
