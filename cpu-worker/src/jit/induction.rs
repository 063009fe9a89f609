//! Loops of one block whose accesses move evenly through memory.
//!
//! Such a loop need not look into the TLB at each access: while every address stays within the page where it was
//! found, the host address moves as the guest's does. Here is found out which blocks are such loops, and what is to be
//! known before they are entered; [`super::looped`] makes their code.
//!
//! An address may be a sum of registers that the loop never writes and of one *step*: a register to which each turn adds a constant, or a register
//! that it never writes. Copies and extensions of a step count, too. What is more complicated stays with the look at each access.

use iced_x86::{Encoder, Instruction, InstructionInfoFactory, MemoryOperand, Mnemonic, OpKind, Register};

use super::live::Effect;
use super::memory::{Address, set_operand};
use super::plain;
use super::values::{self, Kind, Value, Values, number, writes};
use super::{flags, hands_over};
use crate::exec::{ModeKey, Op};
use crate::state::{CodeSize, gpr};

/// Most a step may be, in bytes of address: beyond, a page is left before it was worth while.
pub(super) const FARTHEST: i64 = 256;
/// Most a step may move before its limit is looked at again, and what an access may lie beside it: how far from the
/// ends of its range a step has to stay for sums not to wrap.
pub(super) const MARGIN: i32 = 16 << 10;
/// Bytes that accesses reached by one pointer may span.
const SPAN: i64 = 1024;
/// Most that may be added to a step in an address.
const BESIDE: u64 = 4096;
/// Pointers and steps that there are slots for in the frame.
pub(super) const GROUPS: usize = 8;
/// The same for steps.
pub(super) const STEPS: usize = 4;

/// What a turn adds to a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum By {
    /// So much.
    Constant(i64),
    /// What is in that guest register.
    Register(usize),
}

/// A register that moves evenly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Guest register.
    pub register: usize,
    /// What a turn adds.
    pub by: By,
    /// The narrowest use.
    pub kind: Kind,
    /// What the register has, where the limit is compared, beyond what it will have at the top of the next turn.
    pub ahead: i64,
    /// The least that is added to it in an address.
    pub low: i64,
    /// The step whose limit is this one's, too: the first that moves by the same constant.
    pub leader: usize,
    /// Host register for the limit; without one it is compared in the frame.
    pub limit: Register,
}

/// Accesses that one host pointer serves.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Of the lowest byte, as the registers are at the top.
    pub address: Address,
    /// Bytes from there to the end of the highest.
    pub bytes: usize,
    /// One of them writes.
    pub write: bool,
    /// The distance of an access from the lowest byte that must be aligned to 16 bytes.
    pub aligned: Option<i64>,
    /// Number of the step, and its factor.
    pub step: Option<(usize, u32)>,
    /// Host register for the pointer, which has the step's part taken off.
    pub pointer: Register,
}

/// How to translate a loop.
#[derive(Debug)]
pub(super) struct Plan {
    pub groups: Vec<Group>,
    pub steps: Vec<Step>,
    /// The instructions but for the last jump, with host operands; guest registers are the host's of the same name.
    pub body: Vec<Instruction>,
    /// Where in it the limits are compared: the flags are dead there.
    pub check_at: usize,
    /// Guest registers that are to be in the host's.
    pub used: u16,
    /// Whether it uses XMM registers.
    pub vector: bool,
    /// Whether a turn may look at the flags that it begins with.
    pub flags_live: bool,
}

/// An access in terms of the registers at the top.
struct Found {
    /// Instruction.
    n: usize,
    address: Address,
    bytes: i64,
    write: bool,
    aligned: bool,
    /// The register that moves.
    moving: Option<Moving>,
}

/// A register that moves as an instruction names it.
#[derive(Clone, Copy)]
struct Moving {
    /// The step.
    top: usize,
    /// The register that is named.
    named: usize,
    /// What that has beyond the step at the top.
    add: i64,
    kind: Kind,
    scale: u32,
}

