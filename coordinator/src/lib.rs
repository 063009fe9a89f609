//! The coordinator: command line, segments, spawning, supervision, control socket and payload transport.
//!
//! It is the one process that opens what the user names and the one that decides what happens when another
//! dies. It touches no guest data: it hands kernels on sealed, and copies the bytes of serial lines.

pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod debug;
pub mod devices;
pub mod doctor;
pub mod firmware;
pub mod gdb;
pub mod generate;
pub mod images;
pub mod limits;
pub mod listen;
pub mod machine;
pub mod machine_file;
pub mod metrics;
pub mod profile;
pub mod sandbox;
pub mod signals;
pub mod single;
pub mod soak;
pub mod sound;
pub mod streams;
pub mod supervise;
pub mod terminal;
pub mod top;
pub mod trace;
pub mod units;
pub mod wasm;
pub mod window_files;
