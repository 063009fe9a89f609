//! Non-temporal stores from general registers, fences, prefetches, cache-line flushes.
//!
//! Guest memory is coherent and accesses are made in program order, so that nothing remains to be done but
//! the faults.

use iced_x86::Mnemonic;

use crate::exec::{Flow, Handler, Insn, Int, Op, Vcpu};

fn movnti<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.reg::<T>(op.dst);
    cpu.store(op, v)
}

/// CLFLUSH faults as a load of one byte would.
fn clflush(cpu: &mut Vcpu, op: &Op) -> Flow {
    let linear = cpu.operand_linear(op, 1, false)?;
    cpu.probe_read(linear, 1)
}

fn nothing(_: &mut Vcpu, _: &Op) -> Flow {
    Ok(())
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Movnti if insn.i.op1_register().is_gpr64() => movnti::<u64>,
        Mnemonic::Movnti => movnti::<u32>,
        Mnemonic::Clflush => clflush,
        Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence => nothing,
        Mnemonic::Prefetchnta | Mnemonic::Prefetcht0 | Mnemonic::Prefetcht1 | Mnemonic::Prefetcht2 => nothing,
        Mnemonic::Prefetch | Mnemonic::Prefetchw | Mnemonic::Prefetchwt1 => nothing,
        _ => return None,
    })
}
