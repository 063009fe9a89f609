//! A module here beside plain wasmtime of the same version: `cargo bench -p quintet-wasm-compile`. Results stand in
//! `docs/performance.md`.
//!
//! The loops run in turn in each engine, round after round, so that a busy host hits all of them; ratios are those of
//! the least processor times.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;

use quintet_protocol::payload::{Payload, PayloadKind};
use quintet_protocol::wasm::{CompileLimits, JobLimits, WasmConfig};
use quintet_wasm::engine::TICK;
use quintet_wasm::host::Host;
use quintet_wasm_compile::compile;
use rustix::time::{ClockId, clock_gettime};
use support::Rig;
use wasmtime::{
    Config, Engine, Linker, Module, OptLevel, RegallocAlgorithm, Store, TypedFunc, UpdateDeadline,
};

/// Rounds of every loop in every engine.
const ROUNDS: usize = 200;

/// Loops by name, turns, text. Each is a function of its number of turns.
const LOOPS: [(&str, i32, &str); 9] = [
    (
        "sieve of a mebibyte",
        1,
        "(func (export \"run\") (param $turns i32) (result i32) (local $i i32) (local $j i32) (local $n i32)
            (loop $turn
                (local.set $n (i32.const 0))
                (memory.fill (i32.const 0) (i32.const 1) (i32.const 1048576))
                (local.set $i (i32.const 2))
                (loop $next
                    (if (i32.load8_u (local.get $i)) (then
                        (local.set $n (i32.add (local.get $n) (i32.const 1)))
                        (local.set $j (i32.shl (local.get $i) (i32.const 1)))
                        (block $done (loop $strike
                            (br_if $done (i32.ge_u (local.get $j) (i32.const 1048576)))
                            (i32.store8 (local.get $j) (i32.const 0))
                            (local.set $j (i32.add (local.get $j) (local.get $i)))
                            (br $strike)))))
                    (br_if $next (i32.lt_u
                        (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1048576))))
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (local.get $n))",
    ),
    (
        "integer mixing",
        2_000_000,
        "(func (export \"run\") (param $turns i32) (result i32) (local $x i64)
            (local.set $x (i64.const 88172645463325252))
            (loop $turn
                (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
                (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
                (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (i32.wrap_i64 (local.get $x)))",
    ),
    (
        "words of memory",
        6,
        "(func (export \"run\") (param $turns i32) (result i32) (local $i i32) (local $sum i32)
            (loop $turn
                (local.set $i (i32.const 0))
                (loop $word
                    (local.set $sum (i32.add (local.get $sum) (i32.load (local.get $i))))
                    (i32.store offset=1048576 (local.get $i) (local.get $sum))
                    (br_if $word (i32.lt_u
                        (local.tee $i (i32.add (local.get $i) (i32.const 4))) (i32.const 1048576))))
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (local.get $sum))",
    ),
    (
        "matrices of f64",
        1,
        "(func (export \"run\") (param $turns i32) (result i32)
            (local $i i32) (local $j i32) (local $k i32) (local $s f64)
            (loop $turn
                (local.set $i (i32.const 0))
                (loop $row
                    (local.set $j (i32.const 0))
                    (loop $column
                        (local.set $k (i32.const 0)) (local.set $s (f64.const 0))
                        (loop $dot
                            (local.set $s (f64.add (local.get $s) (f64.mul
                                (f64.load (i32.add (i32.mul (local.get $i) (i32.const 1024))
                                    (i32.shl (local.get $k) (i32.const 3))))
                                (f64.load offset=131072 (i32.add (i32.mul (local.get $k) (i32.const 1024))
                                    (i32.shl (local.get $j) (i32.const 3)))))))
                            (br_if $dot (i32.lt_u
                                (local.tee $k (i32.add (local.get $k) (i32.const 1))) (i32.const 128))))
                        (f64.store offset=262144 (i32.add (i32.mul (local.get $i) (i32.const 1024))
                            (i32.shl (local.get $j) (i32.const 3))) (local.get $s))
                        (br_if $column (i32.lt_u
                            (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 128))))
                    (br_if $row (i32.lt_u
                        (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 128))))
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (i32.trunc_sat_f64_s (local.get $s)))",
    ),
    (
        "calls",
        25,
        "(func $fib (param $n i32) (result i32)
            (if (result i32) (i32.lt_u (local.get $n) (i32.const 2)) (then (local.get $n))
                (else (i32.add (call $fib (i32.sub (local.get $n) (i32.const 1)))
                    (call $fib (i32.sub (local.get $n) (i32.const 2)))))))
        (export \"run\" (func $fib))",
    ),
    (
        "calls through a table",
        500_000,
        "(type $f (func (param i32) (result i32)))
        (table 2 2 funcref) (elem (i32.const 0) $a $b)
        (func $a (param i32) (result i32) (i32.add (local.get 0) (i32.const 3)))
        (func $b (param i32) (result i32) (i32.rotl (local.get 0) (i32.const 5)))
        (func (export \"run\") (param $turns i32) (result i32) (local $x i32)
            (loop $turn
                (local.set $x (call_indirect (type $f) (local.get $x)
                    (i32.and (local.get $turns) (i32.const 1))))
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (local.get $x))",
    ),
    (
        "copies of 64 bytes",
        100_000,
        "(func (export \"run\") (param $turns i32) (result i32)
            (loop $turn
                (memory.copy (i32.const 65536) (i32.and (local.get $turns) (i32.const 0xFFC0)) (i32.const 64))
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (i32.load (i32.const 65536)))",
    ),
    (
        "copies of 1 to 64 bytes",
        100_000,
        "(func (export \"run\") (param $turns i32) (result i32)
            (loop $turn
                (memory.copy (i32.const 65536) (i32.and (local.get $turns) (i32.const 0xFFC0)) (i32.add (i32.and (local.get $turns) (i32.const 63)) (i32.const 1)))
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (i32.load (i32.const 65536)))",
    ),
    (
        "fills of 1 to 64 bytes",
        100_000,
        "(func (export \"run\") (param $turns i32) (result i32)
            (loop $turn
                (memory.fill (i32.const 65536) (local.get $turns) (i32.add (i32.and (local.get $turns) (i32.const 63)) (i32.const 1)))
                (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
            (i32.load (i32.const 65536)))",
    ),
];

/// Processor time of this thread in milliseconds.
fn cpu_millis() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// One engine's instance of one loop.
struct Contender<T: 'static> {
    store: Store<T>,
    run: TypedFunc<i32, i32>,
    least: f64,
}

impl<T: 'static> Contender<T> {
    fn new(mut store: Store<T>, linker: &Linker<T>, module: &Module) -> Self {
        let instance = linker.instantiate(&mut store, module).expect("instantiates");
        let run = instance.get_typed_func(&mut store, "run").expect("exported");
        Self {
            store,
            run,
            least: f64::INFINITY,
        }
    }

    /// Runs once; the answer, and milliseconds remembered if they are the least.
    fn turn(&mut self, turns: i32) -> i32 {
        let start = cpu_millis();
        let answer = self.run.call(&mut self.store, black_box(turns)).expect("runs");
        self.least = self.least.min(cpu_millis() - start);
        answer
    }
}

/// Plain wasmtime, interrupted as modules here are or not at all.
fn plain(interrupted: bool, module: &[u8]) -> Contender<()> {
    let mut config = Config::new();
    config.epoch_interruption(interrupted);
    let engine = Engine::new(&config).expect("engine");
    let mut store = Store::new(&engine, ());
    if interrupted {
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(1)));
        let ticking = engine.weak();
        std::thread::spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        });
    }
    let module = Module::new(&engine, module).expect("compiles");
    Contender::new(store, &Linker::new(&engine), &module)
}

