//! The registers that gdb is told of: names, widths, order, and the target description made of them.
//!
//! The first ones are in the order that gdb assumes of an x86 that describes nothing, under the feature names it
//! knows; the rest is what QEMU's stub shows beside them, under its names, and more. A model without long mode describes
//! itself as 32-bit, any other as 64-bit whatever mode it is in, as QEMU's two emulators do. The descriptions of
//! `gdbstub_arch` name no registers at all.

use std::fmt::Write as _;
use std::sync::LazyLock;

use crate::state::{gpr, seg};

/// Where a register is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// A general register.
    General(usize),
    /// The instruction pointer.
    Rip,
    /// RFLAGS.
    Flags,
    /// The visible part of a segment register.
    Selector(usize),
    /// The base of a segment register.
    Base(usize),
    /// Its limit in bytes.
    Limit(usize),
    /// Its access rights, as LAR shows them shifted down by 8.
    Rights(usize),
    /// ST(n).
    Stack(u8),
    /// FCW, FSW, FTW, FCS, FIP, FDS, FDP and FOP.
    X87(u8),
    /// XMMn.
    Xmm(usize),
    /// MXCSR.
    Mxcsr,
    /// A control register.
    Control(u8),
    /// A debug register.
    Debug(usize),
    /// Base of the GDT or, if true, of the IDT.
    TableBase(bool),
    /// Its limit.
    TableLimit(bool),
    /// A model-specific register.
    Msr(u32),
}

/// Part of the target description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Feature {
    Core,
    Sse,
    Segments,
    System,
}

impl Feature {
    const ALL: [Self; 4] = [Self::Core, Self::Sse, Self::Segments, Self::System];

    fn name(self) -> &'static str {
        match self {
            Self::Core => "org.gnu.gdb.i386.core",
            Self::Sse => "org.gnu.gdb.i386.sse",
            Self::Segments => "org.gnu.gdb.i386.segments",
            Self::System => "org.quintet.x86.system",
        }
    }
}

/// A register.
#[derive(Clone, Debug)]
pub(super) struct Register {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Width in bytes.
    pub bytes: usize,
    kind: &'static str,
    feature: Feature,
    group: Option<&'static str>,
}

/// The registers of a model.
#[derive(Debug)]
pub(super) struct Layout {
    /// All of them, by their numbers.
    pub registers: Vec<Register>,
    /// The target description.
    pub xml: String,
}

/// The layout of models with long mode, or of those without.
pub(super) fn layout(long: bool) -> &'static Layout {
    static LONG: LazyLock<Layout> = LazyLock::new(|| Layout::new(true));
    static SHORT: LazyLock<Layout> = LazyLock::new(|| Layout::new(false));
    if long { &LONG } else { &SHORT }
}

/// Model-specific registers that have names here; any other is for `monitor rdmsr`.
pub(super) const MSRS: [(&str, u32); 16] = [
    ("star", 0xC000_0081),
    ("lstar", 0xC000_0082),
    ("cstar", 0xC000_0083),
    ("sfmask", 0xC000_0084),
    ("tsc_aux", 0xC000_0103),
    ("sysenter_cs", 0x174),
    ("sysenter_esp", 0x175),
    ("sysenter_eip", 0x176),
    ("apic_base", 0x1B),
    ("pat", 0x277),
    ("misc_enable", 0x1A0),
    ("debugctl", 0x1D9),
    ("mtrr_def_type", 0x2FF),
    ("mcg_cap", 0x179),
    ("mcg_status", 0x17A),
    ("feature_control", 0x3A),
];

const GENERAL: [&str; 8] = ["ax", "bx", "cx", "dx", "si", "di", "bp", "sp"];
const GENERAL_PLACES: [usize; 8] = [
    gpr::RAX,
    gpr::RBX,
    gpr::RCX,
    gpr::RDX,
    gpr::RSI,
    gpr::RDI,
    gpr::RBP,
    gpr::RSP,
];
/// A 32-bit gdb has another order.
const GENERAL_SHORT: [usize; 8] = [0, 2, 3, 1, 7, 6, 4, 5];
/// Those that programs load.
const SEGMENTS: [(&str, usize); 6] = [
    ("cs", seg::CS),
    ("ss", seg::SS),
    ("ds", seg::DS),
    ("es", seg::ES),
    ("fs", seg::FS),
    ("gs", seg::GS),
];
/// Those of the system.
const SYSTEM_SEGMENTS: [(&str, usize); 2] = [("ldtr", seg::LDTR), ("tr", seg::TR)];

/// All segment registers.
pub(super) fn segments() -> impl Iterator<Item = (&'static str, usize)> {
    SEGMENTS.into_iter().chain(SYSTEM_SEGMENTS)
}

const X87: [&str; 8] = [
    "fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop",
];

impl Layout {
    fn new(long: bool) -> Self {
        let mut layout = Self {
            registers: Vec::new(),
            xml: String::new(),
        };
        layout.core(long);
        layout.system(long);
        layout.describe(long);
        layout
    }

