//! The loop that executes blocks.
#![allow(unsafe_code, reason = "ops are executed by raw pointer into the arena")]

use super::{Exit, Jump, Op, Reason, Vcpu, is_guard};
use crate::bus::Effects;
use crate::jit::Left;
use quintet_protocol::profile::Activity as Doing;
use quintet_protocol::trace::Kind;

use crate::state::{Activity, CodeSize, Flag, RIP, Shadow};

/// Why [`Vcpu::run`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunExit {
    /// Halted with nothing deliverable: sleep until the exit word is set.
    Idle,
    /// The bus wants the caller's attention: reset, power-off, pause.
    Requested,
    /// A breakpoint or a watchpoint: [`Vcpu::take_held`] says which.
    Held,
    /// Triple fault: the processor is in shutdown.
    Shutdown,
    /// The instruction budget is used up; translated code counts against it only where it leaves.
    Budget,
}

impl Vcpu {
    /// Executes until something needs the caller. `budget` bounds the instructions (checked between blocks).
    pub fn run(&mut self, budget: u64) -> RunExit {
        let until = self.instructions.saturating_add(budget);
        self.until = until;
        self.profile.resume(
            if self.jit.is_some() {
                Doing::Lookup
            } else {
                Doing::Interpreted
            }
            .line(),
        );
        // The caller may have changed the x87's masks.
        self.refresh_x87();
        loop {
            if self.exit_word.is_set() || !self.reasons.is_empty() || self.state.activity != Activity::Active
            {
                let before = self.profile.begin(Doing::Service.line());
                let exit = self.service();
                self.profile.resume(before);
                if let Some(exit) = exit {
                    return exit;
                }
                // What is executed step by step is never without a reason.
                let active = self.state.activity == Activity::Active;
                if self.instructions >= until && self.reasons == Reason::STEP && active {
                    return RunExit::Budget;
                }
                continue;
            }
            if self.instructions >= until {
                return RunExit::Budget;
            }
            if self.jit.is_some() && self.sse_masked() {
                self.turn();
                continue;
            }
            match self.next_block() {
                Ok(jump) => {
                    self.execute(jump.first, jump.end);
                }
                Err(exit) => self.leave(exit, 0),
            }
        }
    }

    /// One turn of the loop where there is a translator: translated code as far as it goes, or one block by the
    /// interpreter.
    fn turn(&mut self) {
        let linear = match self.fetch_linear() {
            Ok(linear) => linear,
            Err(exit) => return self.leave(exit, 0),
        };
        let tag = self.jump_tag(linear);
        let jump = match self.tlb.jump(self.mode, tag) {
            // A dropped block's translation leads here, and its entry would lead there again.
            Some((jump, _)) if !self.blocks.block(jump.block).valid => {
                self.tlb.forget_jump(self.mode, tag);
                return;
            }
            Some((jump, native)) => {
                let jump = *jump;
                let segmented = self.segmented != 0;
                let cold = self.jit.as_ref().is_some_and(|j| j.cold(segmented) == native);
                if !cold {
                    return self.follow(&jump, native);
                }
                jump
            }
            None => match self.find_block(linear) {
                Ok((jump, Some(native))) => return self.follow(&jump, native),
                Ok((jump, None)) => jump,
                Err(exit) => return self.leave(exit, 0),
            },
        };
        if let Some(native) = self.warm(&jump, linear) {
            return self.follow(&jump, native);
        }
        self.profile.begin(Doing::Interpreted.line());
        self.execute(jump.first, jump.end);
        self.profile.resume(Doing::Lookup.line());
    }

