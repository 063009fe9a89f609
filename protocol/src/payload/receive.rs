//! The receiving end: everything is checked before a byte is looked at.
#![allow(unsafe_code, reason = "shows an immutable private map as a slice")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, SealFlags};
use rustix::io::Errno;

use super::{
    Digest, FULL_SEALS, HEAD, MAX_PAYLOAD, PayloadGrant, PayloadKind, PayloadPromise, Stage, Transport,
    TransportTrace, digest, digest::First, digest_beside, head, hex,
};
use crate::shm::{Map, MapError};

/// `f_type` of hugetlbfs (linux/magic.h).
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// How the bytes came to be readable here; named in reports (S1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Strategy {
    /// They were in the message.
    Inline,
    /// The memfd is mapped.
    Mapped,
    /// The map was refused and the memfd read into the heap (S1.12).
    Copied,
}

impl Strategy {
    /// As reports say it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Mapped => "mapped",
            Self::Copied => "copied",
        }
    }
}

/// Why a payload was refused. One cause, one variant (S1.6, S1.21, S1.22, S1.28).
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The announced length is zero.
    #[error("Payload is empty")]
    Empty,
    /// The announced length is beyond what a payload may be.
    #[error("Payload of {len} bytes is larger than {MAX_PAYLOAD}")]
    TooLarge {
        /// Announced length in bytes.
        len: u64,
    },
    /// A memfd was announced and none came.
    #[error("Payload's descriptor did not arrive")]
    NoDescriptor,
    /// The descriptor is not a regular, memory-backed file.
    #[error("Payload's descriptor is a {0}, not a sealed memfd")]
    WrongKind(&'static str),
    /// The descriptor was opened read-only: it is not the one that the sender sealed.
    #[error("Payload's descriptor was opened read-only; the sender's own was expected")]
    ReadOnly,
    /// The file is shorter than announced.
    #[error("Payload has {actual} bytes, fewer than the {announced} announced")]
    Short {
        /// Announced length in bytes.
        announced: u64,
        /// Length by `fstat`, in bytes.
        actual: u64,
    },
    /// The file is longer than announced.
    #[error("Payload has {actual} bytes, more than the {announced} announced")]
    Long {
        /// Announced length in bytes.
        announced: u64,
        /// Length by `fstat`, in bytes.
        actual: u64,
    },
    /// Some seal is missing: its contents could still change.
    #[error("Payload's memfd lacks the seals {missing}")]
    Unsealed {
        /// Names of the missing seals.
        missing: String,
    },
    /// The host refused to describe the descriptor.
    #[error("Cannot examine the payload's descriptor")]
    Examine(#[source] Errno),
    /// Neither a map nor a copy was possible.
    #[error("Cannot map the payload and cannot read it either")]
    Read(#[source] Errno),
    /// What arrived is not what was sent (S1.20).
    #[error(
        "Payload's digest differs{}: sent {sent} starting {sent_head}, received {received} starting {received_head}",
        if *.zeros { " (all zero: the map is not the file)" } else { "" }
    )]
    DigestMismatch {
        /// Digest from the message, in hex.
        sent: String,
        /// Digest of what arrived, in hex.
        received: String,
        /// First bytes from the message.
        sent_head: String,
        /// First bytes of what arrived.
        received_head: String,
        /// Whether all that arrived is zero.
        zeros: bool,
    },
}

/// A payload that has arrived and been checked. Its bytes never change.
#[derive(Debug)]
pub struct Payload {
    kind: PayloadKind,
    bytes: Bytes,
    strategy: Strategy,
}

#[derive(Debug)]
enum Bytes {
    Heap(Vec<u8>),
    Map(Map, usize),
}

impl Payload {
    /// A payload whose bytes this process already has.
    pub fn from_vec(kind: PayloadKind, bytes: Vec<u8>) -> Self {
        Self {
            kind,
            bytes: Bytes::Heap(bytes),
            strategy: Strategy::Inline,
        }
    }

