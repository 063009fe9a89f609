//! The ways into and out of translated code.
//!
//! All state is in host registers while translated code executes, and in [`CpuState`](crate::state::CpuState) while
//! Rust does; these few routines carry it over. They are made once, at the start of the code cache. The XMM registers
//! are only loaded by translations that use them: a kernel passes through here thousands of times without one.

use core::mem::offset_of;

use iced_x86::{Code, Register};

use super::abi::{self, RAX, RCX, leave};
use super::asm::{Asm, at, frame};
use crate::exec::{Frame, Vcpu};
use crate::state::RIP;

/// Executes ops by their handlers; called from translated code with all state in the vCPU. Answers 0 to go on behind
/// them, the address of a translation to go on there, or one of [`leave`].
pub(super) type Slow = extern "sysv64" fn(*mut Vcpu, u32) -> u64;

/// Addresses of the routines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Thunks {
    /// `extern "sysv64" fn(code: u64, vcpu: *mut Vcpu) -> u64`: executes translated code.
    pub enter: u64,
    /// Called with a site's number in EAX and the flags in the frame: executes its ops by their handlers, and returns if
    /// execution goes on behind them. The XMM registers are not loaded then. Otherwise it continues at the
    /// translation that [`Slow`] answers with, or leaves.
    pub slow: u64,
    /// Where the handlers of [`Self::slow`] return to: the site's number and the return address into the translation are on the stack.
    pub slow_return: u64,
    /// Called to load the guest's XMM registers and MXCSR. Changes RCX alone; the host's flags stay.
    pub xmm: u64,
    /// Called to load the guest's x87 unit unless it is. Changes RAX, RCX and the host's flags.
    pub unit: u64,
    /// Jumped to with the address of the next instruction in RAX and the flags in the frame.
    pub next: u64,
    /// The same with the tag that the jump cache knows that instruction by in segmented code.
    pub next_by_tag: u64,
    /// Jumped to with a link's number in EAX and the flags in the frame.
    pub link: u64,
}

/// What [`Thunks::enter`] pushes, in this order, before one more word that evens out the stack.
pub(super) const SAVED: [Register; 6] = [
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// Loads the guest's registers from the vCPU in RCX.
fn load_guest(a: &mut Asm) {
    for n in 0..16 {
        let from = at(RCX, abi::state_register(n));
        match abi::host(n) {
            Some(r) => a.rm(Code::Mov_r64_rm64, r, from),
            None => {
                a.rm(Code::Mov_r64_rm64, RAX, from);
                a.mr(Code::Mov_rm64_r64, frame(abi::home(n)), RAX);
            }
        }
    }
}

/// Loads the guest's XMM registers from the vCPU in RCX.
fn load_xmm(a: &mut Asm) {
    a.m(Code::Stmxcsr_m32, frame(offset_of!(Frame, mxcsr)));
    for n in 0..16 {
        let from = at(RCX, abi::state_xmm(n));
        a.rm(Code::Movups_xmm_xmmm128, Register::XMM0 + n as u32, from);
    }
    a.m(Code::Ldmxcsr_m32, at(RCX, abi::state_mxcsr()));
    a.mi(Code::Mov_rm64_imm32, frame(offset_of!(Frame, xmm_live)), 1);
}

/// Stores the guest's registers to the vCPU, whose address is left in RCX. Clobbers RAX.
fn store_guest(a: &mut Asm) {
    a.rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, vcpu)));
    for n in 0..16 {
        let to = at(RCX, abi::state_register(n));
        match abi::host(n) {
            Some(r) => a.mr(Code::Mov_rm64_r64, to, r),
            None => {
                a.rm(Code::Mov_r64_rm64, RAX, frame(abi::home(n)));
                a.mr(Code::Mov_rm64_r64, to, RAX);
            }
        }
    }
    let dead = a.label();
    let live = frame(offset_of!(Frame, xmm_live));
    a.mi(Code::Cmp_rm64_imm8, live, 0);
    a.branch(Code::Je_rel32_64, dead);
    for n in 0..16 {
        let to = at(RCX, abi::state_xmm(n));
        a.mr(Code::Movups_xmmm128_xmm, to, Register::XMM0 + n as u32);
    }
    a.m(Code::Stmxcsr_m32, at(RCX, abi::state_mxcsr()));
    a.m(Code::Ldmxcsr_m32, frame(offset_of!(Frame, mxcsr)));
    a.mi(Code::Mov_rm64_imm32, live, 0);
    a.bind(dead);
}

