//! Accesses of a block that lie side by side share one look into the TLB.
//!
//! A function's frame, the fields of one object, what is pushed and popped: such addresses differ by a constant, and mostly lie in
//! one page. The first access of a group looks up the whole stretch from its lowest to its highest byte with one comparison, as
//! any access does, and keeps a host pointer; the others are made beside that, without a look and without
//! spoiling the flags. In 32-bit code, which leaves four of the host's registers free, the pointer is in one of those.
//!
//! Nothing can take a pointer's page away meanwhile: the tables change by handlers alone, and one that drops entries ends
//! the block ([`Vcpu::execute_site`](crate::exec::Vcpu)). What is filled in place of an entry takes nothing away.
//!
//! Where the stretch cannot be looked up, the handler executes the first access, and the look is made again. If it fails then, too
//! (the stretch crosses a page, or may be read but not written), handlers execute the rest of the block, and a block to which that
//! happens often is translated again without groups.
//!
//! Rejected: a second copy of the block for that case (twice the code, and twice the time to make it, for what is rare), and
//! pointers kept from block to block, which each way into a block would have to agree on.

use core::mem::offset_of;

use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

use super::abi::{RAX, RCX};
use super::asm::{Label, at, frame};
use super::memory::{Address, Want};
use super::plain;
use super::translate::{Block, Site, Unsupported};
use super::values::{number, writes};
use crate::exec::{Frame, LoopWords, ModeKey, Op};
use crate::state::{CodeSize, gpr};

/// The longest stretch, in bytes. The longer, the more often it crosses a page.
const SPAN: i64 = 512;
/// Groups of a block that have a place for a pointer.
const GROUPS: usize = 8;
/// Host registers that 32-bit code leaves free, from R9 on.
const FREE: usize = 4;
/// Displacements beyond this are not grouped, so that no sum of them leaves 32 bits.
const FAR: u64 = 1 << 30;

/// A register's value: something unknown, and what has been added to it since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Value {
    of: u32,
    add: i64,
}

/// What the addresses of a group have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    base: Option<u32>,
    index: Option<(u32, u32)>,
    /// FS or GS, and how often they may have changed.
    segment: Option<(usize, u32)>,
}

/// One access of a group.
#[derive(Clone, Copy, Debug)]
struct Member {
    group: usize,
    /// Distance from the group's origin.
    from: i64,
    address: Address,
    want: Want,
}

#[derive(Debug)]
struct Group {
    key: Key,
    /// It is looked up to be written.
    write: bool,
    low: i64,
    high: i64,
    /// An access that must be aligned to 16 bytes.
    aligned: Option<i64>,
    count: usize,
    /// Number of the place for its pointer.
    place: Option<usize>,
    /// The pointer is there.
    live: bool,
    /// It was looked up for all members.
    whole: bool,
    /// Its addresses are the same at each turn of a block that jumps back to itself.
    lasting: bool,
}

/// The groups of one block.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// By op.
    members: Vec<Option<Member>>,
    groups: Vec<Group>,
}

/// What a look for a whole group covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Of the lowest byte.
    address: Address,
    want: Want,
    /// Distance of that from the group's origin.
    low: i64,
    /// Distance from there to an access that must be aligned.
    aligned: Option<i64>,
    /// Number of the place for the pointer.
    place: usize,
}

/// A look for a whole group that missed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Regroup {
    stretch: Stretch,
    /// The site of the ops behind the first access, and RIP behind them.
    rest: u32,
    end: u64,
}

/// Follows what registers hold.
struct Tracker<'a> {
    regs: [Value; 16],
    next: u32,
    segments: u32,
    mode: &'a ModeKey,
}

