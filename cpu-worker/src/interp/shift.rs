//! Shifts and rotates: SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD (SDM vol. 2).
//!
//! OF is undefined for counts above 1 and AF always; here OF follows the rule of count 1 and AF is cleared. RCL and RCR once
//! or more around, which is 9 bits for a byte, change no flag, as on silicon (Intel Core, all counts and values of a byte).

use iced_x86::{Mnemonic, OpKind};

use super::alu::operand_bytes;
use super::by_width;
use crate::exec::{Flow, Handler, Insn, Int, Op, Vcpu, flag};
use crate::state::{Flag, Flags};

/// An operation on one value and a count that is not zero after masking.
trait Shift {
    fn exec<T: Int>(flags: &mut Flags, a: T, count: u32) -> T;
}

/// Bit `n` of `v`; zero beyond 63.
#[inline(always)]
fn bit(v: u64, n: u32) -> bool {
    n < 64 && v >> n & 1 != 0
}

struct Shl;
impl Shift for Shl {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let v = a.to_u64();
        let r = T::trunc(if count < 64 { v << count } else { 0 });
        let cf = count <= T::BITS && bit(v, T::BITS - count);
        flags.set_explicit(r, cf, false, r.msb() != cf);
        r
    }
}

struct Shr;
impl Shift for Shr {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let v = a.to_u64();
        let r = T::trunc(if count < 64 { v >> count } else { 0 });
        flags.set_explicit(r, bit(v, count - 1), false, a.msb());
        r
    }
}

struct Sar;
impl Shift for Sar {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let v = a.sext() as i64;
        let r = T::trunc((v >> count.min(63)) as u64);
        let cf = v >> (count - 1).min(63) & 1 != 0;
        flags.set_explicit(r, cf, false, false);
        r
    }
}

struct Rol;
impl Shift for Rol {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let n = count % T::BITS;
        let v = a.to_u64();
        let r = if n == 0 {
            a
        } else {
            T::trunc(v << n | v >> (T::BITS - n))
        };
        let cf = r.to_u64() & 1 != 0;
        flags.set(Flag::Cf, cf);
        flags.set(Flag::Of, r.msb() != cf);
        r
    }
}

struct Ror;
impl Shift for Ror {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let n = count % T::BITS;
        let v = a.to_u64();
        let r = if n == 0 {
            a
        } else {
            T::trunc(v >> n | v << (T::BITS - n))
        };
        flags.set(Flag::Cf, r.msb());
        flags.set(Flag::Of, r.msb() != bit(r.to_u64(), T::BITS - 2));
        r
    }
}

struct Rcl;
impl Shift for Rcl {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let n = count % (T::BITS + 1);
        if n == 0 {
            return a;
        }
        let wide = u128::from(flags.cf()) << T::BITS | u128::from(a.to_u64());
        let turned = wide << n | wide >> (T::BITS + 1 - n);
        let r = T::trunc(turned as u64);
        let cf = turned >> T::BITS & 1 != 0;
        flags.set(Flag::Cf, cf);
        flags.set(Flag::Of, r.msb() != cf);
        r
    }
}

struct Rcr;
impl Shift for Rcr {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, count: u32) -> T {
        let n = count % (T::BITS + 1);
        if n == 0 {
            return a;
        }
        let wide = u128::from(flags.cf()) << T::BITS | u128::from(a.to_u64());
        let turned = wide >> n | wide << (T::BITS + 1 - n);
        let r = T::trunc(turned as u64);
        flags.set(Flag::Cf, turned >> T::BITS & 1 != 0);
        flags.set(Flag::Of, r.msb() != bit(r.to_u64(), T::BITS - 2));
        r
    }
}

#[inline(always)]
fn masked<T: Int>(count: u64) -> u32 {
    (count & if T::BITS == 64 { 63 } else { 31 }) as u32
}

#[inline(always)]
fn on_register<S: Shift, T: Int>(cpu: &mut Vcpu, op: &Op, count: u32) -> Flow {
    let a = cpu.reg::<T>(op.dst);
    // A 32-bit register is written, and its upper half cleared, even by a count of zero.
    let r = if count == 0 {
        a
    } else {
        S::exec(&mut cpu.state.flags, a, count)
    };
    cpu.set_reg(op.dst, r);
    Ok(())
}

fn reg_imm<S: Shift, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    on_register::<S, T>(cpu, op, masked::<T>(op.imm))
}

