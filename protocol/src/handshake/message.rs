//! The messages of the start-up conversation, and their encoding.
//!
//! Each message is a magic number, the protocol version and a postcard body, so that two builds that do not
//! belong together say so instead of misreading each other. Order: `Hello` → `Mapped` → `ProbeGo` →
//! `ProbeResult` → `Proceed`.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{FileId, PROTOCOL_VERSION, Role};
use crate::payload::PayloadGrant;
use crate::ram::RamLayout;

/// First four bytes of every start-up message, "QHSK" in memory.
const MAGIC: u32 = u32::from_le_bytes(*b"QHSK");
/// Longest message that is decoded, in bytes: inline payloads are below 512 000 bytes each.
const MAX_MESSAGE: usize = 64 << 20;

/// Why a start-up message was refused.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not one of our messages.
    #[error("Start-up message of {len} bytes does not begin with the magic number")]
    Magic {
        /// Length of the message, in bytes.
        len: usize,
    },
    /// The other side is another build.
    #[error(
        "Protocol version {theirs}, this build speaks {PROTOCOL_VERSION}: coordinator and worker are of different builds"
    )]
    Version {
        /// The version in the message.
        theirs: u32,
    },
    /// Longer than any message of this protocol.
    #[error("Start-up message of {len} bytes is longer than {MAX_MESSAGE}")]
    TooLong {
        /// Length of the message, in bytes.
        len: usize,
    },
    /// The body does not parse.
    #[error("Start-up message is malformed")]
    Body(#[from] postcard::Error),
}

/// How a worker gets at a shared file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileSource {
    /// Inherited descriptor number. Closed by the worker as soon as the file is mapped.
    Descriptor(i32),
    /// Name of a segment of the portable back end.
    Name(String),
}

/// A shared file handed to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileGrant {
    /// Which file.
    pub id: FileId,
    /// Where it is.
    pub source: FileSource,
    /// Length of the file, in bytes.
    pub len: u64,
}

/// What a worker must do to confine itself. Policies are made by the coordinator; the worker only applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whether anything is applied at all; false with `--no-sandbox`.
    pub enabled: bool,
    /// seccomp filters in the order in which they are installed, one classic BPF instruction a word: code, jt, jf, k
    /// from the most significant bits.
    pub seccomp: Vec<Vec<u64>>,
    /// Paths that stay readable under Landlock; everything else is out of reach.
    pub read_paths: Vec<String>,
    /// Paths (devices, sockets) that stay readable and writable under Landlock.
    pub write_paths: Vec<String>,
    /// Whether sockets with an abstract address, such as an X server's, can be reached, if the network is the host's.
    pub abstract_sockets: bool,
    /// What it sees of the network.
    pub network: Network,
    /// Soft and hard limit on open descriptors.
    pub max_files: u64,
    /// Limit on the data segment in bytes (`RLIMIT_DATA`); `None` leaves it.
    pub max_data: Option<u64>,
    /// Limit on the length of a file that it makes longer, in bytes (`RLIMIT_FSIZE`); `None` leaves it.
    pub max_file_size: Option<u64>,
    /// Limit on memory that it keeps from being swapped, in bytes (`RLIMIT_MEMLOCK`); `None` leaves it.
    pub max_locked: Option<u64>,
}

/// The network of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// It goes to an empty network namespace of its own.
    #[default]
    Leave,
    /// It was born in an empty one.
    Empty,
    /// It keeps that of the host, for this reason.
    Host(String),
}

/// From the coordinator: everything a worker needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Hash of every offset and size of the shared layout; both sides must have the same.
    pub layout_hash: u64,
    /// What the worker is to be.
    pub role: Role,
    /// Counts the processes that have had this role in this machine, from 1.
    pub generation: u32,
    /// Identity of the machine, in the header of each of its files.
    pub instance: u64,
    /// Size of guest RAM.
    pub ram: RamLayout,
    /// The shared files.
    pub files: Vec<FileGrant>,
    /// Postcard bytes of the role's type in [`super::config`].
    pub config: Vec<u8>,
    /// Kernels, initrds, firmware.
    pub payloads: Vec<PayloadGrant>,
    /// Inherited numbers of host files and devices, in the order the role's configuration speaks of them.
    pub host_fds: Vec<i32>,
    /// Inherited number of the read end of a pipe whose write end only the coordinator holds.
    pub parent_pipe: i32,
    /// What to give up before the first guest byte is looked at.
    pub confinement: Confinement,
}

/// From the worker: its maps exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// Hash of the layout this worker was built with.
    pub layout_hash: u64,
    /// The worker's process id.
    pub pid: i32,
    /// What is wrong with the maps, judged from `/proc/self/smaps`: empty when they are all shared.
    pub faults: Vec<String>,
    /// What of the confinement could not be applied, and why; empty when all was.
    pub unconfined: Vec<String>,
    /// How the payloads arrived.
    pub traces: Vec<crate::payload::TransportTrace>,
}

/// From the coordinator: fresh nonces lie in the probe windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeGo {
    /// Salt from which the worker computes the nonces that it writes (S3.22): they cannot be stale then.
    pub salt: u32,
}

/// From the worker: what it read, after it wrote its own nonces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Word read from each file's coordinator slot, in the order of [`Hello::files`].
    pub read: Vec<(FileId, u32)>,
}

/// From the coordinator: the probe's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proceed {
    /// Why the worker must not run (S3.23); `None` when all is well.
    pub refused: Option<String>,
}

/// Encodes a start-up message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    bytes.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    postcard::to_extend(message, bytes).expect("start-up messages are plain data in a growing buffer")
}

/// Decodes a start-up message.
///
/// # Errors
/// [`MessageError`], each cause its own.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let len = bytes.len();
    if len > MAX_MESSAGE {
        return Err(MessageError::TooLong { len });
    }
    let (magic, rest) = bytes
        .split_first_chunk::<4>()
        .ok_or(MessageError::Magic { len })?;
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err(MessageError::Magic { len });
    }
    let (version, body) = rest.split_first_chunk::<4>().ok_or(MessageError::Magic { len })?;
    let theirs = u32::from_le_bytes(*version);
    if theirs != PROTOCOL_VERSION {
        return Err(MessageError::Version { theirs });
    }
    Ok(postcard::from_bytes(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_went() {
        let go = ProbeGo { salt: 0x1234_5678 };
        assert_eq!(decode::<ProbeGo>(&encode(&go)).expect("decodes"), go);
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode(&ProbeGo { salt: 1 });
        bytes[4] = PROTOCOL_VERSION as u8 + 1;
        let e = decode::<ProbeGo>(&bytes).expect_err("refused");
        assert!(matches!(e, MessageError::Version { theirs } if theirs == PROTOCOL_VERSION + 1));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = encode(&Proceed {
            refused: Some("wrong map".into()),
        });
        for len in 0..whole.len() {
            assert!(decode::<Proceed>(&whole[..len]).is_err(), "{len}");
        }
    }
}
