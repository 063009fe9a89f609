//! Random programs by the interpreter and by the translator: registers, flags, memory and faults must agree.
//!
//! `QUINTET_JIT_CASES` sets how many programs are run per width, `QUINTET_JIT_SEED` where the generator starts.

use iced_x86::{Decoder, DecoderOptions, Formatter as _, Instruction, IntelFormatter, Mnemonic};
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

/// A ModRM operand: a register, or memory near one of the pointers.
fn modrm(rng: &mut Rng, wide: bool, rex: &mut u8, reg: u8) -> Vec<u8> {
    if wide && rng.flip() {
        *rex |= 4;
    }
    if rng.below(3) != 0 {
        if wide && rng.flip() {
            *rex |= 1;
        }
        // Never the pointers or the stack pointer as a destination.
        let mut rm = rng.pick(&[0u8, 1, 2, 3]);
        if *rex & 1 != 0 {
            rm = rng.pick(&[0, 1, 2, 3, 5, 6, 7]);
        }
        return vec![0xC0 | reg << 3 | rm];
    }
    let disp = rng.below(0x900) as i32 - 0x80;
    match rng.below(4) {
        // RIP-relative is covered by absolute addresses in 32-bit code.
        0 if !wide => {
            let at = (DATA as i32 + 0x800).wrapping_add(disp);
            [vec![reg << 3 | 5], at.to_le_bytes().to_vec()].concat()
        }
        1 => {
            // [rsi + r*s + disp8], the index being whatever it is, mostly faulting: kept rare.
            let index = if rng.below(20) == 0 { 2 } else { 4 };
            let sib = (rng.below(4) as u8) << 6 | index << 3 | rng.pick(&[6u8, 7]);
            vec![0x44 | reg << 3, sib, disp as u8]
        }
        2 => [vec![0x80 | reg << 3 | 5], disp.to_le_bytes().to_vec()].concat(),
        _ => vec![0x40 | reg << 3 | rng.pick(&[6u8, 7]), disp as u8],
    }
}

/// What the table of [`instruction`] has no place for: bytes in the second place of a register, the stack, flags by the
/// stack, the interrupt and direction flags, division.
fn special(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let both = 0xC0 | rng.below(64) as u8;
    let mut none = 0x40;
    let mut operand = |rng: &mut Rng, op: u8| modrm(rng, false, &mut none, op);
    match rng.below(9) {
        0 | 1 => vec![(rng.below(8) as u8) << 3 | (rng.below(2) as u8) << 1, both],
        2 => vec![0x0F, rng.pick(&[0xB6u8, 0xBE]), both & !0x20],
        3 => vec![0x80, 0xC0 | (rng.below(64) as u8), rng.next() as u8],
        4 => [
            vec![0x53, 0xFF],
            operand(rng, 6),
            vec![0x58 | rng.pick(&[0u8, 1, 2, 3]), 0x5B],
        ]
        .concat(),
        5 => [vec![0x9C], instruction(rng, wide), vec![0x9D]].concat(),
        6 => vec![rng.pick(&[0xFAu8, 0xFB, 0xFC, 0xFD]), 0x9C, 0x58],
        7 => {
            let reg = rng.below(4) as u8;
            let scan = rng.pick(&[0xBCu8, 0xBD]);
            [vec![0xF3, 0x0F, scan], operand(rng, reg)].concat()
        }
        // The dividend is extended, or its high half is small, most often.
        _ => {
            let high = match rng.below(8) {
                0 => vec![0x90],
                1..4 => vec![0x99],
                _ => vec![0x31, 0xD2],
            };
            let rex = if wide && rng.flip() { vec![0x48] } else { vec![] };
            let op = 6 + rng.below(2) as u8;
            [rex.clone(), high, rex, vec![0xF7], operand(rng, op)].concat()
        }
    }
}

