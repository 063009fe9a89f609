//! Breakpoints, watchpoints and single steps for the guest's debugger, which the guest does not see.
//!
//! A breakpoint is an address, never a byte in guest memory. At its place a block begins with an op that looks
//! ([`guard`]), and no block reaches past such a place; everything else executes as if there were no debugger, translated or
//! interpreted. Blocks are found by physical address and outlive address spaces, so one that was decoded by another mapping of
//! its page may know nothing of a place: whoever finds a block asks [`Vcpu::respects_points`], and decodes it again if it must. For a
//! place that is new, all blocks go that touch its offset in whatever page. Where code is segmented, the same translation serves
//! several linear addresses; there each offset in a page that any place has counts as one. A place stays one when its
//! breakpoint goes, until the debugger goes: gdb takes all breakpoints out whenever the guest stops and puts them back before
//! it goes on, and dropping the blocks each time would cost more than the op does.
//!
//! A watchpoint keeps its page out of the TLB, so that accesses to that page alone take the slow path, which looks at each; the guest
//! stops behind the instruction. The guest's own debug registers work beside both.
//!
//! Rejected: a look at the address before every block (a few per cent of everything), offsets in a page as places in flat code
//! too (simpler; but functions are aligned, and ten breakpoints were seen to cost a sixth of a kernel's speed), INT3 in guest memory (the
//! guest sees it, and overwrites it when it loads its kernel), the guest's debug registers (there are four, and they are its), and
//! single steps by TF (the guest sees it).

use std::collections::BTreeSet;

use super::{Exit, Flow, Op, Reason, Vcpu, flag};
use crate::mmu::Access;
use crate::state::{Activity, CodeSize, Shadow, seg};

/// A breakpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakpoint {
    /// Linear address of the instruction.
    pub address: u64,
    /// The debugger asked for one in hardware: there is no difference but the name.
    pub hardware: bool,
}

/// What a watchpoint waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    /// Reads.
    Reads,
    /// Writes.
    Writes,
    /// Both.
    Accesses,
}

/// A watchpoint, by linear address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchpoint {
    /// First byte.
    pub address: u64,
    /// Number of bytes, at least 1.
    pub len: u64,
    /// What it waits for.
    pub kind: Watched,
}

impl Watchpoint {
    fn touched(&self, at: u64, len: u64) -> bool {
        at.wrapping_sub(self.address) < self.len || self.address.wrapping_sub(at) < len
    }

    fn wants(&self, access: Access) -> bool {
        match self.kind {
            Watched::Reads => access == Access::Read,
            Watched::Writes => access == Access::Write,
            Watched::Accesses => true,
        }
    }
}

/// Why the vCPU stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// This breakpoint lies at CS:rIP.
    Breakpoint(Breakpoint),
    /// The last instruction touched what this watchpoint watches.
    Watchpoint(Watchpoint),
}

/// What came of a single step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stepped {
    /// One instruction, or the exception in its place, or the interrupt that ended a HLT.
    Done,
    /// The processor is halted and nothing wakes it yet.
    Asleep,
}

/// The points of a debugger.
#[derive(Clone, Debug)]
pub struct Points {
    breakpoints: Vec<Breakpoint>,
    watchpoints: Vec<Watchpoint>,
    /// Linear addresses where blocks end and begin.
    places: BTreeSet<u64>,
    /// Bit per offset in a page that a place has.
    offsets: Box<[u64; 64]>,
    held: Option<Held>,
}

impl Default for Points {
    fn default() -> Self {
        Self {
            breakpoints: Vec::new(),
            watchpoints: Vec::new(),
            places: BTreeSet::new(),
            offsets: Box::new([0; 64]),
            held: None,
        }
    }
}

impl Points {
    /// The breakpoints.
    pub fn breakpoints(&self) -> &[Breakpoint] {
        &self.breakpoints
    }

    /// The watchpoints.
    pub fn watchpoints(&self) -> &[Watchpoint] {
        &self.watchpoints
    }

    fn has_offset(&self, linear: u64) -> bool {
        let offset = linear % 4096;
        self.offsets[(offset / 64) as usize] >> (offset % 64) & 1 != 0
    }

    /// Whether some place has the offset in a page of one of `len` bytes from `linear`.
    fn has_offsets(&self, linear: u64, len: u64) -> bool {
        let (mut at, end) = (linear % 4096, linear % 4096 + len);
        while at < end {
            let next = (at / 64 + 1) * 64;
            let below = u64::MAX >> (64 - (end.min(next) - at));
            if self.offsets[(at / 64 % 64) as usize] & below << (at % 64) != 0 {
                return true;
            }
            at = next;
        }
        false
    }

