//! Moves between XMM registers, memory and general registers.

use iced_x86::{Mnemonic, OpKind, Register};

use super::handler;
use crate::exec::{Flow, Handler, Insn, Op, Vcpu, flag};
use crate::fp::Xmm;
use crate::state::gpr;

fn register(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    *cpu.xmm_mut(op.dst) = cpu.xmm(op.src);
    Ok(())
}

fn load(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    *cpu.xmm_mut(op.dst) = cpu.load_xmm(op)?;
    Ok(())
}

fn load_aligned(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    *cpu.xmm_mut(op.dst) = cpu.load_xmm_aligned(op)?;
    Ok(())
}

fn store(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    cpu.store_xmm(op, cpu.xmm(op.dst))
}

fn store_aligned(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    cpu.store_xmm_aligned(op, cpu.xmm(op.dst))
}

/// A 16-byte move: registers, load, store.
fn whole(insn: &Insn<'_>, aligned: bool) -> Handler {
    match (insn.i.op0_kind(), insn.i.op1_kind(), aligned) {
        (OpKind::Register, OpKind::Register, _) => register,
        (OpKind::Register, _, false) => load,
        (OpKind::Register, _, true) => load_aligned,
        (_, _, false) => store,
        (_, _, true) => store_aligned,
    }
}

/// Stores of the low quadword: MOVLPS, MOVLPD, MOVSD, MOVQ.
fn store_low(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.xmm(op.dst).quads[0];
    cpu.store(op, v)
}

fn store_high(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.xmm(op.dst).quads[1];
    cpu.store(op, v)
}

fn load_low(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.load::<u64>(op)?;
    cpu.xmm_mut(op.dst).quads[0] = v;
    Ok(())
}

fn load_high(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.load::<u64>(op)?;
    cpu.xmm_mut(op.dst).quads[1] = v;
    Ok(())
}

/// MOVQ and MOVSD from memory: the rest is cleared.
fn load_quad(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.load::<u64>(op)?;
    *cpu.xmm_mut(op.dst) = Xmm::new(v, 0);
    Ok(())
}

/// MOVD and MOVSS from memory: the rest is cleared.
fn load_double(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.load::<u32>(op)?;
    *cpu.xmm_mut(op.dst) = Xmm::new(v.into(), 0);
    Ok(())
}

/// MOVD and MOVSS to memory.
fn store_double(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let v = cpu.xmm(op.dst).dword(0);
    cpu.store(op, v)
}

/// MOVQ and MOVD: six forms each.
fn general(insn: &Insn<'_>, wide: bool) -> Option<Handler> {
    let memory = insn.op.has(flag::MEM);
    let (a, b) = (insn.i.op0_register(), insn.i.op1_register());
    Some(match (a.is_xmm(), b.is_xmm(), wide) {
        (true, true, _) => handler!(|cpu, op| {
            cpu.sse_begin()?;
            *cpu.xmm_mut(op.dst) = Xmm::new(cpu.xmm(op.src).quads[0], 0);
            Ok(())
        }),
        (true, false, true) if memory => load_quad,
        (true, false, false) if memory => load_double,
        (false, true, true) if memory => store_low,
        (false, true, false) if memory => store_double,
        (true, false, true) => handler!(|cpu, op| {
            cpu.sse_begin()?;
            *cpu.xmm_mut(op.dst) = Xmm::new(cpu.reg::<u64>(op.src), 0);
            Ok(())
        }),
        (true, false, false) => handler!(|cpu, op| {
            cpu.sse_begin()?;
            *cpu.xmm_mut(op.dst) = Xmm::new(cpu.reg::<u32>(op.src).into(), 0);
            Ok(())
        }),
        (false, true, true) => handler!(|cpu, op| {
            cpu.sse_begin()?;
            let v = cpu.xmm(op.src).quads[0];
            cpu.set_reg(op.dst, v);
            Ok(())
        }),
        (false, true, false) => handler!(|cpu, op| {
            cpu.sse_begin()?;
            let v = cpu.xmm(op.src).dword(0);
            cpu.set_reg(op.dst, v);
            Ok(())
        }),
        (false, false, _) => return None,
    })
}

