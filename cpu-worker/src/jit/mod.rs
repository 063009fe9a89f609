//! The translator: hot blocks become host code.
//!
//! Guest and host speak the same language, so a translation is mostly the guest's own instructions with other
//! register numbers; what is added is the look into the TLB before each access, and the way from block to block. The
//! interpreter stays the reference and the way out: whatever the translator does not know it hands to the
//! interpreter's handler, one op at a time (`translate::Block::by_handler`), and so does every access that misses the TLB.
//!
//! - `abi`: which register is where. `thunks`: in and out.
//! - `translate`, `plain`, `special`, `system`, `branch`, `memory`, `flags`, `live`: a block's translation.
//! - `groups`: accesses that share a look into the TLB.
//! - `values`, `induction`, `looped`: loops that need no look into the TLB at each access. `peel`: what other loops carry from turn to turn.
//! - `check`: `--check-jit`. `listing`: translations as text. `shown`, `gdb`, `object`: what debuggers see of them.
//! - `cache`: executable memory. `book`: where translations lie and what leads to them. This module: the run loop's side.
//!
//! The seam for another host architecture is `Jit`: `new`, `find`, `translate`, `run`, `bury`, `evict` and `reset` know nothing of x86
//! but by the modules above.
#![allow(unsafe_code, reason = "machine code is called, and calls back")]

mod abi;
mod asm;
mod book;
mod branch;
mod cache;
mod check;
mod flags;
mod gdb;
mod groups;
mod induction;
mod lines;
mod listing;
mod live;
mod looped;
mod memory;
mod object;
mod peel;
mod plain;
pub mod shown;
mod special;
mod system;
mod thunks;
mod translate;
mod unit;
mod values;
mod x87;

use core::mem::offset_of;
use std::collections::{HashMap, HashSet};

use iced_x86::InstructionInfoFactory;

use book::{Book, Led, Link, Native};
pub use cache::{CODE_BYTES, CodeMemory};
pub use check::Trial;
pub(crate) use gdb::Told;
use lines::Lines;
pub use listing::Listing;
use quintet_protocol::profile::{Activity, ProfileWriter};
use thunks::Thunks;
use translate::{Block, Request, Site};

use crate::exec::{Exit, ModeKey, Op, Vcpu, flag};
use crate::state::{CodeSize, RIP};

/// Executions of a block before it is translated.
pub const HOT: u32 = 24;
/// How often the rest of a block may be left to handlers before it is translated again without groups.
const STRAYS: u32 = 64;
/// Room a translation may need at most, in bytes.
const LARGEST: usize = 64 << 10;
/// Least memory for a translator, in bytes.
pub const CODE_BYTES_LEAST: usize = 2 * LARGEST * book::REGIONS;

/// What came of a run of translated code.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left {
    /// Look up CS:rIP.
    Next,
    /// A handler answered so, for an instruction of that many bytes: only while blocks are compared.
    Exit(Exit, u8),
    /// By a direct jump that leads nowhere yet.
    Link(u32),
}

/// The translator of one vCPU.
#[allow(missing_debug_implementations, reason = "a book of machine code")]
pub struct Jit {
    memory: CodeMemory,
    thunks: Thunks,
    /// Bytes of the routines that the code memory begins with.
    routines: usize,
    info: InstructionInfoFactory,
    book: Book,
    lines: Lines,
    /// By number of the block: its executions.
    heat: Vec<u32>,
    hot: u32,
    left: Option<(Exit, u8)>,
    /// How often the guest's x87 unit was taken out of the host's.
    unloads: u64,
    /// Translations that go round inside themselves: of loops whose accesses move evenly, and of such whose first turn is peeled off.
    loops: u64,
    peeled: u64,
    /// Accesses of all translations that share the look of another.
    shared: u64,
    /// Translations of segmented code.
    segmented: u64,
    /// How often the rest of a block was left to handlers, in all and by its number.
    strayed: u64,
    strays: HashMap<u32, u32>,
    /// Blocks to be translated again without groups of accesses; then, those translated so.
    straying: Vec<u32>,
    ungrouped: HashSet<u32>,
}