struct Search<'a> {
    code: &'a [Instruction],
    mode: &'a ModeKey,
    info: &'a mut InstructionInfoFactory,
    values: Values,
}

/// The plan for `code`, a block from `start` on, if it is a loop of this kind.
pub(super) fn plan(
    code: &[Instruction],
    ops: &[Op],
    mode: &ModeKey,
    start: u64,
    info: &mut InstructionInfoFactory,
) -> Option<Plan> {
    let (_, body) = code.split_last()?;
    if !super::branch::closes(code, mode, start)
        || !mode.flat
        || body.iter().zip(ops).any(|(i, op)| !usable(i, op, mode))
    {
        return None;
    }
    let (check_at, flags_live) = dead_point(body);
    let check_at = check_at?;
    let written = values::written(body, info);
    if written & 1 << gpr::RSP != 0 {
        return None;
    }
    let search = Search {
        code: body,
        mode,
        info,
        values: Values::at_top(mode.code, written),
    };
    search.run(check_at, flags_live)
}

/// Whether `i` may be in such a loop: it cannot fault but by its memory operand, and its registers are all there is to it.
fn usable(i: &Instruction, op: &Op, mode: &ModeKey) -> bool {
    use Mnemonic::*;
    if hands_over(op) || i.is_string_instruction() || i.is_stack_instruction() || i.has_lock_prefix() {
        return false;
    }
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    match i.mnemonic() {
        _ if i.is_jcc_short_or_near() => true,
        Nop | Endbr32 | Endbr64 | Cdq | Cqo | Cdqe | Cwde | Cbw | Mul => true,
        Xchg | Xadd | Bt | Bts | Btr | Btc => !memory,
        _ => plain::known(i, mode),
    }
}

/// The last place from which on the flags are written before they are read, and whether those at the top may be read.
fn dead_point(body: &[Instruction]) -> (Option<usize>, bool) {
    let mut live = flags::ARITHMETIC;
    let mut last = None;
    for (n, i) in body.iter().enumerate().rev() {
        let effect = Effect::of(i);
        live = live & !effect.writes | effect.reads;
        if i.is_jcc_short_or_near() {
            live = flags::ARITHMETIC;
        }
        if live == 0 && last.is_none() {
            last = Some(n);
        }
    }
    (last, live != 0)
}

