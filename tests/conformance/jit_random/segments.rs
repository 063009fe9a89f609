//! Random programs of 16-bit code, and of 32-bit code in segments that have bases and limits: real mode, V86 and protected mode.
//!
//! Each program runs four times, the last times from another CS:IP that names the same linear address: what was translated for one
//! IP must not execute for another. The first time it is interpreted, so that translated code also leads to what has no translation yet.

use iced_x86::{Decoder, DecoderOptions, Formatter as _, IntelFormatter};
use quintet_cpu_worker::exec::Vcpu;
use quintet_cpu_worker::state::{Activity, Attr, CodeSize, Cr0, Flag, RIP, Segment, gpr, seg};
use quintet_protocol::addr::GuestPhys;
use quintet_tests::snippet;
use quintet_tests::twins::undefined_flags;

use crate::{Rng, number, registers};

/// Where programs lie: near the end of a page.
const CODE: u64 = 0x3_0F80;
/// Where data segments begin, and how far they may reach.
const AREA: u64 = 0x6_0000;
/// What is compared: code, data, and what lies between.
const COMPARED: core::ops::Range<u64> = 0x2_0000..0x8_1000;
/// Executions of each program.
const RUNS: u64 = 4;
const DATA_SEGMENTS: [usize; 5] = [seg::ES, seg::SS, seg::DS, seg::FS, seg::GS];

/// A kind of segmented code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Real,
    V86,
    /// Protected mode with a code segment of so many bits.
    Protected(u32),
}

impl Kind {
    fn bits(self) -> u32 {
        match self {
            Self::Protected(bits) => bits,
            _ => 16,
        }
    }
}

/// One random instruction of `bits`-bit code.
fn instruction(rng: &mut Rng, bits: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let op32 = (bits == 32) != (rng.below(4) == 0);
    let addr32 = (bits == 32) != (rng.below(10) == 0);
    if op32 != (bits == 32) {
        out.push(0x66);
    }
    if addr32 != (bits == 32) {
        out.push(0x67);
    }
    let reg = rng.pick(&[0u8, 1, 2, 0, 1, 2, 3, 6, 7]);
    let width = if op32 { 4 } else { 2 };
    let imm = |rng: &mut Rng, n: usize| rng.draw().to_le_bytes()[..n].to_vec();
    let (opcode, operand, tail): (Vec<u8>, Option<u8>, Vec<u8>) = match rng.below(24) {
        0..=4 => (
            vec![(rng.below(8) as u8) << 3 | rng.below(4) as u8],
            Some(reg),
            vec![],
        ),
        5 | 6 => (vec![0x83], Some(rng.below(8) as u8), imm(rng, 1)),
        7..=9 => (vec![rng.pick(&[0x88u8, 0x89, 0x8A, 0x8B])], Some(reg), vec![]),
        10 => (vec![rng.pick(&[0x84u8, 0x85, 0x86, 0x87])], Some(reg), vec![]),
        11 => (vec![0xC1], Some(rng.pick(&[0u8, 1, 4, 5, 7])), imm(rng, 1)),
        12 => (
            vec![rng.pick(&[0xD1u8, 0xD3])],
            Some(rng.pick(&[0u8, 1, 4, 5, 7])),
            vec![],
        ),
        13 => (vec![rng.pick(&[0xFEu8, 0xFF])], Some(rng.below(2) as u8), vec![]),
        14 => (vec![0xF7], Some(rng.pick(&[2u8, 3, 4, 5])), vec![]),
        15 => (vec![0x0F, 0x40 | rng.below(16) as u8], Some(reg), vec![]),
        16 => (vec![0x0F, 0x90 | rng.below(16) as u8], Some(0), vec![]),
        17 => (
            vec![0x0F, rng.pick(&[0xB6u8, 0xB7, 0xBE, 0xBF, 0xAF])],
            Some(reg),
            vec![],
        ),
        18 => (vec![0x8D], Some(reg), vec![]),
        19 => (vec![0xC7], Some(0), imm(rng, width)),
        20 => (
            vec![rng.pick(&[0x98u8, 0x99, 0xF8, 0xF9, 0xF5, 0x90])],
            None,
            vec![],
        ),
        21 => {
            let moffs = (rng.below(0x3000) as u32).to_le_bytes()[..if addr32 { 4 } else { 2 }].to_vec();
            (vec![rng.pick(&[0xA0u8, 0xA1, 0xA2, 0xA3])], None, moffs)
        }
        22 => (vec![rng.pick(&[0xA4u8, 0xAA, 0xAC, 0xA5])], None, vec![]),
        _ => (vec![0xB8 | rng.pick(&[0u8, 1, 2])], None, imm(rng, width)),
    };
    // CS is read at most: programs do not write themselves.
    let reads = matches!(opcode[..], [0x8A] | [0x8B] | [0x84] | [0x85]);
    if rng.below(4) == 0 {
        out.push(match rng.below(6) {
            0 if reads => 0x2E,
            n => [0x26, 0x36, 0x3E, 0x64, 0x65][n as usize % 5],
        });
    }
    out.extend(opcode);
    if let Some(reg) = operand {
        out.extend(modrm(rng, addr32, reg));
    }
    out.extend(tail);
    out
}