/// What translated code needs of the host's processor and kernel and does not find.
pub fn missing_on_host() -> Vec<&'static str> {
    let needs = [
        // HWCAP2_FSGSBASE of asm/hwcap2.h.
        ("FSGSBASE (Linux 5.9)", rustix::param::linux_hwcap().1 & 2 != 0),
        ("SSE4.2", is_x86_feature_detected!("sse4.2")),
        ("POPCNT", is_x86_feature_detected!("popcnt")),
        ("XSAVE", is_x86_feature_detected!("xsave")),
        ("AES", is_x86_feature_detected!("aes")),
        ("PCLMULQDQ", is_x86_feature_detected!("pclmulqdq")),
    ];
    needs
        .into_iter()
        .filter_map(|(name, there)| (!there).then_some(name))
        .collect()
}

impl Jit {
    /// A translator that writes into `memory`; `hot` executions make a block worth translating.
    ///
    /// Answers `None` on a host that cannot execute its code: one without the instructions that let a program set its
    /// GS base, or without SSE4.2, POPCNT, AES, PCLMULQDQ and XSAVE.
    ///
    /// # Panics
    /// When `memory` has less than [`CODE_BYTES_LEAST`].
    pub fn new(mut memory: CodeMemory, hot: u32) -> Option<Box<Self>> {
        if !missing_on_host().is_empty() {
            return None;
        }
        assert!(memory.size() >= CODE_BYTES_LEAST, "too little memory for code");
        let (thunks, code) = thunks::make(memory.address(0), slow);
        memory.write(0, &code);
        Some(Box::new(Self {
            book: Book::new(memory.size(), code.len()),
            routines: code.len(),
            memory,
            thunks,
            info: InstructionInfoFactory::new(),
            lines: Lines::default(),
            heat: Vec::new(),
            hot,
            left: None,
            unloads: 0,
            loops: 0,
            peeled: 0,
            shared: 0,
            segmented: 0,
            strayed: 0,
            strays: HashMap::new(),
            straying: Vec::new(),
            ungrouped: HashSet::new(),
        }))
    }

    /// Names what translated code hands to handlers in the profile that `writer` writes.
    pub fn name_in(&mut self, writer: ProfileWriter) {
        self.lines = Lines::new(writer);
    }

    /// How often translated code has left x87 state in the host's unit that was then taken back. A test that means to
    /// execute x87 instructions as themselves sees by this that it did.
    pub fn unit_unloads(&self) -> u64 {
        self.unloads
    }

    /// How many translations were made of loops whose accesses need no look into the TLB at each turn. A test that means
    /// to execute such loops sees by this that it did.
    pub fn loops(&self) -> u64 {
        self.loops
    }

    /// How many translations were made of loops whose first turn is peeled off. A test that means to execute such loops sees by
    /// this that it did.
    pub fn peeled(&self) -> u64 {
        self.peeled
    }

    /// How many translations were made of 16-bit and segmented code. A test that means to execute such code sees by this that
    /// it did.
    pub fn segmented(&self) -> u64 {
        self.segmented
    }

    /// Number of translations, and how many bytes they have.
    pub fn extent(&self) -> (usize, usize) {
        self.book.extent()
    }

    /// How often the oldest part of the code memory was emptied to make room.
    pub fn evictions(&self) -> u64 {
        self.book.evictions
    }

    /// How many accesses of all translations share the look into the TLB of another, and how often such a look failed. A test that means to
    /// execute such accesses sees by this that it did.
    pub fn shared_looks(&self) -> (u64, u64) {
        (self.shared, self.strayed)
    }

    /// Where the jump cache leads, in segmented code or not, for what has no translation: back to the run loop.
    pub(crate) fn cold(&self, segmented: bool) -> u64 {
        if segmented {
            self.thunks.next_by_tag
        } else {
            self.thunks.next
        }
    }

