//! What the fuzz target `wasm` does with an input (docs/fuzzing.md): modules from nowhere, and valid ones that the input describes.
//!
//! Beside the compiler, since nothing else of the workspace may be linked with one.

use arbitrary::{Arbitrary as _, Unstructured};
use quintet_protocol::wasm::CompileLimits;
use quintet_wasm_compile::{Refused, instrument, validate};
use wasm_smith::Module;
use wasmparser::{Validator, WasmFeatures};

/// Largest module that is compiled as well: of larger ones there would be few in a second.
const COMPILED: usize = 600;

/// A module is refused by name, or what the instrumentation makes of it is a valid module, which is compiled.
///
/// # Panics
/// When it is not.
pub fn wasm(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    let held;
    let smith = kind & 1 != 0;
    let module = match smith {
        false => bytes,
        true => {
            let Ok(module) = Module::arbitrary(&mut Unstructured::new(bytes)) else {
                return;
            };
            held = module.to_bytes();
            &held
        }
    };
    let limits = CompileLimits::default();
    let facts = match validate(module, &limits) {
        Ok(facts) => facts,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "one line: {error}");
            assert!(
                !smith
                    || !matches!(error, Refused::Invalid(_))
                    || Validator::new().validate_all(module).is_err()
                    || Validator::new_with_features(WasmFeatures::WASM2)
                        .validate_all(module)
                        .is_err(),
                "{error} of a valid module"
            );
            return;
        }
    };
    let chunk = 1 + u32::from(kind >> 1);
    let rewritten = instrument(module, &facts, chunk).expect("a valid module can be instrumented");
    if let Some(rewritten) = &rewritten
        && let Err(error) = Validator::new_with_features(WasmFeatures::all()).validate_all(rewritten)
    {
        panic!("instrumented it is not valid: {error}");
    }
    if module.len() <= COMPILED {
        quintet_wasm_compile::compile_in_chunks(module, &limits, chunk).expect("a valid module is compiled");
    }
}
