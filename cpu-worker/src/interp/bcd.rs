//! Decimal adjustment: AAA, AAS, AAM, AAD, DAA, DAS (SDM vol. 2), and SALC.

use iced_x86::Mnemonic;

use crate::exec::{Flow, Handler, Insn, Op, Vcpu, Vector};
use crate::state::Flag;

const AL: u8 = 0;
const AX: u8 = 0;

/// AAA (`ADD`) and AAS.
fn ascii_adjust<const ADD: bool>(cpu: &mut Vcpu, _: &Op) -> Flow {
    let ax = cpu.reg::<u16>(AX);
    let adjust = ax & 15 > 9 || cpu.state.flags.get(Flag::Af);
    let ax = match (adjust, ADD) {
        (true, true) => ax.wrapping_add(0x106),
        (true, false) => ax.wrapping_sub(6).wrapping_sub(0x100),
        _ => ax,
    } & 0xFF0F;
    cpu.set_reg(AX, ax);
    cpu.state.flags.set_explicit(ax as u8, adjust, adjust, false);
    Ok(())
}

/// DAA (`ADD`) and DAS.
fn decimal_adjust<const ADD: bool>(cpu: &mut Vcpu, _: &Op) -> Flow {
    let old = cpu.reg::<u8>(AL);
    let (old_cf, old_af) = (cpu.state.flags.cf(), cpu.state.flags.get(Flag::Af));
    let step = |v: u8, by: u8| {
        if ADD {
            v.overflowing_add(by)
        } else {
            v.overflowing_sub(by)
        }
    };
    let (mut al, mut cf) = (old, false);
    let af = old & 15 > 9 || old_af;
    if af {
        let (v, carry) = step(al, 6);
        al = v;
        cf = old_cf || carry;
    }
    if old > 0x99 || old_cf {
        al = step(al, 0x60).0;
        cf = true;
    }
    cpu.set_reg(AL, al);
    cpu.state.flags.set_explicit(al, cf, af, false);
    Ok(())
}

fn aam(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (al, base) = (cpu.reg::<u8>(AL), op.imm as u8);
    if base == 0 {
        // Flags are not defined then; captures show those of the first step of the division.
        cpu.state.flags.set_logic(al >> 1);
        return cpu.raise(Vector::De);
    }
    let (high, low) = (al / base, al % base);
    cpu.set_reg(AX, u16::from(high) << 8 | u16::from(low));
    cpu.state.flags.set_logic(low);
    Ok(())
}

fn aad(cpu: &mut Vcpu, op: &Op) -> Flow {
    let ax = cpu.reg::<u16>(AX);
    let al = (ax as u8).wrapping_add(((ax >> 8) as u8).wrapping_mul(op.imm as u8));
    cpu.set_reg(AX, u16::from(al));
    cpu.state.flags.set_logic(al);
    Ok(())
}

fn salc(cpu: &mut Vcpu, _: &Op) -> Flow {
    let v = if cpu.state.flags.cf() { 0xFF } else { 0u8 };
    cpu.set_reg(AL, v);
    Ok(())
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Aaa => ascii_adjust::<true>,
        Mnemonic::Aas => ascii_adjust::<false>,
        Mnemonic::Daa => decimal_adjust::<true>,
        Mnemonic::Das => decimal_adjust::<false>,
        Mnemonic::Aam => aam,
        Mnemonic::Aad => aad,
        Mnemonic::Salc => salc,
        _ => return None,
    })
}
