//! WebAssembly guests: the words that say how large a linear memory is, views that detach when it grows, and what
//! coordinator, compiler and cpu-worker tell each other.
//!
//! A module's linear memory is guest RAM from guest physical zero (docs/adr/0060-wasm-guests.md).

pub mod job;
pub mod service;
pub mod view;
pub mod words;

pub use job::{
    CompileLimits, CompileOrder, CompileReply, Compiled, JobAnswer, JobLimits, JobOrder, JobOutcome,
    JobReport, JobStatus, MAX_ANSWER, Submission, WasmConfig,
};
pub use service::{Errno, Service, Span};
pub use view::{LiveMemory, MemoryView, ViewError};
pub use words::{MemoryReader, MemoryState, MemoryWords, MemoryWriter, WORDS_LEN};

/// Outgoing byte streams of a module: standard output, standard error.
pub const GUEST_OUT_STREAMS: usize = 2;
/// Number of the incoming byte stream that is a module's standard input.
pub const STDIN_STREAM: usize = crate::layout::STREAMS - 1;
