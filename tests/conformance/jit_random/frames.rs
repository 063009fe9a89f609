//! Random programs whose accesses lie side by side, as those to a function's frame and to the fields of an object do: what the
//! translator looks up once for several of them must touch the same bytes and fault at the same instruction as the interpreter.
//! The pages are those of [`crate::loops`]: scattered, some missing or read-only, and stretches cross from one to the next.

use iced_x86::{Code, Instruction, Register};
use quintet_cpu_worker::state::CodeSize;

use crate::loops::{AREA, Loop, Names, PAGES, agree, assemble, memory};
use crate::{Rng, number};

/// Guest register numbers.
const RSP: u32 = 4;
const RBP: u32 = 5;

/// Somewhere in the area, often near the end of a page.
fn place(rng: &mut Rng) -> u64 {
    let page = AREA + (1 + rng.below(PAGES - 2)) * 4096;
    let at = match rng.below(4) {
        0 => rng.below(256),
        1 => 4096 - rng.below(64),
        _ => 256 + rng.below(3500),
    };
    let at = page + at;
    if rng.below(4) == 0 { at } else { at & !15 }
}

struct Frames {
    l: Loop,
    wide: bool,
    /// Words on the stack in excess of what there was at the top.
    depth: i64,
}

impl Frames {
    fn word(&self) -> i64 {
        if self.wide { 8 } else { 4 }
    }

    fn push(&mut self, rng: &mut Rng) {
        let r = self.l.names.full(rng.pick(&self.l.data));
        let (push, imm) = if self.wide {
            (Code::Push_r64, Code::Pushq_imm8)
        } else {
            (Code::Push_r32, Code::Pushd_imm8)
        };
        let made = if rng.below(4) == 0 {
            Instruction::with1(imm, rng.below(128) as i32)
        } else {
            Instruction::with1(push, r)
        };
        self.l.add2(made);
        self.depth += 1;
    }

    fn pop(&mut self, rng: &mut Rng) {
        let r = self.l.names.full(rng.pick(&self.l.data));
        let code = if self.wide { Code::Pop_r64 } else { Code::Pop_r32 };
        self.l.add2(Instruction::with1(code, r));
        self.depth -= 1;
    }

    /// Moves the stack pointer by so many words.
    fn move_stack(&mut self, words: i64) {
        let by = (words * self.word()) as i32;
        let (code, r) = if self.wide {
            (Code::Add_rm64_imm32, Register::RSP)
        } else {
            (Code::Add_rm32_imm32, Register::ESP)
        };
        self.l.add2(Instruction::with2(code, r, by));
        self.depth -= words;
    }

    /// A frame of its own, left by LEAVE.
    fn frame(&mut self, rng: &mut Rng, pointers: &[u32]) {
        let (push, mov, leave, rbp, rsp) = if self.wide {
            (
                Code::Push_r64,
                Code::Mov_r64_rm64,
                Code::Leaveq,
                Register::RBP,
                Register::RSP,
            )
        } else {
            (
                Code::Push_r32,
                Code::Mov_r32_rm32,
                Code::Leaved,
                Register::EBP,
                Register::ESP,
            )
        };
        self.l.add2(Instruction::with1(push, rbp));
        self.l.add2(Instruction::with2(mov, rbp, rsp));
        let before = self.depth;
        for _ in 0..rng.below(4) {
            self.push(rng);
        }
        self.move_stack(-(rng.below(20) as i64));
        for _ in 0..2 + rng.below(5) {
            self.piece(rng, pointers, Some(RBP));
        }
        self.depth = before;
        self.l.add2(Ok(Instruction::with(leave)));
    }

    /// A few accesses, or something else.
    fn piece(&mut self, rng: &mut Rng, pointers: &[u32], frame: Option<u32>) {
        match rng.below(12) {
            0 => self.push(rng),
            1 if self.depth > 0 => self.pop(rng),
            2 => {
                let words = rng.below(8) as i64 - 4;
                self.move_stack(words);
            }
            3 => self.l.work(rng, None),
            4 => {
                let p = rng.pick(pointers);
                let by = rng.pick(&[4i32, 8, 16, -8, -16, 64, 200]);
                self.l.advance(rng, p, by, !self.wide);
            }
            _ => {
                let base = match frame {
                    Some(frame) if rng.flip() => frame,
                    _ if rng.below(3) == 0 => RSP,
                    _ => rng.pick(pointers),
                };
                let from = i64::from(base == RBP) * -96;
                let index = if base != RSP && rng.below(6) == 0 {
                    self.l.names.full(rng.pick(pointers))
                } else {
                    Register::None
                };
                for _ in 0..1 + rng.below(4) {
                    let disp = from + rng.below(112) as i64;
                    let disp = if rng.flip() { disp & !15 } else { disp };
                    // Beside an index that is a pointer, the base is taken off again.
                    let disp = disp - if index == Register::None { 0 } else { AREA as i64 };
                    self.l
                        .work(rng, Some(memory(self.l.names.full(base), index, 1, disp)));
                }
            }
        }
    }
}

/// A loop over a few pointers and the stack; HLT behind it.
fn program(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let free: Vec<u32> = (0..if wide { 16 } else { 8 })
        .filter(|&n| n != RSP && n != RBP)
        .collect();
    let mut l = Loop {
        names: Names { wide },
        out: Vec::new(),
        free,
        data: Vec::new(),
    };
    let count = l.take(rng);
    let pointers: Vec<u32> = (0..1 + rng.below(2)).map(|_| l.take(rng)).collect();
    l.data = l.free.clone();
    let turns = rng.pick(&[1, 2, 5, 100]);
    l.set(count, turns);
    let (stack, bp) = (place(rng) & !7, place(rng));
    l.set(RSP, stack);
    l.set(RBP, bp);
    for &p in &pointers {
        let at = place(rng);
        l.set(p, at);
    }
    let top = l.out.len();
    let mut f = Frames { l, wide, depth: 0 };
    for _ in 0..1 + rng.below(8) {
        if rng.below(5) == 0 {
            f.frame(rng, &pointers);
        } else {
            f.piece(rng, &pointers, None);
        }
    }
    let depth = f.depth;
    f.move_stack(depth);
    let r = f.l.names.full(count);
    let code = if wide {
        Code::Sub_rm64_imm32
    } else {
        Code::Sub_rm32_imm32
    };
    f.l.add2(Instruction::with2(code, r, 1));
    assemble(&f.l.out, top, wide)
}

fn agree_frames(size: CodeSize) {
    let jit = agree(size, program);
    let cases = number("QUINTET_JIT_CASES", 4000);
    let (shared, strayed) = jit.shared_looks();
    println!("{shared} accesses shared a look, which failed {strayed} times");
    assert!(shared > cases, "too few shared a look: {shared} in {cases}");
    assert!(strayed > cases / 8, "too few looks failed: {strayed} in {cases}");
    let peeled = jit.peeled();
    println!("{peeled} loops had their first turn peeled off");
    assert!(
        peeled > cases / 20,
        "too few loops were peeled: {peeled} in {cases}"
    );
}

#[test]
fn translated_64_bit_frames_are_what_interpreted_ones_are() {
    agree_frames(CodeSize::Bits64);
}

#[test]
fn translated_32_bit_frames_are_what_interpreted_ones_are() {
    agree_frames(CodeSize::Bits32);
}
