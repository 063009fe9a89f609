//! Instruction families: each chooses handlers for its mnemonics and contains them.
//!
//! A family is a module with `select`, which looks at the decoded instruction, finishes the op and gives the
//! handler, or `None` when the instruction is not its own. What no family knows raises #UD.
//!
//! Conventions: a handler checks, loads and raises before it changes anything; memory is stored before
//! registers and flags change ([`Vcpu::modify`](crate::exec::Vcpu::modify) sees to that for read-modify-write); control transfers and
//! whatever changes how the next instruction is found mark their op with
//! [`Insn::ends`](crate::exec::Insn::ends).

mod alu;
mod bcd;
mod bit;
mod control;
mod far;
mod fast_call;
mod feature;
mod flags;
mod io;
#[cfg(target_arch = "x86_64")]
mod mmx;
mod mov;
mod msr;
mod muldiv;
mod operand;
mod privilege;
mod segment;
mod shift;
#[cfg(target_arch = "x86_64")]
mod sse;
mod stack;
mod string;
mod table;
mod width;
#[cfg(target_arch = "x86_64")]
mod x87;

use crate::exec::{Handler, Insn};
pub(crate) use control::make_side_exit;
pub(crate) use width::by_width;

/// The handler for an instruction.
pub(crate) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    const FAMILIES: &[fn(&mut Insn<'_>) -> Option<Handler>] = &[
        mov::select,
        alu::select,
        control::select,
        stack::select,
        shift::select,
        string::select,
        bit::select,
        muldiv::select,
        bcd::select,
        #[cfg(target_arch = "x86_64")]
        sse::select,
        #[cfg(target_arch = "x86_64")]
        x87::select,
        #[cfg(target_arch = "x86_64")]
        mmx::select,
    ];
    /// Those that do more than change registers, flags and memory.
    const SYSTEM: &[fn(&mut Insn<'_>) -> Option<Handler>] = &[
        flags::select,
        io::select,
        segment::select,
        privilege::select,
        far::select,
        table::select,
        fast_call::select,
        msr::select,
    ];
    if !feature::offered(insn) {
        return None;
    }
    if let Some(handler) = FAMILIES.iter().find_map(|family| family(insn)) {
        return Some(handler);
    }
    let handler = SYSTEM.iter().find_map(|family| family(insn))?;
    insn.op.flags |= crate::exec::flag::SERIAL;
    Some(handler)
}
