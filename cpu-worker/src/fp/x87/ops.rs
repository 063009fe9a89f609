//! The instructions on the register stack: a kernel, the stack checks around it, the pops after it.
//!
//! A store to memory comes in two steps, [`Stored`] and [`Unit::commit`]: the write to guest memory lies
//! between them and may fault, and then nothing of the unit has changed.

use super::{Env, Unit, kernel, status};
use crate::fp::F80;
use crate::fp::f80::Class;

/// A comparison kernel.
pub type Compare = fn(&Env, &F80, &F80) -> u16;

/// The first half of a store instruction.
#[derive(Clone, Copy, Debug)]
pub struct Stored<T> {
    /// What to write, or nothing: an unmasked exception leaves memory alone.
    pub value: Option<T>,
    word: u16,
    underflow: bool,
    pop: bool,
}

impl Unit {
    #[inline]
    fn env(&self) -> Env {
        Env::new(self.control, self.status)
    }

    /// `ST(dst) = ST(dst) op ST(src)`, then `pops` pops. The kernel sees ST(dst) as its first operand.
    #[inline]
    pub fn arith(&mut self, op: fn(&Env, &F80, &F80, &mut F80) -> u16, dst: u8, src: u8, pops: u8) {
        if self.is_empty(dst) || self.is_empty(src) {
            if self.stack_fault(false) {
                self.set_st(dst, F80::INDEFINITE);
                self.pop_times(pops);
            }
            return;
        }
        let mut out = self.st(dst);
        let word = op(&self.env(), &self.st(dst), &self.st(src), &mut out);
        self.merge(word, status::C1);
        if !self.faults(word) {
            self.set_st(dst, out);
            self.pop_times(pops);
        }
    }

