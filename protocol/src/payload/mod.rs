//! Kernels, initrds and firmware on their way from the coordinator to a worker.
//!
//! One rule chooses the transport: below [`INLINE_LIMIT`] bytes a payload lies in the message, from there on
//! in a memfd that is sealed against every change (S1.1, S1.22). Both carry length, digest and the first
//! 16 bytes, so that a payload that does not arrive whole is named at the stage where it went wrong.
//!
//! The receiver maps private and read-only: a shared read-only map of a write-sealed memfd is refused by
//! kernels before 6.7, a private one by none (S1.25).

mod digest;
mod receive;
mod relay;
mod seal;
mod trace;
mod transfer;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

pub use digest::{Digest, First, digest, digest_beside};
pub use receive::{Arrival, Found, Payload, ReceiveError, Strategy};
pub use relay::Relay;
pub use seal::{FULL_SEALS, SealError, open_memfd, seal, sealed_memfd};
pub use trace::{Stage, TraceEntry, TransportTrace};
pub use transfer::{
    MOST_FDS, TransferError, receive_fd, receive_fds, receive_with_fd, send_fd, send_fds, try_receive_fd,
};

/// Size from which a payload travels as a sealed memfd, in bytes (S1.1).
pub const INLINE_LIMIT: u64 = 512_000;
/// Largest payload, in bytes (S1.21). Four times the largest distribution initrd seen.
pub const MAX_PAYLOAD: u64 = 2 << 30;
/// Bytes shown of the head of a payload at each stage (S1.20).
pub const HEAD: usize = 16;

/// What a payload is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadKind {
    /// `--kernel`.
    Kernel,
    /// `--initrd` of a Linux kernel, or the n-th multiboot module with its command line.
    Initrd {
        /// File name and arguments, as multiboot passes them to the kernel.
        cmdline: String,
    },
    /// `--firmware`.
    Firmware,
    /// `--device vga,romfile=FILE`.
    VgaRom,
    /// A WebAssembly module, for its compiler.
    WasmModule,
    /// A compiled WebAssembly module, for the cpu-worker.
    WasmArtefact,
}

impl PayloadKind {
    /// For people.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd { .. } => "initrd",
            Self::Firmware => "firmware",
            Self::VgaRom => "VGA BIOS",
            Self::WasmModule => "WebAssembly module",
            Self::WasmArtefact => "compiled WebAssembly module",
        }
    }
}

/// How a payload's bytes travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// In the message.
    Inline(Vec<u8>),
    /// In a sealed memfd inherited under this number.
    Memfd(i32),
}

/// Which transport to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TransportChoice {
    /// By size: the rule of S1.1.
    #[default]
    BySize,
    /// In the message, whatever the size; for tests that compare the two.
    Inline,
    /// In a memfd, whatever the size; for tests that compare the two.
    Memfd,
}

impl TransportChoice {
    fn inline(self, len: u64) -> bool {
        match self {
            Self::BySize => len < INLINE_LIMIT,
            Self::Inline => true,
            Self::Memfd => false,
        }
    }
}

/// A payload as a hello names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadGrant {
    /// What it is for.
    pub kind: PayloadKind,
    /// Length in bytes.
    pub len: u64,
    /// Its digest, taken when the coordinator read the file.
    pub digest: Digest,
    /// Its first 16 bytes, zeros behind a shorter one (S1.20).
    pub head: [u8; HEAD],
    /// Where its bytes are.
    pub transport: Transport,
}

impl PayloadGrant {
    /// What is known before its digest, how it travels, and its digest.
    pub fn split(self) -> (PayloadPromise, Transport, Digest) {
        let promise = PayloadPromise {
            kind: self.kind,
            len: self.len,
            head: self.head,
        };
        (promise, self.transport, self.digest)
    }
}

/// A payload that is sent as a sealed memfd while its digest is still being taken; the digest follows in a message of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadPromise {
    /// What it is for.
    pub kind: PayloadKind,
    /// Length in bytes.
    pub len: u64,
    /// Its first 16 bytes, zeros behind a shorter one (S1.20).
    pub head: [u8; HEAD],
}

/// A payload in the coordinator, kept for restarts and resets.
#[derive(Debug)]
pub struct Outgoing {
    kind: PayloadKind,
    len: u64,
    digest: Digest,
    head: [u8; HEAD],
    held: Held,
    trace: TransportTrace,
}

#[derive(Debug)]
enum Held {
    Inline(Vec<u8>),
    Memfd(OwnedFd),
}

impl Held {
    fn text(&self) -> &'static str {
        match self {
            Self::Inline(_) => "inline",
            Self::Memfd(_) => "sealed memfd",
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Inline(_) => None,
            Self::Memfd(fd) => Some(fd.as_fd()),
        }
    }

    fn transport(&self, number: i32) -> Transport {
        match self {
            Self::Inline(bytes) => Transport::Inline(bytes.clone()),
            Self::Memfd(_) => Transport::Memfd(number),
        }
    }
}

