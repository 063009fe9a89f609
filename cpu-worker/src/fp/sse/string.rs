#![allow(
    unsafe_code,
    reason = "executes the host's SSE4.2 string instructions through inline assembly"
)]
//! PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM.
//!
//! All four compute one mask of matches; they differ in where lengths come from and in how the mask is
//! handed over. So the host runs the two mask forms, with the mask as bits, and the rest is done here.

use super::Xmm;
use super::host::{load, store, table};
use core::arch::asm;

/// What a string comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matches {
    /// One bit for each element, IntRes2 of the manual (SDM volume 2, 4.1.5).
    pub mask: u16,
    /// CF, ZF, SF and OF at their places in EFLAGS; AF and PF are cleared by the instruction.
    pub flags: u32,
}

type Explicit = fn(&Xmm, &Xmm, u32, u32) -> Matches;
type Implicit = fn(&Xmm, &Xmm) -> Matches;

fn explicit_kernel<const I: u8>(a: &Xmm, b: &Xmm, length_a: u32, length_b: u32) -> Matches {
    let (mask, flags): (_, u64);
    // SAFETY: registers only; the guest's CPUID offers the instruction only where the host has it.
    unsafe {
        asm!(
            "pcmpestrm {a}, {b}, {i}",
            "pushfq",
            "pop {flags}",
            a = in(xmm_reg) load(a), b = in(xmm_reg) load(b), i = const I, flags = out(reg) flags,
            in("eax") length_a, in("edx") length_b, out("xmm0") mask,
        );
    }
    Matches {
        mask: store(mask).quads[0] as u16,
        flags: flags as u32 & 0x8c1,
    }
}

fn implicit_kernel<const I: u8>(a: &Xmm, b: &Xmm) -> Matches {
    let (mask, flags): (_, u64);
    // SAFETY: registers only; the guest's CPUID offers the instruction only where the host has it.
    unsafe {
        asm!(
            "pcmpistrm {a}, {b}, {i}",
            "pushfq",
            "pop {flags}",
            a = in(xmm_reg) load(a), b = in(xmm_reg) load(b), i = const I, flags = out(reg) flags,
            out("xmm0") mask,
        );
    }
    Matches {
        mask: store(mask).quads[0] as u16,
        flags: flags as u32 & 0x8c1,
    }
}

/// PCMPESTRx of `a` and `b` under immediate `imm`, with the lengths of EAX and EDX (RAX and RDX with REX.W),
/// sign-extended.
pub fn explicit(imm: u8, a: &Xmm, b: &Xmm, length_a: i64, length_b: i64) -> Matches {
    static KERNELS: [[Explicit; 8]; 8] = table!(64 explicit_kernel);
    let n = usize::from(imm & 0x3f);
    let clamp = |length: i64| length.unsigned_abs().min(16) as u32;
    KERNELS[n / 8][n % 8](a, b, clamp(length_a), clamp(length_b))
}

/// PCMPISTRx of `a` and `b` under immediate `imm`; the strings end at a null element.
pub fn implicit(imm: u8, a: &Xmm, b: &Xmm) -> Matches {
    static KERNELS: [[Implicit; 8]; 8] = table!(64 implicit_kernel);
    let n = usize::from(imm & 0x3f);
    KERNELS[n / 8][n % 8](a, b)
}

/// The index forms' ECX: the lowest match, or the highest with bit 6 of `imm`, or the number of elements.
pub const fn index(imm: u8, mask: u16) -> u32 {
    if mask == 0 {
        return if imm & 1 == 0 { 16 } else { 8 };
    }
    if imm & 0x40 == 0 {
        mask.trailing_zeros()
    } else {
        15 - mask.leading_zeros()
    }
}

/// The mask forms' XMM0: bits, or with bit 6 of `imm` whole elements.
pub const fn expand(imm: u8, mask: u16) -> Xmm {
    if imm & 0x40 == 0 {
        return Xmm::new(mask as u64, 0);
    }
    let (elements, width) = if imm & 1 == 0 { (16, 8) } else { (8, 16) };
    let mut value = 0u128;
    let mut n = 0;
    while n < elements {
        if mask >> n & 1 != 0 {
            value |= ((1u128 << width) - 1) << (n * width);
        }
        n += 1;
    }
    Xmm::from_u128(value)
}
