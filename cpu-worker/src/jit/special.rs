//! Instructions with operands that their encoding does not show: the stack, the accumulator.

use iced_x86::{Code, Instruction, MemoryOperand, Mnemonic, OpKind, Register};

use super::abi::{self, G_RAX, G_RSP, RAX, RCX};
use super::asm::{at, frame};
use super::memory::{Address, Want, set_operand};
use super::translate::{Block, Unsupported};
use crate::state::{CodeSize, gpr, seg};

/// Whether `i` may be one of these.
pub(super) fn known(i: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        i.mnemonic(),
        Nop | Pause
            | Endbr32
            | Endbr64
            | Prefetchnta
            | Prefetcht0
            | Prefetcht1
            | Prefetcht2
            | Prefetchw
            | Lfence
            | Mfence
            | Sfence
            | Push
            | Pop
            | Leave
            | Mul
            | Imul
            | Div
            | Idiv
            | Cdq
            | Cqo
            | Cwd
            | Cdqe
            | Cwde
            | Cbw
            | Cmpxchg
    )
}

impl Block<'_> {
    /// Translates `i` if it is one of these.
    pub(super) fn special(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        match i.mnemonic() {
            Mnemonic::Nop | Mnemonic::Pause | Mnemonic::Endbr32 | Mnemonic::Endbr64 => Ok(()),
            Mnemonic::Prefetchnta
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2
            | Mnemonic::Prefetchw => Ok(()),
            Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence => {
                self.asm.put(i);
                Ok(())
            }
            Mnemonic::Push if i.op0_kind() == OpKind::Register && i.op0_register().is_segment_register() => {
                Err(Unsupported)
            }
            Mnemonic::Push if i.op0_kind() == OpKind::Memory => self.push_memory(i),
            Mnemonic::Div | Mnemonic::Idiv => self.divide(i),
            Mnemonic::Push => self.push(i),
            Mnemonic::Pop => self.pop(i),
            Mnemonic::Leave => self.leave(i),
            Mnemonic::Mul => self.multiply(i),
            Mnemonic::Imul if i.op_count() == 1 => self.multiply(i),
            Mnemonic::Cwd | Mnemonic::Cdq | Mnemonic::Cqo => self.sign(i),
            Mnemonic::Cdqe | Mnemonic::Cwde | Mnemonic::Cbw => self.extend(i),
            Mnemonic::Cmpxchg => self.cmpxchg(i),
            _ => Err(Unsupported),
        }
    }

    /// Width of a push in this mode.
    pub(super) fn stack_bytes(&self) -> usize {
        match self.mode.code {
            CodeSize::Bits64 => 8,
            CodeSize::Bits32 => 4,
            CodeSize::Bits16 => 2,
        }
    }

    /// The operand at `disp` from guest register `base` in the stack segment.
    fn in_stack(&self, base: usize, disp: i64) -> Address {
        Address {
            segment: (!self.mode.flat).then_some(seg::SS),
            short: self.mode.short_stack,
            ..Address::based(base, disp)
        }
    }

    /// The operand below (or at) the stack pointer, looked up. The flags are spoiled.
    pub(super) fn stack(
        &mut self,
        disp: i64,
        write: bool,
        miss: super::asm::Label,
    ) -> Result<MemoryOperand, Unsupported> {
        let (address, want) = self.stacked(disp, write);
        self.probe(&address, want, miss)
    }

    /// The access below (or at) the stack pointer.
    fn stacked(&self, disp: i64, write: bool) -> (Address, Want) {
        let bytes = self.stack_bytes();
        let want = if write {
            Want::write(bytes)
        } else {
            Want::read(bytes)
        };
        (self.in_stack(gpr::RSP, disp), want)
    }

    /// Moves the stack pointer without touching flags.
    pub(super) fn move_stack(&mut self, by: i64) {
        let (lea, width) = self.stack_lea();
        self.asm.rm(lea, abi::sized(G_RSP, width), at(G_RSP, by));
        self.flags.register_written(G_RSP);
    }

    /// LEA of the stack pointer's width, which it does not change the rest of, and that width in bytes.
    fn stack_lea(&self) -> (Code, usize) {
        match self.mode.code {
            CodeSize::Bits64 => (Code::Lea_r64_m, 8),
            _ if self.mode.short_stack => (Code::Lea_r16_m, 2),
            _ => (Code::Lea_r32_m, 4),
        }
    }

    /// Whether the flags would be lost with a change of `r`; if so they are put where they are not.
    fn keep_flags(&mut self, r: Register) {
        if self.flags.lost_with(r) {
            self.host_flags();
        }
    }

    /// MOV of a register to or from the stack.
    pub(super) fn mov_code(&self, load: bool) -> Code {
        match (self.stack_bytes(), load) {
            (8, true) => Code::Mov_r64_rm64,
            (8, false) => Code::Mov_rm64_r64,
            (4, true) => Code::Mov_r32_rm32,
            (4, false) => Code::Mov_rm32_r32,
            (_, true) => Code::Mov_r16_rm16,
            (_, false) => Code::Mov_rm16_r16,
        }
    }

    /// MOV of a constant to the stack.
    pub(super) fn mov_constant(&self) -> Code {
        match self.stack_bytes() {
            8 => Code::Mov_rm64_imm32,
            4 => Code::Mov_rm32_imm32,
            _ => Code::Mov_rm16_imm16,
        }
    }

    /// RAX := the word of the stack's width at `place`, zero-extended.
    pub(super) fn load_word(&mut self, place: MemoryOperand) {
        match self.stack_bytes() {
            2 => self.asm.rm(Code::Movzx_r32_rm16, Register::EAX, place),
            bytes => {
                let code = self.mov_code(true);
                self.asm.rm(code, abi::sized(RAX, bytes), place);
            }
        }
    }

    fn push(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let bytes = self.stack_bytes();
        let register = i.op0_kind() == OpKind::Register;
        let size = if register {
            i.op0_register().size()
        } else {
            usize::try_from(i.stack_pointer_increment().unsigned_abs()).map_err(|_| Unsupported)?
        };
        if size != bytes || register && !i.op0_register().is_gpr() || i.op0_kind() == OpKind::Memory {
            return Err(Unsupported);
        }
        let (miss, back) = (self.asm.label(), self.asm.label());
        let (address, want) = self.stacked(-(bytes as i64), true);
        self.before_access(&address, want);
        let before = self.flags;
        let place = self.probe(&address, want, miss)?;
        if register {
            let n = i.op0_register().full_register().number();
            let src = abi::host(n).unwrap_or(RAX);
            if src == RAX {
                self.asm.load_home(RAX, n);
            }
            let code = self.mov_code(false);
            self.asm.mr(code, place, abi::sized(src, bytes));
        } else {
            let imm = i.immediate(0) as i64 as i32;
            let imm = if bytes == 2 { i32::from(imm as i16) } else { imm };
            let code = self.mov_constant();
            self.asm.mi(code, place, imm);
        }
        self.keep_flags(G_RSP);
        self.move_stack(-(bytes as i64));
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    fn pop(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let bytes = self.stack_bytes();
        if i.op0_kind() != OpKind::Register || !i.op0_register().is_gpr() || i.op0_register().size() != bytes
        {
            return Err(Unsupported);
        }
        let n = i.op0_register().full_register().number();
        let (miss, back) = (self.asm.label(), self.asm.label());
        let (address, want) = self.stacked(0, false);
        self.before_access(&address, want);
        let before = self.flags;
        let place = self.probe(&address, want, miss)?;
        let dst = abi::host(n).unwrap_or(RAX);
        self.keep_flags(dst);
        self.keep_flags(G_RSP);
        let code = self.mov_code(true);
        self.asm.rm(code, abi::sized(dst, bytes), place);
        if dst == RAX {
            self.asm.store_home(n, RAX);
        }
        self.flags.register_written(dst);
        if n != gpr::RSP {
            self.move_stack(bytes as i64);
        }
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    fn leave(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let bytes = self.stack_bytes();
        let own = match bytes {
            8 => Code::Leaveq,
            4 => Code::Leaved,
            _ => Code::Leavew,
        };
        if i.code() != own {
            return Err(Unsupported);
        }
        let (miss, back) = (self.asm.label(), self.asm.label());
        let (address, want) = (self.in_stack(gpr::RBP, 0), Want::read(bytes));
        self.before_access(&address, want);
        let before = self.flags;
        let place = self.probe(&address, want, miss)?;
        self.keep_flags(G_RSP);
        self.keep_flags(Register::RBP);
        self.load_word(place);
        let (lea, width) = self.stack_lea();
        self.asm
            .rm(lea, abi::sized(G_RSP, width), at(Register::RBP, bytes as i64));
        if bytes == 2 {
            self.asm.rr(Code::Mov_r16_rm16, Register::BP, Register::AX);
        } else {
            self.asm.rr(Code::Mov_r64_rm64, Register::RBP, RAX);
        }
        self.flags.register_written(G_RSP);
        self.flags.register_written(Register::RBP);
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    /// MUL and IMUL of the accumulator, from 16 bits on; RDX is itself.
    fn multiply(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let bytes = match i.op0_kind() {
            OpKind::Register => i.op0_register().size(),
            _ => i.memory_size().size(),
        };
        if bytes < 2 {
            return Err(Unsupported);
        }
        let mut out = *i;
        if i.op0_kind() == OpKind::Register {
            let n = i.op0_register().full_register().number();
            let src = abi::host(n).unwrap_or(RCX);
            if src == RCX {
                self.asm.rm(Code::Mov_r64_rm64, RCX, frame(abi::home(n)));
            }
            out.set_op0_register(abi::sized(src, bytes));
            self.asm.rr(Code::Mov_r64_rm64, RAX, G_RAX);
            self.asm.put(&out);
            self.asm.rr(Code::Mov_r64_rm64, G_RAX, RAX);
            self.use_flags_of_all(&out);
            return Ok(());
        }
        let address = Address::of(i, &self.mode)?;
        let (miss, back) = (self.asm.label(), self.asm.label());
        self.spoil_flags();
        let before = self.flags;
        let place = self.probe(&address, Want::read(bytes), miss)?;
        set_operand(&mut out, &place);
        self.asm.rr(Code::Mov_r64_rm64, RAX, G_RAX);
        self.asm.put(&out);
        self.asm.rr(Code::Mov_r64_rm64, G_RAX, RAX);
        self.use_flags_of_all(&out);
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    fn use_flags_of_all(&mut self, out: &Instruction) {
        self.flags.written(out);
        self.flags.recipe = None;
    }

    fn sign(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        self.keep_flags(Register::RDX);
        self.asm.rr(Code::Mov_r64_rm64, RAX, G_RAX);
        self.asm.put(i);
        self.flags.register_written(Register::RDX);
        Ok(())
    }

    fn extend(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        self.keep_flags(G_RAX);
        match i.mnemonic() {
            Mnemonic::Cdqe => self.asm.rr(Code::Movsxd_r64_rm32, G_RAX, abi::sized(G_RAX, 4)),
            Mnemonic::Cwde => self
                .asm
                .rr(Code::Movsx_r32_rm16, abi::sized(G_RAX, 4), abi::sized(G_RAX, 2)),
            _ => self
                .asm
                .rr(Code::Movsx_r16_rm8, abi::sized(G_RAX, 2), abi::sized(G_RAX, 1)),
        }
        self.flags.register_written(G_RAX);
        Ok(())
    }

    /// CMPXCHG with memory; the accumulator goes through RAX, so the host decides what becomes of all its bits.
    fn cmpxchg(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let r = i.op1_register();
        let (Some(src), OpKind::Memory) = (abi::host(r.full_register().number()), i.op0_kind()) else {
            return Err(Unsupported);
        };
        if matches!(r, Register::AH | Register::BH | Register::CH | Register::DH) {
            return Err(Unsupported);
        }
        let address = Address::of(i, &self.mode)?;
        let (miss, back) = (self.asm.label(), self.asm.label());
        self.spoil_flags();
        let before = self.flags;
        let place = self.probe(&address, Want::write(r.size()), miss)?;
        let mut out = *i;
        out.set_op1_register(abi::sized(src, r.size()));
        set_operand(&mut out, &place);
        self.asm.rr(Code::Mov_r64_rm64, RAX, G_RAX);
        self.asm.put(&out);
        self.asm.rr(Code::Mov_r64_rm64, G_RAX, RAX);
        self.use_flags_of_all(&out);
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }
}
