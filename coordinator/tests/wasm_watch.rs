//! What another process sees of a module's memory, without a message.

mod harness;
mod modules;

use std::time::Duration;

use modules::{Job, Module, machine, report, text};
use quintet_coordinator::wasm::watch::attach;
use quintet_protocol::wasm::{JobStatus, MemoryView, ViewError};

fn word(view: &MemoryView, at: u64) -> Result<u64, ViewError> {
    let mut bytes = [0; 8];
    view.read(at, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Says when it grows, by nothing, 200 times, every 3 ms; counts in between.
const BEACON: &str = "(module
    (import \"quintet\" \"now\" (func $now (result i64)))
    (import \"quintet\" \"sleep\" (func $sleep (param i64)))
    (memory 1 4)
    (func (export \"main\") (result i32) (local $n i32)
        (loop
            (call $sleep (i64.const 3000000))
            (i64.store (i32.const 8) (i64.extend_i32_u (local.get $n)))
            (i64.store (i32.const 0) (call $now))
            (drop (memory.grow (i32.const 0)))
            (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 200))))
        (local.get $n)))";

#[test]
fn s2_33_s2_20_another_process_sleeps_on_the_generation_and_sees_each_detach() {
    let machine = machine("beacon");
    let watched = attach(&machine.name, 0).expect("it may be watched");
    let memory = &watched.memory;
    assert!(matches!(memory.view(), Err(ViewError::NoMemory(_))));
    let asked = Job::wat(BEACON).submit(&machine);
    let mut view = None;
    harness::wait_until("there is a memory", || {
        view = memory.view().ok();
        view.is_some()
    });
    let mut view = view.expect("just seen");
    let first = view.generation();
    let mut delays = Vec::new();
    while memory.wait_detached(&view, harness::PATIENCE) {
        let now = watched.clock.now().0;
        assert_eq!(view.len(), 0);
        let Ok(next) = memory.view() else { break };
        // One that has been overtaken says nothing about the delay.
        if let (Ok(then), true) = (
            word(&next, 0),
            next.generation() == view.generation().wrapping_add(1),
        ) && next.check().is_ok()
        {
            delays.push(now.saturating_sub(then));
        }
        view = next;
    }
    let ran = report(asked);
    assert_eq!(
        (ran.status, ran.return_code),
        (JobStatus::Executed, Some(200)),
        "{ran:?}"
    );
    let words = memory.words().expect("readable");
    assert!(words.generation > first, "{first} {words:?}");
    assert!(matches!(memory.view(), Err(ViewError::NoMemory(_))));
    delays.sort_unstable();
    assert!(!delays.is_empty());
    println!(
        "{} detaches seen of 200, median {} us, largest {} us",
        delays.len(),
        delays[delays.len() / 2] / 1000,
        delays[delays.len() - 1] / 1000
    );
}

#[test]
fn s2_35_s2_36_another_process_sees_stores_while_the_guest_spins_and_may_not_write() {
    let machine = machine("spinner");
    let spin = Job::wat(
        "(module (memory 1) (func (export \"main\")
            (loop (i64.store (i32.const 16) (i64.add (i64.load (i32.const 16)) (i64.const 1))) (br 0))))",
    );
    let asked = spin.millis(1500).submit(&machine);
    let watched = attach(&machine.name, 0).expect("it may be watched");
    let mut view = None;
    harness::wait_until("it counts", || {
        view = watched.memory.view().ok();
        view.as_ref().is_some_and(|v| word(v, 16).is_ok_and(|n| n > 0))
    });
    let view = view.expect("just seen");
    let first = word(&view, 16).expect("attached");
    harness::wait_until("it counts on", || word(&view, 16).is_ok_and(|n| n > first));
    assert_eq!(view.write(16, &[0]), Err(ViewError::ReadOnly));
    assert!(
        watched.memory.wait_detached(&view, harness::PATIENCE),
        "the end detaches"
    );
    assert_eq!(report(asked).status, JobStatus::ExecutionFailed);
}

