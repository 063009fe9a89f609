//! Random programs by the interpreter and by the translator: registers, flags, memory and faults must agree.
//!
//! `QUINTET_JIT_CASES` sets how many programs are run per width, `QUINTET_JIT_SEED` where the generator starts.

mod frames;
mod integer;
mod loops;
mod segments;
mod x87;

use iced_x86::{Decoder, DecoderOptions, Formatter as _, Instruction, IntelFormatter};
use quintet_cpu_worker::exec::{RunExit, Vcpu};
use quintet_cpu_worker::fp::Xmm;
use quintet_cpu_worker::state::{Activity, CodeSize, RIP, gpr};
use quintet_protocol::addr::GuestPhys;
use quintet_tests::snippet;

const CODE: u64 = 0x0040_0F80;
const DATA: u64 = 0x0050_0000;
const DATA_LEN: usize = 0x4000;
const STACK: u64 = DATA + 0x3000;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
    fn flip(&mut self) -> bool {
        self.next() >> 40 & 1 != 0
    }
}

/// Random bytes, most of them numbers that x87 instructions make something of.
fn data(seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed | 1);
    let mut data: Vec<u8> = (0..DATA_LEN / 8).flat_map(|_| rng.next().to_le_bytes()).collect();
    x87::sprinkle(&mut rng, &mut data);
    data
}

/// Puts `code`, data and registers into both vCPUs.
fn prepare(cpus: [&mut Vcpu; 2], size: CodeSize, code: &[u8], seed: u64) {
    let data = data(seed);
    for cpu in cpus {
        snippet::flat(cpu, size, CODE);
        cpu.discard_code();
        let ram = cpu.mem.ram().clone();
        ram.write(GuestPhys(CODE), code).expect("in RAM");
        ram.write(GuestPhys(DATA), &data).expect("in RAM");
        registers_at_random(cpu, size, seed);
    }
}

fn registers_at_random(cpu: &mut Vcpu, size: CodeSize, seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0xD129_0B53) | 1);
    for n in 0..16 {
        let v = rng.next() >> rng.below(64);
        cpu.state.regs[n] = match n {
            gpr::RSP => STACK,
            gpr::RSI => DATA + 0x100 + (v & 0x1F),
            gpr::RDI => DATA + 0x1000 - (v & 0x1F),
            gpr::RBP => DATA + 0x1100,
            _ if size == CodeSize::Bits64 => v,
            _ if n < 8 => v & 0xFFFF_FFFF,
            _ => 0,
        };
    }
    for x in &mut cpu.state.xmm {
        *x = Xmm::new(rng.next(), rng.next());
    }
    cpu.state.flags.set_arithmetic(rng.next());
    cpu.state.mxcsr = 0x1F80;
    cpu.state.activity = Activity::Active;
    cpu.state.cr2 = 0;
}

fn show(size: CodeSize, code: &[u8]) -> String {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let mut decoder = Decoder::with_ip(size.bits(), code, CODE, DecoderOptions::NONE);
    let mut i = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut i);
        text.push_str(&format!("{:x}: ", i.ip()));
        formatter.format(&i, &mut text);
        text.push('\n');
    }
    text
}

/// What differs between the registers of two vCPUs after the same program.
fn registers(a: &Vcpu, b: &Vcpu) -> Option<String> {
    for n in 0..=RIP {
        if a.state.regs[n] != b.state.regs[n] {
            let (x, y) = (a.state.regs[n], b.state.regs[n]);
            return Some(format!("register {n}: {x:#x} interpreted, {y:#x} translated"));
        }
    }
    if a.state.flags.bits() != b.state.flags.bits() {
        let (x, y) = (a.state.flags.bits(), b.state.flags.bits());
        return Some(format!("flags: {x:#x} interpreted, {y:#x} translated"));
    }
    for n in 0..16 {
        if a.state.xmm[n].quads != b.state.xmm[n].quads {
            return Some(format!(
                "xmm{n}: {:x?} interpreted, {:x?} translated",
                a.state.xmm[n].quads, b.state.xmm[n].quads
            ));
        }
    }
    if a.state.fpu != b.state.fpu {
        let (x, y) = (&a.state.fpu, &b.state.fpu);
        return Some(format!("x87: {x:x?} interpreted,\n     {y:x?} translated"));
    }
    if a.state.mxcsr != b.state.mxcsr || a.state.cr2 != b.state.cr2 || a.state.activity != b.state.activity {
        return Some("MXCSR, CR2 or activity".to_owned());
    }
    None
}

/// What differs between two vCPUs after the same program.
fn difference(a: &Vcpu, b: &Vcpu) -> Option<String> {
    if let Some(what) = registers(a, b) {
        return Some(what);
    }
    let read = |c: &Vcpu| {
        let mut v = vec![0; DATA_LEN];
        c.mem.ram().read(GuestPhys(DATA), &mut v).expect("in RAM");
        v
    };
    let (x, y) = (read(a), read(b));
    if x == y {
        return None;
    }
    x.iter()
        .zip(&y)
        .position(|(x, y)| x != y)
        .map(|at| format!("memory at {:#x}: {:x} and {:x}", DATA + at as u64, x[at], y[at]))
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
        prepare([&mut interpreted, &mut translated], size, &code, case);
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
