//! BT, BTS, BTR, BTC, BSF, BSR, POPCNT, CMPXCHG, CMPXCHG8B/16B, XADD, MOVBE, BOUND (SDM vol. 2).

use iced_x86::{Mnemonic, OpKind};

use super::alu::operand_bytes;
use super::by_width;
use crate::exec::{Flow, Handler, Insn, Int, Op, Vcpu, Vector, flag};
use crate::state::{Flag, gpr};

/// What BT and its relatives do to the bit they have tested.
trait BitOp {
    const WRITES: bool = true;
    fn exec(v: u64, mask: u64) -> u64;
}
struct Bt;
impl BitOp for Bt {
    const WRITES: bool = false;
    fn exec(v: u64, _: u64) -> u64 {
        v
    }
}
struct Bts;
impl BitOp for Bts {
    #[inline(always)]
    fn exec(v: u64, mask: u64) -> u64 {
        v | mask
    }
}
struct Btr;
impl BitOp for Btr {
    #[inline(always)]
    fn exec(v: u64, mask: u64) -> u64 {
        v & !mask
    }
}
struct Btc;
impl BitOp for Btc {
    #[inline(always)]
    fn exec(v: u64, mask: u64) -> u64 {
        v ^ mask
    }
}

/// Only CF is defined; the others are left alone, as on Intel silicon.
#[inline(always)]
fn test_bit<B: BitOp, T: Int>(cpu: &mut Vcpu, v: T, n: u64) -> T {
    let mask = 1u64 << (n % u64::from(T::BITS));
    cpu.state.flags.set(Flag::Cf, v.to_u64() & mask != 0);
    T::trunc(B::exec(v.to_u64(), mask))
}

fn bt_reg<B: BitOp, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let n = if op.extra == 0 {
        op.imm
    } else {
        cpu.reg::<T>(op.src).to_u64()
    };
    let v = cpu.reg::<T>(op.dst);
    let r = test_bit::<B, T>(cpu, v, n);
    if B::WRITES {
        cpu.set_reg(op.dst, r);
    }
    Ok(())
}

/// With a register as the bit's number, memory is a string of bits around the operand.
fn bt_mem<B: BitOp, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let mut o = *op;
    let n = if op.extra == 0 {
        op.imm
    } else {
        let n = cpu.reg::<T>(op.dst).sext() as i64;
        let bytes = (n >> T::BITS.trailing_zeros()).wrapping_mul(T::BYTES as i64);
        return bt_string::<B, T>(cpu, op, n as u64, bytes);
    };
    o.imm = n;
    if B::WRITES {
        cpu.modify::<T>(&o, |cpu, v| test_bit::<B, T>(cpu, v, n))
    } else {
        let v = cpu.load::<T>(&o)?;
        test_bit::<B, T>(cpu, v, n);
        Ok(())
    }
}

fn bt_string<B: BitOp, T: Int>(cpu: &mut Vcpu, op: &Op, n: u64, bytes: i64) -> Flow {
    let offset = cpu.ea(op).wrapping_add(bytes as u64) << op.addr_shift >> op.addr_shift;
    let long = op.has(flag::LONG);
    if B::WRITES {
        let linear = cpu.linear_write(op.seg, offset, T::BYTES, long)?;
        cpu.probe_write(linear, T::BYTES)?;
        let v = cpu.load_linear::<T>(linear)?;
        let r = test_bit::<B, T>(cpu, v, n);
        cpu.store_linear(linear, r)
    } else {
        let linear = cpu.linear_read(op.seg, offset, T::BYTES, long)?;
        let v = cpu.load_linear::<T>(linear)?;
        test_bit::<B, T>(cpu, v, n);
        Ok(())
    }
}

fn bit_test<B: BitOp>(insn: &mut Insn<'_>) -> Handler {
    let by_register = insn.i.op1_kind() == OpKind::Register;
    let bytes = if by_register {
        insn.i.op1_register().size()
    } else {
        operand_bytes(insn)
    };
    insn.op.extra = u16::from(by_register);
    if insn.op.has(flag::MEM) {
        by_width!(bytes, bt_mem, B)
    } else {
        by_width!(bytes, bt_reg, B)
    }
}

fn source<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<T, crate::exec::Exit> {
    if op.has(flag::MEM) {
        cpu.load(op)
    } else {
        Ok(cpu.reg(op.src))
    }
}

/// BSF (`UP`) and BSR. A source of zero leaves the destination alone, as silicon does.
fn scan<const UP: bool, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = source::<T>(cpu, op)?.to_u64();
    if v != 0 {
        let n = if UP {
            v.trailing_zeros()
        } else {
            63 - v.leading_zeros()
        };
        cpu.set_reg(op.dst, T::trunc(u64::from(n)));
    }
    cpu.state.flags.set(Flag::Zf, v == 0);
    Ok(())
}

fn popcnt<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = source::<T>(cpu, op)?.to_u64();
    let n = T::trunc(u64::from(v.count_ones()));
    cpu.set_reg(op.dst, n);
    cpu.state.flags.set_explicit(n, false, false, false);
    // Only ZF tells; PF and SF are clear.
    cpu.state.flags.set_arithmetic(if v == 0 { 0x40 } else { 0 });
    Ok(())
}

fn cmpxchg_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (acc, old) = (cpu.reg::<T>(0), cpu.reg::<T>(op.dst));
    let new = cpu.reg::<T>(op.src);
    cpu.state.flags.set_sub(acc, old, acc.sub(old));
    if acc == old {
        cpu.set_reg(op.dst, new);
    } else {
        cpu.set_gpr(gpr::RAX, old);
    }
    Ok(())
}