    /// `ST(0) = ST(0) op memory`.
    #[inline]
    pub fn arith_memory<T>(&mut self, op: fn(&Env, &F80, &T, &mut F80) -> u16, src: &T) {
        if self.is_empty(0) {
            if self.stack_fault(false) {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        let mut out = self.st(0);
        let word = op(&self.env(), &self.st(0), src, &mut out);
        self.merge(word, status::C1);
        if !self.faults(word) {
            self.set_st(0, out);
        }
    }

    /// `ST(0) = op(ST(0))`: FSQRT, FRNDINT, F2XM1, FSIN, FCOS. `codes` are the condition codes it defines.
    pub fn unary(&mut self, op: fn(&Env, &F80, &mut F80) -> u16, codes: u16) {
        if self.is_empty(0) {
            self.status &= !codes;
            if self.stack_fault(false) {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        let mut out = self.st(0);
        let word = op(&self.env(), &self.st(0), &mut out);
        self.merge(word, codes);
        if !self.faults(word) {
            self.set_st(0, out);
        }
    }

    /// FABS and FCHS, which look at the tag only.
    pub fn sign(&mut self, op: fn(F80) -> F80) {
        if self.is_empty(0) {
            if self.stack_fault(false) {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        self.status &= !status::C1;
        self.set_st(0, op(self.st(0)));
    }

    /// `ST(0) = op(ST(0), ST(1))` without a pop: FSCALE (`codes` C1), FPREM and FPREM1 (all). A quotient is
    /// reported in C0 and C3 only if there is one: they stay if the result is a NaN.
    pub fn top_two(&mut self, op: fn(&Env, &F80, &F80, &mut F80) -> u16, codes: u16) {
        let unquotiented = codes & (status::C1 | status::C2);
        if self.is_empty(0) || self.is_empty(1) {
            self.status &= !unquotiented;
            if self.stack_fault(false) {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        let mut out = self.st(0);
        let word = op(&self.env(), &self.st(0), &self.st(1), &mut out);
        let fault = self.faults(word);
        self.merge(
            word,
            if fault || out.class() == Class::Nan {
                unquotiented
            } else {
                codes
            },
        );
        if !fault {
            self.set_st(0, out);
        }
    }

    /// `ST(1) = op(ST(0), ST(1))`, then a pop: FPATAN, FYL2X, FYL2XP1.
    pub fn popping(&mut self, op: fn(&Env, &F80, &F80, &mut F80) -> u16) {
        if self.is_empty(0) || self.is_empty(1) {
            if self.stack_fault(false) {
                self.set_st(1, F80::INDEFINITE);
                self.pop();
            }
            return;
        }
        let mut out = self.st(1);
        let word = op(&self.env(), &self.st(0), &self.st(1), &mut out);
        self.merge(word, status::C1);
        if !self.faults(word) {
            self.set_st(1, out);
            self.pop();
        }
    }

    /// FPTAN, FSINCOS (`codes` C1 and C2) and FXTRACT (C1): ST(0) is replaced and one more result pushed.
    pub fn pushing(&mut self, op: fn(&Env, &F80, &mut [F80; 2]) -> u16, codes: u16) {
        if self.is_empty(0) || !self.is_empty(7) {
            let overflow = !self.is_empty(0);
            self.status &= !codes;
            if self.stack_fault(overflow) {
                self.set_st(0, F80::INDEFINITE);
                self.push(F80::INDEFINITE);
            }
            return;
        }
        let mut out = [self.st(0); 2];
        let word = op(&self.env(), &self.st(0), &mut out);
        self.merge(word, codes);
        if self.faults(word) {
            return;
        }
        if codes & word & status::C2 != 0 {
            self.set_st(0, out[0]);
        } else {
            self.set_st(0, out[1]);
            self.push(out[0]);
        }
    }

    /// FCOM and FUCOM of ST(0) with ST(`src`), then `pops` pops.
    pub fn compare(&mut self, op: Compare, src: u8, pops: u8) {
        if self.is_empty(0) || self.is_empty(src) {
            self.compare_underflow(pops);
            return;
        }
        let word = op(&self.env(), &self.st(0), &self.st(src));
        self.compared(word, pops);
    }

    /// FCOM and FICOM of ST(0) with a memory operand, then `pops` pops.
    pub fn compare_memory<T>(&mut self, op: fn(&Env, &F80, &T) -> u16, src: &T, pops: u8) {
        if self.is_empty(0) {
            self.compare_underflow(pops);
            return;
        }
        let word = op(&self.env(), &self.st(0), src);
        self.compared(word, pops);
    }

    /// FTST.
    pub fn test(&mut self) {
        if self.is_empty(0) {
            self.compare_underflow(0);
            return;
        }
        let word = kernel::tst(&self.env(), &self.st(0));
        self.compared(word, 0);
    }

    /// FCOMI and FUCOMI of ST(0) with ST(`src`), then `pops` pops unless an unmasked exception prevents them:
    /// the new ZF, PF and CF at their places in EFLAGS. C1 changes only on a stack fault.
    pub fn compare_flags(&mut self, op: fn(&Env, &F80, &F80) -> (u16, u32), src: u8, pops: u8) -> u32 {
        if self.is_empty(0) || self.is_empty(src) {
            if self.stack_fault(false) {
                self.pop_times(pops);
            }
            return 0x45;
        }
        let (word, flags) = op(&self.env(), &self.st(0), &self.st(src));
        self.merge(word, 0);
        if !self.faults(word) {
            self.pop_times(pops);
        }
        flags
    }

    /// FXAM: C1 is the sign, C3, C2 and C0 the class.
    pub fn examine(&mut self) {
        let value = self.st(0);
        let class = if self.is_empty(0) {
            status::C3 | status::C0
        } else {
            match value.class() {
                Class::Unsupported => 0,
                Class::Nan => status::C0,
                Class::Normal => status::C2,
                Class::Infinity => status::C2 | status::C0,
                Class::Zero => status::C3,
                Class::Denormal => status::C3 | status::C2,
            }
        };
        let sign = if value.is_negative() { status::C1 } else { 0 };
        self.status = self.status & !status::CONDITION | class | sign;
    }

    /// Loads that convert: FLD m32 and m64, FILD, FBLD. An unmasked denormal is pushed all the same.
    #[inline]
    pub fn load<T>(&mut self, op: fn(&Env, &T, &mut F80) -> u16, src: &T) {
        if !self.is_empty(7) {
            self.push_overflow();
            return;
        }
        let mut out = F80::ZERO;
        let word = op(&self.env(), src, &mut out);
        self.merge(word & !status::C1, status::C1);
        if word & !self.control & status::IE == 0 {
            self.push(out);
        }
    }

    /// Loads that do not: FLD m80, and FLD ST(i) if `value` is taken before the push.
    pub fn load_f80(&mut self, value: F80) {
        if !self.is_empty(7) {
            self.push_overflow();
            return;
        }
        self.status &= !status::C1;
        self.push(value);
    }

    /// FLD ST(`i`).
    pub fn load_st(&mut self, i: u8) {
        if self.is_empty(i) {
            if self.stack_fault(false) {
                self.push(F80::INDEFINITE);
            }
            return;
        }
        self.load_f80(self.st(i));
    }

    /// FLD1, FLDL2T and the other constants, rounded as the control word says.
    pub fn load_constant(&mut self, op: fn(&Env, &mut F80) -> u16) {
        let mut out = F80::ZERO;
        op(&self.env(), &mut out);
        self.load_f80(out);
    }

    /// FXCH ST(`i`).
    pub fn exchange(&mut self, i: u8) {
        if self.is_empty(0) || self.is_empty(i) {
            if !self.stack_fault(false) {
                return;
            }
            for n in [0, i] {
                if self.is_empty(n) {
                    self.set_st(n, F80::INDEFINITE);
                }
            }
        } else {
            self.status &= !status::C1;
        }
        let (a, b) = (self.index(0), self.index(i));
        self.registers.swap(a, b);
    }

    /// FCMOVcc ST(0), ST(`i`). Both registers are checked whether or not the condition holds; C1 changes only
    /// on a stack fault.
    pub fn move_if(&mut self, condition: bool, i: u8) {
        if self.is_empty(0) || self.is_empty(i) {
            if self.stack_fault(false) {
                self.set_st(0, F80::INDEFINITE);
            }
            return;
        }
        if condition {
            self.set_st(0, self.st(i));
        }
    }

    /// FST and FSTP to ST(`i`).
    pub fn store_st(&mut self, i: u8, pop: bool) {
        if self.is_empty(0) {
            if self.stack_fault(false) {
                self.set_st(i, F80::INDEFINITE);
                self.pop_times(pop.into());
            }
            return;
        }
        self.status &= !status::C1;
        self.set_st(i, self.st(0));
        self.pop_times(pop.into());
    }

    /// D9 D8+i, undocumented: FSTP ST(`i`) without a stack fault; from an empty ST(0) nothing is copied.
    pub fn store_st_unchecked(&mut self, i: u8) {
        self.status &= !status::C1;
        if !self.is_empty(0) {
            self.set_st(i, self.st(0));
        }
        self.pop();
    }

    /// The first half of FST, FIST, FISTTP and FBSTP: what to write, `indefinite` being the format's answer
    /// to an empty register.
    #[inline]
    pub fn store<T: Copy>(&self, op: fn(&Env, &F80, &mut T) -> u16, indefinite: T, pop: bool) -> Stored<T> {
        if self.is_empty(0) {
            return self.store_empty(indefinite, pop);
        }
        let mut out = indefinite;
        let word = op(&self.env(), &self.st(0), &mut out);
        let unmasked = word & !self.control & (status::IE | status::OE | status::UE);
        let value = (unmasked == 0).then_some(out);
        Stored {
            value,
            word,
            underflow: false,
            pop: pop && value.is_some(),
        }
    }

    /// The first half of FSTP m80, which converts nothing.
    pub fn store_f80(&self) -> Stored<F80> {
        if self.is_empty(0) {
            return self.store_empty(F80::INDEFINITE, true);
        }
        Stored {
            value: Some(self.st(0)),
            word: self.status & !status::C1,
            underflow: false,
            pop: true,
        }
    }

    /// The second half of a store, after the write to memory succeeded.
    #[inline]
    pub fn commit<T>(&mut self, stored: &Stored<T>) {
        if stored.underflow {
            self.stack_fault(false);
        } else {
            self.merge(stored.word, status::C1);
        }
        self.pop_times(stored.pop.into());
    }

    fn store_empty<T>(&self, indefinite: T, pop: bool) -> Stored<T> {
        let masked = self.control & super::control::IM != 0;
        Stored {
            value: masked.then_some(indefinite),
            word: 0,
            underflow: true,
            pop: pop && masked,
        }
    }

    fn push_overflow(&mut self) {
        if self.stack_fault(true) {
            self.push(F80::INDEFINITE);
        }
    }

    /// The outcome is "unordered" whether or not the exception is masked.
    fn compare_underflow(&mut self, pops: u8) {
        let masked = self.stack_fault(false);
        self.status |= status::C0 | status::C2 | status::C3;
        if masked {
            self.pop_times(pops);
        }
    }

    /// The condition codes are set even if an unmasked exception keeps the stack as it is.
    fn compared(&mut self, word: u16, pops: u8) {
        self.merge(word & !status::C1, status::CONDITION);
        if !self.faults(word) {
            self.pop_times(pops);
        }
    }

    #[inline]
    fn pop_times(&mut self, pops: u8) {
        for _ in 0..pops {
            self.pop();
        }
    }
}
