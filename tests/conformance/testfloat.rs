//! The Berkeley TestFloat vectors against the x87 unit, the SSE kernels, and x87 instructions in translated code.
//!
//! The folder is `$QUINTET_VECTORS` or `../shared/vectors` beside the repository. Without it the test says so
//! and passes, except in CI, where a skip is a failure.
#![cfg(target_arch = "x86_64")]

use flate2::read::GzDecoder;
use quintet_cpu_worker::exec::{RunExit, Vcpu};
use quintet_cpu_worker::fp::F80;
use quintet_cpu_worker::fp::sse::{Float, ToInteger, Xmm, float, mxcsr};
use quintet_cpu_worker::fp::x87::{Unit, kernel, status};
use quintet_cpu_worker::state::{Activity, CodeSize, RIP, gpr};
use quintet_protocol::addr::GuestPhys;
use quintet_tests::snippet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The folder of the vectors, or nothing if there is none.
fn vectors() -> Option<PathBuf> {
    let folder = std::env::var_os("QUINTET_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "No CPU vectors at {}",
        folder.display()
    );
    eprintln!(
        "SKIPPED: no CPU vectors at {}; set QUINTET_VECTORS",
        folder.display()
    );
    None
}

/// One line: operands, result, flags.
struct Case {
    operands: Vec<u128>,
    result: u128,
    flags: u32,
}

fn cases(path: &Path) -> Vec<Case> {
    let mut text = String::new();
    GzDecoder::new(File::open(path).expect("vector file"))
        .read_to_string(&mut text)
        .expect("gzip text");
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut fields: Vec<u128> = line
                .split_whitespace()
                .map(|f| u128::from_str_radix(f, 16).expect("hex field"))
                .collect();
            let flags = fields.pop().expect("flags") as u32;
            let result = fields.pop().expect("result");
            Case {
                operands: fields,
                result,
                flags,
            }
        })
        .collect()
}

/// TestFloat's flags from the layout that x87 and MXCSR share; the denormal flag is not in the vectors.
fn flags_of(word: u32) -> u32 {
    (word >> 5 & 1) | (word >> 4 & 1) << 1 | (word >> 3 & 1) << 2 | (word >> 2 & 1) << 3 | (word & 1) << 4
}

/// An operation as its file name spells it: `NAME[.pcNN].RM`.
struct Operation {
    name: String,
    /// The rounding-control field of both control registers.
    rounding: u32,
    /// The precision-control field of the x87.
    precision: u16,
}

impl Operation {
    fn parse(file: &str) -> Self {
        let mut parts = file.trim_end_matches(".txt.gz").split('.');
        let mut operation = Self {
            name: parts.next().expect("name").to_owned(),
            rounding: 0,
            precision: 3,
        };
        for part in parts {
            match part {
                "rne" => operation.rounding = 0,
                "rd" => operation.rounding = 1,
                "ru" => operation.rounding = 2,
                "rz" => operation.rounding = 3,
                "pc32" => operation.precision = 0,
                "pc64" => operation.precision = 2,
                "pc80" => operation.precision = 3,
                other => panic!("unknown part {other} in {file}"),
            }
        }
        operation
    }
}

fn f80(bits: u128) -> F80 {
    F80::new((bits >> 64) as u16, bits as u64)
}

fn bits(value: F80) -> u128 {
    u128::from(value.sign_exponent) << 64 | u128::from(value.mantissa)
}

/// The two outcomes of a comparison, from the condition codes or flags C3/ZF, C2/PF and C0/CF.
fn compared(name: &str, zero: bool, unordered: bool, carry: bool) -> u128 {
    let equal = zero && !unordered;
    let less = carry && !unordered;
    u128::from(if name.contains("_eq") {
        equal
    } else if name.contains("_le") {
        less || equal
    } else {
        less
    })
}

