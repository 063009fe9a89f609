//! Single elements, masks, strings, CRC32: instructions between XMM and general registers.

use iced_x86::Mnemonic;

use super::{handler, pick};
use crate::exec::{Exit, Flow, Handler, Insn, Op, Vcpu, flag};
use crate::fp::Xmm;
use crate::fp::sse::{integer, string};
use crate::state::gpr;

/// A general register from the sign bits of elements.
macro_rules! mask {
    ($kernel:ident) => {
        handler!(|cpu, op| {
            cpu.sse_begin()?;
            let v = integer::$kernel(&cpu.xmm(op.src));
            cpu.set_reg(op.dst, v);
            Ok(())
        })
    };
}

/// PEXTRx and EXTRACTPS. A general register gets the element zero-extended.
fn extract<const BYTES: usize>(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let memory = op.has(flag::MEM);
    let value = cpu.xmm(if memory { op.dst } else { op.src }).to_u128();
    let n = op.imm as usize & (16 / BYTES - 1);
    let element = (value >> (8 * BYTES * n)) as u64;
    match (BYTES, memory) {
        (1, true) => cpu.store(op, element as u8),
        (2, true) => cpu.store(op, element as u16),
        (4, true) => cpu.store(op, element as u32),
        (_, true) => cpu.store(op, element),
        (8, false) => {
            cpu.set_reg(op.dst, element);
            Ok(())
        }
        (_, false) => {
            cpu.set_reg(op.dst, (element & (u64::MAX >> (64 - 8 * BYTES))) as u32);
            Ok(())
        }
    }
}

fn insert<const BYTES: usize>(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.sse_begin()?;
    let element = match (BYTES, op.has(flag::MEM)) {
        (_, false) => cpu.reg::<u64>(op.src),
        (1, true) => cpu.load::<u8>(op)?.into(),
        (2, true) => cpu.load::<u16>(op)?.into(),
        (4, true) => cpu.load::<u32>(op)?.into(),
        (_, true) => cpu.load::<u64>(op)?,
    };
    let shift = 8 * BYTES * (op.imm as usize & (16 / BYTES - 1));
    let mask = u128::from(u64::MAX >> (64 - 8 * BYTES));
    let register = cpu.xmm_mut(op.dst);
    let value = register.to_u128() & !(mask << shift) | (u128::from(element) & mask) << shift;
    *register = Xmm::from_u128(value);
    Ok(())
}

/// The second string, which needs no alignment.
fn second(cpu: &mut Vcpu, op: &Op) -> Result<Xmm, Exit> {
    cpu.sse_begin()?;
    if op.has(flag::MEM) {
        cpu.load_xmm(op)
    } else {
        Ok(cpu.xmm(op.src))
    }
}

/// The matches of PCMPESTRx, the lengths taken from EAX and EDX or, with REX.W, RAX and RDX.
fn explicit<const WIDE: bool>(cpu: &mut Vcpu, op: &Op) -> Result<u16, Exit> {
    let b = second(cpu, op)?;
    let length = |register: u64| {
        if WIDE {
            register as i64
        } else {
            i64::from(register as i32)
        }
    };
    let (length_a, length_b) = (length(cpu.gpr(gpr::RAX)), length(cpu.gpr(gpr::RDX)));
    let matches = string::explicit(op.imm as u8, &cpu.xmm(op.dst), &b, length_a, length_b);
    cpu.state.flags.set_arithmetic(matches.flags.into());
    Ok(matches.mask)
}

fn implicit(cpu: &mut Vcpu, op: &Op) -> Result<u16, Exit> {
    let b = second(cpu, op)?;
    let matches = string::implicit(op.imm as u8, &cpu.xmm(op.dst), &b);
    cpu.state.flags.set_arithmetic(matches.flags.into());
    Ok(matches.mask)
}

fn to_ecx(cpu: &mut Vcpu, op: &Op, mask: u16) -> Flow {
    cpu.set_gpr(gpr::RCX, string::index(op.imm as u8, mask));
    Ok(())
}

fn to_xmm0(cpu: &mut Vcpu, op: &Op, mask: u16) -> Flow {
    *cpu.xmm_mut(0) = string::expand(op.imm as u8, mask);
    Ok(())
}

/// `string form`: where the lengths come from, where the result goes.
macro_rules! string {
    ($find:expr, $put:ident) => {
        handler!(|cpu, op| {
            let mask = $find(cpu, op)?;
            $put(cpu, op, mask)
        })
    };
}

/// Accumulates CRC32; no SSE state is involved and none is checked.
macro_rules! crc {
    ($insn:ident, $ty:ty, $kernel:ident) => {{
        fn run<const MEM: bool>(cpu: &mut Vcpu, op: &Op) -> Flow {
            let value = if MEM {
                cpu.load::<$ty>(op)?
            } else {
                cpu.reg::<$ty>(op.src)
            };
            let crc = cpu.reg::<u32>(op.dst);
            cpu.set_reg(op.dst, integer::$kernel(crc, value));
            Ok(())
        }
        pick($insn, run::<false>, run::<true>)
    }};
}

pub(super) fn crc32(insn: &mut Insn<'_>) -> Option<Handler> {
    if insn.i.mnemonic() != Mnemonic::Crc32 {
        return None;
    }
    let bytes = if insn.op.has(flag::MEM) {
        insn.i.memory_size().size()
    } else {
        insn.i.op1_register().size()
    };
    Some(match bytes {
        1 => crc!(insn, u8, crc32_u8),
        2 => crc!(insn, u16, crc32_u16),
        4 => crc!(insn, u32, crc32_u32),
        _ => crc!(insn, u64, crc32_u64),
    })
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Movmskps => mask!(movmskps),
        Mnemonic::Movmskpd => mask!(movmskpd),
        Mnemonic::Pmovmskb => mask!(pmovmskb),
        Mnemonic::Pextrb => extract::<1>,
        Mnemonic::Pextrw => extract::<2>,
        Mnemonic::Pextrd | Mnemonic::Extractps => extract::<4>,
        Mnemonic::Pextrq => extract::<8>,
        Mnemonic::Pinsrb => insert::<1>,
        Mnemonic::Pinsrw => insert::<2>,
        Mnemonic::Pinsrd => insert::<4>,
        Mnemonic::Pinsrq => insert::<8>,
        Mnemonic::Pcmpestri => string!(explicit::<false>, to_ecx),
        Mnemonic::Pcmpestri64 => string!(explicit::<true>, to_ecx),
        Mnemonic::Pcmpestrm => string!(explicit::<false>, to_xmm0),
        Mnemonic::Pcmpestrm64 => string!(explicit::<true>, to_xmm0),
        Mnemonic::Pcmpistri => string!(implicit, to_ecx),
        Mnemonic::Pcmpistrm => string!(implicit, to_xmm0),
        _ => return None,
    })
}
