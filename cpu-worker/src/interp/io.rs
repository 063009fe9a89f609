//! IN, OUT, INS, OUTS (SDM vol. 1, chapter 19).
//!
//! A repeated INS or OUTS is handed to the bus in runs that stay within one page of memory, checked for
//! access before anything is transferred, so that a device behind a ring sees one message and not a thousand.

use iced_x86::Mnemonic;

use super::string::{DI, SI, overrun};
use crate::exec::{Exit, Flow, Handler, Insn, Int, Op, Reason, Vcpu, flag};
use crate::state::{Flag, gpr, seg};

impl Vcpu {
    /// Whether the program may access `size` ports from `port`: CPL against IOPL, then the bitmap of the TSS.
    pub(crate) fn check_io(&mut self, port: u16, size: u64) -> Flow {
        if !self.state.protected() || (!self.state.v86() && self.state.cpl <= self.state.flags.iopl()) {
            return Ok(());
        }
        let tr = self.state.segs[seg::TR];
        // Only a 32-bit (or 64-bit) TSS has a bitmap.
        if tr.attr.unusable() || tr.attr.kind() & 8 == 0 || tr.limit < 103 {
            return self.gp0();
        }
        let map = u64::from(self.load_system::<u16>(tr.base + 102)?);
        let at = map + u64::from(port) / 8;
        if at + 1 > u64::from(tr.limit) {
            return self.gp0();
        }
        let bits = self.load_system::<u16>(tr.base + at)?;
        let wanted = ((1u32 << size) - 1) << (port % 8);
        if u32::from(bits) & wanted != 0 {
            self.gp0()
        } else {
            Ok(())
        }
    }
}

fn port_of(cpu: &Vcpu, op: &Op) -> u16 {
    if op.extra == 0 {
        op.imm as u16 & 0xFF
    } else {
        cpu.reg::<u16>(gpr::RDX as u8 * 8)
    }
}

fn input<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let port = port_of(cpu, op);
    cpu.check_io(port, T::BYTES)?;
    if port == BACKDOOR && T::BYTES == 4 && cpu.reg::<u32>(gpr::RAX as u8 * 8) == BACKDOOR_MAGIC {
        backdoor(cpu);
        cpu.note_io(port, T::BYTES);
        return Ok(());
    }
    let v = cpu.bus.port_in(port, T::BYTES as u8);
    cpu.note_io(port, T::BYTES);
    cpu.set_gpr(gpr::RAX, T::trunc(u64::from(v)));
    Ok(())
}

/// Port of the VMware backdoor, and what EAX holds when an IN from it is a call.
const BACKDOOR: u16 = 0x5658;
const BACKDOOR_MAGIC: u32 = 0x564D_5868;

/// A call through the VMware backdoor: registers go to the device and come back, as two string operations on the port.
fn backdoor(cpu: &mut Vcpu) {
    const REGISTERS: [usize; 6] = [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX, gpr::RSI, gpr::RDI];
    let mut bytes = [0; 4 * REGISTERS.len()];
    for (to, register) in bytes.chunks_exact_mut(4).zip(REGISTERS) {
        to.copy_from_slice(&cpu.reg::<u32>(register as u8 * 8).to_le_bytes());
    }
    let effects = cpu.bus.port_out_string(BACKDOOR, 4, &bytes);
    cpu.apply(effects);
    cpu.bus.port_in_string(BACKDOOR, 4, &mut bytes);
    for (from, register) in bytes.chunks_exact(4).zip(REGISTERS) {
        cpu.set_gpr(register, from_bytes::<u32>(from));
    }
}

fn output<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let port = port_of(cpu, op);
    cpu.check_io(port, T::BYTES)?;
    let v = cpu.reg::<T>(0).to_u64() as u32;
    let effects = cpu.bus.port_out(port, T::BYTES as u8, v);
    cpu.note_io(port, T::BYTES);
    cpu.apply(effects);
    Ok(())
}

/// Elements that one message may carry: those of a page, going upwards.
fn elements<T: Int>(cpu: &Vcpu, op: &Op, offset: u64, segment: u8, left: u64) -> u64 {
    let down = cpu.state.flags.get(Flag::Df);
    let base = cpu.state.segs[segment as usize].base;
    let page = 4096 - (base.wrapping_add(offset) & 0xFFF);
    let wrap = (u64::MAX >> op.addr_shift) - offset;
    if down || page < T::BYTES || wrap < T::BYTES || cpu.reasons.contains(Reason::STEP) {
        return 1;
    }
    (page / T::BYTES).min(left).min(wrap / T::BYTES).max(1)
}

fn repeats(op: &Op) -> bool {
    op.has(flag::REP) || op.has(flag::REPNE)
}

fn ins<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let done = ins_run::<T>(cpu, op);
    if done == Err(Exit::Fault) && !repeats(op) {
        overrun::<T>(cpu, op, DI);
    }
    done
}