fn run_x87(operation: &Operation, case: &Case) -> (u128, u32) {
    let mut unit = Unit::power_up();
    unit.init();
    unit.set_control(0x7f & !0x300 | operation.precision << 8 | (operation.rounding as u16) << 10);
    let (a, b) = (case.operands[0], case.operands.get(1).copied().unwrap_or(0));
    let name = operation.name.as_str();
    let memory_operand = !name.starts_with("extF80");
    if !memory_operand {
        unit.load_f80(f80(b));
        unit.load_f80(f80(a));
    }
    let result = match name {
        "extF80_add" => arith(&mut unit, kernel::add),
        "extF80_sub" => arith(&mut unit, kernel::sub),
        "extF80_mul" => arith(&mut unit, kernel::mul),
        "extF80_div" => arith(&mut unit, kernel::div),
        "extF80_sqrt" => {
            unit.unary(kernel::sqrt, status::C1);
            bits(unit.st(0))
        }
        "extF80_roundToInt" => {
            unit.unary(kernel::rndint, status::C1);
            bits(unit.st(0))
        }
        "extF80_rem" => {
            loop {
                unit.top_two(kernel::prem1, status::CONDITION);
                if unit.status & status::C2 == 0 {
                    break;
                }
            }
            bits(unit.st(0))
        }
        "extF80_eq" | "extF80_le_quiet" | "extF80_lt_quiet" => {
            unit.compare(kernel::ucom, 1, 0);
            conditions(name, &unit)
        }
        "extF80_eq_signaling" | "extF80_le" | "extF80_lt" => {
            unit.compare(kernel::com, 1, 0);
            conditions(name, &unit)
        }
        "extF80_to_f32" => store(&mut unit, kernel::store_m32),
        "extF80_to_f64" => store(&mut unit, kernel::store_m64),
        "extF80_to_i32" => store(&mut unit, kernel::store_i32),
        "extF80_to_i64" => store(&mut unit, kernel::store_i64),
        "f32_to_extF80" => load(&mut unit, kernel::load_m32, &(a as u32)),
        "f64_to_extF80" => load(&mut unit, kernel::load_m64, &(a as u64)),
        "i32_to_extF80" => load(&mut unit, kernel::load_i32, &(a as u32)),
        "i64_to_extF80" => load(&mut unit, kernel::load_i64, &(a as u64)),
        other => panic!("no x87 operation {other}"),
    };
    (result, flags_of(unit.status.into()))
}

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;

/// A program for an operation on the operands at RSI + 16 and RSI + 32 under the control word at RSI: the result
/// goes to RSI + 48, the status word behind the operation to RSI + 64.
fn program(name: &str) -> Vec<u8> {
    const LOAD_BOTH: &[u8] = &[0xDB, 0x6E, 32, 0xDB, 0x6E, 16];
    const STATUS: &[u8] = &[0xDD, 0x7E, 64];
    // FNSTSW, FSTP m80
    const RESULT: &[u8] = &[0xDD, 0x7E, 64, 0xDB, 0x7E, 48];
    let (load, operation, end): (&[u8], &[u8], &[u8]) = match name {
        "extF80_add" => (LOAD_BOTH, &[0xD8, 0xC1], RESULT),
        "extF80_sub" => (LOAD_BOTH, &[0xD8, 0xE1], RESULT),
        "extF80_mul" => (LOAD_BOTH, &[0xD8, 0xC9], RESULT),
        "extF80_div" => (LOAD_BOTH, &[0xD8, 0xF1], RESULT),
        "extF80_sqrt" => (LOAD_BOTH, &[0xD9, 0xFA], RESULT),
        "extF80_roundToInt" => (LOAD_BOTH, &[0xD9, 0xFC], RESULT),
        // FPREM1, FNSTSW AX, SAHF, JP back
        "extF80_rem" => (LOAD_BOTH, &[0xD9, 0xF5, 0xDF, 0xE0, 0x9E, 0x7A, 0xF9], RESULT),
        "extF80_eq" | "extF80_le_quiet" | "extF80_lt_quiet" => (LOAD_BOTH, &[0xDD, 0xE1], STATUS),
        "extF80_eq_signaling" | "extF80_le" | "extF80_lt" => (LOAD_BOTH, &[0xD8, 0xD1], STATUS),
        "extF80_to_f32" => (LOAD_BOTH, &[0xD9, 0x5E, 48], STATUS),
        "extF80_to_f64" => (LOAD_BOTH, &[0xDD, 0x5E, 48], STATUS),
        "extF80_to_i32" => (LOAD_BOTH, &[0xDB, 0x5E, 48], STATUS),
        "extF80_to_i64" => (LOAD_BOTH, &[0xDF, 0x7E, 48], STATUS),
        "f32_to_extF80" => (&[], &[0xD9, 0x46, 16], RESULT),
        "f64_to_extF80" => (&[], &[0xDD, 0x46, 16], RESULT),
        "i32_to_extF80" => (&[], &[0xDB, 0x46, 16], RESULT),
        "i64_to_extF80" => (&[], &[0xDF, 0x6E, 16], RESULT),
        other => panic!("no x87 operation {other}"),
    };
    // FNINIT, FLDCW, …, HLT
    [&[0xDB, 0xE3, 0xD9, 0x6E, 0], load, operation, end, &[0xF4]].concat()
}

