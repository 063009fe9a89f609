//! What `quintet ps`, `status`, `pause` … say to a running machine, and what it answers.
//!
//! One request and one answer per connection, each a magic number, the protocol version and a postcard body,
//! in one packet of a SEQPACKET socket at an abstract address: nothing lies in a file system that could be left
//! behind or swept by somebody else. The peer's user is checked by SO_PEERCRED, since an abstract address has no
//! permissions of its own.

mod dial;
mod report;

use serde::{Deserialize, Serialize};

use crate::handshake::by_hand::{Joined, Ticket};
use crate::handshake::{MessageError, decode, encode};

pub use dial::{DialError, dial};
pub use report::{
    BrokenReport, DiskReport, DriveReport, ExitReport, InterruptReport, LatencyReport, RingReport,
    SoundReport, StatusReport, WorkerReport,
};

/// Longest name of a machine, in bytes (S3.105).
pub const MAX_NAME: usize = 128;
/// Longest message of an error, in bytes (S3.105).
pub const MAX_MESSAGE: usize = 512;
/// Longest detail of an error (the tail of a worker's log), in bytes (S3.105).
pub const MAX_DETAIL: usize = 8 << 10;
/// Longest packet of a conversation, in bytes.
pub const MAX_PACKET: usize = 64 << 10;

/// What the user asks of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How it is.
    Status,
    /// Let VM time stand still; answered once the vCPUs have stopped.
    Pause,
    /// Let it run again.
    Resume,
    /// Press the reset button.
    Reset,
    /// End the machine without asking the guest; answered before it ends.
    Quit,
    /// What the screen shows, as a PNG file in a sealed memfd that comes with the answer.
    Screenshot,
    /// Type text on the keyboard.
    Type(String),
    /// Press keys together, as in `ctrl-alt-delete`.
    Key(String),
    /// Move the pointer, as in `move 5 -3` or `click right`.
    Mouse(String),
    /// How the payloads travelled.
    Transport,
    /// Run a module, which comes with this packet, and its digest as a packet of its own; answered when the module has ended.
    Submit(Box<crate::wasm::Submission>),
    /// A descriptor to look at a file of the shared memory with.
    Watch(crate::handshake::FileId),
    /// Have a worker let the process that asks trace it; answered once it has.
    Debug(crate::handshake::Role),
    /// Put a medium into a drive in place of what is there; its image comes with this packet. Answered once the guest
    /// can find it there.
    Insert(Drive, Medium),
    /// Take out what is in a drive, as with a pin in its hole.
    Eject(Drive),
    /// Be one of its workers: the process that asks was started by hand.
    Join(crate::handshake::Role, Ticket),
}

/// A drive whose medium can be changed: the first of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drive {
    /// For diskettes.
    Floppy,
    /// For CD-ROMs.
    Cdrom,
}

impl Drive {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Floppy, Self::Cdrom];
}

/// As commands, options and the report call it.
impl std::fmt::Display for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Floppy => "floppy",
            Self::Cdrom => "cdrom",
        })
    }
}

/// A medium for a [`Drive`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Name of its file, for messages.
    pub name: String,
    /// Writes are refused.
    pub read_only: bool,
}

/// What a machine answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// How it is.
    Status(Box<StatusReport>),
    /// The screenshot's descriptor came with this packet; the file has this length in bytes.
    Screenshot(u64),
    /// How the newest payloads travelled, oldest first.
    Transport(Vec<crate::payload::TransportTrace>),
    /// What became of a module.
    Job(Box<crate::wasm::JobReport>),
    /// Not done, and why.
    Error(MachineError),
    /// A file's descriptor came with this packet; it is opened read-only.
    Watch {
        /// Length of the file in bytes.
        len: u64,
        /// The machine's number, which stands in the file's header too.
        instance: u64,
    },
    /// The process that asked is a worker; its descriptors came with this packet.
    Joined(Joined),
}

/// What kind of error it is (S3.105).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorCode {
    /// A worker made no progress and was killed.
    WatchdogTimeout,
    /// A worker died.
    WorkerCrashed,
    /// More was asked for than is allowed.
    ResourceLimitExceeded,
    /// The host has no memory for it.
    OutOfMemory,
    /// The configuration cannot work.
    InvalidConfig,
    /// Anything else.
    InternalError,
}

/// An error as it is shown to a user: bounded, and its message one line (S3.105).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineError {
    /// What kind it is.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
    /// What to do about it; may be empty.
    pub suggestion: String,
    /// What was asked for and what the most is, where it is about an amount.
    pub limit: Option<(u64, u64)>,
    /// More: the tail of a worker's log, say. May have several lines.
    pub detail: String,
}

