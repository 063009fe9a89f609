//! Artefacts that this process has taken in already.
//!
//! The coordinator keeps an artefact in one sealed memfd and sends that again. A sealed file does not change, and one that
//! is mapped here is not another one under the same number: what was checked and loaded once is neither again.

use std::os::fd::{AsFd, OwnedFd};

use quintet_protocol::payload::{
    Digest, Payload, PayloadGrant, ReceiveError, Stage, Strategy, Transport, TransportTrace,
};
use quintet_protocol::shm::Map;
use wasmtime::Module;

use crate::run::Runtime;

/// Most artefacts that are kept.
const MOST: usize = 16;
/// Most bytes of them together.
const MOST_BYTES: u64 = 64 << 20;

/// What makes a sealed file the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    digest: Digest,
}

impl Identity {
    /// Of a grant and the descriptor that came with it; `None` for what cannot be looked at.
    fn of(grant: &PayloadGrant, fd: &OwnedFd) -> Option<Self> {
        let stat = rustix::fs::fstat(fd).ok()?;
        let whole = stat.st_size as u64 == grant.len && matches!(grant.transport, Transport::Memfd(_));
        whole.then_some(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            len: grant.len,
            digest: grant.digest,
        })
    }
}

#[derive(Debug)]
struct Artefact {
    identity: Identity,
    module: Module,
    /// Its map keeps the file, and so the file's number.
    payload: Payload,
}

/// The artefacts, the one used last at the end.
#[derive(Debug, Default)]
pub struct Kept(Vec<Artefact>);

impl Kept {
    /// The module of an artefact: one that is here, or taken in and loaded now.
    ///
    /// # Errors
    /// As [`Payload::receive`]. What wasmtime says of the artefact is inside.
    pub fn module(
        &mut self,
        runtime: &Runtime,
        grant: PayloadGrant,
        fd: OwnedFd,
        trace: &mut TransportTrace,
    ) -> Result<wasmtime::Result<Module>, ReceiveError> {
        let identity = Identity::of(&grant, &fd);
        if let Some(n) = self.0.iter().position(|a| Some(a.identity) == identity) {
            let artefact = self.0.remove(n);
            trace.descriptor(Stage::Received, fd.as_fd());
            trace.bytes(Stage::Kept, artefact.payload.bytes(), "private, read-only");
            if let Some(entry) = trace.entries.last_mut() {
                entry.digest = Some(artefact.identity.digest);
            }
            let module = artefact.module.clone();
            self.0.push(artefact);
            return Ok(Ok(module));
        }
        let payload = Payload::receive_traced(grant, Some(fd), Map::private, trace)?;
        let module = match runtime.load(&payload) {
            Ok(module) => module,
            Err(e) => return Ok(Err(e)),
        };
        // Only a map keeps the file.
        if let Some(identity) = identity.filter(|_| payload.strategy() == Strategy::Mapped) {
            self.0.push(Artefact {
                identity,
                module: module.clone(),
                payload,
            });
            self.shrink();
        }
        Ok(Ok(module))
    }

    /// Gives up the oldest until the rest fits.
    fn shrink(&mut self) {
        let total = |all: &[Artefact]| all.iter().map(|a| a.identity.len).sum::<u64>();
        while self.0.len() > MOST || total(&self.0) > MOST_BYTES {
            self.0.remove(0);
        }
    }
}
