//! MOVS, CMPS, STOS, LODS, SCAS with their repetitions (SDM vol. 2).
//!
//! A repeated instruction works in runs that stay within a page of both operands. MOVS and STOS on plain RAM
//! move a whole run by host pointer; everything else goes element by element. Between runs the
//! instruction can be interrupted: registers say how far it got and rIP still points at it.
#![allow(unsafe_code, reason = "runs are copied between TLB-checked host pointers")]

use iced_x86::Mnemonic;

use super::by_width;
use crate::exec::{Exit, Flow, Handler, Insn, Int, Op, Reason, Vcpu, Vector, flag};
use crate::state::{Flag, gpr, seg};

impl Vcpu {
    /// Leaves a repeated instruction in its middle so that interrupts and traps can be seen: it is executed again
    /// afterwards.
    pub(crate) fn interrupt_repeat(&mut self, op: &Op) -> Flow {
        let rip = self.rip().wrapping_sub(u64::from(op.len));
        self.set_rip(rip);
        self.set_resume();
        Err(Exit::EndBlock)
    }

    /// Whether a repeated instruction should stop between elements.
    #[inline]
    pub(crate) fn wants_attention(&self) -> bool {
        self.exit_word.is_set() || self.reasons.intersects(Reason::STEP | Reason::STOP)
    }

    /// How far the index registers move for each element of `T`.
    #[inline(always)]
    pub(crate) fn string_step<T: Int>(&self) -> u64 {
        if self.state.flags.get(Flag::Df) {
            T::BYTES.wrapping_neg()
        } else {
            T::BYTES
        }
    }

    /// rCX, rSI or rDI under the address size of `op`.
    #[inline(always)]
    pub(crate) fn string_reg(&self, n: usize, op: &Op) -> u64 {
        self.gpr(n) << op.addr_shift >> op.addr_shift
    }

    /// Advances rSI or rDI.
    #[inline(always)]
    pub(crate) fn string_advance(&mut self, n: usize, by: u64, op: &Op) {
        let v = self.gpr(n).wrapping_add(by);
        self.set_gpr_addr(n, v, op.addr_shift);
    }

    /// The segment of ES:rDI.
    #[inline(always)]
    pub(crate) fn string_es(op: &Op) -> u8 {
        (if op.has(flag::LONG) { seg::FLAT } else { seg::ES }) as u8
    }
}

/// Index registers in the order in which an element is accessed through them.
pub(super) type Order = &'static [usize];
pub(super) const SI: Order = &[gpr::RSI];
pub(super) const DI: Order = &[gpr::RDI];
const SI_DI: Order = &[gpr::RSI, gpr::RDI];
const DI_SI: Order = &[gpr::RDI, gpr::RSI];

/// One element; answers whether a REPE or REPNE goes on.
trait Element {
    const COMPARES: bool = false;
    /// See [`overrun`].
    const ORDER: Order;
    fn exec<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<(), Exit>;
    /// Moves as many as it can at once, at most `count`; how many it did, 0 when it cannot.
    fn run<T: Int>(_cpu: &mut Vcpu, _op: &Op, _count: u64) -> u64 {
        0
    }
}

fn source<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<T, Exit> {
    let offset = cpu.string_reg(gpr::RSI, op);
    let linear = cpu.linear_read(op.seg, offset, T::BYTES, op.has(flag::LONG))?;
    cpu.load_linear(linear)
}

fn destination<T: Int>(cpu: &mut Vcpu, op: &Op, write: bool) -> Result<u64, Exit> {
    let offset = cpu.string_reg(gpr::RDI, op);
    let es = Vcpu::string_es(op);
    if write {
        cpu.linear_write(es, offset, T::BYTES, op.has(flag::LONG))
    } else {
        cpu.linear_read(es, offset, T::BYTES, op.has(flag::LONG))
    }
}

/// Bytes from `offset` to the end of what can go in one run: the page, the address size, the segment.
fn room(cpu: &Vcpu, segment: u8, offset: u64, op: &Op, write: bool) -> u64 {
    let wrap = (u64::MAX >> op.addr_shift) - offset;
    let s = &cpu.state.segs[segment as usize];
    let bound = if op.has(flag::LONG) {
        u64::MAX
    } else {
        let bounds = if write { s.write } else { s.read };
        if offset < u64::from(bounds.low) {
            return 0;
        }
        u64::from(bounds.high).saturating_add(1).saturating_sub(offset)
    };
    let page = 4096 - (s.base.wrapping_add(offset) & 0xFFF);
    page.min(bound).min(wrap.saturating_add(1))
}

