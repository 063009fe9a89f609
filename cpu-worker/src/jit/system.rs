//! What a kernel executes all the time and no program ever: the interrupt flag, and the swap of GS.
//!
//! All of it acts on the vCPU in memory. An interrupt that waits for IF is known by a word in the frame, so that STI
//! and POPF that let nothing in need not leave. The interrupt shadow of STI is one instruction long; translated code
//! looks at the exit word only behind an instruction that it has completed, so the shadow needs no more than that STI
//! is not the last of its block.

use core::mem::offset_of;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::abi::{self, RAX, RCX};
use super::asm::{Label, at, frame};
use super::flags::Flags;
use super::memory::{Address, Want};
use super::translate::{Block, Unsupported};
use crate::exec::Frame;
use crate::mmu::TlbIndex;
use crate::state::{CodeSize, Flag, gpr, seg};

const IF: i32 = 1 << Flag::If as u8;
const DF: i32 = 1 << Flag::Df as u8;
/// The flags beside IF and the arithmetic ones that POPF changes at CPL 0, and RF, which it clears.
const RARE: i32 = 1 << Flag::Tf as u8
    | DF
    | 3 << 12
    | 1 << Flag::Nt as u8
    | 1 << Flag::Rf as u8
    | 1 << Flag::Ac as u8
    | 1 << Flag::Id as u8;
/// What PUSHF shows of RFLAGS beside the arithmetic flags: not RF and VM.
const PUSHED: i32 = !0x3_0000;

/// Whether `i` may be one of these.
pub(super) fn known(i: &Instruction) -> bool {
    use Mnemonic::*;
    let selector = match i.mnemonic() {
        Push => i.op0_kind() == OpKind::Register && i.op0_register().is_segment_register(),
        Mov => {
            i.op0_kind() == OpKind::Register
                && i.op1_kind() == OpKind::Register
                && i.op1_register().is_segment_register()
        }
        _ => false,
    };
    selector
        || matches!(
            i.mnemonic(),
            Cli | Sti | Cld | Std | Swapgs | Pushfd | Pushfq | Popfd | Popfq
        )
}

