//! The coordinator: command line, segments, spawning, supervision, control socket and payload transport.
//!
//! It is the one process that opens what the user names and the one that decides what happens when another
//! dies. It touches no guest data: it hands kernels on sealed, and copies the bytes of serial lines.

pub mod cli;
pub mod config;
pub mod limits;
pub mod sandbox;
pub mod units;