/// One random instruction.
fn instruction(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rex = 0x40u8;
    let reg = rng.pick(&[0u8, 1, 2, 3]);
    let small = rng.below(8) == 0;
    if wide && rng.flip() {
        rex |= 8;
    }
    let imm = |rng: &mut Rng, n: usize| rng.next().to_le_bytes()[..n].to_vec();
    let (prefix, opcode, operand, tail): (Vec<u8>, Vec<u8>, Option<u8>, Vec<u8>) = match rng.below(27) {
        0..=5 => {
            let op = (rng.below(8) as u8) << 3 | rng.below(4) as u8;
            (vec![], vec![op], Some(reg), vec![])
        }
        6 | 7 => {
            let byte = imm(rng, 1);
            (vec![], vec![0x83], Some(rng.below(8) as u8), byte)
        }
        8 => (
            vec![],
            vec![rng.pick(&[0x88u8, 0x89, 0x8A, 0x8B])],
            Some(reg),
            vec![],
        ),
        9 => (vec![], vec![rng.pick(&[0x84u8, 0x85])], Some(reg), vec![]),
        10 => {
            let count = imm(rng, 1);
            let op = rng.pick(&[0u8, 1, 4, 5, 7]);
            (vec![], vec![rng.pick(&[0xC0u8, 0xC1])], Some(op), count)
        }
        11 => (
            vec![],
            vec![rng.pick(&[0xD1u8, 0xD3])],
            Some(rng.pick(&[0u8, 1, 4, 5, 7])),
            vec![],
        ),
        12 => (vec![], vec![0xFF], Some(rng.below(2) as u8), vec![]),
        13 => (vec![], vec![0xF7], Some(rng.pick(&[2u8, 3, 4, 5])), vec![]),
        14 => (vec![], vec![0x0F, 0x40 | rng.below(16) as u8], Some(reg), vec![]),
        15 => (vec![], vec![0x0F, 0x90 | rng.below(16) as u8], Some(0), vec![]),
        16 => (
            vec![],
            vec![0x0F, rng.pick(&[0xB6u8, 0xB7, 0xBE, 0xBF, 0xAF])],
            Some(reg),
            vec![],
        ),
        17 => (
            vec![],
            vec![0x0F, rng.pick(&[0xBCu8, 0xBD, 0xA3, 0xAB, 0xB1, 0xC1])],
            Some(reg),
            vec![],
        ),
        18 => {
            let byte = imm(rng, 1);
            (vec![], vec![0x0F, 0xBA], Some(4 + rng.below(4) as u8), byte)
        }
        19 => {
            let byte = imm(rng, 1);
            (vec![], vec![0x6B], Some(reg), byte)
        }
        20 => {
            let r = rng.pick(&[0u8, 1, 2, 3]);
            (
                vec![],
                vec![if rng.flip() { 0x50 | r } else { 0x58 | r }],
                None,
                vec![],
            )
        }
        21 => (
            vec![],
            vec![rng.pick(&[0x98u8, 0x99, 0xF8, 0xF9, 0x9F, 0x90, 0xF5])],
            None,
            vec![],
        ),
        22 => {
            let p = rng.pick(&[&[][..], &[0x66], &[0xF2], &[0xF3]]);
            let op = rng.pick(&[0x10u8, 0x11, 0x51, 0x58, 0x59, 0x5C, 0x5D, 0x5E, 0x5F]);
            (p.to_vec(), vec![0x0F, op], Some(reg), vec![])
        }
        23 => {
            let op = rng.pick(&[
                0x60u8, 0x61, 0x64, 0x6E, 0x6F, 0x7E, 0x7F, 0xD4, 0xEF, 0xFE, 0xDB, 0xF4, 0xD6, 0xFA, 0x28,
                0x29, 0x2E, 0x54, 0x57,
            ]);
            (vec![0x66], vec![0x0F, op], Some(reg), vec![])
        }
        24 => (vec![], vec![0x8D], Some(reg), vec![]),
        25 => return special(rng, wide),
        _ => {
            let n = if wide && rex & 8 != 0 { 8 } else { 4 };
            let value = imm(rng, n);
            (vec![], vec![0xB8 | rng.pick(&[0u8, 1, 2, 3])], None, value)
        }
    };
    if small && prefix.is_empty() && opcode[0] != 0xB8 | opcode[0] & 7 && operand.is_some() {
        out.push(0x66);
    }
    out.extend(&prefix);
    let operand = operand.map(|r| modrm(rng, wide, &mut rex, r));
    if wide && rex != 0x40 {
        out.push(rex);
    }
    out.extend(opcode);
    out.extend(operand.unwrap_or_default());
    out.extend(tail);
    out
}