impl Search<'_> {
    fn run(mut self, check_at: usize, flags_live: bool) -> Option<Plan> {
        let mut found = Vec::new();
        let mut at_check = self.values.clone();
        for n in 0..self.code.len() {
            if n == check_at {
                at_check = self.values.clone();
            }
            if let Some(f) = self.access(n)? {
                found.push(f);
            }
            self.values.follow(&self.code[n], self.info);
        }
        let mut steps = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut body = self.code.to_vec();
        let mut of_group: Vec<(usize, usize)> = Vec::new();
        found.sort_by_key(|f| f.address.disp);
        for (k, f) in found.iter().enumerate() {
            let step = match f.moving {
                Some(m) => {
                    let n = self.step(&mut steps, m.top, &at_check)?;
                    steps[n].low = steps[n].low.min(m.add);
                    steps[n].kind = steps[n].kind.max(m.kind);
                    Some((n, m.scale.trailing_zeros()))
                }
                None => None,
            };
            of_group.push((k, join(&mut groups, f, step)?));
        }
        if steps.is_empty() || steps.len() > STEPS || groups.len() > GROUPS {
            return None;
        }
        if !groups.iter().all(|g| suits(g, &steps, self.mode.code)) {
            return None;
        }
        let used = self.used(&found)?;
        let mut free = (0..16u16).filter(|&r| r != 4 && used & 1 << r == 0);
        for g in &mut groups {
            g.pointer = Register::RAX + u32::from(free.next()?);
        }
        for (_, s) in steps.iter_mut().enumerate().filter(|(n, s)| s.leader == *n) {
            s.limit = free
                .next()
                .map_or(Register::None, |n| Register::RAX + u32::from(n));
        }
        for &(k, g) in &of_group {
            place(&mut body[found[k].n], &found[k], &groups[g]);
        }
        for i in &mut body {
            i.set_code(plain::general(i.code()));
            if !i.is_jcc_short_or_near() && Encoder::new(64).encode(i, 0).is_err() {
                return None;
            }
        }
        let vector = body.iter().any(|i| {
            (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_xmm())
        });
        Some(Plan {
            groups,
            steps,
            body,
            check_at,
            used,
            vector,
            flags_live,
        })
    }

    /// The access of instruction `n`; `None` when it is of no even kind.
    #[allow(clippy::option_option, reason = "no access is not the same as no plan")]
    fn access(&mut self, n: usize) -> Option<Option<Found>> {
        let i = &self.code[n];
        let Some(operand) = (0..i.op_count()).find(|&o| i.op_kind(o) == OpKind::Memory) else {
            return Some(None);
        };
        if matches!(i.mnemonic(), Mnemonic::Lea | Mnemonic::Nop) {
            return Some(None);
        }
        let bytes = i.memory_size().size();
        if !matches!(bytes, 1 | 2 | 4 | 8 | 16) {
            return None;
        }
        let write = writes(self.info.info(i).op_access(operand));
        let mut address = Address::of(i, self.mode).ok()?;
        let mut moving = None;
        let terms = [address.base.map(|r| (r, 1)), address.index];
        let mut tops = [None; 2];
        for (term, top) in terms.into_iter().zip(&mut tops) {
            let Some((r, scale)) = term else { continue };
            let Value::Sum {
                of,
                add,
                kind,
                step: None,
            } = self.values.of(r)
            else {
                return None;
            };
            address.disp = address.disp.checked_add(add.checked_mul(i64::from(scale))?)?;
            *top = Some((of, scale));
            if !self.values.invariant(of) {
                if add.unsigned_abs() > BESIDE {
                    return None;
                }
                if moving
                    .replace(Moving {
                        top: of,
                        named: r,
                        add,
                        kind,
                        scale,
                    })
                    .is_some()
                {
                    return None;
                }
            } else if self.mode.code == CodeSize::Bits64 && kind != Kind::Wide {
                return None;
            }
        }
        address.base = tops[0].map(|(r, _)| r);
        address.index = tops[1];
        if self.mode.code == CodeSize::Bits32 {
            address.disp = i64::from(address.disp as i32);
        }
        let constant = address.base.is_none() && address.index.is_none() && address.segment.is_none();
        let near = i64::from(i32::MIN / 2)..i64::from(i32::MAX / 2);
        if self.mode.code == CodeSize::Bits64 && !constant && !near.contains(&address.disp) {
            return None;
        }
        Some(Some(Found {
            n,
            address,
            bytes: bytes as i64,
            write,
            aligned: bytes == 16 && plain::vector(i) && !plain::unaligned(i.mnemonic()),
            moving,
        }))
    }

    /// The number of the step of register `top`, new if need be.
    fn step(&self, steps: &mut Vec<Step>, top: usize, at_check: &Values) -> Option<usize> {
        if let Some(n) = steps.iter().position(|s| s.register == top) {
            return Some(n);
        }
        let Value::Sum { of, add, kind, step } = self.values.of(top) else {
            return None;
        };
        let Value::Sum {
            of: checked,
            add: here,
            step: stepped,
            ..
        } = at_check.of(top)
        else {
            return None;
        };
        if of != top || checked != top || kind == Kind::Sign {
            return None;
        }
        let (by, ahead) = match step {
            None if add != 0 && stepped.is_none() => (By::Constant(add), here - add),
            Some(s) if add == 0 && stepped == Some(s) && here == 0 => (By::Register(s), 0),
            _ => return None,
        };
        let alike = steps
            .iter()
            .position(|s| s.by == by && matches!(by, By::Constant(_)));
        steps.push(Step {
            register: top,
            by,
            kind,
            ahead,
            low: 0,
            leader: alike.unwrap_or(steps.len()),
            limit: Register::None,
        });
        Some(steps.len() - 1)
    }

    /// The guest registers that the new body names.
    fn used(&mut self, found: &[Found]) -> Option<u16> {
        let mut used = 0;
        for (n, i) in self.code.iter().enumerate() {
            let mut i = *i;
            if let Some(f) = found.iter().find(|f| f.n == n) {
                let index = f
                    .moving
                    .map_or(Register::None, |m| Register::RAX + m.named as u32);
                set_operand(
                    &mut i,
                    &MemoryOperand::new(Register::None, index, 1, 0, 8, false, Register::None),
                );
            }
            for r in self.info.info(&i).used_registers() {
                if r.register().is_gpr() {
                    used |= 1 << number(r.register());
                }
            }
        }
        (used & 1 << gpr::RSP == 0).then_some(used)
    }
}

