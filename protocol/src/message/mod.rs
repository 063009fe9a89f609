//! The messages of the rings: a tag of 16 bits, then fields, little-endian and without padding (S3.51).
//!
//! [`Command`]s go from a vCPU to io-worker, [`Event`]s from a worker to whoever follows it. The tags are Aero's;
//! the layouts differ where Aero numbered its requests: the n-th record of a ring is command n, so commands
//! carry no id, and answers travel in [`crate::reply`] slots. serde was rejected here: the hot path writes
//! twelve bytes with three stores, and golden bytes must not move with a dependency.

mod command;
mod event;
mod wire;

pub use command::{Command, CommandFlags, MAX_COMMAND, MAX_STRING};
pub use event::{DiskError, Event, LogLevel};

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end within a field.
    #[error("The message ends within its {field}")]
    UnexpectedEof {
        /// The field.
        field: &'static str,
    },
    /// A field has a value that means nothing.
    #[error("The {field} of a message cannot be {value}")]
    InvalidEnum {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A text is not UTF-8.
    #[error("The {field} of a message is not UTF-8")]
    InvalidUtf8 {
        /// The field.
        field: &'static str,
    },
    /// A tag that means nothing, or bytes behind the last field.
    #[error("No message has tag {tag:#06x} and {trailing} bytes behind its fields")]
    UnknownTag {
        /// The tag.
        tag: u16,
        /// Bytes left over.
        trailing: usize,
    },
    /// A field or the message is longer than the protocol allows.
    #[error("{len} bytes of {field} pass the limit of {max}")]
    OversizedPayload {
        /// The field.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

#[cfg(all(test, not(loom)))]
mod tests;
