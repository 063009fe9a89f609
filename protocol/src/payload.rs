//! Kernels, initrds and firmware on their way from the coordinator to a worker.
//!
//! One rule chooses the transport: below [`INLINE_LIMIT`] bytes a payload lies in the message, from there on
//! in a memfd that is sealed against every change (S1.1, S1.22). Both carry length, SHA-256 and the first
//! 16 bytes, so that a payload that does not arrive whole is named at the stage where it went wrong.

use serde::{Deserialize, Serialize};

/// Size from which a payload travels as a sealed memfd, in bytes (S1.1).
pub const INLINE_LIMIT: u64 = 512_000;
/// Largest payload, in bytes (S1.21). Four times the largest distribution initrd seen.
pub const MAX_PAYLOAD: u64 = 2 << 30;

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
}

/// How a payload's bytes travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// In the message.
    Inline(Vec<u8>),
    /// In a sealed memfd inherited under this number.
    Memfd(i32),
}

/// SHA-256.
pub type Digest = [u8; 32];

/// A payload as a hello names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadGrant {
    /// What it is for.
    pub kind: PayloadKind,
    /// Length in bytes.
    pub len: u64,
    /// Its SHA-256, taken when the coordinator read the file.
    pub digest: Digest,
    /// Its first 16 bytes, zeros behind a shorter one (S1.20).
    pub head: [u8; 16],
    /// Where its bytes are.
    pub transport: Transport,
}

/// A payload that has arrived and been checked. Its bytes never change.
#[derive(Debug)]
pub struct Payload {
    kind: PayloadKind,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Heap(Vec<u8>),
}

impl Payload {
    /// A payload whose bytes this process already has.
    pub fn from_vec(kind: PayloadKind, bytes: Vec<u8>) -> Self {
        Self {
            kind,
            bytes: Bytes::Heap(bytes),
        }
    }

    /// What it is for.
    pub fn kind(&self) -> &PayloadKind {
        &self.kind
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Heap(v) => v,
        }
    }
}