    fn watches_page(&self, linear: u64) -> bool {
        let page = linear & !0xFFF;
        self.watchpoints.iter().any(|w| w.touched(page, 4096))
    }
}

/// Stands at the start of a block where a breakpoint may lie. It is no instruction: it has no bytes, and is not counted.
fn guard(cpu: &mut Vcpu, _: &Op) -> Flow {
    if cpu.stop_at_breakpoint() {
        return Err(Exit::Stale);
    }
    cpu.instructions = cpu.instructions.wrapping_sub(1);
    Ok(())
}

/// Whether `op` is a [`guard`].
pub(crate) fn is_guard(op: &Op) -> bool {
    // What cannot be decoded has no length either, but ends its block.
    op.len == 0 && !op.has(flag::ENDS)
}

impl Vcpu {
    /// The guard for a block of code of size `code`.
    pub(super) fn guard_op(code: CodeSize) -> Op {
        Op::new(&iced_x86::Instruction::default(), code, guard)
    }

    /// Whether blocks are to end before `linear`, and one that begins there with a guard.
    #[inline]
    pub(super) fn is_guarded(&self, linear: u64) -> bool {
        self.points
            .as_ref()
            .is_some_and(|p| p.has_offset(linear) && (self.segmented != 0 || p.places.contains(&linear)))
    }

    /// Whether block `n` may be executed at `linear`: there is no place inside it, and if there is one at its start, it has a
    /// guard.
    #[inline]
    pub(super) fn respects_points(&self, n: u32, linear: u64) -> bool {
        match &self.points {
            Some(points) if points.has_offsets(linear, self.blocks.block(n).len.into()) => {
                self.respects(points, n, linear)
            }
            _ => true,
        }
    }

    #[cold]
    fn respects(&self, points: &Points, n: u32, linear: u64) -> bool {
        let len = u64::from(self.blocks.block(n).len);
        let clear = if self.segmented == 0 {
            let inside = linear.saturating_add(1)..=linear.saturating_add(len - 1);
            len == 1 || points.places.range(inside).next().is_none()
        } else {
            !points.has_offsets(linear.wrapping_add(1), len - 1)
        };
        clear && (self.blocks.has_guard(n) || !self.is_guarded(linear))
    }

    /// Linear address of CS:rIP, without the checks of a fetch.
    pub fn here(&self) -> u64 {
        if self.code_size == CodeSize::Bits64 {
            return self.rip();
        }
        self.wrap_linear(self.state.segs[seg::CS].base.wrapping_add(self.rip()))
    }

    /// The breakpoint at CS:rIP.
    pub fn breakpoint_here(&self) -> Option<Breakpoint> {
        let here = self.here();
        let points = self.points.as_ref()?;
        points.breakpoints.iter().find(|b| b.address == here).copied()
    }

    /// Stops before the instruction at CS:rIP if a breakpoint lies there, and answers whether it does.
    pub(super) fn stop_at_breakpoint(&mut self) -> bool {
        let here = self.breakpoint_here();
        if let Some(breakpoint) = here {
            self.hold(Held::Breakpoint(breakpoint));
        }
        here.is_some()
    }

    fn hold(&mut self, why: Held) {
        if let Some(points) = &mut self.points {
            points.held.get_or_insert(why);
            self.reasons |= Reason::HELD;
            self.end_block();
        }
    }

    /// Why [`Vcpu::run`] came back with [`super::RunExit::Held`]; only once.
    pub fn take_held(&mut self) -> Option<Held> {
        self.reasons -= Reason::HELD;
        self.points.as_mut()?.held.take()
    }

    /// Has breakpoints and watchpoints looked at, if it does not yet; costs nothing until there are some.
    pub fn enable_points(&mut self) {
        self.points.get_or_insert_default();
    }

    /// Forgets all breakpoints and watchpoints.
    pub fn clear_points(&mut self) {
        if let Some(points) = &mut self.points {
            // Guards that are left in blocks find nothing, and go with them.
            **points = Points::default();
        }
        self.reasons -= Reason::HELD;
        self.spy();
    }

