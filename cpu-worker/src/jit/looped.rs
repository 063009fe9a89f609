//! The code of loops whose accesses move evenly ([`super::induction`]).
//!
//! The block is translated as any other. Where it jumps back to itself for some turns, host pointers and limits are computed, and
//! from then on the loop is the guest's own code: its registers in the host's of the same name, each
//! access beside a pointer, and one comparison a turn for each register that moves. What passes a limit finishes its turn and
//! computes pointers anew.
//!
//! No access in there can miss, so no handler is called, and nothing it relies on changes: the tables
//! change by handlers and at the exit word alone, and the exit word is looked at before each round. A round moves something at
//! each turn and never leaves a page, so it has at most 4096 turns.
//!
//! Looks kept in every turn but hoisted to its top were rejected (three comparisons and a load for each access remain), as was
//! counting the turns down (a division to begin with, where the limit is a sum).

use core::mem::offset_of;

use iced_x86::{Code, Instruction, Register};

use super::abi::{self, RAX, RCX};
use super::asm::{Label, at, frame};
use super::flags::{self, Flags};
use super::induction::{By, MARGIN, Plan, Step};
use super::memory::Want;
use super::translate::{Block, Unsupported};
use super::values::Kind;
use crate::exec::{Frame, LoopWords};

/// Turns before pointers are computed again where a page was missing.
const AGAIN: i32 = 3;
/// The same where a step is too long.
const NEVER: i32 = 1 << 16;
/// Turns that make it worth while to compute pointers at once the next time.
const MANY: u32 = 8;

fn word(offset: usize, n: usize) -> iced_x86::MemoryOperand {
    frame(offset_of!(Frame, looped) + offset + n * 8)
}

fn limit(n: usize) -> iced_x86::MemoryOperand {
    word(offset_of!(LoopWords, limits), n)
}

fn pointer(n: usize) -> iced_x86::MemoryOperand {
    word(offset_of!(LoopWords, pointers), n)
}

fn spared(n: usize) -> iced_x86::MemoryOperand {
    word(offset_of!(LoopWords, spared), n)
}

fn patience() -> iced_x86::MemoryOperand {
    word(offset_of!(LoopWords, patience), 0)
}

fn begun() -> iced_x86::MemoryOperand {
    word(offset_of!(LoopWords, begun), 0)
}

/// How patient the loop at `start` is to begin with; shared by chance with others.
fn first_patience(start: u64) -> iced_x86::MemoryOperand {
    word(offset_of!(LoopWords, first), LoopWords::slot(start))
}

/// The host register with the name of guest register `n`.
fn same(n: usize) -> Register {
    Register::RAX + n as u32
}

impl Plan {
    fn uses(&self, n: usize) -> bool {
        self.used & 1 << n != 0
    }

    /// Whether the loop overwrites host register `r`.
    fn takes(&self, r: Register) -> bool {
        self.uses(r.number())
            || self.groups.iter().any(|g| g.pointer == r)
            || self.steps.iter().any(|s| s.limit == r)
    }

    /// The steps that have a limit.
    fn leaders(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().filter(|(n, s)| s.leader == *n)
    }

    /// Guest registers that the loop has no part in but whose host registers it takes.
    fn displaced(&self) -> impl Iterator<Item = (usize, Register)> {
        (0..16)
            .filter(|&n| !self.uses(n))
            .filter_map(|n| abi::host(n).map(|r| (n, r)))
            .filter(|&(_, r)| self.takes(r))
    }
}

/// A block that is such a loop.
#[derive(Debug)]
pub(super) struct Looped {
    plan: Plan,
    /// The place that it jumps back to.
    top: Label,
    /// Where pointers are computed before the first turn.
    at_once: Label,
}

