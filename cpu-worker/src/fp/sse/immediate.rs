#![allow(
    unsafe_code,
    reason = "executes the host's SIMD instructions through inline assembly"
)]
//! Instructions with an immediate that touch neither MXCSR nor flags: a kernel for each value.

use super::host::{load, store, table};
use super::{Integer, Xmm};
use core::arch::asm;

/// Kernels of an instruction by the bits of its immediate that matter, in octaves.
type Kernels<const OCTAVES: usize> = [[Integer; 8]; OCTAVES];

macro_rules! immediate {
    ($($name:ident $kernel:ident $insn:literal $count:tt $octaves:literal $mask:literal;)*) => {$(
        fn $kernel<const I: u8>(dst: &mut Xmm, src: &Xmm) {
            let mut d = load(dst);
            // SAFETY: registers only; the guest's CPUID offers the instruction only where the host has it.
            unsafe {
                asm!(
                    concat!($insn, " {d}, {s}, {i}"),
                    d = inout(xmm_reg) d,
                    s = in(xmm_reg) load(src),
                    i = const I,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            *dst = store(d);
        }

        #[doc = concat!("The kernel of `", $insn, "` with immediate `imm`.")]
        pub fn $name(imm: u8) -> Integer {
            static KERNELS: Kernels<$octaves> = table!($count $kernel);
            let n = usize::from(imm & $mask);
            KERNELS[n / 8][n % 8]
        }
    )*};
}

immediate! {
    pshufd pshufd_kernel "pshufd" 256 32 0xff;
    pshuflw pshuflw_kernel "pshuflw" 256 32 0xff;
    pshufhw pshufhw_kernel "pshufhw" 256 32 0xff;
    shufps shufps_kernel "shufps" 256 32 0xff;
    shufpd shufpd_kernel "shufpd" 8 1 0x03;
    pblendw pblendw_kernel "pblendw" 256 32 0xff;
    blendps blendps_kernel "blendps" 16 2 0x0f;
    blendpd blendpd_kernel "blendpd" 8 1 0x03;
    insertps insertps_kernel "insertps" 256 32 0xff;
    mpsadbw mpsadbw_kernel "mpsadbw" 8 1 0x07;
    pclmulqdq pclmulqdq_kernel "pclmulqdq" 32 4 0x11;
    aeskeygenassist aeskeygenassist_kernel "aeskeygenassist" 256 32 0xff;
}

fn palignr_kernel<const I: u8>(dst: &mut Xmm, src: &Xmm) {
    *dst = align(dst, src, I);
}

const fn align(dst: &Xmm, src: &Xmm, bytes: u8) -> Xmm {
    let (high, low) = (dst.to_u128(), src.to_u128());
    Xmm::from_u128(match bytes as u32 {
        0 => low,
        n @ 1..=15 => low >> (8 * n) | high << (128 - 8 * n),
        n @ 16..=31 => high >> (8 * (n - 16)),
        _ => 0,
    })
}

/// The kernel of PALIGNR with immediate `imm`; 32 and more give zero.
pub fn palignr(imm: u8) -> Integer {
    static KERNELS: Kernels<5> = table!(@octaves palignr_kernel, 0 8 16 24 32);
    let n = usize::from(imm.min(32));
    KERNELS[n / 8][n % 8]
}

/// PSLLDQ: `dst` shifted left by `bytes`; 16 and more give zero.
pub const fn pslldq(dst: &mut Xmm, bytes: u8) {
    *dst = if bytes > 15 {
        Xmm::ZERO
    } else {
        Xmm::from_u128(dst.to_u128() << (8 * bytes as u32))
    };
}

/// PSRLDQ: `dst` shifted right by `bytes`; 16 and more give zero.
pub const fn psrldq(dst: &mut Xmm, bytes: u8) {
    *dst = if bytes > 15 {
        Xmm::ZERO
    } else {
        Xmm::from_u128(dst.to_u128() >> (8 * bytes as u32))
    };
}