    /// Executes translated code, and ties what it left by.
    fn follow(&mut self, jump: &Jump, mut native: u64) {
        if self.trial.is_some() {
            match self.run_both(jump, native) {
                Left::Next => {}
                Left::Exit(exit, len) => self.leave(exit, len),
                Left::Link(number) => {
                    let target = self.jit.as_ref().map_or(0, |j| j.link_target(number));
                    self.set_rip(target);
                }
            }
            return;
        }
        // Following links at once keeps a chain of new translations from going round the whole loop each time.
        loop {
            match self.run_native(native) {
                Left::Next => return,
                Left::Exit(exit, len) => return self.leave(exit, len),
                Left::Link(number) => {
                    let Some(jit) = &self.jit else { return };
                    let target = jit.link_target(number);
                    self.set_rip(target);
                    if self.exit_word.is_set() || !self.reasons.is_empty() {
                        return;
                    }
                    let Some((n, to)) = self.native_here() else {
                        return;
                    };
                    let mode = (self.mode, self.mode_key());
                    let crosses = self.blocks.block(n).second_page.is_some();
                    // The link is still there: code memory is given up only where a block is translated.
                    if let Some(jit) = &mut self.jit {
                        jit.link(number, n, mode, crosses);
                    }
                    native = to;
                }
            }
        }
    }

    /// The block at CS:rIP and its translation, if there are both.
    fn native_here(&mut self) -> Option<(u32, u64)> {
        let linear = self.fetch_linear().ok()?;
        let n = self.fitting_block(linear).ok()??;
        if self.blocks.block(n).second_page.is_some() {
            // It is led to by the jump cache.
            self.find_block(linear).ok()?;
        }
        let (rip, mode) = (self.rip(), self.mode);
        let native = self.jit.as_ref()?.find(n, rip, mode)?;
        Some((n, native))
    }

    /// Counts an execution of the block behind `jump`, and translates it when it has become hot.
    fn warm(&mut self, jump: &Jump, linear: u64) -> Option<u64> {
        let n = jump.block;
        let block = *self.blocks.block(n);
        if !block.valid || block.start >= self.mem.ram_pages() * 4096 {
            return None;
        }
        // Where each block is compared, both runs would stop.
        if self.trial.is_some() && self.is_guarded(linear) {
            return None;
        }
        let jit = self.jit.as_mut()?;
        if !jit.heat(n) {
            return None;
        }
        let before = self.profile.begin(Doing::Translate.line());
        let begun = self.tracer.begin();
        let native = self.translate_block(jump, linear);
        self.tracer.end(Kind::Translate, begun, linear);
        self.profile.resume(before);
        native
    }

    /// Translates the block behind `jump`, unless that is done already or impossible.
    fn translate_block(&mut self, jump: &Jump, linear: u64) -> Option<u64> {
        let n = jump.block;
        let key = self.mode_key();
        let (rip, mode) = (self.rip(), self.mode);
        let mut jump = *jump;
        let known = self.jit.as_ref()?.find(n, rip, mode);
        if known.is_none() {
            jump = self.as_loop(&jump, linear);
        }
        let n = jump.block;
        let block = *self.blocks.block(n);
        let other = key.other_ac().and_then(|k| self.mode_number_if_free(k));
        let mut jit = self.jit.take()?;
        if jit.full() {
            jit.evict();
            self.tlb.forget_jumps();
        }
        let native = match jit.find(n, rip, mode) {
            Some(native) => native,
            None => {
                let in_first = 4096 - block.start % 4096;
                let bytes: Vec<u8> = (0..u64::from(block.len))
                    .map(|i| match block.second_page {
                        Some(page) if i >= in_first => page * 4096 + (i - in_first),
                        _ => block.start + i,
                    })
                    .map(|at| self.mem.read::<u8>(at))
                    .collect();
                // SAFETY: first and end bound the ops of one block in the arena.
                let ops = unsafe {
                    core::slice::from_raw_parts(jump.first, jump.end.offset_from(jump.first) as usize)
                };
                // Where each block is compared, a turn of a loop is one.
                let loops = self.trial.is_none() && !ops.first().is_some_and(is_guard);
                let place = (rip, block.start % 4096);
                jit.translate(n, place, (mode, key, other), &bytes, ops, loops)
            }
        };
        self.jit = Some(jit);
        if self.trial.is_none() {
            self.remember_jump(linear, jump, native);
        }
        Some(native)
    }

