//! One guest block becomes host code.
//!
//! Each instruction is either re-encoded with the host's registers in place of the guest's ([`super::plain`]), or made from
//! a few host instructions ([`super::special`], [`super::branch`]), or executed by the interpreter's handler
//! through `Block::by_handler`. The last is always possible, so there is nothing that cannot be translated; and
//! what looks into the TLB and misses ends there too, so faults are the interpreter's own.

use core::mem::offset_of;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, MemoryOperand, Register};

use super::abi::RAX;
use super::asm::{Asm, Label, frame};
use super::book::{REGIONS, Shelf};
use super::flags::{self, Flags, Recipe};
use super::groups::{Groups, Regroup, Stretch};
use super::induction;
use super::lines::Lines;
use super::looped::Looped;
use super::peel::Top;
use super::thunks::Thunks;
use crate::exec::{Frame, ModeKey, Op, flag, is_guard};

/// The instruction is left to its handler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsupported;

/// An op that translated code hands to its handler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// The first op; in the arena of the block cache, which outlives the translation.
    pub op: *const Op,
    /// RIP behind it.
    pub next: u64,
    /// How many ops are executed, one after the other.
    pub count: u32,
    /// A handler of theirs may look at the x87 unit.
    pub unit: bool,
    /// The line of the profile that stands for the first of them.
    pub line: u16,
    /// They are the rest of that block, because a group of accesses could not be looked up.
    pub rest_of: Option<u32>,
}

/// A direct jump that can be made to lead to another translation in the same page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    /// Offset in this translation of the jump's displacement.
    pub jump: usize,
    /// Offset of the code that saves the flags before it; the same when there is none.
    pub save: usize,
    /// RIP it goes to.
    pub target: u64,
}

/// What is to be emitted behind the block.
#[derive(Clone, Copy)]
enum Cold {
    /// Executes a site by its handler and goes on at `back`.
    Miss {
        from: Label,
        back: Label,
        site: u32,
        /// Computes the flags, when they are not in the frame.
        recipe: Option<Recipe>,
        /// The flags are expected in the host's at `back`.
        host: bool,
        /// The XMM registers are expected to be loaded at `back`.
        xmm: bool,
        /// The x87 unit is expected in the host's at `back`.
        unit: bool,
        /// The access was to find the pointer of its group.
        regroup: Option<Regroup>,
    },
    /// Loads the XMM registers and goes on at `back`.
    Xmm { from: Label, back: Label },
    /// Loads the x87 unit and goes on at `back`.
    Unit { from: Label, back: Label },
    /// As `Miss`, but a control transfer: it does not come back.
    Leave {
        from: Label,
        site: u32,
        recipe: Option<Recipe>,
    },
    /// The exit word was set: back to the run loop at `target`.
    Poll {
        from: Label,
        recipe: Option<Recipe>,
        target: u64,
    },
    /// A direct jump that leads nowhere yet.
    Link { from: Label, exit: usize },
    /// The block is left for `target`, by a conditional jump within it.
    Side { from: Label, flags: Flags, target: u64 },
    /// The first slot of the jump cache, which RCX names, has another address than RAX: looks into the second, and goes on at
    /// `found` with RCX naming that, or at `miss`.
    Second { from: Label, found: Label, miss: Label },
}

