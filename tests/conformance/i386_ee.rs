//! 386 arithmetic, shifts, decimal adjustment, multiplication and division: `i386/test386-EE.txt.gz`.

use quintet_cpu_worker::state::CodeSize;
use quintet_tests::intops::{self, Regs};
use quintet_tests::{snippet, vectors};

/// `EAX=`, `EDX=` (which the decimal adjustments do not have) and `PS=`.
fn triple(words: &[&str]) -> (u64, u64, u64) {
    let value = |name: &str| {
        let found = words
            .iter()
            .filter_map(|w| w.split_once('='))
            .find(|(k, _)| *k == name);
        found.map_or(0, |(_, v)| u64::from_str_radix(v, 16).expect("hexadecimal"))
    };
    (value("EAX"), value("EDX"), value("PS"))
}

/// The instruction of a line on the registers that a line names: EAX and EDX, the count in EDX.
///
/// The immediates are constants of the program that the lines do not show: -1 for bytes (sign-extended by 83),
/// 8002h and 8000_0002h for words and doublewords (8000h and 8000_0000h for SUB and SBB), AAh in every byte for
/// CMP and logic, 7 for shifts, half the width for SHLD and SHRD. 80, 81 and TEST work on EDX.
fn encoding(opcode: &str, name: &str, width: u64) -> Option<Vec<u8>> {
    let name = name.to_ascii_lowercase();
    let name = match (opcode, name.as_str()) {
        ("F6" | "F7", "imul") => "imul1",
        _ => name.as_str(),
    };
    let prefix: &[u8] = if width == 2 { &[0x66] } else { &[] };
    let number = u32::from_str_radix(opcode, 16).unwrap_or(0);
    let logic = matches!(name, "or" | "and" | "xor" | "test" | "cmp");
    let minus = matches!(name, "sub" | "sbb");
    let full: &[u8] = match (width, logic) {
        (1, true) => &[0xAA],
        (2, true) => &[0xAA; 2],
        (_, true) => &[0xAA; 4],
        (1, false) => &[0xFF],
        (2, false) if minus => &[0x00, 0x80],
        (2, false) => &[0x02, 0x80],
        (_, false) if minus => &[0x00, 0x00, 0x00, 0x80],
        (_, false) => &[0x02, 0x00, 0x00, 0x80],
    };
    let alu = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"]
        .iter()
        .position(|&a| a == name);
    let shift = ["rol", "ror", "rcl", "rcr", "sal", "shr", "", "sar"]
        .iter()
        .position(|&a| a == name);
    let n = alu.or(shift).unwrap_or(0) as u8;
    let tail: Vec<u8> = match number {
        // Accumulator and immediate.
        0x04 | 0x05 | 0x0C | 0x0D | 0x14 | 0x15 | 0x1C | 0x1D | 0x24 | 0x25 | 0x2C | 0x2D | 0x34 | 0x35
        | 0x3C | 0x3D | 0xA8 | 0xA9 => [&[number as u8], full].concat(),
        0x80 | 0x81 => [&[number as u8, 0xC2 | n << 3], full].concat(),
        0x83 => vec![0x83, 0xC0 | n << 3, if logic { 0xAA } else { 0xFF }],
        0xF6 | 0xF7 if name == "test" => [&[number as u8, 0xC2], full].concat(),
        0xC0 | 0xC1 => vec![number as u8, 0xC0 | n << 3, 7],
        0xD0 | 0xD1 => vec![number as u8, 0xC0 | n << 3],
        0x0FA4 | 0x0FAC => vec![0x0F, number as u8, 0xD0, width as u8 * 4],
        _ => return intops::encode(name, width),
    };
    Some([prefix, &tail].concat())
}

/// How far a line shifts.
fn count_of(opcode: &str, width: u64, dx: u64) -> u64 {
    match opcode {
        "C0" | "C1" => 7,
        "D0" | "D1" => 1,
        "0FA4" | "0FAC" => width * 4,
        _ => dx & 31,
    }
}

