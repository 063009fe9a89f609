//! Numbers taken apart, and rounding them back into 80 bits.

use crate::fp::F80;
use crate::fp::x87::{Env, status};

/// The exponent of the smallest normal number.
const EXPONENT_MIN: i32 = -16382;
/// The exponent of the largest.
const EXPONENT_MAX: i32 = 16383;
/// What an unmasked overflow or underflow adds to or takes from the exponent (SDM volume 1, 8.5.4).
const BIAS_ADJUST: i32 = 0x6000;

/// A finite number other than zero: `significand / 2^127 * 2^exponent`, bit 127 of the significand set. Bits
/// that do not fit are gathered in its lowest one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finite {
    pub negative: bool,
    pub exponent: i32,
    pub significand: u128,
}

impl Finite {
    /// The value of a normal or denormal number.
    pub fn of(value: F80) -> Self {
        let biased = i32::from(value.exponent()).max(1);
        let shift = value.mantissa.leading_zeros();
        Self {
            negative: value.is_negative(),
            exponent: biased - 0x3fff - shift as i32,
            significand: u128::from(value.mantissa << shift) << 64,
        }
    }

    /// The number with its leading bit where it belongs. `None` for zero.
    pub fn normalised(negative: bool, exponent: i32, significand: u128) -> Option<Self> {
        let shift = significand.leading_zeros();
        (significand != 0).then(|| Self {
            negative,
            exponent: exponent - shift as i32,
            significand: significand << shift,
        })
    }
}

/// How to round: the field of the control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Nearest,
    Down,
    Up,
    Zero,
}

impl Mode {
    pub fn of(env: &Env) -> Self {
        match env.control >> 10 & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }

    /// Whether to round away from zero, given the bits dropped as a fraction of 2^128 and the last bit kept.
    pub fn away(self, negative: bool, dropped: u128, odd: bool) -> bool {
        match self {
            Self::Nearest => dropped > 1 << 127 || dropped == 1 << 127 && odd,
            Self::Down => negative && dropped != 0,
            Self::Up => !negative && dropped != 0,
            Self::Zero => false,
        }
    }
}

/// Bits of significand that the precision control keeps.
pub(super) fn precision(env: &Env) -> u32 {
    match env.control >> 8 & 3 {
        0 => 24,
        2 => 53,
        _ => 64,
    }
}

/// A significand right by `by` bits, what falls out gathered in the lowest bit.
pub(super) fn shift_right(significand: u128, by: u32) -> u128 {
    match by {
        0 => significand,
        1..=127 => significand >> by | u128::from(significand << (128 - by) != 0),
        _ => u128::from(significand != 0),
    }
}

/// A significand cut to its upper `bits`.
pub(super) struct Cut {
    /// The bits kept, in the upper places; zero if rounding carried out of the top.
    pub kept: u128,
    pub carried: bool,
    pub inexact: bool,
    pub up: bool,
}

pub(super) fn cut(significand: u128, bits: u32, mode: Mode, negative: bool) -> Cut {
    let unit = 1u128 << (128 - bits);
    let kept = significand & !(unit - 1);
    let dropped = significand << bits;
    let up = mode.away(negative, dropped, significand & unit != 0);
    let (kept, carried) = if up {
        kept.overflowing_add(unit)
    } else {
        (kept, false)
    };
    Cut {
        kept,
        carried,
        inexact: dropped != 0,
        up,
    }
}

/// Rounds to the precision control and gives the flags, C1 among them.
pub(super) fn round(env: &Env, value: Finite, bits: u32) -> (F80, u16) {
    let mode = Mode::of(env);
    let unmasked = |flag: u16| env.control & flag == 0;
    let sign = u16::from(value.negative) << 15;
    let mut rounded = cut(value.significand, bits, mode, value.negative);
    let mut exponent = value.exponent + i32::from(rounded.carried);
    let mut flags = 0;
    // Tiny after rounding, as if the exponent were unbounded.
    if exponent < EXPONENT_MIN {
        if unmasked(status::UE) {
            flags |= status::UE;
            exponent += BIAS_ADJUST;
        } else {
            let shifted = shift_right(value.significand, (EXPONENT_MIN - value.exponent) as u32);
            rounded = cut(shifted, bits, mode, value.negative);
            let mantissa = (rounded.kept >> 64) as u64;
            flags |= inexact(&rounded);
            if rounded.inexact {
                flags |= status::UE;
            }
            return (F80::new(sign | u16::from(mantissa >> 63 != 0), mantissa), flags);
        }
    } else if value.exponent < EXPONENT_MIN {
        // Rounding made it normal.
        exponent = EXPONENT_MIN;
    }
    if exponent > EXPONENT_MAX {
        flags |= status::OE;
        if unmasked(status::OE) {
            exponent -= BIAS_ADJUST;
        } else {
            let infinite = mode.away(value.negative, u128::MAX, true);
            let result = if infinite {
                F80::new(sign | 0x7fff, 1 << 63)
            } else {
                F80::new(sign | 0x7ffe, u64::MAX << (64 - bits))
            };
            return (result, flags | status::PE | if infinite { status::C1 } else { 0 });
        }
    }
    let mantissa = if rounded.carried {
        1 << 63
    } else {
        (rounded.kept >> 64) as u64
    };
    (
        F80::new(sign | (exponent + 0x3fff) as u16, mantissa),
        flags | inexact(&rounded),
    )
}

/// PE, and C1 if the magnitude grew.
pub(super) fn inexact(cut: &Cut) -> u16 {
    let mut flags = 0;
    if cut.inexact {
        flags |= status::PE;
    }
    if cut.up {
        flags |= status::C1;
    }
    flags
}