    /// The block behind `jump`, or a longer one in its place that is a loop.
    fn as_loop(&mut self, jump: &Jump, linear: u64) -> Jump {
        let block = *self.blocks.block(jump.block);
        // What executes now must stay where it is, and where each block is compared, it is a straight run.
        if self.trial.is_some() || self.blocks.full() {
            return *jump;
        }
        let mut ops = Vec::new();
        match self.decode_loop(linear, &mut ops) {
            Some((start, len, second)) if start == block.start && len > block.len => {
                let n = self.blocks.insert(start, second, len, self.code_size, &ops);
                let (first, end) = self.blocks.ops(n);
                Jump { first, end, block: n }
            }
            _ => *jump,
        }
    }

    /// The ops to execute at CS:rIP.
    #[inline(always)]
    fn next_block(&mut self) -> Result<Jump, Exit> {
        let linear = self.fetch_linear()?;
        if let Some((jump, _)) = self.tlb.jump(self.mode, self.jump_tag(linear)) {
            return Ok(*jump);
        }
        Ok(self.find_block(linear)?.0)
    }

    /// The block at CS:rIP, which lies at `linear`, and its translation, if there is one that may be executed at once.
    #[inline(never)]
    fn find_block(&mut self, linear: u64) -> Result<(Jump, Option<u64>), Exit> {
        let Some(n) = self.fitting_block(linear)? else {
            return Ok((self.make_block(linear)?, None));
        };
        let (first, end) = self.blocks.ops(n);
        let jump = Jump { first, end, block: n };
        let (rip, mode, segmented) = (self.rip(), self.mode, self.segmented != 0);
        let known = self.jit.as_ref().and_then(|j| j.find(n, rip, mode));
        // Where each block is compared, none leads to the next.
        let native = known.filter(|_| self.trial.is_none());
        let cold = self.jit.as_ref().map_or(0, |j| j.cold(segmented));
        self.remember_jump(linear, jump, native.unwrap_or(cold));
        Ok((jump, native))
    }

    /// The newest block for CS:rIP, which lies at `linear`, that is still right.
    fn fitting_block(&mut self, linear: u64) -> Result<Option<u32>, Exit> {
        let (start, page) = self.translate_code(linear)?;
        let mut found = page.and_then(|_| self.blocks.find(start, self.code_size));
        while let Some(n) = found {
            if self.fits(n, linear)? {
                break;
            }
            found = self.blocks.find_older(n);
        }
        Ok(found)
    }

    /// Whether block `n` is what is to be executed at `linear`: CS may be smaller than when it was decoded, its second page may be
    /// elsewhere now, and there may be breakpoints inside.
    fn fits(&mut self, n: u32, linear: u64) -> Result<bool, Exit> {
        let b = *self.blocks.block(n);
        if !self.within_cs(b.len.into()) {
            return Ok(false);
        }
        if let Some(second) = b.second_page {
            let next = self.wrap_linear((linear | 0xFFF).wrapping_add(1));
            let page = if self.blocks.first_crosses(n) {
                self.translate_code(next)?.1
            } else {
                self.code_page_quietly(next)
            };
            if page != Some(second) {
                return Ok(false);
            }
        }
        Ok(self.respects_points(n, linear))
    }

    /// Puts the block behind `jump` into the jump cache for `linear`; every page it lies in has been looked up.
    fn remember_jump(&mut self, linear: u64, jump: Jump, native: u64) {
        let index = self.tlb_index;
        let mut global = self.tlb.code_global(index, linear);
        if self.blocks.block(jump.block).second_page.is_some() {
            let next = self.wrap_linear((linear | 0xFFF) + 1);
            global &= self.tlb.code_global(index, next);
            self.tlb.note_jump_page(next);
        }
        self.tlb.note_jump_page(linear);
        let tag = self.jump_tag(linear);
        self.tlb.fill_jump(self.mode, tag, jump, native, global);
    }

