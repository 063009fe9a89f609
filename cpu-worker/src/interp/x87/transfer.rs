//! Loads, stores and exchanges.

use iced_x86::{MemorySize, Mnemonic};

use super::waiting;
use crate::exec::{Exit, Flow, Handler, Insn, Int, Op, Vcpu, flag};
use crate::fp::F80;
use crate::fp::x87::{Stored, kernel};

impl Vcpu {
    fn load_ten(&mut self, op: &Op) -> Result<[u8; 10], Exit> {
        let linear = self.operand_linear(op, 10, false)?;
        let mut bytes = [0; 10];
        self.load_bytes(linear, &mut bytes)?;
        Ok(bytes)
    }

    fn store_ten(&mut self, op: &Op, bytes: &[u8; 10]) -> Flow {
        let linear = self.operand_linear(op, 10, true)?;
        self.store_bytes(linear, bytes)
    }

    /// The write between the two halves of a store.
    #[inline(always)]
    fn finish_store<T: Int>(&mut self, op: &Op, stored: &Stored<T>) -> Flow {
        if let Some(value) = stored.value {
            self.store(op, value)?;
        }
        self.state.fpu.commit(stored);
        Ok(())
    }
}

/// A load that converts.
macro_rules! load {
    ($ty:ty, $kernel:ident) => {
        waiting!(|cpu, op| {
            let v = cpu.load::<$ty>(op)?;
            cpu.state.fpu.load(kernel::$kernel, &v);
        })
    };
}

/// A store that converts; the indefinite integers are the most negative ones.
macro_rules! store {
    ($kernel:ident, $indefinite:expr, $pop:literal) => {
        waiting!(|cpu, op| {
            let stored = cpu.state.fpu.store(kernel::$kernel, $indefinite, $pop);
            cpu.finish_store(op, &stored)?;
        })
    };
}

macro_rules! constant {
    ($kernel:ident) => {
        waiting!(|cpu, _op| cpu.state.fpu.load_constant(kernel::$kernel))
    };
}

/// Stores of formats that are no integers of the host.
fn store_f80(cpu: &mut Vcpu, op: &Op) -> Flow {
    let stored = cpu.state.fpu.store_f80();
    if let Some(value) = stored.value {
        cpu.store_ten(op, &value.to_bytes())?;
    }
    cpu.state.fpu.commit(&stored);
    Ok(())
}

fn store_bcd(cpu: &mut Vcpu, op: &Op) -> Flow {
    const INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];
    let stored = cpu.state.fpu.store(kernel::store_bcd, INDEFINITE, true);
    if let Some(value) = &stored.value {
        cpu.store_ten(op, value)?;
    }
    cpu.state.fpu.commit(&stored);
    Ok(())
}

fn fld(insn: &Insn<'_>) -> Handler {
    if !insn.op.has(flag::MEM) {
        return waiting!(|cpu, op| cpu.state.fpu.load_st(op.dst));
    }
    match insn.i.memory_size() {
        MemorySize::Float32 => load!(u32, load_m32),
        MemorySize::Float64 => load!(u64, load_m64),
        _ => waiting!(|cpu, op| {
            let bytes = cpu.load_ten(op)?;
            cpu.state.fpu.load_f80(F80::from_bytes(&bytes));
        }),
    }
}

const F32_INDEFINITE: u32 = 0xffc0_0000;
const F64_INDEFINITE: u64 = 0xfff8_0000_0000_0000;

fn fst(insn: &Insn<'_>, pop: bool) -> Handler {
    if !insn.op.has(flag::MEM) {
        return if pop {
            waiting!(|cpu, op| cpu.state.fpu.store_st(op.dst, true))
        } else {
            waiting!(|cpu, op| cpu.state.fpu.store_st(op.dst, false))
        };
    }
    match (insn.i.memory_size(), pop) {
        (MemorySize::Float32, false) => store!(store_m32, F32_INDEFINITE, false),
        (MemorySize::Float32, true) => store!(store_m32, F32_INDEFINITE, true),
        (MemorySize::Float64, false) => store!(store_m64, F64_INDEFINITE, false),
        (MemorySize::Float64, true) => store!(store_m64, F64_INDEFINITE, true),
        _ => waiting!(|cpu, op| store_f80(cpu, op)?),
    }
}

fn fist(insn: &Insn<'_>, pop: bool) -> Handler {
    match (insn.i.memory_size(), pop) {
        (MemorySize::Int16, false) => store!(store_i16, 1 << 15, false),
        (MemorySize::Int16, true) => store!(store_i16, 1 << 15, true),
        (MemorySize::Int32, false) => store!(store_i32, 1 << 31, false),
        (MemorySize::Int32, true) => store!(store_i32, 1 << 31, true),
        _ => store!(store_i64, 1 << 63, true),
    }
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Fld => fld(insn),
        Mnemonic::Fst => fst(insn, false),
        Mnemonic::Fstp => fst(insn, true),
        // D9 D8+i, an alias of FSTP ST(i) that ignores an empty ST(0).
        Mnemonic::Fstpnce => waiting!(|cpu, op| cpu.state.fpu.store_st_unchecked(op.dst)),
        Mnemonic::Fild => match insn.i.memory_size() {
            MemorySize::Int16 => load!(u16, load_i16),
            MemorySize::Int32 => load!(u32, load_i32),
            _ => load!(u64, load_i64),
        },
        Mnemonic::Fist => fist(insn, false),
        Mnemonic::Fistp => fist(insn, true),
        Mnemonic::Fisttp => match insn.i.memory_size() {
            MemorySize::Int16 => store!(truncate_i16, 1 << 15, true),
            MemorySize::Int32 => store!(truncate_i32, 1 << 31, true),
            _ => store!(truncate_i64, 1 << 63, true),
        },
        Mnemonic::Fbld => waiting!(|cpu, op| {
            let bytes = cpu.load_ten(op)?;
            cpu.state.fpu.load(kernel::load_bcd, &bytes);
        }),
        Mnemonic::Fbstp => waiting!(|cpu, op| store_bcd(cpu, op)?),
        Mnemonic::Fxch => waiting!(|cpu, op| cpu.state.fpu.exchange(op.src)),
        Mnemonic::Fld1 => constant!(one),
        Mnemonic::Fldl2t => constant!(log2_10),
        Mnemonic::Fldl2e => constant!(log2_e),
        Mnemonic::Fldpi => constant!(pi),
        Mnemonic::Fldlg2 => constant!(log10_2),
        Mnemonic::Fldln2 => constant!(ln_2),
        Mnemonic::Fldz => constant!(zero),
        Mnemonic::Ffree => waiting!(|cpu, op| cpu.state.fpu.free(op.dst)),
        // DF C0+i, undocumented and universal.
        Mnemonic::Ffreep => waiting!(|cpu, op| {
            cpu.state.fpu.free(op.dst);
            cpu.state.fpu.pop();
        }),
        Mnemonic::Fincstp => waiting!(|cpu, _op| cpu.state.fpu.rotate(1)),
        Mnemonic::Fdecstp => waiting!(|cpu, _op| cpu.state.fpu.rotate(7)),
        Mnemonic::Fnop => waiting!(|_cpu, _op| {}),
        _ => return None,
    })
}
