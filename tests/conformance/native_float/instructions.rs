//! Every x87, MMX and SSE instruction that the decoder knows, on this machine's CPU and in the interpreter; x87 and MMX
//! by translated code, too.
//!
//! Operands are generated from a fixed seed; `QUINTET_NATIVE_SEED` and `QUINTET_NATIVE_CASES` (per encoding)
//! choose others. Results, flags, status and control words, tags and memory must agree; not compared are the
//! x87 instruction and data pointers, which recent processors no longer keep.

use crate::native::encode::{self, Encoded};
use crate::native::guest::Guest;
use crate::native::host::Snippet;
use crate::native::values::Random;
use iced_x86::{Code, CpuidFeature, Mnemonic};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// Instructions whose images hold the pointers that are not compared, or that need operands of their own.
fn elsewhere(code: Code) -> bool {
    use Mnemonic::*;
    matches!(
        code.mnemonic(),
        Fxsave
            | Fxsave64
            | Fxrstor
            | Fxrstor64
            | Fnsave
            | Fnstenv
            | Fsave
            | Fstenv
            | Ldmxcsr
            | Monitor
            | Mwait
    )
}

/// Runs `cases` operands through one encoding; the first disagreements go to `failures`.
fn compare(
    encoded: &Encoded,
    guest: &mut Guest,
    random: &mut Random,
    unmasked: bool,
    failures: &mut Vec<String>,
) {
    let snippet = Snippet::new(&encoded.bytes);
    let at = guest.place(&encoded.bytes);
    let cases = setting("QUINTET_NATIVE_CASES", 40);
    let mut told = 0;
    for _ in 0..cases {
        let before = random.machine(unmasked);
        let (host, host_end) = snippet.run(&before);
        let (actual, guest_end) = guest.run(at, encoded.bytes.len(), &before);
        let mut found = host.differences(&actual);
        if host_end != guest_end {
            found.push(format!("host {host_end:?}, guest {guest_end:?}"));
        }
        if !found.is_empty() && told < 1 {
            told += 1;
            failures.push(format!(
                "{:?} ({} {:02x?})\n    from {}\n    {}",
                encoded.instruction.code(),
                encoded.instruction,
                encoded.bytes,
                before.describe(),
                found.join("\n    ")
            ));
        }
    }
}

fn run(features: &[CpuidFeature], unmasked: bool) {
    run_by(&mut Guest::new(), features, unmasked);
}

fn run_translated(features: &[CpuidFeature], unmasked: bool) {
    let mut guest = Guest::new();
    guest.translate();
    let encodings = run_by(&mut guest, features, unmasked);
    // MMX instructions go to their handlers, and so does what may raise an exception.
    if features == X87 && !unmasked {
        let unloads = guest.cpu.jit.as_ref().map_or(0, |jit| jit.unit_unloads());
        assert!(
            unloads > encodings,
            "the host's unit had the state {unloads} times in {encodings} encodings"
        );
    }
}

fn run_by(guest: &mut Guest, features: &[CpuidFeature], unmasked: bool) -> u64 {
    let seed = setting("QUINTET_NATIVE_SEED", 1);
    let mut random = Random::new(seed);
    let (mut failures, mut encodings) = (Vec::new(), 0);
    for code in encode::codes(features).filter(|code| !elsewhere(*code)) {
        for memory in [false, true] {
            let info = code.op_code();
            let immediates =
                (0..info.op_count()).any(|n| info.op_kind(n) == iced_x86::OpCodeOperandKind::imm8);
            for _ in 0..if immediates { 24 } else { 4 } {
                if let Some(encoded) = encode::encode(code, memory, &mut random) {
                    compare(&encoded, guest, &mut random, unmasked, &mut failures);
                    encodings += 1;
                }
            }
        }
    }
    assert!(encodings > 0, "no instruction of {features:?}");
    let shown = failures.len().min(setting("QUINTET_NATIVE_SHOWN", 20) as usize);
    assert!(
        failures.is_empty(),
        "{} disagreements in {encodings} encodings, seed {seed}:\n{}",
        failures.len(),
        failures[..shown].join("\n")
    );
    println!("{encodings} encodings agree");
    encodings
}

const X87: &[CpuidFeature] = &[CpuidFeature::FPU, CpuidFeature::FPU287, CpuidFeature::FPU387];
const SSE: &[CpuidFeature] = &[CpuidFeature::SSE, CpuidFeature::SSE2, CpuidFeature::SSE3];
const LATER: &[CpuidFeature] = &[
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::AES,
    CpuidFeature::PCLMULQDQ,
];

#[test]
fn x87_instructions_agree_with_the_host_with_exceptions_masked() {
    run(X87, false);
}

#[test]
fn x87_instructions_agree_with_the_host_with_any_exceptions_unmasked() {
    run(X87, true);
}

#[test]
fn translated_x87_instructions_agree_with_the_host_with_exceptions_masked() {
    run_translated(X87, false);
}

#[test]
fn translated_x87_instructions_agree_with_the_host_with_any_exceptions_unmasked() {
    run_translated(X87, true);
}

#[test]
fn translated_later_simd_instructions_agree_with_the_host() {
    run_translated(LATER, false);
}

#[test]
fn mmx_instructions_between_translated_code_agree_with_the_host() {
    run_translated(&[CpuidFeature::MMX], false);
}

#[test]
fn mmx_instructions_agree_with_the_host() {
    run(&[CpuidFeature::MMX], false);
}

#[test]
fn sse_to_sse3_instructions_agree_with_the_host_with_exceptions_masked() {
    run(SSE, false);
}

#[test]
fn sse_to_sse3_instructions_agree_with_the_host_with_any_exceptions_unmasked() {
    run(SSE, true);
}

#[test]
fn later_simd_instructions_agree_with_the_host_with_exceptions_masked() {
    run(LATER, false);
}

#[test]
fn later_simd_instructions_agree_with_the_host_with_any_exceptions_unmasked() {
    run(LATER, true);
}
