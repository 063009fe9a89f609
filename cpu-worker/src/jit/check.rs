//! `--check-jit`: every block by the interpreter and by its translation, compared before either counts.
//!
//! The interpreter goes first, from a copy of the state and with a record of each of its stores; then everything is put
//! back, the translation executes, and both outcomes are compared. Blocks with ops that translated code hands to
//! their handlers anyway are not compared, nor is a block that turns out to touch a device or to change decoded code: what
//! has such effects cannot be done twice, so the interpreter's outcome stands.
#![allow(unsafe_code, reason = "the ops of a block are read by raw pointer")]

use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions, Formatter as _, IntelFormatter, Mnemonic, RflagsBits};

use super::{Left, hands_over};
use crate::exec::{Exit, Fault, Jump, Op, Vcpu};
use crate::mmu::{Access, PhysMemory, TlbIndex};
use crate::state::{CpuState, Flag, RIP};

/// Places in RAM that a report shows.
const SHOWN: usize = 8;

/// Up to eight bytes of RAM: address, how many, what they were.
type Store = (u64, usize, u64);

/// What a block did to memory, while it is tried.
#[derive(Debug, Default)]
pub struct Trial {
    /// Whether a block is being tried.
    pub active: bool,
    /// Whether it touched what cannot be undone.
    pub device: bool,
    stores: Vec<Store>,
    /// Linear addresses that were translated for writing.
    written: Vec<(u64, TlbIndex)>,
    /// Blocks compared so far.
    pub compared: u64,
}

fn read(mem: &PhysMemory, at: u64, len: usize) -> u64 {
    (0..len).fold(0, |v, i| v | u64::from(mem.read::<u8>(at + i as u64)) << (8 * i))
}

impl Trial {
    /// RAM from `at` is about to be written.
    pub(crate) fn before_write(&mut self, mem: &PhysMemory, at: u64, len: usize) {
        if self.active {
            self.stores.push((at, len, read(mem, at, len)));
        }
    }

    /// A store to `linear` was found to be allowed.
    pub(crate) fn written_to(&mut self, linear: u64, index: TlbIndex) {
        self.written.push((linear, index));
    }
}

/// How a block ended.
type End = (Option<(Exit, u8)>, Option<Fault>);