fn reg_cl<S: Shift, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let count = masked::<T>(u64::from(cpu.reg::<u8>(8)));
    on_register::<S, T>(cpu, op, count)
}

fn mem<S: Shift, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let count = if op.extra == 0 {
        op.imm
    } else {
        u64::from(cpu.reg::<u8>(8))
    };
    let count = masked::<T>(count);
    cpu.modify::<T>(op, |cpu, a| {
        if count == 0 {
            a
        } else {
            S::exec(&mut cpu.state.flags, a, count)
        }
    })
}

fn shift<S: Shift>(insn: &mut Insn<'_>) -> Handler {
    let bytes = operand_bytes(insn);
    let by_cl = insn.i.op1_kind() == OpKind::Register;
    if insn.op.has(flag::MEM) {
        insn.op.extra = u16::from(by_cl);
        by_width!(bytes, mem, S)
    } else if by_cl {
        by_width!(bytes, reg_cl, S)
    } else {
        by_width!(bytes, reg_imm, S)
    }
}

/// SHLD (`LEFT`) and SHRD. With 16-bit operands and a count above 16 the result is undefined; here it is what
/// shifting the 48-bit string dest:src:dest gives, as silicon does.
#[inline(always)]
fn double<const LEFT: bool, T: Int>(flags: &mut Flags, a: T, b: T, count: u32) -> T {
    let (x, y) = (u128::from(a.to_u64()), u128::from(b.to_u64()));
    let (r, cf) = if LEFT {
        let wide = if T::BITS == 16 {
            x << 32 | y << 16 | x
        } else {
            x << T::BITS | y
        };
        let top = if T::BITS == 16 { 48 } else { 2 * T::BITS };
        (
            T::trunc((wide << count >> (top - T::BITS)) as u64),
            wide >> (top - count) & 1 != 0,
        )
    } else {
        let wide = if T::BITS == 16 {
            x << 32 | y << 16 | x
        } else {
            y << T::BITS | x
        };
        (T::trunc((wide >> count) as u64), wide >> (count - 1) & 1 != 0)
    };
    flags.set_explicit(r, cf, false, r.msb() != a.msb());
    r
}

fn double_count<T: Int>(cpu: &Vcpu, op: &Op) -> u32 {
    masked::<T>(if op.size == 0 {
        op.imm
    } else {
        u64::from(cpu.reg::<u8>(8))
    })
}

fn double_reg<const LEFT: bool, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let count = double_count::<T>(cpu, op);
    let (a, b) = (cpu.reg::<T>(op.dst), cpu.reg::<T>(op.src));
    let r = if count == 0 {
        a
    } else {
        double::<LEFT, T>(&mut cpu.state.flags, a, b, count)
    };
    cpu.set_reg(op.dst, r);
    Ok(())
}

fn double_mem<const LEFT: bool, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let count = double_count::<T>(cpu, op);
    let b = cpu.reg::<T>(op.dst);
    cpu.modify::<T>(op, |cpu, a| {
        if count == 0 {
            a
        } else {
            double::<LEFT, T>(&mut cpu.state.flags, a, b, count)
        }
    })
}

fn double_shift<const LEFT: bool>(insn: &mut Insn<'_>) -> Handler {
    insn.op.size = u8::from(insn.i.op2_kind() == OpKind::Register);
    match (operand_bytes(insn), insn.op.has(flag::MEM)) {
        (2, false) => double_reg::<LEFT, u16>,
        (4, false) => double_reg::<LEFT, u32>,
        (_, false) => double_reg::<LEFT, u64>,
        (2, true) => double_mem::<LEFT, u16>,
        (4, true) => double_mem::<LEFT, u32>,
        (_, true) => double_mem::<LEFT, u64>,
    }
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => shift::<Shl>(insn),
        Mnemonic::Shr => shift::<Shr>(insn),
        Mnemonic::Sar => shift::<Sar>(insn),
        Mnemonic::Rol => shift::<Rol>(insn),
        Mnemonic::Ror => shift::<Ror>(insn),
        Mnemonic::Rcl => shift::<Rcl>(insn),
        Mnemonic::Rcr => shift::<Rcr>(insn),
        Mnemonic::Shld => double_shift::<true>(insn),
        Mnemonic::Shrd => double_shift::<false>(insn),
        _ => return None,
    })
}
