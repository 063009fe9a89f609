//! Predecoded instructions.
//!
//! An [`Op`] is what the interpreter executes and what a translator will read: a handler and operands that
//! need no further decoding. 32 bytes, two to a cache line. Keeping iced's `Instruction` (40 bytes, and an
//! accessor call for each operand) was rejected.

use iced_x86::{Instruction, OpKind, Register};

use super::Vcpu;
use crate::state::{CodeSize, RIP, ZERO, seg};

/// Why execution of a block ended before its last instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// The instruction faulted: [`Vcpu::pending_fault`] says how, nothing of it has taken effect, and rIP is to
    /// be taken back to it.
    Fault,
    /// A fault with rIP already where it belongs (task switches, the middle of an event's delivery).
    FaultHere,
    /// The instruction has completed and the block must not go on.
    EndBlock,
    /// The op is what is left of a block that was dropped: nothing was executed, look again.
    Stale,
    /// As `EndBlock`, and the vCPU stops executing: `state.activity`, or a request of the bus, says why.
    Stop,
}

/// What a handler answers.
pub type Flow = Result<(), Exit>;

/// Executes one predecoded instruction. rIP has already been advanced past it.
pub type Handler = fn(&mut Vcpu, &Op) -> Flow;

/// A predecoded instruction.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Op {
    /// What executes it.
    pub handler: Handler,
    /// Immediate operand, sign-extended to 64 bits where the instruction does so; for ENTER, both
    /// immediates; for direct branches, the displacement from the next instruction.
    pub imm: u64,
    /// Displacement of the memory operand, from the next instruction when `base` is [`RIP`].
    pub disp: i32,
    /// First register operand: a byte offset into the register file (AH = 1) for general registers, else the
    /// register's number.
    pub dst: u8,
    /// Second register operand, encoded like `dst`.
    pub src: u8,
    /// Index in the register file of the base of the memory operand, [`ZERO`] when there is none.
    pub base: u8,
    /// Index in the register file of the index of the memory operand, [`ZERO`] when there is none.
    pub index: u8,
    /// log2 of the scale of the index.
    pub scale: u8,
    /// Segment of the memory operand: in 64-bit mode FS, GS or FLAT.
    pub seg: u8,
    /// Length in bytes, 1–15.
    pub len: u8,
    /// 64 minus the address size: how far an effective address is shifted up and down again to wrap it.
    pub addr_shift: u8,
    /// [`flag`] bits.
    pub flags: u8,
    /// Operand size in bytes where the handler is not generic over it: 2, 4 or 8.
    pub size: u8,
    /// Free for the family: a condition code, a rounding mode, a third register.
    pub extra: u16,
}

const _: () = assert!(size_of::<Op>() == 32);

/// Bits of [`Op::flags`].
pub mod flag {
    /// Decoded as 64-bit code: segments FS and GS only, no limits, canonical addresses.
    pub const LONG: u8 = 1;
    /// LOCK prefix.
    pub const LOCK: u8 = 2;
    /// REP or REPE prefix.
    pub const REP: u8 = 4;
    /// REPNE prefix.
    pub const REPNE: u8 = 8;
    /// There is a memory operand.
    pub const MEM: u8 = 16;
    /// Decoded as 16-bit code.
    pub const CODE16: u8 = 32;
    /// Ends its block: what follows depends on it.
    pub const ENDS: u8 = 64;
    /// Does more than change registers, flags and memory, so that it cannot be tried and taken back.
    pub const SERIAL: u8 = 128;
}

