//! The settings that compiler and runtime share: an artefact made with others is refused by name.

use std::time::Duration;

/// Time between two looks at stop, pause and heartbeat while a module runs.
pub const TICK: Duration = Duration::from_millis(20);

/// Import namespace of the instrumentation; refused in modules.
pub const RESERVED: &str = "quintet:instrument";
/// Function of [`RESERVED`] that gets the result of a `memory.grow` and the memory's index, and hands the result on.
pub const GROWN: &str = "grown";

/// Address space of a linear memory in bytes: everything that 32 bits can address.
pub const RESERVATION: u64 = 4 << 30;
/// Inaccessible bytes behind it.
pub const GUARD: u64 = 32 << 20;
/// Stack of a module in bytes.
pub const STACK: usize = 512 << 10;

/// The settings.
pub fn config() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        .memory_reservation(RESERVATION)
        .memory_guard_size(GUARD)
        .memory_may_move(false)
        // With a memory of our own and a data segment, copy-on-write initialisation panics.
        .memory_init_cow(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .wasm_bulk_memory(true)
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false);
    config
}
