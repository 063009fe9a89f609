//! MOV, PUSH and POP of segment registers; LDS, LES, LFS, LGS, LSS; LAR, LSL, VERR, VERW, ARPL.

use iced_x86::{Mnemonic, OpKind};

use super::far::far_pointer;
use super::{by_width, privilege::hold_interrupts};
use crate::exec::{Exit, Flow, Handler, Insn, Int, Op, Vcpu, flag};
use crate::state::{Attr, Flag, Shadow, seg};

/// MOV r/m, Sreg: a register gets the operand size, memory always a word.
fn store_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.state.segs[op.src as usize].selector;
    cpu.set_reg(op.dst, T::trunc(u64::from(v)));
    Ok(())
}

fn store_mem(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.state.segs[op.dst as usize].selector;
    cpu.store(op, v)
}

fn load(cpu: &mut Vcpu, op: &Op) -> Flow {
    let selector = if op.has(flag::MEM) {
        cpu.load::<u16>(op)?
    } else {
        cpu.reg::<u16>(op.src)
    };
    cpu.load_segment(op.dst as usize, selector)?;
    if op.dst as usize == seg::SS {
        hold_interrupts(cpu, Shadow::MovSs);
    }
    Ok(())
}

fn push<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let selector = cpu.state.segs[op.dst as usize].selector;
    if T::BITS == 16 {
        return cpu.push(selector);
    }
    // A wider push reserves its width; recent processors write the selector zero-extended.
    cpu.push(T::trunc(u64::from(selector)))
}

fn pop<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (v, sp) = cpu.peek::<T>(0)?;
    // The new SS decides nothing about this pop: the stack pointer moves under the old width.
    let shift = cpu.stack_shift;
    cpu.load_segment(op.dst as usize, v.to_u64() as u16)?;
    cpu.set_gpr_addr(crate::state::gpr::RSP, sp, shift);
    if op.dst as usize == seg::SS {
        hold_interrupts(cpu, Shadow::MovSs);
    }
    Ok(())
}

/// LDS and relatives: `extra` is the segment register.
fn load_pointer<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (selector, offset) = far_pointer(cpu, op)?;
    cpu.load_segment(op.extra as usize, selector)?;
    cpu.set_reg(op.dst, T::trunc(offset));
    Ok(())
}

/// The descriptor's access rights if `selector` may be seen by LAR, LSL, VERR or VERW; with them the limit.
fn visible(cpu: &mut Vcpu, selector: u16, kinds: u32) -> Result<Option<(u32, u32, Attr)>, Exit> {
    if selector & 0xFFFC == 0 {
        return Ok(None);
    }
    let Some(d) = cpu.descriptor(selector)? else {
        return Ok(None);
    };
    let attr = d.attr();
    let known = attr.code_or_data() || kinds >> attr.kind() & 1 != 0;
    let level = attr.conforming() || cpu.state.cpl <= attr.dpl() && (selector & 3) as u8 <= attr.dpl();
    Ok((known && level).then(|| (d.high & 0x00FF_FF00, d.limit(), attr)))
}

fn operand(cpu: &mut Vcpu, op: &Op, register: u8) -> Result<u16, Exit> {
    if op.has(flag::MEM) {
        cpu.load::<u16>(op)
    } else {
        Ok(cpu.reg::<u16>(register))
    }
}

fn in_protected(cpu: &mut Vcpu) -> Flow {
    if cpu.state.real_segments() {
        cpu.ud()
    } else {
        Ok(())
    }
}

fn lar<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    in_protected(cpu)?;
    let selector = operand(cpu, op, op.src)?;
    // TSSs, LDT, call gates and, outside long mode, the 16-bit ones and task gates.
    let kinds = if cpu.state.long_mode() { 0x1A04 } else { 0x1A3E };
    let seen = visible(cpu, selector, kinds)?;
    if let Some((rights, _, _)) = seen {
        cpu.set_reg(op.dst, T::trunc(u64::from(rights)));
    }
    cpu.state.flags.set(Flag::Zf, seen.is_some());
    Ok(())
}

