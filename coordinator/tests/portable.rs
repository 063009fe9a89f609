//! The portable back end, `--backend portable`: the same machine over named shared memory and process-shared events.

mod harness;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use harness::mistakes::Files;
use harness::{Machine, echo_guest, quintet, run_to_end};
use quintet_coordinator::supervise::names;
use quintet_protocol::handshake::Role;
use quintet_protocol::shm::portable::LIMITS;
use rustix::process::Signal;

/// Segments of one coordinator.
fn segments(coordinator: u32) -> usize {
    let prefix = format!("{}{coordinator}-", names::prefix("shm"));
    std::fs::read_dir(names::SHARED_MEMORY)
        .expect("shared memory is listed")
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
        .count()
}

#[test]
fn the_self_test_finds_everything_right_and_powers_off() {
    let files = Files::new("portable-self-test");
    let kernel = files.with("selftest.elf", quintet_guests::SELFTEST);
    let mut child = Command::new(quintet())
        .args(["run", "--headless", "--ram", "64M", "--backend", "portable"])
        .args(["--time-limit", "120s", "--kernel", &kernel])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("quintet starts");
    let mut seen = String::new();
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    // The end of the time limit is the end of the output.
    while !seen.contains("selftest: ") && lines.read_line(&mut seen).expect("text") > 0 {}
    child.stdin.take().expect("piped").write_all(b"q").expect("typed");
    let output = child.wait_with_output().expect("output");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{seen}{errors}");
    assert!(seen.contains("checks passed, 0 failed"), "{seen}");
    assert!(
        errors.lines().any(|l| l == format!("quintet: {LIMITS}")),
        "{errors}"
    );
    assert_eq!(LIMITS.lines().count(), 1);
}

#[test]
fn lines_are_echoed() {
    let mut child = Command::new(quintet())
        .args(["run", "--headless", "--ram", "16M", "--backend", "portable"])
        .args(["--time-limit", "120s", "--kernel", &echo_guest()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("quintet starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut hear = |text: &str| {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(lines.read_line(&mut line).expect("text") > 0, "no {text:?}");
        }
    };
    let mut input = child.stdin.take().expect("piped");
    hear("polling");
    // The first line is echoed by polling, the others by interrupts.
    for n in 0..50 {
        input
            .write_all(format!("line number {n}\n").as_bytes())
            .expect("typed");
        hear(&format!("line number {n}"));
    }
    input.write_all(b"\x04").expect("typed");
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn a_machine_ends_without_leaving_a_name() {
    let machine = Machine::start("portable-end", &["--backend", "portable"]);
    let coordinator = machine.child.id();
    assert!(segments(coordinator) > 10);
    let (status, errors) = machine.quit();
    assert_eq!(status, Some(0), "{errors}");
    assert_eq!(segments(coordinator), 0);
}

#[test]
fn what_a_killed_coordinator_left_is_swept_at_the_next_start() {
    let mut machine = Machine::start("portable-kill", &["--backend", "portable"]);
    let coordinator = machine.child.id();
    machine.child.kill().expect("kill");
    machine.child.wait().expect("wait");
    assert!(
        segments(coordinator) > 10,
        "the portable back end cannot do better"
    );
    // Any machine's start sweeps, whatever its back end.
    let next = Machine::start("portable-sweep", &[]);
    assert_eq!(segments(coordinator), 0);
    next.quit();
}

#[test]
fn a_killed_worker_comes_back() {
    let machine = Machine::start("portable-worker", &["--backend", "portable"]);
    for role in [Role::Io, Role::Audio, Role::Gpu, Role::Cpu] {
        machine.signal(role, Signal::KILL);
        machine.wait_for_generation(role, 2);
    }
    let (status, errors) = machine.quit();
    assert_eq!(status, Some(0), "{errors}");
}

#[test]
fn more_ram_than_named_shared_memory_can_hold_is_refused() {
    let output = run_to_end(&["run", "--headless", "--ram", "1T", "--backend", "portable"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
}
