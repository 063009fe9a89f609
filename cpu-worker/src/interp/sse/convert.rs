//! Conversions between XMM and general or MMX registers.

use iced_x86::Mnemonic;

use super::{handler, pick};
use crate::exec::{Flow, Handler, Insn, Op, Vcpu, flag};
use crate::fp::Xmm;
use crate::fp::sse::{Float, ToInteger, float, integer};

/// `r32/r64, xmm/m`.
fn to_general<T: crate::exec::Int, const MEM: bool>(cpu: &mut Vcpu, op: &Op, kernel: &ToInteger) -> Flow {
    cpu.sse_begin()?;
    let source = cpu.xmm_source::<MEM>(op)?;
    match kernel.execute(&source, &mut cpu.state.mxcsr) {
        Ok(v) => {
            cpu.set_reg(op.dst, T::trunc(v));
            Ok(())
        }
        Err(exception) => Err(cpu.simd_exception(exception)),
    }
}

macro_rules! to_general {
    ($insn:ident, $narrow:ident, $wide:ident) => {
        if $insn.i.op0_register().is_gpr64() {
            pick(
                $insn,
                handler!(|cpu, op| to_general::<u64, false>(cpu, op, &float::$wide)),
                handler!(|cpu, op| to_general::<u64, true>(cpu, op, &float::$wide)),
            )
        } else {
            pick(
                $insn,
                handler!(|cpu, op| to_general::<u32, false>(cpu, op, &float::$narrow)),
                handler!(|cpu, op| to_general::<u32, true>(cpu, op, &float::$narrow)),
            )
        }
    };
}

/// `xmm, r32/r64/m`: the integer is the low quadword of the kernel's source.
fn from_general<T: crate::exec::Int, const MEM: bool>(cpu: &mut Vcpu, op: &Op, kernel: &Float) -> Flow {
    cpu.sse_begin()?;
    let v = if MEM {
        cpu.load::<T>(op)?
    } else {
        cpu.reg::<T>(op.src)
    };
    run(cpu, op.dst, Xmm::new(v.to_u64(), 0), kernel)
}

fn run(cpu: &mut Vcpu, dst: u8, source: Xmm, kernel: &Float) -> Flow {
    let state = &mut cpu.state;
    match kernel.execute(&mut state.xmm[(dst & 15) as usize], &source, &mut state.mxcsr) {
        Ok(()) => Ok(()),
        Err(exception) => Err(cpu.simd_exception(exception)),
    }
}

macro_rules! from_general {
    ($insn:ident, $narrow:ident, $wide:ident) => {{
        let wide = $insn.i.op1_register().is_gpr64()
            || ($insn.op.has(flag::MEM) && $insn.i.memory_size().size() == 8);
        if wide {
            pick(
                $insn,
                handler!(|cpu, op| from_general::<u64, false>(cpu, op, &float::$wide)),
                handler!(|cpu, op| from_general::<u64, true>(cpu, op, &float::$wide)),
            )
        } else {
            pick(
                $insn,
                handler!(|cpu, op| from_general::<u32, false>(cpu, op, &float::$narrow)),
                handler!(|cpu, op| from_general::<u32, true>(cpu, op, &float::$narrow)),
            )
        }
    }};
}

/// `mm, xmm/m`: two integers, the upper half of what `kernel` makes of the low half being dropped.
fn to_mm<const MEM: bool>(cpu: &mut Vcpu, op: &Op, kernel: &Float, low_only: bool) -> Flow {
    cpu.sse_begin()?;
    cpu.check_numeric_error()?;
    let mut source = cpu.xmm_source::<MEM>(op)?;
    if low_only {
        source.quads[1] = 0;
    }
    let mut out = Xmm::ZERO;
    // The unit is taken over even if the conversion then raises an exception.
    cpu.state.fpu.enter_mmx();
    match kernel.execute(&mut out, &source, &mut cpu.state.mxcsr) {
        Ok(()) => {
            cpu.state.fpu.set_mm(op.dst, out.quads[0]);
            Ok(())
        }
        Err(exception) => Err(cpu.simd_exception(exception)),
    }
}

macro_rules! to_mm {
    ($insn:ident, $kernel:ident, $low_only:literal) => {
        pick(
            $insn,
            handler!(|cpu, op| to_mm::<false>(cpu, op, &float::$kernel, $low_only)),
            handler!(|cpu, op| to_mm::<true>(cpu, op, &float::$kernel, $low_only)),
        )
    };
}

/// The two integers of `xmm, mm/m64`.
fn from_mm<const MEM: bool>(cpu: &mut Vcpu, op: &Op) -> Result<Xmm, crate::exec::Exit> {
    cpu.sse_begin()?;
    if !MEM {
        cpu.check_numeric_error()?;
        let v = cpu.state.fpu.registers[(op.src & 7) as usize].mantissa;
        cpu.state.fpu.enter_mmx();
        return Ok(Xmm::new(v, 0));
    }
    Ok(Xmm::new(cpu.load::<u64>(op)?, 0))
}

fn cvtpi2ps<const MEM: bool>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let source = from_mm::<MEM>(cpu, op)?;
    run(cpu, op.dst, source, &float::CVTPI2PS)
}

fn cvtpi2pd<const MEM: bool>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let source = from_mm::<MEM>(cpu, op)?;
    integer::cvtdq2pd(cpu.xmm_mut(op.dst), &source);
    Ok(())
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Cvtss2si => to_general!(insn, CVTSS2SI_32, CVTSS2SI_64),
        Mnemonic::Cvtsd2si => to_general!(insn, CVTSD2SI_32, CVTSD2SI_64),
        Mnemonic::Cvttss2si => to_general!(insn, CVTTSS2SI_32, CVTTSS2SI_64),
        Mnemonic::Cvttsd2si => to_general!(insn, CVTTSD2SI_32, CVTTSD2SI_64),
        Mnemonic::Cvtsi2ss => from_general!(insn, CVTSI2SS_32, CVTSI2SS_64),
        Mnemonic::Cvtsi2sd => from_general!(insn, CVTSI2SD_32, CVTSI2SD_64),
        Mnemonic::Cvtps2pi => to_mm!(insn, CVTPS2DQ, true),
        Mnemonic::Cvttps2pi => to_mm!(insn, CVTTPS2DQ, true),
        Mnemonic::Cvtpd2pi => to_mm!(insn, CVTPD2DQ, false),
        Mnemonic::Cvttpd2pi => to_mm!(insn, CVTTPD2DQ, false),
        Mnemonic::Cvtpi2ps => pick(insn, cvtpi2ps::<false>, cvtpi2ps::<true>),
        Mnemonic::Cvtpi2pd => pick(insn, cvtpi2pd::<false>, cvtpi2pd::<true>),
        _ => return None,
    })
}