/// A ModRM operand with 16- or 32-bit addressing.
fn modrm(rng: &mut Rng, addr32: bool, reg: u8) -> Vec<u8> {
    if rng.below(3) == 0 {
        return vec![0xC0 | reg << 3 | rng.pick(&[0u8, 1, 2, 0, 1, 2, 3, 6, 7])];
    }
    let disp = rng.draw().to_le_bytes();
    let far = (rng.below(0x800) as i32 - 0x80).to_le_bytes();
    match (addr32, rng.below(3)) {
        (false, 0) => {
            let rm = rng.below(8) as u8;
            let tail = if rm == 6 { &[disp[0], 0x10][..] } else { &[] };
            [&[reg << 3 | rm], tail].concat()
        }
        (false, 1) => vec![0x40 | reg << 3 | rng.below(8) as u8, disp[0]],
        (false, _) => [&[0x80 | reg << 3 | rng.below(8) as u8], &far[..2]].concat(),
        (true, 0) => [&[reg << 3 | 5], &[disp[0], 0x10, 0, 0][..]].concat(),
        (true, 1) => vec![0x40 | reg << 3 | rng.pick(&[3u8, 5, 6, 7]), disp[0]],
        (true, _) => [&[0x80 | reg << 3 | rng.pick(&[3u8, 5, 6, 7])], &far[..]].concat(),
    }
}

/// The stack, calls and returns, segment registers: what takes more than one instruction.
fn piece(rng: &mut Rng, kind: Kind, cut: bool) -> Vec<u8> {
    let bits = kind.bits();
    let wide = bits == 32;
    let reg = rng.pick(&[0u8, 1, 2, 3, 6, 7]);
    match rng.below(16) {
        0 => vec![0x50 | reg],
        1 => vec![0x58 | rng.pick(&[0u8, 1, 2])],
        2 => vec![0x6A, rng.draw() as u8],
        3 => [vec![0xFF], modrm(rng, wide, 6)].concat(),
        // CALL, JMP over a RET.
        4 if wide => vec![0xE8, 2, 0, 0, 0, 0xEB, 1, 0xC3],
        4 => vec![0xE8, 2, 0, 0xEB, 1, 0xC3],
        // CALL, POP, ADD, JMP or CALL to just behind it, by a register.
        5 if wide => vec![0xE8, 0, 0, 0, 0, 0x58, 0x05, 8, 0, 0, 0, 0xFF, 0xE0],
        5 => vec![0xE8, 0, 0, 0x58, 0x05, 6, 0, 0xFF, 0xE0],
        6 if wide => vec![0xE8, 0, 0, 0, 0, 0x58, 0x05, 8, 0, 0, 0, 0xFF, 0xD0, 0x59],
        6 => vec![0xE8, 0, 0, 0x58, 0x05, 6, 0, 0xFF, 0xD0, 0x59],
        // RET with arguments.
        7 if wide => vec![0x50, 0xE8, 2, 0, 0, 0, 0xEB, 3, 0xC2, 4, 0],
        7 => vec![0x50, 0xE8, 2, 0, 0xEB, 3, 0xC2, 2, 0],
        // PUSH and POP of segment registers; one that memory and the stack go through stays usable.
        8 if !matches!(kind, Kind::Protected(_)) => {
            let push = rng.pick(&[0x06u8, 0x16, 0x1E]);
            vec![push, rng.pick(&[0x07u8, 0x1F])]
        }
        9 if !matches!(kind, Kind::Protected(_)) => vec![0x8C, 0xD8, 0x8E, 0xC0],
        8..=9 => vec![0x8C, 0xC0 | rng.below(6) as u8 & 3 << 3],
        // A frame of its own.
        10 => vec![0x55, 0x89, 0xE5, 0x50, 0x51, 0xC9],
        11 => vec![0xC8, 6, 0, 0, 0xC9],
        // LOOP and JCXZ over something.
        12 => {
            let over = settled(rng, bits, cut);
            [vec![rng.pick(&[0xE2u8, 0xE3]), over.len() as u8], over].concat()
        }
        13 => vec![0x9C, 0x9D],
        14 => vec![rng.pick(&[0xFAu8, 0xFB, 0xFC])],
        _ => vec![0x60, 0x61],
    }
}