/// What `name` divides by. The program divides by EAX and by EDX without saying which, so arithmetic of our own
/// tells: the one that gives what the line says (`None`: a divide error). Everything else multiplies by EDX.
fn divisor(name: &str, width: u64, ax: u64, dx: u64, want: Option<(u64, u64)>) -> u64 {
    if !matches!(name, "div" | "idiv") {
        return dx;
    }
    let bits = width * 8;
    let mask = (1u64 << bits) - 1;
    let signed = |v: u64, n: u64| i128::from((v << (64 - n)) as i64 >> (64 - n));
    let pair = if width == 1 {
        ax & 0xFFFF
    } else {
        (dx & mask) << bits | ax & mask
    };
    let divide = |by: u64| -> Option<(u64, u64)> {
        let (q, r) = if name == "div" {
            let by = i128::from(by & mask);
            (
                i128::from(pair).checked_div(by)?,
                i128::from(pair).checked_rem(by)?,
            )
        } else {
            let (a, by) = (signed(pair, 2 * bits), signed(by, bits));
            (a.checked_div(by)?, a.checked_rem(by)?)
        };
        let (low, high) = if name == "div" {
            (0, i128::from(mask))
        } else {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        };
        if q < low || q > high {
            return None;
        }
        let (q, r) = (q as u64 & mask, r as u64 & mask);
        Some(if width == 1 {
            (ax & !0xFFFF | r << 8 | q, dx)
        } else {
            (ax & !mask | q, dx & !mask | r)
        })
    };
    [dx, ax]
        .into_iter()
        .find(|&by| divide(by) == want)
        .unwrap_or_else(|| panic!("{name} {ax:x} {dx:x}: {want:x?}"))
}

#[test]
fn every_line_of_test386_passes() {
    run(false);
}

#[test]
fn every_line_of_test386_passes_translated() {
    run(true);
}

fn run(translated: bool) {
    let Some(folder) = vectors::folder() else { return };
    let text = String::from_utf8(vectors::gunzip(&folder.join("i386/test386-EE.txt.gz"))).expect("text");
    let mut cpu = snippet::vcpu(4 << 20);
    if translated {
        cpu.jit = Some(snippet::translator());
    }
    let (mut passed, mut failures) = (0, Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let decimal = words.len() == 5;
        let (opcode, name, size) = if decimal {
            ("", words[0], "D")
        } else {
            (words[0], words[1], words[2])
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
        let side = if decimal { 2 } else { 3 };
        let (ax, dx, flags) = triple(&words[if decimal { 1 } else { 3 }..][..side]);
        let divide_error = words.contains(&"#DE");
        let (want_ax, want_dx, want_flags) = triple(&words[words.len() - side..]);
        let Some(bytes) = encoding(opcode, name, width) else {
            failures.push(format!("no encoding: {line}"));
            continue;
        };
        let lower = name.to_ascii_lowercase();
        let double = matches!(name, "SHLD" | "SHRD");
        // For SHLD and SHRD the line's EDX is filler and count in one: the program keeps the count in CL.
        // Before a shift by CL and a rotation through carry the program sets CF, which shows where the count is 0.
        let carry = matches!(opcode, "0FA5" | "0FAD" | "D2" | "D3") || name.starts_with("RC");
        let bx = divisor(
            &lower,
            width,
            ax,
            dx,
            (!divide_error).then_some((want_ax, want_dx)),
        );
        let before = Regs {
            ax,
            bx,
            cx: dx,
            dx,
            flags: flags | u64::from(carry),
        };
        let shift = matches!(
            name,
            "SAL" | "SHL" | "SHR" | "SAR" | "ROL" | "ROR" | "RCL" | "RCR"
        ) || double;
        let count = if shift { count_of(opcode, width, dx) } else { 0 };
        snippet::flat(&mut cpu, CodeSize::Bits32, 0);
        let after = intops::execute(&mut cpu, &bytes, before);
        let mask = intops::defined(&lower, width, count);
        let mask = if lower.starts_with("ro") || lower.starts_with("rc") {
            mask & 0x801
        } else {
            mask
        };
        // The program masks AF for CMP, and OF for SHLD, SHRD and shifts by CL whatever the count.
        let mask = match name {
            "CMP" => mask & !0x10,
            "SHLD" | "SHRD" => mask & 0xC5,
            _ if matches!(opcode, "D2" | "D3") => mask & if name.starts_with('R') { 1 } else { 0xC5 },
            _ => mask,
        };
        let good = match after {
            None => divide_error,
            Some(_) if divide_error => false,
            Some(r) => {
                let high = decimal || r.dx == want_dx;
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
    let kind = |f: &str| f.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let mut seen = std::collections::HashSet::new();
    for f in failures.iter().filter(|f| seen.insert(kind(f))).take(30) {
        println!("    {f}");
    }
    assert!(passed > 15_000);
    assert!(failures.is_empty(), "{} lines fail", failures.len());
}
