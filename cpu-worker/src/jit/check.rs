//! `--check-jit`: every block by the interpreter and by its translation, compared before either counts.
//!
//! The interpreter goes first, from a copy of the state and with a copy of each page it writes; then everything is put
//! back, the translation executes, and both outcomes are compared. Blocks with ops that translated code hands to
//! their handlers anyway are not compared, nor is a block that turns out to touch a device or to change decoded code: what
//! has such effects cannot be done twice, so the interpreter's outcome stands.
#![allow(unsafe_code, reason = "the ops of a block are read by raw pointer")]

use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions, Formatter as _, IntelFormatter, Mnemonic, RflagsBits};

use super::{Left, hands_over};
use crate::exec::{Exit, Fault, Jump, Op, Vcpu};
use crate::mmu::PhysMemory;
use crate::state::{CpuState, Flag, RIP};

const PAGE: u64 = 4096;

/// A RAM page as it was.
type Page = (u64, Box<[u8]>);

/// Pages as they were before they were written, while a block is tried.
#[derive(Debug, Default)]
pub struct Trial {
    /// Whether a block is being tried.
    pub active: bool,
    /// Whether it touched what cannot be undone.
    pub device: bool,
    pages: Vec<Page>,
    /// Blocks compared so far.
    pub compared: u64,
}

fn copy(mem: &PhysMemory, page: u64) -> Box<[u8]> {
    (0..PAGE / 8)
        .flat_map(|i| mem.read::<u64>(page * PAGE + i * 8).to_le_bytes())
        .collect()
}

fn put_back(mem: &PhysMemory, (page, bytes): &Page) {
    for (i, word) in bytes.chunks_exact(8).enumerate() {
        let mut v = [0; 8];
        v.copy_from_slice(word);
        mem.write(page * PAGE + i as u64 * 8, u64::from_le_bytes(v));
    }
}

impl Trial {
    /// RAM page `page` is about to be written.
    pub(crate) fn before_write(&mut self, mem: &PhysMemory, page: u64) {
        if self.active && self.pages.iter().all(|(n, _)| *n != page) {
            self.pages.push((page, copy(mem, page)));
        }
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
        let pages = core::mem::take(&mut trial.pages);
        self.tlb.forget_writes();
        if trial.device || self.reasons != reasons || matches!(first.0, Some((Exit::Stale, _))) {
            return outcome(&first);
        }
        trial.compared += 1;
        let after: Vec<Page> = pages.iter().map(|(n, _)| (*n, copy(&self.mem, *n))).collect();
        for page in &pages {
            put_back(&self.mem, page);
        }
        let expected = core::mem::replace(&mut self.state, before.clone());
        let left = self.run_native(native);
        let second: End = match left {
            Left::Exit(exit, len) => (Some((exit, len)), fault_of(self, exit)),
            Left::Next | Left::Link(_) => (None, None),
        };
        if let Left::Link(n) = left {
            let target = self.jit.as_ref().map_or(0, |j| j.link_target(n));
            self.state.regs[RIP] = target;
        }
        let undefined = self.undefined(&before, ops);
        let mut report = differences(&expected, &self.state, undefined);
        if first != second {
            let _ = writeln!(report, "end: {first:x?} interpreted, {second:x?} translated");
        }
        for (n, bytes) in &after {
            let now = copy(&self.mem, *n);
            if let Some(at) = bytes.iter().zip(&now).position(|(a, b)| a != b) {
                let (a, b) = (bytes[at], now[at]);
                let _ = writeln!(
                    report,
                    "RAM {:#x}: {a:#x} interpreted, {b:#x} translated",
                    n * PAGE + at as u64
                );
            }
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

    fn by_interpreter(&mut self, ops: &[Op]) -> End {
        self.begin_block();
        for op in ops {
            self.state.regs[RIP] = self.state.regs[RIP].wrapping_add(u64::from(op.len));
            if let Err(exit) = (op.handler)(self, op) {
                return (Some((exit, op.len)), fault_of(self, exit));
            }
            if self.block_ended() {
                break;
            }
        }
        (None, None)
    }

    /// The flags that are undefined after the block, where silicon and interpreter may differ. (AF after logical instructions is
    /// clear in both.)
    fn undefined(&mut self, before: &CpuState, ops: &[Op]) -> u64 {
        let bytes = self.bytes(before, ops);
        let mut undefined = 0;
        for i in &mut Decoder::new(self.code_size.bits(), &bytes, DecoderOptions::NONE) {
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
