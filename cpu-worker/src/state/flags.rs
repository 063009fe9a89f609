//! RFLAGS with lazily evaluated arithmetic flags.
//!
//! An ALU operation stores its sign-extended result, and the carries it computed anyway, in one word; ZF, SF
//! and PF come from the result when somebody looks. Remembering the operation and its operands (so that
//! CF, AF and OF would be lazy too) was rejected: it makes each reader a switch, and INC, DEC and the shifts
//! special cases, for four host instructions saved.

use crate::exec::Int;

/// Flags by their bit number in RFLAGS (SDM vol. 1, 3.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the SDM's")]
pub enum Flag {
    Cf = 0,
    Pf = 2,
    Af = 4,
    Zf = 6,
    Sf = 7,
    Tf = 8,
    If = 9,
    Df = 10,
    Of = 11,
    Nt = 14,
    Rf = 16,
    Vm = 17,
    Ac = 18,
    Vif = 19,
    Vip = 20,
    Id = 21,
}

/// CF, PF, AF, ZF, SF and OF.
pub const ARITHMETIC: u64 = 0x8D5;
/// All bits of RFLAGS that exist here, without the fixed bit 1.
pub const DEFINED: u64 = 0x3F_7FD5;

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// RFLAGS.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Flags {
    /// Last result, sign-extended to 64 bits: ZF, and with `aux` SF and PF.
    result: u64,
    /// CF, AF and OF at their places; at the places of PF and SF, whether the value read from `result` is
    /// to be inverted.
    aux: u64,
    /// All other flags at their places.
    system: u64,
}

impl Flags {
    /// Where the flags that are not arithmetic lie, for translated code.
    pub(crate) const SYSTEM_OFFSET: usize = core::mem::offset_of!(Self, system);

    /// Where the last result and its corrections lie, for a debugger.
    pub(crate) const ARITHMETIC_OFFSETS: [usize; 2] = [
        core::mem::offset_of!(Self, result),
        core::mem::offset_of!(Self, aux),
    ];

    /// Flags from an RFLAGS image; bits that do not exist are dropped.
    pub fn from_bits(bits: u64) -> Self {
        let mut f = Self {
            result: 0,
            aux: 0,
            system: bits & DEFINED & !ARITHMETIC,
        };
        f.set_arithmetic(bits);
        f
    }

    /// The RFLAGS image, bit 1 set.
    #[inline]
    pub fn bits(&self) -> u64 {
        self.system | 2 | self.arithmetic()
    }

    /// CF, PF, AF, ZF, SF and OF at their places.
    #[inline]
    pub fn arithmetic(&self) -> u64 {
        (self.aux & (CF | AF | OF))
            | u64::from(self.zf()) << 6
            | u64::from(self.sf()) << 7
            | u64::from(self.pf()) << 2
    }

    /// Sets CF, PF, AF, ZF, SF and OF from an RFLAGS image; other bits of it are ignored.
    #[inline]
    pub fn set_arithmetic(&mut self, bits: u64) {
        let zero = bits >> 6 & 1 != 0;
        // A result of 0 reads as PF = 1, SF = 0; a result of 1 as PF = 0, SF = 0.
        self.result = u64::from(!zero);
        let flip_pf = (bits & PF) ^ if zero { PF } else { 0 };
        self.aux = (bits & (CF | AF | OF | SF)) | flip_pf;
    }

    /// Whether `flag` is set.
    #[inline]
    pub fn get(&self, flag: Flag) -> bool {
        match flag {
            Flag::Zf => self.zf(),
            Flag::Sf => self.sf(),
            Flag::Pf => self.pf(),
            Flag::Cf | Flag::Af | Flag::Of => self.aux >> flag as u8 & 1 != 0,
            other => self.system >> other as u8 & 1 != 0,
        }
    }

    /// Sets or clears `flag`.
    #[inline]
    pub fn set(&mut self, flag: Flag, on: bool) {
        let bit = 1u64 << flag as u8;
        match flag {
            Flag::Cf | Flag::Af | Flag::Of => self.aux = self.aux & !bit | u64::from(on) << flag as u8,
            Flag::Zf | Flag::Sf | Flag::Pf => {
                let all = self.arithmetic() & !bit | u64::from(on) << flag as u8;
                self.set_arithmetic(all);
            }
            other => self.system = self.system & !bit | u64::from(on) << other as u8,
        }
    }

    /// The flags that are not arithmetic, at their places.
    #[inline]
    pub fn system(&self) -> u64 {
        self.system
    }

    /// Replaces the non-arithmetic flags under `mask` by those of `bits`.
    pub fn set_system(&mut self, bits: u64, mask: u64) {
        let mask = mask & DEFINED & !ARITHMETIC;
        self.system = self.system & !mask | bits & mask;
    }

