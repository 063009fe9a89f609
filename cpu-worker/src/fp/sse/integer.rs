#![allow(
    unsafe_code,
    reason = "executes the host's SIMD instructions through inline assembly"
)]
//! Instructions that touch neither MXCSR nor flags: one line each.

use super::Xmm;
use super::host::{load, store};
use core::arch::asm;

macro_rules! integer {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: `dst` from `dst` and `src`.")]
        pub fn $name(dst: &mut Xmm, src: &Xmm) {
            let mut d = load(dst);
            // SAFETY: registers only; the guest's CPUID offers the instruction only where the host has it.
            unsafe {
                asm!(
                    concat!(stringify!($name), " {d}, {s}"),
                    d = inout(xmm_reg) d,
                    s = in(xmm_reg) load(src),
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            *dst = store(d);
        }
    )*};
}

// SSE and SSE2: arithmetic.
integer! {
    paddb paddw paddd paddq paddsb paddsw paddusb paddusw
    psubb psubw psubd psubq psubsb psubsw psubusb psubusw
    pmullw pmulhw pmulhuw pmuludq pmaddwd psadbw pavgb pavgw
    pmaxsw pmaxub pminsw pminub
}

// Logic, comparison, shifts by a register.
integer! {
    pand pandn por pxor andps andnps orps xorps andpd andnpd orpd xorpd
    pcmpeqb pcmpeqw pcmpeqd pcmpgtb pcmpgtw pcmpgtd
    psllw pslld psllq psrlw psrld psrlq psraw psrad
}

// Packing and interleaving.
integer! {
    packsswb packssdw packuswb
    punpcklbw punpcklwd punpckldq punpcklqdq punpckhbw punpckhwd punpckhdq punpckhqdq
    unpcklps unpckhps unpcklpd unpckhpd
}

// Approximations and conversions that depend on no control bit.
integer! { rcpps rcpss rsqrtps rsqrtss cvtdq2pd }

// SSE3 and SSSE3.
integer! {
    movshdup movsldup movddup
    pshufb phaddw phaddd phaddsw phsubw phsubd phsubsw pmaddubsw pmulhrsw
    psignb psignw psignd pabsb pabsw pabsd
}

// SSE4.1 and SSE4.2.
integer! {
    packusdw pcmpeqq pcmpgtq phminposuw pmuldq pmulld
    pmaxsb pmaxsd pmaxud pmaxuw pminsb pminsd pminud pminuw
    pmovsxbw pmovsxbd pmovsxbq pmovsxwd pmovsxwq pmovsxdq
    pmovzxbw pmovzxbd pmovzxbq pmovzxwd pmovzxwq pmovzxdq
}

// AES-NI.
integer! { aesenc aesenclast aesdec aesdeclast aesimc }

macro_rules! blend_variable {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: the lanes of `src` where the top bit of `mask` (XMM0) is set.")]
        pub fn $name(dst: &mut Xmm, src: &Xmm, mask: &Xmm) {
            let mut d = load(dst);
            // SAFETY: registers only; the guest's CPUID offers the instruction only where the host has it.
            unsafe {
                asm!(
                    concat!(stringify!($name), " {d}, {s}, xmm0"),
                    d = inout(xmm_reg) d,
                    s = in(xmm_reg) load(src),
                    in("xmm0") load(mask),
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            *dst = store(d);
        }
    )*};
}

blend_variable! { pblendvb blendvps blendvpd }

macro_rules! sign_mask {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: the sign bits of the elements.")]
        pub fn $name(src: &Xmm) -> u32 {
            let mask: u32;
            // SAFETY: registers only.
            unsafe {
                asm!(
                    concat!(stringify!($name), " {m:e}, {s}"),
                    m = lateout(reg) mask,
                    s = in(xmm_reg) load(src),
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            mask
        }
    )*};
}

sign_mask! { pmovmskb movmskps movmskpd }

/// PTEST: ZF if `dst & src` is zero, CF if `!dst & src` is, at their places in EFLAGS; the other status
/// flags are cleared.
pub const fn ptest(dst: &Xmm, src: &Xmm) -> u32 {
    let (d, s) = (dst.to_u128(), src.to_u128());
    ((d & s == 0) as u32) << 6 | (!d & s == 0) as u32
}

macro_rules! crc32 {
    ($($name:ident $ty:ty, $class:ident, $operands:literal;)*) => {$(
        #[doc = concat!("CRC32 (polynomial 11EDC6F41h) of one `", stringify!($ty), "`.")]
        pub fn $name(crc: u32, value: $ty) -> u32 {
            let mut result = u64::from(crc);
            // SAFETY: registers only; the guest's CPUID offers the instruction only where the host has it.
            unsafe {
                asm!(
                    concat!("crc32 ", $operands),
                    c = inout(reg) result,
                    v = in($class) value,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            result as u32
        }
    )*};
}

crc32! {
    crc32_u8 u8, reg_byte, "{c:e}, {v}";
    crc32_u16 u16, reg, "{c:e}, {v:x}";
    crc32_u32 u32, reg, "{c:e}, {v:e}";
    crc32_u64 u64, reg, "{c}, {v}";
}