    /// What the jump cache knows CS:rIP by, which lies at `linear`: translated code is made for one rIP, which in segmented code its linear address
    /// does not tell.
    #[inline(always)]
    fn jump_tag(&self, linear: u64) -> u64 {
        linear | (self.state.regs[RIP] & self.segmented) << 32
    }

    #[cold]
    fn make_block(&mut self, linear: u64) -> Result<Jump, Exit> {
        let before = self.profile.begin(Doing::Decode.line());
        let made = self.decode_at(linear);
        self.profile.resume(before);
        made
    }

    fn decode_at(&mut self, linear: u64) -> Result<Jump, Exit> {
        if self.blocks.full() {
            self.make_room();
        }
        let mut ops = Vec::with_capacity(super::block::MAX_OPS);
        let limit = self.single_limit(linear);
        let guarded = self.is_guarded(linear);
        let (start, len, second) = self.decode_block(linear, limit, &mut ops)?;
        if guarded {
            ops.insert(0, Self::guard_op(self.code_size));
        }
        // Blocks in device memory are not kept.
        let start = start.unwrap_or(super::block::NOWHERE);
        let n = self.blocks.insert(start, second, len, self.code_size, &ops);
        let (first, end) = self.blocks.ops(n);
        Ok(Jump { first, end, block: n })
    }

    /// Code in device memory may change under us at any time: one instruction at a time there.
    fn single_limit(&mut self, linear: u64) -> usize {
        match self.translate_code(linear) {
            Ok((_, None)) => 1,
            // With room for a guard.
            _ => super::block::MAX_OPS - usize::from(self.points.is_some()),
        }
    }

    /// Executes ops until the block ends, and tells how if not by its last op.
    #[inline(always)]
    fn execute(&mut self, first: *const Op, end: *const Op) -> Option<Exit> {
        debug_assert_eq!(
            self.tlb.frame.unit.live, 0,
            "handlers find the x87 unit in the state"
        );
        self.end = end;
        let mut at = first;
        while at < self.end {
            // SAFETY: `at` lies in `first..end`, ops of one block in the arena, which is only reset between
            // blocks; handlers cannot reach the arena through `self` but by `BlockCache::insert` and `reset`,
            // which only the run loop calls.
            let op = unsafe { &*at };
            self.state.regs[RIP] = self.state.regs[RIP].wrapping_add(u64::from(op.len));
            if let Err(exit) = (op.handler)(self, op) {
                // SAFETY: both pointers are into the same block.
                let done = unsafe { at.offset_from(first) } as u64;
                // A guard among them has taken itself off, from zero even.
                self.instructions = self.instructions.wrapping_add(done);
                self.leave(exit, op.len);
                return Some(exit);
            }
            // SAFETY: one past an op of the block is inside it or its end.
            at = unsafe { at.add(1) };
        }
        // SAFETY: as above.
        let done = unsafe { at.offset_from(first) } as u64;
        self.instructions = self.instructions.wrapping_add(done);
        None
    }

    /// Deals with an instruction of `len` bytes that did not simply complete.
    #[cold]
    pub(crate) fn leave(&mut self, exit: Exit, len: u8) {
        match exit {
            Exit::Fault => {
                let rip = self.rip().wrapping_sub(u64::from(len));
                self.set_rip(rip);
                self.deliver_fault();
            }
            Exit::FaultHere => self.deliver_fault(),
            Exit::EndBlock | Exit::Stop => self.instructions += 1,
            Exit::Stale => {}
        }
    }

    /// Everything that is not straight execution. `None`: go on executing.
    #[cold]
    #[inline(never)]
    fn service(&mut self) -> Option<RunExit> {
        if self.reasons.contains(Reason::HELD) {
            return Some(RunExit::Held);
        }
        self.look_around();
        if self.reasons.contains(Reason::STOP) {
            self.reasons -= Reason::STOP;
            return Some(RunExit::Requested);
        }
        self.due()
    }

