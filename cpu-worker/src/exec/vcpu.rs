//! A vCPU: architectural state, caches over it, and the words through which it is interrupted.
#![allow(unsafe_code, reason = "the exit word is read by raw pointer on every block")]

use core::ptr::NonNull;
use std::sync::Arc;

use quintet_protocol::profile::ProfileWriter;
use quintet_protocol::ram::GuestRam;
use quintet_protocol::shm::ViewMut;
use quintet_protocol::sync::{AtomicU32, Ordering};
use quintet_protocol::trace::Tracer;

use super::{BlockCache, Exit, Fault, Flow, MODES, ModeKey, Op, Points, Vector};
use crate::bus::{Bus, Effects};
use crate::cpuid::Model;
use crate::gdb::Remote;
use crate::jit::{Jit, Trial};
use crate::mmu::{PhysMemory, Tlb, TlbIndex};
use crate::state::{Activity, CodeSize, CpuState, Cr0, Cr4, Flag, seg};

/// The word that others store 1 to so that the vCPU looks at its events. It carries nothing but "look".
#[derive(Clone, Debug)]
pub struct ExitWord {
    word: NonNull<AtomicU32>,
    _keep: Keep,
}

#[derive(Clone, Debug)]
enum Keep {
    Shared { _view: ViewMut },
    Local { _word: Arc<AtomicU32> },
}

// SAFETY: the word is an atomic that `_keep` keeps alive.
unsafe impl Send for ExitWord {}

impl ExitWord {
    /// The word at `offset` of a doorbell segment.
    pub fn shared(view: ViewMut, offset: usize) -> Self {
        let word = NonNull::from(view.view().futex_word(offset));
        Self {
            word,
            _keep: Keep::Shared { _view: view },
        }
    }

    /// A word of this process, for tests.
    pub fn local() -> Self {
        let arc = Arc::new(AtomicU32::new(0));
        Self {
            word: NonNull::from(&*arc),
            _keep: Keep::Local { _word: arc },
        }
    }

    #[inline(always)]
    fn word(&self) -> &AtomicU32 {
        // SAFETY: alive and aligned as long as `_keep` lives; an atomic may be shared with other processes.
        unsafe { self.word.as_ref() }
    }

    /// Its address, for code that cannot call [`Self::is_set`].
    pub(crate) fn address(&self) -> *const AtomicU32 {
        self.word.as_ptr()
    }

    /// Whether somebody wants the vCPU to look.
    #[inline(always)]
    pub fn is_set(&self) -> bool {
        self.word().load(Ordering::Relaxed) != 0
    }

    /// Asks the vCPU to look.
    pub fn set(&self) {
        self.word().store(1, Ordering::SeqCst);
    }

    /// Cleared by the owner before it reads the reasons.
    pub fn clear(&self) {
        self.word().swap(0, Ordering::SeqCst);
    }
}

bitflags::bitflags! {
    /// Reasons of the vCPU's own to leave the fast loop before the next instruction.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Reason: u32 {
        /// Interrupts may have become deliverable: IF set, TPR lowered, an unmask.
        const INTERRUPT = 1;
        /// The last instruction left an interrupt shadow: execute one instruction, then look.
        const SHADOW = 2;
        /// TF or breakpoints in DR7: execute instruction by instruction.
        const STEP = 4;
        /// The bus asked to stop.
        const STOP = 8;
        /// The bus asked for the physical map and A20 to be looked at again.
        const VIEW = 16;
        /// A debug exception is due after the instruction just executed; bits in `debug_hits`.
        const DEBUG_TRAP = 32;
        /// Blocks have been dropped: what leads to them is to be led astray before it is followed again.
        const CODE = 64;
        /// RF is set and holds nothing back: clear it before the next instruction.
        const RESUME = 128;
        /// The debugger has the vCPU stand still.
        const HELD = 256;
    }
}