impl MachineError {
    /// An error without more.
    pub fn new(code: ErrorCode, message: &str, suggestion: &str) -> Self {
        Self {
            code,
            message: one_line(message, MAX_MESSAGE),
            suggestion: one_line(suggestion, MAX_MESSAGE),
            limit: None,
            detail: String::new(),
        }
    }

    /// With what was asked for and the most there is.
    pub fn with_limit(mut self, requested: u64, max: u64) -> Self {
        self.limit = Some((requested, max));
        self
    }

    /// With more to read, of which the end is kept.
    pub fn with_detail(mut self, detail: &str) -> Self {
        let mut start = detail.len().saturating_sub(MAX_DETAIL);
        while !detail.is_char_boundary(start) {
            start += 1;
        }
        detail[start..].clone_into(&mut self.detail);
        self
    }
}

/// `text` on one line of at most `max` bytes: control characters become spaces.
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    for c in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + c.len_utf8() > max {
            break;
        }
        line.push(c);
    }
    line
}

/// The abstract address of the machine `name` of user `uid`, without its leading zero byte.
pub fn address(uid: u32, name: &str) -> Vec<u8> {
    format!("{}{name}", address_prefix(uid)).into_bytes()
}

/// What the addresses of all machines of `uid` begin with.
pub fn address_prefix(uid: u32) -> String {
    format!("quintet/{uid}/")
}

/// Why a name of a machine was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or too long for an address.
    #[error("A machine's name has 1 to 64 characters; \"{0}\" has {len}", len = .0.len())]
    Length(String),
    /// It contains other characters.
    #[error("A machine's name consists of letters, digits, '-', '_' and '.'; \"{0}\" does not")]
    Characters(String),
}

/// Checks a machine's name. Shorter than [`MAX_NAME`], since it has to fit into a socket address.
///
/// # Errors
/// [`NameError`].
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > 64 {
        return Err(NameError::Length(one_line(name, MAX_NAME)));
    }
    if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    {
        return Err(NameError::Characters(one_line(name, MAX_NAME)));
    }
    Ok(())
}

/// A request as a packet.
pub fn encode_request(request: &Request) -> Vec<u8> {
    encode(request)
}

/// A request from a packet.
///
/// # Errors
/// [`MessageError`].
pub fn decode_request(packet: &[u8]) -> Result<Request, MessageError> {
    decode(packet)
}

/// An answer as a packet.
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    encode(answer)
}

/// An answer from a packet.
///
/// # Errors
/// [`MessageError`].
pub fn decode_answer(packet: &[u8]) -> Result<Answer, MessageError> {
    decode(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_105_texts_are_one_line_and_bounded() {
        let e = MachineError::new(
            ErrorCode::InternalError,
            &format!("a\nb{}", "x".repeat(9000)),
            "try\tagain",
        );
        assert_eq!(e.message.len(), MAX_MESSAGE);
        assert!(e.message.starts_with("a bx") && e.suggestion == "try again");
        let e = e.with_detail(&"ü".repeat(MAX_DETAIL)).with_limit(8, 4);
        assert!(e.detail.len() <= MAX_DETAIL && e.detail.chars().all(|c| c == 'ü'));
        assert_eq!(e.limit, Some((8, 4)));
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(one_line("aüü", 4), "aü");
    }

    #[test]
    fn names_that_do_not_fit_an_address_are_refused() {
        assert_eq!(check_name("my-vm_1.2"), Ok(()));
        assert!(matches!(check_name(""), Err(NameError::Length(_))));
        assert!(matches!(check_name(&"x".repeat(65)), Err(NameError::Length(_))));
        assert!(matches!(check_name("a/b"), Err(NameError::Characters(_))));
        // sun_path has 108 bytes, the first of which is zero.
        assert!(address(u32::MAX, &"x".repeat(64)).len() < 107);
    }

    #[test]
    fn requests_and_answers_come_back_as_they_went() {
        let request = Request::Type("ls\n".into());
        assert_eq!(
            decode_request(&encode_request(&request)).expect("decodes"),
            request
        );
        let answer = Answer::Error(MachineError::new(
            ErrorCode::OutOfMemory,
            "no",
            "try a smaller size",
        ));
        assert_eq!(decode_answer(&encode_answer(&answer)).expect("decodes"), answer);
    }
}