    fn add(
        &mut self,
        name: impl Into<String>,
        place: Place,
        bits: usize,
        kind: &'static str,
        feature: Feature,
    ) -> &mut Register {
        self.registers.push(Register {
            name: name.into(),
            place,
            bytes: bits / 8,
            kind,
            feature,
            group: None,
        });
        self.registers.last_mut().expect("one was added")
    }

    /// Those whose order gdb knows.
    fn core(&mut self, long: bool) {
        use Feature::{Core, Sse};
        let (bits, int) = if long { (64, "int64") } else { (32, "int32") };
        for (n, short) in GENERAL_SHORT.into_iter().enumerate() {
            let n = if long { n } else { short };
            let kind = if GENERAL[n].ends_with('p') {
                "data_ptr"
            } else {
                int
            };
            let name = format!("{}{}", if long { 'r' } else { 'e' }, GENERAL[n]);
            self.add(name, Place::General(GENERAL_PLACES[n]), bits, kind, Core);
        }
        if long {
            for n in 8..16 {
                self.add(format!("r{n}"), Place::General(n), 64, int, Core);
            }
        }
        let rip = if long { "rip" } else { "eip" };
        self.add(rip, Place::Rip, bits, "code_ptr", Core);
        self.add("eflags", Place::Flags, 32, "i386_eflags", Core);
        for (name, n) in SEGMENTS {
            self.add(name, Place::Selector(n), 32, "int32", Core);
        }
        for n in 0..8 {
            self.add(format!("st{n}"), Place::Stack(n), 80, "i387_ext", Core);
        }
        for (n, name) in X87.iter().enumerate() {
            self.add(*name, Place::X87(n as u8), 32, "int", Core).group = Some("float");
        }
        for n in 0..if long { 16 } else { 8 } {
            self.add(format!("xmm{n}"), Place::Xmm(n), 128, "vec128", Sse);
        }
        self.add("mxcsr", Place::Mxcsr, 32, "i386_mxcsr", Sse).group = Some("vector");
    }

    /// The others.
    fn system(&mut self, long: bool) {
        use Feature::{Segments, System};
        let (bits, int) = if long { (64, "int64") } else { (32, "int32") };
        let bases = if long { Segments } else { System };
        self.add("fs_base", Place::Base(seg::FS), bits, int, bases);
        self.add("gs_base", Place::Base(seg::GS), bits, int, bases);
        if long {
            self.add("k_gs_base", Place::Msr(0xC000_0102), bits, int, System);
        }
        self.add("cr0", Place::Control(0), bits, "x86_cr0", System);
        self.add("cr2", Place::Control(2), bits, int, System);
        self.add("cr3", Place::Control(3), bits, int, System);
        self.add("cr4", Place::Control(4), bits, "x86_cr4", System);
        self.add("cr8", Place::Control(8), bits, int, System);
        self.add("efer", Place::Msr(0xC000_0080), bits, "x86_efer", System);
        let from = self.registers.len();
        for n in [0, 1, 2, 3, 6, 7] {
            self.add(format!("dr{n}"), Place::Debug(n), bits, int, System);
        }
        for (name, idt) in [("gdtr", false), ("idtr", true)] {
            self.add(format!("{name}_base"), Place::TableBase(idt), bits, int, System);
            self.add(
                format!("{name}_limit"),
                Place::TableLimit(idt),
                32,
                "int32",
                System,
            );
        }
        for (name, n) in SYSTEM_SEGMENTS {
            self.add(name, Place::Selector(n), 32, "int32", System);
        }
        for (name, n) in segments() {
            if n != seg::FS && n != seg::GS {
                self.add(format!("{name}_base"), Place::Base(n), bits, int, System);
            }
            self.add(format!("{name}_limit"), Place::Limit(n), 32, "int32", System);
            self.add(format!("{name}_rights"), Place::Rights(n), 32, "int32", System);
        }
        for (name, index) in MSRS {
            self.add(name, Place::Msr(index), 64, "int64", System);
        }
        for register in &mut self.registers[from..] {
            register.group = Some("system");
        }
    }

    fn describe(&mut self, long: bool) {
        let architecture = if long { "i386:x86-64" } else { "i386" };
        let mut xml = format!(
            "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\
             <target version=\"1.0\"><architecture>{architecture}</architecture>"
        );
        for feature in Feature::ALL {
            let mine = || {
                let all = self.registers.iter().enumerate();
                all.filter(move |(_, r)| r.feature == feature)
            };
            if mine().next().is_none() {
                continue;
            }
            let _ = write!(xml, "<feature name=\"{}\">", feature.name());
            xml.push_str(&types(feature, if long { 8 } else { 4 }));
            for (n, r) in mine() {
                let (name, bits, kind) = (&r.name, 8 * r.bytes, r.kind);
                let _ = write!(
                    xml,
                    "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{n}\""
                );
                if let Some(group) = r.group {
                    let _ = write!(xml, " group=\"{group}\"");
                }
                xml.push_str("/>");
            }
            xml.push_str("</feature>");
        }
        xml.push_str("</target>");
        self.xml = xml;
    }
}