fn lsl<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    in_protected(cpu)?;
    let selector = operand(cpu, op, op.src)?;
    let kinds = if cpu.state.long_mode() { 0x0A04 } else { 0x0A0E };
    let seen = visible(cpu, selector, kinds)?;
    if let Some((_, limit, _)) = seen {
        cpu.set_reg(op.dst, T::trunc(u64::from(limit)));
    }
    cpu.state.flags.set(Flag::Zf, seen.is_some());
    Ok(())
}

fn verify<const WRITE: bool>(cpu: &mut Vcpu, op: &Op) -> Flow {
    in_protected(cpu)?;
    let selector = operand(cpu, op, op.dst)?;
    let good = visible(cpu, selector, 0)?
        .is_some_and(|(_, _, attr)| if WRITE { attr.writable() } else { attr.readable() });
    cpu.state.flags.set(Flag::Zf, good);
    Ok(())
}

fn arpl(cpu: &mut Vcpu, op: &Op) -> Flow {
    in_protected(cpu)?;
    let raise = |d: u16, s: u16| if d & 3 < s & 3 { Some(d & !3 | s & 3) } else { None };
    if op.has(flag::MEM) {
        let s = cpu.reg::<u16>(op.dst);
        return cpu.modify::<u16>(op, |cpu, d| {
            cpu.state.flags.set(Flag::Zf, raise(d, s).is_some());
            raise(d, s).unwrap_or(d)
        });
    }
    let (d, s) = (cpu.reg::<u16>(op.dst), cpu.reg::<u16>(op.src));
    cpu.state.flags.set(Flag::Zf, raise(d, s).is_some());
    cpu.set_reg(op.dst, raise(d, s).unwrap_or(d));
    Ok(())
}

fn is_segment(insn: &Insn<'_>, n: u32) -> bool {
    insn.i.op_count() > n
        && insn.i.op_kind(n) == OpKind::Register
        && insn.i.op_register(n).is_segment_register()
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let memory = insn.op.has(flag::MEM);
    let pointer = |insn: &mut Insn<'_>, segment: usize| -> Handler {
        let bytes = insn.i.op0_register().size();
        insn.op.size = bytes as u8;
        insn.op.extra = segment as u16;
        by_width!(bytes, load_pointer)
    };
    let handler: Handler = match insn.i.mnemonic() {
        Mnemonic::Mov if is_segment(insn, 1) => {
            if memory {
                store_mem
            } else {
                by_width!(insn.i.op0_register().size(), store_reg)
            }
        }
        Mnemonic::Mov if is_segment(insn, 0) => {
            if insn.op.dst as usize == seg::CS {
                return None;
            }
            load
        }
        Mnemonic::Push if is_segment(insn, 0) => {
            by_width!(insn.i.stack_pointer_increment().unsigned_abs(), push)
        }
        Mnemonic::Pop if is_segment(insn, 0) => {
            by_width!(insn.i.stack_pointer_increment().unsigned_abs(), pop)
        }
        Mnemonic::Lds => pointer(insn, seg::DS),
        Mnemonic::Les => pointer(insn, seg::ES),
        Mnemonic::Lfs => pointer(insn, seg::FS),
        Mnemonic::Lgs => pointer(insn, seg::GS),
        Mnemonic::Lss => pointer(insn, seg::SS),
        Mnemonic::Lar => by_width!(insn.i.op0_register().size(), lar),
        Mnemonic::Lsl => by_width!(insn.i.op0_register().size(), lsl),
        Mnemonic::Verr => verify::<false>,
        Mnemonic::Verw => verify::<true>,
        Mnemonic::Arpl => arpl,
        _ => return None,
    };
    // A new SS may change the width of the stack pointer, a new CS base nothing here; both are looked up per access.
    if matches!(insn.i.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
        && is_segment(insn, 0)
        && insn.op.dst as usize == seg::SS
    {
        insn.ends();
    }
    Some(handler)
}
