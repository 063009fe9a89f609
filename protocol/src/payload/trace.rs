//! What was seen of a payload at each stage of its way (S1.11, S1.20).
//!
//! A payload that does not arrive is a question of where; the trace answers it in lines that can be compared.
//! Aero's ancestor searched for a week where one line would have said "mapped, and all zero".

use std::os::fd::{AsRawFd as _, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::{Digest, HEAD, head, hex};
use crate::time::HostTime;

/// A place on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// In the sender's memory.
    Source,
    /// Written to the memfd.
    Written,
    /// The memfd is sealed.
    Sealed,
    /// The receiver has message and descriptor.
    Received,
    /// The receiver has mapped the memfd.
    Mapped,
    /// The receiver has read the memfd into its heap.
    Copied,
    /// The receiver has the bytes of the message.
    Inline,
    /// As given to the loader.
    Loader,
    /// The receiver has it already: the same sealed file came before.
    Kept,
}

/// What was seen at one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// Where.
    pub stage: Stage,
    /// In which process.
    pub pid: u32,
    /// Descriptor number there; `None` without one.
    pub fd: Option<i32>,
    /// Inode of the memfd, 0 without one.
    pub inode: u64,
    /// Length in bytes.
    pub len: u64,
    /// Seals as `F_GET_SEALS` gives them; `None` where there are none to have.
    pub seals: Option<u32>,
    /// How it is mapped; empty when it is not.
    pub map: String,
    /// The first bytes, zeros behind fewer.
    pub head: [u8; HEAD],
    /// Digest of what is there, where it was taken.
    pub digest: Option<Digest>,
    /// Microseconds since the trace began in this process.
    pub micros: u64,
}

/// The way of one payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportTrace {
    /// What it is, for people.
    pub name: String,
    /// What was seen, in order.
    pub entries: Vec<TraceEntry>,
    /// What went wrong; empty when nothing did.
    pub error: String,
    #[serde(skip)]
    began: Option<HostTime>,
}

impl TransportTrace {
    /// An empty trace.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            entries: Vec::new(),
            error: String::new(),
            began: Some(HostTime::now()),
        }
    }

    /// Notes a stage at which the bytes themselves are at hand. Whoever takes their digest adds it.
    pub fn bytes(&mut self, stage: Stage, bytes: &[u8], map: &str) {
        let entry = TraceEntry {
            stage,
            pid: std::process::id(),
            fd: None,
            inode: 0,
            len: bytes.len() as u64,
            seals: None,
            map: map.to_owned(),
            head: head(bytes),
            digest: None,
            micros: self.elapsed(),
        };
        self.entries.push(entry);
    }

    /// Notes a stage at which there is a descriptor. What cannot be found out stays empty: a trace never fails.
    pub fn descriptor(&mut self, stage: Stage, fd: BorrowedFd<'_>) {
        let stat = rustix::fs::fstat(fd).ok();
        let mut first = [0; HEAD];
        let _ = rustix::io::pread(fd, &mut first, 0);
        let entry = TraceEntry {
            stage,
            pid: std::process::id(),
            fd: Some(fd.as_raw_fd()),
            inode: stat.as_ref().map_or(0, |s| s.st_ino),
            len: stat.as_ref().map_or(0, |s| s.st_size as u64),
            seals: rustix::fs::fcntl_get_seals(fd).ok().map(|s| s.bits()),
            map: String::new(),
            head: first,
            digest: None,
            micros: self.elapsed(),
        };
        self.entries.push(entry);
    }

    /// Puts what the other side saw behind what this side saw.
    pub fn join(&mut self, other: &Self) {
        self.entries.extend(other.entries.iter().cloned());
        if self.error.is_empty() {
            self.error.clone_from(&other.error);
        }
    }

    fn elapsed(&mut self) -> u64 {
        let now = HostTime::now();
        now.since(*self.began.get_or_insert(now)) / 1000
    }
}

impl std::fmt::Display for TransportTrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.name)?;
        for e in &self.entries {
            write!(
                f,
                "  {:<9} pid {:<8} {:>10} bytes  {}",
                format!("{:?}", e.stage),
                e.pid,
                e.len,
                hex(&e.head)
            )?;
            if let Some(fd) = e.fd {
                write!(f, "  fd {fd} inode {}", e.inode)?;
            }
            if let Some(seals) = e.seals {
                write!(f, " seals {seals:#x}")?;
            }
            if !e.map.is_empty() {
                write!(f, "  {}", e.map)?;
            }
            if let Some(digest) = &e.digest {
                write!(f, "  sha256 {}…", hex(&digest[..4]))?;
            }
            writeln!(f, "  {} µs", e.micros)?;
        }
        if !self.error.is_empty() {
            writeln!(f, "  error: {}", self.error)?;
        }
        Ok(())
    }
}
