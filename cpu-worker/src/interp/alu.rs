//! ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT (SDM vol. 2).

use iced_x86::{Mnemonic, OpKind};

use super::by_width;
use crate::exec::{Flow, Handler, Insn, Int, Op, Vcpu};
use crate::state::Flags;

/// A two-operand operation.
trait Alu {
    /// Whether the result is written.
    const WRITES: bool = true;
    /// The result of `a op b`, flags set.
    fn exec<T: Int>(flags: &mut Flags, a: T, b: T) -> T;
}

struct Add;
impl Alu for Add {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, b: T) -> T {
        let r = a.add(b);
        flags.set_add(a, b, r);
        r
    }
}

struct Adc;
impl Alu for Adc {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, b: T) -> T {
        let r = a.add(b).add(T::trunc(u64::from(flags.cf())));
        flags.set_add(a, b, r);
        r
    }
}

struct Sub;
impl Alu for Sub {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, b: T) -> T {
        let r = a.sub(b);
        flags.set_sub(a, b, r);
        r
    }
}

struct Sbb;
impl Alu for Sbb {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, b: T) -> T {
        let r = a.sub(b).sub(T::trunc(u64::from(flags.cf())));
        flags.set_sub(a, b, r);
        r
    }
}

struct Cmp;
impl Alu for Cmp {
    const WRITES: bool = false;
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T, b: T) -> T {
        Sub::exec(flags, a, b)
    }
}

macro_rules! logic {
    ($name:ident, $op:tt, $writes:literal) => {
        struct $name;
        impl Alu for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn exec<T: Int>(flags: &mut Flags, a: T, b: T) -> T {
                let r = T::trunc(a.to_u64() $op b.to_u64());
                flags.set_logic(r);
                r
            }
        }
    };
}
logic!(And, &, true);
logic!(Or, |, true);
logic!(Xor, ^, true);
logic!(Test, &, false);

fn reg_reg<A: Alu, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (a, b) = (cpu.reg::<T>(op.dst), cpu.reg::<T>(op.src));
    let r = A::exec(&mut cpu.state.flags, a, b);
    if A::WRITES {
        cpu.set_reg(op.dst, r);
    }
    Ok(())
}

fn reg_imm<A: Alu, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (a, b) = (cpu.reg::<T>(op.dst), T::trunc(op.imm));
    let r = A::exec(&mut cpu.state.flags, a, b);
    if A::WRITES {
        cpu.set_reg(op.dst, r);
    }
    Ok(())
}

fn reg_mem<A: Alu, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = cpu.load::<T>(op)?;
    let a = cpu.reg::<T>(op.dst);
    let r = A::exec(&mut cpu.state.flags, a, b);
    if A::WRITES {
        cpu.set_reg(op.dst, r);
    }
    Ok(())
}

fn mem_reg<A: Alu, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = cpu.reg::<T>(op.dst);
    if A::WRITES {
        return cpu.modify::<T>(op, |cpu, a| A::exec(&mut cpu.state.flags, a, b));
    }
    let a = cpu.load::<T>(op)?;
    A::exec(&mut cpu.state.flags, a, b);
    Ok(())
}

fn mem_imm<A: Alu, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = T::trunc(op.imm);
    if A::WRITES {
        return cpu.modify::<T>(op, |cpu, a| A::exec(&mut cpu.state.flags, a, b));
    }
    let a = cpu.load::<T>(op)?;
    A::exec(&mut cpu.state.flags, a, b);
    Ok(())
}

fn two_operands<A: Alu>(insn: &Insn<'_>) -> Handler {
    let bytes = operand_bytes(insn);
    match (insn.i.op0_kind(), insn.i.op1_kind()) {
        (OpKind::Register, OpKind::Register) => by_width!(bytes, reg_reg, A),
        (OpKind::Register, OpKind::Memory) => by_width!(bytes, reg_mem, A),
        (OpKind::Memory, OpKind::Register) => by_width!(bytes, mem_reg, A),
        (OpKind::Memory, _) => by_width!(bytes, mem_imm, A),
        (_, _) => by_width!(bytes, reg_imm, A),
    }
}

/// Width in bytes of the first operand.
pub(super) fn operand_bytes(insn: &Insn<'_>) -> usize {
    match insn.i.op0_kind() {
        OpKind::Register => insn.i.op0_register().size(),
        _ => insn.i.memory_size().size(),
    }
}

/// A one-operand operation.
trait Unary {
    fn exec<T: Int>(flags: &mut Flags, a: T) -> T;
}

struct Inc;
impl Unary for Inc {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T) -> T {
        let r = a.add(T::trunc(1));
        let cf = flags.cf();
        flags.set_explicit(r, cf, r.to_u64() & 15 == 0, r.to_u64() == 1 << (T::BITS - 1));
        r
    }
}

struct Dec;
impl Unary for Dec {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T) -> T {
        let r = a.sub(T::trunc(1));
        let cf = flags.cf();
        flags.set_explicit(r, cf, a.to_u64() & 15 == 0, a.to_u64() == 1 << (T::BITS - 1));
        r
    }
}

struct Neg;
impl Unary for Neg {
    #[inline(always)]
    fn exec<T: Int>(flags: &mut Flags, a: T) -> T {
        Sub::exec(flags, T::default(), a)
    }
}

struct Not;
impl Unary for Not {
    #[inline(always)]
    fn exec<T: Int>(_: &mut Flags, a: T) -> T {
        T::trunc(!a.to_u64())
    }
}

fn unary_reg<U: Unary, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let a = cpu.reg::<T>(op.dst);
    let r = U::exec(&mut cpu.state.flags, a);
    cpu.set_reg(op.dst, r);
    Ok(())
}

fn unary_mem<U: Unary, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.modify::<T>(op, |cpu, a| U::exec(&mut cpu.state.flags, a))
}

fn one_operand<U: Unary>(insn: &Insn<'_>) -> Handler {
    let bytes = operand_bytes(insn);
    if insn.i.op0_kind() == OpKind::Memory {
        by_width!(bytes, unary_mem, U)
    } else {
        by_width!(bytes, unary_reg, U)
    }
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Add => two_operands::<Add>(insn),
        Mnemonic::Or => two_operands::<Or>(insn),
        Mnemonic::Adc => two_operands::<Adc>(insn),
        Mnemonic::Sbb => two_operands::<Sbb>(insn),
        Mnemonic::And => two_operands::<And>(insn),
        Mnemonic::Sub => two_operands::<Sub>(insn),
        Mnemonic::Xor => two_operands::<Xor>(insn),
        Mnemonic::Cmp => two_operands::<Cmp>(insn),
        Mnemonic::Test => two_operands::<Test>(insn),
        Mnemonic::Inc => one_operand::<Inc>(insn),
        Mnemonic::Dec => one_operand::<Dec>(insn),
        Mnemonic::Neg => one_operand::<Neg>(insn),
        Mnemonic::Not => one_operand::<Not>(insn),
        _ => return None,
    })
}
