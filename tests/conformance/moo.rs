//! Single instructions in real mode against a Harris 80C286 and an Intel 386EX: `i286-real/`, `i386/00.MOO`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quintet_cpu_worker::exec::{RunExit, Vcpu};
use quintet_cpu_worker::state::{Activity, Flags, RIP, Segment, gpr, seg};
use quintet_protocol::addr::GuestPhys;
use quintet_tests::{moo, snippet, vectors};

const RAM: usize = (1 << 20) + (64 << 10);
/// Bits 12–15 of FLAGS are not compared, nor bit 1 and the other fixed ones.
const COMPARED: u32 = 0x0FD5;

/// Numbers in a snapshot with the register each stands for.
type Numbered = &'static [(usize, usize)];

/// Where register `n` of a 16-bit or 32-bit snapshot lies.
enum Place {
    Gpr(usize),
    Seg(usize),
    Rip,
    Flags,
    Ignored,
}

fn place(wide: bool, n: usize) -> Place {
    use gpr::*;
    let (gprs, segs, rip, flags): (Numbered, Numbered, usize, usize) = if wide {
        (
            &[
                (2, RAX),
                (3, RBX),
                (4, RCX),
                (5, RDX),
                (6, RSI),
                (7, RDI),
                (8, RBP),
                (9, RSP),
            ],
            &[
                (10, seg::CS),
                (11, seg::DS),
                (12, seg::ES),
                (13, seg::FS),
                (14, seg::GS),
                (15, seg::SS),
            ],
            16,
            17,
        )
    } else {
        (
            &[
                (0, RAX),
                (1, RBX),
                (2, RCX),
                (3, RDX),
                (8, RSP),
                (9, RBP),
                (10, RSI),
                (11, RDI),
            ],
            &[(4, seg::CS), (5, seg::SS), (6, seg::DS), (7, seg::ES)],
            12,
            13,
        )
    };
    if let Some((_, g)) = gprs.iter().find(|(i, _)| *i == n) {
        return Place::Gpr(*g);
    }
    if let Some((_, s)) = segs.iter().find(|(i, _)| *i == n) {
        return Place::Seg(*s);
    }
    if n == rip {
        Place::Rip
    } else if n == flags {
        Place::Flags
    } else {
        Place::Ignored
    }
}

fn load(cpu: &mut Vcpu, s: &moo::Snapshot) {
    cpu.reset();
    for n in 0..20 {
        let Some(v) = s.regs[n] else { continue };
        match place(s.wide, n) {
            Place::Gpr(g) => cpu.state.regs[g] = u64::from(v),
            Place::Seg(g) => cpu.state.segs[g] = Segment::real(v as u16),
            Place::Rip => cpu.state.regs[RIP] = u64::from(v),
            Place::Flags => cpu.state.flags = Flags::from_bits(u64::from(v & COMPARED | 2)),
            Place::Ignored => {}
        }
    }
    cpu.refresh_mode();
}

/// Where FLAGS were pushed by the case's exception. The capture names the address of the bus cycle, which is even:
/// FLAGS on an odd stack lie one byte above.
fn flags_address(case: &moo::Case) -> usize {
    let Some((_, at)) = case.exception else {
        return usize::MAX;
    };
    let odd = !case.init.wide && case.init.regs[8].is_some_and(|sp| sp & 1 != 0);
    at as usize | usize::from(odd)
}

/// Cases that contradict the 386 and its successors, with the reason. Nothing else is left out.
const CONTRADICTIONS: &[(&str, &str)] = &[(
    "1b586a4689",
    "C7 /7 in 11 bytes: too long for the 80286 (#GP), an undefined opcode (#UD) since the 80386",
)];

/// What differs, or nothing.
fn compare(cpu: &Vcpu, case: &moo::Case, file_mask: Option<u32>, expected: &[u8], seen: &[u8]) -> String {
    let mut diff = String::new();
    let wide = case.init.wide;
    let names: &[&str] = if wide { &moo::REGS32 } else { &moo::REGS16 };
    let width = if wide { u64::from(u32::MAX) } else { 0xFFFF };
    let flags_mask = COMPARED & case.fina.flags_mask.or(file_mask).unwrap_or(0xFFFF);
    for (n, name) in names.iter().enumerate() {
        let (seen, mask) = match place(wide, n) {
            Place::Gpr(g) => (cpu.state.regs[g] & width, u32::MAX),
            Place::Seg(g) => (u64::from(cpu.state.segs[g].selector), 0xFFFF),
            Place::Rip => (cpu.rip() & width, u32::MAX),
            Place::Flags => (cpu.state.flags.bits(), flags_mask),
            Place::Ignored => continue,
        };
        let want = case.fina.regs[n].or(case.init.regs[n]).unwrap_or(0);
        if (seen as u32 ^ want) & mask != 0 {
            let _ = write!(diff, " {name} {seen:04x} want {want:04x}");
        }
    }
    let masked = flags_address(case);
    let differing = if expected == seen { 0 } else { expected.len() };
    for (at, (&want, &got)) in expected.iter().zip(seen).enumerate().take(differing) {
        if want != got {
            let mask = match at.wrapping_sub(masked) {
                0 => flags_mask as u8,
                1 => (flags_mask >> 8) as u8,
                _ => 0xFF,
            };
            if (want ^ got) & mask != 0 {
                let _ = write!(diff, " [{at:05x}] {got:02x} want {want:02x}");
                if diff.len() > 300 {
                    break;
                }
            }
        }
    }
    diff
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// First failures by file.
    examples: BTreeMap<String, (usize, Vec<String>)>,
}

