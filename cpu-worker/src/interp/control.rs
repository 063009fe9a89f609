//! Near control transfers: Jcc, JMP, CALL, RET, LOOP, JCXZ. Far ones are system instructions.

use iced_x86::{Mnemonic, OpKind};

use super::by_width;
use crate::exec::{Flow, Handler, Insn, Int, Op, Vcpu, flag};
use crate::mmu::canonical;
use crate::state::{CodeSize, gpr, seg};

impl Vcpu {
    /// Checks a near target against CS or canonical form; #GP(0) otherwise.
    #[inline(always)]
    pub(crate) fn check_near(&mut self, target: u64) -> Flow {
        let good = if self.code_size == CodeSize::Bits64 {
            canonical(target)
        } else {
            target <= u64::from(self.state.segs[seg::CS].limit)
        };
        if good { Ok(()) } else { self.gp0() }
    }
}

/// The target of a relative branch with operand size `T`.
#[inline(always)]
fn relative<T: Int>(cpu: &Vcpu, op: &Op) -> u64 {
    T::trunc(cpu.rip().wrapping_add(op.imm)).to_u64()
}

fn jmp_rel<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let target = relative::<T>(cpu, op);
    cpu.check_near(target)?;
    cpu.set_rip(target);
    Ok(())
}

fn jcc<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    if cpu.state.flags.condition(op.extra as u8) {
        jmp_rel::<T>(cpu, op)
    } else {
        Ok(())
    }
}

/// Jcc within a block, which goes on behind it.
fn jcc_out<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    if cpu.state.flags.condition(op.extra as u8) {
        jmp_rel::<T>(cpu, op)?;
        cpu.end_block();
    }
    Ok(())
}

/// Makes `op`, a conditional jump in flat code, one that need not be the last of its block.
pub(crate) fn make_side_exit(op: &mut Op, code: CodeSize) {
    op.flags &= !flag::ENDS;
    op.handler = match code {
        CodeSize::Bits64 => jcc_out::<u64>,
        _ => jcc_out::<u32>,
    };
}

fn call_rel<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let target = relative::<T>(cpu, op);
    cpu.check_near(target)?;
    let back = cpu.rip();
    cpu.push(T::trunc(back))?;
    cpu.set_rip(target);
    Ok(())
}

fn operand<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<u64, crate::exec::Exit> {
    Ok(if op.has(flag::MEM) {
        cpu.load::<T>(op)?.to_u64()
    } else {
        cpu.reg::<T>(op.dst).to_u64()
    })
}

fn jmp_near<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let target = operand::<T>(cpu, op)?;
    cpu.check_near(target)?;
    cpu.set_rip(target);
    Ok(())
}

fn call_near<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let target = operand::<T>(cpu, op)?;
    cpu.check_near(target)?;
    let back = cpu.rip();
    cpu.push(T::trunc(back))?;
    cpu.set_rip(target);
    Ok(())
}

fn ret<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (target, sp) = cpu.peek::<T>(0)?;
    cpu.check_near(target.to_u64())?;
    cpu.set_sp(sp.wrapping_add(op.imm & 0xFFFF));
    cpu.set_rip(target.to_u64());
    Ok(())
}

/// rCX under the address size, decremented but not stored.
fn count(cpu: &Vcpu, op: &Op) -> u64 {
    cpu.gpr(gpr::RCX).wrapping_sub(1) << op.addr_shift >> op.addr_shift
}

/// LOOP, LOOPE, LOOPNE: `extra` 0, 1 and 2.
fn loops<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let n = count(cpu, op);
    let zf = cpu.state.flags.zf();
    let go = n != 0
        && match op.extra {
            0 => true,
            1 => zf,
            _ => !zf,
        };
    let target = relative::<T>(cpu, op);
    if go {
        cpu.check_near(target)?;
        cpu.set_rip(target);
    }
    cpu.set_gpr_addr(gpr::RCX, n, op.addr_shift);
    Ok(())
}

fn jcxz<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let n = cpu.gpr(gpr::RCX) << op.addr_shift >> op.addr_shift;
    if n == 0 { jmp_rel::<T>(cpu, op) } else { Ok(()) }
}

/// Operand size in bytes of a direct branch.
fn branch_bytes(insn: &Insn<'_>) -> usize {
    match insn.i.op0_kind() {
        OpKind::NearBranch16 => 2,
        OpKind::NearBranch32 => 4,
        _ => 8,
    }
}

/// Address size of the counter, in 64 minus bits: told by the code, since there is no memory operand.
fn counter_shift(insn: &Insn<'_>) -> u8 {
    use iced_x86::Code::*;
    match insn.i.code() {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX | Loopne_rel8_16_CX
        | Loopne_rel8_32_CX | Jcxz_rel8_16 | Jcxz_rel8_32 => 48,
        Loop_rel8_16_ECX | Loop_rel8_32_ECX | Loop_rel8_64_ECX | Loope_rel8_16_ECX | Loope_rel8_32_ECX
        | Loope_rel8_64_ECX | Loopne_rel8_16_ECX | Loopne_rel8_32_ECX | Loopne_rel8_64_ECX
        | Jecxz_rel8_16 | Jecxz_rel8_32 | Jecxz_rel8_64 => 32,
        _ => 0,
    }
}

fn near_operand_bytes(insn: &Insn<'_>) -> usize {
    match insn.i.op0_kind() {
        OpKind::Register => insn.i.op0_register().size(),
        _ => insn.i.memory_size().size(),
    }
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    use iced_x86::Code::*;
    let handler = match insn.i.mnemonic() {
        _ if insn.i.is_jcc_short_or_near() => {
            insn.op.extra = insn.i.condition_code() as u16 - 1;
            by_width!(branch_bytes(insn), jcc)
        }
        Mnemonic::Jmp if insn.i.is_jmp_short_or_near() => by_width!(branch_bytes(insn), jmp_rel),
        Mnemonic::Jmp if insn.i.is_jmp_near_indirect() => by_width!(near_operand_bytes(insn), jmp_near),
        Mnemonic::Call if insn.i.is_call_near() => by_width!(branch_bytes(insn), call_rel),
        Mnemonic::Call if insn.i.is_call_near_indirect() => by_width!(near_operand_bytes(insn), call_near),
        Mnemonic::Ret => match insn.i.code() {
            Retnw | Retnw_imm16 => ret::<u16>,
            Retnd | Retnd_imm16 => ret::<u32>,
            _ => ret::<u64>,
        },
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => {
            insn.op.addr_shift = counter_shift(insn);
            insn.op.extra = match insn.i.mnemonic() {
                Mnemonic::Loop => 0,
                Mnemonic::Loope => 1,
                _ => 2,
            };
            by_width!(branch_bytes(insn), loops)
        }
        Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => {
            insn.op.addr_shift = counter_shift(insn);
            by_width!(branch_bytes(insn), jcxz)
        }
        _ => return None,
    };
    insn.ends();
    Some(handler)
}
