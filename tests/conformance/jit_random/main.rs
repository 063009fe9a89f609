//! Random programs by the interpreter and by the translator: registers, flags, memory and faults must agree.
//!
//! `QUINTET_JIT_CASES` sets how many programs are run per width, `QUINTET_JIT_SEED` where the generator starts.

mod frames;
mod integer;
mod loops;
mod segments;
mod x87;

use quintet_cpu_worker::exec::RunExit;
use quintet_cpu_worker::state::{Activity, CodeSize, RIP};
use quintet_tests::random::Rng;
use quintet_tests::snippet;
use quintet_tests::twins::{CODE, DATA, DATA_LEN, difference, prepare, registers, show};

/// Random bytes, most of them numbers that x87 instructions make something of.
fn data(seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed | 1);
    let mut data: Vec<u8> = (0..DATA_LEN / 8).flat_map(|_| rng.draw().to_le_bytes()).collect();
    x87::sprinkle(&mut rng, &mut data);
    data
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().expect("a number"))
}

/// Makes a program of 64-bit (`true`) or 32-bit code.
type Generator = fn(&mut Rng, bool) -> Vec<u8>;

/// Appends `count` pieces of what `make` gives, one in `rarity` behind a jump that may skip it, and HLT.
fn skipping(rng: &mut Rng, code: &mut Vec<u8>, count: u64, rarity: u64, make: impl Fn(&mut Rng) -> Vec<u8>) {
    for _ in 0..count {
        let skips = rng.below(rarity) == 0;
        let piece = make(rng);
        if skips {
            code.extend([0x70 | rng.below(16) as u8, piece.len() as u8]);
        }
        code.extend(piece);
    }
    code.push(0xF4);
}

/// Answers how often the host's x87 unit had the guest's state.
fn agree(generate: Generator, size: CodeSize, checked: bool) -> u64 {
    let mut interpreted = snippet::vcpu(8 << 20);
    let mut translated = snippet::vcpu(8 << 20);
    interpreted.jit = None;
    translated.jit = Some(snippet::translator());
    translated.trial = checked.then(Box::default);
    let seed = number("QUINTET_JIT_SEED", 1);
    let mut full = 0;
    let cases = number("QUINTET_JIT_CASES", 4000);
    for case in seed..seed + cases {
        let mut rng = Rng(case.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let code = generate(&mut rng, size == CodeSize::Bits64);
        prepare(
            [&mut interpreted, &mut translated],
            size,
            &code,
            &data(case),
            case,
        );
        // The second time, translations lead from one to the next.
        for round in 0..2 {
            let how = [interpreted.run(10_000), translated.run(10_000)];
            assert_eq!(how[0], how[1], "case {case}:\n{}", show(size, &code));
            if let Some(what) = difference(&interpreted, &translated) {
                panic!("case {case}, round {round}: {what}\n{}", show(size, &code));
            }
            if how[0] != RunExit::Idle {
                break;
            }
            full += round;
            for cpu in [&mut interpreted, &mut translated] {
                cpu.state.regs[RIP] = CODE;
                cpu.state.activity = Activity::Active;
            }
        }
    }
    println!("{full} of {cases} programs ran to their end, the others to a fault");
    assert!(
        full * 2 > cases,
        "most programs must reach their end: {full} of {cases}"
    );
    translated.jit.map_or(0, |jit| jit.unit_unloads())
}

fn agree_x87(size: CodeSize, checked: bool) {
    let unloads = agree(x87::program, size, checked);
    let cases = number("QUINTET_JIT_CASES", 4000);
    assert!(
        unloads > cases,
        "the host's unit had the state {unloads} times in {cases} programs"
    );
}

#[test]
fn translated_64_bit_programs_do_what_interpreted_ones_do() {
    agree(integer::program, CodeSize::Bits64, false);
}

#[test]
fn translated_32_bit_programs_do_what_interpreted_ones_do() {
    agree(integer::program, CodeSize::Bits32, false);
}

#[test]
fn translated_64_bit_x87_programs_do_what_interpreted_ones_do() {
    agree_x87(CodeSize::Bits64, false);
}

#[test]
fn translated_32_bit_x87_programs_do_what_interpreted_ones_do() {
    agree_x87(CodeSize::Bits32, false);
}

#[test]
fn comparing_each_block_changes_nothing() {
    agree(integer::program, CodeSize::Bits64, true);
    agree(integer::program, CodeSize::Bits32, true);
}

#[test]
fn comparing_each_block_of_x87_programs_changes_nothing() {
    agree_x87(CodeSize::Bits64, true);
    agree_x87(CodeSize::Bits32, true);
}