/// A translation in the making.
pub(super) struct Block<'a> {
    pub asm: Asm,
    pub flags: Flags,
    pub mode: ModeKey,
    /// Number of the mode in the jump cache.
    pub mode_slot: usize,
    /// Number of the mode with EFLAGS.AC the other way, if it matters and has one.
    pub other_mode: Option<usize>,
    thunks: &'a Thunks,
    info: &'a mut InstructionInfoFactory,
    sites: &'a mut Shelf<Site>,
    lines: &'a mut Lines,
    /// Number of the first link of this translation.
    first_link: u32,
    pub exits: Vec<Exit>,
    cold: Vec<Cold>,
    /// RIP of the block's first instruction, and its offset in its page.
    pub start: u64,
    pub offset: u64,
    /// The op in hand, and RIP behind it.
    pub op: *const Op,
    code: Code,
    pub next: u64,
    /// Something in the block depends on the flags that it was entered with.
    pub entry_flags_used: bool,
    /// Ops that wait to be handed over together.
    waiting: Option<Site>,
    /// The guest's XMM registers are known to be loaded.
    pub xmm: bool,
    /// The block is such a loop.
    pub looped: Option<Looped>,
    /// The op in hand is the block's last.
    pub last: bool,
    /// Flags that are live behind the op in hand, in iced's bits.
    pub live: u32,
    /// The handler of the op in hand may look at the x87 unit.
    touches_unit: bool,
    /// The guest's x87 unit is known to be in the host's.
    pub unit: bool,
    /// Number of the block.
    pub number: u32,
    pub ops: &'a [Op],
    /// Which of them is in hand.
    pub n: usize,
    pub groups: Groups,
    /// Accesses made beside the pointer of their group.
    pub shared: u64,
    /// The look that the op in hand made for its group: see [`Block::take_regroup`].
    pub looked_up: Option<Stretch>,
    /// The block ends in a jump back to its start, and the first turn may be peeled off.
    pub closes: bool,
    /// The second copy begins there: see [`super::peel`].
    pub top: Option<Top>,
    /// The second copy leads back to its own start.
    pub peeled: bool,
}

/// Whether `code` has no jump but at its end.
fn is_straight(code: &[Instruction]) -> bool {
    code.split_last()
        .is_some_and(|(_, body)| !body.iter().any(Instruction::is_jcc_short_or_near))
}

/// A finished translation.
pub(super) struct Translation {
    pub code: Vec<u8>,
    /// How much of it lies before what misses and ways out lead to.
    pub straight: usize,
    pub exits: Vec<Exit>,
    /// Whether it may be entered with the flags neither in the frame nor anywhere.
    pub flags_dead: bool,
    /// Whether it goes round inside itself as such a loop: [`super::looped`], [`super::peel`].
    pub looped: bool,
    pub peeled: bool,
    /// Accesses that need no look of their own.
    pub shared: u64,
}

/// What a translation needs to know of its surroundings.
pub(super) struct Request<'a> {
    /// Address it will run at.
    pub base: u64,
    /// RIP of its first instruction, and its offset in its page.
    pub rip: u64,
    pub offset: u64,
    pub mode: ModeKey,
    pub mode_slot: usize,
    /// Number of the mode with EFLAGS.AC the other way, if it matters and has one.
    pub other_mode: Option<usize>,
    /// The instructions' bytes, whole.
    pub bytes: &'a [u8],
    /// The ops they were decoded to.
    pub ops: &'a [Op],
    /// Number of the first link; the others' are [`REGIONS`] apart.
    pub first_link: u32,
    /// Loops may go round inside the translation.
    pub loops: bool,
    /// Number of the block.
    pub number: u32,
    /// Accesses may share looks into the TLB.
    pub groups: bool,
}

