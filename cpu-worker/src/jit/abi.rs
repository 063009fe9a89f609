//! Which host register holds which guest register, and where the rest of the state lies.
//!
//! | guest | host | | guest | host |
//! |---|---|---|---|---|
//! | RAX | R13 | | R8 … R12 | the same |
//! | RCX | R14 | | R13 | frame, home 0 |
//! | RDX, RBX, RBP, RSI, RDI | the same | | R14 | frame, home 1 |
//! | RSP | R15 | | R15 | frame, home 2 |
//!
//! RAX and RCX of the host are free between guest instructions: RAX because `lahf` and `sahf` want AH, RCX because
//! shifts want CL. RSP is the host's own stack, so that a signal finds one. XMM registers are themselves. The arithmetic
//! flags are in the host's flags, in the frame, or can be computed again: [`super::flags`].

use core::mem::offset_of;

use iced_x86::Register;

use crate::exec::{Frame, Vcpu};
use crate::state::{CpuState, Flags, Segment};

/// Guest registers from here on have no host register.
pub(super) const FIRST_HOME: usize = 13;

/// First scratch register.
pub(super) const RAX: Register = Register::RAX;
/// Second scratch register.
pub(super) const RCX: Register = Register::RCX;
/// Third scratch register, in 32-bit code only, where the guest has no R8.
pub(super) const ADDR32: Register = Register::R8;
/// Guest RAX.
pub(super) const G_RAX: Register = Register::R13;
/// Guest RCX.
pub(super) const G_RCX: Register = Register::R14;
/// Guest RSP.
pub(super) const G_RSP: Register = Register::R15;

const HOSTS: [Register; FIRST_HOME] = [
    Register::R13,
    Register::R14,
    Register::RDX,
    Register::RBX,
    Register::R15,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
];

/// The 64-bit host register of guest register `n`, unless it lives in the frame.
pub(super) fn host(n: usize) -> Option<Register> {
    HOSTS.get(n).copied()
}

/// `full` (a 64-bit register) as a register of `bytes`.
pub(super) fn sized(full: Register, bytes: usize) -> Register {
    const BYTES: [Register; 16] = [
        Register::AL,
        Register::CL,
        Register::DL,
        Register::BL,
        Register::SPL,
        Register::BPL,
        Register::SIL,
        Register::DIL,
        Register::R8L,
        Register::R9L,
        Register::R10L,
        Register::R11L,
        Register::R12L,
        Register::R13L,
        Register::R14L,
        Register::R15L,
    ];
    let n = full.number();
    match bytes {
        1 => BYTES[n],
        2 => Register::AX + n as u32,
        4 => full.full_register32(),
        _ => full,
    }
}

/// Displacement in the frame of the home of guest register `n`.
pub(super) fn home(n: usize) -> usize {
    offset_of!(Frame, homes) + (n - FIRST_HOME) * 8
}

/// Displacement in the vCPU of guest register `n` (or RIP).
pub(super) fn state_register(n: usize) -> i64 {
    (offset_of!(Vcpu, state) + offset_of!(CpuState, regs) + n * 8) as i64
}

/// Displacement in the vCPU of XMM register `n`.
pub(super) fn state_xmm(n: usize) -> i64 {
    (offset_of!(Vcpu, state) + offset_of!(CpuState, xmm) + n * 16) as i64
}

/// Displacement in the vCPU of MXCSR.
pub(super) fn state_mxcsr() -> i64 {
    (offset_of!(Vcpu, state) + offset_of!(CpuState, mxcsr)) as i64
}

/// Displacement in the vCPU of RFLAGS without the arithmetic flags.
pub(super) fn state_system_flags() -> i64 {
    (offset_of!(Vcpu, state) + offset_of!(CpuState, flags) + Flags::SYSTEM_OFFSET) as i64
}

/// Displacement in the vCPU of the base of segment `n`.
pub(super) fn state_base(n: usize) -> i64 {
    let segs = offset_of!(CpuState, segs) + n * size_of::<Segment>();
    (offset_of!(Vcpu, state) + segs + offset_of!(Segment, base)) as i64
}

/// Displacement in the vCPU of the selector in segment register `n`.
pub(super) fn state_selector(n: usize) -> i64 {
    let segs = offset_of!(CpuState, segs) + n * size_of::<Segment>();
    (offset_of!(Vcpu, state) + segs + offset_of!(Segment, selector)) as i64
}

/// Displacement in the vCPU of the index of the TLB in force.
pub(super) fn vcpu_tlb_index() -> i64 {
    offset_of!(Vcpu, tlb_index) as i64
}

/// Displacement in the vCPU of the mode's number.
pub(super) fn vcpu_mode() -> i64 {
    offset_of!(Vcpu, mode) as i64
}

/// Displacement in the vCPU of IA32_KERNEL_GS_BASE.
pub(super) fn state_kernel_gs_base() -> i64 {
    (offset_of!(Vcpu, state) + offset_of!(CpuState, msrs.kernel_gs_base)) as i64
}

/// Displacement in the frame of the base of segment `n`.
pub(super) fn frame_base(n: usize) -> usize {
    offset_of!(Frame, bases) + n * 8
}

/// Why translated code returned; in the low byte of what [`super::thunks::Thunks::enter`] gives.
pub(super) mod leave {
    /// Look up CS:rIP.
    pub const NEXT: u64 = 1;
    /// A handler answered with an [`Exit`](crate::exec::Exit), kept in the translator.
    pub const EXIT: u64 = 2;
    /// A direct jump that leads nowhere yet; its number is in the bits above.
    pub const LINK: u64 = 3;
}
