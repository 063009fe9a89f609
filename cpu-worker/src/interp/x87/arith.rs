//! Arithmetic, comparison and transcendental instructions.

use iced_x86::{MemorySize, Mnemonic};

use super::waiting;
use crate::exec::{Handler, Insn, flag};
use crate::fp::F80;
use crate::fp::x87::{kernel, status};

/// The handler of `ST(dst) op= ST(src)` and of its memory forms.
macro_rules! arith {
    ($insn:ident, $register:ident, $m32:ident, $m64:ident) => {
        match memory($insn) {
            None => waiting!(|cpu, op| cpu.state.fpu.arith(kernel::$register, op.dst, op.src, 0)),
            Some(MemorySize::Float32) => waiting!(|cpu, op| {
                let v = cpu.load::<u32>(op)?;
                cpu.state.fpu.arith_memory(kernel::$m32, &v);
            }),
            Some(_) => waiting!(|cpu, op| {
                let v = cpu.load::<u64>(op)?;
                cpu.state.fpu.arith_memory(kernel::$m64, &v);
            }),
        }
    };
}

/// The handler of the form that pops.
macro_rules! arith_pop {
    ($kernel:ident) => {
        waiting!(|cpu, op| cpu.state.fpu.arith(kernel::$kernel, op.dst, op.src, 1))
    };
}

/// The handler of the form with an integer in memory.
macro_rules! arith_integer {
    ($insn:ident, $i16:ident, $i32:ident) => {
        if memory($insn) == Some(MemorySize::Int16) {
            waiting!(|cpu, op| {
                let v = cpu.load::<u16>(op)?;
                cpu.state.fpu.arith_memory(kernel::$i16, &v);
            })
        } else {
            waiting!(|cpu, op| {
                let v = cpu.load::<u32>(op)?;
                cpu.state.fpu.arith_memory(kernel::$i32, &v);
            })
        }
    };
}

/// FCOM and FCOMP.
macro_rules! compare {
    ($insn:ident, $pops:literal) => {
        match memory($insn) {
            None => waiting!(|cpu, op| cpu.state.fpu.compare(kernel::com, op.src, $pops)),
            Some(MemorySize::Float32) => waiting!(|cpu, op| {
                let v = cpu.load::<u32>(op)?;
                cpu.state.fpu.compare_memory(kernel::com_m32, &v, $pops);
            }),
            Some(_) => waiting!(|cpu, op| {
                let v = cpu.load::<u64>(op)?;
                cpu.state.fpu.compare_memory(kernel::com_m64, &v, $pops);
            }),
        }
    };
}

/// FICOM and FICOMP.
macro_rules! compare_integer {
    ($insn:ident, $pops:literal) => {
        if memory($insn) == Some(MemorySize::Int16) {
            waiting!(|cpu, op| {
                let v = cpu.load::<u16>(op)?;
                cpu.state.fpu.compare_memory(kernel::com_i16, &v, $pops);
            })
        } else {
            waiting!(|cpu, op| {
                let v = cpu.load::<u32>(op)?;
                cpu.state.fpu.compare_memory(kernel::com_i32, &v, $pops);
            })
        }
    };
}

/// FCOMI and its relatives, which set EFLAGS: ZF, PF and CF from the comparison, the others cleared.
macro_rules! compare_flags {
    ($kernel:ident, $pops:literal) => {
        waiting!(|cpu, op| {
            let flags = cpu.state.fpu.compare_flags(kernel::$kernel, op.src, $pops);
            cpu.state.flags.set_arithmetic(flags.into());
        })
    };
}

macro_rules! move_if {
    ($condition:literal) => {
        waiting!(|cpu, op| {
            let condition = cpu.state.flags.condition($condition);
            cpu.state.fpu.move_if(condition, op.src);
        })
    };
}

fn memory(insn: &Insn<'_>) -> Option<MemorySize> {
    insn.op.has(flag::MEM).then(|| insn.i.memory_size())
}

