//! How a worker comes to know its machine: roles, the start-up messages, and what a worker library is given.
//!
//! A worker starts with nothing but the name of a one-shot server on its command line. Over that channel
//! come one versioned [`Hello`] and, back, what the worker mapped and what the wiring probe read (see
//! the module `probe`). Raw descriptors do not travel in messages: they are inherited at spawn under the
//! numbers that the hello lists; a worker that is started by hand is sent them (see [`by_hand`]). A library gets all of it as one [`WorkerContext`] and neither knows nor
//! cares whether it is a process or a thread of `--single-process`.
//!
//! Passing everything by SCM_RIGHTS over a private socket was considered: descriptors inherited at spawn need
//! no code on the receiving side that could be confused about which descriptor is which.

pub mod by_hand;
pub mod config;
pub mod confine;
mod context;
pub mod files;
pub mod idle;
mod message;
mod role;
pub mod worker;

pub use context::{MapSet, ParentWatch, WorkerContext, WorkerError};
pub use message::{
    Confinement, FileGrant, FileSource, Hello, Mapped, MessageError, Network, ProbeGo, ProbeResult, Proceed,
    decode, encode,
};
pub use role::{FileId, Role};

/// Version of the messages and of the meaning of every segment. Raised with any change to either; a worker of
/// another version is refused at the handshake.
pub const PROTOCOL_VERSION: u32 = 5;