impl Block<'_> {
    /// Translates `i` if it is one of these.
    pub(super) fn system(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        match i.mnemonic() {
            Mnemonic::Cld => self.change_flag(Code::And_rm32_imm32, !DF),
            Mnemonic::Std => self.change_flag(Code::Or_rm32_imm32, DF),
            Mnemonic::Pushfd | Mnemonic::Pushfq => return self.pushf(i),
            Mnemonic::Push => return self.push_selector(i),
            Mnemonic::Mov => return self.read_selector(i),
            _ if !self.mode.cpl0 => return Err(Unsupported),
            Mnemonic::Cli => self.change_flag(Code::And_rm32_imm32, !IF),
            Mnemonic::Sti => return self.sti(),
            Mnemonic::Popfd | Mnemonic::Popfq => return self.popf(i),
            Mnemonic::Swapgs if self.mode.code == CodeSize::Bits64 => self.swapgs(),
            _ => return Err(Unsupported),
        }
        Ok(())
    }

    /// RCX := the vCPU; gives RFLAGS in it, without the arithmetic flags.
    fn system_flags(&mut self) -> iced_x86::MemoryOperand {
        self.asm
            .rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, vcpu)));
        at(RCX, abi::state_system_flags())
    }

    fn change_flag(&mut self, code: Code, mask: i32) {
        self.spoil_flags();
        let word = self.system_flags();
        self.asm.mi(code, word, mask);
    }

    /// To `miss` when an interrupt waits for IF.
    fn unless_waiting(&mut self, miss: Label) {
        let waiting = frame(offset_of!(Frame, interrupt_waits));
        self.asm.mi(Code::Cmp_rm64_imm8, waiting, 0);
        self.asm.branch(Code::Jne_rel32_64, miss);
    }

    fn sti(&mut self) -> Result<(), Unsupported> {
        if self.last {
            return Err(Unsupported);
        }
        let (miss, back) = (self.asm.label(), self.asm.label());
        self.spoil_flags();
        let before = self.flags;
        let word = self.system_flags();
        self.asm.mi(Code::Test_rm32_imm32, word, IF);
        self.asm.branch(Code::Jne_rel32_64, back);
        self.unless_waiting(miss);
        self.asm.mi(Code::Or_rm32_imm32, word, IF);
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    fn sized_as_stack(&self, i: &Instruction) -> Result<(), Unsupported> {
        let wide = matches!(i.mnemonic(), Mnemonic::Pushfq | Mnemonic::Popfq);
        if self.mode.flat && wide == (self.mode.code == CodeSize::Bits64) {
            Ok(())
        } else {
            Err(Unsupported)
        }
    }

    fn pushf(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        self.sized_as_stack(i)?;
        let (miss, back) = (self.asm.label(), self.asm.label());
        self.use_flags();
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        let before = self.flags;
        let (eax, ecx) = (Register::EAX, Register::ECX);
        let image = frame(offset_of!(Frame, flags));
        self.asm.rm(Code::Movzx_r32_rm16, eax, image);
        self.asm.rr(Code::Movzx_r32_rm8, ecx, Register::AH);
        self.asm.ri(Code::And_rm32_imm32, ecx, 0xD5);
        self.asm.ri(Code::And_rm32_imm8, eax, 1);
        self.asm.ri(Code::Shl_rm32_imm8, eax, i32::from(Flag::Of as u8));
        self.asm.rm(Code::Lea_r32_m, eax, pair(RAX, RCX, 2));
        let word = self.system_flags();
        self.asm.rm(Code::Mov_r32_rm32, ecx, word);
        self.asm.ri(Code::And_rm32_imm32, ecx, PUSHED);
        self.asm.rr(Code::Or_r32_rm32, eax, ecx);
        let spill = frame(offset_of!(Frame, scratch));
        self.asm.mr(Code::Mov_rm64_r64, spill, RAX);
        self.push_spilled(miss, back, &before)
    }

    /// Pushes what the frame's scratch word holds.
    fn push_spilled(&mut self, miss: Label, back: Label, before: &Flags) -> Result<(), Unsupported> {
        let bytes = self.stack_bytes();
        let place = self.stack(-(bytes as i64), true, miss)?;
        self.asm
            .rm(Code::Mov_r64_rm64, RAX, frame(offset_of!(Frame, scratch)));
        let code = self.mov_code(false);
        self.asm.mr(code, place, abi::sized(RAX, bytes));
        self.move_stack(-(bytes as i64));
        self.asm.bind(back);
        self.on_miss(miss, back, before);
        Ok(())
    }

    /// PUSH of a memory operand: read before anything is changed.
    pub(super) fn push_memory(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let bytes = self.stack_bytes();
        if i.memory_size().size() != bytes {
            return Err(Unsupported);
        }
        let address = Address::of(i, &self.mode)?;
        let (miss, back) = (self.asm.label(), self.asm.label());
        self.spoil_flags();
        self.unless_lost_with_stack();
        let before = self.flags;
        let place = self.probe(&address, Want::read(bytes), miss)?;
        self.load_word(place);
        let spill = frame(offset_of!(Frame, scratch));
        self.asm.mr(Code::Mov_rm64_r64, spill, RAX);
        self.push_spilled(miss, back, &before)
    }

    /// RAX := the selector in segment register `r`.
    fn selector(&mut self, r: Register) {
        self.asm
            .rm(Code::Mov_r64_rm64, RAX, frame(offset_of!(Frame, vcpu)));
        // iced numbers the segment registers as the architecture does.
        let from = at(RAX, abi::state_selector(r.number()));
        self.asm.rm(Code::Movzx_r32_rm16, Register::EAX, from);
    }

    fn push_selector(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let r = i.op0_register();
        let bytes = usize::try_from(i.stack_pointer_increment().unsigned_abs()).map_err(|_| Unsupported)?;
        if !r.is_segment_register() || bytes != self.stack_bytes() {
            return Err(Unsupported);
        }
        let (miss, back) = (self.asm.label(), self.asm.label());
        self.spoil_flags();
        self.unless_lost_with_stack();
        let before = self.flags;
        self.selector(r);
        let spill = frame(offset_of!(Frame, scratch));
        self.asm.mr(Code::Mov_rm64_r64, spill, RAX);
        self.push_spilled(miss, back, &before)
    }

    /// MOV of a selector into a register.
    fn read_selector(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let (to, from) = (i.op0_register(), i.op1_register());
        if i.op_count() != 2 || !from.is_segment_register() || !to.is_gpr() {
            return Err(Unsupported);
        }
        let Some(dst) = abi::host(to.full_register().number()) else {
            return Err(Unsupported);
        };
        if self.flags.lost_with(dst) {
            self.host_flags();
        }
        self.selector(from);
        match to.size() {
            2 => self.asm.rr(Code::Mov_r16_rm16, abi::sized(dst, 2), Register::AX),
            _ => self
                .asm
                .rr(Code::Mov_r32_rm32, dst.full_register32(), Register::EAX),
        }
        self.flags.register_written(dst);
        Ok(())
    }

    /// Flags that can be computed from the stack pointer alone are saved before it moves.
    fn unless_lost_with_stack(&mut self) {
        if self.flags.lost_with(abi::G_RSP) {
            self.host_flags();
            self.flags.save(&mut self.asm);
            self.flags.host = false;
        }
    }

    /// STAC and CLAC: the block goes on in the mode that has the other right to user pages.
    pub(super) fn set_ac(&mut self, on: bool) -> Result<(), Unsupported> {
        if !self.mode.cpl0 || !self.mode.flat {
            return Err(Unsupported);
        }
        let (mode, index) = match (self.mode.smap, self.mode.index, on) {
            (false, _, _) | (true, TlbIndex::SupervisorAc, true) | (true, TlbIndex::Supervisor, false) => {
                (self.mode_slot, self.mode.index)
            }
            (true, TlbIndex::Supervisor, true) => {
                (self.other_mode.ok_or(Unsupported)?, TlbIndex::SupervisorAc)
            }
            (true, TlbIndex::SupervisorAc, false) => {
                (self.other_mode.ok_or(Unsupported)?, TlbIndex::Supervisor)
            }
            (true, TlbIndex::User, _) => return Err(Unsupported),
        };
        self.use_flags();
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        let word = self.system_flags();
        let ac = 1 << Flag::Ac as u8;
        if on {
            self.asm.mi(Code::Or_rm32_imm32, word, ac);
        } else {
            self.asm.mi(Code::And_rm32_imm32, word, !ac);
        }
        if mode != self.mode_slot {
            self.asm
                .mi(Code::Mov_rm8_imm8, at(RCX, abi::vcpu_tlb_index()), index as i32);
            self.asm
                .mi(Code::Mov_rm64_imm32, at(RCX, abi::vcpu_mode()), mode as i32);
        }
        let next = self.next;
        self.go_to_in_mode(next, mode);
        Ok(())
    }

    fn popf(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        self.sized_as_stack(i)?;
        let bytes = self.stack_bytes();
        let (miss, back, same, set) = (
            self.asm.label(),
            self.asm.label(),
            self.asm.label(),
            self.asm.label(),
        );
        // The handler, if it comes to that, must find them in the frame: what is popped goes there, too.
        self.use_flags();
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        let before = self.flags;
        let (eax, ecx) = (Register::EAX, Register::ECX);
        let place = self.stack(0, false, miss)?;
        self.asm.rm(Code::Mov_r32_rm32, eax, place);
        let word = self.system_flags();
        self.asm.rm(Code::Mov_r32_rm32, ecx, word);
        self.asm.rr(Code::Xor_r32_rm32, ecx, eax);
        self.asm.ri(Code::Test_rm32_imm32, ecx, RARE);
        self.asm.branch(Code::Jne_rel32_64, miss);
        self.asm.ri(Code::Test_rm32_imm32, ecx, IF);
        self.asm.branch(Code::Je_rel32_64, same);
        self.asm.ri(Code::Test_rm32_imm32, eax, IF);
        self.asm.branch(Code::Je_rel32_64, set);
        self.unless_waiting(miss);
        self.asm.bind(set);
        let word = self.system_flags();
        self.asm.mi(Code::Xor_rm32_imm32, word, IF);
        self.asm.bind(same);
        self.asm.rr(Code::Mov_r32_rm32, ecx, eax);
        self.asm.ri(Code::And_rm32_imm32, ecx, 0xD5);
        self.asm.ri(Code::Shl_rm32_imm8, ecx, 8);
        self.asm.ri(Code::Shr_rm32_imm8, eax, i32::from(Flag::Of as u8));
        self.asm.ri(Code::And_rm32_imm8, eax, 1);
        self.asm.rr(Code::Or_r32_rm32, eax, ecx);
        let image = frame(offset_of!(Frame, flags));
        self.asm.mr(Code::Mov_rm16_r16, image, Register::AX);
        self.flags = Flags::SAVED;
        self.move_stack(bytes as i64);
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    fn swapgs(&mut self) {
        self.asm
            .rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, vcpu)));
        let (base, other) = (
            at(RCX, abi::state_base(seg::GS)),
            at(RCX, abi::state_kernel_gs_base()),
        );
        self.asm.m(Code::Push_rm64, base);
        self.asm.rm(Code::Mov_r64_rm64, RAX, other);
        self.asm.mr(Code::Mov_rm64_r64, base, RAX);
        self.asm
            .mr(Code::Mov_rm64_r64, frame(abi::frame_base(seg::GS)), RAX);
        self.asm.m(Code::Pop_rm64, other);
    }

    /// DIV and IDIV, 32 and 64 bits wide, where the quotient is known to fit: a dividend below the divisor times 2ⁿ,
    /// or, signed, one of n bits. The rest, #DE among it, is for the handler.
    pub(super) fn divide(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let register = i.op0_kind() == iced_x86::OpKind::Register;
        let bytes = if register {
            i.op0_register().size()
        } else {
            i.memory_size().size()
        };
        if bytes < 4 {
            return Err(Unsupported);
        }
        let wide = bytes == 8;
        let (miss, back) = (self.asm.label(), self.asm.label());
        // The flags afterwards are those before, as silicon's are not; what depends on undefined flags gets what the
        // interpreter gives.
        self.use_flags();
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        let before = self.flags;
        let mov = if wide {
            Code::Mov_r64_rm64
        } else {
            Code::Mov_r32_rm32
        };
        let divisor = abi::sized(RCX, bytes);
        if register {
            let n = i.op0_register().full_register().number();
            match abi::host(n) {
                Some(r) => self.asm.rr(mov, divisor, abi::sized(r, bytes)),
                None => self.asm.rm(mov, divisor, frame(abi::home(n))),
            }
        } else {
            let address = Address::of(i, &self.mode)?;
            let place = self.probe(&address, Want::read(bytes), miss)?;
            self.asm.rm(mov, divisor, place);
        }
        let (rax, rdx) = (abi::sized(RAX, bytes), abi::sized(Register::RDX, bytes));
        let cmp = if wide {
            Code::Cmp_r64_rm64
        } else {
            Code::Cmp_r32_rm32
        };
        if i.mnemonic() == Mnemonic::Div {
            self.asm.rr(cmp, rdx, divisor);
            self.asm.branch(Code::Jae_rel32_64, miss);
        } else {
            // Neither 0 nor -1, which can overflow.
            let (lea, cmp_imm, sar) = if wide {
                (Code::Lea_r64_m, Code::Cmp_rm64_imm8, Code::Sar_rm64_imm8)
            } else {
                (Code::Lea_r32_m, Code::Cmp_rm32_imm8, Code::Sar_rm32_imm8)
            };
            self.asm.rm(lea, rax, at(RCX, 1));
            self.asm.ri(cmp_imm, rax, 1);
            self.asm.branch(Code::Jbe_rel32_64, miss);
            self.asm.rr(mov, rax, abi::sized(abi::G_RAX, bytes));
            self.asm.ri(sar, rax, bytes as i32 * 8 - 1);
            self.asm.rr(cmp, rax, rdx);
            self.asm.branch(Code::Jne_rel32_64, miss);
        }
        self.asm.rr(mov, rax, abi::sized(abi::G_RAX, bytes));
        let code = match (i.mnemonic() == Mnemonic::Div, wide) {
            (true, true) => Code::Div_rm64,
            (true, false) => Code::Div_rm32,
            (false, true) => Code::Idiv_rm64,
            (false, false) => Code::Idiv_rm32,
        };
        self.asm.r(code, divisor);
        self.asm.rr(Code::Mov_r64_rm64, abi::G_RAX, RAX);
        self.flags.register_written(abi::G_RAX);
        self.flags.register_written(Register::RDX);
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        debug_assert!(abi::host(gpr::RDX) == Some(Register::RDX));
        Ok(())
    }
}

/// `[base + index + disp]`.
fn pair(base: Register, index: Register, disp: i64) -> iced_x86::MemoryOperand {
    iced_x86::MemoryOperand::new(base, index, 1, disp, 1, false, Register::None)
}
