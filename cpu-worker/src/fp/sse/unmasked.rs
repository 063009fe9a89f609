//! What an instruction raises when exceptions are unmasked, beyond what its masked execution shows.
//!
//! The kernels always execute with everything masked, since an unmasked exception would stop this process.
//! Three things differ then, all found by comparison with processors: an exact denormal result raises
//! underflow; precision is judged as if the exponent were unbounded; and a dot product stops at the first of its
//! operations that raises something.

use super::Xmm;
use super::float::{HADDPD, HADDPS, MULPD, MULPS, SimdException, mxcsr};
use crate::fp::F80;
use crate::fp::x87::{Env, host as x87, status};

/// The arithmetic of an instruction whose results can be tiny or huge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// Even lanes subtract, odd ones add.
    AddSubtract,
    /// Neighbours of the destination, then of the source.
    HorizontalAdd,
    HorizontalSubtract,
    /// Conversion from double to single.
    Narrow,
}

/// What the results of an instruction are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// That many singles.
    Single(Kind, usize),
    /// That many doubles.
    Double(Kind, usize),
    /// DPPS with this immediate.
    DotSingle(u8),
    /// DPPD with this immediate.
    DotDouble(u8),
    /// Nothing that can be tiny or huge.
    Other,
}

impl Shape {
    /// Whether a result is denormal.
    pub(super) fn any_denormal(self, value: &Xmm) -> bool {
        match self {
            Self::Single(_, n) => (0..n).any(|i| {
                let bits = value.dword(i) & 0x7fff_ffff;
                bits != 0 && bits < 0x0080_0000
            }),
            Self::Double(_, n) => value.quads[..n].iter().any(|bits| {
                let bits = bits & (u64::MAX >> 1);
                bits != 0 && bits < 1 << 52
            }),
            _ => false,
        }
    }

    /// `flags` of a masked execution without PE if, with an unmasked overflow or underflow, no result is
    /// inexact but for the bounds of its exponent.
    pub(super) fn without_spurious_precision(self, flags: u32, guest: u32, dst: &Xmm, src: &Xmm) -> u32 {
        let beyond = flags & !(guest >> 7) & (mxcsr::OE | mxcsr::UE);
        if beyond == 0 || flags & mxcsr::PE == 0 {
            return flags;
        }
        let inexact = match self {
            Self::Single(kind, n) => (0..n).any(|i| inexact(kind, n, i, guest, dst, src, false)),
            Self::Double(kind, n) => (0..n).any(|i| inexact(kind, n, i, guest, dst, src, true)),
            _ => true,
        };
        if inexact { flags } else { flags & !mxcsr::PE }
    }

    /// The operations of DPPS and DPPD in turn, for their flags.
    pub(super) fn dot_product(
        self,
        imm: u8,
        dst: &Xmm,
        src: &Xmm,
        mxcsr: &mut u32,
    ) -> Result<(), SimdException> {
        let chosen = |value: &Xmm| {
            let mut out = *value;
            for n in 0..4 {
                let lane = if self == Self::DotSingle(imm) { n } else { n / 2 };
                if imm >> (4 + lane) & 1 == 0 {
                    out.set_dword(n, 0);
                }
            }
            out
        };
        let mut sum = chosen(dst);
        let factor = chosen(src);
        if self == Self::DotSingle(imm) {
            MULPS.execute(&mut sum, &factor, mxcsr)?;
            let copy = sum;
            HADDPS.execute(&mut sum, &copy, mxcsr)?;
            let copy = sum;
            HADDPS.execute(&mut sum, &copy, mxcsr)
        } else {
            MULPD.execute(&mut sum, &factor, mxcsr)?;
            let copy = sum;
            HADDPD.execute(&mut sum, &copy, mxcsr)
        }
    }
}

/// Whether result `i` of `n` is inexact at the precision of its format with an unbounded exponent, which for
/// one operation on doubles the exponent of the x87 is.
fn inexact(kind: Kind, n: usize, i: usize, guest: u32, dst: &Xmm, src: &Xmm, wide: bool) -> bool {
    let rounding = (guest >> 13 & 3) as u16;
    let precision: u16 = if wide { 2 } else { 0 };
    let rounded = Env::new(0x7f | precision << 8 | rounding << 10, 0);
    let exact = Env::new(super::super::x87::CONTROL_DEFAULT, 0);
    let load = |register: &Xmm, lane: usize, wide: bool| {
        let mut out = F80::ZERO;
        let zeros = guest & mxcsr::DAZ != 0;
        if wide {
            let bits = register.quads[lane];
            let flushed = zeros && bits & 0x7ff << 52 == 0;
            x87::load_m64(&exact, &if flushed { bits & 1 << 63 } else { bits }, &mut out);
        } else {
            let bits = register.dword(lane);
            let flushed = zeros && bits & 0xff << 23 == 0;
            x87::load_m32(&exact, &if flushed { bits & 1 << 31 } else { bits }, &mut out);
        }
        out
    };
    let pair = |register: &Xmm, at: usize| (load(register, 2 * at, wide), load(register, 2 * at + 1, wide));
    let (a, b) = match kind {
        Kind::HorizontalAdd | Kind::HorizontalSubtract if i < n / 2 => pair(dst, i),
        Kind::HorizontalAdd | Kind::HorizontalSubtract => pair(src, i - n / 2),
        Kind::Narrow => (load(src, i, true), F80::ONE),
        _ => (load(dst, i, wide), load(src, i, wide)),
    };
    let op = match kind {
        Kind::Add | Kind::HorizontalAdd => x87::add,
        Kind::Subtract | Kind::HorizontalSubtract => x87::sub,
        Kind::AddSubtract if i.is_multiple_of(2) => x87::sub,
        Kind::AddSubtract => x87::add,
        Kind::Multiply | Kind::Narrow => x87::mul,
        Kind::Divide => x87::div,
    };
    let mut out = F80::ZERO;
    if op(&rounded, &a, &b, &mut out) & status::PE != 0 {
        return true;
    }
    // Exact but for its exponent: a lane whose own overflow or underflow is masked is then made to fit.
    let masked = |mask: u32| guest & mask != 0;
    let (word, smallest) = if wide {
        (x87::store_m64(&rounded, &out, &mut 0), 0x3fff - 1022)
    } else {
        (x87::store_m32(&rounded, &out, &mut 0), 0x3fff - 126)
    };
    let tiny = out.mantissa != 0 && out.exponent() < smallest;
    word & status::OE != 0 && masked(mxcsr::OM)
        || word & status::UE != 0 && masked(mxcsr::UM)
        || tiny && masked(mxcsr::UM) && masked(mxcsr::FZ)
}
