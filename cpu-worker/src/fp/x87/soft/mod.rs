//! x87 arithmetic in integers, for hosts without an x87 and as the slow twin of [`super::host`].
//!
//! The functions have the signatures of the host's kernels. Of the status word they give the exception
//! flags, C1, and the condition codes of comparisons. Written here rather than taken from a library because the
//! precision control, C1, the denormal flag and the unmasked responses are in none. The transcendental
//! functions, FPREM, FSCALE, FXTRACT and packed decimals do not exist yet, so that this cannot replace the
//! host's kernels so far.

mod convert;
mod round;

pub use convert::*;

use super::{Env, status};
use crate::fp::F80;
use crate::fp::f80::Class;
use round::{Finite, Mode, cut, inexact, precision, round, shift_right};

const ZERO: F80 = F80::ZERO;

/// Whether a NaN is signalling.
fn signals(value: F80) -> bool {
    value.class() == Class::Nan && value.mantissa >> 62 & 1 == 0
}

fn quiet(value: F80) -> F80 {
    F80::new(value.sign_exponent, value.mantissa | 1 << 62)
}

fn with_sign(value: F80, negative: bool) -> F80 {
    F80::new(
        value.sign_exponent & 0x7fff | u16::from(negative) << 15,
        value.mantissa,
    )
}

/// Invalid operation: the flag, and the indefinite if it is masked.
fn invalid(env: &Env, unchanged: F80) -> (F80, u16) {
    let masked = env.control & status::IE != 0;
    (if masked { F80::INDEFINITE } else { unchanged }, status::IE)
}

/// The answer to operands of which one is a NaN or unsupported (SDM volume 1, table 4-7), or nothing.
fn special(env: &Env, a: F80, b: F80) -> Option<(F80, u16)> {
    if a.class() == Class::Unsupported || b.class() == Class::Unsupported {
        return Some(invalid(env, a));
    }
    let nans = (a.class() == Class::Nan, b.class() == Class::Nan);
    let chosen = match nans {
        (false, false) => return None,
        (true, false) => a,
        (false, true) => b,
        // A quiet one before a signalling one, else the larger significand, else the positive one.
        (true, true) if signals(a) != signals(b) => {
            if signals(a) {
                b
            } else {
                a
            }
        }
        (true, true) if a.mantissa != b.mantissa => {
            if a.mantissa > b.mantissa {
                a
            } else {
                b
            }
        }
        (true, true) => {
            if a.is_negative() {
                b
            } else {
                a
            }
        }
    };
    let signalling = signals(a) || signals(b);
    if signalling && env.control & status::IE == 0 {
        return Some((a, status::IE));
    }
    Some((quiet(chosen), if signalling { status::IE } else { 0 }))
}

/// DE if an operand is denormal.
fn denormal(values: &[F80]) -> u16 {
    if values.iter().any(|v| v.class() == Class::Denormal) {
        status::DE
    } else {
        0
    }
}

/// The frame of an operation on two numbers: NaNs before it, an unmasked denormal before it. The result goes
/// to `out`; `dst` is what stays if nothing is to be stored.
fn operate(
    env: &Env,
    dst: F80,
    (a, b): (F80, F80),
    out: &mut F80,
    f: impl FnOnce(F80, F80) -> (F80, u16),
) -> u16 {
    let (result, flags) = match special(env, a, b) {
        Some((_, flags)) if flags & !env.control != 0 => (dst, flags),
        Some(answer) => answer,
        None => {
            let (result, flags) = f(a, b);
            let before = denormal(&[a, b]);
            if flags & status::IE != 0 {
                (
                    if env.control & status::IE != 0 {
                        result
                    } else {
                        dst
                    },
                    flags,
                )
            } else if flags & status::ZE != 0 {
                (
                    if env.control & status::ZE != 0 {
                        result
                    } else {
                        dst
                    },
                    flags,
                )
            } else if before & !env.control != 0 {
                (dst, before)
            } else {
                (result, flags | before)
            }
        }
    };
    *out = result;
    flags
}

/// FADD.
pub fn add(env: &Env, dst: &F80, src: &F80, out: &mut F80) -> u16 {
    operate(env, *dst, (*dst, *src), out, |a, b| sum(env, a, b))
}