    /// Counts an execution of block `n` by the interpreter; whether it is to be translated now.
    pub(crate) fn heat(&mut self, n: u32) -> bool {
        let n = n as usize;
        if n >= self.heat.len() {
            self.heat.resize(n + 1, 0);
        }
        self.heat[n] += 1;
        self.heat[n] >= self.hot
    }

    /// The translation of block `n` for `rip` and `mode`.
    pub(crate) fn find(&self, n: u32, rip: u64, mode: usize) -> Option<u64> {
        let t = self.book.find(n, rip, mode)?;
        Some(self.book.native(t).entry)
    }

    /// Whether there is no room for another translation, so that [`Self::evict`] is due.
    pub(crate) fn full(&self) -> bool {
        self.book.full(LARGEST)
    }

    /// Gives up the oldest translations. The jump cache must be emptied; not while their code executes.
    pub(crate) fn evict(&mut self) {
        self.book.evict(&mut self.memory);
    }

    fn site(&self, number: u32) -> &Site {
        self.book.site(number)
    }

    /// Translates block `n`, which begins at `rip`, `offset` bytes into its page, and gives the address of its code.
    pub(crate) fn translate(
        &mut self,
        n: u32,
        (rip, offset): (u64, u64),
        mode: (usize, ModeKey, Option<usize>),
        bytes: &[u8],
        ops: &[Op],
        loops: bool,
    ) -> u64 {
        let at = self.book.used();
        let region = self.book.region();
        let request = Request {
            base: self.memory.address(at),
            rip,
            offset,
            mode: mode.1,
            mode_slot: mode.0,
            other_mode: mode.2,
            bytes,
            ops,
            first_link: region.links.next(),
            loops,
            number: n,
            groups: !self.ungrouped.contains(&n),
        };
        let t = Block::translate(
            &request,
            &self.thunks,
            &mut self.info,
            &mut region.sites,
            &mut self.lines,
        );
        self.loops += u64::from(t.looped);
        self.peeled += u64::from(t.peeled);
        self.shared += t.shared;
        self.segmented += u64::from(!mode.1.flat);
        assert!(t.code.len() <= LARGEST, "a translation has outgrown its bound");
        self.memory.write(at, &t.code);
        for e in &t.exits {
            let idle = self.memory.read(at + e.jump);
            let link = Link::new(at + e.jump, idle, at + e.save, e.target);
            region.links.push(link);
        }
        self.book.add(Native {
            block: n,
            rip,
            mode: mode.0,
            entry: request.base,
            offset: at,
            flags_dead: t.flags_dead,
            len: t.code.len(),
            straight: t.straight,
            guest: bytes.len(),
            buried: 0,
            links: (request.first_link, t.exits.len()),
            next: None,
        });
        self.book.take(t.code.len());
        request.base
    }

    /// Where link `number` goes.
    pub(crate) fn link_target(&self, number: u32) -> u64 {
        self.book.link(number).target
    }

    /// Makes link `number` lead to the translation of block `n` for its target. A block that `crosses` into another page is
    /// led to by the jump cache, which knows when that page is no more, but from itself.
    pub(crate) fn link(&mut self, number: u32, n: u32, mode: (usize, ModeKey), crosses: bool) {
        let link = *self.book.link(number);
        let to = self.book.find(n, link.target, mode.0);
        let own = to.is_some_and(|to| self.book.has_link(to, number));
        let (led, entry) = if crosses && !own {
            if self.full() {
                return;
            }
            let at = self.book.used();
            let base = self.memory.address(at);
            let code = branch::by_cache(base, link.target, mode.0, mode.1.flat, self.thunks.next);
            self.memory.write(at, &code);
            self.book.take(code.len());
            (Led::Stub, base)
        } else {
            let Some(to) = to else { return };
            let t = self.book.native(to);
            // The flags need not even be saved where nothing looks at them: a jump takes the place of that code.
            let short = t.flags_dead && link.save + 4 < link.jump;
            (if short { Led::Short(to) } else { Led::To(to) }, t.entry)
        };
        self.book.lead(number, &mut self.memory, led, entry);
    }

