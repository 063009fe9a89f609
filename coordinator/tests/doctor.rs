//! `quintet doctor` on the host of the tests, as it is and with something taken away.

mod harness;

use std::path::Path;
use std::process::{Command, Output};

use harness::quintet;
use serde_json::Value;

fn doctor(program: &Path, environment: &[(&str, &str)]) -> (Option<i32>, Value) {
    let mut command = Command::new(program);
    command.args(["doctor", "--json"]);
    for name in ["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    read(&command.output().expect("quintet starts"))
}

fn read(output: &Output) -> (Option<i32>, Value) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
    (output.status.code(), report)
}

fn state<'a>(report: &'a Value, name: &str) -> &'a str {
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|f| f["name"] == name);
    found.unwrap_or_else(|| panic!("nothing about {name}"))["state"]
        .as_str()
        .expect("a state")
}

#[test]
fn a_host_that_runs_the_tests_can_run_machines() {
    let (status, report) = doctor(&quintet(), &[]);
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!(report["headless"], true);
    for name in [
        "segments",
        "processes",
        "start directory",
        "workers",
        "system calls",
    ] {
        assert_eq!(state(&report, name), "ok", "{report:#}");
    }
    // Nobody named one.
    assert_eq!(state(&report, "display"), "missing");
    assert_eq!(report["window"], false);
}

#[test]
fn a_display_that_is_not_there_is_tried() {
    let (status, report) = doctor(&quintet(), &[("DISPLAY", ":12345")]);
    assert_eq!((status, state(&report, "display")), (Some(0), "missing"));
    let text = report.to_string();
    assert!(text.contains("DISPLAY=:12345: "), "{text}");
    assert!(!text.contains(".rs:"), "{text}");
}

#[test]
fn without_workers_no_machine_runs() {
    let alone = tempfile::tempdir().expect("a directory");
    let program = alone.path().join("quintet");
    std::fs::copy(quintet(), &program).expect("a copy");
    let (status, report) = doctor(&program, &[]);
    assert_eq!((status, state(&report, "workers")), (Some(1), "missing"));
    assert_eq!(report["headless"], false);
}

#[test]
fn limits_of_the_shell_are_seen() {
    let limited = |limit: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limit}; exec \"$0\" doctor --json")]);
        read(&shell.arg(quintet()).output().expect("a shell"))
    };
    let (status, report) = limited("ulimit -n 64");
    assert_eq!((status, state(&report, "open files")), (Some(1), "missing"));
    let (status, report) = limited("ulimit -v 2000000");
    assert_eq!((status, state(&report, "addresses")), (Some(0), "limited"));
    // POSIX: blocks of 512 bytes.
    let (status, report) = limited("ulimit -f 600000");
    assert_eq!((status, state(&report, "size of files")), (Some(0), "limited"));
}

#[test]
fn a_start_directory_that_cannot_be_written() {
    // One that others' files are in; root may write to it, but not make a directory in /proc.
    let (status, report) = doctor(&quintet(), &[("XDG_RUNTIME_DIR", "/proc")]);
    assert_eq!((status, state(&report, "start directory")), (Some(1), "missing"));
}

#[test]
fn the_text_ends_with_a_verdict() {
    let output = Command::new(quintet())
        .arg("doctor")
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .output()
        .expect("quintet starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.ends_with("Machines can run here without a window (--headless).\n"),
        "{text}"
    );
}
