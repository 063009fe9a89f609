//! Programs of integer and SSE instructions.

use iced_x86::{Decoder, DecoderOptions, Instruction};
use quintet_tests::twins::undefined_flags;

use crate::{DATA, Rng};

/// A ModRM operand: a register, or memory near one of the pointers.
pub fn modrm(rng: &mut Rng, wide: bool, rex: &mut u8, reg: u8) -> Vec<u8> {
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
        3 => vec![0x80, 0xC0 | (rng.below(64) as u8), rng.draw() as u8],
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
    let imm = |rng: &mut Rng, n: usize| rng.draw().to_le_bytes()[..n].to_vec();
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

pub fn decode(code: &[u8], wide: bool) -> Instruction {
    Decoder::with_ip(if wide { 64 } else { 32 }, code, 0, DecoderOptions::NONE).decode()
}

/// One random instruction, followed by another that defines the flags if it leaves some undefined. (AF after logical
/// instructions is clear on all silicon.)
pub fn defined(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let mut code = instruction(rng, wide);
    while rng.below(200) != 0 && decode(&code, wide).is_invalid() {
        code = instruction(rng, wide);
    }
    let i = decode(&code, wide);
    if undefined_flags(&i) != 0 {
        code.extend([0x85, 0xC0]);
    }
    code
}

/// A program: some straight code, a jump over part of it now and then, HLT.
pub fn program(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let mut code = Vec::new();
    let count = 4 + rng.below(40);
    crate::skipping(rng, &mut code, count, 7, |rng| defined(rng, wide));
    code
}
