//! A payload on its way through a process that does not use it.

use std::os::fd::OwnedFd;

use super::receive::{Arrival, ReceiveError};
use super::{Digest, Held, Outgoing, PayloadGrant, TransportChoice, TransportTrace, head};
use crate::shm::Map;

/// Why a payload could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// It did not come through.
    #[error(transparent)]
    Received(#[from] ReceiveError),
    /// The host has no descriptor left.
    #[error("The payload's descriptor cannot be kept: {0}")]
    Keep(std::io::Error),
}

/// A payload that is passed on. Of one that came from somebody else, the digest may be taken while the next one has it
/// already; nobody is told what came of it before.
#[derive(Debug)]
pub struct Relay {
    outgoing: Outgoing,
    trace: TransportTrace,
    /// What came, until its digest has been taken.
    arrival: Option<Arrival>,
}

impl From<Outgoing> for Relay {
    /// A payload of this process's own, whose digest is known.
    fn from(outgoing: Outgoing) -> Self {
        Self {
            trace: outgoing.trace.clone(),
            outgoing,
            arrival: None,
        }
    }
}

impl Relay {
    /// What has come as a sealed memfd: checked like every payload but for its digest, and passed on as it is if it
    /// travels as a memfd.
    ///
    /// # Errors
    /// [`RelayError`].
    pub fn new(grant: PayloadGrant, fd: OwnedFd, choice: TransportChoice) -> Result<Self, RelayError> {
        let mut trace = TransportTrace::new(grant.kind.text());
        let (kind, digest) = (grant.kind.clone(), grant.digest);
        let kept = fd.try_clone().map_err(RelayError::Keep)?;
        let arrival = Arrival::receive(grant, Some(fd), Map::private, &mut trace)?;
        let bytes = arrival.bytes();
        let len = bytes.len() as u64;
        let held = if choice.inline(len) {
            Held::Inline(bytes.to_vec())
        } else {
            Held::Memfd(kept)
        };
        Ok(Self {
            outgoing: Outgoing {
                kind,
                len,
                digest,
                head: head(bytes),
                held,
                trace: TransportTrace::default(),
            },
            trace,
            arrival: Some(arrival),
        })
    }

    /// The digest that was announced. That it is the right one is known after [`Self::check`] or [`Self::check_beside`].
    pub fn announced(&self) -> Digest {
        self.outgoing.digest
    }

    /// How its bytes travel on, for people.
    pub fn transport(&self) -> &'static str {
        self.outgoing.transport()
    }

    /// What was seen of it so far, in this process.
    pub fn trace(&self) -> &TransportTrace {
        &self.trace
    }

    /// Takes the digest, if that has not been done yet.
    ///
    /// # Errors
    /// [`ReceiveError::DigestMismatch`].
    pub fn check(&mut self) -> Result<(), ReceiveError> {
        let Some(arrival) = self.arrival.take() else {
            return Ok(());
        };
        arrival.check(&mut self.trace).map(drop)
    }

    /// Takes the digest, if that has not been done yet, while `meanwhile` passes the payload on. What came of that is told
    /// only if it was the announced one.
    ///
    /// # Errors
    /// [`ReceiveError::DigestMismatch`].
    pub fn check_beside<T>(&mut self, meanwhile: impl FnOnce(&Outgoing) -> T) -> Result<T, ReceiveError> {
        let Some(arrival) = self.arrival.take() else {
            return Ok(meanwhile(&self.outgoing));
        };
        let outgoing = &self.outgoing;
        let checked = arrival.check_beside(&mut self.trace, |_| meanwhile(outgoing));
        checked.map(|(_, done)| done)
    }
}
