//! What the vCPU touches on every access and every jump, in one allocation at a fixed address.
//!
//! Translated code reaches all of it by a displacement from the GS base, which costs no register; the
//! interpreter reaches it by the box. Tables inside [`Vcpu`](super::Vcpu) itself were rejected: a vCPU of half
//! a megabyte could not be moved. A base register instead of GS was rejected: every register that the host keeps is
//! one that the guest loses.
#![allow(unsafe_code, reason = "half a megabyte is initialised in place")]

use super::Op;
use crate::state::seg;

/// Entries of each data TLB, a power of two.
pub const TLB_ENTRIES: usize = 4096;
/// Jump cache entries per mode, a power of two.
pub const JUMPS: usize = 8192;
/// Modes that the jump cache tells apart at a time.
pub const MODES: usize = 8;
/// A tag that no page and no instruction has: not canonical, and its low bits are set.
pub const NO_TAG: u64 = 0x7FFF_FFFF_FFFF_FFFF;

/// A translation of one page for reading, or for writing.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TlbEntry {
    /// Linear page address, or [`NO_TAG`].
    pub tag: u64,
    /// Host address minus linear address.
    pub addend: u64,
}

/// Where control goes from an address: the half that translated code looks at.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Target {
    /// Linear address, and in segmented code rIP above it ([`Vcpu::jump_tag`](super::Vcpu)); or [`NO_TAG`].
    pub tag: u64,
    /// Translated code to continue at: never null once a translator is there.
    pub native: u64,
}

/// The other half of a jump cache entry: what the interpreter executes.
#[derive(Clone, Copy, Debug)]
pub struct Jump {
    /// First op of the block.
    pub first: *const Op,
    /// One past its last op.
    pub end: *const Op,
    /// The block's number.
    pub block: u32,
}

/// The guest's x87 unit as FXSAVE64 leaves it and XRSTOR takes it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct UnitImage(pub [u8; UnitImage::BYTES]);

impl UnitImage {
    /// The legacy area and the header.
    pub const BYTES: usize = 576;
    /// XSTATE_BV.
    pub const PRESENT: usize = 512;
}

/// The guest's x87 unit while the host's unit holds it, and what it cannot hold.
#[derive(Debug)]
#[repr(C)]
pub struct LiveUnit {
    /// Not 0 while it does.
    pub live: u64,
    /// The offset of the operand of `data_site`.
    pub data: u64,
    /// The site of the last instruction that was no control instruction, plus 1; 0 if there was none since the
    /// pointers were last taken.
    pub site: u32,
    /// The same of the last one with an operand in memory.
    pub data_site: u32,
    /// A control word on its way into the unit.
    pub control: u64,
    /// The way into the unit and out of it.
    pub image: UnitImage,
}

/// What loops of translated code keep in memory while they are prepared and while they go round.
#[derive(Debug)]
#[repr(C)]
pub struct LoopWords {
    /// Turns until pointers are computed.
    pub patience: u64,
    /// What that is at first, by [`LoopWords::slot`].
    pub first: [u64; 64],
    /// Where the first step of the loop was when its pointers were first computed.
    pub begun: u64,
    /// How far each step may go.
    pub limits: [u64; 4],
    /// Host pointers on their way to registers.
    pub pointers: [u64; 8],
    /// Guest registers whose host registers hold pointers meanwhile.
    pub spared: [u64; 16],
}

impl LoopWords {
    /// Turns before pointers are computed in a loop of which nothing is known: short ones never get that far.
    pub const PATIENCE: u64 = 6;

    /// The slot of the loop that starts at `rip`.
    pub fn slot(rip: u64) -> usize {
        (rip ^ rip >> 6) as usize % 64
    }
}

/// Tables and words of one vCPU that translated code addresses directly.
#[derive(Debug)]
#[repr(C)]
pub struct Frame {
    /// Where the arithmetic flags are while they are in no host register: `lahf` in bits 8–15, OF in bit 0.
    pub flags: u64,
    /// Guest registers that have no host register.
    pub homes: [u64; 4],
    /// Bases of the guest's segments.
    pub bases: [u64; seg::COUNT],
    /// The last offset that may be read through each segment, or -1 where a look into the segment is needed: none may, or
    /// not from 0 on. Kept up in segmented code only.
    pub readable: [i64; seg::COUNT],
    /// The same for writing.
    pub writable: [i64; seg::COUNT],
    /// The address of the exit word.
    pub exit_word: u64,
    /// The address of the vCPU while translated code executes.
    pub vcpu: u64,
    /// Host stack pointer at the entry to translated code.
    pub host_sp: u64,
    /// Not 0 while the guest's XMM registers and MXCSR are in the host's: translated code loads them before it uses
    /// them, and whatever leaves for Rust stores them.
    pub xmm_live: u64,
    /// The host's MXCSR meanwhile.
    pub mxcsr: u64,
    /// Not 0 when an interrupt may be waiting for IF to be set: setting it must lead to a look.
    pub interrupt_waits: u64,
    /// For a value that waits while a scratch register is needed otherwise.
    pub scratch: u64,
    /// For loops.
    pub looped: LoopWords,
    /// The x87 unit.
    pub unit: LiveUnit,
    /// For reading, by [`TlbIndex`](crate::mmu::TlbIndex).
    pub read: [[TlbEntry; TLB_ENTRIES]; 3],
    /// For writing.
    pub write: [[TlbEntry; TLB_ENTRIES]; 3],
    /// The jump cache, by mode.
    pub targets: [[Target; JUMPS]; MODES],
}

impl Frame {
    /// A frame with empty tables.
    pub fn new() -> Box<Self> {
        // SAFETY: all fields are integers, for which zero is a value.
        let mut frame = unsafe { Box::<Self>::new_zeroed().assume_init() };
        frame.interrupt_waits = 1;
        frame.looped.first = [LoopWords::PATIENCE; 64];
        // Of the states that XRSTOR knows, the image holds the x87's.
        frame.unit.image.0[UnitImage::PRESENT] = 1;
        for table in frame.read.iter_mut().chain(&mut frame.write) {
            for e in table {
                e.tag = NO_TAG;
            }
        }
        for t in frame.targets.as_flattened_mut() {
            t.tag = NO_TAG;
        }
        frame
    }

    /// The first of the two slots of a tag in the jump cache; the other's number differs in bit 0. Of a tag's bits it looks at those of
    /// the linear address alone.
    #[inline(always)]
    pub fn jump_slot(tag: u64) -> usize {
        (tag ^ tag >> 11) as usize % JUMPS
    }

    /// The slot of a linear address in a data TLB.
    #[inline(always)]
    pub fn tlb_slot(linear: u64) -> usize {
        (linear >> 12) as usize % TLB_ENTRIES
    }
}