impl<'a> Block<'a> {
    /// Translates a block.
    pub fn translate(
        request: &Request<'_>,
        thunks: &'a Thunks,
        info: &'a mut InstructionInfoFactory,
        sites: &'a mut Shelf<Site>,
        lines: &'a mut Lines,
    ) -> Translation {
        let mut block = Block {
            asm: Asm::new(request.base),
            flags: Flags::ENTRY,
            mode: request.mode,
            mode_slot: request.mode_slot,
            other_mode: request.other_mode,
            thunks,
            info,
            sites,
            lines,
            first_link: request.first_link,
            exits: Vec::new(),
            cold: Vec::new(),
            start: request.rip,
            offset: request.offset,
            op: core::ptr::null(),
            code: Code::INVALID,
            next: request.rip,
            entry_flags_used: false,
            waiting: None,
            xmm: false,
            looped: None,
            last: false,
            live: 0,
            touches_unit: true,
            unit: false,
            number: request.number,
            ops: request.ops,
            n: 0,
            groups: Groups::default(),
            shared: 0,
            looked_up: None,
            closes: false,
            top: None,
            peeled: false,
        };
        let bits = request.mode.code.bits();
        let mut decoder = Decoder::with_ip(bits, request.bytes, request.rip, DecoderOptions::NONE);
        let code: Vec<Instruction> = request
            .ops
            .iter()
            .map(|op| {
                if is_guard(op) {
                    Instruction::default()
                } else {
                    super::plain::as_executed(&decoder.decode())
                }
            })
            .collect();
        let live = super::live::after(&code, request.ops, &request.mode);
        let mut looped = false;
        if request.loops
            && let Some(plan) = induction::plan(&code, request.ops, &request.mode, request.rip, block.info)
        {
            block.looped = Some(block.begin_loop(plan));
            looped = true;
        }
        let guarded = request.ops.first().is_some_and(is_guard);
        if request.groups && request.mode.flat && !guarded && is_straight(&code) {
            block.groups = Groups::of(&code, request.ops, &request.mode, block.info);
            block.closes =
                request.loops && !looped && super::branch::closes(&code, &request.mode, request.rip);
        }
        block.body(&code, &live);
        if block.top.is_some() {
            block.next = request.rip;
            block.body(&code, &live);
        }
        let straight = block.asm.len();
        block.finish_cold();
        Translation {
            straight,
            exits: block.exits,
            flags_dead: !block.entry_flags_used,
            looped,
            peeled: block.peeled,
            shared: block.shared,
            code: block.asm.finish(),
        }
    }

    /// Translates the block's instructions once.
    fn body(&mut self, code: &[Instruction], live: &[u32]) {
        let ops = self.ops;
        for (n, (i, op)) in code.iter().zip(ops).enumerate() {
            self.n = n;
            self.last = n + 1 == ops.len();
            self.live = live[n];
            debug_assert!(i.len() == usize::from(op.len) || op.len == 0);
            self.op = op;
            self.code = i.code();
            self.next = self.next.wrapping_add(u64::from(op.len));
            if !self.instruction(i, op) {
                return;
            }
        }
        self.hand_over();
        let next = self.next;
        self.go_to(next);
    }

    /// Translates one instruction; answers whether the block goes on behind it.
    fn instruction(&mut self, i: &Instruction, op: &Op) -> bool {
        let ends = op.has(flag::ENDS);
        self.touches_unit = super::x87::touches(i);
        if !ends && i.is_jcc_short_or_near() && self.mode.flat {
            self.hand_over();
            self.side_exit(i);
            return true;
        }
        let known = if ends {
            super::branch::known(i)
        } else {
            super::plain::known(i, &self.mode)
                || super::special::known(i)
                || super::system::known(i)
                || super::x87::known(i, &self.mode)
        };
        if known {
            self.hand_over();
            let done = if ends {
                self.branch(i)
            } else {
                self.special(i)
                    .or_else(|_| self.system(i))
                    .or_else(|_| self.plain(i))
                    .or_else(|_| self.x87(i))
            };
            if done.is_ok() {
                return !ends;
            }
        }
        self.by_handler();
        if ends {
            self.hand_over();
        }
        !ends
    }

    /// What the iced database knows of `i`.
    pub fn info(&mut self, i: &Instruction) -> &iced_x86::InstructionInfo {
        self.info.info(i)
    }

    /// A number for the op in hand.
    pub fn site(&mut self) -> u32 {
        let line = self.lines.line(self.code, true);
        self.push_site(Site {
            op: self.op,
            next: self.next,
            count: 1,
            unit: self.touches_unit,
            line,
            rest_of: None,
        })
    }

    /// Adds a site and gives its number.
    pub fn push_site(&mut self, site: Site) -> u32 {
        self.sites.push(site)
    }

    /// Has the op in hand executed by its handler, together with others that follow it.
    fn by_handler(&mut self) {
        if self.looked_up.take().is_some() {
            self.groups.forget(self.n);
        }
        match &mut self.waiting {
            Some(site) => {
                site.count += 1;
                site.unit |= self.touches_unit;
            }
            None => {
                self.waiting = Some(Site {
                    op: self.op,
                    next: self.next,
                    count: 1,
                    unit: self.touches_unit,
                    line: self.lines.line(self.code, false),
                    rest_of: None,
                });
            }
        }
    }

