//! MOV, MOVZX, MOVSX, MOVSXD, LEA, XCHG, CMOVcc, SETcc, BSWAP, CBW…CDQE, XLAT, LAHF, SAHF, NOP.

use iced_x86::{Mnemonic, OpKind};

use super::alu::operand_bytes;
use super::by_width;
use crate::exec::{Flow, Handler, Insn, Int, Op, Vcpu};
use crate::state::gpr;

fn reg_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.reg::<T>(op.src);
    cpu.set_reg(op.dst, v);
    Ok(())
}

fn reg_imm<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.set_reg(op.dst, T::trunc(op.imm));
    Ok(())
}

fn reg_mem<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.load::<T>(op)?;
    cpu.set_reg(op.dst, v);
    Ok(())
}

fn mem_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.reg::<T>(op.dst);
    cpu.store(op, v)
}

fn mem_imm<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.store(op, T::trunc(op.imm))
}

/// MOV AL/AX/EAX/RAX, moffs with a 64-bit offset, which is in `imm`.
fn acc_moffs64<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let linear = cpu.state.segs[op.seg as usize].base.wrapping_add(op.imm);
    let v = cpu.load_linear::<T>(linear)?;
    cpu.set_gpr(gpr::RAX, v);
    Ok(())
}

fn moffs64_acc<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let linear = cpu.state.segs[op.seg as usize].base.wrapping_add(op.imm);
    let v = cpu.reg::<T>(0);
    cpu.store_linear(linear, v)
}

fn is_wide_moffs(insn: &Insn<'_>) -> bool {
    insn.op.addr_shift == 0
        && insn.i.memory_base() == iced_x86::Register::None
        && insn.i.memory_index() == iced_x86::Register::None
        && insn.op.imm != 0
}

fn mov(insn: &Insn<'_>) -> Option<Handler> {
    let bytes = operand_bytes(insn);
    Some(match (insn.i.op0_kind(), insn.i.op1_kind()) {
        (OpKind::Register, OpKind::Register) => {
            let (a, b) = (insn.i.op0_register(), insn.i.op1_register());
            if !a.is_gpr() || !b.is_gpr() {
                return None;
            }
            by_width!(bytes, reg_reg)
        }
        (OpKind::Register, OpKind::Memory) => {
            if !insn.i.op0_register().is_gpr() {
                return None;
            }
            if is_wide_moffs(insn) {
                by_width!(bytes, acc_moffs64)
            } else {
                by_width!(bytes, reg_mem)
            }
        }
        (OpKind::Memory, OpKind::Register) => {
            if !insn.i.op1_register().is_gpr() {
                return None;
            }
            let bytes = insn.i.op1_register().size();
            if is_wide_moffs(insn) {
                by_width!(bytes, moffs64_acc)
            } else {
                by_width!(bytes, mem_reg)
            }
        }
        (OpKind::Memory, _) => by_width!(bytes, mem_imm),
        (_, _) => by_width!(bytes, reg_imm),
    })
}

fn movzx_reg<S: Int, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.reg::<S>(op.src).to_u64();
    cpu.set_reg(op.dst, T::trunc(v));
    Ok(())
}

fn movzx_mem<S: Int, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.load::<S>(op)?.to_u64();
    cpu.set_reg(op.dst, T::trunc(v));
    Ok(())
}

fn movsx_reg<S: Int, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.reg::<S>(op.src).sext();
    cpu.set_reg(op.dst, T::trunc(v));
    Ok(())
}

fn movsx_mem<S: Int, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.load::<S>(op)?.sext();
    cpu.set_reg(op.dst, T::trunc(v));
    Ok(())
}

fn extend(insn: &Insn<'_>, signed: bool) -> Handler {
    let to = insn.i.op0_register().size();
    let (mem, from) = match insn.i.op1_kind() {
        OpKind::Memory => (true, insn.i.memory_size().size()),
        _ => (false, insn.i.op1_register().size()),
    };
    macro_rules! pick {
        ($f:ident) => {
            match from {
                1 => by_width!(to, $f, u8),
                2 => by_width!(to, $f, u16),
                _ => by_width!(to, $f, u32),
            }
        };
    }
    match (signed, mem) {
        (false, false) => pick!(movzx_reg),
        (false, true) => pick!(movzx_mem),
        (true, false) => pick!(movsx_reg),
        (true, true) => pick!(movsx_mem),
    }
}

fn lea<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let ea = cpu.ea(op);
    cpu.set_reg(op.dst, T::trunc(ea));
    Ok(())
}

fn xchg_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (a, b) = (cpu.reg::<T>(op.dst), cpu.reg::<T>(op.src));
    cpu.set_reg(op.dst, b);
    cpu.set_reg(op.src, a);
    Ok(())
}

/// XCHG with memory; the register is the op's first register whichever way round it is written.
fn xchg_mem<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = cpu.reg::<T>(op.dst);
    let mut old = T::default();
    cpu.modify::<T>(op, |_, a| {
        old = a;
        b
    })?;
    cpu.set_reg(op.dst, old);
    Ok(())
}

fn cmov_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    // A false condition still clears the upper half of a 32-bit destination.
    let v = if cpu.state.flags.condition(op.extra as u8) {
        cpu.reg::<T>(op.src)
    } else {
        cpu.reg::<T>(op.dst)
    };
    cpu.set_reg(op.dst, v);
    Ok(())
}