impl Tracker<'_> {
    fn wide(&self) -> bool {
        self.mode.code == CodeSize::Bits64
    }

    fn fresh(&mut self) -> Value {
        self.next += 1;
        Value {
            of: self.next,
            add: 0,
        }
    }

    fn plus(&self, v: Value, by: i64) -> Value {
        let add = v.add.wrapping_add(by);
        Value {
            of: v.of,
            add: if self.wide() { add } else { i64::from(add as i32) },
        }
    }

    fn follow(&mut self, i: &Instruction, op: &Op, info: &mut InstructionInfoFactory) {
        let before = self.regs;
        let known = self.result(i, &before);
        let switches = matches!(
            i.mnemonic(),
            Mnemonic::Swapgs | Mnemonic::Wrfsbase | Mnemonic::Wrgsbase | Mnemonic::Pop | Mnemonic::Mov
        );
        let selector = (0..i.op_count())
            .any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_segment_register());
        let named = matches!(i.mnemonic(), Mnemonic::Pop | Mnemonic::Mov);
        if super::hands_over(op) || switches && (selector || !named) {
            self.segments += 1;
        }
        for r in info.info(i).used_registers() {
            if r.register().is_gpr() && writes(r.access()) {
                self.regs[number(r.register())] = self.fresh();
            }
        }
        if let Some((r, value)) = known {
            self.regs[r] = value;
        }
        match stack_move(i) {
            // POP RSP: what was popped.
            Some(by) if !(i.mnemonic() == Mnemonic::Pop && is_register(i, gpr::RSP)) => {
                self.regs[gpr::RSP] = self.plus(before[gpr::RSP], by);
            }
            _ => {}
        }
        if matches!(i.code(), Code::Leaveq | Code::Leaved) {
            let bytes = if self.wide() { 8 } else { 4 };
            self.regs[gpr::RSP] = self.plus(before[gpr::RBP], bytes);
        }
    }

    /// The register that `i` writes, and what it holds then, if that is a sum.
    fn result(&self, i: &Instruction, before: &[Value; 16]) -> Option<(usize, Value)> {
        if i.op_count() == 0 || i.op0_kind() != OpKind::Register || i.has_lock_prefix() {
            return None;
        }
        let whole = if self.wide() { 8 } else { 4 };
        let r0 = i.op0_register();
        if !r0.is_gpr() || r0.size() != whole {
            return None;
        }
        let r = number(r0);
        let constant = (i.op_count() == 2)
            .then(|| i.try_immediate(1).ok())
            .flatten()
            .map(|v| v as i64);
        let value = match (i.mnemonic(), constant) {
            (Mnemonic::Mov, None) if i.op1_kind() == OpKind::Register && i.op1_register().is_gpr() => {
                before[number(i.op1_register())]
            }
            (Mnemonic::Add, Some(c)) => self.plus(before[r], c),
            (Mnemonic::Sub, Some(c)) => self.plus(before[r], c.checked_neg()?),
            (Mnemonic::Inc, _) => self.plus(before[r], 1),
            (Mnemonic::Dec, _) => self.plus(before[r], -1),
            (Mnemonic::Lea, _)
                if i.memory_index() == Register::None
                    && i.memory_base().is_gpr()
                    && i.memory_base().size() == whole =>
            {
                let disp = i.memory_displacement64() as i64;
                self.plus(before[number(i.memory_base())], disp)
            }
            _ => return None,
        };
        Some((r, value))
    }

    /// Behind the block: whether `key` names the same at its start and now.
    fn lasts(&self, key: &Key) -> bool {
        let same = |of: u32| {
            self.regs
                .get(of as usize)
                .is_some_and(|v| *v == Value { of, add: 0 })
        };
        key.base.is_none_or(same)
            && key.index.is_none_or(|(of, _)| same(of))
            && key.segment.is_none_or(|_| self.segments == 0)
    }

    /// What the addresses beside `a` have in common, and how far `a` is from there.
    fn place(&self, a: &Address) -> (Key, i64) {
        let base = a.base.map(|n| self.regs[n]);
        let index = a.index.map(|(n, s)| (self.regs[n], s));
        let from = a
            .disp
            .wrapping_add(base.map_or(0, |v| v.add))
            .wrapping_add(index.map_or(0, |(v, s)| v.add.wrapping_mul(i64::from(s))));
        let key = Key {
            base: base.map(|v| v.of),
            index: index.map(|(v, s)| (v.of, s)),
            segment: a.segment.map(|s| (s, self.segments)),
        };
        (key, if self.wide() { from } else { i64::from(from as i32) })
    }
}

fn is_register(i: &Instruction, n: usize) -> bool {
    i.op0_kind() == OpKind::Register && i.op0_register().is_gpr() && number(i.op0_register()) == n
}

/// How far `i` moves the stack pointer, if that is all it does to it.
fn stack_move(i: &Instruction) -> Option<i64> {
    use Mnemonic::*;
    matches!(
        i.mnemonic(),
        Push | Pop | Pushf | Pushfd | Pushfq | Popf | Popfd | Popfq | Call | Ret
    )
    .then(|| i64::from(i.stack_pointer_increment()))
}

