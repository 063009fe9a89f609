//! What a debugger finds of the vCPU in the process that it is attached to: where the registers are, and which code was made
//! from which.
//!
//! `ANCHOR` lies in an ELF section of its own, [`SECTION`], which stays when a program is stripped. It leads to the vCPU's state, to the
//! translations, and to a text that says what lies where in both, made by the compiler that laid them out. So `quintet debug` needs neither
//! symbols nor types, and works on any build. A debugger reads; nothing is called, and nothing here costs the vCPU anything.
//!
//! Debugging information was rejected as the source: releases have line tables alone, and an optimised build does not say in which register
//! the vCPU's address is. A table in the coordinator was, too: only the protocol is the same in two builds that talk to each other.
#![allow(unsafe_code, reason = "a static in a section of its own")]

use core::fmt::Write as _;
use core::mem::offset_of;
use std::sync::OnceLock;

use quintet_protocol::sync::{AtomicU64, Ordering};

use super::abi;
use super::book::{Native, REGIONS, Shown};
use crate::exec::Vcpu;
use crate::state::{CodeSize, CpuState, DescriptorTable, Flags, Msrs, Segment};

/// Name of the section.
pub const SECTION: &str = ".quintet";
/// The first eight bytes of an [`Anchor`].
pub const MAGIC: [u8; 8] = *b"QTSHOWN1";

/// The words of the anchor behind the magic, in order; addresses are of this process, 0 for what there is not.
const WORDS: [&str; 8] = [
    "text",
    "text_len",
    "state",
    "frame",
    "natives_table",
    "code",
    "code_len",
    "routines",
];

/// Where a debugger starts.
#[derive(Debug)]
#[repr(C)]
pub struct Anchor {
    magic: [u8; 8],
    words: [AtomicU64; WORDS.len()],
}

/// The anchor of this process. With several vCPUs, as in tests, the newest that was [published](Published::new).
// SAFETY: the section is this static's alone and keeps the alignment that it asks for.
#[unsafe(link_section = ".quintet")]
#[used]
static ANCHOR: Anchor = Anchor {
    magic: MAGIC,
    words: [const { AtomicU64::new(0) }; WORDS.len()],
};

/// A vCPU that debuggers find, as long as this lives.
#[derive(Debug)]
pub struct Published(());

impl Published {
    /// Shows `cpu`, which stays where it is.
    #[allow(clippy::borrowed_box, reason = "what is boxed does not move")]
    pub fn new(cpu: &Box<Vcpu>) -> Self {
        static TEXT: OnceLock<String> = OnceLock::new();
        let text = TEXT.get_or_init(describe);
        let [natives, code, code_len, routines] = match &cpu.jit {
            Some(jit) => [
                jit.book.shown() as u64,
                jit.memory.address(0),
                jit.memory.size() as u64,
                jit.routines as u64,
            ],
            None => [0; 4],
        };
        let values = [
            text.as_ptr() as u64,
            text.len() as u64,
            &raw const cpu.state as u64,
            &raw const *cpu.tlb.frame as u64,
            natives,
            code,
            code_len,
            routines,
        ];
        for (word, value) in ANCHOR.words.iter().zip(values) {
            word.store(value, Ordering::Release);
        }
        Self(())
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        for word in &ANCHOR.words {
            word.store(0, Ordering::Release);
        }
    }
}

/// What the anchor consists of, for who looks for it: the names of its words, in order.
pub fn words() -> &'static [&'static str] {
    &WORDS
}