/// FSUB.
pub fn sub(env: &Env, dst: &F80, src: &F80, out: &mut F80) -> u16 {
    operate(env, *dst, (*dst, *src), out, |a, b| sum(env, a, b.negate()))
}

/// FSUBR.
pub fn subr(env: &Env, dst: &F80, src: &F80, out: &mut F80) -> u16 {
    operate(env, *dst, (*src, *dst), out, |a, b| sum(env, a, b.negate()))
}

/// FMUL.
pub fn mul(env: &Env, dst: &F80, src: &F80, out: &mut F80) -> u16 {
    operate(env, *dst, (*dst, *src), out, |a, b| product(env, a, b))
}

/// FDIV.
pub fn div(env: &Env, dst: &F80, src: &F80, out: &mut F80) -> u16 {
    operate(env, *dst, (*dst, *src), out, |a, b| quotient(env, a, b))
}

/// FDIVR.
pub fn divr(env: &Env, dst: &F80, src: &F80, out: &mut F80) -> u16 {
    operate(env, *dst, (*src, *dst), out, |a, b| quotient(env, a, b))
}

fn sum(env: &Env, a: F80, b: F80) -> (F80, u16) {
    use Class::{Infinity, Zero};
    let opposite = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Infinity, Infinity) if opposite => (F80::INDEFINITE, status::IE),
        (Infinity, _) => (a, 0),
        (_, Infinity) => (b, 0),
        (Zero, Zero) if opposite => (with_sign(ZERO, Mode::of(env) == Mode::Down), 0),
        (Zero, Zero) => (a, 0),
        (Zero, _) => round(env, Finite::of(b), precision(env)),
        (_, Zero) => round(env, Finite::of(a), precision(env)),
        _ => {
            let (mut x, mut y) = (Finite::of(a), Finite::of(b));
            if (x.exponent, x.significand) < (y.exponent, y.significand) {
                core::mem::swap(&mut x, &mut y);
            }
            // Room for a carry; the operands fill 64 of 128 bits.
            let high = x.significand >> 1;
            let low = shift_right(y.significand >> 1, (x.exponent - y.exponent) as u32);
            let total = if opposite { high - low } else { high + low };
            match Finite::normalised(x.negative, x.exponent + 1, total) {
                Some(value) => round(env, value, precision(env)),
                None => (with_sign(ZERO, Mode::of(env) == Mode::Down), 0),
            }
        }
    }
}

fn product(env: &Env, a: F80, b: F80) -> (F80, u16) {
    use Class::{Infinity, Zero};
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Infinity, Zero) | (Zero, Infinity) => (F80::INDEFINITE, status::IE),
        (Infinity, _) => (with_sign(a, negative), 0),
        (_, Infinity) => (with_sign(b, negative), 0),
        (Zero, _) | (_, Zero) => (with_sign(ZERO, negative), 0),
        _ => {
            let (x, y) = (Finite::of(a), Finite::of(b));
            let significand = (x.significand >> 64) * (y.significand >> 64);
            match Finite::normalised(negative, x.exponent + y.exponent + 1, significand) {
                Some(value) => round(env, value, precision(env)),
                None => (with_sign(ZERO, negative), 0),
            }
        }
    }
}

fn quotient(env: &Env, a: F80, b: F80) -> (F80, u16) {
    use Class::{Infinity, Zero};
    let negative = a.is_negative() != b.is_negative();
    match (a.class(), b.class()) {
        (Infinity, Infinity) | (Zero, Zero) => (F80::INDEFINITE, status::IE),
        (Infinity, _) => (with_sign(a, negative), 0),
        (_, Infinity) | (Zero, _) => (with_sign(ZERO, negative), 0),
        (_, Zero) => (F80::new(u16::from(negative) << 15 | 0x7fff, 1 << 63), status::ZE),
        _ => {
            let (x, y) = (Finite::of(a), Finite::of(b));
            let (high, divisor) = (x.significand >> 1, y.significand >> 64);
            // 63 or 64 bits of quotient, then as many again from the remainder.
            let first = high / divisor;
            let rest = (high % divisor) << 63;
            let second = rest / divisor;
            let sticky = u128::from(rest % divisor != 0);
            let significand = first << 64 | second << 1 | sticky;
            match Finite::normalised(negative, x.exponent - y.exponent, significand) {
                Some(value) => round(env, value, precision(env)),
                None => (with_sign(ZERO, negative), 0),
            }
        }
    }
}

