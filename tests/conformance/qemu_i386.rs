//! Integer operations with 32- and 64-bit registers as an Intel Xeon executes them: `qemu-test-i386/`.

use std::collections::HashMap;

use quintet_cpu_worker::state::CodeSize;
use quintet_tests::intops::{self, Regs};
use quintet_tests::{snippet, vectors};

/// Name and width of an AT&T mnemonic.
fn split(op: &str, has: impl Fn(&str) -> bool) -> (String, u64) {
    if matches!(op, "aaa" | "aas" | "daa" | "das" | "aam" | "aad") {
        return (op.to_owned(), 4);
    }
    let (name, suffix) = op.split_at(op.len() - 1);
    let width = match suffix {
        "b" => 1,
        "w" => 2,
        "l" => 4,
        _ => 8,
    };
    // A multiplication whose line has AH and AL, or whose operand is a byte, is the one-operand form.
    let one = name == "imul" && (has("AL") || width == 1);
    (if one { "imul1".to_owned() } else { name.to_owned() }, width)
}

fn run(file: &str, size: CodeSize, translated: bool) {
    let Some(folder) = vectors::folder() else { return };
    let text = String::from_utf8(vectors::gunzip(&folder.join("qemu-test-i386").join(file))).expect("text");
    let mut cpu = snippet::vcpu(4 << 20);
    if translated {
        cpu.jit = Some(snippet::translator());
    }
    let (mut passed, mut failures) = (0, Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let op = words.next().expect("an operation");
        let f: HashMap<&str, u64> = words
            .filter_map(|w| w.split_once('='))
            .map(|(k, v)| (k, u64::from_str_radix(v, 16).expect("hexadecimal")))
            .collect();
        let get = |k: &str| f.get(k).copied().unwrap_or(0);
        let (name, width) = split(op, |k| f.contains_key(k));
        let bytes = intops::encode(&name, width).unwrap_or_else(|| panic!("no encoding of {op}"));
        let shift = name.starts_with("sh")
            || name.starts_with("sa")
            || name.starts_with("ro")
            || name.starts_with("rc");
        let double = name == "shld" || name == "shrd";
        let divides = matches!(name.as_str(), "mul" | "imul1" | "div" | "idiv");
        let pair = f.contains_key("AL");
        let before = Regs {
            ax: if pair { get("AL") } else { get("A") },
            bx: if divides { get("B") } else { 0 },
            cx: if double {
                get("C")
            } else if shift {
                get("B")
            } else {
                0
            },
            dx: if pair { get("AH") } else { get("B") },
            flags: get("CCIN"),
        };
        let count = before.cx & if width == 8 { 63 } else { 31 };
        // The recording kept OF only where the count itself, not the masked one, was 1.
        let of = if shift && before.cx != 1 { 0x800 } else { 0 };
        snippet::flat(&mut cpu, size, 0);
        let after = intops::execute(&mut cpu, &bytes, before);
        let mask = if f.contains_key("CC") {
            intops::defined(&name, width, if shift { count } else { 0 })
        } else {
            0
        };
        // The recorded flags are zero where they are not defined, and for rotates only CF (and OF) was kept.
        let mask = if name.starts_with("ro") || name.starts_with("rc") {
            mask & 0x801
        } else {
            mask
        };
        let mask = if shift && count == 0 && !name.starts_with('r') {
            mask & 0xC5
        } else {
            mask
        };
        let mask = mask & !of;
        let good = after.is_some_and(|r| {
            let value = if pair {
                r.ax == get("RL") && r.dx == get("RH")
            } else {
                r.ax == get("R")
            };
            value && (r.flags ^ get("CC")) & mask == 0
        });
        if good {
            passed += 1;
        } else {
            failures.push(format!("{line} -> {after:x?} mask {mask:x}"));
        }
    }
    println!("{file}: {passed} passed, {} failed", failures.len());
    for f in failures.iter().take(20) {
        println!("    {f}");
    }
    assert!(passed > 5000);
    assert!(failures.is_empty(), "{} lines of {file} fail", failures.len());
}

#[test]
fn every_32_bit_operation_matches_the_xeon() {
    run("i386.ops.txt.gz", CodeSize::Bits32, false);
}

#[test]
fn every_64_bit_operation_matches_the_xeon() {
    run("x86_64.ops.txt.gz", CodeSize::Bits64, false);
}

#[test]
fn every_translated_32_bit_operation_matches_the_xeon() {
    run("i386.ops.txt.gz", CodeSize::Bits32, true);
}

#[test]
fn every_translated_64_bit_operation_matches_the_xeon() {
    run("x86_64.ops.txt.gz", CodeSize::Bits64, true);
}
