//! WebAssembly guests: the words that say how large a linear memory is, views that detach when it grows, and what
//! coordinator, compiler and cpu-worker tell each other.
//!
//! A module's linear memory is guest RAM from guest physical zero (docs/adr/0060-wasm-guests.md); a further one has a
//! file and a generation of its own.

use crate::handshake::FileId;

pub mod job;
pub mod service;
pub mod view;
pub mod words;

pub use job::{
    CompileLimits, CompileOrder, CompileReply, Compiled, CompilerSetup, JobAnswer, JobLimits, JobOrder,
    JobOutcome, JobReport, JobStatus, MAX_ANSWER, Submission, WasmConfig,
};
pub use service::{Errno, Service, Span};
pub use view::{LiveMemory, MemoryView, ViewError};
pub use words::{MemoryReader, MemoryState, MemoryWords, MemoryWriter, WORDS_LEN};

/// Linear memories that a module may have. The first is guest RAM, each other a file of its own.
pub const MEMORIES: usize = 4;

/// The file that a module's memory number `n` lies in. Panics from [`MEMORIES`] on.
pub fn memory_file(n: usize) -> FileId {
    match n.checked_sub(1) {
        None => FileId::GuestRam,
        Some(further) => FileId::MEMORIES[further],
    }
}

/// Outgoing byte streams of a module: standard output, standard error.
pub const GUEST_OUT_STREAMS: usize = 2;
/// Number of the incoming byte stream that is a module's standard input.
pub const STDIN_STREAM: usize = crate::layout::STREAMS - 1;
