//! Loads and stores that convert.

use super::round::{Cut, Finite, Mode, cut, inexact, shift_right};
use super::{quiet, signals};
use crate::fp::F80;
use crate::fp::f80::Class;
use crate::fp::x87::{Env, status};

/// A format of IEEE 754 in at most 64 bits.
#[derive(Clone, Copy)]
struct Format {
    /// Bits of the significand, the leading one included.
    precision: u32,
    /// Bits of the exponent.
    exponent: u32,
}

const SINGLE: Format = Format {
    precision: 24,
    exponent: 8,
};
const DOUBLE: Format = Format {
    precision: 53,
    exponent: 11,
};

impl Format {
    const fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    const fn fraction(self) -> u32 {
        self.precision - 1
    }

    fn load(self, env: &Env, bits: u64, out: &mut F80) -> u16 {
        let negative = bits >> (self.fraction() + self.exponent) & 1;
        let sign = (negative as u16) << 15;
        let biased = (bits >> self.fraction()) as u32 & ((1 << self.exponent) - 1);
        let fraction = (bits & ((1 << self.fraction()) - 1)) << (64 - self.precision);
        if biased == (1 << self.exponent) - 1 {
            let value = F80::new(sign | 0x7fff, 1 << 63 | fraction);
            if signals(value) {
                if env.control & status::IE != 0 {
                    *out = quiet(value);
                }
                return status::IE;
            }
            *out = value;
            return 0;
        }
        if biased != 0 {
            *out = F80::new(
                sign | (biased as i32 - self.bias() + 0x3fff) as u16,
                1 << 63 | fraction,
            );
            return 0;
        }
        if fraction == 0 {
            *out = F80::new(sign, 0);
            return 0;
        }
        let shift = fraction.leading_zeros();
        let exponent = 1 - self.bias() - shift as i32 + 0x3fff;
        *out = F80::new(sign | exponent as u16, fraction << shift);
        status::DE
    }

    /// The bits to store and the flags; no bits if an unmasked exception keeps memory as it is.
    fn store(self, env: &Env, a: F80) -> (Option<u64>, u16) {
        let masked = |flag: u16| env.control & flag != 0;
        let sign = u64::from(a.is_negative()) << (self.fraction() + self.exponent);
        let top = ((1u64 << self.exponent) - 1) << self.fraction();
        let invalid = |bits: u64| (masked(status::IE).then_some(bits), status::IE);
        match a.class() {
            Class::Zero => return (Some(sign), 0),
            Class::Infinity => return (Some(sign | top), 0),
            Class::Unsupported => {
                let indefinite = 1 << (self.fraction() + self.exponent) | top | 1 << (self.fraction() - 1);
                return invalid(indefinite);
            }
            Class::Nan => {
                let kept = quiet(a).mantissa << 1 >> (65 - self.precision);
                let bits = sign | top | kept;
                return if signals(a) {
                    invalid(bits)
                } else {
                    (Some(bits), 0)
                };
            }
            Class::Normal | Class::Denormal => {}
        }
        let value = Finite::of(a);
        let mode = Mode::of(env);
        let mut rounded = cut(value.significand, self.precision, mode, value.negative);
        let smallest = 1 - self.bias();
        let mut exponent = value.exponent + i32::from(rounded.carried);
        let mut flags = 0;
        if exponent < smallest {
            if !masked(status::UE) {
                return (None, status::UE);
            }
            let shifted = shift_right(value.significand, (smallest - value.exponent) as u32);
            rounded = cut(shifted, self.precision, mode, value.negative);
            if rounded.inexact {
                flags |= status::UE;
            }
            return (Some(sign | self.field(&rounded)), flags | inexact(&rounded));
        }
        if value.exponent < smallest {
            exponent = smallest;
        }
        if exponent > self.bias() {
            flags |= status::OE;
            if !masked(status::OE) {
                return (None, flags);
            }
            let infinite = mode.away(value.negative, u128::MAX, true);
            let bits = if infinite { top } else { top - 1 };
            return (
                Some(sign | bits),
                flags | status::PE | if infinite { status::C1 } else { 0 },
            );
        }
        let biased = ((exponent + self.bias()) as u64) << self.fraction();
        let fraction = self.field(&rounded) & ((1 << self.fraction()) - 1);
        (Some(sign | biased | fraction), flags | inexact(&rounded))
    }