    /// Emits the call for the ops that wait for their handlers.
    fn hand_over(&mut self) {
        let Some(site) = self.waiting.take() else {
            return;
        };
        self.use_flags();
        self.flags.save(&mut self.asm);
        let site = self.sites.push(site);
        self.asm.constant(RAX, site.into());
        self.asm.branch_to(Code::Call_rel32_64, self.thunks.slow);
        self.flags = Flags::SAVED;
        self.xmm = false;
        self.unit = false;
    }

    /// Makes sure that the guest's XMM registers are loaded.
    pub fn need_xmm(&mut self) {
        if !core::mem::replace(&mut self.xmm, true) {
            let (from, back) = self.unless_live(frame(offset_of!(Frame, xmm_live)));
            self.cold.push(Cold::Xmm { from, back });
        }
    }

    /// Makes sure that the guest's x87 unit is in the host's.
    pub fn need_unit(&mut self) {
        if !core::mem::replace(&mut self.unit, true) {
            let (from, back) = self.unless_live(super::unit::live());
            self.cold.push(Cold::Unit { from, back });
        }
    }

    /// Looks at a word of the frame: where it is 0, registers are loaded at the first label for the second.
    fn unless_live(&mut self, word: MemoryOperand) -> (Label, Label) {
        // Nothing looks at the flags where they are loaded, so flags that are in the frame, or nowhere, stay there.
        if !self.flags.saved {
            self.spoil_flags();
        }
        self.flags.host = false;
        let (from, back) = (self.asm.label(), self.asm.label());
        self.asm.mi(Code::Cmp_rm64_imm8, word, 0);
        self.asm.branch(Code::Je_rel32_64, from);
        self.asm.bind(back);
        (from, back)
    }

    /// Notes that what follows may look at the flags.
    pub fn use_flags(&mut self) {
        self.entry_flags_used |= self.flags.entry;
    }

    /// To be called before the host's flags are spoiled by our own code, where the flags may be asked for later.
    pub fn spoil_flags(&mut self) {
        self.use_flags();
        self.flags.spoil(&mut self.asm);
    }

    /// Puts the flags into the host's.
    pub fn host_flags(&mut self) {
        self.use_flags();
        self.flags.bring(&mut self.asm);
    }

    /// The recipe that a cold path needs, `None` when the flags are in the frame.
    fn cold_recipe(&self) -> Option<Recipe> {
        if self.flags.saved { None } else { self.flags.recipe }
    }

    /// From `from`, the op in hand is executed by its handler, and execution goes on at `back`, where the flags are
    /// where `after` says. Nothing is emitted when nothing leads to `from`.
    pub fn on_miss(&mut self, from: Label, back: Label, before: &Flags) {
        if !self.asm.is_used(from) {
            return;
        }
        let regroup = self.take_regroup();
        let site = self.site();
        self.cold.push(Cold::Miss {
            from,
            back,
            site,
            recipe: if before.saved { None } else { before.recipe },
            host: self.flags.host,
            xmm: self.xmm,
            unit: self.unit,
            regroup,
        });
    }

    /// From `from`, the op in hand is executed by its handler, and the block is left.
    pub fn on_miss_leave(&mut self, from: Label) {
        if !self.asm.is_used(from) {
            return;
        }
        let site = self.site();
        let recipe = self.cold_recipe();
        self.cold.push(Cold::Leave { from, site, recipe });
    }

    /// From `from`, the block is left for `target`.
    pub fn on_side(&mut self, from: Label, target: u64) {
        let flags = self.flags;
        self.cold.push(Cold::Side { from, flags, target });
    }

    /// From `from`, the second slot of the jump cache is looked into.
    pub fn on_first_slot_missed(&mut self, from: Label, found: Label, miss: Label) {
        self.cold.push(Cold::Second { from, found, miss });
    }