fn scalar(insn: &Insn<'_>, wide: bool) -> Handler {
    match (insn.i.op0_kind(), insn.i.op1_kind(), wide) {
        (OpKind::Register, OpKind::Register, true) => handler!(|cpu, op| {
            cpu.sse_begin()?;
            cpu.xmm_mut(op.dst).quads[0] = cpu.xmm(op.src).quads[0];
            Ok(())
        }),
        (OpKind::Register, OpKind::Register, false) => handler!(|cpu, op| {
            cpu.sse_begin()?;
            let v = cpu.xmm(op.src).dword(0);
            cpu.xmm_mut(op.dst).set_dword(0, v);
            Ok(())
        }),
        (OpKind::Register, _, true) => load_quad,
        (OpKind::Register, _, false) => load_double,
        (_, _, true) => store_low,
        (_, _, false) => store_double,
    }
}

impl Vcpu {
    /// Stores the bytes of `value` whose bit of `mask` is set at DS:rDI, or another segment: MASKMOVDQU and
    /// MASKMOVQ. With an empty mask nothing is accessed and nothing can fault.
    pub(crate) fn store_masked(&mut self, op: &Op, value: Xmm, mask: u32) -> Flow {
        if mask == 0 {
            return Ok(());
        }
        let (first, last) = (mask.trailing_zeros(), 31 - mask.leading_zeros());
        let shift = op.addr_shift;
        let offset = self.gpr(gpr::RDI).wrapping_add(first.into()) << shift >> shift;
        let len = u64::from(last - first + 1);
        let linear = self.linear_write(op.seg, offset, len, op.has(flag::LONG))?;
        self.probe_write(linear, len)?;
        let bytes = value.to_bytes();
        for n in first..=last {
            if mask >> n & 1 != 0 {
                let at = self.wrap_linear(linear.wrapping_add((n - first).into()));
                self.store_linear(at, bytes[n as usize])?;
            }
        }
        Ok(())
    }
}

fn maskmovdqu(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    // The implicit memory operand is iced's first, so these are the two registers.
    let mask = crate::fp::sse::integer::pmovmskb(&cpu.xmm(op.src));
    cpu.store_masked(op, cpu.xmm(op.dst), mask)
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let memory = insn.op.has(flag::MEM);
    let to_memory = insn.i.op0_kind() == OpKind::Memory;
    Some(match insn.i.mnemonic() {
        Mnemonic::Movaps | Mnemonic::Movapd | Mnemonic::Movdqa => whole(insn, true),
        Mnemonic::Movntps | Mnemonic::Movntpd | Mnemonic::Movntdq | Mnemonic::Movntdqa => whole(insn, true),
        Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu => whole(insn, false),
        Mnemonic::Movss => scalar(insn, false),
        Mnemonic::Movsd => scalar(insn, true),
        Mnemonic::Movq if !has_mm(insn) => return general(insn, true),
        Mnemonic::Movd if !has_mm(insn) => return general(insn, false),
        Mnemonic::Movlps | Mnemonic::Movlpd if to_memory => store_low,
        Mnemonic::Movlps | Mnemonic::Movlpd if memory => load_low,
        Mnemonic::Movhps | Mnemonic::Movhpd if to_memory => store_high,
        Mnemonic::Movhps | Mnemonic::Movhpd if memory => load_high,
        Mnemonic::Movhlps => handler!(|cpu, op| {
            cpu.sse_begin()?;
            cpu.xmm_mut(op.dst).quads[0] = cpu.xmm(op.src).quads[1];
            Ok(())
        }),
        Mnemonic::Movlhps => handler!(|cpu, op| {
            cpu.sse_begin()?;
            cpu.xmm_mut(op.dst).quads[1] = cpu.xmm(op.src).quads[0];
            Ok(())
        }),
        Mnemonic::Maskmovdqu => maskmovdqu,
        _ => return None,
    })
}

fn has_mm(insn: &Insn<'_>) -> bool {
    let mm = |r: Register| r.is_mm();
    mm(insn.i.op0_register()) || mm(insn.i.op1_register())
}
