//! Reaching a running machine.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{NameError, address, check_name};

/// Why a machine could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No machine can have the name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nobody has it.
    #[error("There is no machine \"{0}\"; `quintet ps` lists those that run")]
    NoMachine(String),
    /// The host refused.
    #[error("Cannot talk to the machine \"{name}\": {source}")]
    Host {
        /// Which machine.
        name: String,
        /// Why.
        source: Errno,
    },
}

/// Connects to the control socket of this user's machine `name`.
///
/// # Errors
/// [`DialError`].
pub fn dial(name: &str) -> Result<OwnedFd, DialError> {
    check_name(name)?;
    let host = |source| DialError::Host {
        name: name.to_owned(),
        source,
    };
    let uid = rustix::process::geteuid().as_raw();
    let at = SocketAddrUnix::new_abstract_name(&address(uid, name)).map_err(host)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(host)?;
    connect(&socket, &at).map_err(|e| match e {
        Errno::CONNREFUSED => DialError::NoMachine(name.to_owned()),
        e => host(e),
    })?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_there_and_who_cannot_be_are_told_apart() {
        let nobody = format!("nobody-{}", std::process::id());
        assert!(matches!(dial(&nobody), Err(DialError::NoMachine(name)) if name == nobody));
        assert!(matches!(
            dial("a/b"),
            Err(DialError::Name(NameError::Characters(_)))
        ));
    }
}
