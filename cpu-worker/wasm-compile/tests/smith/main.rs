//! Random modules, instrumented and compiled here with their memory in guest RAM, beside plain wasmtime of the same
//! version: the same results, traps, calls, globals, tables and memory.
//!
//! `QUINTET_SMITH_SEED` is the first seed (0) and `QUINTET_SMITH_COUNT` how many there are (2 000, in the long form
//! 100 000; through a machine 100 and 10 000), so that a long campaign consists of runs that each go on where the last one ended.

mod machine;
mod modules;
mod plain;
#[path = "../support/mod.rs"]
mod support;

use machine::Machine;
use modules::{World, module};
use plain::{Log, Seen};
use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::wasm::{CompileLimits, JobLimits, LiveMemory, MEMORIES, MemoryState, WasmConfig};
use quintet_wasm_compile::{CHUNK, Refused, compile_in_chunks};
use support::Rig;

/// Guest RAM of the modules in pages of 64 KiB.
const PAGES: u64 = 20;
/// Differences that are shown before a run gives up.
const ENOUGH: usize = 5;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// First seed and number of seeds.
fn campaign(short: u64, long: u64) -> (u64, u64) {
    let usual = if std::env::var_os("QUINTET_LONG").is_some() {
        long
    } else {
        short
    };
    (
        number("QUINTET_SMITH_SEED").unwrap_or(0),
        number("QUINTET_SMITH_COUNT").unwrap_or(usual),
    )
}

/// Modules of each kind, for a look at whether anything was tested.
#[derive(Debug, Default)]
struct Tally {
    modules: u64,
    /// With references to host values, which do not run here.
    refused: u64,
    instrumented: u64,
    instantiated: u64,
    trapped: u64,
    returned: u64,
}

impl Tally {
    fn count(&mut self, seen: &Seen, instrumented: bool) {
        self.modules += 1;
        self.instrumented += u64::from(instrumented);
        let refused = seen.lines.first().is_some_and(|l| l.starts_with("instantiate"));
        self.instantiated += u64::from(!refused);
        let calls = seen.lines.iter().filter_map(|l| l.split_once(": "));
        for (_, outcome) in calls.filter(|(name, _)| *name != "instantiate") {
            let trap = outcome.starts_with("wasm trap") || outcome == "refused";
            *if trap {
                &mut self.trapped
            } else {
                &mut self.returned
            } += 1;
        }
    }
}

/// The module's life here; `None` when it does not run here. `peers` are its memories as another process sees them: the
/// generation counts whenever the size changes (S2.3).
fn ours(rig: &Rig, peers: &[LiveMemory], bytes: &[u8], seed: u64) -> Option<(Seen, bool)> {
    // Chunks of some bytes, so that there are many in a small memory; every eighth module as it is in a machine.
    let chunk = if seed.is_multiple_of(8) {
        CHUNK
    } else {
        1 + (seed % 4099) as u32
    };
    let artefact = match compile_in_chunks(bytes, &CompileLimits::default(), chunk) {
        // wasm-smith cannot be told to leave them out.
        Err(Refused::ExternRef) => return None,
        other => other.expect("a valid module"),
    };
    let instrumented = artefact.instrumented;
    let payload = Payload::from_vec(PayloadKind::WasmArtefact, artefact.bytes);
    let module = rig.runtime.load(&payload).expect("loads");
    let (mut store, mut linker) = rig
        .runtime
        .prepare(
            &WasmConfig::default(),
            JobLimits::NONE,
            Box::new(rig.around.clone()),
        )
        .expect("prepares");
    let log = Log::default();
    plain::imports(&mut linker, &log);
    let mut before: Option<(u64, u32)> = None;
    let seen = plain::live(&mut store, &linker, &module, &log, seed, |size| {
        let words: Vec<_> = peers.iter().map(|p| p.words().expect("words")).collect();
        let size = size?;
        let live = words.iter().filter(|w| w.state == MemoryState::Live);
        let told: u64 = live.map(|w| u64::from(w.pages)).sum();
        let generation = words.iter().fold(0, |sum: u32, w| sum.wrapping_add(w.generation));
        let silent =
            before.is_some_and(|(pages, last)| pages != size && (generation == last || told != size));
        before = Some((size, generation));
        silent.then(|| format!("{size} pages and nobody was told: {words:?}"))
    });
    Some((seen, instrumented))
}

