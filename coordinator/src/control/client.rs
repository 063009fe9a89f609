//! The asking end of the control socket.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use quintet_protocol::control::{
    Answer, MAX_PACKET, Request, address, address_prefix, check_name, decode_answer, encode_request,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, send, socket_with, sockopt,
};

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

/// As [`ask`], with the descriptor that came with the answer, if one did.
///
/// # Errors
/// As [`ask`].
pub fn ask_for_file(name: &str, request: &Request) -> Result<(Answer, Option<OwnedFd>), UsageError> {
    check_name(name).map_err(|e| UsageError(e.to_string()))?;
    let failed = |e: Errno| UsageError(format!("Cannot talk to the machine \"{name}\": {e}"));
    let uid = rustix::process::geteuid().as_raw();
    let at = SocketAddrUnix::new_abstract_name(&address(uid, name)).map_err(failed)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(failed)?;
    connect(&socket, &at).map_err(|e| match e {
        Errno::CONNREFUSED => UsageError(format!(
            "There is no machine \"{name}\"; `quintet ps` lists those that run"
        )),
        e => failed(e),
    })?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE)).map_err(failed)?;
    send(&socket, &encode_request(request), SendFlags::NOSIGNAL).map_err(failed)?;
    let mut packet = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut packet)];
    let received = recvmsg(&socket, into, &mut control, RecvFlags::CMSG_CLOEXEC).map_err(|e| match e {
        Errno::AGAIN => UsageError(format!("The machine \"{name}\" does not answer")),
        e => failed(e),
    })?;
    let mut file = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            file = fds.last();
        }
    }
    if received.bytes == 0 {
        return Err(UsageError(format!(
            "The machine \"{name}\" ended before it answered"
        )));
    }
    let answer = decode_answer(&packet[..received.bytes])
        .map_err(|e| UsageError(format!("The machine \"{name}\" answers strangely: {e}")))?;
    Ok((answer, file))
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