/// Makes the routines for code at `base`.
pub(super) fn make(base: u64, slow: Slow) -> (Thunks, Vec<u8>) {
    let mut a = Asm::new(base);
    let enter = base + a.len() as u64;
    for r in SAVED {
        a.r(Code::Push_r64, r);
    }
    // Keeps the stack at a multiple of 16 where translated code calls.
    a.r(Code::Push_r64, RAX);
    a.mr(Code::Mov_rm64_r64, frame(offset_of!(Frame, vcpu)), Register::RSI);
    a.rr(Code::Mov_r64_rm64, RCX, Register::RSI);
    // At the translation in RDI, with the vCPU in RCX.
    let start = a.label();
    a.bind(start);
    a.r(Code::Push_r64, Register::RDI);
    load_guest(&mut a);
    a.r(Code::Pop_r64, RAX);
    a.r(Code::Jmp_rm64, RAX);

    // Leaves with RAX as the answer, all state in the vCPU.
    let done = a.label();
    a.bind(done);
    a.r(Code::Pop_r64, RCX);
    for r in SAVED.iter().rev() {
        a.r(Code::Pop_r64, *r);
    }
    a.op(Code::Retnq);

    let next = base + a.len() as u64;
    a.r(Code::Push_r64, RAX);
    store_guest(&mut a);
    a.r(Code::Pop_r64, RAX);
    a.mr(Code::Mov_rm64_r64, at(RCX, abi::state_register(RIP)), RAX);
    a.constant(RAX, leave::NEXT);
    a.branch(Code::Jmp_rel32_64, done);

    let next_by_tag = base + a.len() as u64;
    a.ri(Code::Shr_rm64_imm8, RAX, 32);
    a.branch_to(Code::Jmp_rel32_64, next);

    let link = base + a.len() as u64;
    a.r(Code::Push_r64, RAX);
    store_guest(&mut a);
    a.r(Code::Pop_r64, RAX);
    a.ri(Code::Shl_rm64_imm8, RAX, 8);
    a.ri(Code::Or_rm64_imm8, RAX, leave::LINK as i32);
    a.branch(Code::Jmp_rel32_64, done);

    let slow_entry = base + a.len() as u64;
    a.r(Code::Push_r64, RAX);
    store_guest(&mut a);
    a.rm(Code::Mov_r64_rm64, Register::RSI, at(Register::RSP, 0));
    a.rr(Code::Mov_r64_rm64, Register::RDI, RCX);
    a.constant(RAX, slow as usize as u64);
    a.r(Code::Call_rm64, RAX);
    let slow_return = base + a.len() as u64;
    let leaves = a.label();
    a.rr(Code::Test_rm64_r64, RAX, RAX);
    a.branch(Code::Jne_rel32_64, leaves);
    a.rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, vcpu)));
    load_guest(&mut a);
    a.r(Code::Pop_r64, RAX);
    a.op(Code::Retnq);
    a.bind(leaves);
    // The site's number and the return address.
    a.r(Code::Pop_r64, RCX);
    a.r(Code::Pop_r64, RCX);
    a.rr(Code::Mov_r64_rm64, Register::RDI, RAX);
    a.ri(Code::Shr_rm64_imm8, Register::RDI, 12);
    a.branch(Code::Je_rel32_64, done);
    a.rr(Code::Mov_r64_rm64, Register::RDI, RAX);
    a.rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, vcpu)));
    a.branch(Code::Jmp_rel32_64, start);

    let xmm = base + a.len() as u64;
    a.rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, vcpu)));
    load_xmm(&mut a);
    a.op(Code::Retnq);

    let unit = base + a.len() as u64;
    super::unit::load(&mut a);

    let thunks = Thunks {
        unit,
        enter,
        slow: slow_entry,
        slow_return,
        xmm,
        next,
        next_by_tag,
        link,
    };
    (thunks, a.finish())
}
