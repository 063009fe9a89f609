//! Programs of x87 instructions, with whatever else looks at the unit between them.

use crate::Rng;
use crate::integer::{decode, defined, modrm};

/// An 80-bit number of some kind, often an odd one.
fn number(rng: &mut Rng) -> [u8; 10] {
    let exponent = match rng.below(8) {
        0 => 0,
        1 => rng.pick(&[1, 2, 0x7FFE, 0x7FFF, 0x7FFF]),
        2 => 0x3C00 + rng.below(0x800) as u16,
        _ => 0x3FFF - 8 + rng.below(80) as u16,
    };
    let mantissa = match rng.below(10) {
        0 => 0,
        1 => 1 << 63,
        2 => 3 << 62,
        3 => rng.draw(),
        4 => u64::MAX << rng.below(64),
        _ => 1 << 63 | rng.draw() << rng.below(60),
    };
    let sign = (rng.draw() >> 16) as u16 & 0x8000;
    let mut out = [0; 10];
    out[..8].copy_from_slice(&mantissa.to_le_bytes());
    out[8..].copy_from_slice(&(sign | exponent).to_le_bytes());
    out
}

/// Puts numbers of all formats into most of `data`.
pub fn sprinkle(rng: &mut Rng, data: &mut [u8]) {
    for slot in data.as_chunks_mut::<16>().0 {
        match rng.below(6) {
            0 => {}
            1 => {
                let v = rng.pick(&[1.0, -0.0, 0.1, 3e300, -7.5, 1e-310, f64::INFINITY, 65535.0]);
                slot[..8].copy_from_slice(&v.to_le_bytes());
                slot[8..].copy_from_slice(&(v * 0.5).to_le_bytes());
            }
            2 => {
                let v = rng.pick(&[1.0, -0.0, 0.1, 3e38, -7.5, 1e-40, f32::INFINITY, 32768.0]);
                slot.as_chunks_mut::<4>().0.fill(v.to_le_bytes());
            }
            3 => {
                let v = (rng.draw() as i64) >> rng.below(64);
                slot[..8].copy_from_slice(&v.to_le_bytes());
            }
            _ => slot[..10].copy_from_slice(&number(rng)),
        }
    }
}

/// A memory operand: mostly at the start of a slot of [`sprinkle`], by the stack pointer.
fn memory(rng: &mut Rng, wide: bool, reg: u8) -> (u8, Vec<u8>) {
    let mut rex = 0x40;
    if rng.below(3) == 0 {
        loop {
            let operand = modrm(rng, wide, &mut rex, reg);
            if operand[0] < 0xC0 {
                return (rex & !4, operand);
            }
            rex = 0x40;
        }
    }
    let disp = (rng.below(0x200) as i32 - 0x100) * 16;
    (
        rex,
        [vec![0x84 | reg << 3, 0x24], disp.to_le_bytes().to_vec()].concat(),
    )
}

fn with_memory(rng: &mut Rng, wide: bool, opcode: &[u8], reg: u8) -> Vec<u8> {
    let (rex, operand) = memory(rng, wide, reg);
    let rex = (rex != 0x40).then_some(rex);
    rex.into_iter()
        .chain(opcode.iter().copied())
        .chain(operand)
        .collect()
}

/// A control word: all masked but rarely, any rounding and precision, any reserved bits.
fn control(rng: &mut Rng) -> u16 {
    let word = (rng.draw() >> 20) as u16;
    if rng.below(12) == 0 { word } else { word | 0x3F }
}

/// `mov word [rsp - 0x800], control word; fldcw [rsp - 0x800]`
fn load_control(rng: &mut Rng) -> Vec<u8> {
    let mut code = vec![0x66, 0xC7, 0x84, 0x24, 0x00, 0xF8, 0xFF, 0xFF];
    code.extend(control(rng).to_le_bytes());
    code.extend([0xD9, 0xAC, 0x24, 0x00, 0xF8, 0xFF, 0xFF]);
    code
}

/// Loads and saves of the whole unit, and MMX.
fn apart(rng: &mut Rng, wide: bool) -> Vec<u8> {
    // `[rsp - 0x600]`, which is aligned unless something was pushed.
    let image = [0x24, 0x00, 0xFA, 0xFF, 0xFF];
    let on_image = |opcode: &[u8], reg: u8| [opcode, &[0x84 | reg << 3], &image].concat();
    match rng.below(14) {
        0 => [on_image(&[0x0F, 0xAE], 0), on_image(&[0x0F, 0xAE], 1)].concat(),
        1 => on_image(&[0x0F, 0xAE], 0),
        2 => [on_image(&[0xD9], 6), on_image(&[0xD9], 4)].concat(),
        3 => [on_image(&[0xDD], 6), on_image(&[0xDD], 4)].concat(),
        4 => on_image(&[0x66, 0xD9], 6),
        5 => vec![0x0F, 0x77],
        6 => vec![0xDB, 0xE3],
        7 => vec![0xDB, 0xE2],
        8 => with_memory(rng, wide, &[0x0F, 0x6F], 3),
        // In the shadow of STI, behind an instruction that leaves something in the host's unit.
        12 => [vec![0xFA, 0xD9, 0xE8, 0xFB], on_image(&[0x0F, 0xAE], 0)].concat(),
        13 => vec![0xFA, 0xD9, 0xE8, 0xFB, 0xD8, 0xC0 | rng.below(64) as u8],
        // CVTPI2PS from memory leaves the unit alone.
        9 => with_memory(rng, wide, &[0x0F, 0x2A], 3),
        10 => vec![
            0x0F,
            rng.pick(&[0xEF, 0xFE, 0x6F, 0x7F]),
            0xC0 | rng.below(64) as u8,
        ],
        _ => {
            let reg = rng.below(8) as u8;
            with_memory(rng, wide, &[0x0F, 0x7F], reg)
        }
    }
}

fn instruction(rng: &mut Rng, wide: bool) -> Vec<u8> {
    loop {
        let opcode = 0xD8 | rng.below(8) as u8;
        let code = match rng.below(20) {
            0 => load_control(rng),
            1 => apart(rng, wide),
            2 => return defined(rng, wide),
            3 => vec![0xDF, 0xE0],
            4 => vec![0x9B],
            5..=10 => {
                let reg = rng.below(8) as u8;
                // Whole environments from anywhere would mostly leave something pending.
                let rare = matches!((opcode, reg), (0xD9, 4 | 5) | (0xDD, 4));
                if rare && rng.below(30) != 0 {
                    continue;
                }
                with_memory(rng, wide, &[opcode], reg)
            }
            // Pushes, so that the stack is not empty all the time.
            11 | 12 => with_memory(rng, wide, &[0xDB], 5),
            13 => vec![0xD9, 0xE8 | rng.below(7) as u8],
            _ => vec![opcode, 0xC0 | rng.below(64) as u8],
        };
        let i = decode(&code, wide);
        let initial = i.code() == iced_x86::Code::Fninit && rng.below(8) != 0;
        if !initial && !i.is_invalid() {
            return code;
        }
    }
}

/// FNINIT and a few numbers, then anything, with a jump over part of it now and then; HLT.
pub fn program(rng: &mut Rng, wide: bool) -> Vec<u8> {
    let mut code = Vec::new();
    if rng.below(8) != 0 {
        code.extend([0xDB, 0xE3]);
    }
    for _ in 0..rng.below(8) {
        code.extend(with_memory(rng, wide, &[0xDB], 5));
    }
    let count = 4 + rng.below(30);
    crate::skipping(rng, &mut code, count, 9, |rng| instruction(rng, wide));
    code
}
