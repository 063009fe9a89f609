//! Random loops over pages that are not neighbours in RAM, some of them missing or write-protected: what the translator makes
//! of accesses that move evenly must touch the same bytes and fault at the same instruction as the interpreter.

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};
use quintet_cpu_worker::exec::{RunExit, Vcpu};
use quintet_cpu_worker::jit::Jit;
use quintet_cpu_worker::state::{CodeSize, Cr0, RIP};
use quintet_protocol::addr::GuestPhys;
use quintet_tests::snippet;

use crate::{Rng, number, prepare, show};

/// Linear addresses of the pages that are walked over.
pub const AREA: u64 = 0x0060_0000;
pub const PAGES: u64 = 16;
/// Where they are in RAM.
const BEHIND: u64 = 0x0070_0000;
/// Page tables.
const TABLES: u64 = 0x0020_0000;
/// Those of the last level.
const LAST_LEVEL: u64 = TABLES + 0x4000;
const CODE: u64 = crate::CODE & !0xFFF;
/// The page behind that of the code.
const TAIL: u64 = CODE + 0x1000;
/// What may be there instead: the same, but that the last jump's condition is the opposite.
const OTHER: u64 = CODE + 0x3000;
/// How often each program is run.
const ROUNDS: u64 = 5;

fn put(cpu: &Vcpu, at: u64, bytes: &[u8]) {
    cpu.mem.ram().write(GuestPhys(at), bytes).expect("in RAM");
}

/// Maps everything below 8 MiB onto itself in 4 KiB pages, but the area onto pages in another order; `seed` decides what is
/// missing or read-only.
fn map(cpu: &mut Vcpu, size: CodeSize, seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1);
    let mut order: Vec<u64> = (0..PAGES).collect();
    for n in (1..order.len()).rev() {
        order.swap(n, rng.below(n as u64 + 1) as usize);
    }
    let bytes = if size == CodeSize::Bits64 { 8 } else { 4 };
    let per_table = 4096 / bytes;
    let table = LAST_LEVEL;
    for page in 0..(8u64 << 20 >> 12) {
        let mut entry = page << 12 | 0x67;
        let n = page.wrapping_sub(AREA >> 12);
        if n < PAGES {
            // Accessed and dirty are to be set by whoever comes first.
            entry = (BEHIND + (order[n as usize] << 12)) | 7 | rng.below(4) << 5;
            match rng.below(24) {
                0 => entry &= !1,
                1 => entry &= !2,
                _ => {}
            }
        }
        put(cpu, table + page * bytes, &entry.to_le_bytes()[..bytes as usize]);
    }
    let directory = if bytes == 8 { TABLES + 0x2000 } else { TABLES };
    for n in 0..(8 << 20 >> 12) / per_table {
        let entry = (table + n * 4096) | 0x67;
        put(cpu, directory + n * bytes, &entry.to_le_bytes()[..bytes as usize]);
    }
    if bytes == 8 {
        put(cpu, TABLES, &(TABLES + 0x1067).to_le_bytes());
        put(cpu, TABLES + 0x1000, &(TABLES + 0x2067).to_le_bytes());
    }
    map_tail(cpu, size, TAIL | if rng.flip() { 0x67 } else { 0x47 });
    cpu.state.cr3 = TABLES;
    cpu.state.cr0 |= Cr0::PG | Cr0::WP;
    cpu.refresh_mode();
    cpu.tlb.flush_all();
}

/// Where the last level's entry for `at` is, and of how many bytes.
fn entry(size: CodeSize, at: u64) -> (u64, u64) {
    let bytes = if size == CodeSize::Bits64 { 8 } else { 4 };
    (LAST_LEVEL + (at >> 12) * bytes, bytes)
}

/// Gives the page behind that of the code another entry.
fn map_tail(cpu: &mut Vcpu, size: CodeSize, to: u64) {
    let (at, bytes) = entry(size, TAIL);
    put(cpu, at, &to.to_le_bytes()[..bytes as usize]);
    cpu.tlb.flush_all();
}

/// Registers by number, as wide as addresses are.
pub struct Names {
    pub wide: bool,
}

impl Names {
    pub fn full(&self, n: u32) -> Register {
        if self.wide {
            Register::RAX + n
        } else {
            Register::EAX + n
        }
    }
    fn half(&self, n: u32) -> Register {
        Register::EAX + n
    }
}

pub struct Loop {
    pub names: Names,
    pub out: Vec<Instruction>,
    /// Registers not yet given away.
    pub free: Vec<u32>,
    /// Those that hold data.
    pub data: Vec<u32>,
}

