#![no_main]

#[path = "../../../cpu-worker/wasm-compile/tests/fuzz/target.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::wasm(data));