    /// Takes a payload in. `fd` is the descriptor that came with a memfd grant; it is closed in any case.
    ///
    /// # Errors
    /// [`ReceiveError`], each cause its own.
    pub fn receive(grant: PayloadGrant, fd: Option<OwnedFd>) -> Result<Self, ReceiveError> {
        Self::receive_with(grant, fd, Map::private)
    }

    /// As [`Self::receive`] with another way to map: a failing one shows that the copy path works (S1.12).
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_with(
        grant: PayloadGrant,
        fd: Option<OwnedFd>,
        map: impl FnOnce(BorrowedFd<'_>, u64) -> Result<Map, MapError>,
    ) -> Result<Self, ReceiveError> {
        let mut trace = TransportTrace::new(grant.kind.text());
        Self::receive_traced(grant, fd, map, &mut trace)
    }

    /// As [`Self::receive_with`], noting in `trace` what is seen, and the error if there is one (S1.20).
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_traced(
        grant: PayloadGrant,
        fd: Option<OwnedFd>,
        map: impl FnOnce(BorrowedFd<'_>, u64) -> Result<Map, MapError>,
        trace: &mut TransportTrace,
    ) -> Result<Self, ReceiveError> {
        let (promise, transport, announced) = grant.split();
        Arrival::receive(promise, transport, fd, map, trace)?.check(announced, trace)
    }

    /// What it is for.
    pub fn kind(&self) -> &PayloadKind {
        &self.kind
    }

    /// How its bytes came here.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Its bytes: exactly as many as were announced, never the tail of the last page (S1.21).
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Heap(v) => v,
            Bytes::Map(m, len) => sealed_bytes(m, *len),
        }
    }

    /// The first bytes, zeros behind a shorter payload.
    pub fn head(&self) -> [u8; HEAD] {
        head(self.bytes())
    }
}

/// A payload of which everything has been checked but the digest: its bytes never change, but they may not be the
/// announced ones.
#[derive(Debug)]
pub struct Arrival {
    payload: Payload,
    /// As announced.
    head: [u8; HEAD],
    /// Where the trace has it.
    entry: usize,
}

