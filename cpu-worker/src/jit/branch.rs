//! The ends of a block: jumps, calls and returns.
//!
//! A direct jump within its page leads from translation to translation once both exist: the two share a linear and a
//! physical page, so no change of the page tables can part them. Across pages, and for indirect jumps, the jump cache is
//! asked in line. Every cycle of control flow passes one look at the exit word: on backward direct jumps, and on all that
//! are not direct.

use core::mem::offset_of;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::abi::{self, G_RCX, G_RSP, RAX, RCX};
use super::asm::{Asm, at, frame, frame_at};
use super::memory::{Address, Want};
use super::translate::{Block, Unsupported};
use crate::exec::{Frame, JUMPS, ModeKey, Target};
use crate::state::{CodeSize, seg};

/// Whether `i` may be one of these.
pub(super) fn known(i: &Instruction) -> bool {
    i.is_jcc_short_or_near()
        || i.is_jmp_short_or_near()
        || i.is_jmp_near_indirect()
        || i.is_call_near()
        || i.is_call_near_indirect()
        || counter(i.code()).is_some()
        || matches!(i.mnemonic(), Mnemonic::Ret | Mnemonic::Stac | Mnemonic::Clac)
}

/// Whether `code`, a block from `start` on, ends in a jump back to there.
pub(super) fn closes(code: &[Instruction], mode: &ModeKey, start: u64) -> bool {
    let Some(last) = code.last() else { return false };
    let near = match mode.code {
        CodeSize::Bits64 => OpKind::NearBranch64,
        CodeSize::Bits32 => OpKind::NearBranch32,
        CodeSize::Bits16 => return false,
    };
    last.is_jcc_short_or_near() && last.op0_kind() == near && last.near_branch_target() == start
}

/// The bytes of rCX that LOOP or JrCXZ looks at.
fn counter(code: Code) -> Option<usize> {
    use Code::*;
    match code {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Jcxz_rel8_16 | Jcxz_rel8_32 => Some(2),
        Loop_rel8_16_ECX | Loop_rel8_32_ECX | Loop_rel8_64_ECX | Jecxz_rel8_16 | Jecxz_rel8_32
        | Jecxz_rel8_64 => Some(4),
        Loop_rel8_64_RCX | Jrcxz_rel8_64 => Some(8),
        _ => None,
    }
}