/// A virtual processor.
#[allow(
    missing_debug_implementations,
    reason = "holds the bus, a trait object; `state` is what one wants to see"
)]
pub struct Vcpu {
    /// Architectural state.
    pub state: CpuState,
    /// The data and instruction TLBs.
    pub tlb: Tlb,
    /// Which TLB table data accesses use now; derived by [`Self::refresh_mode`].
    pub tlb_index: TlbIndex,
    /// How code is decoded now; derived by [`Self::refresh_mode`].
    pub code_size: CodeSize,
    /// 64 minus the width of the stack pointer; derived by [`Self::refresh_mode`].
    pub stack_shift: u8,
    /// Guest memory.
    pub mem: PhysMemory,
    /// Predecoded code.
    pub blocks: BlockCache,
    /// The machine around.
    pub bus: Box<dyn Bus>,
    /// What the processor says it is.
    pub model: Model,
    /// Whether 1 GiB pages exist in this model.
    pub huge_pages: bool,
    /// The exception being raised, when a handler answers [`Exit::Fault`].
    pub pending_fault: Fault,
    /// Reasons to leave the fast loop.
    pub reasons: Reason,
    /// Set when data accesses must all take the slow path: data breakpoints, alignment checking.
    pub watching: bool,
    /// DR6 bits of breakpoints hit by the instruction in progress.
    pub debug_hits: u64,
    /// Hits of MOV SS or POP SS, held back until the next instruction has completed.
    pub held_hits: u64,
    /// What the debugger waits for, if there may be one.
    pub points: Option<Box<Points>>,
    /// What the debugger has asked for.
    pub remote: Remote,
    /// Some pages have watchpoints and so no entries in the TLB.
    pub(super) spied: bool,
    /// Set by others to make the vCPU look.
    pub exit_word: ExitWord,
    /// Instructions executed, counted by blocks.
    pub instructions: u64,
    /// Where the instructions that [`Vcpu::run`] was given end.
    pub(super) until: u64,
    /// The end of the block in progress; moved to null to end it after the current instruction.
    pub(super) end: *const Op,
    /// The translator, unless everything is interpreted.
    pub jit: Option<Box<Jit>>,
    /// Where it says what it is doing.
    pub profile: ProfileWriter,
    /// Where it tells about interrupts and translations.
    pub tracer: Tracer,
    /// Present when every translation is compared with the interpreter.
    pub trial: Option<Box<Trial>>,
    /// Which of the jump cache's modes is the current one; derived by [`Self::refresh_mode`].
    pub(crate) mode: usize,
    /// The bits of rIP that the jump cache looks at beside the linear address: none where code is flat.
    pub(super) segmented: u64,
    /// The modes that the jump cache tells apart now, by number.
    modes: Vec<ModeKey>,
}

// SAFETY: the raw pointers point into `blocks`, which moves along with the vCPU on the heap.
unsafe impl Send for Vcpu {}

impl Vcpu {
    /// A vCPU after power-up.
    pub fn new(ram: GuestRam, bus: Box<dyn Bus>, model: Model, exit_word: ExitWord) -> Self {
        let mem = PhysMemory::new(ram);
        let blocks = BlockCache::new(mem.ram_pages());
        let state = CpuState::reset(model.signature());
        let huge_pages = model.huge_pages();
        let mut cpu = Self {
            state,
            tlb: Tlb::default(),
            tlb_index: TlbIndex::Supervisor,
            code_size: CodeSize::Bits16,
            stack_shift: 48,
            mem,
            blocks,
            bus,
            model,
            huge_pages,
            pending_fault: Fault {
                vector: Vector::Ud,
                code: 0,
                info: 0,
            },
            reasons: Reason::VIEW,
            watching: false,
            debug_hits: 0,
            held_hits: 0,
            points: None,
            remote: Remote::default(),
            spied: false,
            exit_word,
            instructions: 0,
            until: 0,
            end: core::ptr::null(),
            jit: None,
            profile: ProfileWriter::default(),
            tracer: Tracer::default(),
            trial: None,
            mode: 0,
            segmented: 0,
            modes: Vec::with_capacity(MODES),
        };
        cpu.refresh_mode();
        cpu
    }

    /// INIT# or RESET#: architectural state anew; RAM and the machine around are the caller's.
    pub fn reset(&mut self) {
        self.state = CpuState::reset(self.model.signature());
        self.reasons = Reason::VIEW;
        self.debug_hits = 0;
        self.held_hits = 0;
        self.tlb.flush_all();
        self.refresh_mode();
    }