    /// Adds a breakpoint, unless it is there. Not while a block executes.
    pub fn add_breakpoint(&mut self, breakpoint: Breakpoint) {
        self.enable_points();
        let Some(points) = &mut self.points else { return };
        if !points.breakpoints.contains(&breakpoint) {
            points.breakpoints.push(breakpoint);
        }
        if !points.places.insert(breakpoint.address) {
            return;
        }
        let offset = breakpoint.address % 4096;
        points.offsets[(offset / 64) as usize] |= 1 << (offset % 64);
        self.blocks.invalidate_offset(offset as usize);
        self.bury();
    }

    /// Takes a breakpoint away; answers whether there was one.
    pub fn remove_breakpoint(&mut self, breakpoint: Breakpoint) -> bool {
        let Some(points) = &mut self.points else {
            return false;
        };
        let before = points.breakpoints.len();
        points.breakpoints.retain(|&b| b != breakpoint);
        points.breakpoints.len() != before
    }

    /// Adds a watchpoint.
    pub fn add_watchpoint(&mut self, watchpoint: Watchpoint) {
        self.enable_points();
        if let Some(points) = &mut self.points {
            points.watchpoints.push(watchpoint);
        }
        self.spy();
    }

    /// Takes a watchpoint away; answers whether there was one.
    pub fn remove_watchpoint(&mut self, watchpoint: Watchpoint) -> bool {
        let Some(points) = &mut self.points else {
            return false;
        };
        let at = points.watchpoints.iter().position(|w| *w == watchpoint);
        if let Some(at) = at {
            points.watchpoints.swap_remove(at);
            self.spy();
        }
        at.is_some()
    }

    /// Derives whether accesses are looked at, and has pages that may now be watched looked up again.
    fn spy(&mut self) {
        let spied = self.points.as_ref().is_some_and(|p| !p.watchpoints.is_empty());
        if spied || self.spied {
            self.tlb.flush_all();
        }
        self.spied = spied;
    }

    /// Whether accesses of the slow path are to be looked at.
    #[inline]
    pub(crate) fn is_spied(&self) -> bool {
        self.spied
    }

    /// Whether the page of `linear` is to stay out of the TLB.
    #[inline]
    pub(crate) fn is_page_watched(&self, linear: u64) -> bool {
        self.spied && self.points.as_ref().is_some_and(|p| p.watches_page(linear))
    }

    /// Stops behind the instruction in progress if what it accesses is watched.
    #[cold]
    pub(crate) fn note_spied(&mut self, linear: u64, len: u64, access: Access) {
        let Some(points) = &self.points else { return };
        let hit = points
            .watchpoints
            .iter()
            .find(|w| w.wants(access) && w.touched(linear, len))
            .copied();
        if let Some(watchpoint) = hit {
            self.hold(Held::Watchpoint(watchpoint));
        }
    }

    /// The instruction in progress has faulted: what it touched does not count, and will be touched again.
    pub(crate) fn forget_held_access(&mut self) {
        if let Some(points) = &mut self.points
            && matches!(points.held, Some(Held::Watchpoint(_)))
        {
            points.held = None;
            self.reasons -= Reason::HELD;
        }
    }

    /// Executes one instruction for the debugger, without a look at the breakpoint that it may stand at. Interrupts wait meanwhile, except for
    /// a halted processor, which nothing else wakes: its step is the delivery of one.
    pub fn step_held(&mut self) -> Stepped {
        self.reasons -= Reason::HELD;
        self.look_around();
        self.reasons -= Reason::CODE;
        self.bury();
        self.refresh_x87();
        if self.state.activity != Activity::Active {
            return if self.take_interrupt() {
                Stepped::Done
            } else {
                Stepped::Asleep
            };
        }
        if self.reasons.contains(Reason::DEBUG_TRAP) && self.state.shadow != Shadow::MovSs {
            self.deliver_debug_trap();
            return Stepped::Done;
        }
        let shadow = self.state.shadow;
        self.reasons -= Reason::SHADOW;
        self.step();
        if self.state.shadow == shadow && !self.reasons.contains(Reason::SHADOW) {
            self.state.shadow = Shadow::None;
        }
        // It was not looked for while this one was stepped over.
        self.reasons |= Reason::INTERRUPT;
        Stepped::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_found_wherever_a_block_begins_and_ends() {
        for place in [0, 1, 63, 64, 127, 4095] {
            let mut points = Points::default();
            points.offsets[place / 64] |= 1 << (place % 64);
            for at in 0..4096u64 {
                for len in [0, 1, 2, 63, 64, 65, 200] {
                    let inside = (at..at + len).any(|a| a % 4096 == place as u64);
                    assert_eq!(points.has_offsets(0x5000 + at, len), inside, "{place} {at} {len}");
                }
            }
        }
    }
}
