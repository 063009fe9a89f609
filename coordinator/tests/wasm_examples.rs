//! The examples under `tests/guests/wat` run.

mod harness;
mod modules;

use modules::{Job, machine, report};
use quintet_coordinator::wasm::watch::attach;
use quintet_protocol::wasm::{JobStatus, MemoryState};

#[test]
fn s1_3_the_example_of_the_seeds_size_arrives_whole_and_returns_42() {
    let machine = machine("seed");
    let ran = Job::wat(&quintet_guests::seed::text()).run(&machine);
    assert_eq!(
        (ran.status, ran.return_code),
        (JobStatus::Executed, Some(42)),
        "{ran:?}"
    );
    assert_eq!(ran.transport, "sealed memfd");
}

#[test]
fn the_demo_shows_its_frames() {
    let machine = machine("plasma");
    let job = Job::wat(include_str!("../../tests/guests/wat/plasma.wat")).invoke("short");
    let ran = job.millis(60_000).run(&machine);
    assert_eq!(
        (ran.status, ran.return_code),
        (JobStatus::Executed, Some(60)),
        "{ran:?}"
    );
    let file = std::env::temp_dir().join(format!("quintet-plasma-{}.png", std::process::id()));
    let output = harness::run_to_end(&["screenshot", &machine.name, &file.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let bytes = std::fs::read(&file).expect("a picture");
    let _ = std::fs::remove_file(&file);
    // Width and height of the header chunk.
    assert_eq!(bytes[16..24], [0, 0, 1, 64, 0, 0, 0, 200]);
    assert!(
        bytes.len() > 10_000,
        "{} bytes: it is not one colour",
        bytes.len()
    );
}

#[test]
fn the_demo_ends_by_a_key() {
    let machine = machine("escape");
    let job = Job::wat(include_str!("../../tests/guests/wat/plasma.wat"));
    let asked = job.millis(120_000).submit(&machine);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let output = harness::run_to_end(&["key", &machine.name, "esc"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report(asked).status, JobStatus::Executed);
}

#[test]
fn s2_33_the_growing_memory_is_seen_to_grow_by_another_process() {
    let machine = machine("growth");
    let watched = attach(&machine.name, 0).expect("it may be watched");
    let job = Job::wat(include_str!("../../tests/guests/wat/growth.wat")).invoke("short");
    let asked = job.millis(60_000).submit(&machine);
    let mut sizes = Vec::new();
    // Its last size may be missed, but not what it ended with.
    let words = || watched.memory.words().expect("readable");
    harness::wait_until("it has ended", || {
        while let Ok(view) = watched.memory.view() {
            sizes.push(view.len() >> 16);
            watched.memory.wait_detached(&view, harness::PATIENCE);
        }
        words().state == MemoryState::Dead
    });
    assert_eq!(words().pages, 64);
    let ran = report(asked);
    assert_eq!(
        (ran.status, ran.return_code),
        (JobStatus::Executed, Some(64)),
        "{ran:?}"
    );
    assert!(sizes.len() > 1 && sizes.is_sorted(), "{sizes:?}");
}