/// What lies where, a line each: `STRUCTURE FIELD OFFSET SIZE` in bytes, `size STRUCTURE BYTES`, and `host GUEST-REGISTER HOST-REGISTER` for
/// where translated code has a general register (those that are not listed are in `frame home`).
fn describe() -> String {
    let mut text = String::new();
    let mut line = |what: &str, name: &str, offset: usize, size: usize| {
        let _ = writeln!(text, "{what} {name} {offset} {size}");
    };
    let names = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15", "rip",
    ];
    for (n, name) in names.into_iter().enumerate() {
        line("state", name, offset_of!(CpuState, regs) + n * 8, 8);
    }
    let flags = offset_of!(CpuState, flags);
    let [result, aux] = Flags::ARITHMETIC_OFFSETS;
    line("state", "flags.result", flags + result, 8);
    line("state", "flags.aux", flags + aux, 8);
    line("state", "flags.system", flags + Flags::SYSTEM_OFFSET, 8);
    for (n, name) in ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"]
        .into_iter()
        .enumerate()
    {
        let at = offset_of!(CpuState, segs) + n * size_of::<Segment>();
        line("segment", name, at, size_of::<Segment>());
    }
    line("hidden", "selector", offset_of!(Segment, selector), 2);
    line("hidden", "base", offset_of!(Segment, base), 8);
    line("hidden", "limit", offset_of!(Segment, limit), 4);
    line("hidden", "attr", offset_of!(Segment, attr), 4);
    for (name, at) in [
        ("gdtr", offset_of!(CpuState, gdtr)),
        ("idtr", offset_of!(CpuState, idtr)),
    ] {
        let base = at + offset_of!(DescriptorTable, base);
        let limit = at + offset_of!(DescriptorTable, limit);
        line("table", &format!("{name}.base"), base, 8);
        line(
            "table",
            &format!("{name}.limit"),
            limit,
            size_of_val(&CpuState::reset(0).gdtr.limit),
        );
    }
    for (name, at) in [
        ("cr0", offset_of!(CpuState, cr0)),
        ("cr2", offset_of!(CpuState, cr2)),
        ("cr3", offset_of!(CpuState, cr3)),
        ("cr4", offset_of!(CpuState, cr4)),
        ("efer", offset_of!(CpuState, efer)),
        ("dr6", offset_of!(CpuState, dr) + 6 * 8),
        ("dr7", offset_of!(CpuState, dr) + 7 * 8),
        (
            "kernel_gs_base",
            offset_of!(CpuState, msrs) + offset_of!(Msrs, kernel_gs_base),
        ),
    ] {
        line("control", name, at, 8);
    }
    line("byte", "cpl", offset_of!(CpuState, cpl), 1);
    line("byte", "activity", offset_of!(CpuState, activity), 1);
    // As seen from the state, which lies in the vCPU.
    line(
        "vcpu",
        "code_size",
        offset_of!(Vcpu, code_size).wrapping_sub(offset_of!(Vcpu, state)),
        size_of::<CodeSize>(),
    );
    for (n, name) in names.into_iter().enumerate().take(16).skip(abi::FIRST_HOME) {
        line("home", name, abi::home(n), 8);
    }
    for (name, at) in [
        ("rip", offset_of!(Native, rip)),
        ("mode", offset_of!(Native, mode)),
        ("entry", offset_of!(Native, entry)),
        ("len", offset_of!(Native, len)),
        ("guest", offset_of!(Native, guest)),
    ] {
        line("native", name, at, 8);
    }
    line("native", "block", offset_of!(Native, block), 4);
    line("native", "buried", offset_of!(Native, buried), 4);
    line("shown", "first", offset_of!(Shown, first), 8);
    line("shown", "count", offset_of!(Shown, count), 8);
    let _ = writeln!(text, "size native {}", size_of::<Native>());
    let _ = writeln!(text, "size shown {}", size_of::<Shown>());
    let _ = writeln!(text, "size regions {REGIONS}");
    for (n, name) in names.into_iter().enumerate().take(abi::FIRST_HOME) {
        let host = abi::host(n).expect("has a host register");
        let _ = writeln!(text, "host {name} {}", format!("{host:?}").to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_where_the_registers_are() {
        let mut state = CpuState::reset(0);
        state.regs[3] = 0x1234_5678_9ABC_DEF0;
        state.segs[5].selector = 0x2B;
        let text = describe();
        let at = |line: &str| -> usize {
            let found = text.lines().find_map(|l| l.strip_prefix(line)).expect(line);
            found
                .split_whitespace()
                .next()
                .expect("an offset")
                .parse()
                .expect("a number")
        };
        let bytes: *const u8 = (&raw const state).cast();
        // SAFETY: both lie inside the state, by the text or the test fails.
        let (rbx, gs) = unsafe {
            (
                bytes.add(at("state rbx ")).cast::<u64>().read(),
                bytes
                    .add(at("segment gs ") + at("hidden selector "))
                    .cast::<u16>()
                    .read(),
            )
        };
        assert_eq!((rbx, gs), (state.regs[3], 0x2B));
        assert!(
            text.contains("host rax r13\n") && text.contains("home r13 "),
            "{text}"
        );
        assert!(
            text.lines().all(|l| matches!(l.split(' ').count(), 2..=4)),
            "{text}"
        );
    }

    #[test]
    fn the_anchor_is_made_of_what_it_says() {
        assert_eq!(size_of::<Anchor>(), MAGIC.len() + words().len() * 8);
        assert_eq!(core::mem::align_of::<Anchor>(), 8);
    }
}