/// Finds a group for `f`, or makes one. Accesses come in the order of their displacements.
fn join(groups: &mut Vec<Group>, f: &Found, step: Option<(usize, u32)>) -> Option<usize> {
    let fits = |g: &Group| {
        let from = f.address.disp - g.address.disp;
        g.step == step
            && g.address.base == f.address.base
            && g.address.index == f.address.index
            && g.address.segment == f.address.segment
            && from + f.bytes <= SPAN
            && !(f.aligned && g.aligned.is_some_and(|a| (a - from) % 16 != 0))
    };
    if let Some(n) = groups.iter().position(fits) {
        let g = &mut groups[n];
        let from = f.address.disp - g.address.disp;
        g.bytes = g.bytes.max((from + f.bytes) as usize);
        g.write |= f.write;
        if f.aligned {
            g.aligned = Some(from);
        }
        return Some(n);
    }
    groups.push(Group {
        address: f.address,
        bytes: f.bytes as usize,
        write: f.write,
        aligned: f.aligned.then_some(0),
        step,
        pointer: Register::None,
    });
    Some(groups.len() - 1)
}

/// Whether a group can be served: its step is short, leaves alignment alone, and a constant address lies in one page.
fn suits(g: &Group, steps: &[Step], code: CodeSize) -> bool {
    let moves = match g.step.map(|(n, shift)| (steps[n].by, shift)) {
        None => true,
        Some((By::Constant(c), shift)) => {
            let bytes = c.unsigned_abs() << shift;
            bytes <= FARTHEST as u64 && (g.aligned.is_none() || bytes.is_multiple_of(16))
        }
        Some((By::Register(_), _)) => g.aligned.is_none(),
    };
    let constant = g.address.base.is_none() && g.address.index.is_none() && g.address.segment.is_none();
    let linear = match code {
        CodeSize::Bits64 => g.address.disp as u64,
        _ => g.address.disp as u64 & 0xFFFF_FFFF,
    };
    moves && (!constant || linear % 4096 + g.bytes as u64 <= 4096)
}

/// Gives `i` the operand beside the group's pointer.
fn place(i: &mut Instruction, f: &Found, g: &Group) {
    let from = f.address.disp - g.address.disp;
    let (index, scale, disp) = match f.moving {
        Some(m) => (
            Register::RAX + m.named as u32,
            m.scale,
            from - m.add * i64::from(m.scale),
        ),
        None => (Register::None, 1, from),
    };
    i.set_code(plain::general(i.code()));
    set_operand(
        i,
        &MemoryOperand::new(
            g.pointer,
            index,
            scale,
            disp,
            u32::from(disp != 0),
            false,
            Register::None,
        ),
    );
}