pub fn memory(base: Register, index: Register, scale: u32, disp: i64) -> MemoryOperand {
    let size = if disp == 0 && base != Register::None { 0 } else { 1 };
    let size = if base == Register::None { 4 } else { size };
    MemoryOperand::new(base, index, scale, disp, size, false, Register::None)
}

impl Loop {
    pub fn take(&mut self, rng: &mut Rng) -> u32 {
        let n = rng.below(self.free.len() as u64) as usize;
        self.free.swap_remove(n)
    }

    pub fn add2(&mut self, made: Result<Instruction, iced_x86::IcedError>) {
        self.out.push(made.expect("operands of the right kind"));
    }

    pub fn set(&mut self, n: u32, v: u64) {
        let made = if self.names.wide {
            Instruction::with2(Code::Mov_r64_imm64, self.names.full(n), v)
        } else {
            Instruction::with2(Code::Mov_r32_imm32, self.names.full(n), v as u32)
        };
        self.add2(made);
    }

    /// `r += c`, in one of the ways that compilers use.
    pub fn advance(&mut self, rng: &mut Rng, n: u32, c: i32, half: bool) {
        let wide = self.names.wide && !half;
        let r = if wide {
            self.names.full(n)
        } else {
            self.names.half(n)
        };
        let made = match (rng.below(4), c) {
            (0, 1) => Instruction::with1(if wide { Code::Inc_rm64 } else { Code::Inc_rm32 }, r),
            (0, -1) => Instruction::with1(if wide { Code::Dec_rm64 } else { Code::Dec_rm32 }, r),
            (1, _) => {
                let m = memory(self.names.full(n), Register::None, 1, i64::from(c));
                Instruction::with2(if wide { Code::Lea_r64_m } else { Code::Lea_r32_m }, r, m)
            }
            (2, _) => Instruction::with2(
                if wide {
                    Code::Sub_rm64_imm32
                } else {
                    Code::Sub_rm32_imm32
                },
                r,
                -c,
            ),
            _ => Instruction::with2(
                if wide {
                    Code::Add_rm64_imm32
                } else {
                    Code::Add_rm32_imm32
                },
                r,
                c,
            ),
        };
        self.add2(made);
    }

    /// An instruction with operand `m`, or one without.
    pub fn work(&mut self, rng: &mut Rng, m: Option<MemoryOperand>) {
        use Code::*;
        let d = rng.pick(&self.data);
        let e = rng.pick(&self.data);
        let (r, r8) = (
            self.names.half(d),
            if d < 4 || self.names.wide {
                Register::AL
            } else {
                Register::None
            },
        );
        let byte = |n: u32| {
            if self.names.wide && n >= 4 {
                Register::SPL + (n - 4)
            } else {
                Register::AL + n
            }
        };
        let x = Register::XMM0 + rng.below(8) as u32;
        let made = match m {
            Some(m) => match rng.below(18) {
                0 | 1 => Instruction::with2(Mov_r32_rm32, r, m),
                2 | 3 => Instruction::with2(Mov_rm32_r32, m, r),
                4 => Instruction::with2(Add_r32_rm32, r, m),
                5 => Instruction::with2(Add_rm32_r32, m, r),
                6 => Instruction::with2(Mov_rm8_imm8, m, 0x5A),
                7 => Instruction::with2(Movzx_r32_rm8, r, m),
                8 => Instruction::with2(Movsx_r32_rm16, r, m),
                9 => Instruction::with2(Movups_xmm_xmmm128, x, m),
                10 => Instruction::with2(Movups_xmmm128_xmm, m, x),
                11 => Instruction::with2(Movaps_xmm_xmmm128, x, m),
                12 => Instruction::with2(Paddd_xmm_xmmm128, x, m),
                13 => Instruction::with2(Cmp_r32_rm32, r, m),
                14 => Instruction::with2(Cmovb_r32_rm32, r, m),
                15 => Instruction::with1(Inc_rm32, m),
                16 => Instruction::with2(Imul_r32_rm32, r, m),
                _ => Instruction::with2(Xor_rm8_r8, m, byte(if r8 == Register::None { 0 } else { d })),
            },
            None => match rng.below(9) {
                0 => Instruction::with2(Xor_r32_rm32, r, self.names.half(e)),
                1 => Instruction::with2(Rol_rm32_imm8, r, 7),
                2 => Instruction::with2(Shl_rm32_CL, r, Register::CL),
                3 => Instruction::with2(Adc_r32_rm32, r, self.names.half(e)),
                4 if r8 != Register::None => Instruction::with1(Setb_rm8, byte(d)),
                5 => Instruction::with2(Test_rm32_r32, r, self.names.half(e)),
                6 if self.data.contains(&2) => Ok(Instruction::with(Cdq)),
                7 => Instruction::with2(Pxor_xmm_xmmm128, x, Register::XMM1),
                _ => Instruction::with2(Lea_r32_m, r, memory(self.names.full(e), Register::None, 1, 3)),
            },
        };
        self.add2(made);
        let last = self.out.last().expect("just added");
        if last.rflags_undefined() != 0 {
            self.add2(Instruction::with2(Test_rm32_r32, r, r));
        }
    }
}

