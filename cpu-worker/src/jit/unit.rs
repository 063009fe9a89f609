//! The guest's x87 unit in the host's.
//!
//! While translated code executes x87 instructions as themselves the host's unit is the guest's. It is loaded by
//! the first translation that wants it ([`Block::need_unit`](super::translate::Block::need_unit)) and stays through
//! calls of handlers that cannot look at it: compiled Rust does not execute x87 instructions, and our kernels
//! ([`crate::fp::x87::host`]) are called by handlers of x87 instructions alone. [`CpuState::fpu`](crate::state::CpuState)
//! becomes current again at three places, which are all the ways from translated code to a handler: before handlers
//! that [`touches`](super::x87::touches) does not exclude, before [`Vcpu::step`], and where translated code returns to
//! the run loop.
//!
//! The unit is only loaded where all exceptions are masked ([`ModeKey::x87`](crate::exec::ModeKey)), so nothing that it
//! does can be a signal.
//!
//! The host's instruction and data pointers are not the guest's. Translated code notes the site of the last
//! instruction and the offset of its operand; what they mean is worked out here, before a handler can change
//! a selector.
#![allow(
    unsafe_code,
    reason = "takes the guest's registers out of the host's x87 unit"
)]

use core::arch::asm;
use core::mem::offset_of;

use iced_x86::{Code, MemoryOperand, Register};

use super::abi::{RAX, RCX};
use super::asm::{Asm, at, frame};
use crate::exec::{Frame, LiveUnit, Vcpu, flag};
use crate::fp::F80;
use crate::fp::x87::{CONTROL_DEFAULT, Unit};
use crate::state::{CpuState, seg};

/// The word that tells whether the unit is loaded.
pub(super) fn live() -> MemoryOperand {
    frame(offset_of!(Frame, unit) + offset_of!(LiveUnit, live))
}

/// The number of the last site.
pub(super) fn site() -> MemoryOperand {
    frame(offset_of!(Frame, unit) + offset_of!(LiveUnit, site))
}

/// The number of the last site with an operand in memory.
pub(super) fn data_site() -> MemoryOperand {
    frame(offset_of!(Frame, unit) + offset_of!(LiveUnit, data_site))
}

/// The offset of its operand.
pub(super) fn data() -> MemoryOperand {
    frame(offset_of!(Frame, unit) + offset_of!(LiveUnit, data))
}

/// Where a control word waits to be loaded.
pub(super) fn control() -> MemoryOperand {
    frame(offset_of!(Frame, unit) + offset_of!(LiveUnit, control))
}

/// Offset in the frame of byte `n` of the image.
fn image(n: usize) -> usize {
    offset_of!(Frame, unit) + offset_of!(LiveUnit, image) + n
}