/// One random instruction, followed by another that defines the flags if it leaves some undefined. Programs that are `cut` have no such
/// instructions: between the two, code may end.
fn settled(rng: &mut Rng, bits: u32, cut: bool) -> Vec<u8> {
    loop {
        let mut code = instruction(rng, bits);
        let i = Decoder::new(bits, &code, DecoderOptions::NONE).decode();
        let undefined = undefined_flags(&i) != 0;
        if i.is_invalid() || cut && undefined {
            continue;
        }
        if undefined {
            code.extend([0x85, 0xC0]);
        }
        return code;
    }
}

/// Whether the program of `case` may be longer than its segment.
fn is_cut(case: u64, kind: Kind) -> bool {
    matches!(kind, Kind::Protected(_)) && case.is_multiple_of(6)
}

/// CS for a program that starts at [`CODE`], and the IP to start at.
fn code_segment(rng: &mut Rng, kind: Kind, cut: bool) -> (Segment, u64) {
    let paragraphs = rng.pick(&[1, 2, 0x80, 0xFF0 - 0x20]);
    let ip = (CODE & 15) + 16 * paragraphs;
    let base = CODE - ip;
    let segment = match kind {
        Kind::Real | Kind::V86 => {
            let mut s = Segment::real((base >> 4) as u16);
            s.attr = Attr(if kind == Kind::Real { 0x009B } else { 0x00F3 });
            s.refresh();
            s
        }
        Kind::Protected(bits) => {
            let limit = match rng.below(6) {
                _ if cut => ip as u32 + rng.below(200) as u32,
                1 if bits == 32 => u32::MAX,
                _ => 0xFFFF,
            };
            Segment::new(8, base, limit, Attr(if bits == 32 { 0x409B } else { 0x009B }))
        }
    };
    (segment, ip)
}

/// A data or stack segment in the area.
fn data_segment(rng: &mut Rng, kind: Kind, stack: bool) -> Segment {
    let base = AREA + 16 * rng.below(0x80);
    match kind {
        Kind::Real | Kind::V86 => {
            let mut s = Segment::real((base >> 4) as u16);
            if kind == Kind::V86 {
                s.attr = Attr(0x00F3);
                s.refresh();
            }
            s
        }
        Kind::Protected(_) => {
            let big = if rng.flip() { 0x4000 } else { 0 };
            let (attr, limit) = match rng.below(8) {
                0 => (0x0097, rng.below(0x1000) as u32),
                1 if !stack => (0x0091, 0xFFFF),
                2 => (0x0093, 0x1000 + rng.below(0x2000) as u32),
                3 => (0x0093, u32::MAX),
                _ => (0x0093, 0xFFFF),
            };
            Segment::new(16, base, limit, Attr(attr | big))
        }
    }
}

/// Puts `code` where it belongs and answers the IP that it starts at.
fn prepare(cpu: &mut Vcpu, kind: Kind, code: &[u8], seed: u64, run: u64) -> u64 {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9) | 1);
    if run == 0 {
        let size = if kind.bits() == 32 {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        };
        snippet::flat(cpu, size, 0);
        cpu.discard_code();
        let ram = cpu.mem.ram().clone();
        // Whatever runs away halts.
        ram.write(GuestPhys(CODE & !0xFFF), &[0xF4; 0x3000])
            .expect("in RAM");
        ram.write(GuestPhys(CODE), code).expect("in RAM");
        let data: Vec<u8> = (0..0x800).flat_map(|_| rng.draw().to_le_bytes()).collect();
        ram.write(GuestPhys(AREA), &data).expect("in RAM");
    }
    if matches!(kind, Kind::Real | Kind::V86) {
        cpu.state.cr0 -= if kind == Kind::Real { Cr0::PE } else { Cr0::empty() };
        cpu.state.flags.set(Flag::Vm, kind == Kind::V86);
        cpu.state.cpl = if kind == Kind::V86 { 3 } else { 0 };
    }
    cpu.state.idtr.limit = 0;
    // The same program and the same data, at the last time by another name of its address.
    let mut names = Rng(seed.wrapping_add(1000 * (run / 2)).wrapping_mul(0xD129_0B53) | 1);
    let (cs, ip) = code_segment(&mut names, kind, is_cut(seed, kind));
    cpu.state.segs[seg::CS] = cs;
    for s in DATA_SEGMENTS {
        cpu.state.segs[s] = data_segment(&mut rng, kind, s == seg::SS);
    }
    for n in 0..8 {
        let v = rng.draw();
        let near = 0x1000 + (v & 0x1FFF);
        cpu.state.regs[n] = match n {
            gpr::RSP | gpr::RBP => near & !3,
            gpr::RBX | gpr::RSI | gpr::RDI => match rng.below(12) {
                0 => 0xFFF0 + (v & 15),
                1 => v & 0xFFFF_FFFF,
                _ => near >> 1,
            },
            _ => v & 0xFFFF_FFFF,
        };
    }
    cpu.state.flags.set_arithmetic(rng.draw());
    let iopl = if rng.flip() { 3 << 12 } else { 0 };
    cpu.state.flags.set_system(iopl, 3 << 12);
    cpu.state.activity = Activity::Active;
    cpu.state.cr2 = 0;
    cpu.state.regs[RIP] = ip;
    cpu.refresh_mode();
    cpu.tlb.flush_all();
    ip
}