/// Executes operations by translated guest code, one program after the other.
struct Translated {
    cpu: Box<Vcpu>,
    name: String,
}

impl Translated {
    fn run(&mut self, operation: &Operation, case: &Case) -> (u128, u32) {
        let cpu = &mut self.cpu;
        let ram = cpu.mem.ram().clone();
        if self.name != operation.name {
            self.name.clone_from(&operation.name);
            snippet::flat(cpu, CodeSize::Bits64, CODE);
            cpu.discard_code();
            ram.write(GuestPhys(CODE), &program(&self.name)).expect("code");
        }
        let control = 0x7f & !0x300 | operation.precision << 8 | (operation.rounding as u16) << 10;
        let mut data = [0; 80];
        data[..2].copy_from_slice(&control.to_le_bytes());
        for (slot, v) in data[16..48]
            .as_chunks_mut::<16>()
            .0
            .iter_mut()
            .zip(&case.operands)
        {
            *slot = v.to_le_bytes();
        }
        ram.write(GuestPhys(DATA), &data).expect("data");
        cpu.state.activity = Activity::Active;
        cpu.state.regs[RIP] = CODE;
        cpu.state.regs[gpr::RSI] = DATA;
        assert_eq!(cpu.run(1000), RunExit::Idle);
        ram.read(GuestPhys(DATA), &mut data).expect("data");
        let status = u16::from_le_bytes([data[64], data[65]]);
        let name = operation.name.as_str();
        let result = if name.contains("_eq") || name.contains("_le") || name.contains("_lt") {
            let set = |bit| status & bit != 0;
            compared(name, set(status::C3), set(status::C2), set(status::C0))
        } else {
            let (slots, _) = data.as_chunks::<16>();
            u128::from_le_bytes(slots[3])
        };
        (result, flags_of(status.into()))
    }
}

type Binary = fn(&quintet_cpu_worker::fp::x87::Env, &F80, &F80, &mut F80) -> u16;

fn arith(unit: &mut Unit, op: Binary) -> u128 {
    unit.arith(op, 0, 1, 0);
    bits(unit.st(0))
}

fn conditions(name: &str, unit: &Unit) -> u128 {
    let set = |bit| unit.status & bit != 0;
    compared(name, set(status::C3), set(status::C2), set(status::C0))
}

fn store<T: Copy + Default + Into<u64>>(
    unit: &mut Unit,
    op: fn(&quintet_cpu_worker::fp::x87::Env, &F80, &mut T) -> u16,
) -> u128 {
    let stored = unit.store(op, T::default(), true);
    unit.commit(&stored);
    u128::from(stored.value.expect("all exceptions are masked").into())
}

fn load<T>(
    unit: &mut Unit,
    op: fn(&quintet_cpu_worker::fp::x87::Env, &T, &mut F80) -> u16,
    value: &T,
) -> u128 {
    unit.load(op, value);
    bits(unit.st(0))
}