fn cmov_mem<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let m = cpu.load::<T>(op)?;
    let v = if cpu.state.flags.condition(op.extra as u8) {
        m
    } else {
        cpu.reg::<T>(op.dst)
    };
    cpu.set_reg(op.dst, v);
    Ok(())
}

fn set_reg(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = u8::from(cpu.state.flags.condition(op.extra as u8));
    cpu.set_reg(op.dst, v);
    Ok(())
}

fn set_mem(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = u8::from(cpu.state.flags.condition(op.extra as u8));
    cpu.store(op, v)
}

fn bswap<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.reg::<T>(op.dst).to_u64();
    // With a 16-bit operand the result is undefined; silicon gives zero.
    let r = if T::BITS == 16 {
        0
    } else {
        v.swap_bytes() >> (64 - T::BITS)
    };
    cpu.set_reg(op.dst, T::trunc(r));
    Ok(())
}

/// CBW, CWDE, CDQE: sign-extend the lower half of the accumulator.
fn extend_acc<S: Int, T: Int>(cpu: &mut Vcpu, _: &Op) -> Flow {
    let v = cpu.reg::<S>(0).sext();
    cpu.set_gpr(gpr::RAX, T::trunc(v));
    Ok(())
}

/// CWD, CDQ, CQO: the sign of the accumulator into rDX.
fn sign_acc<T: Int>(cpu: &mut Vcpu, _: &Op) -> Flow {
    let v = if cpu.reg::<T>(0).msb() { u64::MAX } else { 0 };
    cpu.set_gpr(gpr::RDX, T::trunc(v));
    Ok(())
}

fn xlat(cpu: &mut Vcpu, op: &Op) -> Flow {
    // iced gives AL as the index; the effective address wraps after it is added.
    let sum = cpu.gpr(gpr::RBX).wrapping_add(u64::from(cpu.reg::<u8>(0)));
    let offset = sum << op.addr_shift >> op.addr_shift;
    let linear = cpu.linear_read(op.seg, offset, 1, op.has(crate::exec::flag::LONG))?;
    let v = cpu.load_linear::<u8>(linear)?;
    cpu.set_reg(0, v);
    Ok(())
}

fn lahf(cpu: &mut Vcpu, _: &Op) -> Flow {
    let v = cpu.state.flags.arithmetic() as u8 | 2;
    cpu.set_reg(1, v);
    Ok(())
}

fn sahf(cpu: &mut Vcpu, _: &Op) -> Flow {
    let of = cpu.state.flags.arithmetic() & 0x800;
    let v = u64::from(cpu.reg::<u8>(1)) | of;
    cpu.state.flags.set_arithmetic(v);
    Ok(())
}

fn nop(_: &mut Vcpu, _: &Op) -> Flow {
    Ok(())
}

fn condition(insn: &mut Insn<'_>) {
    // ConditionCode numbers start at 1 with O in encoding order.
    insn.op.extra = insn.i.condition_code() as u16 - 1;
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let bytes = operand_bytes(insn);
    let memory = insn.op.has(crate::exec::flag::MEM);
    Some(match insn.i.mnemonic() {
        Mnemonic::Mov => return mov(insn),
        Mnemonic::Movzx => extend(insn, false),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend(insn, true),
        Mnemonic::Lea => by_width!(bytes, lea),
        Mnemonic::Xchg if memory => {
            let register = if insn.i.op0_kind() == OpKind::Register {
                insn.i.op0_register()
            } else {
                insn.i.op1_register()
            };
            by_width!(register.size(), xchg_mem)
        }
        Mnemonic::Xchg => by_width!(bytes, xchg_reg),
        Mnemonic::Bswap => by_width!(bytes, bswap),
        Mnemonic::Cbw => extend_acc::<u8, u16>,
        Mnemonic::Cwde => extend_acc::<u16, u32>,
        Mnemonic::Cdqe => extend_acc::<u32, u64>,
        Mnemonic::Cwd => sign_acc::<u16>,
        Mnemonic::Cdq => sign_acc::<u32>,
        Mnemonic::Cqo => sign_acc::<u64>,
        Mnemonic::Xlatb => xlat,
        Mnemonic::Lahf => lahf,
        Mnemonic::Sahf => sahf,
        Mnemonic::Nop | Mnemonic::Pause | Mnemonic::Endbr32 | Mnemonic::Endbr64 => nop,
        _ if insn.i.is_jcc_short_or_near() => return None,
        m if is_cmov(m) => {
            condition(insn);
            if memory {
                by_width!(bytes, cmov_mem)
            } else {
                by_width!(bytes, cmov_reg)
            }
        }
        m if is_setcc(m) => {
            condition(insn);
            if memory { set_mem } else { set_reg }
        }
        _ => return None,
    })
}

fn is_cmov(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        Cmovo
            | Cmovno
            | Cmovb
            | Cmovae
            | Cmove
            | Cmovne
            | Cmovbe
            | Cmova
            | Cmovs
            | Cmovns
            | Cmovp
            | Cmovnp
            | Cmovl
            | Cmovge
            | Cmovle
            | Cmovg
    )
}

fn is_setcc(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        m,
        Seto | Setno
            | Setb
            | Setae
            | Sete
            | Setne
            | Setbe
            | Seta
            | Sets
            | Setns
            | Setp
            | Setnp
            | Setl
            | Setge
            | Setle
            | Setg
    )
}