fn show(kind: Kind, code: &[u8]) -> String {
    let mut text = String::new();
    let mut decoder = Decoder::with_ip(kind.bits(), code, CODE & 0xFFFF, DecoderOptions::NONE);
    while decoder.can_decode() {
        let i = decoder.decode();
        text.push_str(&format!("{:x}: ", i.ip()));
        IntelFormatter::new().format(&i, &mut text);
        text.push('\n');
    }
    text
}

fn difference(a: &Vcpu, b: &Vcpu, memory: &mut [Vec<u8>; 2]) -> Option<String> {
    if let Some(what) = registers(a, b) {
        return Some(what);
    }
    for n in 0..seg::COUNT {
        if a.state.segs[n] != b.state.segs[n] {
            let (x, y) = (a.state.segs[n], b.state.segs[n]);
            return Some(format!("segment {n}: {x:x?} interpreted, {y:x?} translated"));
        }
    }
    for (cpu, memory) in [a, b].into_iter().zip(&mut *memory) {
        let ram = cpu.mem.ram();
        ram.read(GuestPhys(COMPARED.start), memory).expect("in RAM");
    }
    let [x, y] = memory;
    (x != y).then(|| {
        let at = x.iter().zip(&*y).position(|(x, y)| x != y).unwrap_or(0);
        let place = COMPARED.start + at as u64;
        format!("memory at {place:#x}: {:x} and {:x}", x[at], y[at])
    })
}

fn agree(kind: Kind, checked: bool) {
    let mut interpreted = snippet::vcpu(8 << 20);
    let mut translated = snippet::vcpu(8 << 20);
    interpreted.jit = None;
    translated.jit = Some(snippet::translator_from(2));
    translated.trial = checked.then(Box::default);
    let len = (COMPARED.end - COMPARED.start) as usize;
    let mut memory = [vec![0; len], vec![0; len]];
    let seed = number("QUINTET_JIT_SEED", 1);
    let cases = number("QUINTET_JIT_CASES", 4000);
    let mut whole = 0;
    for case in seed..seed + cases {
        let mut rng = Rng(case.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut code = Vec::new();
        let cut = is_cut(case, kind);
        let count = 2 + rng.below(30);
        crate::skipping(&mut rng, &mut code, count, 7, |rng| match rng.below(3) {
            0 => piece(rng, kind, cut),
            _ => settled(rng, kind.bits(), cut),
        });
        for run in 0..RUNS {
            let ip = prepare(&mut interpreted, kind, &code, case, run);
            prepare(&mut translated, kind, &code, case, run);
            let how = [interpreted.run(10_000), translated.run(10_000)];
            let what = difference(&interpreted, &translated, &mut memory);
            if how[0] != how[1] || what.is_some() {
                panic!(
                    "{kind:?}, case {case}, run {run}: {how:?}, {what:?}\n{}",
                    show(kind, &code)
                );
            }
            // HLT is the last byte, and beyond V86's rights.
            whole += u64::from(interpreted.state.regs[RIP] >= ip + code.len() as u64 - 1);
        }
    }
    println!(
        "{whole} of {} runs came to HLT, the others to a fault",
        RUNS * cases
    );
    let segmented = translated.jit.map_or(0, |jit| jit.segmented());
    assert!(
        segmented > 3 * cases,
        "{segmented} translations in {cases} programs"
    );
    assert!(whole > cases, "most programs must reach their end");
}

#[test]
fn translated_real_mode_programs_do_what_interpreted_ones_do() {
    agree(Kind::Real, false);
}

#[test]
fn translated_v86_programs_do_what_interpreted_ones_do() {
    agree(Kind::V86, false);
}

#[test]
fn translated_16_bit_protected_programs_do_what_interpreted_ones_do() {
    agree(Kind::Protected(16), false);
}

#[test]
fn translated_segmented_32_bit_programs_do_what_interpreted_ones_do() {
    agree(Kind::Protected(32), false);
}

#[test]
fn comparing_each_block_of_segmented_programs_changes_nothing() {
    agree(Kind::Real, true);
    agree(Kind::Protected(16), true);
    agree(Kind::Protected(32), true);
}
