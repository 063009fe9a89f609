//! What the translator makes of a few blocks, as text: `blocks/*.txt`, and how many host instructions each takes: `counts.txt`.
//!
//! A file names a kind of code and the guest's bytes, one instruction a line. What stands behind the line of dashes is written anew with
//! `QUINTET_BLESS` set; the difference in a commit then shows what a change of the translator does.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use iced_x86::{Decoder, DecoderOptions, Formatter as _, IntelFormatter};
use quintet_cpu_worker::exec::Vcpu;
use quintet_cpu_worker::jit::Listing;
use quintet_cpu_worker::state::{Activity, CodeSize, RIP, Segment, gpr, seg};
use quintet_protocol::addr::GuestPhys;
use quintet_tests::snippet;

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x5_0000;
const RULE: &str = "----";

/// A file's upper part.
struct Block {
    /// `16`, `32`, `32 segmented` or `64`.
    kind: String,
    comments: String,
    bytes: Vec<u8>,
}

fn parse(text: &str, path: &Path) -> Block {
    let wrong = |line: &str| -> ! { panic!("{}: {line:?} is neither", path.display()) };
    let mut block = Block {
        kind: String::new(),
        comments: String::new(),
        bytes: Vec::new(),
    };
    for line in text.lines().take_while(|line| *line != RULE) {
        if let Some(kind) = line.strip_prefix("code: ") {
            block.kind = kind.to_owned();
        } else if line.starts_with(';') || line.is_empty() {
            let _ = writeln!(block.comments, "{line}");
        } else {
            for word in line.split(';').next().unwrap_or_default().split_whitespace() {
                let byte = u8::from_str_radix(word, 16).unwrap_or_else(|_| wrong(line));
                block.bytes.push(byte);
            }
        }
    }
    assert!(!block.bytes.is_empty(), "{} has no code", path.display());
    block
}

fn bits(kind: &str) -> u32 {
    kind.split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .expect("16, 32 or 64")
}

/// Has `block` executed once, and gives what it became.
fn translate(block: &Block) -> Listing {
    let size = match bits(&block.kind) {
        16 => CodeSize::Bits16,
        32 => CodeSize::Bits32,
        _ => CodeSize::Bits64,
    };
    let mut cpu: Box<Vcpu> = snippet::vcpu(8 << 20);
    cpu.jit = Some(snippet::translator());
    snippet::flat(&mut cpu, size, CODE);
    let mut ip = CODE;
    if size == CodeSize::Bits16 {
        cpu.state.segs[seg::CS].base = CODE;
        ip = 0;
    }
    if block.kind != "64" && block.kind != "32" {
        for s in [seg::DS, seg::ES, seg::SS] {
            cpu.state.segs[s] = Segment::new(16, DATA, 0xFFFF, cpu.state.segs[s].attr);
        }
    }
    let ram = cpu.mem.ram().clone();
    ram.write(GuestPhys(CODE), &block.bytes).expect("in RAM");
    // Behind the block, and wherever it jumps to.
    ram.write(GuestPhys(CODE + block.bytes.len() as u64), &[0xF4; 64])
        .expect("in RAM");
    let at = if size == CodeSize::Bits16 || block.kind.ends_with("segmented") {
        0
    } else {
        DATA
    };
    for n in 0..if size == CodeSize::Bits64 { 16 } else { 8 } {
        cpu.state.regs[n] = at + 0x1000 + 0x100 * n as u64;
    }
    cpu.state.regs[gpr::RCX] = 1;
    cpu.state.regs[RIP] = ip;
    cpu.state.activity = Activity::Active;
    cpu.refresh_mode();
    // The block's translation alone: what follows it is translated when it is reached.
    let _ = cpu.run(1);
    let jit = cpu.jit.as_ref().expect("it has one");
    let listing = jit.oldest().expect("the block was executed");
    assert_eq!(listing.rip, ip);
    listing
}

fn guest(block: &Block) -> (String, usize) {
    let mut text = String::new();
    let mut count = 0;
    let mut formatter = IntelFormatter::new();
    for i in Decoder::with_ip(bits(&block.kind), &block.bytes, 0, DecoderOptions::NONE).iter() {
        text.push_str("    ");
        formatter.format(&i, &mut text);
        text.push('\n');
        count += 1;
    }
    (text, count)
}

/// The file as it ought to be, and the line of the table of counts.
fn render(path: &Path) -> (String, String) {
    let text = std::fs::read_to_string(path).expect("a block's file");
    let block = parse(&text, path);
    let head = text
        .split(&format!("{RULE}\n"))
        .next()
        .unwrap_or_default()
        .trim_end();
    let (source, count) = guest(&block);
    let listing = translate(&block);
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let share = listing.straight as f64 / count as f64;
    let whole = format!(
        "{head}\n{RULE}\nguest, {count} instructions:\n{source}host, {} instructions straight on:\n{}",
        listing.straight, listing.text
    );
    let line = format!(
        "{name:<24}{:<14}{count:>6}{:>6}{share:>8.1}\n",
        block.kind, listing.straight
    );
    (whole, line)
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/jit_listing/blocks");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of blocks")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

/// Compares, or writes anew.
fn settle(path: &Path, now: &str) {
    if std::env::var_os("QUINTET_BLESS").is_some() {
        std::fs::write(path, now).expect("writable");
        return;
    }
    let old = std::fs::read_to_string(path).unwrap_or_default();
    let apart = old.lines().zip(now.lines()).find(|(a, b)| a != b);
    assert!(
        old == now,
        "{}: {apart:?}; QUINTET_BLESS=1 writes it anew",
        path.display()
    );
}

#[test]
fn blocks_become_the_host_code_that_is_written_down() {
    let mut table = format!(
        "{:<24}{:<14}{:>6}{:>6}{:>8}\n",
        "block", "code", "guest", "host", "host/1"
    );
    for path in files() {
        let (whole, line) = render(&path);
        settle(&path, &whole);
        table.push_str(&line);
    }
    let counts = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/jit_listing/counts.txt");
    settle(&counts, &table);
}
