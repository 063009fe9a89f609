//! Processes: where their executables are, how they are started, watched and read.
//!
//! What is to be done about them is decided by `protocol::lifecycle`; nothing here decides.

pub mod binaries;
mod janitor;
pub mod log;
pub mod names;
pub mod process;
pub mod spawner;
pub mod start;
pub mod startdir;