    /// Takes up what others have done: the part of [`Self::service`] that is not about the processor.
    pub(super) fn look_around(&mut self) {
        if self.exit_word.is_set() {
            self.exit_word.clear();
            let effects = self.bus.poll();
            self.apply(effects);
            while let Some(page) = self.bus.next_invalidation() {
                self.invalidate_ram_page(page);
            }
            self.reasons |= Reason::INTERRUPT;
        }
        if self.reasons.contains(Reason::VIEW) {
            self.reasons -= Reason::VIEW;
            self.refresh_view();
        }
    }

    /// The part of [`Self::service`] that concerns the processor alone.
    fn due(&mut self) -> Option<RunExit> {
        if self.reasons.contains(Reason::CODE) {
            self.reasons -= Reason::CODE;
            self.bury();
        }
        if self.state.activity == Activity::Shutdown {
            return Some(RunExit::Shutdown);
        }
        if self.reasons.contains(Reason::DEBUG_TRAP) && self.state.shadow != Shadow::MovSs {
            self.deliver_debug_trap();
            return None;
        }
        if self.reasons.contains(Reason::SHADOW) {
            self.reasons -= Reason::SHADOW;
            if self.state.shadow != Shadow::None && self.state.activity == Activity::Active {
                if self.stop_at_breakpoint() {
                    self.reasons |= Reason::SHADOW;
                    return None;
                }
                let shadow = self.state.shadow;
                self.step();
                if self.state.shadow == shadow && !self.reasons.contains(Reason::SHADOW) {
                    self.state.shadow = Shadow::None;
                }
                self.reasons |= Reason::INTERRUPT;
                return None;
            }
            self.state.shadow = Shadow::None;
        }
        if self.reasons.contains(Reason::INTERRUPT) {
            self.reasons -= Reason::INTERRUPT;
            if self.take_interrupt() {
                return None;
            }
        }
        if self.state.activity != Activity::Active {
            return Some(RunExit::Idle);
        }
        if self.reasons.contains(Reason::STEP) {
            if !self.stop_at_breakpoint() {
                self.step();
            }
        } else if self.reasons.contains(Reason::RESUME) {
            self.reasons -= Reason::RESUME;
            self.state.flags.set(Flag::Rf, false);
        }
        None
    }

    /// The translation to go on with at CS:rIP, if nothing needs the run loop and the code size is still `code`:
    /// what follows a system call or an exception is most often there.
    pub(crate) fn onward(&mut self, code: CodeSize) -> Option<u64> {
        let own = Reason::INTERRUPT | Reason::SHADOW | Reason::RESUME | Reason::CODE;
        // An interrupt check may deliver one, whose handler's first instruction may be due for something else.
        for _ in 0..3 {
            if self.reasons.is_empty() {
                break;
            }
            if self.state.activity != Activity::Active || !own.contains(self.reasons) {
                return None;
            }
            let exit = self.due();
            debug_assert!(exit.is_none(), "nothing else was due");
        }
        let on = self.reasons.is_empty()
            && !self.exit_word.is_set()
            && self.state.activity == Activity::Active
            && self.instructions < self.until
            && self.code_size == code
            && self.sse_masked();
        if !on {
            return None;
        }
        let linear = self.fetch_linear().ok()?;
        let (_, native) = self.tlb.jump(self.mode, self.jump_tag(linear))?;
        let cold = self.jit.as_ref()?.cold(self.segmented != 0);
        (native != cold).then_some(native)
    }

    /// Delivers an NMI or a maskable interrupt if one may be taken now. Answers whether it did.
    pub(super) fn take_interrupt(&mut self) -> bool {
        if self.state.activity == Activity::WaitForSipi {
            return false;
        }
        if !self.state.nmi_blocked && self.state.shadow == Shadow::None && self.bus.take_nmi() {
            self.state.activity = Activity::Active;
            self.state.nmi_blocked = true;
            self.deliver_interrupt(2);
            self.reasons |= Reason::INTERRUPT;
            return true;
        }
        // Whatever makes an interrupt pending asks for this check, so nothing waits that the word does not tell.
        let waits = self.bus.interrupt_pending();
        self.tlb.frame.interrupt_waits = u64::from(waits);
        if self.state.shadow == Shadow::None
            && self.state.flags.get(Flag::If)
            && waits
            && let Some(vector) = self.bus.acknowledge()
        {
            self.state.activity = Activity::Active;
            self.tlb.frame.interrupt_waits = 1;
            self.deliver_interrupt(vector);
            return true;
        }
        false
    }

