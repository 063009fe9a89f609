//! One message with one descriptor over a Unix socket, for payloads and host files that come after start-up.
//!
//! `ipc-channel` carries no raw descriptors, so this is SCM_RIGHTS by hand. The sender may close its
//! descriptor as soon as the call returns: a descriptor in flight has a reference of its own (S1.10, S1.26).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Longest message beside a descriptor, in bytes.
pub const MAX_TRANSFER: usize = 64 << 10;
/// Descriptors for which the receiver of one has room: more than one, so that a second is seen and not just cut.
const ROOM: usize = 4;
/// Most descriptors that the kernel carries with one message (SCM_MAX_FD, net/scm.h).
pub const MOST_FDS: usize = 253;

/// Why a message with a descriptor did not come through. Whatever arrived has been closed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The host refused to send.
    #[error("Cannot send a descriptor")]
    Send(#[source] Errno),
    /// The host refused to receive.
    #[error("Cannot receive a descriptor")]
    Receive(#[source] Errno),
    /// The other side closed the socket.
    #[error("The other side closed the socket before a descriptor came")]
    Closed,
    /// Not exactly one descriptor (S1.27), or more than a message carries.
    #[error("{0} descriptors with a message, which carries one, or {MOST_FDS} at a start by hand")]
    Count(usize),
    /// The message or its descriptors were cut.
    #[error("A message with a descriptor came truncated")]
    Truncated,
    /// Longer than a message may be.
    #[error("A message of {0} bytes beside a descriptor is longer than {MAX_TRANSFER}")]
    TooLong(usize),
}

/// Sends `message` and one descriptor as one packet over a SEQPACKET socket.
///
/// # Errors
/// [`TransferError::Send`], [`TransferError::TooLong`].
pub fn send_fd(socket: impl AsFd, message: &[u8], fd: BorrowedFd<'_>) -> Result<(), TransferError> {
    send_fds(socket, message, &[fd])
}

/// As [`send_fd`] with up to [`MOST_FDS`] descriptors.
///
/// # Errors
/// [`TransferError::Send`], [`TransferError::TooLong`], [`TransferError::Count`] for more descriptors.
pub fn send_fds(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), TransferError> {
    if message.len() > MAX_TRANSFER {
        return Err(TransferError::TooLong(message.len()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(TransferError::Count(fds.len()));
    }
    loop {
        match rustix::net::sendmsg(
            &socket,
            &[IoSlice::new(message)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(TransferError::Send(e)),
        }
    }
}

/// Receives one packet and its one descriptor, close-on-exec.
///
/// # Errors
/// [`TransferError`]; every descriptor that came is closed then.
pub fn receive_fd(socket: impl AsFd) -> Result<(Vec<u8>, OwnedFd), TransferError> {
    let (message, fds) = receive_any(socket, RecvFlags::empty(), ROOM)?;
    match <[OwnedFd; 1]>::try_from(fds) {
        Ok([fd]) => Ok((message, fd)),
        Err(fds) => Err(TransferError::Count(fds.len())),
    }
}

/// As [`receive_fd`], without waiting: `None` when nothing has come.
///
/// # Errors
/// As [`receive_fd`].
pub fn try_receive_fd(socket: impl AsFd) -> Result<Option<(Vec<u8>, OwnedFd)>, TransferError> {
    match receive_any(socket, RecvFlags::DONTWAIT, ROOM) {
        Err(TransferError::Receive(Errno::AGAIN)) => Ok(None),
        Err(e) => Err(e),
        Ok((message, fds)) => match <[OwnedFd; 1]>::try_from(fds) {
            Ok([fd]) => Ok(Some((message, fd))),
            Err(fds) => Err(TransferError::Count(fds.len())),
        },
    }
}

/// Receives one packet and its one descriptor, close-on-exec, if it has one.
///
/// # Errors
/// [`TransferError`]; every descriptor that came is closed then.
pub fn receive_with_fd(socket: impl AsFd) -> Result<(Vec<u8>, Option<OwnedFd>), TransferError> {
    let (message, mut fds) = receive_any(socket, RecvFlags::empty(), ROOM)?;
    match fds.len() {
        0 | 1 => Ok((message, fds.pop())),
        n => Err(TransferError::Count(n)),
    }
}

/// As [`receive_fd`], with any number of descriptors.
///
/// # Errors
/// As [`receive_fd`], but for their number.
pub fn receive_fds(socket: impl AsFd) -> Result<(Vec<u8>, Vec<OwnedFd>), TransferError> {
    receive_any(socket, RecvFlags::empty(), MOST_FDS)
}

fn receive_any(
    socket: impl AsFd,
    how: RecvFlags,
    room: usize,
) -> Result<(Vec<u8>, Vec<OwnedFd>), TransferError> {
    let mut message = vec![0; MAX_TRANSFER];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(room))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let into = &mut [IoSliceMut::new(&mut message)];
        match rustix::net::recvmsg(&socket, into, &mut control, how | RecvFlags::CMSG_CLOEXEC) {
            Ok(r) => break r,
            Err(Errno::INTR) => {}
            Err(e) => return Err(TransferError::Receive(e)),
        }
    };
    let mut fds: Vec<OwnedFd> = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = part {
            fds.extend(more);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC)
    {
        return Err(TransferError::Truncated);
    }
    if received.bytes == 0 && fds.is_empty() {
        return Err(TransferError::Closed);
    }
    message.truncate(received.bytes);
    Ok((message, fds))
}