impl Block<'_> {
    /// Translates `i`, which ends the block.
    pub(super) fn branch(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        // Bytes of the operand: what a call pushes, and to how many a target is cut off, as the decoder has done.
        let bytes = match i.op0_kind() {
            OpKind::NearBranch64 => 8,
            OpKind::NearBranch32 => 4,
            OpKind::NearBranch16 => 2,
            _ => 0,
        };
        // 16-bit operands in other code are for the handler, and so is what #GP is due for.
        let direct = match self.mode.code {
            CodeSize::Bits64 => bytes == 8,
            CodeSize::Bits32 => bytes == 4,
            CodeSize::Bits16 => bytes != 0,
        } && self.within_code(i.near_branch_target());
        match i.mnemonic() {
            _ if i.is_jcc_short_or_near() && direct => {
                self.jcc(i);
                Ok(())
            }
            Mnemonic::Jmp if direct => {
                self.go_to(i.near_branch_target());
                Ok(())
            }
            Mnemonic::Loop | Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz if direct => {
                self.counted(i, counter(i.code()).ok_or(Unsupported)?);
                Ok(())
            }
            Mnemonic::Call if direct && bytes == self.stack_bytes() => self.call(i),
            Mnemonic::Jmp if i.is_jmp_near_indirect() => self.jump_indirect(i),
            Mnemonic::Call if i.is_call_near_indirect() => self.call_indirect(i),
            Mnemonic::Ret => self.ret(i),
            Mnemonic::Stac => self.set_ac(true),
            Mnemonic::Clac => self.set_ac(false),
            _ => Err(Unsupported),
        }
    }

    /// Whether `target` lies in the code segment.
    fn within_code(&self, target: u64) -> bool {
        self.mode.code == CodeSize::Bits64 || target <= u64::from(self.mode.limit)
    }

    /// Leaves the block for `target`.
    pub(super) fn go_to(&mut self, target: u64) {
        self.use_flags();
        if target <= self.start {
            self.spoil_flags();
            self.poll(target);
        }
        let save = self.asm.len();
        self.flags.save(&mut self.asm);
        let from_page = target.wrapping_sub(self.start).wrapping_add(self.offset);
        if !self.within_code(target) {
            // The run loop has the fault.
            self.asm.constant(RAX, target);
            let next = self.thunks().next;
            self.asm.branch_to(Code::Jmp_rel32_64, next);
        } else if from_page < 4096 {
            self.on_link(save, target);
        } else {
            self.go_to_in_mode(target, self.mode_slot);
        }
    }

    /// Leaves the block for `target` in mode number `mode`; the flags are saved.
    pub(super) fn go_to_in_mode(&mut self, target: u64, mode: usize) {
        let next = self.thunks().next;
        jump_by_cache(&mut self.asm, target, mode, self.mode.flat, next);
    }

    /// Looks at the exit word; the flags are spoiled.
    pub(super) fn poll(&mut self, target: u64) {
        let out = self.asm.label();
        self.asm
            .rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, exit_word)));
        self.asm.mi(Code::Cmp_rm32_imm8, at(RCX, 0), 0);
        self.asm.branch(Code::Jne_rel32_64, out);
        self.on_poll(out, target);
    }

    /// Compares the rIP in RAX with the jump cache; what is not there, or beyond the code segment, goes to `miss`.
    fn look_up(&mut self, miss: super::asm::Label) {
        if !self.mode.flat {
            let whole = if self.stack_bytes() == 2 { 0xFFFF } else { u32::MAX };
            if self.mode.limit < whole {
                self.asm.constant(RCX, u64::from(self.mode.limit));
                self.asm.rr(Code::Cmp_r64_rm64, RAX, RCX);
                self.asm.branch(Code::Ja_rel32_64, miss);
            }
            tag_of_rax(&mut self.asm);
        }
        slot_of_rax(&mut self.asm);
        let (other, found) = (self.asm.label(), self.asm.label());
        let tag = targets(self.mode_slot) + offset_of!(Target, tag);
        self.asm.rm(Code::Cmp_r64_rm64, RAX, frame_at(RCX, tag));
        self.asm.branch(Code::Jne_rel32_64, other);
        self.asm.bind(found);
        self.on_first_slot_missed(other, found, miss);
    }

    /// As [`Self::look_up`] goes on where the first slot has another address.
    pub(super) fn second_slot(&mut self, found: super::asm::Label, miss: super::asm::Label) {
        self.asm
            .ri(Code::Xor_rm32_imm8, Register::ECX, size_of::<Target>() as i32);
        let tag = targets(self.mode_slot) + offset_of!(Target, tag);
        self.asm.rm(Code::Cmp_r64_rm64, RAX, frame_at(RCX, tag));
        self.asm.branch(Code::Je_rel32_64, found);
        self.asm.branch(Code::Jmp_rel32_64, miss);
    }

    /// Jumps to where RCX points in the jump cache.
    fn follow(&mut self) {
        let native = targets(self.mode_slot) + offset_of!(Target, native);
        self.asm.m(Code::Jmp_rm64, frame_at(RCX, native));
    }

    fn jcc(&mut self, i: &Instruction) {
        self.host_flags();
        if self.next_turn(i) {
            return;
        }
        let taken = self.asm.label();
        let code = i.condition_code();
        self.asm.branch(jcc_code(code), taken);
        let flags = self.flags;
        let next = self.next;
        self.go_to(next);
        self.asm.bind(taken);
        self.flags = flags;
        match self.looped.take() {
            Some(looped) => self.jump_back(i, &looped),
            None => self.go_to(i.near_branch_target()),
        }
    }

    /// LOOP and JrCXZ, by the lower `bytes` of rCX.
    fn counted(&mut self, i: &Instruction, bytes: usize) {
        self.use_flags();
        self.flags.save(&mut self.asm);
        let count = abi::sized(G_RCX, bytes);
        let (lea, test) = match bytes {
            2 => (Code::Lea_r16_m, Code::Test_rm16_r16),
            4 => (Code::Lea_r32_m, Code::Test_rm32_r32),
            _ => (Code::Lea_r64_m, Code::Test_rm64_r64),
        };
        let mut when = Code::Je_rel32_64;
        if i.mnemonic() == Mnemonic::Loop {
            self.asm.rm(lea, count, at(G_RCX, -1));
            self.flags.register_written(G_RCX);
            when = Code::Jne_rel32_64;
        }
        self.asm.rr(test, count, count);
        self.flags.host = false;
        let taken = self.asm.label();
        self.asm.branch(when, taken);
        let flags = self.flags;
        let next = self.next;
        self.go_to(next);
        self.asm.bind(taken);
        self.flags = flags;
        self.go_to(i.near_branch_target());
    }

    /// A conditional jump out of the middle of the block.
    pub(super) fn side_exit(&mut self, i: &Instruction) {
        self.host_flags();
        self.use_flags();
        let out = self.asm.label();
        self.asm.branch(jcc_code(i.condition_code()), out);
        self.on_side(out, i.near_branch_target());
    }

    /// Puts the return address where the stack pointer will be; the flags are saved already.
    fn push_return(&mut self, miss: super::asm::Label) -> Result<(), Unsupported> {
        let bytes = self.stack_bytes();
        let next = self.next;
        let place = self.stack(-(bytes as i64), true, miss)?;
        let constant = self.mov_constant();
        if bytes == 2 {
            self.asm.mi(constant, place, i32::from(next as i16));
        } else if bytes == 4 || next as i64 == i64::from(next as i32) {
            self.asm.mi(constant, place, next as i32);
        } else {
            self.asm.constant(RAX, next);
            self.asm.mr(Code::Mov_rm64_r64, place, RAX);
        }
        Ok(())
    }

    fn call(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let miss = self.asm.label();
        self.use_flags();
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        self.push_return(miss)?;
        self.on_miss_leave(miss);
        self.move_stack(-(self.stack_bytes() as i64));
        self.go_to(i.near_branch_target());
        Ok(())
    }

    /// RAX := the target of an indirect jump or call.
    fn indirect_target(&mut self, i: &Instruction, miss: super::asm::Label) -> Result<(), Unsupported> {
        let bytes = self.stack_bytes();
        match i.op0_kind() {
            OpKind::Register => {
                let r = i.op0_register();
                if r.size() != bytes {
                    return Err(Unsupported);
                }
                let n = r.full_register().number();
                match abi::host(n) {
                    Some(src) if bytes == 8 => self.asm.rr(Code::Mov_r64_rm64, RAX, src),
                    Some(src) if bytes == 2 => {
                        self.asm
                            .rr(Code::Movzx_r32_rm16, Register::EAX, abi::sized(src, 2));
                    }
                    Some(src) => self
                        .asm
                        .rr(Code::Mov_r32_rm32, Register::EAX, src.full_register32()),
                    None => self.asm.rm(Code::Mov_r64_rm64, RAX, frame(abi::home(n))),
                }
            }
            OpKind::Memory if i.memory_size().size() == bytes => {
                let address = Address::of(i, &self.mode)?;
                let place = self.probe(&address, Want::read(bytes), miss)?;
                self.load_word(place);
            }
            _ => return Err(Unsupported),
        }
        Ok(())
    }

    fn jump_indirect(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let miss = self.asm.label();
        self.use_flags();
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        self.indirect_target(i, miss)?;
        self.poll_before_indirect(miss);
        self.look_up(miss);
        self.follow();
        self.on_miss_leave(miss);
        Ok(())
    }

    /// Looks at the exit word before an indirect jump commits anything: the handler then executes it, and the run
    /// loop looks.
    fn poll_before_indirect(&mut self, miss: super::asm::Label) {
        self.asm
            .rm(Code::Mov_r64_rm64, RCX, frame(offset_of!(Frame, exit_word)));
        self.asm.mi(Code::Cmp_rm32_imm8, at(RCX, 0), 0);
        self.asm.branch(Code::Jne_rel32_64, miss);
    }

    fn call_indirect(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let miss = self.asm.label();
        self.use_flags();
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        // The target and where it is in the jump cache wait on the host's stack while the return address is stored.
        self.indirect_target(i, miss)?;
        self.poll_before_indirect(miss);
        self.look_up(miss);
        let spilled = self.asm.label();
        self.asm.r(Code::Push_r64, RAX);
        self.asm.r(Code::Push_r64, RCX);
        self.push_return(spilled)?;
        self.move_stack(-(self.stack_bytes() as i64));
        self.asm.r(Code::Pop_r64, RCX);
        self.asm.r(Code::Pop_r64, RAX);
        self.follow();
        self.asm.bind(spilled);
        self.asm.r(Code::Pop_r64, RCX);
        self.asm.r(Code::Pop_r64, RAX);
        self.asm.branch(Code::Jmp_rel32_64, miss);
        self.on_miss_leave(miss);
        Ok(())
    }

    fn ret(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let bytes = self.stack_bytes();
        let extra = match (i.code(), bytes) {
            (Code::Retnq, 8) | (Code::Retnd, 4) | (Code::Retnw, 2) => 0,
            (Code::Retnq_imm16, 8) | (Code::Retnd_imm16, 4) | (Code::Retnw_imm16, 2) => {
                i64::from(i.immediate16())
            }
            _ => return Err(Unsupported),
        };
        let miss = self.asm.label();
        self.use_flags();
        self.flags.save(&mut self.asm);
        self.flags.host = false;
        let place = self.stack(0, false, miss)?;
        self.load_word(place);
        self.poll_before_indirect(miss);
        self.look_up(miss);
        let by = bytes as i64 + extra;
        debug_assert!(G_RSP == Register::R15);
        self.move_stack(by);
        self.follow();
        self.on_miss_leave(miss);
        Ok(())
    }
}