fn run_sse(operation: &Operation, case: &Case) -> (u128, u32) {
    let mut control = mxcsr::DEFAULT | operation.rounding << 13;
    let low = |n: usize| Xmm::new(case.operands.get(n).copied().unwrap_or(0) as u64, 0);
    let (a, b) = (low(0), low(1));
    let name = operation.name.as_str();
    let float = |op: &Float, mut dst: Xmm, src: Xmm, control: &mut u32| {
        op.execute(&mut dst, &src, control)
            .expect("all exceptions are masked");
        dst.quads[0]
    };
    let integer =
        |op: &ToInteger, control: &mut u32| op.execute(&a, control).expect("all exceptions are masked");
    let result = match name {
        "f32_add" => float(&float::ADDSS, a, b, &mut control),
        "f32_sub" => float(&float::SUBSS, a, b, &mut control),
        "f32_mul" => float(&float::MULSS, a, b, &mut control),
        "f32_div" => float(&float::DIVSS, a, b, &mut control),
        "f32_sqrt" => float(&float::SQRTSS, Xmm::ZERO, a, &mut control),
        "f32_roundToInt" => float(&float::roundss(4), Xmm::ZERO, a, &mut control),
        "f32_to_f64" => float(&float::CVTSS2SD, Xmm::ZERO, a, &mut control),
        "f32_to_i32" => integer(&float::CVTSS2SI_32, &mut control),
        "f32_to_i64" => integer(&float::CVTSS2SI_64, &mut control),
        "f64_add" => float(&float::ADDSD, a, b, &mut control),
        "f64_sub" => float(&float::SUBSD, a, b, &mut control),
        "f64_mul" => float(&float::MULSD, a, b, &mut control),
        "f64_div" => float(&float::DIVSD, a, b, &mut control),
        "f64_sqrt" => float(&float::SQRTSD, Xmm::ZERO, a, &mut control),
        "f64_roundToInt" => float(&float::roundsd(4), Xmm::ZERO, a, &mut control),
        "f64_to_f32" => float(&float::CVTSD2SS, Xmm::ZERO, a, &mut control),
        "f64_to_i32" => integer(&float::CVTSD2SI_32, &mut control),
        "f64_to_i64" => integer(&float::CVTSD2SI_64, &mut control),
        "i32_to_f32" => float(&float::CVTSI2SS_32, Xmm::ZERO, a, &mut control),
        "i32_to_f64" => float(&float::CVTSI2SD_32, Xmm::ZERO, a, &mut control),
        "i64_to_f32" => float(&float::CVTSI2SS_64, Xmm::ZERO, a, &mut control),
        "i64_to_f64" => float(&float::CVTSI2SD_64, Xmm::ZERO, a, &mut control),
        // The quiet equality and the signalling orders are predicates 0, 1 and 2 of CMPSS and CMPSD.
        "f32_eq" => float(&float::cmpss(0), a, b, &mut control) & 1,
        "f32_lt" => float(&float::cmpss(1), a, b, &mut control) & 1,
        "f32_le" => float(&float::cmpss(2), a, b, &mut control) & 1,
        "f64_eq" => float(&float::cmpsd(0), a, b, &mut control) & 1,
        "f64_lt" => float(&float::cmpsd(1), a, b, &mut control) & 1,
        "f64_le" => float(&float::cmpsd(2), a, b, &mut control) & 1,
        _ => {
            let op = match name {
                "f32_eq_signaling" => &float::COMISS,
                "f64_eq_signaling" => &float::COMISD,
                "f32_lt_quiet" | "f32_le_quiet" => &float::UCOMISS,
                "f64_lt_quiet" | "f64_le_quiet" => &float::UCOMISD,
                other => panic!("no SSE operation {other}"),
            };
            let flags = op
                .execute(&a, &b, &mut control)
                .expect("all exceptions are masked");
            compared(name, flags & 0x40 != 0, flags & 4 != 0, flags & 1 != 0) as u64
        }
    };
    (result.into(), flags_of(control))
}

/// Runs every file of a folder but the fused multiply-adds; returns (files, cases).
fn run_folder(folder: &Path, mut run: impl FnMut(&Operation, &Case) -> (u128, u32)) -> (usize, usize) {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("vector folder")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .filter(|name| name.ends_with(".txt.gz") && !name.contains("mulAdd"))
        .collect();
    files.sort();
    let (mut total, mut failures) = (0, Vec::new());
    for file in &files {
        let operation = Operation::parse(file);
        let (mut failed, mut count) = (0, 0);
        for case in cases(&folder.join(file)) {
            count += 1;
            let (result, flags) = run(&operation, &case);
            if (result, flags) != (case.result, case.flags) {
                failed += 1;
                if failed <= 3 {
                    failures.push(format!(
                        "{file}: {:x?} gave {result:x} {flags:02x}, expected {:x} {:02x}",
                        case.operands, case.result, case.flags
                    ));
                }
            }
        }
        assert!(count > 0, "{file} holds no case");
        if failed > 0 {
            failures.push(format!("{file}: {failed} of {count} failed"));
        }
        total += count;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    (files.len(), total)
}

#[test]
fn x87_agrees_with_every_testfloat_vector() {
    let Some(folder) = vectors() else { return };
    let (files, cases) = run_folder(&folder.join("testfloat/x87"), run_x87);
    println!("testfloat x87: {cases} cases in {files} files");
}

#[test]
fn x87_instructions_in_translated_code_agree_with_every_testfloat_vector() {
    let Some(folder) = vectors() else { return };
    let mut cpu = snippet::vcpu(8 << 20);
    cpu.jit = Some(snippet::translator());
    let mut translated = Translated {
        cpu,
        name: String::new(),
    };
    let (_, cases) = run_folder(&folder.join("testfloat/x87"), |operation, case| {
        translated.run(operation, case)
    });
    let unloads = translated.cpu.jit.map_or(0, |jit| jit.unit_unloads());
    assert!(
        unloads >= cases as u64,
        "the host's unit had the state {unloads} times in {cases} cases"
    );
}

#[test]
fn sse_agrees_with_every_testfloat_vector() {
    let Some(folder) = vectors() else { return };
    let (files, cases) = run_folder(&folder.join("testfloat/sse"), run_sse);
    println!("testfloat sse: {cases} cases in {files} files");
}
