//! Which arithmetic flags somebody may still look at behind each instruction of a block.
//!
//! Most flags are overwritten before anything reads them, and then nothing needs to keep, load or save them. But a fault
//! shows them all, and so does whatever is left to a handler: flags are dead only where registers alone are concerned
//! until the next instruction that overwrites them.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::abi;
use super::flags::ARITHMETIC;
use crate::exec::{ModeKey, Op, flag};

const CF: u32 = iced_x86::RflagsBits::CF;
const ZF: u32 = iced_x86::RflagsBits::ZF;

/// What an instruction does to the arithmetic flags, in iced's bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    /// Looked at.
    pub reads: u32,
    /// Overwritten in any case. Undefined ones are what silicon makes of them: from the operands alone.
    pub writes: u32,
    /// Perhaps overwritten: a shift by CL leaves all alone when CL is 0.
    pub may_write: bool,
}

impl Effect {
    /// Of `i`.
    pub fn of(i: &Instruction) -> Self {
        let modified = i.rflags_modified() & ARITHMETIC;
        // Silicon leaves alone what the manual calls undefined.
        let writes = match i.mnemonic() {
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => CF,
            Mnemonic::Bsf | Mnemonic::Bsr => ZF,
            _ if by_cl(i) => 0,
            _ => modified,
        };
        Self {
            reads: i.rflags_read() & ARITHMETIC,
            writes,
            may_write: modified != 0,
        }
    }
}

/// Whether `i` shifts by CL.
pub(super) fn by_cl(i: &Instruction) -> bool {
    let last = i.op_count();
    last > 1
        && i.op_kind(last - 1) == OpKind::Register
        && i.op_register(last - 1) == Register::CL
        && matches!(
            i.mnemonic(),
            Mnemonic::Shl
                | Mnemonic::Shr
                | Mnemonic::Sar
                | Mnemonic::Rol
                | Mnemonic::Ror
                | Mnemonic::Rcl
                | Mnemonic::Rcr
                | Mnemonic::Shld
                | Mnemonic::Shrd
        )
}

/// Whether `i` can neither fault nor come to a handler.
fn quiet(i: &Instruction, op: &Op, mode: &ModeKey) -> bool {
    if op.has(flag::ENDS) {
        return false;
    }
    let simple = matches!(
        i.mnemonic(),
        Mnemonic::Nop | Mnemonic::Pause | Mnemonic::Endbr32 | Mnemonic::Endbr64
    );
    let accumulator = matches!(
        i.mnemonic(),
        Mnemonic::Cdq | Mnemonic::Cqo | Mnemonic::Cdqe | Mnemonic::Cwde | Mnemonic::Cbw
    );
    if simple || accumulator {
        return true;
    }
    if !super::plain::known(i, mode) || i.op_count() < 2 && i.mnemonic() == Mnemonic::Imul {
        return false;
    }
    let mut homes = 0;
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::Register => {
                let r = i.op_register(n);
                let second = matches!(r, Register::AH | Register::BH | Register::CH | Register::DH);
                if second || !r.is_gpr() && !r.is_xmm() {
                    return false;
                }
                homes += usize::from(r.is_gpr() && r.full_register().number() >= abi::FIRST_HOME);
            }
            OpKind::Memory => return i.mnemonic() == Mnemonic::Lea,
            _ => {}
        }
    }
    homes < 2 || !by_cl(i) && homes == 2
}

/// For each instruction the flags that are live behind it.
pub(super) fn after(code: &[Instruction], ops: &[Op], mode: &ModeKey) -> Vec<u32> {
    let mut live = ARITHMETIC;
    let mut out = vec![ARITHMETIC; code.len()];
    for (n, (i, op)) in code.iter().zip(ops).enumerate().rev() {
        out[n] = live;
        if quiet(i, op, mode) {
            let effect = Effect::of(i);
            live = live & !effect.writes | effect.reads;
        } else {
            live = ARITHMETIC;
        }
    }
    out
}
