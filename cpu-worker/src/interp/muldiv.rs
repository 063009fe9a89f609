//! MUL, IMUL, DIV, IDIV (SDM vol. 2). Flags that the manual leaves undefined: after a multiplication SF and PF
//! follow the low half and ZF and AF are clear, as on Intel silicon; a division leaves all of them alone.

use iced_x86::Mnemonic;

use super::alu::operand_bytes;
use super::by_width;
use crate::exec::{Exit, Flow, Handler, Insn, Int, Op, Vcpu, Vector, flag};
use crate::state::{Flag, gpr};

fn operand<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<T, Exit> {
    if op.has(flag::MEM) {
        cpu.load(op)
    } else {
        Ok(cpu.reg(op.dst))
    }
}

fn flags_of_product<T: Int>(cpu: &mut Vcpu, low: T, overflow: bool) {
    cpu.state.flags.set_explicit(low, overflow, false, overflow);
    cpu.state.flags.set(Flag::Zf, false);
}

/// Writes a double-width value: AX for bytes, else rDX:rAX.
fn set_pair<T: Int>(cpu: &mut Vcpu, low: T, high: T) {
    if T::BITS == 8 {
        cpu.set_gpr(gpr::RAX, (high.to_u64() << 8 | low.to_u64()) as u16);
    } else {
        cpu.set_gpr(gpr::RAX, low);
        cpu.set_gpr(gpr::RDX, high);
    }
}

fn mul<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = operand::<T>(cpu, op)?;
    let product = u128::from(cpu.reg::<T>(0).to_u64()) * u128::from(b.to_u64());
    let (low, high) = (T::trunc(product as u64), T::trunc((product >> T::BITS) as u64));
    set_pair(cpu, low, high);
    flags_of_product(cpu, low, high != T::default());
    Ok(())
}

#[inline(always)]
fn signed_product<T: Int>(a: T, b: T) -> (T, T, bool) {
    let product = i128::from(a.sext() as i64) * i128::from(b.sext() as i64);
    let low = T::trunc(product as u64);
    let high = T::trunc((product >> T::BITS) as u64);
    (low, high, i128::from(low.sext() as i64) != product)
}

fn imul_one<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = operand::<T>(cpu, op)?;
    let (low, high, overflow) = signed_product(cpu.reg::<T>(0), b);
    set_pair(cpu, low, high);
    flags_of_product(cpu, low, overflow);
    Ok(())
}

fn imul_two<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = if op.has(flag::MEM) {
        cpu.load::<T>(op)?
    } else {
        cpu.reg(op.src)
    };
    let (low, _, overflow) = signed_product(cpu.reg::<T>(op.dst), b);
    cpu.set_reg(op.dst, low);
    flags_of_product(cpu, low, overflow);
    Ok(())
}

fn imul_three<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let a = if op.has(flag::MEM) {
        cpu.load::<T>(op)?
    } else {
        cpu.reg(op.src)
    };
    let (low, _, overflow) = signed_product(a, T::trunc(op.imm));
    cpu.set_reg(op.dst, low);
    flags_of_product(cpu, low, overflow);
    Ok(())
}

/// The dividend: AX for bytes, else rDX:rAX.
fn dividend<T: Int>(cpu: &Vcpu) -> u128 {
    if T::BITS == 8 {
        u128::from(cpu.reg::<u16>(0))
    } else {
        u128::from(cpu.reg::<T>(gpr::RDX as u8 * 8).to_u64()) << T::BITS
            | u128::from(cpu.reg::<T>(0).to_u64())
    }
}

fn div<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = u128::from(operand::<T>(cpu, op)?.to_u64());
    let a = dividend::<T>(cpu);
    if b == 0 || a / b > u128::from(T::MAX.to_u64()) {
        return cpu.raise(Vector::De);
    }
    set_pair(cpu, T::trunc((a / b) as u64), T::trunc((a % b) as u64));
    Ok(())
}

fn idiv<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = i128::from(operand::<T>(cpu, op)?.sext() as i64);
    let unused = 128 - 2 * T::BITS;
    let a = (dividend::<T>(cpu) << unused) as i128 >> unused;
    let fits = |q: i128| i128::from(T::trunc(q as u64).sext() as i64) == q;
    match a.checked_div(b) {
        Some(q) if fits(q) => {
            set_pair(cpu, T::trunc(q as u64), T::trunc((a % b) as u64));
            Ok(())
        }
        _ => cpu.raise(Vector::De),
    }
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let bytes = operand_bytes(insn);
    Some(match (insn.i.mnemonic(), insn.i.op_count()) {
        (Mnemonic::Mul, _) => by_width!(bytes, mul),
        (Mnemonic::Imul, 1) => by_width!(bytes, imul_one),
        (Mnemonic::Imul, 2) => by_width!(bytes, imul_two),
        (Mnemonic::Imul, _) => by_width!(bytes, imul_three),
        (Mnemonic::Div, _) => by_width!(bytes, div),
        (Mnemonic::Idiv, _) => by_width!(bytes, idiv),
        _ => return None,
    })
}
