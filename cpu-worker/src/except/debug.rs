//! Debug registers and single-step (SDM vol. 3, chapter 17).
//!
//! While a trap is possible ([`armed`] or TF set) the vCPU executes instruction by instruction
//! ([`Vcpu::step`]) and data accesses have no TLB tags, so that each passes [`Vcpu::check_watch`]; otherwise nothing
//! here costs anything. What an instruction has hit gathers in `debug_hits`; after it, [`Vcpu::after_step`] makes a trap
//! of that. RF works as in silicon: the start of an instruction clears it, and an interrupted REP sets it, so that
//! whatever comes between two iterations pushes it and the breakpoint at the instruction is not met again.

use crate::exec::{Flow, Reason, Vcpu, Vector};
use crate::mmu::Access;
use crate::state::{CpuState, Cr4, Flag, Shadow, seg};

/// DR6.B0–B3: breakpoint conditions met.
const HITS: u64 = 0xF;
/// DR6.BD: an access to the debug registers while DR7.GD was set.
pub(crate) const BD: u64 = 1 << 13;
/// DR6.BS: single-step.
pub(crate) const BS: u64 = 1 << 14;
/// DR6.BT: switch to a task whose TSS has T set.
pub(crate) const BT: u64 = 1 << 15;
/// DR7.GD: the next access to a debug register raises #DB.
pub(crate) const GD: u64 = 1 << 13;
/// DEBUGCTL.BTF: TF traps after taken branches only.
const BTF: u64 = 2;

/// What a breakpoint waits for, as DR7.R/W has it.
const EXECUTE: u64 = 0;
const WRITE: u64 = 1;
const IO: u64 = 2;
const READ_WRITE: u64 = 3;

/// What the breakpoints enabled in DR7 wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Armed {
    /// Reads or writes of memory.
    pub data: bool,
    /// Execution, or I/O while CR4.DE is set.
    pub other: bool,
}

/// One enabled breakpoint: its number, address, R/W and length in bytes.
struct Breakpoint {
    bit: u64,
    address: u64,
    kind: u64,
    len: u64,
}

impl Breakpoint {
    /// Whether `len` bytes from `at` touch what it watches; its address counts in units of its length.
    fn touched(&self, at: u64, len: u64, mask: u64) -> bool {
        let first = self.address & !(self.len - 1);
        at.wrapping_sub(first) & mask < self.len || first.wrapping_sub(at) & mask < len
    }
}

fn breakpoints(s: &CpuState) -> impl Iterator<Item = Breakpoint> {
    let (dr7, dr) = (s.dr[7], [s.dr[0], s.dr[1], s.dr[2], s.dr[3]]);
    (0..4)
        .filter(move |n| dr7 >> (2 * n) & 3 != 0)
        .map(move |n| Breakpoint {
            bit: 1 << n,
            address: dr[n],
            kind: dr7 >> (16 + 4 * n) & 3,
            len: [1, 2, 8, 4][(dr7 >> (18 + 4 * n) & 3) as usize],
        })
}

/// What can trap in this state.
pub(crate) fn armed(s: &CpuState) -> Armed {
    let mut armed = Armed::default();
    if s.dr[7] & 0xFF != 0 {
        for b in breakpoints(s) {
            match b.kind {
                WRITE | READ_WRITE => armed.data = true,
                IO => armed.other |= s.cr4.contains(Cr4::DE),
                _ => armed.other = true,
            }
        }
    }
    armed
}

impl Vcpu {
    /// Before an instruction that is executed by itself: TF, if it is set now, will trap.
    pub(crate) fn before_step(&mut self) {
        if self.state.flags.get(Flag::Tf) {
            self.debug_hits |= BS;
        }
    }

    /// Raises #DB when an instruction breakpoint lies at CS:rIP.
    pub(crate) fn check_instruction_breakpoint(&mut self) -> Flow {
        let s = &self.state;
        if s.dr[7] & 0xFF == 0 || s.flags.get(Flag::Rf) || s.shadow == Shadow::MovSs {
            return Ok(());
        }
        let linear = self.wrap_linear(s.segs[seg::CS].base.wrapping_add(s.rip()));
        let hits = breakpoints(s)
            .filter(|b| b.kind == EXECUTE && self.wrap_linear(b.address) == linear)
            .fold(0, |hits, b| hits | b.bit);
        if hits == 0 {
            return Ok(());
        }
        self.debug_fault(hits)
    }