impl Vcpu {
    /// Executes the block behind `jump` by the interpreter and by its translation `native`.
    ///
    /// # Panics
    /// When they differ, with a report.
    pub(crate) fn run_both(&mut self, jump: &Jump, native: u64) -> Left {
        // SAFETY: first and end bound the ops of one block in the arena.
        let ops =
            unsafe { core::slice::from_raw_parts(jump.first, jump.end.offset_from(jump.first) as usize) };
        if ops.iter().any(hands_over) {
            return self.run_native(native);
        }
        let before = self.state.clone();
        let reasons = self.reasons;
        self.tlb.forget_writes();
        if let Some(trial) = &mut self.trial {
            trial.active = true;
            trial.device = false;
        }
        let first = self.by_interpreter(ops);
        let trial = self.trial.as_mut().expect("this is a trial");
        trial.active = false;
        let stores = core::mem::take(&mut trial.stores);
        let written = core::mem::take(&mut trial.written);
        // A repeated instruction that was interrupted is not at the same place a second time.
        let apart = matches!(first.0, Some((Exit::Stale | Exit::EndBlock, _)));
        if trial.device || self.reasons != reasons || apart {
            return outcome(&first);
        }
        trial.compared += 1;
        let after: Vec<u64> = stores
            .iter()
            .map(|&(at, len, _)| read(&self.mem, at, len))
            .collect();
        for &(at, len, old) in stores.iter().rev() {
            for i in 0..len {
                self.mem.write(at + i as u64, (old >> (8 * i)) as u8);
            }
        }
        let expected = core::mem::replace(&mut self.state, before.clone());
        // What is cached of the mode is the interpreted block's, and that may have unmasked an exception.
        self.refresh_mode();
        // Without this each store of the translation would be left to the handler that the interpreter used.
        for (linear, index) in written {
            let _ = self.translate(linear, Access::Write, index);
        }
        self.state.cr2 = before.cr2;
        let left = self.run_native(native);
        let mut second: End = match left {
            Left::Exit(exit, len) => (Some((exit, len)), fault_of(self, exit)),
            Left::Link(_) => (None, None),
            // Translated code may be left in the middle: a handler had entries dropped that it may have pointers from.
            Left::Next if self.state.regs[RIP] != expected.regs[RIP] => match self.rest(&before, ops) {
                [] => (None, None),
                rest => self.by_interpreter(rest),
            },
            Left::Next => (None, None),
        };
        while matches!(second.0, Some((Exit::EndBlock, _))) {
            // Set by the interruption, and cleared by the instruction that it is for.
            self.clear_resume();
            second = self.by_interpreter(self.rest(&before, ops));
        }
        if let Left::Link(n) = left {
            let target = self.jit.as_ref().map_or(0, |j| j.link_target(n));
            self.state.regs[RIP] = target;
        }
        let mut report = differences(&expected, &self.state, 0);
        if !report.is_empty() {
            // What is undefined takes longer to find out than the block to execute.
            let fault = first.1.map(|_| expected.regs[RIP]);
            let undefined = self.undefined(&before, ops, fault);
            report = differences(&expected, &self.state, undefined);
        }
        if first != second {
            let _ = writeln!(report, "end: {first:x?} interpreted, {second:x?} translated");
        }
        let mut apart = 0;
        for (&(at, len, _), a) in stores.iter().zip(after) {
            let b = read(&self.mem, at, len);
            if a != b {
                apart += 1;
                if apart <= SHOWN {
                    let _ = writeln!(report, "RAM {at:#x}: {a:#x} interpreted, {b:#x} translated");
                }
            }
        }
        if apart > SHOWN {
            let _ = writeln!(report, "and {} other places in RAM", apart - SHOWN);
        }
        if !report.is_empty() {
            panic!(
                "Translation and interpretation differ:\n{report}{}Before:\n{}",
                self.listing(&before, ops),
                registers(&before)
            );
        }
        outcome(&second)
    }