/// FSQRT.
pub fn sqrt(env: &Env, a: &F80, out: &mut F80) -> u16 {
    operate(env, *a, (*a, *a), out, |a, _| match a.class() {
        Class::Zero => (a, 0),
        _ if a.is_negative() => (F80::INDEFINITE, status::IE),
        Class::Infinity => (a, 0),
        _ => {
            let x = Finite::of(a);
            // An even exponent, so that the root of the significand is that of the number.
            let (exponent, radicand) = if x.exponent & 1 == 0 {
                (x.exponent / 2, x.significand >> 1)
            } else {
                ((x.exponent - 1) / 2, x.significand)
            };
            let root = radicand.isqrt();
            let rest = radicand - root * root;
            // The next bit of the root, and whether anything is left after it.
            let (bit, sticky) = (u128::from(rest > root), u128::from(rest != 0));
            let significand = root << 64 | bit << 63 | sticky;
            match Finite::normalised(false, exponent, significand) {
                Some(value) => round(env, value, precision(env)),
                None => (ZERO, 0),
            }
        }
    })
}

/// FRNDINT.
pub fn rndint(env: &Env, a: &F80, out: &mut F80) -> u16 {
    operate(env, *a, (*a, *a), out, |a, _| {
        if matches!(a.class(), Class::Zero | Class::Infinity) {
            return (a, 0);
        }
        let x = Finite::of(a);
        if x.exponent >= 63 {
            return (a, 0);
        }
        let sign = u16::from(x.negative) << 15;
        if x.exponent < 0 {
            let dropped = shift_right(x.significand, (-1 - x.exponent) as u32);
            let up = Mode::of(env).away(x.negative, dropped, false);
            let result = if up {
                F80::new(sign | 0x3fff, 1 << 63)
            } else {
                F80::new(sign, 0)
            };
            return (result, status::PE | if up { status::C1 } else { 0 });
        }
        let rounded = cut(x.significand, x.exponent as u32 + 1, Mode::of(env), x.negative);
        let exponent = (x.exponent + 0x3fff + i32::from(rounded.carried)) as u16;
        let mantissa = if rounded.carried {
            1 << 63
        } else {
            (rounded.kept >> 64) as u64
        };
        (F80::new(sign | exponent, mantissa), inexact(&rounded))
    })
}

/// FCOM: any NaN is an invalid operand.
pub fn com(env: &Env, a: &F80, b: &F80) -> u16 {
    compare(env, *a, *b, true)
}

/// FUCOM: only signalling NaNs and unsupported operands are.
pub fn ucom(env: &Env, a: &F80, b: &F80) -> u16 {
    compare(env, *a, *b, false)
}

/// FTST.
pub fn tst(env: &Env, a: &F80) -> u16 {
    compare(env, *a, ZERO, true)
}

fn compare(_: &Env, a: F80, b: F80, any_nan: bool) -> u16 {
    use core::cmp::Ordering;
    let unsupported = a.class() == Class::Unsupported || b.class() == Class::Unsupported;
    if unsupported || a.class() == Class::Nan || b.class() == Class::Nan {
        let invalid = unsupported || any_nan || signals(a) || signals(b);
        let flags = if invalid { status::IE } else { 0 };
        return flags | status::C0 | status::C2 | status::C3;
    }
    // As integers, zeros alike: pseudo-denormals have the exponent of the smallest normal number.
    let key = |v: F80| {
        let exponent = if v.class() == Class::Denormal {
            v.exponent().max(1)
        } else {
            v.exponent()
        };
        let magnitude = (i128::from(exponent) << 64) | i128::from(v.mantissa);
        match v.class() {
            Class::Zero => 0,
            _ if v.is_negative() => -magnitude,
            _ => magnitude,
        }
    };
    let codes = match key(a).cmp(&key(b)) {
        Ordering::Less => status::C0,
        Ordering::Equal => status::C3,
        Ordering::Greater => 0,
    };
    codes | denormal(&[a, b])
}