/// How much work Cranelift takes upon itself.
const EFFORTS: [(&str, OptLevel, RegallocAlgorithm); 3] = [
    ("as here", OptLevel::Speed, RegallocAlgorithm::Backtracking),
    ("no optimisation", OptLevel::None, RegallocAlgorithm::Backtracking),
    (
        "no optimisation, registers in one pass",
        OptLevel::None,
        RegallocAlgorithm::SinglePass,
    ),
];

/// An artefact for the engine here.
fn artefact(module: &[u8], effort: usize) -> Vec<u8> {
    let (_, level, registers) = &EFFORTS[effort];
    let mut config = quintet_wasm::engine::config();
    config.cranelift_opt_level(*level);
    config.cranelift_regalloc_algorithm(*registers);
    let engine = Engine::new(&config).expect("engine");
    engine.precompile_module(module).expect("compiles")
}

/// A module of a thousand and a half kilobytes of code.
fn code() -> Vec<u8> {
    let mut text = String::from("(module (memory 1)\n");
    let mut n = 1u32;
    let mut next = || {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        n >> 8
    };
    for function in 0..3_000 {
        text += "(func (param i32 i32) (result i32) (local i32 i64)\n";
        for _ in 0..40 {
            let (a, b, k) = (next() % 3, next() % 3, next());
            text += &match next() % 6 {
                0 => format!("(local.set {a} (i32.add (local.get {b}) (i32.const {k})))\n"),
                1 => format!("(local.set {a} (i32.mul (local.get {b}) (local.get {a})))\n"),
                2 => format!("(local.set {a} (i32.load offset={} (local.get {b})))\n", k % 4096),
                3 => format!(
                    "(i32.store offset={} (local.get {b}) (local.get {a}))\n",
                    k % 4096
                ),
                4 => format!(
                    "(if (local.get {a}) (then (local.set {b} (i32.rotl (local.get {a}) (i32.const 7)))))\n"
                ),
                _ => format!("(local.set 3 (i64.xor (local.get 3) (i64.extend_i32_u (local.get {a}))))\n"),
            };
        }
        text += "(i32.xor (local.get 2) (i32.wrap_i64 (local.get 3))))\n";
        if function == 0 {
            text += "(export \"run\" (func 0))";
        }
    }
    wat::parse_str(text + ")").expect("assembles")
}