fn decode(code: &[u8], wide: bool) -> Instruction {
    Decoder::with_ip(if wide { 64 } else { 32 }, code, 0, DecoderOptions::NONE).decode()
}

/// One random instruction, followed by another that defines the flags if it leaves some undefined. (AF after logical
/// instructions is clear on all silicon.)
fn defined(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let mut code = instruction(rng, wide);
    while rng.below(200) != 0 && decode(&code, wide).is_invalid() {
        code = instruction(rng, wide);
    }
    let i = decode(&code, wide);
    let logic = matches!(
        i.mnemonic(),
        Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test
    );
    if i.rflags_undefined() != 0 && !logic {
        code.extend([0x85, 0xC0]);
    }
    code
}

/// A program: some straight code, a jump over part of it now and then, HLT.
fn program(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 0..4 + rng.below(40) {
        if rng.below(7) == 0 {
            let skipped = defined(rng, wide);
            code.extend([0x70 | rng.below(16) as u8, skipped.len() as u8]);
            code.extend(skipped);
        } else {
            code.extend(defined(rng, wide));
        }
    }
    code.push(0xF4);
    code
}

fn prepare(cpu: &mut Vcpu, size: CodeSize, code: &[u8], seed: u64) {
    let mut rng = Rng(seed | 1);
    snippet::flat(cpu, size, CODE);
    cpu.discard_code();
    let ram = cpu.mem.ram().clone();
    ram.write(GuestPhys(CODE), code).expect("in RAM");
    let data: Vec<u8> = (0..DATA_LEN).map(|_| rng.next() as u8).collect();
    ram.write(GuestPhys(DATA), &data).expect("in RAM");
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

/// What differs between two vCPUs after the same program.
fn difference(a: &Vcpu, b: &Vcpu) -> Option<String> {
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
    if a.state.mxcsr != b.state.mxcsr || a.state.cr2 != b.state.cr2 || a.state.activity != b.state.activity {
        return Some("MXCSR, CR2 or activity".to_owned());
    }
    let read = |c: &Vcpu| {
        let mut v = vec![0; DATA_LEN];
        c.mem.ram().read(GuestPhys(DATA), &mut v).expect("in RAM");
        v
    };
    let (x, y) = (read(a), read(b));
    x.iter()
        .zip(&y)
        .position(|(x, y)| x != y)
        .map(|at| format!("memory at {:#x}: {:x} and {:x}", DATA + at as u64, x[at], y[at]))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().expect("a number"))
}

fn agree(size: CodeSize, checked: bool) {
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
        let code = program(&mut rng, size == CodeSize::Bits64);
        for cpu in [&mut interpreted, &mut translated] {
            prepare(cpu, size, &code, case);
        }
        let how = [interpreted.run(10_000), translated.run(10_000)];
        full += u64::from(how[0] == RunExit::Idle);
        assert_eq!(how[0], how[1], "case {case}:\n{}", show(size, &code));
        if let Some(what) = difference(&interpreted, &translated) {
            panic!("case {case}: {what}\n{}", show(size, &code));
        }
    }
    println!("{full} of {cases} programs ran to their end, the others to a fault");
    assert!(
        full * 2 > cases,
        "most programs must reach their end: {full} of {cases}"
    );
}

#[test]
fn translated_64_bit_programs_do_what_interpreted_ones_do() {
    agree(CodeSize::Bits64, false);
}

#[test]
fn translated_32_bit_programs_do_what_interpreted_ones_do() {
    agree(CodeSize::Bits32, false);
}

#[test]
fn comparing_each_block_changes_nothing() {
    agree(CodeSize::Bits64, true);
    agree(CodeSize::Bits32, true);
}