/// A type whose values gdb shows by the names of their bits.
fn flags(id: &str, bytes: usize, bits: &[(&str, u32)]) -> String {
    let mut xml = format!("<flags id=\"{id}\" size=\"{bytes}\">");
    for (name, bit) in bits {
        let _ = write!(xml, "<field name=\"{name}\" start=\"{bit}\" end=\"{bit}\"/>");
    }
    xml.push_str("</flags>");
    xml
}

/// The types that registers of a feature have; `bytes` is the width of a control register.
fn types(feature: Feature, bytes: usize) -> String {
    match feature {
        Feature::Core => flags(
            "i386_eflags",
            4,
            &[
                ("CF", 0),
                ("", 1),
                ("PF", 2),
                ("AF", 4),
                ("ZF", 6),
                ("SF", 7),
                ("TF", 8),
                ("IF", 9),
                ("DF", 10),
                ("OF", 11),
                ("NT", 14),
                ("RF", 16),
                ("VM", 17),
                ("AC", 18),
                ("VIF", 19),
                ("VIP", 20),
                ("ID", 21),
            ],
        ),
        Feature::Sse => {
            let mut xml = String::new();
            let lanes = [
                ("v4_float", "v4f", "ieee_single", 4),
                ("v2_double", "v2d", "ieee_double", 2),
                ("v16_int8", "v16i8", "int8", 16),
                ("v8_int16", "v8i16", "int16", 8),
                ("v4_int32", "v4i32", "int32", 4),
                ("v2_int64", "v2i64", "int64", 2),
            ];
            for (_, id, of, count) in lanes {
                let _ = write!(xml, "<vector id=\"{id}\" type=\"{of}\" count=\"{count}\"/>");
            }
            xml.push_str("<union id=\"vec128\">");
            for (name, id, ..) in lanes {
                let _ = write!(xml, "<field name=\"{name}\" type=\"{id}\"/>");
            }
            xml.push_str("<field name=\"uint128\" type=\"uint128\"/></union>");
            let bits = [
                ("IE", 0),
                ("DE", 1),
                ("ZE", 2),
                ("OE", 3),
                ("UE", 4),
                ("PE", 5),
                ("DAZ", 6),
                ("IM", 7),
                ("DM", 8),
                ("ZM", 9),
                ("OM", 10),
                ("UM", 11),
                ("PM", 12),
                ("FZ", 15),
            ];
            xml + &flags("i386_mxcsr", 4, &bits)
        }
        Feature::Segments => String::new(),
        Feature::System => {
            let cr0 = [
                ("PE", 0),
                ("MP", 1),
                ("EM", 2),
                ("TS", 3),
                ("ET", 4),
                ("NE", 5),
                ("WP", 16),
                ("AM", 18),
                ("NW", 29),
                ("CD", 30),
                ("PG", 31),
            ];
            let cr4 = [
                ("VME", 0),
                ("PVI", 1),
                ("TSD", 2),
                ("DE", 3),
                ("PSE", 4),
                ("PAE", 5),
                ("MCE", 6),
                ("PGE", 7),
                ("PCE", 8),
                ("OSFXSR", 9),
                ("OSXMMEXCPT", 10),
                ("UMIP", 11),
                ("FSGSBASE", 16),
                ("PCIDE", 17),
                ("OSXSAVE", 18),
                ("SMEP", 20),
                ("SMAP", 21),
            ];
            let efer = [("SCE", 0), ("LME", 8), ("LMA", 10), ("NXE", 11)];
            flags("x86_cr0", bytes, &cr0) + &flags("x86_cr4", bytes, &cr4) + &flags("x86_efer", bytes, &efer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(long: bool, range: core::ops::Range<usize>) -> Vec<&'static str> {
        layout(long).registers[range]
            .iter()
            .map(|r| r.name.as_str())
            .collect()
    }

    #[test]
    fn the_first_registers_are_where_gdb_assumes_them() {
        assert_eq!(
            names(true, 0..10),
            ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9"]
        );
        assert_eq!(
            names(true, 16..24),
            ["rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs"]
        );
        assert_eq!(names(true, 24..25), ["st0"]);
        assert_eq!(names(true, 40..41), ["xmm0"]);
        assert_eq!(names(true, 56..59), ["mxcsr", "fs_base", "gs_base"]);
        assert_eq!(
            names(false, 0..9),
            ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip"]
        );
        assert_eq!(names(false, 40..41), ["mxcsr"]);
    }

    #[test]
    fn no_two_registers_share_a_name_and_each_is_described_once() {
        for long in [true, false] {
            let layout = layout(long);
            for r in &layout.registers {
                let named = format!("<reg name=\"{}\"", r.name);
                assert_eq!(layout.xml.matches(&named).count(), 1, "{named}");
            }
        }
    }
}
