//! Random modules by wasm-smith: the same one from the same seed, all valid, all of them end.

use arbitrary::{Arbitrary as _, Unstructured};
use wasm_smith::{Config, Module};

use super::PAGES;
use quintet_protocol::wasm::MEMORIES;

/// Bytes that wasm-smith makes its choices from.
const CHOICES: usize = 3 << 10;
/// Calls and loop turns of a module in all. So few that stack frames of a kilobyte fit the stack.
const FUEL: u32 = 600;

/// A small generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// The imports that a module may choose from, which the test answers.
const IMPORTS: &str = "(module
    (import \"test\" \"a\" (func))
    (import \"test\" \"b\" (func (param i32) (result i32)))
    (import \"test\" \"c\" (func (param i64 f64) (result f32 i32)))
    (import \"test\" \"d\" (func (param i32 i32 i32) (result i64))))";

/// What every module that a machine runs has.
const ENTRY: &str = "(module (func (export \"main\") (result i32) i32.const 0))";

/// Which world a module is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// One that can look at everything: imports, and everything is exported.
    Test,
    /// A machine: no imports, and `main`.
    Machine,
}

/// The module of a seed; `None` when wasm-smith wants more choices than there are.
pub fn module(seed: u64, world: World) -> Option<Vec<u8>> {
    let mut random = Random(seed);
    let choices: Vec<u8> = (0..CHOICES / 8)
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    let mut u = Unstructured::new(&choices);
    let mut config = Config::arbitrary(&mut u).ok()?;
    // What does not run here.
    config.threads_enabled = false;
    config.shared_everything_threads_enabled = false;
    config.memory64_enabled = false;
    config.exceptions_enabled = false;
    config.gc_enabled = false;
    config.relaxed_simd_enabled = false;
    config.wide_arithmetic_enabled = false;
    config.custom_page_sizes_enabled = false;
    config.custom_descriptors_enabled = false;
    // Nearly every module with reference types has some to host values, which do not run here either.
    config.reference_types_enabled &= seed.is_multiple_of(4);
    // What is of interest here.
    config.bulk_memory_enabled |= !seed.is_multiple_of(4);
    config.max_memories = if seed % 3 == 1 { MEMORIES } else { 1 };
    config.min_memories = 1;
    config.max_memory32_bytes = ((PAGES + 4) << 16) / config.max_memories as u64;
    config.max_tables = 4;
    config.max_table_elements = 2000;
    config.max_types = config.max_types.clamp(1, 60);
    config.max_funcs = config.max_funcs.clamp(1, 16);
    config.min_funcs = 1;
    config.max_instructions = config.max_instructions.clamp(20, 200);
    config.max_data_segments = config.max_data_segments.min(20);
    config.max_element_segments = config.max_element_segments.min(20);
    config.max_imports = config.max_imports.min(8);
    // The bits of a NaN depend on the order in which a compiler takes the operands.
    config.canonicalize_nans = true;
    match world {
        World::Test => {
            config.export_everything = true;
            config.available_imports = Some(wat::parse_str(IMPORTS).expect("assembles"));
        }
        World::Machine => {
            config.max_imports = 0;
            config.exports = Some(wat::parse_str(ENTRY).expect("assembles"));
        }
    }
    let mut module = Module::new(config, &mut u).ok()?;
    module.ensure_termination(FUEL).expect("no invalid functions");
    Some(module.to_bytes())
}
