//! SSE to SSE4.2, AES and PCLMULQDQ: operands and checks around the kernels of [`crate::fp::sse`].
//!
//! A handler is made of a *form* (where the operands come from) and a kernel, put together by macro for each
//! instruction, so that the kernel is inlined. Handlers that fetch a kernel from the op were rejected: a
//! second indirect call, and a pointer in the op that the compiler cannot check.

mod arith;
mod convert;
mod hints;
mod lanes;
mod moves;
mod state;

use crate::exec::{Exit, Flow, Handler, Insn, Op, Vcpu, Vector, flag};
use crate::fp::Xmm;
use crate::fp::sse::SimdException;
use crate::state::{Cr0, Cr4};

/// A handler from a body.
macro_rules! handler {
    (|$cpu:ident, $op:ident| $body:expr) => {{
        fn handler($cpu: &mut $crate::exec::Vcpu, $op: &$crate::exec::Op) -> $crate::exec::Flow {
            $body
        }
        handler as $crate::exec::Handler
    }};
}
use handler;

impl Vcpu {
    /// #UD and #NM of an SSE instruction.
    #[inline(always)]
    pub(super) fn sse_begin(&mut self) -> Flow {
        if self.state.cr0.intersects(Cr0::EM | Cr0::TS) || !self.state.cr4.contains(Cr4::OSFXSR) {
            return self.sse_blocked();
        }
        Ok(())
    }

    #[cold]
    fn sse_blocked(&mut self) -> Flow {
        if self.state.cr0.contains(Cr0::EM) || !self.state.cr4.contains(Cr4::OSFXSR) {
            return self.ud();
        }
        self.raise(Vector::Nm)
    }

    /// XMM register `n`.
    #[inline(always)]
    pub(super) fn xmm(&self, n: u8) -> Xmm {
        self.state.xmm[(n & 15) as usize]
    }

    /// XMM register `n`, to be changed.
    #[inline(always)]
    pub(super) fn xmm_mut(&mut self, n: u8) -> &mut Xmm {
        &mut self.state.xmm[(n & 15) as usize]
    }

    /// The source of an instruction of the common form `xmm, xmm/m`: 16 bytes must be aligned, shorter
    /// operands fill the low lanes.
    #[inline(always)]
    pub(super) fn xmm_source<const MEM: bool>(&mut self, op: &Op) -> Result<Xmm, Exit> {
        if !MEM {
            return Ok(self.xmm(op.src));
        }
        match op.size {
            16 => self.load_xmm_aligned(op),
            8 => Ok(Xmm::new(self.load::<u64>(op)?, 0)),
            4 => Ok(Xmm::new(self.load::<u32>(op)?.into(), 0)),
            _ => Ok(Xmm::new(self.load::<u16>(op)?.into(), 0)),
        }
    }

    /// An unmasked SIMD exception: #XM, or #UD if the system does not know that vector.
    #[cold]
    pub(super) fn simd_exception(&mut self, _: SimdException) -> Exit {
        let vector = if self.state.cr4.contains(Cr4::OSXMMEXCPT) {
            Vector::Xm
        } else {
            Vector::Ud
        };
        match self.raise::<()>(vector) {
            Err(exit) => exit,
            Ok(()) => Exit::Fault,
        }
    }
}

/// The register or the memory handler, the size of the memory operand noted in the op.
fn pick(insn: &mut Insn<'_>, register: Handler, memory: Handler) -> Handler {
    if insn.op.has(flag::MEM) {
        insn.op.size = insn.i.memory_size().size() as u8;
        memory
    } else {
        register
    }
}

/// The handlers of `xmm, xmm/m` with a kernel on two registers, given as a closure of op, destination, source.
macro_rules! integer {
    ($insn:expr, $kernel:expr) => {{
        fn run<const MEM: bool>(cpu: &mut $crate::exec::Vcpu, op: &$crate::exec::Op) -> $crate::exec::Flow {
            cpu.sse_begin()?;
            let source = cpu.xmm_source::<MEM>(op)?;
            let kernel: fn(&$crate::exec::Op, &mut $crate::fp::Xmm, &$crate::fp::Xmm) = $kernel;
            kernel(op, cpu.xmm_mut(op.dst), &source);
            Ok(())
        }
        $crate::interp::sse::pick($insn, run::<false>, run::<true>)
    }};
}
use integer;

/// The handlers of `xmm, xmm/m` with a floating-point kernel, given as an expression of the op.
macro_rules! float {
    ($insn:expr, |$op:ident| $kernel:expr) => {{
        fn run<const MEM: bool>(cpu: &mut $crate::exec::Vcpu, $op: &$crate::exec::Op) -> $crate::exec::Flow {
            cpu.sse_begin()?;
            let source = cpu.xmm_source::<MEM>($op)?;
            let state = &mut cpu.state;
            let destination = &mut state.xmm[($op.dst & 15) as usize];
            match $kernel.execute(destination, &source, &mut state.mxcsr) {
                Ok(()) => Ok(()),
                Err(exception) => Err(cpu.simd_exception(exception)),
            }
        }
        $crate::interp::sse::pick($insn, run::<false>, run::<true>)
    }};
}
use float;

/// Whether an operand is an XMM register.
fn names_xmm(insn: &Insn<'_>) -> bool {
    (0..insn.i.op_count()).any(|n| insn.i.op_register(n).is_xmm())
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    // These may name no XMM register, and their mnemonics belong to nobody else.
    let handler = hints::select(insn)
        .or_else(|| state::select(insn))
        .or_else(|| lanes::crc32(insn))
        .or_else(|| convert::select(insn));
    if handler.is_some() {
        return handler;
    }
    if !names_xmm(insn) {
        return None;
    }
    moves::select(insn)
        .or_else(|| lanes::select(insn))
        .or_else(|| arith::select(insn))
}