    /// The ops from rIP on; none, if it lies outside the block, which was at rIP in `before`.
    fn rest<'a>(&self, before: &CpuState, ops: &'a [Op]) -> &'a [Op] {
        let mut at = before.regs[RIP];
        for (n, op) in ops.iter().enumerate() {
            if at == self.state.regs[RIP] {
                return &ops[n..];
            }
            at = at.wrapping_add(u64::from(op.len));
        }
        &[]
    }

    fn by_interpreter(&mut self, ops: &[Op]) -> End {
        self.begin_block();
        let mode = self.mode_key();
        for op in ops {
            self.state.regs[RIP] = self.state.regs[RIP].wrapping_add(u64::from(op.len));
            if let Err(exit) = (op.handler)(self, op) {
                return (Some((exit, op.len)), fault_of(self, exit));
            }
            // Translated code goes no further than its mode.
            if self.block_ended() || self.mode_key() != mode {
                break;
            }
        }
        (None, None)
    }

    /// The flags that are undefined after the block, where silicon and interpreter may differ; `fault` is rIP behind an
    /// instruction that faulted and so changed none. (AF after logical instructions is clear in both.)
    fn undefined(&mut self, before: &CpuState, ops: &[Op], fault: Option<u64>) -> u64 {
        let bytes = self.bytes(before, ops);
        let mut undefined = 0;
        let (bits, rip) = (self.code_size.bits(), before.regs[RIP]);
        for i in &mut Decoder::with_ip(bits, &bytes, rip, DecoderOptions::NONE) {
            if fault == Some(i.next_ip()) {
                break;
            }
            let i = super::plain::as_executed(&i);
            let logic = matches!(
                i.mnemonic(),
                Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test
            );
            let now = if logic { 0 } else { i.rflags_undefined() };
            undefined = undefined & !i.rflags_modified() | now;
        }
        [
            (RflagsBits::OF, Flag::Of),
            (RflagsBits::SF, Flag::Sf),
            (RflagsBits::ZF, Flag::Zf),
            (RflagsBits::AF, Flag::Af),
            (RflagsBits::PF, Flag::Pf),
            (RflagsBits::CF, Flag::Cf),
        ]
        .iter()
        .filter(|(bit, _)| undefined & bit != 0)
        .fold(0, |all, (_, flag)| all | 1 << *flag as u8)
    }

    /// The block's bytes.
    fn bytes(&mut self, before: &CpuState, ops: &[Op]) -> Vec<u8> {
        let now = core::mem::replace(&mut self.state, before.clone());
        let len: usize = ops.iter().map(|op| usize::from(op.len)).sum();
        let bytes = match self.fetch_linear().and_then(|l| self.translate_code(l)) {
            Ok((at, Some(_))) => (0..len as u64).map(|i| self.mem.read::<u8>(at + i)).collect(),
            _ => Vec::new(),
        };
        self.state = now;
        bytes
    }

    fn listing(&mut self, before: &CpuState, ops: &[Op]) -> String {
        let rip = before.regs[RIP];
        let bytes = self.bytes(before, ops);
        let bits = self.code_size.bits();
        let mut text = String::new();
        let mut formatter = IntelFormatter::new();
        for i in &mut Decoder::with_ip(bits, &bytes, rip, DecoderOptions::NONE) {
            let _ = write!(text, "  {:016x}  ", i.ip());
            formatter.format(&i, &mut text);
            text.push('\n');
        }
        text
    }
}

fn outcome(end: &End) -> Left {
    match end.0 {
        Some((exit, len)) => Left::Exit(exit, len),
        None => Left::Next,
    }
}

fn fault_of(cpu: &Vcpu, exit: Exit) -> Option<Fault> {
    matches!(exit, Exit::Fault | Exit::FaultHere).then_some(cpu.pending_fault)
}

fn differences(a: &CpuState, b: &CpuState, undefined: u64) -> String {
    let mut out = String::new();
    for n in 0..=RIP {
        if a.regs[n] != b.regs[n] {
            let _ = writeln!(
                out,
                "register {n}: {:#x} interpreted, {:#x} translated",
                a.regs[n], b.regs[n]
            );
        }
    }
    if (a.flags.bits() ^ b.flags.bits()) & !undefined != 0 {
        let _ = writeln!(
            out,
            "flags: {:#x} interpreted, {:#x} translated",
            a.flags.bits(),
            b.flags.bits()
        );
    }
    for n in 0..16 {
        if a.xmm[n].quads != b.xmm[n].quads {
            let _ = writeln!(
                out,
                "xmm{n}: {:x?} interpreted, {:x?} translated",
                a.xmm[n].quads, b.xmm[n].quads
            );
        }
    }
    if a.mxcsr != b.mxcsr {
        let _ = writeln!(
            out,
            "MXCSR: {:#x} interpreted, {:#x} translated",
            a.mxcsr, b.mxcsr
        );
    }
    if a.fpu != b.fpu {
        let _ = writeln!(
            out,
            "x87: {:x?} interpreted,\n     {:x?} translated",
            a.fpu, b.fpu
        );
    }
    if a.cr2 != b.cr2 {
        let _ = writeln!(out, "CR2: {:#x} interpreted, {:#x} translated", a.cr2, b.cr2);
    }
    out
}

fn registers(s: &CpuState) -> String {
    let mut out = String::new();
    for (n, v) in s.regs[..16].iter().enumerate() {
        let _ = write!(out, "  r{n:<2} {v:016x}{}", if n % 4 == 3 { "\n" } else { "" });
    }
    let _ = writeln!(out, "  flags {:#x}", s.flags.bits());
    out
}
