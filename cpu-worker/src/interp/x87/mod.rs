//! x87 instructions: what surrounds the arithmetic of [`crate::fp::x87`].
//!
//! A *waiting* instruction first looks at CR0 and then at an exception left pending by an earlier one; a
//! *control* instruction without wait looks at CR0 only. Every instruction that is no control instruction leaves its
//! address, and that of its memory operand, in the unit. Processors since the Pentium 4 keep the opcode, and later
//! ones the data pointer, only for unmasked exceptions; here they are always kept, as older ones do.

mod arith;
mod control;
mod transfer;

use crate::exec::{Flow, Handler, Insn, Op, Vcpu, Vector, flag};
use crate::state::{Cr0, seg};

/// A handler from a body: `|cpu, op| …`, with the checks of a waiting instruction before it and the
/// pointers and FERR# after it.
macro_rules! waiting {
    (|$cpu:ident, $op:ident| $body:expr) => {{
        fn handler($cpu: &mut $crate::exec::Vcpu, $op: &$crate::exec::Op) -> $crate::exec::Flow {
            $cpu.x87_begin()?;
            {
                $body
            };
            $cpu.x87_done($op);
            Ok(())
        }
        handler as $crate::exec::Handler
    }};
}
use waiting;

impl Vcpu {
    /// The checks of a waiting instruction: #NM, then #MF.
    #[inline(always)]
    pub(super) fn x87_begin(&mut self) -> Flow {
        if self.state.cr0.intersects(Cr0::EM | Cr0::TS) || self.state.fpu.is_pending() {
            return self.x87_blocked();
        }
        Ok(())
    }

    /// The check of an instruction without wait: #NM.
    #[inline(always)]
    pub(super) fn x87_available(&mut self) -> Flow {
        if self.state.cr0.intersects(Cr0::EM | Cr0::TS) {
            return self.raise(Vector::Nm);
        }
        Ok(())
    }

    #[cold]
    fn x87_blocked(&mut self) -> Flow {
        self.x87_available()?;
        self.check_numeric_error()
    }

    /// #MF if an unmasked exception is pending and CR0.NE is set. With NE clear the exception goes out as
    /// FERR#, raised when it occurred; that the vCPU executes on is what a machine does that asserts IGNNE#.
    pub(super) fn check_numeric_error(&mut self) -> Flow {
        if self.state.fpu.is_pending() && self.state.cr0.contains(Cr0::NE) {
            return self.raise(Vector::Mf);
        }
        Ok(())
    }

    /// After an instruction that is no control instruction.
    #[inline(always)]
    fn x87_done(&mut self, op: &Op) {
        let rip = self.rip().wrapping_sub(u64::from(op.len));
        let unit = &mut self.state.fpu;
        unit.opcode = op.extra;
        unit.instruction_pointer = rip;
        unit.instruction_selector = self.state.segs[seg::CS].selector;
        if op.has(flag::MEM) {
            let offset = self.ea(op);
            self.state.fpu.data_pointer = offset;
            self.state.fpu.data_selector = self.state.segs[op.seg as usize].selector;
        }
        if self.state.fpu.is_pending() {
            self.sync_ferr();
        }
    }

    /// To be called after a change of the masks or of what is pending: drives FERR# from the unit if it is FERR# that
    /// reports exceptions.
    #[cold]
    pub(super) fn sync_ferr(&mut self) {
        self.refresh_x87();
        if !self.state.cr0.contains(Cr0::NE) {
            self.bus.set_ferr(self.state.fpu.is_pending());
            self.check_interrupts_next();
        }
    }
}

/// The 11-bit opcode that the unit keeps: the low bits of the first byte after the prefixes, and the ModRM
/// byte.
fn opcode(bytes: &[u8]) -> u16 {
    let at = bytes.iter().position(|b| (0xd8..=0xdf).contains(b)).unwrap_or(0);
    u16::from(bytes[at] & 7) << 8 | u16::from(bytes.get(at + 1).copied().unwrap_or(0))
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    if insn.bytes.iter().any(|b| (0xd8..=0xdf).contains(b)) {
        let handler = arith::select(insn)
            .or_else(|| transfer::select(insn))
            .or_else(|| control::select(insn))?;
        insn.op.extra = opcode(insn.bytes);
        return Some(handler);
    }
    control::wait(insn)
}