/// The one access of `i` that may be made beside a pointer, as its translation will ask for it.
fn access(i: &Instruction, mode: &ModeKey, info: &mut InstructionInfoFactory) -> Option<(Address, Want)> {
    let bytes = if mode.code == CodeSize::Bits64 { 8 } else { 4 };
    let stacked = |disp: i64, want| Some((Address::based(gpr::RSP, disp), want));
    let below = -(bytes as i64);
    let whole = |i: &Instruction| {
        i.op0_kind() == OpKind::Register && i.op0_register().is_gpr() && i.op0_register().size() == bytes
    };
    match i.mnemonic() {
        Mnemonic::Push => {
            let immediate = i.op0_kind() != OpKind::Register
                && i.op0_kind() != OpKind::Memory
                && i64::from(i.stack_pointer_increment()) == below;
            return (whole(i) || immediate)
                .then(|| stacked(below, Want::write(bytes)))
                .flatten();
        }
        Mnemonic::Pop => return whole(i).then(|| stacked(0, Want::read(bytes))).flatten(),
        Mnemonic::Leave => {
            let code = if bytes == 8 { Code::Leaveq } else { Code::Leaved };
            return (i.code() == code).then(|| (Address::based(gpr::RBP, 0), Want::read(bytes)));
        }
        Mnemonic::Call => {
            let direct = if bytes == 8 {
                OpKind::NearBranch64
            } else {
                OpKind::NearBranch32
            };
            return (i.op0_kind() == direct)
                .then(|| stacked(below, Want::write(bytes)))
                .flatten();
        }
        Mnemonic::Ret => {
            let near = matches!(
                (i.code(), bytes),
                (Code::Retnq | Code::Retnq_imm16, 8) | (Code::Retnd | Code::Retnd_imm16, 4)
            );
            return near.then(|| stacked(0, Want::read(bytes))).flatten();
        }
        Mnemonic::Lea | Mnemonic::Imul if i.op_count() < 2 => return None,
        Mnemonic::Lea => return None,
        _ => {}
    }
    let operand = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory)?;
    if !plain::one_access(i, mode) {
        return None;
    }
    let bytes = i.memory_size().size();
    let write = writes(info.info(i).op_access(operand));
    let address = Address::of(i, mode).ok()?;
    let aligned = plain::must_be_aligned(i, mode);
    matches!(bytes, 1 | 2 | 4 | 8 | 16).then_some((
        address,
        Want {
            bytes,
            write,
            aligned,
        },
    ))
}

impl Groups {
    /// The groups of a straight block.
    pub fn of(code: &[Instruction], ops: &[Op], mode: &ModeKey, info: &mut InstructionInfoFactory) -> Self {
        let mut tracker = Tracker {
            regs: core::array::from_fn(|n| Value { of: n as u32, add: 0 }),
            next: 16,
            segments: 0,
            mode,
        };
        let mut all = Self::default();
        for (i, op) in code.iter().zip(ops) {
            let member = access(i, mode, info).and_then(|(address, want)| {
                let (key, from) = tracker.place(&address);
                let stack = matches!(address.base, Some(gpr::RSP | gpr::RBP));
                all.join(key, from, address, want, stack)
            });
            all.members.push(member);
            tracker.follow(i, op, info);
        }
        let mut by_count: Vec<usize> = (0..all.groups.len())
            .filter(|&g| all.groups[g].count > 1)
            .collect();
        by_count.sort_by_key(|&g| core::cmp::Reverse(all.groups[g].count));
        for (place, &g) in by_count.iter().take(GROUPS).enumerate() {
            all.groups[g].place = Some(place);
        }
        for g in &mut all.groups {
            g.lasting = tracker.lasts(&g.key);
        }
        all
    }

    /// Forgets the pointers that the next turn of the block cannot rely on, and gives the numbers of the other groups.
    pub fn keep_lasting(&mut self) -> Vec<usize> {
        for g in &mut self.groups {
            g.live &= g.whole && g.lasting;
        }
        (0..self.groups.len()).filter(|&n| self.groups[n].live).collect()
    }