    /// From `from`, the run loop goes on at `target`.
    pub fn on_poll(&mut self, from: Label, target: u64) {
        let recipe = self.cold_recipe();
        self.cold.push(Cold::Poll { from, recipe, target });
    }

    /// A jump at the end of the code so far, linked later; `save` is where the flags were saved for it.
    pub fn on_link(&mut self, save: usize, target: u64) {
        let from = self.asm.label();
        self.asm.branch(Code::Jmp_rel32_64, from);
        self.exits.push(Exit {
            jump: self.asm.len() - 4,
            save,
            target,
        });
        let exit = self.exits.len() - 1;
        self.cold.push(Cold::Link { from, exit });
    }

    /// The thunks, for jumps out of the block.
    pub fn thunks(&self) -> Thunks {
        *self.thunks
    }

    fn recover(&mut self, recipe: Option<Recipe>) {
        if let Some(recipe) = recipe {
            let mut f = Flags {
                host: false,
                saved: false,
                recipe: Some(recipe),
                entry: false,
            };
            f.save(&mut self.asm);
        }
    }

    fn finish_cold(&mut self) {
        let mut cold = core::mem::take(&mut self.cold);
        // Ways out of the block have cold paths of their own.
        while let Some(next) = cold.pop() {
            self.finish_one(next);
            cold.append(&mut self.cold);
        }
    }

    fn finish_one(&mut self, cold: Cold) {
        match cold {
            Cold::Miss {
                from,
                back,
                site,
                recipe,
                host,
                xmm,
                unit,
                regroup,
            } => {
                self.asm.bind(from);
                self.recover(recipe);
                if let Some(r) = &regroup {
                    self.keep_linear(r);
                }
                self.asm.constant(RAX, u64::from(site));
                self.asm.branch_to(Code::Call_rel32_64, self.thunks.slow);
                let hard = self.asm.label();
                if let Some(r) = &regroup {
                    self.look_again(r, hard);
                }
                if xmm {
                    self.asm.branch_to(Code::Call_rel32_64, self.thunks.xmm);
                }
                if unit {
                    self.asm.branch_to(Code::Call_rel32_64, self.thunks.unit);
                }
                if host {
                    flags::load(&mut self.asm);
                }
                self.asm.branch(Code::Jmp_rel32_64, back);
                if let Some(r) = &regroup {
                    self.rest_by_handlers(r, hard);
                }
            }
            Cold::Xmm { from, back } => {
                self.asm.bind(from);
                self.asm.branch_to(Code::Call_rel32_64, self.thunks.xmm);
                self.asm.branch(Code::Jmp_rel32_64, back);
            }
            Cold::Unit { from, back } => {
                self.asm.bind(from);
                self.asm.branch_to(Code::Call_rel32_64, self.thunks.unit);
                self.asm.branch(Code::Jmp_rel32_64, back);
            }
            Cold::Leave { from, site, recipe } => {
                self.asm.bind(from);
                self.recover(recipe);
                self.asm.constant(RAX, u64::from(site));
                self.asm.branch_to(Code::Call_rel32_64, self.thunks.slow);
                // The handlers of control transfers are told to leave; this is never reached.
                self.asm.op(Code::Ud2);
            }
            Cold::Poll { from, recipe, target } => {
                self.asm.bind(from);
                self.recover(recipe);
                self.asm.constant(RAX, target);
                self.asm.branch_to(Code::Jmp_rel32_64, self.thunks.next);
            }
            Cold::Side { from, flags, target } => {
                self.asm.bind(from);
                self.flags = flags;
                self.go_to(target);
            }
            Cold::Second { from, found, miss } => {
                self.asm.bind(from);
                self.second_slot(found, miss);
            }
            Cold::Link { from, exit } => {
                self.asm.bind(from);
                let number = self.first_link + (exit * REGIONS) as u32;
                self.asm
                    .put(&Instruction::with2(Code::Mov_r32_imm32, Register::EAX, number).expect("encodable"));
                self.asm.branch_to(Code::Jmp_rel32_64, self.thunks.link);
            }
        }
    }
}