    /// Raises #DB as a fault, with `bits` for DR6.
    pub(crate) fn debug_fault(&mut self, bits: u64) -> Flow {
        let fault = self.raise(Vector::Db);
        self.pending_fault.info = bits;
        fault
    }

    /// The start of an instruction that is executed by itself, past its breakpoints: RF has served.
    pub(crate) fn clear_resume(&mut self) {
        if self.state.flags.get(Flag::Rf) {
            self.state.flags.set(Flag::Rf, false);
            self.refresh_mode();
        }
    }

    /// A repeated instruction stops between two iterations.
    pub(crate) fn set_resume(&mut self) {
        self.state.flags.set(Flag::Rf, true);
        self.refresh_mode();
    }

    /// Notes hits of data breakpoints.
    #[inline]
    pub(crate) fn check_watch(&mut self, linear: u64, len: usize, access: Access) {
        if self.watching {
            self.note_watch(linear, len as u64, access);
        }
        if self.is_spied() {
            self.note_spied(linear, len as u64, access);
        }
    }

    #[cold]
    fn note_watch(&mut self, linear: u64, len: u64, access: Access) {
        let mask = self.wrap_linear(u64::MAX);
        let hits = breakpoints(&self.state)
            .filter(|b| b.kind == READ_WRITE || b.kind == WRITE && access == Access::Write)
            .filter(|b| b.touched(linear, len, mask))
            .fold(0, |hits, b| hits | b.bit);
        self.debug_hits |= hits;
    }

    /// Notes a hit of an I/O breakpoint on `size` ports from `port`.
    #[inline]
    pub(crate) fn note_io(&mut self, port: u16, size: u64) {
        if self.state.dr[7] & 0xFF != 0 && self.state.cr4.contains(Cr4::DE) {
            let hits = breakpoints(&self.state)
                .filter(|b| b.kind == IO && b.touched(u64::from(port), size, u64::MAX))
                .fold(0, |hits, b| hits | b.bit);
            self.debug_hits |= hits;
        }
    }

    /// SYSCALL and SYSRET single-step by the TF that they set, not by the one they began with.
    pub(crate) fn step_by_new_flags(&mut self) {
        self.debug_hits &= !BS;
        if self.state.flags.get(Flag::Tf) {
            self.debug_hits |= BS;
            self.reasons |= Reason::DEBUG_TRAP;
        }
    }

    /// A fault ends its instruction: what that has hit does not count.
    pub(crate) fn forget_hits(&mut self) {
        self.debug_hits = 0;
        self.forget_held_access();
    }

    /// The delivery of an event clears TF: the instruction that caused it does not single-step.
    pub(crate) fn forget_single_step(&mut self) {
        self.debug_hits &= !BS;
    }

    /// After an instruction executed by itself; `next` is where it would have gone on without a branch.
    pub(crate) fn after_step(&mut self, next: Option<u64>) {
        if self.state.msrs.debug_ctl & BTF != 0 && next == Some(self.rip()) {
            self.debug_hits &= !BS;
        }
        if self.state.shadow == Shadow::MovSs && self.reasons.contains(Reason::SHADOW) {
            // MOV SS or POP SS: its single-step is lost, its data breakpoints wait for the next instruction.
            self.held_hits |= self.debug_hits & HITS;
            self.debug_hits = 0;
        } else {
            self.debug_hits |= core::mem::take(&mut self.held_hits);
        }
        self.arm_debug_trap();
    }

    /// Asks for the trap of what has been hit.
    pub(crate) fn arm_debug_trap(&mut self) {
        self.reasons.set(Reason::DEBUG_TRAP, self.debug_hits != 0);
    }

    /// Takes `bits` into DR6 as #DB is about to be delivered.
    pub(super) fn enter_debug(&mut self, bits: u64) {
        let s = &mut self.state;
        // Only software clears the others.
        s.dr[6] = s.dr[6] & !HITS | bits;
        s.dr[7] &= !GD;
        s.msrs.debug_ctl &= !BTF;
    }
}
