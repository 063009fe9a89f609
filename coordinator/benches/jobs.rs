//! What a job costs apart from itself, in a real machine: `cargo bench -p quintet-coordinator --bench jobs`, with the
//! name of one part behind `--` for that part alone. Results stand in `docs/performance.md`. The workers and the compiler are those of the same profile, beside the coordinator.

#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "../tests/modules/mod.rs"]
mod modules;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use modules::{ANSWER, Job, Module, machine, machine_with, module, report};
use quintet_coordinator::wasm::watch::attach;
use quintet_protocol::wasm::{JobStatus, MemoryView};

/// Times each thing is done.
const TIMES: usize = 60;
/// A large module in bytes.
const LARGE: usize = 20_000_000;

/// Until whatever goes on beside a large job has ended.
const QUIET: Duration = Duration::from_millis(100);

/// Least, median and 90th hundredth.
fn show(what: &str, mut millis: Vec<f64>) {
    millis.sort_by(f64::total_cmp);
    let n = millis.len();
    println!(
        "| {what} | {:.3} | {:.3} | {:.3} | {n} |",
        millis[0],
        millis[n / 2],
        millis[n * 9 / 10]
    );
}

fn timed<T>(what: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let answer = what();
    (start.elapsed().as_secs_f64() * 1e3, answer)
}

/// The same module again, asked for as a process does, and as `quintet submit` from its start to its end.
fn second_job() {
    let machine = machine("bench-second");
    for (name, bytes) in [
        ("small", module(&ANSWER, 100)),
        ("1.5 MB", module(&ANSWER, modules::LARGE)),
    ] {
        let job = Job::new(&bytes);
        assert!(!job.run(&machine).cached);
        let mut inside = Vec::new();
        for _ in 0..TIMES {
            let (millis, report) = timed(|| job.run(&machine));
            assert!(report.cached && report.return_code == Some(42), "{report:?}");
            inside.push(millis);
        }
        show(&format!("second job, {name}"), inside);
        let file = Module::new("bench", &bytes);
        let mut whole = Vec::new();
        for _ in 0..TIMES {
            let mut submit = Command::new(harness::quintet());
            submit
                .args(["submit", &machine.name])
                .arg(&file.0)
                .stdout(Stdio::null());
            let (millis, status) = timed(|| submit.status().expect("starts"));
            assert!(status.success());
            whole.push(millis);
        }
        show(&format!("second job, {name}, `quintet submit` and all"), whole);
    }
}

/// Twenty megabytes on their way: from the request to the report, without validation, instrumentation, compilation and
/// the job itself.
fn transport() {
    let machine = machine_with("bench-large", &[]);
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for n in 0..TIMES / 3 {
        let mut bytes = module(&ANSWER, LARGE);
        // Another module each time.
        bytes[LARGE - 8..].copy_from_slice(&(n as u64).to_le_bytes());
        let job = Job::new(&bytes);
        let (millis, ran) = timed(|| job.run(&machine));
        assert!(!ran.cached && ran.return_code == Some(42), "{ran:?}");
        let compiler: u64 = ran.compiler_micros.iter().sum();
        first.push(millis - (compiler + ran.run_micros) as f64 / 1e3);
        // The coordinator takes its own digest beside the job, and would take it beside the next one.
        std::thread::sleep(QUIET);
        let (millis, ran) = timed(|| job.run(&machine));
        assert!(ran.cached, "{ran:?}");
        again.push(millis - ran.run_micros as f64 / 1e3);
        std::thread::sleep(QUIET);
    }
    show("20 MB, without compilation and run", first);
    show("20 MB again, without run", again);
    let trace = harness::run_to_end(&["debug", &machine.name, "transport"]);
    print!("{}", modules::text(&trace));
}

/// Stores the time, turn after turn.
const CLOCK: &str = "(module
    (import \"quintet\" \"now\" (func $now (result i64)))
    (memory 1 4)
    (func (export \"main\") (local $n i32)
        (loop
            (i64.store (i32.const 8) (call $now))
            (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000000))))))";

fn word(view: &MemoryView) -> Option<u64> {
    let mut bytes = [0; 8];
    view.read(8, &mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// How old what another process sees of a spinning guest's stores is.
fn stores() {
    let machine = machine("bench-stores");
    let watched = attach(&machine.name, 0).expect("it may be watched");
    let asked = Job::wat(CLOCK).submit(&machine);
    let mut view = None;
    harness::wait_until("it counts", || {
        view = watched.memory.view().ok();
        view.as_ref().and_then(word).is_some_and(|n| n > 0)
    });
    let view = view.expect("just seen");
    let (mut ages, mut last) = (Vec::new(), 0);
    while let Some(then) = word(&view) {
        let now = watched.clock.now().0;
        if then != last {
            last = then;
            ages.push(now.saturating_sub(then) as f64 / 1e6);
        }
    }
    assert_eq!(report(asked).status, JobStatus::Executed);
    show("age of a store when another process has read it", ages);
}

fn main() {
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    println!("| | least ms | median ms | 90 % ms | times |");
    println!("|---|---:|---:|---:|---:|");
    let only = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    for (name, run) in [
        ("second_job", second_job as fn()),
        ("stores", stores),
        ("transport", transport),
    ] {
        if only.as_deref().is_none_or(|o| name.contains(o)) {
            run();
        }
    }
}
