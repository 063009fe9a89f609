//! What registers hold along a block, in terms of what they held at its top: as far as it is a copy, a sum with a constant, or an
//! extension of such.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::state::{CodeSize, gpr};

/// How much of a register it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// All 64 bits.
    Wide,
    /// The lower half, zero-extended.
    Zero,
    /// The lower half, sign-extended.
    Sign,
}

/// What is known of a register in terms of the registers at the top.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Any,
    /// `of` at the top, plus `add`, plus once the register `step`.
    Sum {
        of: usize,
        add: i64,
        kind: Kind,
        step: Option<usize>,
    },
}

/// The value of each register at one place.
#[derive(Clone, Debug)]
pub(super) struct Values {
    of: [Value; 16],
    code: CodeSize,
    /// Guest registers that the block writes.
    written: u16,
}

impl Values {
    /// At the top of a block of `code` that writes the registers in `written`.
    pub fn at_top(code: CodeSize, written: u16) -> Self {
        let kind = if code == CodeSize::Bits64 {
            Kind::Wide
        } else {
            Kind::Zero
        };
        Self {
            of: core::array::from_fn(|of| Value::Sum {
                of,
                add: 0,
                kind,
                step: None,
            }),
            code,
            written,
        }
    }

    /// Of register `r`.
    pub fn of(&self, r: usize) -> Value {
        self.of[r]
    }

    /// Whether the block leaves register `r` alone.
    pub fn invariant(&self, r: usize) -> bool {
        self.written & 1 << r == 0
    }

    /// What `i` makes of them.
    pub fn follow(&mut self, i: &Instruction, info: &mut InstructionInfoFactory) {
        let before = self.of;
        let mut out = None;
        let register = i.op_count() > 0 && i.op0_kind() == OpKind::Register && i.op0_register().is_gpr();
        if register && i.op0_register().size() >= 4 || i.mnemonic() == Mnemonic::Cdqe {
            out = self.result(i, &before);
        }
        for r in info.info(i).used_registers() {
            if r.register().is_gpr() && writes(r.access()) {
                self.of[number(r.register())] = Value::Any;
            }
        }
        if let Some((r, value)) = out {
            self.of[r] = value;
        }
    }

    /// The value that `i` leaves in the register that it writes, if it is one we follow.
    fn result(&self, i: &Instruction, before: &[Value; 16]) -> Option<(usize, Value)> {
        use Mnemonic::*;
        if i.mnemonic() == Cdqe {
            return Some((gpr::RAX, sign_extended(before[gpr::RAX])));
        }
        let r = number(i.op0_register());
        let wide = i.op0_register().size() == 8;
        let source = (i.op_count() == 2 && i.op1_kind() == OpKind::Register && i.op1_register().is_gpr())
            .then(|| number(i.op1_register()));
        let constant = (i.op_count() == 2)
            .then(|| i.try_immediate(1).ok())
            .flatten()
            .map(|v| v as i64);
        let plus = |v: Value, by: i64| match v {
            Value::Sum { of, add, kind, step } if !wide || kind == Kind::Wide => Value::Sum {
                of,
                add: add.wrapping_add(by),
                kind: if wide { Kind::Wide } else { Kind::Zero },
                step,
            },
            _ => Value::Any,
        };
        let value = match (i.mnemonic(), source, constant) {
            (Mov, Some(s), _) if wide => before[s],
            (Mov, Some(s), _) => match before[s] {
                v @ Value::Sum {
                    kind: Kind::Wide | Kind::Zero,
                    step: None,
                    ..
                } => plus(v, 0),
                _ => Value::Any,
            },
            (Movsxd, Some(s), _) if wide => sign_extended(before[s]),
            (Add, None, Some(c)) => plus(before[r], if wide { c } else { i64::from(c as i32) }),
            (Sub, None, Some(c)) => plus(
                before[r],
                if wide { c } else { i64::from(c as i32) }.checked_neg()?,
            ),
            (Inc, ..) => plus(before[r], 1),
            (Dec, ..) => plus(before[r], -1),
            (Add, Some(s), _) => match plus(before[r], 0) {
                Value::Sum {
                    of,
                    add,
                    kind,
                    step: None,
                } if self.invariant(s) && i.op1_register().size() >= 4 => Value::Sum {
                    of,
                    add,
                    kind,
                    step: Some(s),
                },
                _ => Value::Any,
            },
            (Lea, ..) if i.memory_index() == Register::None && i.memory_base().is_gpr() => {
                let base = i.memory_base();
                let same = base.size() == 8 || self.code == CodeSize::Bits32 && base.size() == 4;
                let disp = i.memory_displacement64() as i64;
                let disp = if wide { disp } else { i64::from(disp as i32) };
                if same {
                    plus(before[number(base)], disp)
                } else {
                    Value::Any
                }
            }
            _ => return None,
        };
        Some((r, value))
    }
}

fn sign_extended(v: Value) -> Value {
    match v {
        Value::Sum {
            of,
            add,
            kind: Kind::Wide | Kind::Zero,
            step: None,
        } => Value::Sum {
            of,
            add,
            kind: Kind::Sign,
            step: None,
        },
        _ => Value::Any,
    }
}

/// The number of a general register, whatever part of it is named.
pub(super) fn number(r: Register) -> usize {
    r.full_register().number()
}

/// Whether an access writes, perhaps.
pub(super) fn writes(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}

/// The general registers that `code` writes, a bit each.
pub(super) fn written(code: &[Instruction], info: &mut InstructionInfoFactory) -> u16 {
    let mut written = 0;
    for i in code {
        for r in info.info(i).used_registers() {
            if r.register().is_gpr() && writes(r.access()) {
                written |= 1 << number(r.register());
            }
        }
    }
    written
}