    /// Leads all that leads to block `n` back to the run loop. Not while its code executes.
    pub(crate) fn bury(&mut self, n: u32) {
        self.strays.remove(&n);
        self.ungrouped.remove(&n);
        if let Some(heat) = self.heat.get_mut(n as usize) {
            *heat = 0;
        }
        for number in self.book.bury(n, &mut self.memory) {
            let t = self.book.native(number);
            let mut a = asm::Asm::new(t.entry);
            a.constant(abi::RAX, t.rip);
            a.branch_to(iced_x86::Code::Jmp_rel32_64, self.thunks.next);
            let code = a.finish();
            self.memory.write(t.offset, &code);
        }
    }

    /// Forgets all translations.
    pub(crate) fn reset(&mut self) {
        self.book.clear();
        self.heat.clear();
        self.strays.clear();
        self.straying.clear();
        self.ungrouped.clear();
    }

    /// Notes that handlers execute the rest of block `n`, because a group of its accesses could not be looked up.
    fn stray(&mut self, n: u32) {
        self.strayed += 1;
        let count = self.strays.entry(n).or_default();
        *count += 1;
        if *count == STRAYS {
            self.straying.push(n);
        }
    }
}

/// Whether translated code hands `op` to its handler whatever its operands are: string instructions, ports, system instructions.
fn hands_over(op: &Op) -> bool {
    op.has(flag::SERIAL)
}

impl Vcpu {
    /// Executes translated code at `entry` until it comes back.
    pub(crate) fn run_native(&mut self, entry: u64) -> Left {
        let jit = self.jit.as_mut().expect("only a translator gives addresses");
        let enter = jit.thunks.enter;
        self.tlb.frame.flags = flags::image(self.state.flags.arithmetic());
        self.publish_bases();
        debug_assert_eq!(
            self.mode_key().x87,
            ModeKey::x87_of(&self.state),
            "an x87 exception may be a signal"
        );
        let frame = &raw const *self.tlb.frame;
        self.tlb.frame.exit_word = self.exit_word.address() as u64;
        self.begin_block();
        self.profile.begin(Activity::Translated.line());
        // In 32-bit code, R8 is a scratch register, and four more hold pointers.
        let spared: [u64; 5] = core::array::from_fn(|n| self.state.regs[8 + n]);
        let long = self.code_size == CodeSize::Bits64;
        // SAFETY: `enter` is a routine of this type at the start of the code memory, and `entry` a translation that
        // belongs to this vCPU; the frame that GS names outlives the call. The vCPU is reached by this pointer alone
        // until the call returns. FSGSBASE was found in `Jit::new`, and nothing else uses GS.
        let why = unsafe {
            core::arch::asm!("wrgsbase {}", in(reg) frame, options(nostack, preserves_flags));
            let enter: extern "sysv64" fn(u64, *mut Self) -> u64 = core::mem::transmute(enter);
            enter(entry, self)
        };
        self.profile.resume(Activity::Lookup.line());
        self.unload_unit();
        if !long {
            self.state.regs[8..13].copy_from_slice(&spared);
        }
        self.translate_strays();
        self.state.flags.set_arithmetic(flags::bits(self.tlb.frame.flags));
        match why & 0xFF {
            abi::leave::LINK => Left::Link((why >> 8) as u32),
            abi::leave::EXIT => {
                let jit = self.jit.as_mut().expect("it was there before");
                let (exit, len) = jit.left.take().expect("a handler has left it");
                Left::Exit(exit, len)
            }
            _ => Left::Next,
        }
    }

    /// Has blocks translated again that often leave translated code in their middle.
    fn translate_strays(&mut self) {
        let Some(jit) = &mut self.jit else { return };
        if jit.straying.is_empty() {
            return;
        }
        for n in core::mem::take(&mut jit.straying) {
            jit.bury(n);
            jit.ungrouped.insert(n);
        }
        self.tlb.forget_jumps();
    }