/// The routine that loads the unit unless it is; it keeps all registers but RAX and RCX.
pub(super) fn load(a: &mut Asm) {
    let (edx, esi) = (Register::EDX, Register::ESI);
    let unit = offset_of!(Vcpu, state) + offset_of!(CpuState, fpu);
    let field = |offset: usize| at(RCX, (unit + offset) as i64);
    let done = a.label();
    a.mi(Code::Cmp_rm64_imm8, live(), 0);
    a.branch(Code::Jne_rel32_64, done);
    a.r(Code::Push_r64, Register::RDX);
    a.r(Code::Push_r64, Register::RSI);
    a.rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, vcpu)));
    a.rm(Code::Movzx_r32_rm16, edx, field(offset_of!(Unit, control)));
    a.mr(Code::Mov_rm16_r16, frame(image(0)), Register::DX);
    a.rm(Code::Movzx_r32_rm8, edx, field(offset_of!(Unit, valid)));
    a.mr(Code::Mov_rm16_r16, frame(image(4)), Register::DX);
    a.rm(Code::Movzx_r32_rm8, Register::EAX, field(offset_of!(Unit, top)));
    a.rr(Code::Mov_r32_rm32, edx, Register::EAX);
    a.ri(Code::Shl_rm32_imm8, edx, 11);
    a.rm(Code::Or_r16_rm16, Register::DX, field(offset_of!(Unit, status)));
    a.mr(Code::Mov_rm16_r16, frame(image(2)), Register::DX);
    for n in 0..8 {
        a.rm(Code::Lea_r32_m, edx, at(RAX, n));
        a.ri(Code::And_rm32_imm8, edx, 7);
        a.ri(Code::Shl_rm32_imm8, edx, 4);
        let register = |field: usize| {
            let offset = unit + offset_of!(Unit, registers) + field;
            MemoryOperand::new(RCX, Register::RDX, 1, offset as i64, 1, false, Register::None)
        };
        let slot = image(32 + 16 * n as usize);
        a.rm(
            Code::Mov_r64_rm64,
            Register::RSI,
            register(offset_of!(F80, mantissa)),
        );
        a.mr(Code::Mov_rm64_r64, frame(slot), Register::RSI);
        a.rm(
            Code::Movzx_r32_rm16,
            esi,
            register(offset_of!(F80, sign_exponent)),
        );
        a.mr(Code::Mov_rm64_r64, frame(slot + 8), Register::RSI);
    }
    a.constant(RAX, 1);
    a.rr(Code::Xor_r32_rm32, edx, edx);
    a.m(Code::Xrstor_mem, frame(image(0)));
    a.mi(Code::Mov_rm64_imm32, live(), 1);
    a.r(Code::Pop_r64, Register::RSI);
    a.r(Code::Pop_r64, Register::RDX);
    a.bind(done);
    a.op(Code::Retnq);
}

const _: () = assert!(size_of::<F80>() == 16);

impl Vcpu {
    /// Takes the guest's x87 unit out of the host's, if it is there. Translated code loads it again.
    #[inline]
    pub(crate) fn unload_unit(&mut self) {
        if self.tlb.frame.unit.live != 0 {
            self.unload_live_unit();
        }
    }

    fn unload_live_unit(&mut self) {
        self.take_pointers();
        if let Some(jit) = &mut self.jit {
            jit.unloads += 1;
        }
        let unit = &mut self.tlb.frame.unit;
        unit.live = 0;
        let image = &raw mut unit.image;
        // SAFETY: the image has room for FXSAVE and its alignment. The guest's state is in the host's unit; afterwards
        // that is as compiled code wants it, empty and under the default control word, whose masks cover whatever flags
        // are left.
        unsafe {
            asm!(
                "fxsave64 [{image}]",
                "emms",
                "fldcw word ptr [{control}]",
                image = in(reg) image,
                control = in(reg) &CONTROL_DEFAULT,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack, preserves_flags),
            );
        }
        let (area, _) = unit.image.0.as_chunks::<160>();
        self.state.fpu.load_fxsave_registers(&area[0]);
    }

    /// Gives the unit the pointers of the last instruction that translated code executed there.
    #[inline]
    pub(super) fn take_pointers(&mut self) {
        if self.tlb.frame.unit.site != 0 {
            self.take_noted_pointers();
        }
    }

    fn take_noted_pointers(&mut self) {
        let noted = &mut self.tlb.frame.unit;
        let site = core::mem::take(&mut noted.site);
        let data_site = core::mem::take(&mut noted.data_site);
        let offset = noted.data;
        let jit = self.jit.as_ref().expect("translated code has noted them");
        let unit = &mut self.state.fpu;
        let site = *jit.site(site - 1);
        // SAFETY: the op lies in the arena of the block cache, which is only reset between runs of translated code.
        let op = unsafe { &*site.op };
        unit.opcode = op.extra;
        unit.instruction_pointer = site.next.wrapping_sub(u64::from(op.len));
        unit.instruction_selector = self.state.segs[seg::CS].selector;
        if data_site != 0 {
            // SAFETY: as above.
            let op = unsafe { &*jit.site(data_site - 1).op };
            debug_assert!(op.has(flag::MEM), "it has an operand in memory");
            unit.data_pointer = offset;
            unit.data_selector = self.state.segs[op.seg as usize].selector;
        }
    }
}
