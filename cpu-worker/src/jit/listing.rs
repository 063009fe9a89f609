//! Translations as text: what a person reads to see what the translator makes of a block, and tests compare.
//!
//! Addresses differ from run to run, so nothing is shown as one: jumps inside a translation are labels, the frame's words and the
//! routines have their names, and what lies in tables of the frame is shown by the table.

use core::mem::offset_of;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use iced_x86::{
    Decoder, DecoderOptions, Formatter as _, Instruction, IntelFormatter, Register, SymbolResolver,
    SymbolResult,
};

use super::Jit;
use super::thunks::Thunks;
use crate::exec::{Frame, LiveUnit, LoopWords};

/// One translation as text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// RIP of the block.
    pub rip: u64,
    /// Host instructions up to where the parts begin that misses and ways out lead to.
    pub straight: usize,
    /// All host instructions, a line each, labels between them.
    pub text: String,
}

/// Names for what host code refers to.
struct Names {
    thunks: Thunks,
    /// Where the translation jumps to within itself, ascending.
    labels: Vec<u64>,
}

/// The frame's words and tables, in the order in which they lie.
fn words() -> [(usize, &'static str); 21] {
    let looped = offset_of!(Frame, looped);
    let unit = offset_of!(Frame, unit);
    [
        (offset_of!(Frame, flags), "flags"),
        (offset_of!(Frame, homes), "home"),
        (offset_of!(Frame, bases), "base"),
        (offset_of!(Frame, readable), "readable"),
        (offset_of!(Frame, writable), "writable"),
        (offset_of!(Frame, exit_word), "exit_word"),
        (offset_of!(Frame, vcpu), "vcpu"),
        (offset_of!(Frame, host_sp), "host_sp"),
        (offset_of!(Frame, xmm_live), "xmm_live"),
        (offset_of!(Frame, mxcsr), "mxcsr"),
        (offset_of!(Frame, interrupt_waits), "interrupt_waits"),
        (offset_of!(Frame, scratch), "scratch"),
        (looped + offset_of!(LoopWords, patience), "patience"),
        (looped + offset_of!(LoopWords, first), "first_patience"),
        (looped + offset_of!(LoopWords, begun), "begun"),
        (looped + offset_of!(LoopWords, limits), "limit"),
        (looped + offset_of!(LoopWords, pointers), "pointer"),
        (looped + offset_of!(LoopWords, spared), "spared"),
        (unit + offset_of!(LiveUnit, live), "unit"),
        (offset_of!(Frame, read), "tlb_read"),
        (offset_of!(Frame, targets), "jumps"),
    ]
}

/// The name of the word or table at `offset` of the frame.
fn word(offset: usize) -> String {
    if (offset_of!(Frame, write)..offset_of!(Frame, targets)).contains(&offset) {
        return "tlb_write".to_owned();
    }
    let all = words();
    let (start, name) = all
        .into_iter()
        .rev()
        .find(|(start, _)| *start <= offset)
        .unwrap_or((0, "frame"));
    let table = matches!(name, "tlb_read" | "jumps");
    if table || offset == start {
        name.to_owned()
    } else {
        format!("{name}+{}", offset - start)
    }
}

impl Names {
    fn label(&self, at: u64) -> Option<usize> {
        self.labels.iter().position(|&l| l == at)
    }

    fn routine(&self, at: u64) -> Option<&'static str> {
        let t = &self.thunks;
        [
            (t.enter, "enter"),
            (t.slow, "handler"),
            (t.xmm, "load_xmm"),
            (t.unit, "load_unit"),
            (t.next, "next"),
            (t.next_by_tag, "next_by_tag"),
            (t.link, "link"),
        ]
        .into_iter()
        .find_map(|(start, name)| (start == at).then_some(name))
    }
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        i: &Instruction,
        _operand: u32,
        _instruction_operand: Option<u32>,
        address: u64,
        _address_size: u32,
    ) -> Option<SymbolResult<'_>> {
        if i.near_branch_target() != 0 {
            let name = match self.routine(address) {
                Some(name) => name.to_owned(),
                None => format!("L{}", self.label(address)?),
            };
            return Some(SymbolResult::with_string(address, name));
        }
        let own = i.segment_prefix() == Register::GS;
        own.then(|| SymbolResult::with_string(address, word(address as usize)))
    }
}

impl Jit {
    /// The oldest translation as text, if there is one: that of a test's only block.
    pub fn oldest(&self) -> Option<Listing> {
        let native = *self.book.oldest()?;
        let bytes: Vec<u8> = (native.offset..native.offset + native.len)
            .map(|at| self.memory.read::<1>(at)[0])
            .collect();
        let code: Vec<Instruction> = Decoder::with_ip(64, &bytes, native.entry, DecoderOptions::NONE)
            .into_iter()
            .collect();
        let own = native.entry..native.entry + native.len as u64;
        let inside = code
            .iter()
            .map(Instruction::near_branch_target)
            .filter(|target| own.contains(target));
        let labels: Vec<u64> = inside.collect::<BTreeSet<u64>>().into_iter().collect();
        let names = Names {
            thunks: self.thunks,
            labels: labels.clone(),
        };
        let mut formatter = IntelFormatter::with_options(Some(Box::new(names)), None);
        let mut text = String::new();
        let cold = native.entry + native.straight as u64;
        for i in &code {
            if i.ip() == cold {
                text.push_str("; beside\n");
            }
            if let Some(n) = labels.iter().position(|&l| l == i.ip()) {
                let _ = writeln!(text, "L{n}:");
            }
            text.push_str("    ");
            formatter.format(i, &mut text);
            text.push('\n');
        }
        Some(Listing {
            rip: native.rip,
            straight: code.iter().filter(|i| i.ip() < cold).count(),
            text,
        })
    }
}
