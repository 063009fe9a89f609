//! Instructions with operands that their encoding does not show: the stack, the accumulator.

use iced_x86::{Code, Instruction, MemoryOperand, Mnemonic, OpKind, Register};

use super::abi::{self, G_RAX, G_RSP, RAX, RCX};
use super::asm::{at, frame};
use super::memory::{Address, Want, set_operand};
use super::translate::{Block, Unsupported};
use crate::state::{CodeSize, gpr};

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
            Mnemonic::Cdq | Mnemonic::Cqo => self.sign(i),
            Mnemonic::Cdqe | Mnemonic::Cwde | Mnemonic::Cbw => self.extend(i),
            Mnemonic::Cmpxchg => self.cmpxchg(i),
            _ => Err(Unsupported),
        }
    }

    /// Width of a push in this mode.
    pub(super) fn stack_bytes(&self) -> usize {
        if self.mode.code == CodeSize::Bits64 { 8 } else { 4 }
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
        (Address::based(gpr::RSP, disp), want)
    }

    /// Moves the stack pointer without touching flags.
    pub(super) fn move_stack(&mut self, by: i64) {
        if self.stack_bytes() == 8 {
            self.asm.rm(Code::Lea_r64_m, G_RSP, at(G_RSP, by));
        } else {
            self.asm
                .rm(Code::Lea_r32_m, G_RSP.full_register32(), at(G_RSP, by));
        }
        self.flags.register_written(G_RSP);
    }

    /// Whether the flags would be lost with a change of `r`; if so they are put where they are not.
    fn keep_flags(&mut self, r: Register) {
        if self.flags.lost_with(r) {
            self.host_flags();
        }
    }

    fn mov_code(&self, load: bool) -> Code {
        match (self.stack_bytes(), load) {
            (8, true) => Code::Mov_r64_rm64,
            (8, false) => Code::Mov_rm64_r64,
            (_, true) => Code::Mov_r32_rm32,
            (_, false) => Code::Mov_rm32_r32,
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
            let code = if bytes == 8 {
                Code::Mov_rm64_imm32
            } else {
                Code::Mov_rm32_imm32
            };
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
        if i.code() != (if bytes == 8 { Code::Leaveq } else { Code::Leaved }) {
            return Err(Unsupported);
        }
        let (miss, back) = (self.asm.label(), self.asm.label());
        let (address, want) = (Address::based(gpr::RBP, 0), Want::read(bytes));
        self.before_access(&address, want);
        let before = self.flags;
        let place = self.probe(&address, want, miss)?;
        self.keep_flags(G_RSP);
        self.keep_flags(Register::RBP);
        let code = self.mov_code(true);
        self.asm.rm(code, abi::sized(RAX, bytes), place);
        let lea = if bytes == 8 {
            Code::Lea_r64_m
        } else {
            Code::Lea_r32_m
        };
        self.asm
            .rm(lea, abi::sized(G_RSP, bytes), at(Register::RBP, bytes as i64));
        self.asm.rr(Code::Mov_r64_rm64, Register::RBP, RAX);
        self.flags.register_written(G_RSP);
        self.flags.register_written(Register::RBP);
        self.asm.bind(back);
        self.on_miss(miss, back, &before);
        Ok(())
    }

    /// MUL and IMUL of the accumulator, 32 and 64 bits wide; RDX is itself.
    fn multiply(&mut self, i: &Instruction) -> Result<(), Unsupported> {
        let bytes = match i.op0_kind() {
            OpKind::Register => i.op0_register().size(),
            _ => i.memory_size().size(),
        };
        if bytes < 4 {
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
        let address = Address::of(i, self.mode.code)?;
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
        let address = Address::of(i, self.mode.code)?;
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
