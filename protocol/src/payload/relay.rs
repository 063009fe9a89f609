//! A payload on its way through a process that does not use it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::receive::{Arrival, ReceiveError};
use super::{
    Digest, Held, INLINE_LIMIT, Outgoing, PayloadPromise, TransportChoice, TransportTrace, digest, head,
};
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
    /// Its sender has not said what its digest is.
    #[error("The payload's digest did not come: {0}")]
    NotAnnounced(String),
}

/// A payload that is passed on. Of one that came from somebody else, the digest is taken while the sender takes it too and the
/// next one has the payload already; nobody is told what came of it before.
#[derive(Debug)]
pub struct Relay {
    outgoing: Outgoing,
    trace: TransportTrace,
    /// What came, until its digest has been compared.
    arrival: Option<Begun>,
}

/// What came, and who takes its digest; nobody yet if it is short.
#[derive(Debug)]
struct Begun {
    arrival: Arc<Arrival>,
    thread: Option<JoinHandle<Digest>>,
}

impl Begun {
    fn new(arrival: Arrival) -> Self {
        let arrival = Arc::new(arrival);
        let thread = ((arrival.bytes().len() as u64) >= INLINE_LIMIT).then(|| {
            let arrival = Arc::clone(&arrival);
            let thread = std::thread::Builder::new().name("digest".into());
            thread.spawn(move || digest(arrival.bytes()))
        });
        Self {
            arrival,
            // Without a thread it is taken when it is asked for.
            thread: thread.and_then(Result::ok),
        }
    }

    fn take(&mut self) -> Digest {
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
            None => digest(self.arrival.bytes()),
        }
    }
}

impl Drop for Begun {
    /// Nothing of it stays behind.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
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
    /// travels as a memfd. `announced` waits for the digest to come, while it is taken here.
    ///
    /// # Errors
    /// [`RelayError`].
    pub fn new(
        promise: PayloadPromise,
        fd: OwnedFd,
        choice: TransportChoice,
        announced: impl FnOnce() -> Result<Digest, String>,
    ) -> Result<Self, RelayError> {
        let mut trace = TransportTrace::new(promise.kind.text());
        let kind = promise.kind.clone();
        let kept = fd.try_clone().map_err(RelayError::Keep)?;
        let grant = promise.grant(Digest::default());
        let arrival = Begun::new(Arrival::receive(grant, Some(fd), Map::private, &mut trace)?);
        let digest = announced().map_err(RelayError::NotAnnounced)?;
        let bytes = arrival.arrival.bytes();
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

    /// Compares the digest, if that has not been done yet.
    ///
    /// # Errors
    /// [`ReceiveError::DigestMismatch`].
    pub fn check(&mut self) -> Result<(), ReceiveError> {
        let Some(mut begun) = self.arrival.take() else {
            return Ok(());
        };
        let received = begun.take();
        begun
            .arrival
            .judge(self.outgoing.digest, received, &mut self.trace)
    }

    /// Compares the digest, if that has not been done yet, after `meanwhile` has passed the payload on. What came of that is
    /// told only if it was the announced one.
    ///
    /// # Errors
    /// [`ReceiveError::DigestMismatch`].
    pub fn check_beside<T>(&mut self, meanwhile: impl FnOnce(&Outgoing) -> T) -> Result<T, ReceiveError> {
        let done = meanwhile(&self.outgoing);
        self.check()?;
        Ok(done)
    }
}