impl Outgoing {
    /// Prepares `bytes` for transport.
    ///
    /// # Errors
    /// [`SealError`] when the memfd cannot be made, filled or sealed; an empty or too large payload.
    pub fn new(kind: PayloadKind, bytes: &[u8], choice: TransportChoice) -> Result<Self, SealError> {
        Self::make(kind, bytes, choice, |_| ()).map(|(outgoing, ())| outgoing)
    }

    /// Prepares `bytes` for transport as a memfd, which `send` gets as soon as it is sealed, while the digest is still being
    /// taken.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing has been sent then.
    pub fn new_ahead<T>(
        kind: PayloadKind,
        bytes: &[u8],
        send: impl FnOnce(PayloadPromise, BorrowedFd<'_>) -> T,
    ) -> Result<(Self, T), SealError> {
        let promise = PayloadPromise {
            kind: kind.clone(),
            len: bytes.len() as u64,
            head: head(bytes),
        };
        Self::make(kind, bytes, TransportChoice::Memfd, |held| match held {
            Held::Memfd(fd) => send(promise, fd.as_fd()),
            Held::Inline(_) => unreachable!("asked for as a memfd"),
        })
    }

    fn make<T>(
        kind: PayloadKind,
        bytes: &[u8],
        choice: TransportChoice,
        ready: impl FnOnce(&Held) -> T,
    ) -> Result<(Self, T), SealError> {
        let len = bytes.len() as u64;
        if len == 0 || len > MAX_PAYLOAD {
            return Err(SealError::Size { len });
        }
        let mut trace = TransportTrace::new(kind.text());
        trace.bytes(Stage::Source, bytes, "");
        let (digest, made) = digest_beside(bytes, First::Other, || -> Result<(Held, T), SealError> {
            let held = if choice.inline(len) {
                Held::Inline(bytes.to_vec())
            } else {
                Held::Memfd(seal::sealed_memfd_traced(bytes, &mut trace)?)
            };
            let done = ready(&held);
            Ok((held, done))
        });
        let (held, done) = made?;
        trace.entries[0].digest = Some(digest);
        let outgoing = Self {
            kind,
            len,
            digest,
            head: head(bytes),
            held,
            trace,
        };
        Ok((outgoing, done))
    }

    /// What another process has written into `fd`, which nobody can write any more: it is sealed here, and its
    /// length and digest must be the announced ones.
    ///
    /// # Errors
    /// [`SealError`] when somebody still has a writable map, or the contents are not as announced.
    pub fn adopt(kind: PayloadKind, fd: OwnedFd, len: u64, digest: Digest) -> Result<Self, SealError> {
        let mut trace = TransportTrace::new(kind.text());
        trace.descriptor(Stage::Written, fd.as_fd());
        if len == 0 || len > MAX_PAYLOAD {
            return Err(SealError::Size { len });
        }
        seal(&fd)?;
        trace.descriptor(Stage::Sealed, fd.as_fd());
        let map = crate::shm::Map::private(fd.as_fd(), len);
        let map = map.map_err(|_| SealError::Seal(rustix::io::Errno::NOMEM))?;
        let actual = rustix::fs::fstat(&fd).map_err(SealError::Seal)?.st_size as u64;
        let (found, first) = if actual == len {
            receive::with_sealed_bytes(&map, len as usize, |bytes| (self::digest(bytes), head(bytes)))
        } else {
            (Digest::default(), [0; HEAD])
        };
        if found != digest {
            return Err(SealError::Changed {
                stage: "between its writer and the seal",
                was: hex(&digest),
                is: hex(&found),
            });
        }
        Ok(Self {
            kind,
            len,
            digest,
            head: first,
            held: Held::Memfd(fd),
            trace,
        })
    }

    /// What was seen of it so far, in this process.
    pub fn trace(&self) -> &TransportTrace {
        &self.trace
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How its bytes travel, for people.
    pub fn transport(&self) -> &'static str {
        self.held.text()
    }

    /// What it is for.
    pub fn kind(&self) -> &PayloadKind {
        &self.kind
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an empty payload cannot be made")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The first bytes, zeros behind a shorter payload.
    pub fn head(&self) -> [u8; HEAD] {
        self.head
    }

    /// The descriptor that has to reach the receiver; `None` for an inline payload.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.held.fd()
    }

    /// The grant for a receiver that finds the descriptor under `number`, which is ignored for an inline
    /// payload.
    pub fn grant(&self, number: i32) -> PayloadGrant {
        PayloadGrant {
            kind: self.kind.clone(),
            len: self.len,
            digest: self.digest,
            head: self.head,
            transport: self.held.transport(number),
        }
    }
}

/// The first bytes of `bytes`, zeros behind a shorter slice.
pub fn head(bytes: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let n = bytes.len().min(HEAD);
    head[..n].copy_from_slice(&bytes[..n]);
    head
}

/// Bytes as a hex dump in one line, `7f 45 4c 46 …`.
pub fn hex(bytes: &[u8]) -> String {
    use core::fmt::Write as _;
    let mut s = String::with_capacity(bytes.len() * 3);
    for (i, b) in bytes.iter().enumerate() {
        let _ = write!(s, "{}{b:02x}", if i == 0 { "" } else { " " });
    }
    s
}