    /// Executes one instruction, with the checks of single-step and breakpoints around it.
    pub fn step(&mut self) {
        // Translated code may be waiting, with the x87 unit loaded: an interrupt shadow is stepped over on its behalf.
        self.unload_unit();
        self.before_step();
        let mut next = None;
        match self.single_block() {
            Ok((first, end)) => {
                // SAFETY: a block has at least one op.
                next = Some(self.rip().wrapping_add(u64::from(unsafe { (*first).len })));
                self.clear_resume();
                self.execute(first, end);
            }
            Err(exit) => self.leave(exit, 0),
        }
        self.after_step(next);
    }

    /// The first op at CS:rIP, alone; instruction breakpoints are checked here.
    fn single_block(&mut self) -> Result<(*const Op, *const Op), Exit> {
        self.check_instruction_breakpoint()?;
        let linear = self.fetch_linear()?;
        let first = match self.tlb.jump(self.mode, self.jump_tag(linear)) {
            Some((jump, _)) if self.blocks.block(jump.block).valid => jump.first,
            // The jump cache may still lead to a block that was dropped.
            _ => self.find_block(linear)?.0.first,
        };
        // SAFETY: a block has at least one op, and a guard is followed by another.
        let first = unsafe { first.add(usize::from(is_guard(&*first))) };
        // SAFETY: as above.
        Ok((first, unsafe { first.add(1) }))
    }

    /// Drops decoded code of a RAM page that an outside writer changed.
    pub fn invalidate_ram_page(&mut self, page: u64) {
        if page < self.mem.ram_pages() && self.blocks.invalidate_page(page) {
            self.bury();
            self.bus.code_page(page, false);
        }
    }

    /// Gives up the oldest blocks with their translations.
    #[cold]
    fn make_room(&mut self) {
        let (blocks, pages) = self.blocks.evict();
        if let Some(jit) = &mut self.jit {
            blocks.into_iter().for_each(|n| jit.bury(n));
        }
        for page in pages {
            self.bus.code_page(page, false);
        }
        self.tlb.forget_jumps();
    }

    /// Leads all that leads to dropped blocks back to this loop.
    pub(super) fn bury(&mut self) {
        for n in self.blocks.bury() {
            if let Some(jit) = &mut self.jit {
                jit.bury(n);
            }
        }
    }

    /// Drops what the jump cache knows of CS:rIP.
    pub(super) fn forget_jump_here(&mut self) {
        if let Ok(linear) = self.fetch_linear() {
            let tag = self.jump_tag(linear);
            self.tlb.forget_jump(self.mode, tag);
        }
    }

    /// Forgets all decoded code: after RAM was changed behind the vCPU's back, by a loader or a test.
    pub fn discard_code(&mut self) {
        for page in self.blocks.reset() {
            self.bus.code_page(page, false);
        }
        if let Some(jit) = &mut self.jit {
            jit.reset();
        }
        self.tlb.flush_all();
    }

    /// Looks at the physical map and A20 again.
    fn refresh_view(&mut self) {
        self.state.a20_mask = if self.bus.a20() { u64::MAX } else { !(1 << 20) };
        self.tlb.flush_all();
    }

    /// Requests an interrupt check before the next instruction: after IF was set, for instance.
    pub fn check_interrupts_next(&mut self) {
        self.reasons |= Reason::INTERRUPT;
        self.end_block();
    }

    /// Reasons and effects for a caller that drives the vCPU from outside, such as a debugger.
    pub fn poke(&mut self, effects: Effects) {
        self.apply(effects);
    }
}