    /// I/O privilege level, 0–3.
    #[inline]
    pub fn iopl(&self) -> u8 {
        (self.system >> 12 & 3) as u8
    }

    /// Zero flag.
    #[inline]
    pub fn zf(&self) -> bool {
        self.result == 0
    }

    /// Sign flag.
    #[inline]
    pub fn sf(&self) -> bool {
        (self.result >> 63 ^ self.aux >> 7) & 1 != 0
    }

    /// Parity flag.
    #[inline]
    pub fn pf(&self) -> bool {
        let even = (self.result as u8).count_ones() + 1;
        (even ^ (self.aux >> 2) as u32) & 1 != 0
    }

    /// Carry flag.
    #[inline]
    pub fn cf(&self) -> bool {
        self.aux & CF != 0
    }

    /// Overflow flag.
    #[inline]
    pub fn of(&self) -> bool {
        self.aux & OF != 0
    }

    /// Sets the flags of an addition `a + b (+ carry) = r`.
    #[inline(always)]
    pub fn set_add<T: Int>(&mut self, a: T, b: T, r: T) {
        let (a, b, r64) = (a.to_u64(), b.to_u64(), r.to_u64());
        let carries = (a & b) | ((a | b) & !r64);
        self.result = r.sext();
        self.aux = carry_bits::<T>(carries);
    }

    /// Sets the flags of a subtraction `a - b (- borrow) = r`.
    #[inline(always)]
    pub fn set_sub<T: Int>(&mut self, a: T, b: T, r: T) {
        let (a, b, r64) = (a.to_u64(), b.to_u64(), r.to_u64());
        let borrows = (!a & b) | ((!a | b) & r64);
        self.result = r.sext();
        self.aux = carry_bits::<T>(borrows);
    }

    /// Sets the flags of a logical operation: CF = OF = AF = 0. (AF is undefined there; silicon clears it.)
    #[inline(always)]
    pub fn set_logic<T: Int>(&mut self, r: T) {
        self.result = r.sext();
        self.aux = 0;
    }

    /// Sets the result flags from `r`, and CF, AF and OF as told.
    #[inline(always)]
    pub fn set_explicit<T: Int>(&mut self, r: T, cf: bool, af: bool, of: bool) {
        self.result = r.sext();
        self.aux = u64::from(cf) | u64::from(af) << 4 | u64::from(of) << 11;
    }

    /// Condition code `cc` of Jcc, SETcc and CMOVcc, 0–15 (SDM vol. 1, appendix B).
    #[inline(always)]
    pub fn condition(&self, cc: u8) -> bool {
        let base = match cc >> 1 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() | self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() | (self.sf() != self.of()),
        };
        base != (cc & 1 != 0)
    }
}

/// CF, AF and OF from the vector of carries out of each bit.
#[inline(always)]
fn carry_bits<T: Int>(carries: u64) -> u64 {
    let top = carries >> (T::BITS - 1);
    let below = carries >> (T::BITS - 2);
    (top & 1) | (carries << 1 & AF) | ((top ^ below) & 1) << 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_arithmetic_flags_survives_a_round_trip() {
        for n in 0..64u64 {
            let bits = n & 1 | (n >> 1 & 1) << 2 | (n >> 2 & 1) << 4 | (n >> 3 & 3) << 6 | (n >> 5) << 11;
            let f = Flags::from_bits(bits);
            assert_eq!(f.arithmetic(), bits);
            for flag in [Flag::Cf, Flag::Pf, Flag::Af, Flag::Zf, Flag::Sf, Flag::Of] {
                for on in [false, true] {
                    let mut g = f;
                    g.set(flag, on);
                    let bit = 1 << flag as u8;
                    assert_eq!(g.arithmetic(), bits & !bit | if on { bit } else { 0 });
                }
            }
        }
    }

    #[test]
    fn byte_additions_and_subtractions_agree_with_wide_arithmetic() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let mut f = Flags::from_bits(0);
                f.set_add(a, b, a.wrapping_add(b));
                assert_eq!(f.cf(), u16::from(a) + u16::from(b) > 255);
                assert_eq!(f.of(), (a as i8).checked_add(b as i8).is_none());
                assert_eq!(f.get(Flag::Af), (a & 15) + (b & 15) > 15);
                f.set_sub(a, b, a.wrapping_sub(b));
                assert_eq!(f.cf(), a < b);
                assert_eq!(f.of(), (a as i8).checked_sub(b as i8).is_none());
                assert_eq!(f.get(Flag::Af), (a & 15) < (b & 15));
                assert_eq!(f.zf(), a == b);
                assert_eq!(f.sf(), a.wrapping_sub(b) >> 7 != 0);
                assert_eq!(f.pf(), a.wrapping_sub(b).count_ones() % 2 == 0);
            }
        }
    }
}