/// A loop: what it walks with, a few instructions, the step, and the way back; then HLT.
fn program(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let names = Names { wide };
    let free = (0..if wide { 16 } else { 8 }).filter(|&n| n != 4).collect();
    let mut l = Loop {
        names,
        out: Vec::new(),
        free,
        data: Vec::new(),
    };
    let turns = 1 + match rng.below(3) {
        0 => rng.below(6),
        1 => rng.below(60),
        _ => rng.below(1200),
    };
    let count = l.take(rng);
    let walkers = 1 + rng.below(if wide { 3 } else { 2 });
    // What each access looks like, and what moves it.
    let mut operands = Vec::new();
    let mut moves: Vec<(u32, i32, bool)> = Vec::new();
    let mut copies: Vec<(u32, u32, u64)> = Vec::new();
    let mut paced = None;
    for _ in 0..walkers {
        let mut step = rng.pick(&[1i32, 2, 4, 4, 8, 8, 16, 16, 32, 60, 256, 300]);
        if rng.below(4) == 0 {
            step = -step;
        }
        let at = AREA
            + if step > 0 {
                rng.below(0x2000)
            } else {
                0xFFFF - rng.below(0x2000)
            };
        let at = if rng.flip() { at & !15 } else { at };
        let p = l.take(rng);
        match rng.below(if wide { 4 } else { 3 }) {
            // A pointer.
            0 => {
                l.set(p, at);
                moves.push((p, step, false));
                for _ in 0..1 + rng.below(3) {
                    operands.push(memory(
                        l.names.full(p),
                        Register::None,
                        1,
                        rng.below(0x60) as i64 - 0x30,
                    ));
                }
            }
            // A base and an index, which may be named by its lower half alone.
            1 | 2 => {
                let i = if l.free.is_empty() { continue } else { l.take(rng) };
                let scale = rng.pick(&[1u32, 2, 4, 8]);
                let step = if rng.flip() { step.signum() } else { step };
                let from = if step > 0 {
                    rng.below(40)
                } else {
                    turns * 40 + rng.below(40)
                };
                l.set(
                    p,
                    at.wrapping_sub(if step > 0 { 0 } else { from * u64::from(scale) }),
                );
                l.set(i, from);
                if !wide || rng.flip() {
                    moves.push((i, step, true));
                } else {
                    moves.push((i, step, false));
                }
                let mut index = i;
                if rng.below(3) == 0 && !l.free.is_empty() {
                    index = l.take(rng);
                    copies.push((index, i, rng.below(4)));
                }
                for _ in 0..1 + rng.below(2) {
                    let disp = rng.below(0x60) as i64 - 0x30;
                    operands.push(memory(l.names.full(p), l.names.full(index), scale, disp));
                }
            }
            // An index that moves by a register.
            _ => {
                if l.free.len() < 2 || paced.is_some() {
                    continue;
                }
                let (i, by) = (l.take(rng), l.take(rng));
                l.set(p, AREA);
                l.set(i, rng.below(0x800));
                l.set(by, rng.pick(&[1u64, 3, 7, 64, 255, 256, 257, 1000, 0]));
                operands.push(memory(l.names.full(p), l.names.full(i), 1, 0));
                paced = Some((i, by));
            }
        }
    }
    if rng.flip() {
        operands.push(memory(
            l.names.full(4),
            Register::None,
            1,
            8 * rng.below(12) as i64,
        ));
    }
    if rng.below(4) == 0 {
        operands.push(memory(Register::None, Register::None, 1, (AREA + 0x3FF8) as i64));
    }
    l.data = if l.free.is_empty() {
        vec![count]
    } else {
        l.free.clone()
    };
    let by_data = l.data == [count];
    l.set(count, turns);
    let top = l.out.len();
    let early = rng.flip();
    let leaves = rng.below(3) == 0 && !by_data;
    let step = |l: &mut Loop, rng: &mut Rng| {
        for &(n, c, half) in &moves {
            l.advance(rng, n, c, half);
        }
        if let Some((i, by)) = paced {
            let made = if rng.flip() && wide {
                Instruction::with2(Code::Add_r64_rm64, l.names.full(i), l.names.full(by))
            } else {
                Instruction::with2(Code::Add_r32_rm32, l.names.half(i), l.names.half(by))
            };
            l.add2(made);
        }
    };
    let half = rng.below(4);
    for n in 0..2 + rng.below(6) {
        if n == half && early {
            step(&mut l, rng);
        }
        for &(to, from, how) in &copies {
            let (to32, from32) = (l.names.half(to), l.names.half(from));
            let (to64, from64) = (l.names.full(to), l.names.full(from));
            let made = match how {
                0 if wide => Instruction::with2(Code::Movsxd_r64_rm32, to64, from32),
                1 => Instruction::with2(Code::Lea_r32_m, to32, memory(from64, Register::None, 1, -1)),
                2 if wide => Instruction::with2(Code::Mov_r64_rm64, to64, from64),
                _ => Instruction::with2(Code::Mov_r32_rm32, to32, from32),
            };
            l.add2(made);
        }
        if leaves && rng.below(3) == 0 {
            // Seldom true, so that the loop goes on for a while; or true in that turn.
            let (r, rare) = if rng.flip() {
                (count, rng.below(turns) as i32)
            } else {
                (rng.pick(&l.data), rng.draw() as i32 & 0x3F)
            };
            let r = l.names.half(r);
            l.add2(Instruction::with2(Code::Cmp_rm32_imm32, r, rare));
            let code = match (rng.below(4), wide) {
                (0, true) => Code::Jo_rel32_64,
                (0, false) => Code::Jo_rel32_32,
                (_, true) => Code::Je_rel32_64,
                (_, false) => Code::Je_rel32_32,
            };
            l.add2(Instruction::with_branch(code, CODE));
        }
        if rng.below(3) == 0 && !by_data {
            l.work(rng, None);
        } else if !by_data && !operands.is_empty() {
            let m = operands[rng.below(operands.len() as u64) as usize];
            l.work(rng, Some(m));
        }
    }
    if !early {
        step(&mut l, rng);
    }
    l.advance(rng, count, -1, false);
    if rng.flip() {
        let r = l.names.full(count);
        let code = if wide {
            Code::Test_rm64_r64
        } else {
            Code::Test_rm32_r32
        };
        l.add2(Instruction::with2(code, r, r));
    } else {
        // Not by LEA: the flags are the step's.
        let last = l.out.last_mut().expect("the step of the counter");
        let (code, r) = (
            if wide {
                Code::Sub_rm64_imm32
            } else {
                Code::Sub_rm32_imm32
            },
            l.names.full(count),
        );
        *last = Instruction::with2(code, r, 1).expect("register and immediate");
    }
    assemble(&l.out, top, wide)
}

