//! WebAssembly guests in the cpu-worker: linear memory in guest RAM, imports, execution.
//!
//! Executes what `quintet-wasm-compile` has compiled; contains no compiler (docs/adr/0060-wasm-guests.md). A crate of
//! its own because wasmtime's features unify across what one call of cargo builds.

pub mod engine;
mod files;
pub mod host;
pub mod kept;
pub mod memory;
pub mod run;
pub mod screen;
mod services;
pub mod wasi;
pub mod worker;