    /// Finds a group for an access, or makes one. A write joins reads only on a `stack`: elsewhere the page may be clean, and the look for
    /// both would fail where the read alone had not.
    fn join(&mut self, key: Key, from: i64, address: Address, want: Want, stack: bool) -> Option<Member> {
        let end = from.checked_add(want.bytes as i64)?;
        if from.unsigned_abs() > FAR || address.disp.unsigned_abs() > FAR {
            return None;
        }
        let constant = key.base.is_none() && key.index.is_none() && key.segment.is_none();
        let fits = |g: &Group| {
            let (low, high) = (g.low.min(from), g.high.max(end));
            g.key == key
                && high - low <= SPAN
                && !(constant && (low ^ (high - 1)) & !0xFFF != 0)
                && !(want.aligned && g.aligned.is_some_and(|a| (a - from) % 16 != 0))
        };
        // What may be written may be read. What a stack holds has been written, mostly in the same page.
        let written = self.groups.iter().position(|g| g.write && fits(g));
        let read = || self.groups.iter().position(|g| (stack || !want.write) && fits(g));
        let n = written.or_else(read).unwrap_or_else(|| {
            self.groups.push(Group {
                key,
                write: want.write,
                low: from,
                high: end,
                aligned: None,
                count: 0,
                place: None,
                live: false,
                whole: false,
                lasting: false,
            });
            self.groups.len() - 1
        });
        let g = &mut self.groups[n];
        g.low = g.low.min(from);
        g.high = g.high.max(end);
        g.count += 1;
        g.write |= want.write;
        if want.aligned {
            g.aligned = Some(from);
        }
        Some(Member {
            group: n,
            from,
            address,
            want,
        })
    }

    /// The access of op `n` if it is this one and has a group with a place.
    fn member(&self, n: usize, address: &Address, want: Want) -> Option<(Member, usize)> {
        let m = (*self.members.get(n)?)?;
        let place = self.groups[m.group].place?;
        (m.address == *address && m.want == want).then_some((m, place))
    }

    /// Whether the pointer for this access of op `n` is there.
    fn known(&self, n: usize, address: &Address, want: Want) -> bool {
        self.member(n, address, want)
            .is_some_and(|(m, _)| self.groups[m.group].live)
    }

    /// Op `n`, whose access was to find its group's pointer, is left to its handler.
    pub fn forget(&mut self, n: usize) {
        if let Some(Some(m)) = self.members.get(n) {
            self.groups[m.group].live = false;
        }
    }

    /// The stretch of the members of `group` from op `n` on: low end, high end, one that must be aligned, and how many.
    fn rest(&self, group: usize, n: usize) -> (i64, i64, Option<i64>, usize) {
        let mut out = (i64::MAX, i64::MIN, None, 0);
        for m in self.members[n..].iter().flatten().filter(|m| m.group == group) {
            out.0 = out.0.min(m.from);
            out.1 = out.1.max(m.from + m.want.bytes as i64);
            if m.want.aligned {
                out.2 = Some(m.from);
            }
            out.3 += 1;
        }
        out
    }
}