/// Encodes `list`, what follows `top` closed to a loop, HLT behind it. Conditional jumps in the list lead to the HLT.
pub fn assemble(list: &[Instruction], top: usize, wide: bool) -> Vec<u8> {
    let code = if wide {
        Code::Jne_rel32_64
    } else {
        Code::Jne_rel32_32
    };
    let (mut back, mut out) = (CODE, CODE);
    // Near jumps are of one length, wherever they lead: once to find the places, and once more.
    loop {
        let mut encoder = Encoder::new(if wide { 64 } else { 32 });
        let mut at = CODE;
        for (n, i) in list.iter().enumerate() {
            let mut i = *i;
            if n == top {
                back = at;
            }
            if i.is_jcc_short_or_near() {
                i.set_near_branch64(out);
            }
            at += encoder.encode(&i, at).unwrap_or_else(|e| panic!("{i}: {e}")) as u64;
        }
        let jump = Instruction::with_branch(code, back).expect("a near branch");
        at += encoder.encode(&jump, at).expect("in reach") as u64;
        if out == at {
            let mut bytes = encoder.take_buffer();
            bytes.push(0xF4);
            return bytes;
        }
        out = at;
    }
}

/// The area's pages, and behind them the last level's entries for them, of 8 bytes or of 4, and for the code's second page.
fn area(cpu: &Vcpu) -> Vec<u8> {
    let mut v = vec![0; (PAGES << 12) as usize];
    cpu.mem.ram().read(GuestPhys(BEHIND), &mut v).expect("in RAM");
    for size in [CodeSize::Bits64, CodeSize::Bits32] {
        for (at, count) in [(AREA, PAGES), (TAIL, 1)] {
            let (at, bytes) = entry(size, at);
            let mut entries = vec![0; (count * bytes) as usize];
            cpu.mem.ram().read(GuestPhys(at), &mut entries).expect("in RAM");
            v.extend(entries);
        }
    }
    v
}

