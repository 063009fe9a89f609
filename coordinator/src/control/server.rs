//! The machine's end of the control socket.
//!
//! One thread takes one request at a time and hands it to the main loop, which answers; who dawdles is cut off
//! after two seconds, so nobody can keep others from talking to the machine for long.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::time::Duration;

use quintet_protocol::control::{address, decode_request};
use quintet_protocol::payload::{Digest, TransferError, receive_with_fd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt,
};

use crate::machine::{Event, Waker};

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The name is taken.
    #[error("A machine named \"{0}\" is running already; choose another --name")]
    Taken(String),
    /// The host refused.
    #[error("Cannot make the control socket: {0}")]
    Host(#[from] Errno),
}

/// A bound control socket.
#[derive(Debug)]
pub struct Server {
    socket: OwnedFd,
}

/// How long a peer may take to send its request.
const DAWDLE: Duration = Duration::from_secs(2);

impl Server {
    /// Binds the address of the machine `name`. An abstract address goes with the process.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn bind(name: &str) -> Result<Self, ServerError> {
        let uid = rustix::process::geteuid().as_raw();
        let at = SocketAddrUnix::new_abstract_name(&address(uid, name))?;
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&socket, &at).map_err(|e| match e {
            Errno::ADDRINUSE => ServerError::Taken(name.to_owned()),
            e => e.into(),
        })?;
        listen(&socket, 64)?;
        Ok(Self { socket })
    }

    /// Takes requests on a thread of its own.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn start(self, events: Sender<Event>, waker: Waker) -> std::io::Result<()> {
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                loop {
                    match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                        Ok(peer) => take(peer, &events, &waker),
                        Err(Errno::INTR | Errno::CONNABORTED) => {}
                        Err(e) => {
                            tracing::warn!("the control socket is closed: {e}");
                            return;
                        }
                    }
                }
            })?;
        Ok(())
    }
}

/// Waits for the digest of a module that somebody has submitted, no longer than for any other packet.
///
/// # Errors
/// A sentence, when none comes or something else does.
pub fn receive_digest(peer: &OwnedFd) -> Result<Digest, String> {
    let (packet, file) = receive_with_fd(peer).map_err(|e| match e {
        TransferError::Receive(Errno::AGAIN) => "its sender takes too long".to_owned(),
        e => e.to_string(),
    })?;
    match (Digest::try_from(packet), file) {
        (Ok(digest), None) => Ok(digest),
        _ => Err("something else came".to_owned()),
    }
}

fn take(peer: OwnedFd, events: &Sender<Event>, waker: &Waker) {
    // Everybody can reach an abstract address; only our user and root may ask.
    let ours =
        sockopt::socket_peercred(&peer).is_ok_and(|c| c.uid == rustix::process::geteuid() || c.uid.is_root());
    if !ours || sockopt::set_socket_timeout(&peer, sockopt::Timeout::Recv, Some(DAWDLE)).is_err() {
        return;
    }
    let (packet, file) = match receive_with_fd(&peer) {
        Ok(received) => received,
        Err(e) => return tracing::debug!("a request on the control socket was refused: {e}"),
    };
    match decode_request(&packet) {
        Ok(request) => {
            let _ = events.send(Event::Request(request, file, peer));
            waker.wake();
        }
        Err(e) => tracing::debug!("a request on the control socket was refused: {e}"),
    }
}