/// Code at `base` that goes to `target` in mode number `mode` by the jump cache.
pub(super) fn by_cache(base: u64, target: u64, mode: usize, flat: bool, next: u64) -> Vec<u8> {
    let mut asm = Asm::new(base);
    jump_by_cache(&mut asm, target, mode, flat, next);
    asm.finish()
}

/// RAX := the tag of the rIP in RAX in segmented code, as `Vcpu::jump_tag` has it. Spoils RCX and the flags.
fn tag_of_rax(asm: &mut Asm) {
    asm.rr(Code::Mov_r32_rm32, Register::ECX, Register::EAX);
    asm.rm(Code::Add_r32_rm32, Register::ECX, frame(abi::frame_base(seg::CS)));
    asm.ri(Code::Shl_rm64_imm8, RAX, 32);
    asm.rr(Code::Or_r64_rm64, RAX, RCX);
}

/// RCX := displacement of the entry of the jump cache for the tag in RAX, as [`Frame::jump_slot`] has it.
fn slot_of_rax(asm: &mut Asm) {
    const SHIFT: i32 = size_of::<Target>().trailing_zeros() as i32;
    asm.rr(Code::Mov_r64_rm64, RCX, RAX);
    asm.ri(Code::Shr_rm64_imm8, RCX, 11);
    asm.rr(Code::Xor_r32_rm32, Register::ECX, Register::EAX);
    asm.ri(Code::And_rm32_imm32, Register::ECX, JUMPS as i32 - 1);
    asm.ri(Code::Shl_rm32_imm8, Register::ECX, SHIFT);
}

