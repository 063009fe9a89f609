//! What the fuzz targets do with an input: one function a target, from bytes to nothing or a panic.
//!
//! `tests/fuzz/fuzz_targets` has a libFuzzer program for each, `tests/fuzz/replay.rs` gives each its corpus in every run
//! of the tests (docs/fuzzing.md). They assert more than that nothing panics wherever there is an invariant or a slow
//! twin. An input is read byte by byte from its front, so that a change of one byte changes little.

pub mod board;
mod debugger;
mod devices;
mod display;
pub mod ends;
mod files;
mod images;
mod kernels;
mod peers;
pub mod scribble;
mod services;
mod translator;

pub use debugger::gdb;
pub use devices::{devices, state};
pub use display::vga;
pub use ends::ends;
pub use files::files;
pub use images::images;
pub use kernels::kernels;
pub use peers::{control, messages, ring};
pub use services::services;
pub use translator::translator;

/// A target: its name, which is that of its program and of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: [Target; 13] = [
    ("control", control),
    ("devices", devices),
    ("ends", ends),
    ("files", files),
    ("gdb", gdb),
    ("images", images),
    ("kernels", kernels),
    ("messages", messages),
    ("ring", ring),
    ("services", services),
    ("state", state),
    ("translator", translator),
    ("vga", vga),
];