/// Condition codes that FSIN and the like define.
const RANGE: u16 = status::C1 | status::C2;

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Fadd => arith!(insn, add, add_m32, add_m64),
        Mnemonic::Fmul => arith!(insn, mul, mul_m32, mul_m64),
        Mnemonic::Fsub => arith!(insn, sub, sub_m32, sub_m64),
        Mnemonic::Fsubr => arith!(insn, subr, subr_m32, subr_m64),
        Mnemonic::Fdiv => arith!(insn, div, div_m32, div_m64),
        Mnemonic::Fdivr => arith!(insn, divr, divr_m32, divr_m64),
        Mnemonic::Faddp => arith_pop!(add),
        Mnemonic::Fmulp => arith_pop!(mul),
        Mnemonic::Fsubp => arith_pop!(sub),
        Mnemonic::Fsubrp => arith_pop!(subr),
        Mnemonic::Fdivp => arith_pop!(div),
        Mnemonic::Fdivrp => arith_pop!(divr),
        Mnemonic::Fiadd => arith_integer!(insn, add_i16, add_i32),
        Mnemonic::Fimul => arith_integer!(insn, mul_i16, mul_i32),
        Mnemonic::Fisub => arith_integer!(insn, sub_i16, sub_i32),
        Mnemonic::Fisubr => arith_integer!(insn, subr_i16, subr_i32),
        Mnemonic::Fidiv => arith_integer!(insn, div_i16, div_i32),
        Mnemonic::Fidivr => arith_integer!(insn, divr_i16, divr_i32),
        Mnemonic::Fcom => compare!(insn, 0),
        Mnemonic::Fcomp => compare!(insn, 1),
        Mnemonic::Fcompp => waiting!(|cpu, _op| cpu.state.fpu.compare(kernel::com, 1, 2)),
        Mnemonic::Ficom => compare_integer!(insn, 0),
        Mnemonic::Ficomp => compare_integer!(insn, 1),
        Mnemonic::Fucom => waiting!(|cpu, op| cpu.state.fpu.compare(kernel::ucom, op.src, 0)),
        Mnemonic::Fucomp => waiting!(|cpu, op| cpu.state.fpu.compare(kernel::ucom, op.src, 1)),
        Mnemonic::Fucompp => waiting!(|cpu, _op| cpu.state.fpu.compare(kernel::ucom, 1, 2)),
        Mnemonic::Fcomi => compare_flags!(comi, 0),
        Mnemonic::Fcomip => compare_flags!(comi, 1),
        Mnemonic::Fucomi => compare_flags!(ucomi, 0),
        Mnemonic::Fucomip => compare_flags!(ucomi, 1),
        Mnemonic::Ftst => waiting!(|cpu, _op| cpu.state.fpu.test()),
        Mnemonic::Fxam => waiting!(|cpu, _op| cpu.state.fpu.examine()),
        Mnemonic::Fabs => waiting!(|cpu, _op| cpu.state.fpu.sign(F80::abs)),
        Mnemonic::Fchs => waiting!(|cpu, _op| cpu.state.fpu.sign(F80::negate)),
        Mnemonic::Fsqrt => waiting!(|cpu, _op| cpu.state.fpu.unary(kernel::sqrt, status::C1)),
        Mnemonic::Frndint => waiting!(|cpu, _op| cpu.state.fpu.unary(kernel::rndint, status::C1)),
        Mnemonic::F2xm1 => waiting!(|cpu, _op| cpu.state.fpu.unary(kernel::f2xm1, status::C1)),
        Mnemonic::Fsin => waiting!(|cpu, _op| cpu.state.fpu.unary(kernel::sin, RANGE)),
        Mnemonic::Fcos => waiting!(|cpu, _op| cpu.state.fpu.unary(kernel::cos, RANGE)),
        Mnemonic::Fsincos => waiting!(|cpu, _op| cpu.state.fpu.pushing(kernel::sincos, RANGE)),
        Mnemonic::Fptan => waiting!(|cpu, _op| cpu.state.fpu.pushing(kernel::tan, RANGE)),
        Mnemonic::Fxtract => waiting!(|cpu, _op| cpu.state.fpu.pushing(kernel::xtract, status::C1)),
        Mnemonic::Fpatan => waiting!(|cpu, _op| cpu.state.fpu.popping(kernel::patan)),
        Mnemonic::Fyl2x => waiting!(|cpu, _op| cpu.state.fpu.popping(kernel::yl2x)),
        Mnemonic::Fyl2xp1 => waiting!(|cpu, _op| cpu.state.fpu.popping(kernel::yl2xp1)),
        Mnemonic::Fscale => waiting!(|cpu, _op| cpu.state.fpu.top_two(kernel::scale, status::C1)),
        Mnemonic::Fprem => waiting!(|cpu, _op| cpu.state.fpu.top_two(kernel::prem, status::CONDITION)),
        Mnemonic::Fprem1 => waiting!(|cpu, _op| cpu.state.fpu.top_two(kernel::prem1, status::CONDITION)),
        Mnemonic::Fcmovb => move_if!(2),
        Mnemonic::Fcmovnb => move_if!(3),
        Mnemonic::Fcmove => move_if!(4),
        Mnemonic::Fcmovne => move_if!(5),
        Mnemonic::Fcmovbe => move_if!(6),
        Mnemonic::Fcmovnbe => move_if!(7),
        Mnemonic::Fcmovu => move_if!(10),
        Mnemonic::Fcmovnu => move_if!(11),
        _ => return None,
    })
}