impl Arrival {
    /// As [`Payload::receive_traced`], without the digest.
    ///
    /// # Errors
    /// As [`Payload::receive`].
    pub fn receive(
        promise: PayloadPromise,
        transport: Transport,
        fd: Option<OwnedFd>,
        map: impl FnOnce(BorrowedFd<'_>, u64) -> Result<Map, MapError>,
        trace: &mut TransportTrace,
    ) -> Result<Self, ReceiveError> {
        let received = Self::take_in(promise, transport, fd, map, trace);
        if let Err(e) = &received {
            trace.error = e.to_string();
        }
        received
    }

    fn take_in(
        promise: PayloadPromise,
        transport: Transport,
        fd: Option<OwnedFd>,
        map: impl FnOnce(BorrowedFd<'_>, u64) -> Result<Map, MapError>,
        trace: &mut TransportTrace,
    ) -> Result<Self, ReceiveError> {
        match transport {
            Transport::Inline(bytes) => {
                if let Some(fd) = &fd {
                    trace.descriptor(Stage::Received, fd.as_fd());
                }
                check_announced(promise.len)?;
                check_len(promise.len, bytes.len() as u64)?;
                Ok(Self::note(promise, Bytes::Heap(bytes), Strategy::Inline, trace))
            }
            Transport::Memfd(_) => {
                examine(promise.len, fd.as_ref().map(AsFd::as_fd), trace)?;
                let fd = fd.ok_or(ReceiveError::NoDescriptor)?;
                Self::open(promise, fd.as_fd(), map, trace)
            }
        }
    }

    /// Maps, or else reads, what [`examine`] has found to be in order.
    pub(super) fn open(
        promise: PayloadPromise,
        fd: BorrowedFd<'_>,
        map: impl FnOnce(BorrowedFd<'_>, u64) -> Result<Map, MapError>,
        trace: &mut TransportTrace,
    ) -> Result<Self, ReceiveError> {
        let (bytes, strategy) = match map(fd, promise.len) {
            Ok(m) => (Bytes::Map(m, promise.len as usize), Strategy::Mapped),
            Err(_) => (Bytes::Heap(read_all(fd, promise.len)?), Strategy::Copied),
        };
        Ok(Self::note(promise, bytes, strategy, trace))
    }

    fn note(promise: PayloadPromise, bytes: Bytes, strategy: Strategy, trace: &mut TransportTrace) -> Self {
        let payload = Payload {
            kind: promise.kind,
            bytes,
            strategy,
        };
        let (stage, how) = match strategy {
            Strategy::Inline => (Stage::Inline, ""),
            Strategy::Mapped => (Stage::Mapped, "private, read-only"),
            Strategy::Copied => (Stage::Copied, ""),
        };
        trace.bytes(stage, payload.bytes(), how);
        Self {
            payload,
            head: promise.head,
            entry: trace.entries.len() - 1,
        }
    }

    /// Its bytes, whether they are the announced ones or not.
    pub fn bytes(&self) -> &[u8] {
        self.payload.bytes()
    }

    /// Takes the digest, and notes it in the trace that saw the payload arrive.
    ///
    /// # Errors
    /// [`ReceiveError::DigestMismatch`].
    pub fn check(self, announced: Digest, trace: &mut TransportTrace) -> Result<Payload, ReceiveError> {
        let received = digest(self.bytes());
        self.judge(announced, received, trace)?;
        Ok(self.payload)
    }

    /// For a receiver that is not told what was announced: takes the digest, notes it in the trace that saw the payload arrive, and
    /// answers what was found, which whoever knows the announced digest has to judge. Meanwhile, `meanwhile` looks at the bytes.
    pub fn find_beside<T>(
        self,
        trace: &mut TransportTrace,
        meanwhile: impl FnOnce(&[u8]) -> T,
    ) -> (Payload, Found, T) {
        // Whoever waits for what was found can use nothing else before.
        let (received, done) = digest_beside(self.bytes(), First::Digest, || meanwhile(self.bytes()));
        let found = self.found(received, trace);
        (self.payload, found, done)
    }

    fn found(&self, received: Digest, trace: &mut TransportTrace) -> Found {
        if let Some(entry) = trace.entries.get_mut(self.entry) {
            entry.digest = Some(received);
        }
        Found {
            digest: received,
            head: head(self.bytes()),
            zeros: self.bytes().iter().all(|&b| b == 0),
        }
    }

    /// Compares digests, and notes the received one in the trace that saw the payload arrive.
    pub(super) fn judge(
        &self,
        announced: Digest,
        received: Digest,
        trace: &mut TransportTrace,
    ) -> Result<(), ReceiveError> {
        let judged = self.found(received, trace).judge(announced, self.head);
        if let Err(e) = &judged {
            trace.error = e.to_string();
        }
        judged
    }
}

/// What a receiver has found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Found {
    /// Digest of what arrived.
    pub digest: Digest,
    /// Its first bytes, zeros behind fewer.
    pub head: [u8; HEAD],
    /// Whether all of it is zero.
    pub zeros: bool,
}

impl Found {
    /// Compares it with what was announced.
    ///
    /// # Errors
    /// [`ReceiveError::DigestMismatch`].
    pub fn judge(&self, announced: Digest, announced_head: [u8; HEAD]) -> Result<(), ReceiveError> {
        if self.digest == announced {
            return Ok(());
        }
        Err(ReceiveError::DigestMismatch {
            sent: hex(&announced),
            received: hex(&self.digest),
            sent_head: hex(&announced_head),
            received_head: hex(&self.head),
            zeros: self.zeros,
        })
    }
}

/// The bytes of a private map of a sealed file. For maps that were made of one only.
fn sealed_bytes(map: &Map, len: usize) -> &[u8] {
    assert!(len <= map.len(), "{len} bytes of a map of {}", map.len());
    // SAFETY: the map is `len` bytes long at least, lives as long as the reference, is private, and the file behind
    // it is sealed against writes and truncation, so the bytes never change.
    unsafe { core::slice::from_raw_parts(map.as_ptr(), len) }
}

/// Shows the bytes of a private map of a file that the caller has just sealed.
pub(super) fn with_sealed_bytes<T>(map: &Map, len: usize, look: impl FnOnce(&[u8]) -> T) -> T {
    look(sealed_bytes(map, len))
}

/// All that can be said of a descriptor and its announced length before a byte is looked at.
pub(super) fn examine(
    announced: u64,
    fd: Option<BorrowedFd<'_>>,
    trace: &mut TransportTrace,
) -> Result<(), ReceiveError> {
    if let Some(fd) = fd {
        trace.descriptor(Stage::Received, fd);
    }
    check_announced(announced)?;
    let fd = fd.ok_or(ReceiveError::NoDescriptor)?;
    check_kind(fd)?;
    let stat = rustix::fs::fstat(fd).map_err(ReceiveError::Examine)?;
    check_len(announced, stat.st_size as u64)?;
    check_seals(fd)
}

fn check_announced(len: u64) -> Result<(), ReceiveError> {
    match len {
        0 => Err(ReceiveError::Empty),
        len if len > MAX_PAYLOAD => Err(ReceiveError::TooLarge { len }),
        _ => Ok(()),
    }
}

fn check_len(announced: u64, actual: u64) -> Result<(), ReceiveError> {
    match actual {
        n if n < announced => Err(ReceiveError::Short { announced, actual }),
        n if n > announced => Err(ReceiveError::Long { announced, actual }),
        _ => Ok(()),
    }
}

fn check_kind(fd: BorrowedFd<'_>) -> Result<(), ReceiveError> {
    let stat = rustix::fs::fstat(fd).map_err(ReceiveError::Examine)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("directory"),
        FileType::Fifo => Some("pipe"),
        FileType::Socket => Some("socket"),
        FileType::CharacterDevice => Some("character device"),
        FileType::BlockDevice => Some("block device"),
        _ => Some("file of an unknown kind"),
    };
    if let Some(kind) = kind {
        return Err(ReceiveError::WrongKind(kind));
    }
    // A file that is not in memory knows no seals.
    match rustix::fs::fcntl_get_seals(fd) {
        Ok(_) => {}
        Err(Errno::INVAL) => return Err(ReceiveError::WrongKind("file on a disk")),
        Err(e) => return Err(ReceiveError::Examine(e)),
    }
    // Huge pages cannot be read by `pread` for the copy path, and their length is not the payload's.
    let fs = rustix::fs::fstatfs(fd).map_err(ReceiveError::Examine)?;
    #[allow(
        clippy::unnecessary_cast,
        reason = "the type of f_type differs between targets"
    )]
    if fs.f_type as i64 == HUGETLBFS_MAGIC {
        return Err(ReceiveError::WrongKind("memfd of huge pages"));
    }
    let flags = rustix::fs::fcntl_getfl(fd).map_err(ReceiveError::Examine)?;
    if flags & OFlags::RWMODE == OFlags::RDONLY {
        return Err(ReceiveError::ReadOnly);
    }
    Ok(())
}

fn check_seals(fd: BorrowedFd<'_>) -> Result<(), ReceiveError> {
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(ReceiveError::Examine)?;
    let missing = FULL_SEALS.difference(seals);
    if missing.is_empty() {
        return Ok(());
    }
    let names = [
        (SealFlags::WRITE, "WRITE"),
        (SealFlags::SHRINK, "SHRINK"),
        (SealFlags::GROW, "GROW"),
        (SealFlags::SEAL, "SEAL"),
    ];
    let missing = names
        .iter()
        .filter(|(s, _)| missing.contains(*s))
        .map(|(_, n)| *n)
        .collect::<Vec<_>>();
    Err(ReceiveError::Unsealed {
        missing: missing.join(", "),
    })
}

/// Reads by position: the shared file offset is wherever the sender left it (S1.29).
fn read_all(fd: BorrowedFd<'_>, len: u64) -> Result<Vec<u8>, ReceiveError> {
    let mut bytes = vec![0; len as usize];
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(fd, &mut bytes[done..], done as u64) {
            Ok(0) => {
                return Err(ReceiveError::Short {
                    announced: len,
                    actual: done as u64,
                });
            }
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(ReceiveError::Read(e)),
        }
    }
    Ok(bytes)
}
