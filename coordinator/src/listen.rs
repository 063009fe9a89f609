//! Places where others may connect: `HOST:PORT` in an option's value.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};

use crate::config::{UsageError, reason};

/// A name or address of this host, and a port; 0 is one that is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Parses `HOST:PORT`; without a host, this host alone can connect.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err("there is no port; write 127.0.0.1:1234".to_owned());
        };
        let port = port
            .parse()
            .map_err(|_| format!("\"{port}\" is not a port; write 127.0.0.1:1234"))?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Opens the listener and answers where it is. `whom` is for errors.
    ///
    /// # Errors
    /// [`UsageError`] when there is no such address, or somebody else has it.
    pub fn listen(&self, whom: &str) -> Result<(TcpListener, SocketAddr), UsageError> {
        let cannot = |e: &std::io::Error| {
            let why = match e.kind() {
                ErrorKind::AddrInUse => "somebody else has that port; try another".to_owned(),
                ErrorKind::AddrNotAvailable => "this host has no such address".to_owned(),
                ErrorKind::PermissionDenied => "permission denied; try a port above 1023".to_owned(),
                _ => reason(e),
            };
            UsageError(format!(
                "Cannot listen for {whom} at {}:{}: {why}",
                self.host, self.port
            ))
        };
        let addresses = self.addresses().map_err(|e| cannot(&e))?;
        let listener = TcpListener::bind(addresses.as_slice()).map_err(|e| cannot(&e))?;
        let at = listener.local_addr().map_err(|e| cannot(&e))?;
        Ok((listener, at))
    }

    /// Whether nobody on another host can connect.
    pub fn is_loopback(&self) -> bool {
        self.addresses()
            .is_ok_and(|all| all.iter().all(|at| at.ip().is_loopback()))
    }

    fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }
}