    /// The significand of a cut, its leading bit at the place of the exponent's lowest.
    fn field(self, rounded: &Cut) -> u64 {
        (rounded.kept >> (128 - self.precision)) as u64
    }
}

/// FLD m32.
pub fn load_m32(env: &Env, src: &u32, out: &mut F80) -> u16 {
    SINGLE.load(env, (*src).into(), out)
}

/// FLD m64.
pub fn load_m64(env: &Env, src: &u64, out: &mut F80) -> u16 {
    DOUBLE.load(env, *src, out)
}

/// FST m32.
pub fn store_m32(env: &Env, a: &F80, out: &mut u32) -> u16 {
    let (bits, flags) = SINGLE.store(env, *a);
    if let Some(bits) = bits {
        *out = bits as u32;
    }
    flags
}

/// FST m64.
pub fn store_m64(env: &Env, a: &F80, out: &mut u64) -> u16 {
    let (bits, flags) = DOUBLE.store(env, *a);
    if let Some(bits) = bits {
        *out = bits;
    }
    flags
}

fn load_integer(value: i64, out: &mut F80) -> u16 {
    let magnitude = value.unsigned_abs();
    *out = if magnitude == 0 {
        F80::ZERO
    } else {
        let shift = magnitude.leading_zeros();
        F80::new(
            u16::from(value < 0) << 15 | (0x3fff + 63 - shift) as u16,
            magnitude << shift,
        )
    };
    0
}

/// FILD m16.
pub fn load_i16(_: &Env, src: &u16, out: &mut F80) -> u16 {
    load_integer((*src as i16).into(), out)
}

/// FILD m32.
pub fn load_i32(_: &Env, src: &u32, out: &mut F80) -> u16 {
    load_integer((*src as i32).into(), out)
}

/// FILD m64.
pub fn load_i64(_: &Env, src: &u64, out: &mut F80) -> u16 {
    load_integer(*src as i64, out)
}

/// The integer of `bits` bits to store and the flags.
fn store_integer(env: &Env, a: F80, mode: Mode, bits: u32) -> (Option<u64>, u16) {
    let indefinite = 1u64 << (bits - 1);
    let invalid = ((env.control & status::IE != 0).then_some(indefinite), status::IE);
    match a.class() {
        Class::Zero => return (Some(0), 0),
        Class::Infinity | Class::Nan | Class::Unsupported => return invalid,
        Class::Normal | Class::Denormal => {}
    }
    let value = Finite::of(a);
    if value.exponent >= bits as i32 {
        return invalid;
    }
    // The integer part in the upper 64 bits.
    let (whole, dropped) = if value.exponent < 0 {
        (0, shift_right(value.significand, (-1 - value.exponent) as u32))
    } else {
        let kept = value.exponent as u32 + 1;
        (value.significand >> (128 - kept), value.significand << kept)
    };
    let up = mode.away(value.negative, dropped, whole & 1 != 0);
    let magnitude = whole + u128::from(up);
    if magnitude > u128::from(indefinite) - u128::from(!value.negative) {
        return invalid;
    }
    let integer = if value.negative {
        (magnitude as u64).wrapping_neg()
    } else {
        magnitude as u64
    };
    let flags = inexact(&Cut {
        kept: 0,
        carried: false,
        inexact: dropped != 0,
        up,
    });
    (Some(integer), flags)
}

macro_rules! store_integer {
    ($($name:ident $mode:expr, $ty:ty, $insn:literal;)*) => {$(
        #[doc = $insn]
        pub fn $name(env: &Env, a: &F80, out: &mut $ty) -> u16 {
            let (integer, flags) = store_integer(env, *a, $mode(env), <$ty>::BITS);
            if let Some(integer) = integer {
                *out = integer as $ty;
            }
            flags
        }
    )*};
}

store_integer! {
    store_i16 Mode::of, u16, "FIST m16.";
    store_i32 Mode::of, u32, "FIST m32.";
    store_i64 Mode::of, u64, "FIST m64.";
    truncate_i16 truncated, u16, "FISTTP m16.";
    truncate_i32 truncated, u32, "FISTTP m32.";
    truncate_i64 truncated, u64, "FISTTP m64.";
}

fn truncated(_: &Env) -> Mode {
    Mode::Zero
}