impl Op {
    /// An op for `i`, operands filled in, the handler still `handler`.
    pub fn new(i: &Instruction, code: CodeSize, handler: Handler) -> Self {
        let mut op = Self {
            handler,
            imm: 0,
            disp: 0,
            dst: 0,
            src: 0,
            base: ZERO as u8,
            index: ZERO as u8,
            scale: 0,
            seg: seg::FLAT as u8,
            len: i.len() as u8,
            addr_shift: 0,
            flags: 0,
            size: 0,
            extra: 0,
        };
        match code {
            CodeSize::Bits64 => op.flags |= flag::LONG,
            CodeSize::Bits16 => op.flags |= flag::CODE16,
            CodeSize::Bits32 => {}
        }
        if i.has_lock_prefix() {
            op.flags |= flag::LOCK;
        }
        if i.has_rep_prefix() {
            op.flags |= flag::REP;
        }
        if i.has_repne_prefix() {
            op.flags |= flag::REPNE;
        }
        let mut registers = 0;
        for n in 0..i.op_count() {
            match i.op_kind(n) {
                OpKind::Register => {
                    let r = encode_register(i.op_register(n));
                    match registers {
                        0 => op.dst = r,
                        1 => op.src = r,
                        _ => op.extra = u16::from(r),
                    }
                    registers += 1;
                }
                OpKind::Memory => op.set_memory(i, code),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                    op.imm = i.near_branch_target().wrapping_sub(i.next_ip());
                }
                OpKind::FarBranch16 => {
                    op.imm = u64::from(i.far_branch16()) | u64::from(i.far_branch_selector()) << 32;
                }
                OpKind::FarBranch32 => {
                    op.imm = u64::from(i.far_branch32()) | u64::from(i.far_branch_selector()) << 32;
                }
                OpKind::Immediate8
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate64
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32to64 => op.imm = i.immediate(n),
                OpKind::Immediate8_2nd => op.imm |= u64::from(i.immediate8_2nd()) << 32,
                // String operands: the handlers know their registers; segment and address size come from here.
                OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI => {
                    op.seg = op_segment(i.memory_segment(), code);
                    op.addr_shift = string_address_shift(i.op_kind(n));
                }
                OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => {
                    op.addr_shift = string_address_shift(i.op_kind(n));
                }
                OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI => {
                    op.seg = op_segment(i.memory_segment(), code);
                    op.addr_shift = string_address_shift(i.op_kind(n));
                }
            }
        }
        op
    }

    fn set_memory(&mut self, i: &Instruction, code: CodeSize) {
        self.flags |= flag::MEM;
        self.seg = op_segment(i.memory_segment(), code);
        self.scale = i.memory_index_scale().trailing_zeros() as u8;
        let base = i.memory_base();
        let index = i.memory_index();
        let mut disp = i.memory_displacement64();
        match base {
            Register::None => {}
            Register::RIP | Register::EIP => {
                self.base = RIP as u8;
                disp = disp.wrapping_sub(i.next_ip());
            }
            r => self.base = r.full_register().number() as u8,
        }
        if index != Register::None {
            self.index = index.full_register().number() as u8;
        }
        let bits = match (base.size().max(index.size()), i.memory_displ_size()) {
            (0, 2) => 16,
            (0, 8) => 64,
            (0, _) => 32,
            (bytes, _) => bytes as u32 * 8,
        };
        self.addr_shift = (64 - bits) as u8;
        if disp as i64 == i64::from(disp as i32) || bits <= 32 {
            self.disp = disp as i32;
        } else {
            // Only MOV with a 64-bit offset (A0–A3) has such a displacement; it has no immediate.
            self.imm = disp;
            self.disp = 0;
        }
    }

    /// Whether a [`flag`] bit is set.
    #[inline(always)]
    pub fn has(&self, bit: u8) -> bool {
        self.flags & bit != 0
    }
}

fn string_address_shift(kind: OpKind) -> u8 {
    match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI | OpKind::MemorySegDI => 48,
        OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI => 32,
        _ => 0,
    }
}

/// Index in the segment file of `r` for an access by code of size `code`.
pub fn op_segment(r: Register, code: CodeSize) -> u8 {
    let n = match r {
        Register::ES => seg::ES,
        Register::CS => seg::CS,
        Register::SS => seg::SS,
        Register::FS => seg::FS,
        Register::GS => seg::GS,
        _ => seg::DS,
    };
    (if code == CodeSize::Bits64 && n < seg::FS {
        seg::FLAT
    } else {
        n
    }) as u8
}

/// How [`Op::dst`] and [`Op::src`] hold `r`.
fn encode_register(r: Register) -> u8 {
    match r {
        Register::AH => 1,
        Register::CH => 9,
        Register::DH => 17,
        Register::BH => 25,
        r if r.is_gpr() => r.full_register().number() as u8 * 8,
        r => r.number() as u8,
    }
}
