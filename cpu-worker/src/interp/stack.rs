//! PUSH, POP, PUSHA, POPA, ENTER, LEAVE, and the stack accesses others build on.

use iced_x86::{Mnemonic, OpKind, Register};

use super::by_width;
use crate::exec::{Exit, Flow, Handler, Insn, Int, Op, Vcpu, flag};
use crate::mmu::canonical;
use crate::state::{CodeSize, gpr, seg};

impl Vcpu {
    /// Sets the stack pointer under the stack's width.
    #[inline(always)]
    pub fn set_sp(&mut self, sp: u64) {
        self.set_gpr_addr(gpr::RSP, sp, self.stack_shift);
    }

    /// The stack pointer plus `delta`, wrapped to the stack's width.
    #[inline(always)]
    pub fn sp_plus(&self, delta: u64) -> u64 {
        self.rsp().wrapping_add(delta) << self.stack_shift >> self.stack_shift
    }

    /// Linear address of `len` bytes at stack offset `offset`.
    #[inline(always)]
    fn stack_linear(&mut self, offset: u64, len: u64, write: bool) -> Result<u64, Exit> {
        if self.code_size == CodeSize::Bits64 {
            if !canonical(offset) {
                return self.raise(crate::exec::Vector::Ss);
            }
            return Ok(offset);
        }
        let ss = seg::SS as u8;
        if write {
            self.linear_write(ss, offset, len, false)
        } else {
            self.linear_read(ss, offset, len, false)
        }
    }

    /// Pushes one value; the stack pointer moves only when the store succeeded.
    #[inline(always)]
    pub fn push<T: Int>(&mut self, value: T) -> Flow {
        let sp = self.sp_plus(T::BYTES.wrapping_neg());
        let linear = self.stack_linear(sp, T::BYTES, true)?;
        self.store_linear(linear, value)?;
        self.set_sp(sp);
        Ok(())
    }

    /// Reads the value `skip` bytes above the stack pointer without popping it; also gives the stack pointer
    /// past it.
    #[inline(always)]
    pub fn peek<T: Int>(&mut self, skip: u64) -> Result<(T, u64), Exit> {
        let sp = self.sp_plus(skip);
        let linear = self.stack_linear(sp, T::BYTES, false)?;
        let v = self.load_linear(linear)?;
        Ok((v, self.sp_plus(skip + T::BYTES)))
    }

    /// Pops one value.
    #[inline(always)]
    pub fn pop<T: Int>(&mut self) -> Result<T, Exit> {
        let (v, sp) = self.peek::<T>(0)?;
        self.set_sp(sp);
        Ok(v)
    }
}

fn push_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.reg::<T>(op.dst);
    cpu.push(v)
}

fn push_imm<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.push(T::trunc(op.imm))
}

fn push_mem<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.load::<T>(op)?;
    cpu.push(v)
}

fn pop_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.pop::<T>()?;
    cpu.set_reg(op.dst, v);
    Ok(())
}

/// POP to memory: an address that uses rSP uses it as it is after the pop.
fn pop_mem<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (v, sp) = cpu.peek::<T>(0)?;
    let before = cpu.rsp();
    cpu.set_sp(sp);
    let done = cpu.store(op, v);
    if done.is_err() {
        cpu.state.regs[gpr::RSP] = before;
    }
    done
}

fn pusha<T: Int>(cpu: &mut Vcpu, _: &Op) -> Flow {
    let before = cpu.rsp();
    let values: [T; 8] = core::array::from_fn(|n| cpu.reg(n as u8 * 8));
    for v in values {
        if let Err(e) = cpu.push(v) {
            cpu.state.regs[gpr::RSP] = before;
            return Err(e);
        }
    }
    Ok(())
}

fn popa<T: Int>(cpu: &mut Vcpu, _: &Op) -> Flow {
    let mut values = [T::default(); 8];
    for (n, v) in values.iter_mut().enumerate() {
        *v = cpu.peek::<T>(n as u64 * T::BYTES)?.0;
    }
    let sp = cpu.sp_plus(8 * T::BYTES);
    for (n, v) in values.iter().rev().enumerate() {
        if n != gpr::RSP {
            cpu.set_gpr(n, *v);
        }
    }
    cpu.set_sp(sp);
    Ok(())
}