/// Runs what `program` makes on both, and gives the translator. Half of the programs lie in two pages, and there may be another second
/// page, or none, the last time but one.
pub fn agree(size: CodeSize, program: crate::Generator) -> Box<Jit> {
    let mut interpreted = snippet::vcpu(8 << 20);
    let mut translated = snippet::vcpu(8 << 20);
    interpreted.jit = None;
    translated.jit = Some(snippet::translator());
    let seed = number("QUINTET_JIT_SEED", 1);
    let cases = number("QUINTET_JIT_CASES", 4000);
    let mut full = 0;
    // Loops that go round inside their translation, and lie in two pages.
    let mut across = 0;
    for case in seed..seed + cases {
        let mut rng = Rng(case.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let code = program(&mut rng, size == CodeSize::Bits64);
        let len = code.len() as u64;
        let start = if rng.flip() {
            CODE
        } else {
            TAIL - 1 - rng.below(len - 1)
        };
        let instead = rng.pick(&[OTHER | 0x67, 0]);
        let before = translated.jit.as_ref().map_or(0, |j| j.loops() + j.peeled());
        prepare(
            [&mut interpreted, &mut translated],
            size,
            &code,
            &crate::data(case),
            case,
        );
        for cpu in [&mut interpreted, &mut translated] {
            put(cpu, start, &code);
            put(cpu, start + (OTHER - TAIL), &code);
            if start + len - 7 >= TAIL {
                put(cpu, start + (OTHER - TAIL) + len - 6, &[0x84]);
            }
            cpu.state.regs[RIP] = start;
            map(cpu, size, case);
            cpu.discard_code();
        }
        for round in 0..ROUNDS {
            if round + 2 >= ROUNDS {
                let to = if round + 1 == ROUNDS { TAIL | 0x67 } else { instead };
                map_tail(&mut interpreted, size, to);
                map_tail(&mut translated, size, to);
            }
            let how = [interpreted.run(200_000), translated.run(200_000)];
            assert_eq!(how[0], how[1], "case {case}:\n{}", show(size, &code));
            if round + 2 == ROUNDS && instead == 0 && start != CODE {
                // What faults may do so behind an instruction that leaves flags undefined.
                translated.state.flags = interpreted.state.flags;
            }
            let apart = crate::difference(&interpreted, &translated).or_else(|| {
                let (a, b) = (area(&interpreted), area(&translated));
                let at = a.iter().zip(&b).position(|(a, b)| a != b)?;
                Some(format!(
                    "page at {at:#x}: {:x} interpreted, {:x} translated",
                    a[at], b[at]
                ))
            });
            if let Some(what) = apart {
                panic!("case {case}, round {round}: {what}\n{}", show(size, &code));
            }
            if how[0] != RunExit::Idle {
                break;
            }
            full += u64::from(round + 3 == ROUNDS);
            for cpu in [&mut interpreted, &mut translated] {
                cpu.state.regs[RIP] = start;
                cpu.state.activity = quintet_cpu_worker::state::Activity::Active;
            }
        }
        if start != CODE {
            across += translated.jit.as_ref().map_or(0, |j| j.loops() + j.peeled()) - before;
        }
    }
    println!(
        "{full} of {cases} programs ran to their end, the others to a fault; {across} loops in two pages"
    );
    assert!(
        across * 12 > cases,
        "too few loops in two pages: {across} of {cases}"
    );
    assert!(
        full * 3 > cases,
        "many programs must reach their end: {full} of {cases}"
    );
    translated.jit.expect("it has one")
}

fn agree_loops(size: CodeSize) {
    let loops = agree(size, program).loops();
    let cases = number("QUINTET_JIT_CASES", 4000);
    assert!(
        loops * 4 > cases,
        "many must be loops of that kind: {loops} of {cases}"
    );
}

#[test]
fn translated_64_bit_loops_do_what_interpreted_ones_do() {
    agree_loops(CodeSize::Bits64);
}

#[test]
fn translated_32_bit_loops_do_what_interpreted_ones_do() {
    agree_loops(CodeSize::Bits32);
}