    /// Puts the bases of the segments where translated code finds them, and what they allow where it asks.
    fn publish_bases(&mut self) {
        let flat = self.mode_key().flat;
        let frame = &mut self.tlb.frame;
        for (base, s) in frame.bases.iter_mut().zip(&self.state.segs) {
            *base = s.base;
        }
        if !flat {
            for (n, s) in self.state.segs.iter().enumerate() {
                frame.readable[n] = s.read.last();
                frame.writable[n] = s.write.last();
            }
        }
    }

    /// Executes the ops of a site by their handlers, for translated code.
    fn native_ops(&mut self, site: u32) -> u64 {
        let jit = self.jit.as_ref().expect("translated code is executing");
        let site = *jit.site(site);
        if let (Some(n), Some(jit)) = (site.rest_of, &mut self.jit) {
            jit.stray(n);
        }
        self.profile.begin(site.line);
        let answer = self.execute_site(&site);
        self.profile.resume(Activity::Translated.line());
        answer
    }

    fn execute_site(&mut self, site: &Site) -> u64 {
        self.state.flags.set_arithmetic(flags::bits(self.tlb.frame.flags));
        self.state.regs[RIP] = site.next;
        self.take_pointers();
        if site.unit {
            self.unload_unit();
        }
        let mode = self.mode_key();
        let drops = self.tlb.drops();
        // SAFETY: the ops lie one after the other in the arena of the block cache, which is only reset between runs
        // of translated code and takes all translations with it.
        let ops = unsafe { core::slice::from_raw_parts(site.op, site.count as usize) };
        for (n, op) in ops.iter().enumerate() {
            if n > 0 {
                self.state.regs[RIP] = self.state.regs[RIP].wrapping_add(u64::from(op.len));
            }
            if let Err(exit) = (op.handler)(self, op) {
                if self.trial.is_some() {
                    let jit = self.jit.as_mut().expect("translated code is executing");
                    jit.left = Some((exit, op.len));
                    self.tlb.frame.flags = flags::image(self.state.flags.arithmetic());
                    return abi::leave::EXIT;
                }
                self.leave(exit, op.len);
                return self.native_on(mode.code);
            }
            self.instructions += 1;
            if op.has(flag::ENDS) || self.block_ended() || !self.reasons.is_empty() || self.mode_key() != mode
            {
                return self.native_on(mode.code);
            }
        }
        // Pointers that the block has may be into pages whose entries are gone.
        if !self.sse_masked() || self.tlb.drops() != drops {
            return self.native_on(mode.code);
        }
        self.publish_bases();
        self.tlb.frame.flags = flags::image(self.state.flags.arithmetic());
        0
    }

    /// Ends a site at CS:rIP, in code of size `code`: the translation to go on with, or the way out.
    fn native_on(&mut self, code: CodeSize) -> u64 {
        let native = if self.trial.is_some() {
            None
        } else {
            self.onward(code)
        };
        self.tlb.frame.flags = flags::image(self.state.flags.arithmetic());
        match native {
            Some(native) => {
                self.publish_bases();
                self.begin_block();
                native
            }
            None => abi::leave::NEXT,
        }
    }

    /// Whether SSE exceptions are all masked: translated code executes SSE instructions as themselves, and an
    /// unmasked exception would be the host's.
    pub(crate) fn sse_masked(&self) -> bool {
        self.state.mxcsr & 0x1F80 == 0x1F80
    }
}

/// What [`Thunks::slow`] calls.
extern "sysv64" fn slow(cpu: *mut Vcpu, site: u32) -> u64 {
    // SAFETY: `run_native` gave the pointer to the code that calls, and waits for it.
    unsafe { (*cpu).native_ops(site) }
}

const _: () = assert!(offset_of!(Vcpu, state) < 1 << 20);