fn leave<T: Int>(cpu: &mut Vcpu, _: &Op) -> Flow {
    let before = cpu.rsp();
    let rbp = cpu.gpr(gpr::RBP);
    cpu.set_sp(rbp);
    match cpu.pop::<T>() {
        Ok(v) => {
            cpu.set_gpr(gpr::RBP, v);
            Ok(())
        }
        Err(e) => {
            cpu.state.regs[gpr::RSP] = before;
            Err(e)
        }
    }
}

/// ENTER: the size in bits 0–15 of `imm`, the nesting level in bits 32–39.
fn enter<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let before = cpu.rsp();
    let done = enter_inner::<T>(cpu, op);
    if done.is_err() {
        cpu.state.regs[gpr::RSP] = before;
    }
    done
}

fn enter_inner<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let size = op.imm & 0xFFFF;
    let level = (op.imm >> 32) & 31;
    let rbp = cpu.gpr(gpr::RBP);
    cpu.push(T::trunc(rbp))?;
    let frame = cpu.rsp();
    if level > 0 {
        for n in 1..level {
            let shift = cpu.stack_shift;
            let at = rbp.wrapping_sub(n * T::BYTES) << shift >> shift;
            let linear = cpu.stack_linear(at, T::BYTES, false)?;
            let v = cpu.load_linear::<T>(linear)?;
            cpu.push(v)?;
        }
        cpu.push(T::trunc(frame))?;
    }
    let sp = cpu.sp_plus(size.wrapping_neg());
    // The last thing ENTER does is to see whether the new top of the stack can be written.
    let linear = cpu.stack_linear(sp, T::BYTES, true)?;
    cpu.probe_write(linear, T::BYTES)?;
    cpu.set_gpr(gpr::RBP, T::trunc(frame));
    cpu.set_sp(sp);
    Ok(())
}

/// Operand size in bytes from the stack's change, which iced computes per code.
fn stack_bytes(insn: &Insn<'_>, values: i32) -> usize {
    (insn.i.stack_pointer_increment().unsigned_abs() as i32 / values) as usize
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let memory = insn.op.has(flag::MEM);
    Some(match insn.i.mnemonic() {
        Mnemonic::Push => {
            let bytes = stack_bytes(insn, 1);
            match insn.i.op0_kind() {
                OpKind::Register if insn.i.op0_register().is_gpr() => by_width!(bytes, push_reg),
                OpKind::Register => return None,
                _ if memory => by_width!(bytes, push_mem),
                _ => by_width!(bytes, push_imm),
            }
        }
        Mnemonic::Pop => {
            let bytes = stack_bytes(insn, 1);
            match insn.i.op0_kind() {
                OpKind::Register if insn.i.op0_register().is_gpr() => by_width!(bytes, pop_reg),
                OpKind::Register => return None,
                _ => {
                    debug_assert!(insn.i.memory_base() != Register::RIP || insn.code == CodeSize::Bits64);
                    by_width!(bytes, pop_mem)
                }
            }
        }
        Mnemonic::Pusha => pusha::<u16>,
        Mnemonic::Pushad => pusha::<u32>,
        Mnemonic::Popa => popa::<u16>,
        Mnemonic::Popad => popa::<u32>,
        Mnemonic::Leave => by_width!(stack_leave_bytes(insn), leave),
        Mnemonic::Enter => by_width!(enter_bytes(insn), enter),
        _ => return None,
    })
}

fn stack_leave_bytes(insn: &Insn<'_>) -> usize {
    use iced_x86::Code::*;
    match insn.i.code() {
        Leavew => 2,
        Leaved => 4,
        _ => 8,
    }
}

fn enter_bytes(insn: &Insn<'_>) -> usize {
    use iced_x86::Code::*;
    match insn.i.code() {
        Enterw_imm16_imm8 => 2,
        Enterd_imm16_imm8 => 4,
        _ => 8,
    }
}