#[test]
fn s2_34_the_death_of_the_worker_detaches_in_another_process() {
    let machine = machine("orphan");
    let asked = Job::wat("(module (memory 3) (func (export \"main\") (loop br 0)))").submit(&machine);
    let watched = attach(&machine.name, 0).expect("it may be watched");
    let mut view = None;
    harness::wait_until("there is a memory", || {
        view = watched.memory.view().ok();
        view.is_some()
    });
    let view = view.expect("just seen");
    let id = watched.memory.words().expect("readable").id;
    machine.signal(
        quintet_protocol::handshake::Role::Cpu,
        rustix::process::Signal::KILL,
    );
    assert!(watched.memory.wait_detached(&view, harness::PATIENCE));
    assert_eq!(view.len(), 0);
    assert_eq!(report(asked).status, JobStatus::WorkerDied);
    let next = Job::wat("(module (memory 1) (func (export \"main\") (loop br 0)))");
    let asked = next.millis(1000).submit(&machine);
    harness::wait_until("the next memory is there", || watched.memory.view().is_ok());
    assert_ne!(watched.memory.words().expect("readable").id, id);
    assert_eq!(report(asked).status, JobStatus::ExecutionFailed);
}

#[test]
fn s2_25_another_process_sees_a_second_memory_grow_while_the_first_stays() {
    let machine = machine("second");
    let watched = [0, 1].map(|n| attach(&machine.name, n).expect("it may be watched"));
    let asked = Job::wat(
        "(module (import \"quintet\" \"sleep\" (func $sleep (param i64)))
            (memory 1) (memory 1 40) (data (memory 1) (i32.const 0) \"\\2a\")
            (func (export \"main\") (result i32)
                (loop
                    (call $sleep (i64.const 20000000))
                    (drop (memory.grow 1 (i32.const 1)))
                    (br_if 0 (i32.lt_u (memory.size 1) (i32.const 40))))
                (memory.size 1)))",
    )
    .submit(&machine);
    let [first, second] = &watched;
    let mut views = None;
    harness::wait_until("there are two memories", || {
        views = first.memory.view().ok().zip(second.memory.view().ok());
        views.is_some()
    });
    let (stays, grows) = views.expect("just seen");
    assert!(second.memory.wait_detached(&grows, harness::PATIENCE));
    let grown = second.memory.view().expect("live");
    assert!(grown.len() > 1 << 16, "{}", grown.len());
    assert_eq!(stays.check(), Ok(()), "the first has not grown");
    assert_eq!((word(&grown, 0), word(&stays, 0)), (Ok(42), Ok(0)));
    let ran = report(asked);
    assert_eq!(
        (ran.status, ran.return_code),
        (JobStatus::Executed, Some(40)),
        "{ran:?}"
    );
    assert!(stays.check().is_err(), "the end detaches");
}

#[test]
fn watch_shows_picture_hex_and_detaches() {
    let machine = machine("show");
    let grows = Module::new(
        "show",
        &wat::parse_str(
            "(module (import \"quintet\" \"sleep\" (func $sleep (param i64)))
            (memory 1 4) (data (i32.const 32) \"Good morning\")
            (func (export \"main\")
                (call $sleep (i64.const 1000000000))
                (drop (memory.grow (i32.const 1)))
                (call $sleep (i64.const 1000000000))))",
        )
        .expect("assembles"),
    );
    let path = grows.0.display().to_string();
    let mut submit = std::process::Command::new(harness::quintet())
        .args(["submit", &machine.name, &path])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("quintet starts");
    let output = harness::run_to_end(&["watch", &machine.name, "--at", "32", "--for", "3s"]);
    let shown = text(&output);
    assert!(shown.contains("65536 bytes, generation"), "{output:?}");
    assert!(
        shown.contains("Good morning") && shown.contains("00000020  47 6f 6f 64"),
        "{shown}"
    );
    assert!(
        shown.contains("detached, generation") && shown.contains("now 131072 bytes"),
        "{shown}"
    );
    assert!(shown.contains("the memory is gone"), "{shown}");
    let _ = submit.wait();
    std::thread::sleep(Duration::from_millis(1));
    let output = harness::run_to_end(&["watch", "nobody-is-called-this"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