/// The destination is written in either case, so that it must be writable.
fn cmpxchg_mem<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let acc = cpu.reg::<T>(0);
    let new = cpu.reg::<T>(op.dst);
    let mut seen = acc;
    cpu.modify::<T>(op, |cpu, old| {
        seen = old;
        cpu.state.flags.set_sub(acc, old, acc.sub(old));
        if acc == old { new } else { old }
    })?;
    if seen != acc {
        cpu.set_gpr(gpr::RAX, seen);
    }
    Ok(())
}

fn cmpxchg8b(cpu: &mut Vcpu, op: &Op) -> Flow {
    let expected = u64::from(cpu.reg::<u32>(gpr::RDX as u8 * 8)) << 32 | u64::from(cpu.reg::<u32>(0));
    let new =
        u64::from(cpu.reg::<u32>(gpr::RCX as u8 * 8)) << 32 | u64::from(cpu.reg::<u32>(gpr::RBX as u8 * 8));
    let mut seen = expected;
    cpu.modify::<u64>(op, |_, old| {
        seen = old;
        if old == expected { new } else { old }
    })?;
    cpu.state.flags.set(Flag::Zf, seen == expected);
    if seen != expected {
        cpu.set_gpr(gpr::RAX, seen as u32);
        cpu.set_gpr(gpr::RDX, (seen >> 32) as u32);
    }
    Ok(())
}

fn cmpxchg16b(cpu: &mut Vcpu, op: &Op) -> Flow {
    let linear = cpu.operand_linear(op, 16, true)?;
    if !linear.is_multiple_of(16) {
        return cpu.gp0();
    }
    cpu.probe_write(linear, 16)?;
    let (low, high) = (
        cpu.load_linear::<u64>(linear)?,
        cpu.load_linear::<u64>(linear + 8)?,
    );
    let same = low == cpu.gpr(gpr::RAX) && high == cpu.gpr(gpr::RDX);
    let (new_low, new_high) = if same {
        (cpu.gpr(gpr::RBX), cpu.gpr(gpr::RCX))
    } else {
        (low, high)
    };
    cpu.store_linear(linear, new_low)?;
    cpu.store_linear(linear + 8, new_high)?;
    cpu.state.flags.set(Flag::Zf, same);
    if !same {
        cpu.state.regs[gpr::RAX] = low;
        cpu.state.regs[gpr::RDX] = high;
    }
    Ok(())
}

fn xadd_reg<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let (a, b) = (cpu.reg::<T>(op.dst), cpu.reg::<T>(op.src));
    let r = a.add(b);
    cpu.state.flags.set_add(a, b, r);
    cpu.set_reg(op.src, a);
    cpu.set_reg(op.dst, r);
    Ok(())
}

fn xadd_mem<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let b = cpu.reg::<T>(op.dst);
    let mut old = T::default();
    cpu.modify::<T>(op, |cpu, a| {
        old = a;
        let r = a.add(b);
        cpu.state.flags.set_add(a, b, r);
        r
    })?;
    cpu.set_reg(op.dst, old);
    Ok(())
}

fn swapped<T: Int>(v: T) -> T {
    T::trunc(v.to_u64().swap_bytes() >> (64 - T::BITS))
}

fn movbe_load<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = cpu.load::<T>(op)?;
    cpu.set_reg(op.dst, swapped(v));
    Ok(())
}

fn movbe_store<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let v = swapped(cpu.reg::<T>(op.dst));
    cpu.store(op, v)
}

fn bound<T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let linear = cpu.operand_linear(op, 2 * T::BYTES, false)?;
    let low = cpu.load_linear::<T>(linear)?.sext() as i64;
    let second = cpu.wrap_linear(linear + T::BYTES);
    let high = cpu.load_linear::<T>(second)?.sext() as i64;
    let v = cpu.reg::<T>(op.dst).sext() as i64;
    if v < low || v > high {
        cpu.raise(Vector::Br)
    } else {
        Ok(())
    }
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    let bytes = operand_bytes(insn);
    let memory = insn.op.has(flag::MEM);
    Some(match insn.i.mnemonic() {
        Mnemonic::Bt => bit_test::<Bt>(insn),
        Mnemonic::Bts => bit_test::<Bts>(insn),
        Mnemonic::Btr => bit_test::<Btr>(insn),
        Mnemonic::Btc => bit_test::<Btc>(insn),
        // Without BMI1 and LZCNT, which no model has, TZCNT and LZCNT are BSF and BSR with a prefix that means nothing.
        Mnemonic::Bsf | Mnemonic::Tzcnt => match bytes {
            2 => scan::<true, u16>,
            4 => scan::<true, u32>,
            _ => scan::<true, u64>,
        },
        Mnemonic::Bsr | Mnemonic::Lzcnt => match bytes {
            2 => scan::<false, u16>,
            4 => scan::<false, u32>,
            _ => scan::<false, u64>,
        },
        Mnemonic::Popcnt => by_width!(bytes, popcnt),
        Mnemonic::Cmpxchg if memory => by_width!(bytes, cmpxchg_mem),
        Mnemonic::Cmpxchg => by_width!(bytes, cmpxchg_reg),
        Mnemonic::Cmpxchg8b => cmpxchg8b,
        Mnemonic::Cmpxchg16b => cmpxchg16b,
        Mnemonic::Xadd if memory => by_width!(bytes, xadd_mem),
        Mnemonic::Xadd => by_width!(bytes, xadd_reg),
        Mnemonic::Movbe if insn.i.op0_kind() == OpKind::Memory => {
            by_width!(insn.i.op1_register().size(), movbe_store)
        }
        Mnemonic::Movbe => by_width!(bytes, movbe_load),
        Mnemonic::Bound => by_width!(insn.i.op0_register().size(), bound),
        _ => return None,
    })
}