/// Goes to what the jump cache has for `target`, or to `next`. Where CS starts is known at run time only.
fn jump_by_cache(asm: &mut Asm, target: u64, mode: usize, flat: bool, next: u64) {
    asm.constant(RAX, target);
    if flat {
        return jump_by_entry(asm, mode, Frame::jump_slot(target), next);
    }
    tag_of_rax(asm);
    slot_of_rax(asm);
    let entry = |field: usize| frame_at(RCX, targets(mode) + field);
    let (other, found) = (asm.label(), asm.label());
    asm.rm(Code::Cmp_r64_rm64, RAX, entry(offset_of!(Target, tag)));
    asm.branch(Code::Jne_rel32_64, other);
    asm.bind(found);
    asm.m(Code::Jmp_rm64, entry(offset_of!(Target, native)));
    asm.bind(other);
    asm.ri(Code::Xor_rm32_imm8, Register::ECX, size_of::<Target>() as i32);
    asm.rm(Code::Cmp_r64_rm64, RAX, entry(offset_of!(Target, tag)));
    asm.branch(Code::Je_rel32_64, found);
    asm.constant(RAX, target);
    asm.branch_to(Code::Jmp_rel32_64, next);
}

/// Goes to what the jump cache has for the address in RAX, whose first slot is `slot`, or to `next`.
fn jump_by_entry(asm: &mut Asm, mode: usize, slot: usize, next: u64) {
    let entry = |slot: usize| targets(mode) + slot * size_of::<Target>();
    let other = asm.label();
    let (first, second) = (entry(slot), entry(slot ^ 1));
    asm.rm(Code::Cmp_r64_rm64, RAX, frame(first + offset_of!(Target, tag)));
    asm.branch(Code::Jne_rel32_64, other);
    asm.m(Code::Jmp_rm64, frame(first + offset_of!(Target, native)));
    asm.bind(other);
    asm.rm(Code::Cmp_r64_rm64, RAX, frame(second + offset_of!(Target, tag)));
    asm.branch_to(Code::Jne_rel32_64, next);
    asm.m(Code::Jmp_rm64, frame(second + offset_of!(Target, native)));
}

/// Displacement in the frame of the jump cache of mode number `mode`.
fn targets(mode: usize) -> usize {
    offset_of!(Frame, targets) + mode * JUMPS * size_of::<Target>()
}

/// The near form of Jcc with condition `cc`.
pub(super) fn jcc_code(cc: iced_x86::ConditionCode) -> Code {
    use iced_x86::ConditionCode as C;
    match cc {
        C::None => unreachable!("a conditional jump has a condition"),
        C::o => Code::Jo_rel32_64,
        C::no => Code::Jno_rel32_64,
        C::b => Code::Jb_rel32_64,
        C::ae => Code::Jae_rel32_64,
        C::e => Code::Je_rel32_64,
        C::ne => Code::Jne_rel32_64,
        C::be => Code::Jbe_rel32_64,
        C::a => Code::Ja_rel32_64,
        C::s => Code::Js_rel32_64,
        C::ns => Code::Jns_rel32_64,
        C::p => Code::Jp_rel32_64,
        C::np => Code::Jnp_rel32_64,
        C::l => Code::Jl_rel32_64,
        C::ge => Code::Jge_rel32_64,
        C::le => Code::Jle_rel32_64,
        C::g => Code::Jg_rel32_64,
    }
}
