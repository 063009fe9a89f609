//! From a module to an artefact: size, validation, instrumentation, compilation, in this order.
//!
//! Runs in a process that handles one module and ends (docs/adr/0060-wasm-guests.md): the compiler eats hostile
//! input, and a compilation can be stopped only with its process.

mod bulk;
mod instrument;
mod validate;

use std::time::Instant;

use quintet_protocol::wasm::CompileLimits;

pub use bulk::CHUNK;
pub use instrument::instrument;
pub use validate::validate;

/// Why a module was refused. One cause, one variant (S1.6, S1.33).
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// More bytes than a module may have; nothing else was looked at.
    #[error("the module has {len} bytes, {most} are the most")]
    TooLarge {
        /// Its length.
        len: u64,
        /// The most.
        most: u64,
    },
    /// Nothing but zeros: what arrived is not the file.
    #[error("magic header not detected: all bytes are zero, so what was mapped is not the file")]
    Zeros,
    /// Shorter than a header.
    #[error("magic header not detected: the module has only {0} bytes")]
    TooShort(usize),
    /// A gzip file.
    #[error("magic header not detected: this is a gzip file; unpack it first")]
    Gzip,
    /// The text format.
    #[error("magic header not detected: this looks like the text format; assemble it first")]
    Text,
    /// Something else; starts with these bytes.
    #[error("magic header not detected: the module starts {0}")]
    Magic(String),
    /// A component.
    #[error("this is a component; modules are what runs here")]
    Component,
    /// Another version of the format.
    #[error("version {0} of the binary format is not known; 1 is")]
    Version(u32),
    /// An import of the instrumentation's namespace.
    #[error("imports from \"{0}\" are reserved")]
    Reserved(&'static str),
    /// A 64-bit memory.
    #[error("64-bit memories do not run here")]
    Memory64,
    /// A shared memory.
    #[error("shared memories do not run here")]
    SharedMemory,
    /// More memories than there are places for.
    #[error("more than {0} memories do not run here")]
    Memories(usize),
    /// A reference to a host's value.
    #[error("references to values of the host (externref) do not run here")]
    ExternRef,
    /// One function is too large to be compiled within bounds.
    #[error("function {index} has {len} bytes of code, {most} are the most")]
    FunctionTooLarge {
        /// Its index among all functions.
        index: u32,
        /// Its length.
        len: u64,
        /// The most.
        most: u32,
    },
    /// Not valid.
    #[error("the module is not valid: {0}")]
    Invalid(#[from] wasmparser::Error),
    /// The rewriting failed, a fault of ours.
    #[error("the module cannot be instrumented: {0}")]
    Instrument(String),
    /// The compiler refused.
    #[error("the module cannot be compiled: {0}")]
    Compile(String),
}

/// What came of a module.
#[derive(Debug)]
pub struct Artefact {
    /// Serialized machine code.
    pub bytes: Vec<u8>,
    /// Whether the module had to be changed.
    pub instrumented: bool,
    /// Microseconds for validation, instrumentation, compilation.
    pub micros: [u64; 3],
}

/// Does everything for one module.
///
/// # Errors
/// [`Refused`].
pub fn compile(module: &[u8], limits: &CompileLimits) -> Result<Artefact, Refused> {
    compile_in_chunks(module, limits, CHUNK)
}

/// As [`compile`], with bulk operations that move `chunk` bytes at a time: tests choose few, so that there are chunks
/// in a small memory.
///
/// # Errors
/// [`Refused`].
pub fn compile_in_chunks(module: &[u8], limits: &CompileLimits, chunk: u32) -> Result<Artefact, Refused> {
    let start = Instant::now();
    let took = |since: Instant| since.elapsed().as_micros() as u64;
    let facts = validate(module, limits)?;
    let (validated, start) = (took(start), Instant::now());
    let rewritten = instrument(module, &facts, chunk)?;
    let (rewriting, start) = (took(start), Instant::now());
    let failed = |e: wasmtime::Error| Refused::Compile(format!("{e:#}"));
    let engine = wasmtime::Engine::new(&quintet_wasm::engine::config()).map_err(failed)?;
    let bytes = engine
        .precompile_module(rewritten.as_deref().unwrap_or(module))
        .map_err(failed)?;
    Ok(Artefact {
        bytes,
        instrumented: rewritten.is_some(),
        micros: [validated, rewriting, took(start)],
    })
}