fn run_file(cpu: &mut Vcpu, path: &Path, tally: &mut Tally) {
    let file = moo::parse(&vectors::gunzip(path));
    let ram = cpu.mem.ram().clone();
    let mut expected = vec![0u8; RAM];
    let mut seen = vec![0u8; RAM];
    ram.write(GuestPhys(0), &expected).expect("clear RAM");
    for case in &file.cases {
        for &(at, v) in &case.init.ram {
            expected[at as usize] = v;
            ram.write(GuestPhys(u64::from(at)), &[v]).expect("load RAM");
        }
        cpu.discard_code();
        load(cpu, &case.init);
        let exit = cpu.run(100_000);
        for &(at, v) in &case.fina.ram {
            expected[at as usize] = v;
        }
        ram.read(GuestPhys(0), &mut seen).expect("read RAM");
        let mut diff = compare(cpu, case, file.flags_mask, &expected, &seen);
        if exit != RunExit::Idle || cpu.state.activity != Activity::Halted {
            let _ = write!(diff, " ended {exit:?}");
        }
        let contradicts = CONTRADICTIONS.iter().any(|(hash, _)| case.hash.starts_with(hash));
        if diff.is_empty() || contradicts {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let (count, some) = tally.examples.entry(name).or_default();
            *count += 1;
            if some.len() < 3 {
                let hash = &case.hash[..case.hash.len().min(10)];
                some.push(format!(
                    "{} {:02x?} ({hash}) exc {:?}:{diff}",
                    case.name, case.bytes, case.exception
                ));
            }
        }
        // Back to zero everywhere: what the case names, and whatever else it wrote.
        for &(at, _) in case.init.ram.iter().chain(&case.fina.ram) {
            expected[at as usize] = 0;
            ram.write(GuestPhys(u64::from(at)), &[0]).expect("clear RAM");
        }
        if !diff.is_empty() {
            ram.write(GuestPhys(0), &expected).expect("clear RAM");
        }
    }
}

/// Runs files on as many threads as there are cores and prints the table of failures.
fn run(files: &[PathBuf], translated: bool) -> (usize, usize) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|t| {
                let mine: Vec<_> = files.iter().skip(t).step_by(threads).cloned().collect();
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    let mut cpu = snippet::vcpu(RAM as u64);
                    if translated {
                        cpu.jit = Some(snippet::translator());
                    }
                    for path in mine {
                        run_file(&mut cpu, &path, &mut tally);
                    }
                    tally
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|h| h.join().expect("runner thread"))
            .collect()
    });
    for tally in &tallies {
        for (name, (count, some)) in &tally.examples {
            println!("{name}: {count} failed");
            for line in some {
                println!("    {line}");
            }
        }
    }
    (
        tallies.iter().map(|t| t.passed).sum(),
        tallies.iter().map(|t| t.failed).sum(),
    )
}

fn the_80286(translated: bool) {
    let Some(folder) = vectors::folder() else { return };
    let only = std::env::var("QUINTET_MOO").unwrap_or_default();
    let files = vectors::files(&folder.join("i286-real"), ".MOO.gz");
    let files: Vec<_> = files
        .into_iter()
        .filter(|p| {
            p.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .starts_with(&only)
        })
        .collect();
    assert!(!files.is_empty(), "no MOO files in {}", folder.display());
    let (passed, failed) = run(&files, translated);
    println!("i286-real: {passed} passed, {failed} failed");
    assert_eq!(
        failed,
        0,
        "{failed} of {} cases of the 80286 fail",
        passed + failed
    );
}

#[test]
fn every_real_mode_case_of_the_80286_passes() {
    the_80286(false);
}

#[test]
fn every_real_mode_case_of_the_80286_passes_translated() {
    the_80286(true);
}

fn the_386ex(translated: bool) {
    let Some(folder) = vectors::folder() else { return };
    let (passed, failed) = run(&[folder.join("i386/00.MOO.gz")], translated);
    println!("i386/00: {passed} passed, {failed} failed");
    assert!(passed + failed > 0);
    assert_eq!(
        failed,
        0,
        "{failed} of {} cases of the 386EX fail",
        passed + failed
    );
}

#[test]
fn every_case_of_the_386ex_passes() {
    the_386ex(false);
}

#[test]
fn every_case_of_the_386ex_passes_translated() {
    the_386ex(true);
}