#[test]
fn s2_3_s2_9_s2_10_random_modules_do_what_they_do_in_plain_wasmtime() {
    let (first, count) = campaign(2_000, 100_000);
    let rig = Rig::with_pages(PAGES);
    let peers: Vec<_> = (0..MEMORIES).map(|n| rig.peer_of(n)).collect();
    let engine = plain::engine();
    let mut tally = Tally::default();
    let mut different = Vec::new();
    for seed in first..first + count {
        let Some(bytes) = module(seed, World::Test) else {
            continue;
        };
        let Some((ours, instrumented)) = ours(&rig, &peers, &bytes, seed) else {
            tally.refused += 1;
            continue;
        };
        let theirs = plain::run(&engine, &bytes, seed);
        tally.count(&theirs, instrumented);
        if ours != theirs {
            let at = ours.lines.iter().zip(&theirs.lines).find(|(a, b)| a != b);
            let file = std::env::temp_dir().join(format!("quintet-smith-{seed}.wasm"));
            std::fs::write(&file, &bytes).expect("kept");
            let text = format!("seed {seed}, {}: {at:?}", file.display());
            println!("{text}");
            different.push(text);
            if different.len() == ENOUGH {
                break;
            }
        }
        if seed % 10_000 == 9_999 {
            println!("up to seed {seed}: {tally:?}");
        }
    }
    println!("seeds {first} to {}: {tally:?}", first + count - 1);
    assert!(different.is_empty(), "{different:#?}");
    assert!(tally.modules > count / 2, "{tally:?}");
    assert!(tally.instrumented > count / 20, "{tally:?}");
    assert!(
        tally.returned > count / 2 && tally.trapped > count / 20,
        "{tally:?}"
    );
}

/// What a report says of a job, as [`plain::report`] has it; `None` for a module that does not run here.
fn told(line: &str) -> Option<Result<i64, String>> {
    let report: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let error = report["error"].as_str().unwrap_or_default();
    if error.contains("externref") {
        return None;
    }
    Some(
        match (report["status"].as_str(), report["return_code"].as_i64()) {
            (Some("Executed Successfully"), Some(code)) => Ok(code),
            // A trap by its name; a refusal in words of its own.
            (Some("Execution Failed" | "Instantiate Failed"), None) if error.starts_with("wasm trap") => {
                Err(error.to_owned())
            }
            (Some("Instantiate Failed"), None) => Err("refused".to_owned()),
            _ => Err(line.to_owned()),
        },
    )
}

#[test]
fn s1_6_random_modules_through_a_whole_machine_give_what_plain_wasmtime_gives() {
    let Some(quintet) = machine::quintet() else {
        eprintln!("skipped: the machine is not built beside the compiler; `cargo xtask test` builds it");
        assert!(std::env::var_os("CI").is_none(), "it has to be there");
        return;
    };
    let (first, count) = campaign(100, 10_000);
    let machine = Machine::start(quintet);
    let engine = plain::engine();
    let folder = std::env::temp_dir().join(format!("quintet-smith-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (mut same, mut different) = (0, Vec::new());
    let seeds: Vec<u64> = (first..first + count).collect();
    for group in seeds.chunks(100) {
        let made: Vec<(u64, Vec<u8>)> = group
            .iter()
            .filter_map(|seed| Some((*seed, module(*seed, World::Machine)?)))
            .collect();
        let files: Vec<_> = made
            .iter()
            .map(|(seed, bytes)| {
                let file = folder.join(format!("{seed}.wasm"));
                std::fs::write(&file, bytes).expect("a file");
                file
            })
            .collect();
        let reports = machine.submit(&files);
        assert_eq!(reports.len(), files.len(), "from seed {}", group[0]);
        for ((seed, bytes), line) in made.iter().zip(&reports) {
            let Some(ours) = told(line) else { continue };
            let theirs = plain::report(&engine, bytes, machine::RAM);
            if ours == theirs {
                same += 1;
            } else {
                different.push(format!("seed {seed}: {ours:?}, plain {theirs:?}"));
            }
        }
        files.iter().for_each(|file| drop(std::fs::remove_file(file)));
    }
    let _ = std::fs::remove_dir_all(&folder);
    println!("{same} modules of seeds from {first} on");
    assert!(different.is_empty(), "{different:#?}");
    assert!(same > count / 3, "{same}");
}