struct Movs;
impl Element for Movs {
    const ORDER: Order = SI_DI;
    #[inline(always)]
    fn exec<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<(), Exit> {
        let v = source::<T>(cpu, op)?;
        let to = destination::<T>(cpu, op, true)?;
        cpu.store_linear(to, v)?;
        let step = cpu.string_step::<T>();
        cpu.string_advance(gpr::RSI, step, op);
        cpu.string_advance(gpr::RDI, step, op);
        Ok(())
    }

    fn run<T: Int>(cpu: &mut Vcpu, op: &Op, count: u64) -> u64 {
        if cpu.state.flags.get(Flag::Df) {
            return 0;
        }
        let (si, di) = (cpu.string_reg(gpr::RSI, op), cpu.string_reg(gpr::RDI, op));
        let es = Vcpu::string_es(op);
        let bytes = room(cpu, op.seg, si, op, false).min(room(cpu, es, di, op, true));
        let n = (bytes / T::BYTES).min(count);
        let len = n * T::BYTES;
        let wrap = |v: u64| if op.has(flag::LONG) { v } else { v & 0xFFFF_FFFF };
        let from = wrap(cpu.state.segs[op.seg as usize].base.wrapping_add(si));
        let to = wrap(cpu.state.segs[es as usize].base.wrapping_add(di));
        let (Some(src), Some(dst)) = (cpu.ram_run(from, len, false), cpu.ram_run(to, len, true)) else {
            return 0;
        };
        let ahead = (dst as u64).wrapping_sub(src as u64);
        if ahead != 0 && ahead < len {
            // The destination begins inside the source: elements must be copied one after another.
            return 0;
        }
        // SAFETY: both runs were checked by the TLB to be mapped RAM within their pages, the second writable;
        // a destination below the source overlaps forwards only, which an ascending copy handles.
        unsafe { crate::mmu::copy_up(src, dst, len as usize) };
        cpu.string_advance(gpr::RSI, len, op);
        cpu.string_advance(gpr::RDI, len, op);
        n
    }
}

struct Stos;
impl Element for Stos {
    const ORDER: Order = DI;
    #[inline(always)]
    fn exec<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<(), Exit> {
        let to = destination::<T>(cpu, op, true)?;
        let v = cpu.reg::<T>(0);
        cpu.store_linear(to, v)?;
        let step = cpu.string_step::<T>();
        cpu.string_advance(gpr::RDI, step, op);
        Ok(())
    }

    fn run<T: Int>(cpu: &mut Vcpu, op: &Op, count: u64) -> u64 {
        if cpu.state.flags.get(Flag::Df) {
            return 0;
        }
        let di = cpu.string_reg(gpr::RDI, op);
        let es = Vcpu::string_es(op);
        let n = (room(cpu, es, di, op, true) / T::BYTES).min(count);
        let base = cpu.state.segs[es as usize].base;
        let to = base.wrapping_add(di);
        let to = if op.has(flag::LONG) { to } else { to & 0xFFFF_FFFF };
        let Some(dst) = cpu.ram_run(to, n * T::BYTES, true) else {
            return 0;
        };
        let v = cpu.reg::<T>(0);
        // SAFETY: the run was checked by the TLB to be mapped, writable RAM within its page.
        unsafe { crate::mmu::fill(dst, v, n as usize) };
        cpu.string_advance(gpr::RDI, n * T::BYTES, op);
        n
    }
}

struct Lods;
impl Element for Lods {
    const ORDER: Order = SI;
    #[inline(always)]
    fn exec<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<(), Exit> {
        let v = source::<T>(cpu, op)?;
        cpu.set_gpr(gpr::RAX, v);
        let step = cpu.string_step::<T>();
        cpu.string_advance(gpr::RSI, step, op);
        Ok(())
    }
}

struct Cmps;
impl Element for Cmps {
    const COMPARES: bool = true;
    const ORDER: Order = DI_SI;
    #[inline(always)]
    fn exec<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<(), Exit> {
        let a = source::<T>(cpu, op)?;
        let at = destination::<T>(cpu, op, false)?;
        let b = cpu.load_linear::<T>(at)?;
        cpu.state.flags.set_sub(a, b, a.sub(b));
        let step = cpu.string_step::<T>();
        cpu.string_advance(gpr::RSI, step, op);
        cpu.string_advance(gpr::RDI, step, op);
        Ok(())
    }
}

