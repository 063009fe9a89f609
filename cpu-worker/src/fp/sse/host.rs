#![allow(
    unsafe_code,
    reason = "the one place that turns register values into host vectors"
)]
//! Register values as the host's vectors.

use super::Xmm;
pub(super) use core::arch::x86_64::__m128i;

/// The value as a host vector.
#[inline(always)]
pub(super) fn load(value: &Xmm) -> __m128i {
    // SAFETY: both are 16 bytes without invalid patterns.
    unsafe { core::mem::transmute::<Xmm, __m128i>(*value) }
}

/// The value of a host vector.
#[inline(always)]
pub(super) fn store(vector: __m128i) -> Xmm {
    // SAFETY: both are 16 bytes without invalid patterns.
    unsafe { core::mem::transmute::<__m128i, Xmm>(vector) }
}

/// An array of `f::<I>` for each `I` below the count, in octaves: the kernels of an immediate.
macro_rules! table {
    (@octave $f:ident, $base:expr) => {
        [
            $f::<{ $base }>, $f::<{ $base + 1 }>, $f::<{ $base + 2 }>, $f::<{ $base + 3 }>,
            $f::<{ $base + 4 }>, $f::<{ $base + 5 }>, $f::<{ $base + 6 }>, $f::<{ $base + 7 }>,
        ]
    };
    (@octaves $f:ident, $($base:literal)*) => { [$(table!(@octave $f, $base)),*] };
    (8 $f:ident) => { table!(@octaves $f, 0) };
    (16 $f:ident) => { table!(@octaves $f, 0 8) };
    (32 $f:ident) => { table!(@octaves $f, 0 8 16 24) };
    (64 $f:ident) => { table!(@octaves $f, 0 8 16 24 32 40 48 56) };
    (256 $f:ident) => {
        table!(
            @octaves $f,
            0 8 16 24 32 40 48 56 64 72 80 88 96 104 112 120 128 136 144 152 160 168 176 184 192 200 208 216
            224 232 240 248
        )
    };
}
pub(super) use table;