/// Compilation and its fruit, by effort.
fn efforts(rig: &Rig) {
    let large = code();
    println!(
        "\n| effort | {} bytes of module: ms | × here | loops × here |",
        large.len()
    );
    println!("|---|---:|---:|---:|");
    let modules: Vec<_> = LOOPS
        .iter()
        .map(|(_, turns, text)| {
            (
                *turns,
                wat::parse_str(format!("(module (memory 40) {text})")).expect("assembles"),
            )
        })
        .collect();
    let mut least = [f64::INFINITY; EFFORTS.len()];
    for _ in 0..ROUNDS / 40 {
        for (effort, least) in least.iter_mut().enumerate() {
            let start = cpu_millis();
            black_box(artefact(&large, effort));
            *least = least.min(cpu_millis() - start);
        }
    }
    let mut loops = [0.0f64; EFFORTS.len()];
    for (turns, module) in &modules {
        // One memory at a time is guest RAM: one contender after another.
        let times = [0, 1, 2].map(|effort| {
            let mut contender = load(rig, artefact(module, effort));
            for _ in 0..ROUNDS / 4 {
                contender.turn(*turns);
            }
            contender.least
        });
        loops
            .iter_mut()
            .zip(times)
            .for_each(|(sum, t)| *sum += (t / times[0]).ln());
    }
    for (effort, (name, ..)) in EFFORTS.iter().enumerate() {
        let mean = (loops[effort] / modules.len() as f64).exp();
        println!(
            "| {name} | {:.0} | {:.2} | {mean:.2} |",
            least[effort],
            least[effort] / least[0]
        );
    }
}

fn ours(rig: &Rig, module: &[u8]) -> Contender<Host> {
    load(
        rig,
        compile(module, &CompileLimits::default())
            .expect("compiles")
            .bytes,
    )
}

fn load(rig: &Rig, artefact: Vec<u8>) -> Contender<Host> {
    let payload = Payload::from_vec(PayloadKind::WasmArtefact, artefact);
    let module = rig.runtime.load(&payload).expect("loads");
    let around = Box::new(rig.around.clone());
    let prepared = rig
        .runtime
        .prepare(&WasmConfig::default(), JobLimits::NONE, around);
    let (store, linker) = prepared.expect("prepares");
    Contender::new(store, &linker, &module)
}

/// What stands before a loop's function: nothing, or a function that moves it by sixteen bytes. Where a loop lies decides over
/// a tenth of its time, for each engine differently.
const PLACES: [&str; 2] = ["", "(func (param i32) (result i32) (local.get 0))"];

/// Least times of one loop, milliseconds: here, in plain wasmtime with the same interruption, and without; one for each place.
fn race(rig: &Rig, name: &str, turns: i32, text: &str) -> [[f64; 3]; PLACES.len()] {
    PLACES.map(|before| {
        let module = wat::parse_str(format!("(module (memory 40) {before} {text})")).expect("assembles");
        let mut here = ours(rig, &module);
        let (mut same, mut bare) = (plain(true, &module), plain(false, &module));
        for _ in 0..ROUNDS / PLACES.len() {
            let answers = [here.turn(turns), same.turn(turns), bare.turn(turns)];
            assert!(answers.iter().all(|a| *a == answers[0]), "{name}: {answers:?}");
        }
        [here.least, same.least, bare.least]
    })
}

fn mean(of: impl Iterator<Item = f64> + Clone) -> f64 {
    (of.clone().map(f64::ln).sum::<f64>() / of.count() as f64).exp()
}

fn loops(rig: &Rig) {
    println!(
        "| loop | here ms | plain, interrupted ms | plain ms | here : interrupted | interrupted : plain |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let mut all = Vec::new();
    for (name, turns, text) in LOOPS {
        let times = race(rig, name, turns, text);
        let [here, same, bare] = [0, 1, 2].map(|n| mean(times.iter().map(|t| t[n])));
        let ratios = [here / same, same / bare];
        println!(
            "| {name} | {here:.2} | {same:.2} | {bare:.2} | {:.3} | {:.3} |",
            ratios[0], ratios[1]
        );
        all.push(ratios);
    }
    let [ours, interruption] = [0, 1].map(|n| mean(all.iter().map(|r| r[n])));
    println!("| geometric mean | | | | {ours:.3} | {interruption:.3} |");
}

fn main() {
    // `cargo test --benches` only wants to know that this links and starts.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let rig = Rig::new();
    loops(&rig);
    efforts(&rig);
}