impl Block<'_> {
    /// To be called before an access is looked up: sees to the flags, unless the look will leave them alone.
    pub(super) fn before_access(&mut self, address: &Address, want: Want) {
        if !self.groups.known(self.n, address, want) {
            self.spoil_flags();
        }
    }

    /// As [`Self::look`](Block::look), by the pointer of the access's group if it has one: then `miss` may stay unused and the host's
    /// flags as they are.
    pub(super) fn probe(
        &mut self,
        address: &Address,
        want: Want,
        miss: Label,
    ) -> Result<iced_x86::MemoryOperand, Unsupported> {
        let Some((m, place)) = self.groups.member(self.n, address, want) else {
            return self.look(address, want, miss);
        };
        if !self.groups.groups[m.group].live {
            let (low, high, aligned, count) = self.groups.rest(m.group, self.n);
            if count < 2 {
                return self.look(address, want, miss);
            }
            let lowest = Address {
                disp: address.disp + (low - m.from),
                ..*address
            };
            let all = Want {
                bytes: (high - low) as usize,
                write: self.groups.groups[m.group].write,
                aligned: false,
            };
            let found = self.look(&lowest, all, miss)?;
            let pointer = self.pointer(place);
            self.asm.rm(Code::Lea_r64_m, pointer, found);
            let stretch = Stretch {
                address: lowest,
                want: all,
                low,
                aligned: aligned.map(|a| a - low),
                place,
            };
            self.finish_pointer(&stretch, miss);
            let group = &mut self.groups.groups[m.group];
            group.live = true;
            group.whole = count == group.count;
            self.looked_up = Some(stretch);
            return Ok(at(pointer, m.from));
        }
        self.shared += 1;
        let pointer = self.pointer(place);
        if pointer == RCX {
            self.asm.rm(Code::Mov_r64_rm64, RCX, slot(place));
        }
        Ok(at(pointer, m.from))
    }

    /// The host register that the pointer at `place` is used in.
    fn pointer(&self, place: usize) -> Register {
        if self.mode.code == CodeSize::Bits32 && place < FREE {
            Register::R9 + place as u32
        } else {
            RCX
        }
    }

    /// From the address of the lowest byte to the pointer, which is relative to the group's origin. RAX is spoiled.
    fn finish_pointer(&mut self, s: &Stretch, miss: Label) {
        let pointer = self.pointer(s.place);
        if let Some(a) = s.aligned {
            self.asm.rm(Code::Lea_r64_m, RAX, at(pointer, a));
            self.asm.ri(Code::Test_rm8_imm8, Register::AL, 15);
            self.asm.branch(Code::Jne_rel32_64, miss);
        }
        if s.low != 0 {
            self.asm.rm(Code::Lea_r64_m, pointer, at(pointer, -s.low));
        }
        if pointer == RCX {
            self.asm.mr(Code::Mov_rm64_r64, slot(s.place), RCX);
        }
    }

    /// What the cold path of the op in hand has to know of a group that it looked up.
    pub(super) fn take_regroup(&mut self) -> Option<Regroup> {
        let stretch = self.looked_up.take()?;
        let op = &self.ops[self.n + 1];
        let rest = self.push_site(Site {
            op: core::ptr::from_ref(op),
            next: self.next.wrapping_add(u64::from(op.len)),
            count: (self.ops.len() - self.n - 1) as u32,
            unit: true,
            line: 0,
            rest_of: Some(self.number),
        });
        let end = self.ops[self.n + 1..]
            .iter()
            .fold(self.next, |at, op| at.wrapping_add(u64::from(op.len)));
        Some(Regroup { stretch, rest, end })
    }

    /// On the cold path, before the handler: keeps the linear address of the lowest byte.
    pub(super) fn keep_linear(&mut self, r: &Regroup) {
        // The look before the handler has computed it, too.
        let linear = self
            .linear_of(&r.stretch.address)
            .expect("an address that was looked up");
        self.asm.mr(Code::Mov_rm64_r64, kept(), linear);
    }

    /// Behind the handler: looks again. What fails goes to `hard`.
    pub(super) fn look_again(&mut self, r: &Regroup, hard: Label) {
        let s = &r.stretch;
        self.asm.rm(Code::Mov_r64_rm64, RCX, kept());
        self.asm
            .rm(Code::Lea_r64_m, RAX, at(RCX, s.want.bytes as i64 - 1));
        self.compare_at(s.want, hard);
        self.asm.rm(Code::Add_r64_rm64, RCX, kept());
        let pointer = self.pointer(s.place);
        if pointer != RCX {
            self.asm.rr(Code::Mov_r64_rm64, pointer, RCX);
        }
        self.finish_pointer(s, hard);
    }

    /// At `hard`: handlers execute the rest of the block.
    pub(super) fn rest_by_handlers(&mut self, r: &Regroup, hard: Label) {
        self.asm.bind(hard);
        self.asm.constant(RAX, u64::from(r.rest));
        let thunks = self.thunks();
        self.asm.branch_to(Code::Call_rel32_64, thunks.slow);
        self.asm.constant(RAX, r.end);
        self.asm.branch_to(Code::Jmp_rel32_64, thunks.next);
    }
}

/// Where the pointer at `place` is in the frame.
fn slot(place: usize) -> iced_x86::MemoryOperand {
    frame(offset_of!(Frame, looped) + offset_of!(LoopWords, pointers) + place * 8)
}

/// Where a linear address waits for the handler.
fn kept() -> iced_x86::MemoryOperand {
    frame(offset_of!(Frame, scratch))
}

const _: () = assert!(GROUPS <= super::induction::GROUPS);