fn ins_run<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let port = cpu.reg::<u16>(gpr::RDX as u8 * 8);
    loop {
        let left = if repeats(op) {
            cpu.string_reg(gpr::RCX, op)
        } else {
            1
        };
        if left == 0 {
            return Ok(());
        }
        cpu.check_io(port, T::BYTES)?;
        let es = Vcpu::string_es(op);
        let offset = cpu.string_reg(gpr::RDI, op);
        let first = cpu.linear_write(es, offset, T::BYTES, op.has(flag::LONG))?;
        let mut n = elements::<T>(cpu, op, offset, es, left);
        if n > 1
            && cpu
                .linear_write(es, offset, n * T::BYTES, op.has(flag::LONG))
                .is_err()
        {
            n = 1;
        }
        cpu.probe_write(first, n * T::BYTES)?;
        let mut data = [0; 4096];
        let data = &mut data[..(n * T::BYTES) as usize];
        cpu.bus.port_in_string(port, T::BYTES as u8, data);
        for (i, element) in data.chunks_exact(T::BYTES as usize).enumerate() {
            cpu.store_linear(
                cpu.wrap_linear(first.wrapping_add(i as u64 * T::BYTES)),
                from_bytes::<T>(element),
            )?;
        }
        cpu.note_io(port, T::BYTES);
        let step = cpu.string_step::<T>().wrapping_mul(n);
        cpu.string_advance(gpr::RDI, step, op);
        if !repeats(op) {
            return Ok(());
        }
        cpu.set_gpr_addr(gpr::RCX, left - n, op.addr_shift);
        if left > n && (cpu.wants_attention() || cpu.block_ended()) {
            return cpu.interrupt_repeat(op);
        }
    }
}

fn outs<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let done = outs_run::<T>(cpu, op);
    if done == Err(Exit::Fault) && !repeats(op) {
        overrun::<T>(cpu, op, SI);
    }
    done
}

fn outs_run<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let port = cpu.reg::<u16>(gpr::RDX as u8 * 8);
    loop {
        let left = if repeats(op) {
            cpu.string_reg(gpr::RCX, op)
        } else {
            1
        };
        if left == 0 {
            return Ok(());
        }
        cpu.check_io(port, T::BYTES)?;
        let offset = cpu.string_reg(gpr::RSI, op);
        let first = cpu.linear_read(op.seg, offset, T::BYTES, op.has(flag::LONG))?;
        let mut n = elements::<T>(cpu, op, offset, op.seg, left);
        if n > 1
            && cpu
                .linear_read(op.seg, offset, n * T::BYTES, op.has(flag::LONG))
                .is_err()
        {
            n = 1;
        }
        let mut data = [0; 4096];
        let data = &mut data[..(n * T::BYTES) as usize];
        for (i, element) in data.chunks_exact_mut(T::BYTES as usize).enumerate() {
            let v = cpu.load_linear::<T>(cpu.wrap_linear(first.wrapping_add(i as u64 * T::BYTES)))?;
            element.copy_from_slice(&v.to_u64().to_le_bytes()[..T::BYTES as usize]);
        }
        let effects = cpu.bus.port_out_string(port, T::BYTES as u8, data);
        cpu.note_io(port, T::BYTES);
        let step = cpu.string_step::<T>().wrapping_mul(n);
        cpu.string_advance(gpr::RSI, step, op);
        cpu.apply(effects);
        if !repeats(op) {
            return Ok(());
        }
        cpu.set_gpr_addr(gpr::RCX, left - n, op.addr_shift);
        if left > n && (cpu.wants_attention() || cpu.block_ended()) {
            return cpu.interrupt_repeat(op);
        }
    }
}

fn from_bytes<T: Int>(bytes: &[u8]) -> T {
    T::trunc(bytes.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
}

/// Width in bytes of an IN or OUT, told by its accumulator operand.
fn width(insn: &Insn<'_>, accumulator: u32) -> usize {
    insn.i.op_register(accumulator).size()
}

macro_rules! io_width {
    ($bytes:expr, $f:ident) => {
        match $bytes {
            1 => $f::<u8> as Handler,
            2 => $f::<u16>,
            _ => $f::<u32>,
        }
    };
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let by_dx = |insn: &Insn<'_>, n| u16::from(insn.i.op_kind(n) == iced_x86::OpKind::Register);
    let handler = match insn.i.mnemonic() {
        Mnemonic::In => {
            insn.op.extra = by_dx(insn, 1);
            io_width!(width(insn, 0), input)
        }
        Mnemonic::Out => {
            insn.op.extra = by_dx(insn, 0);
            io_width!(width(insn, 1), output)
        }
        Mnemonic::Insb => ins::<u8>,
        Mnemonic::Insw => ins::<u16>,
        Mnemonic::Insd => ins::<u32>,
        Mnemonic::Outsb => outs::<u8>,
        Mnemonic::Outsw => outs::<u16>,
        Mnemonic::Outsd => outs::<u32>,
        _ => return None,
    };
    Some(handler)
}
