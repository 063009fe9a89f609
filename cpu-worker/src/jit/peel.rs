//! Loops of one block whose first turn is peeled off.
//!
//! A block that jumps back to itself is translated twice, one copy behind the other: the first for the turn that comes from elsewhere, the second for
//! those that follow it. What the first has found out still holds in the second: host pointers of groups ([`super::groups`]) whose
//! addresses are the same at each turn, such as a function's frame, registers that are loaded, and how the flags can be computed, which therefore
//! need not be saved between turns. Loops whose accesses all move evenly have something better ([`super::looped`]).
//!
//! Each turn looks at the exit word, and whatever takes a page away leaves the loop: a handler by ending the block, everything else by that word.
//!
//! Rejected: looks hoisted before the loop, since a turn may leave before it makes them, and they may fault.

use iced_x86::Instruction;

use super::asm::Label;
use super::branch::jcc_code;
use super::flags::Flags;
use super::translate::Block;

/// Most bytes of the first copy: with what misses need, two of them must fit into the room of a translation.
const LONGEST: usize = super::LARGEST / 8;

/// What holds at the top of the second copy.
#[derive(Debug)]
pub(super) struct Top {
    label: Label,
    flags: Flags,
    xmm: bool,
    unit: bool,
    /// Numbers of the groups whose pointers are there.
    groups: Vec<usize>,
}

impl Block<'_> {
    /// At the last jump, `i`, whose flags are in the host's: begins the second copy or closes it. Answers whether it did either.
    pub(super) fn next_turn(&mut self, i: &Instruction) -> bool {
        if !self.closes {
            return false;
        }
        match self.top.take() {
            None => self.begin_turn(i),
            Some(top) => self.end_turn(i, &top),
        }
    }

    fn begin_turn(&mut self, i: &Instruction) -> bool {
        let groups = self.groups.keep_lasting();
        if groups.is_empty() || self.asm.len() > LONGEST {
            return false;
        }
        let mut negated = *i;
        negated.negate_condition_code();
        let (out, label) = (self.asm.label(), self.asm.label());
        self.asm.branch(jcc_code(negated.condition_code()), out);
        self.on_side(out, self.next);
        self.asm.bind(label);
        self.top = Some(Top {
            label,
            flags: self.flags,
            xmm: self.xmm,
            unit: self.unit,
            groups,
        });
        self.spoil_flags();
        self.poll(self.start);
        true
    }

    /// A turn may have lost what the next would rely on; then it goes the long way round.
    fn end_turn(&mut self, i: &Instruction, top: &Top) -> bool {
        let groups = self.groups.keep_lasting();
        let same = self.flags == top.flags
            && self.xmm >= top.xmm
            && self.unit >= top.unit
            && top.groups.iter().all(|g| groups.contains(g));
        if same {
            self.asm.branch(jcc_code(i.condition_code()), top.label);
            self.go_to(self.next);
            self.peeled = true;
        }
        same
    }
}