struct Scas;
impl Element for Scas {
    const COMPARES: bool = true;
    const ORDER: Order = DI;
    #[inline(always)]
    fn exec<T: Int>(cpu: &mut Vcpu, op: &Op) -> Result<(), Exit> {
        let at = destination::<T>(cpu, op, false)?;
        let b = cpu.load_linear::<T>(at)?;
        let a = cpu.reg::<T>(0);
        cpu.state.flags.set_sub(a, b, a.sub(b));
        let step = cpu.string_step::<T>();
        cpu.string_advance(gpr::RDI, step, op);
        Ok(())
    }
}

/// In real mode an element that passes the end of its segment leaves the index registers advanced, up to the one
/// whose access failed, as the captures of real silicon show. (In protected mode a fault restores everything.)
#[cold]
pub(super) fn overrun<T: Int>(cpu: &mut Vcpu, op: &Op, order: Order) {
    if cpu.state.protected() || !matches!(cpu.pending_fault.vector, Vector::Gp | Vector::Ss) {
        return;
    }
    let step = cpu.string_step::<T>();
    for &register in order {
        let offset = cpu.string_reg(register, op);
        let segment = if register == gpr::RSI {
            op.seg
        } else {
            Vcpu::string_es(op)
        };
        let inside = cpu.state.segs[segment as usize].read.contain(offset, T::BYTES);
        cpu.string_advance(register, step, op);
        if !inside {
            break;
        }
    }
}

fn once<E: Element, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let done = E::exec::<T>(cpu, op);
    if done.is_err() {
        overrun::<T>(cpu, op, E::ORDER);
    }
    done
}

/// Elements between two looks at the exit word.
const BURST: u32 = 256;

fn repeated<E: Element, T: Int>(cpu: &mut Vcpu, op: &Op) -> Flow {
    let mut burst = 0;
    loop {
        let left = cpu.string_reg(gpr::RCX, op);
        if left == 0 {
            return Ok(());
        }
        let stepping = cpu.reasons.contains(Reason::STEP);
        let done = if stepping { 0 } else { E::run::<T>(cpu, op, left) };
        if done != 0 {
            cpu.set_gpr_addr(gpr::RCX, left - done, op.addr_shift);
            burst += BURST / 8;
        } else {
            E::exec::<T>(cpu, op)?;
            cpu.set_gpr_addr(gpr::RCX, left - 1, op.addr_shift);
            burst += 1;
            if E::COMPARES && cpu.state.flags.zf() != op.has(flag::REP) {
                return Ok(());
            }
            if cpu.block_ended() && left > 1 {
                // The store hit decoded code, perhaps this very instruction.
                return cpu.interrupt_repeat(op);
            }
        }
        if (burst >= BURST || stepping) && cpu.string_reg(gpr::RCX, op) != 0 {
            burst = 0;
            if cpu.wants_attention() {
                return cpu.interrupt_repeat(op);
            }
        }
    }
}

fn string<E: Element>(insn: &Insn<'_>, bytes: usize) -> Handler {
    if insn.op.has(flag::REP) || insn.op.has(flag::REPNE) {
        by_width!(bytes, repeated, E)
    } else {
        by_width!(bytes, once, E)
    }
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    if !insn.i.is_string_instruction() {
        return None;
    }
    Some(match insn.i.mnemonic() {
        Mnemonic::Movsb => string::<Movs>(insn, 1),
        Mnemonic::Movsw => string::<Movs>(insn, 2),
        Mnemonic::Movsd => string::<Movs>(insn, 4),
        Mnemonic::Movsq => string::<Movs>(insn, 8),
        Mnemonic::Cmpsb => string::<Cmps>(insn, 1),
        Mnemonic::Cmpsw => string::<Cmps>(insn, 2),
        Mnemonic::Cmpsd => string::<Cmps>(insn, 4),
        Mnemonic::Cmpsq => string::<Cmps>(insn, 8),
        Mnemonic::Stosb => string::<Stos>(insn, 1),
        Mnemonic::Stosw => string::<Stos>(insn, 2),
        Mnemonic::Stosd => string::<Stos>(insn, 4),
        Mnemonic::Stosq => string::<Stos>(insn, 8),
        Mnemonic::Lodsb => string::<Lods>(insn, 1),
        Mnemonic::Lodsw => string::<Lods>(insn, 2),
        Mnemonic::Lodsd => string::<Lods>(insn, 4),
        Mnemonic::Lodsq => string::<Lods>(insn, 8),
        Mnemonic::Scasb => string::<Scas>(insn, 1),
        Mnemonic::Scasw => string::<Scas>(insn, 2),
        Mnemonic::Scasd => string::<Scas>(insn, 4),
        Mnemonic::Scasq => string::<Scas>(insn, 8),
        _ => return None,
    })
}
