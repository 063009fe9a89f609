//! 386 arithmetic, shifts, decimal adjustment, multiplication and division: `i386/test386-EE.txt.gz`.

use quintet_cpu_worker::state::CodeSize;
use quintet_tests::intops::{self, Regs};
use quintet_tests::{snippet, vectors};

/// `EAX=`, `EDX=` and `PS=` from three words.
fn triple(words: &[&str]) -> (u64, u64, u64) {
    let value = |n: usize| {
        let (_, v) = words[n].split_once('=').expect("name=value");
        u64::from_str_radix(v, 16).expect("hexadecimal")
    };
    (value(0), value(1), value(2))
}

/// The instruction of a line on the registers that a line names: EAX and EDX, the count in EDX.
fn encoding(opcode: &str, name: &str, width: u64) -> Option<Vec<u8>> {
    let name = name.to_ascii_lowercase();
    let name = match (opcode, name.as_str()) {
        ("F6" | "F7", "imul") => "imul1",
        _ => name.as_str(),
    };
    intops::encode(name, width)
}

#[test]
fn every_line_of_test386_passes() {
    let Some(folder) = vectors::folder() else { return };
    let text = String::from_utf8(vectors::gunzip(&folder.join("i386/test386-EE.txt.gz"))).expect("text");
    let mut cpu = snippet::vcpu(4 << 20);
    let (mut passed, mut failures) = (0, Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [opcode, name, size] = words[..3] else {
            panic!("malformed line {line}")
        };
        if opcode == "69" || opcode == "6B" {
            continue;
        }
        // CBW and CWD are listed by the width of their source.
        let extends = matches!(name, "CBW" | "CWDE" | "CWD" | "CDQ");
        let width = match (size, extends) {
            ("B", false) => 1,
            ("W", false) | ("B", true) => 2,
            ("W", true) if name == "CWD" => 2,
            _ => 4,
        };
        let (ax, dx, flags) = triple(&words[3..6]);
        let divide_error = words.contains(&"#DE");
        let (want_ax, want_dx, want_flags) = triple(&words[words.len() - 3..]);
        let Some(bytes) = encoding(opcode, name, width) else {
            failures.push(format!("no encoding: {line}"));
            continue;
        };
        let lower = name.to_ascii_lowercase();
        let double = matches!(name, "SHLD" | "SHRD");
        let one_operand = matches!(opcode, "F6" | "F7") && matches!(name, "MUL" | "IMUL" | "DIV" | "IDIV");
        // For SHLD and SHRD the line's EDX is filler and count in one: the program keeps the count in CL.
        let before = Regs {
            ax,
            bx: dx,
            cx: dx,
            dx,
            flags,
        };
        let shift = matches!(
            name,
            "SAL" | "SHL" | "SHR" | "SAR" | "ROL" | "ROR" | "RCL" | "RCR"
        ) || double;
        let count = if shift { dx & 31 } else { 0 };
        snippet::flat(&mut cpu, CodeSize::Bits32, 0);
        let after = intops::execute(&mut cpu, &bytes, before);
        let mask = intops::defined(&lower, width, count);
        let mask = if lower.starts_with("ro") || lower.starts_with("rc") {
            mask & 0x801
        } else {
            mask
        };
        let good = match after {
            None => divide_error,
            Some(_) if divide_error => false,
            Some(r) => {
                let high = !one_operand && !extends || r.dx == want_dx;
                r.ax == want_ax && high && (r.flags ^ want_flags) & mask == 0
            }
        };
        if good {
            passed += 1;
        } else {
            failures.push(format!("{line} -> {after:x?} mask {mask:x}"));
        }
    }
    println!("test386-EE: {passed} passed, {} failed", failures.len());
    for f in failures.iter().take(30) {
        println!("    {f}");
    }
    assert!(passed > 15_000);
    assert!(failures.is_empty(), "{} lines fail", failures.len());
}