    /// Derives what is cached of the mode: to be called after any change of CS, SS, CPL, CR0, CR4, EFER,
    /// RFLAGS.VM, RFLAGS.AC, RFLAGS.TF, RFLAGS.RF, DR7 or the x87's masks.
    pub fn refresh_mode(&mut self) {
        let s = &self.state;
        self.code_size = s.code_size();
        self.stack_shift = if self.code_size == CodeSize::Bits64 {
            0
        } else if s.segs[seg::SS].attr.big() {
            32
        } else {
            48
        };
        self.tlb_index = if s.cpl == 3 {
            TlbIndex::User
        } else if s.cr4.contains(Cr4::SMAP) && s.flags.get(Flag::Ac) {
            TlbIndex::SupervisorAc
        } else {
            TlbIndex::Supervisor
        };
        let key = ModeKey::of(s, self.code_size, self.tlb_index);
        if self.modes.get(self.mode) != Some(&key) {
            self.mode = self.mode_number(key);
            self.segmented = if key.flat { 0 } else { 0xFFFF_FFFF };
        }
        let s = &self.state;
        let aligned = s.cpl == 3 && s.cr0.contains(Cr0::AM) && s.flags.get(Flag::Ac);
        let armed = crate::except::armed(s);
        let watching = aligned || armed.data;
        if watching != self.watching {
            self.watching = watching;
            self.tlb.flush_all();
        }
        let s = &self.state;
        let step = s.flags.get(Flag::Tf) || armed.data || armed.other;
        self.reasons.set(Reason::STEP, step);
        self.reasons.set(Reason::RESUME, s.flags.get(Flag::Rf) && !step);
    }

    /// As [`Self::refresh_mode`], after a change of the x87's control or status word alone.
    #[inline]
    pub(crate) fn refresh_x87(&mut self) {
        if ModeKey::x87_of(&self.state) != self.mode_key().x87 {
            self.refresh_mode();
        }
    }

    /// The jump cache's number for `key`; all are given anew when they run out.
    fn mode_number(&mut self, key: ModeKey) -> usize {
        if let Some(n) = self.modes.iter().position(|k| *k == key) {
            return n;
        }
        if self.modes.len() == MODES {
            self.modes.clear();
            self.tlb.forget_jumps();
            if let Some(jit) = &mut self.jit {
                jit.reset();
            }
        }
        self.modes.push(key);
        self.modes.len() - 1
    }

    /// The jump cache's number for `key`, unless all are given.
    pub(super) fn mode_number_if_free(&mut self, key: ModeKey) -> Option<usize> {
        let room = self.modes.len() < MODES || self.modes.contains(&key);
        room.then(|| self.mode_number(key))
    }

    /// What code is decoded and translated for now.
    pub(crate) fn mode_key(&self) -> ModeKey {
        self.modes[self.mode]
    }

    /// Takes over what an access to the machine did to the vCPU's view.
    pub fn apply(&mut self, effects: Effects) {
        if effects.is_empty() {
            return;
        }
        if effects.contains(Effects::VIEW) {
            self.reasons |= Reason::VIEW;
        }
        if effects.contains(Effects::INTERRUPT) {
            self.reasons |= Reason::INTERRUPT;
        }
        if effects.contains(Effects::STOP) {
            self.reasons |= Reason::STOP;
        }
        if effects.contains(Effects::FRAME) {
            self.close_vram();
        }
        self.end_block();
    }

    /// Gives up the right to write display memory by host pointer, and lets the next frame epoch begin.
    pub fn close_vram(&mut self) {
        self.tlb.close_vram();
        self.bus.vram_closed();
    }

    /// Ends the block in progress after the current instruction.
    #[inline]
    pub fn end_block(&mut self) {
        self.end = core::ptr::null();
    }

    /// Notes that a block is in progress whose end is not known by address: translated code.
    pub(crate) fn begin_block(&mut self) {
        self.end = core::ptr::dangling();
    }

    /// Whether the block in progress ends after the current instruction.
    #[inline]
    pub fn block_ended(&self) -> bool {
        self.end.is_null()
    }

    /// Notes that RAM with decoded code may have been written by this vCPU.
    pub(crate) fn code_written(&mut self, page: u64, offset: usize, len: usize) {
        if self.blocks.invalidate(page, offset, len) {
            self.reasons |= Reason::CODE;
            self.end_block();
        }
        // Memory that held code once is data for good, as far as anybody knows.
        if self.blocks.forget_empty(page) {
            self.bus.code_page(page, false);
        }
    }

    /// Stops executing after the current instruction because of `activity`.
    pub fn stop(&mut self, activity: Activity) -> Flow {
        self.state.activity = activity;
        Err(Exit::Stop)
    }
}