impl Block<'_> {
    /// At the block's entry.
    pub(super) fn begin_loop(&mut self, plan: Plan) -> Looped {
        let (top, at_once) = (self.asm.label(), self.asm.label());
        if plan.vector {
            self.need_xmm();
        }
        self.asm.rm(Code::Mov_r64_rm64, RAX, first_patience(self.start));
        self.asm.rr(Code::Test_rm64_r64, RAX, RAX);
        self.asm.branch(Code::Je_rel32_64, at_once);
        self.asm.mr(Code::Mov_rm64_r64, patience(), RAX);
        self.asm.bind(top);
        Looped { plan, top, at_once }
    }

    /// The jump back to the top, which is taken: the flags are where `self.flags` says.
    pub(super) fn jump_back(&mut self, jcc: &Instruction, looped: &Looped) {
        let Looped { plan, top, at_once } = looped;
        let top = *top;
        if plan.vector && !self.xmm {
            // A handler may have taken the registers.
            self.go_to(self.start);
            self.asm.bind(*at_once);
            self.asm.branch(Code::Jmp_rel32_64, top);
            return;
        }
        let start = self.start;
        self.spoil_flags();
        self.poll(start);
        if self.entry_flags_used {
            self.flags.save(&mut self.asm);
        }
        self.asm.m(Code::Dec_rm64, patience());
        self.asm.branch(Code::Jns_rel32_64, top);

        let (round, fail, far, out) = (
            self.asm.label(),
            self.asm.label(),
            self.asm.label(),
            self.asm.label(),
        );
        self.asm.bind(*at_once);
        self.asm.load_guest(RAX, plan.steps[0].register);
        self.asm.mr(Code::Mov_rm64_r64, begun(), RAX);
        self.asm.bind(round);
        for (n, s) in plan.steps.iter().enumerate() {
            self.check_step(n, s, far);
        }
        if self.find_pointers(plan, fail).is_err() {
            // Such addresses are not planned with; if one is, nothing is lost but the pointers.
            self.asm.branch(Code::Jmp_rel32_64, fail);
        }
        if plan.flags_live {
            // They are in the frame, and what follows are moves.
            flags::load(&mut self.asm);
        }
        self.enter_loop(plan);
        let again = self.asm.label();
        self.asm.bind(again);
        let (first, second) = plan.body.split_at(plan.check_at);
        let mut exits = Vec::new();
        self.part_of_turn(first, &mut exits);
        for (n, s) in plan.leaders() {
            self.check_limit(n, s, out);
        }
        self.part_of_turn(second, &mut exits);
        let jcc = super::branch::jcc_code(jcc.condition_code());
        self.asm.branch(jcc, again);
        self.leave_loop(plan);
        self.learn(&plan.steps[0]);
        let next = self.next;
        self.go_to(next);

        // A limit is passed: the rest of the turn, and another round.
        self.asm.bind(out);
        self.part_of_turn(second, &mut exits);
        self.leave_loop(plan);
        let taken = self.asm.label();
        self.asm.branch(jcc, taken);
        let flags = self.flags;
        self.go_to(next);
        self.asm.bind(taken);
        self.flags = flags;
        self.flags.save(&mut self.asm);
        self.poll(start);
        self.asm.branch(Code::Jmp_rel32_64, round);

        for (exit, target) in exits {
            self.asm.bind(exit);
            self.leave_loop(plan);
            self.learn(&plan.steps[0]);
            self.go_to(target);
        }

        self.asm.bind(fail);
        self.asm.mi(Code::Mov_rm64_imm32, patience(), AGAIN);
        self.asm.branch(Code::Jmp_rel32_64, top);
        self.asm.bind(far);
        self.asm.mi(Code::Mov_rm64_imm32, patience(), NEVER);
        self.asm.branch(Code::Jmp_rel32_64, top);
    }

    /// Instructions of the loop, and the jumps out of it.
    fn part_of_turn(&mut self, part: &[Instruction], exits: &mut Vec<(Label, u64)>) {
        for i in part {
            if i.is_jcc_short_or_near() {
                let exit = self.asm.label();
                self.asm.branch(super::branch::jcc_code(i.condition_code()), exit);
                exits.push((exit, i.near_branch_target()));
            } else {
                self.asm.put(i);
            }
        }
    }

    /// Remembers whether pointers were worth while, by the way that step `s` has gone. Saves the flags.
    fn learn(&mut self, s: &Step) {
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        let (few, done) = (self.asm.label(), self.asm.label());
        self.asm.load_guest(RAX, s.register);
        self.asm.rm(Code::Sub_r64_rm64, RAX, begun());
        match s.by {
            By::Constant(c) => {
                if c < 0 {
                    self.asm.r(Code::Neg_rm64, RAX);
                }
                // The constant is at most `FARTHEST`.
                let way = c.unsigned_abs() as i32 * MANY as i32;
                self.asm.ri(Code::Cmp_rm64_imm32, RAX, way);
            }
            By::Register(by) => {
                self.asm.load_guest(RCX, by);
                self.asm
                    .ri(Code::Shl_rm64_imm8, RCX, MANY.trailing_zeros() as i32);
                self.asm.rr(Code::Cmp_r64_rm64, RAX, RCX);
            }
        }
        let first = first_patience(self.start);
        self.asm.branch(Code::Jb_rel32_64, few);
        self.asm.mi(Code::Mov_rm64_imm32, first, 0);
        self.asm.branch(Code::Jmp_rel32_64, done);
        self.asm.bind(few);
        self.asm
            .mi(Code::Mov_rm64_imm32, first, LoopWords::PATIENCE as i32);
        self.asm.bind(done);
    }

    /// From here on the guest's flags are the host's, and nowhere else.
    fn flags_of_host(&mut self) {
        self.flags = Flags {
            host: true,
            saved: false,
            recipe: None,
            entry: false,
        };
    }

    /// Looks up every group's page and computes pointers and limits; goes to `fail` where a turn could not be done.
    fn find_pointers(&mut self, plan: &Plan, fail: Label) -> Result<(), Unsupported> {
        for (n, g) in plan.groups.iter().enumerate() {
            let want = Want {
                bytes: g.bytes,
                write: g.write,
                aligned: false,
            };
            let place = self.probe(&g.address, want, fail)?;
            self.asm.rm(Code::Lea_r64_m, RAX, place);
            if let Some(from) = g.aligned {
                self.asm.rm(Code::Lea_r64_m, RCX, at(RAX, from));
                self.asm.ri(Code::Test_rm8_imm8, Register::CL, 15);
                self.asm.branch(Code::Jne_rel32_64, fail);
            }
            self.asm.mr(Code::Mov_rm64_r64, pointer(n), RAX);
            let Some((step, shift)) = g.step else { continue };
            let s = plan.steps[step];
            // RCX := how far the register may move before the group leaves its page.
            self.asm.ri(Code::And_rm32_imm32, Register::EAX, 0xFFF);
            if s.down() {
                self.asm.rr(Code::Mov_r32_rm32, Register::ECX, Register::EAX);
            } else {
                self.asm.constant(RCX, 4096 - g.bytes as u64);
                self.asm.rr(Code::Sub_r32_rm32, Register::ECX, Register::EAX);
            }
            self.asm.ri(Code::Shr_rm32_imm8, Register::ECX, shift as i32);
            let (leader, of_leader) = (s.leader, plan.steps[s.leader]);
            self.asm.load_guest(RAX, of_leader.register);
            if s.down() {
                self.asm.r(Code::Neg_rm64, RCX);
            }
            self.asm.rr(Code::Add_r64_rm64, RCX, RAX);
            let ahead = of_leader.ahead;
            if ahead < 0 {
                self.asm.ri(Code::Sub_rm64_imm32, RCX, -ahead as i32);
                self.asm.branch(Code::Jb_rel32_64, fail);
            } else if ahead > 0 {
                self.asm.ri(Code::Add_rm64_imm32, RCX, ahead as i32);
            }
            let kept = self.asm.label();
            self.asm.rm(Code::Cmp_r64_rm64, RCX, limit(leader));
            let beyond = if s.down() {
                Code::Jbe_rel32_64
            } else {
                Code::Jae_rel32_64
            };
            self.asm.branch(beyond, kept);
            self.asm.mr(Code::Mov_rm64_r64, limit(leader), RCX);
            self.asm.bind(kept);
            if leader != step {
                self.asm.load_guest(RAX, s.register);
            }
            self.asm.ri(Code::Shl_rm64_imm8, RAX, shift as i32);
            self.asm.mr(Code::Sub_rm64_r64, pointer(n), RAX);
        }
        Ok(())
    }

    /// Sets the limit of step `n` to none, if the step is where no sum can wrap.
    fn check_step(&mut self, n: usize, s: &Step, fail: Label) {
        self.asm.load_guest(RAX, s.register);
        self.asm.rr(Code::Mov_r64_rm64, RCX, RAX);
        self.asm.ri(Code::Add_rm64_imm32, RCX, MARGIN);
        self.asm.branch(Code::Jb_rel32_64, fail);
        if s.kind != Kind::Wide {
            let bits = if s.kind == Kind::Zero { 32 } else { 31 };
            self.asm.ri(Code::Shr_rm64_imm8, RCX, bits);
            self.asm.branch(Code::Jne_rel32_64, fail);
        }
        let least = if s.down() { MARGIN } else { -s.low as i32 };
        if least > 0 {
            self.asm.ri(Code::Cmp_rm64_imm32, RAX, least);
            self.asm.branch(Code::Jb_rel32_64, fail);
        }
        if let By::Register(by) = s.by {
            // 1 to FARTHEST, as far as the step is wide.
            self.asm.load_guest(RAX, by);
            let (lea, cmp, dst) = if s.kind == Kind::Wide {
                (Code::Lea_r64_m, Code::Cmp_rm64_imm32, RCX)
            } else {
                (Code::Lea_r32_m, Code::Cmp_rm32_imm32, Register::ECX)
            };
            self.asm.rm(lea, dst, at(RAX, -1));
            self.asm.ri(cmp, dst, super::induction::FARTHEST as i32 - 1);
            self.asm.branch(Code::Ja_rel32_64, fail);
        }
        if s.leader == n {
            let none = if s.down() { 0 } else { -1 };
            self.asm.mi(Code::Mov_rm64_imm32, limit(n), none);
        }
    }

    /// From where registers are as everywhere to where they are as the loop wants them.
    fn enter_loop(&mut self, plan: &Plan) {
        for (n, r) in plan.displaced() {
            self.asm.mr(Code::Mov_rm64_r64, spared(n), r);
        }
        for n in (0..16).filter(|&n| plan.uses(n)) {
            match abi::host(n) {
                Some(r) if r == same(n) => {}
                Some(r) => self.asm.rr(Code::Mov_r64_rm64, same(n), r),
                None => self.asm.rm(Code::Mov_r64_rm64, same(n), frame(abi::home(n))),
            }
        }
        for (n, g) in plan.groups.iter().enumerate() {
            self.asm.rm(Code::Mov_r64_rm64, g.pointer, pointer(n));
        }
        for (n, s) in plan.leaders().filter(|(_, s)| s.limit != Register::None) {
            self.asm.rm(Code::Mov_r64_rm64, s.limit, limit(n));
        }
    }

    /// The way back; the guest's flags are the host's, and stay.
    fn leave_loop(&mut self, plan: &Plan) {
        for n in (0..16).filter(|&n| plan.uses(n) && abi::host(n).is_none()) {
            self.asm.store_home(n, same(n));
        }
        for n in (0..16).filter(|&n| plan.uses(n)) {
            if let Some(r) = abi::host(n)
                && r != same(n)
            {
                self.asm.rr(Code::Mov_r64_rm64, r, same(n));
            }
        }
        for (n, r) in plan.displaced() {
            self.asm.rm(Code::Mov_r64_rm64, r, spared(n));
        }
        self.flags_of_host();
    }

    /// Goes to `out` when another turn would pass the limit of step `n`.
    fn check_limit(&mut self, n: usize, s: &Step, out: Label) {
        let r = same(s.register);
        let half = r.full_register32();
        match (s.limit, s.kind) {
            (Register::None, Kind::Wide) => self.asm.rm(Code::Cmp_r64_rm64, r, limit(n)),
            (Register::None, _) => self.asm.rm(Code::Cmp_r32_rm32, half, limit(n)),
            (l, Kind::Wide) => self.asm.rr(Code::Cmp_r64_rm64, r, l),
            (l, _) => self.asm.rr(Code::Cmp_r32_rm32, half, l.full_register32()),
        }
        let beyond = if s.down() {
            Code::Jb_rel32_64
        } else {
            Code::Ja_rel32_64
        };
        self.asm.branch(beyond, out);
    }
}

impl Step {
    /// Whether it moves towards lower addresses.
    fn down(&self) -> bool {
        matches!(self.by, By::Constant(c) if c < 0)
    }
}
