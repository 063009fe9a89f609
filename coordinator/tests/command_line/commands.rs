//! Every command but `run`.

use std::path::Path;
use std::process::Command;

use quintet_protocol::handshake::Role;
use quintet_protocol::status::MachineState;

use crate::harness::mistakes::{Files, assert_refused};
use crate::harness::{Machine, quintet, run_to_end};
use crate::modules::{self, ANSWER, Module, module, text};

fn succeeds(words: &[&str]) -> String {
    let output = run_to_end(words);
    assert_eq!(output.status.code(), Some(0), "{words:?} {output:?}");
    text(&output)
}

#[test]
fn commands_to_a_machine_do_what_they_say() {
    let files = Files::new("commands");
    let machine = Machine::start("commanded", &["--exit-port", "0xf4"]);
    let name = machine.name.as_str();
    assert!(succeeds(&["ps"]).contains(name));
    assert!(succeeds(&["status", name]).contains("cpu"));
    let report: serde_json::Value =
        serde_json::from_str(&succeeds(&["status", name, "--json"])).expect("JSON");
    assert!(report.is_object());
    let page = succeeds(&["top", name, "--once", "--every", "300ms"]);
    for shown in [name, "Running", "io-worker", "exits", "guest time at"] {
        assert!(page.contains(shown), "{shown} in {page}");
    }

    succeeds(&["pause", name]);
    machine.wait_for("it is paused", |r| r.state == MachineState::Paused);
    succeeds(&["resume", name]);
    machine.wait_for("it runs again", |r| r.state == MachineState::Running);

    let picture = format!("{}/out.png", files.path());
    succeeds(&["screenshot", name, &picture]);
    assert!(
        std::fs::read(&picture)
            .expect("a picture")
            .starts_with(b"\x89PNG")
    );
    succeeds(&["type", name, "hello\\n"]);
    succeeds(&["key", name, "ctrl-c"]);
    succeeds(&["mouse", name, "move", "3", "-4"]);
    succeeds(&["mouse", name, "click", "left"]);
    assert_refused(&run_to_end(&["key", name, "frob"]), "frob");
    assert_refused(&run_to_end(&["mouse", name, "frob"]), "frob");

    assert!(succeeds(&["debug", name, "transport"]).contains("kernel"));
    assert!(succeeds(&["debug", name, "profile", "--time", "300ms"]).contains("what the vCPU did"));
    assert_refused(&run_to_end(&["debug", name, "frob"]), "is not a worker");
    // Without the debugger, its command.
    for (options, debugger) in [(&[][..], "gdb"), (&["--with", "lldb"], "lldb")] {
        let output = Command::new(quintet())
            .args(["debug", name, "io"])
            .args(options)
            .env("PATH", "/no/such/directory")
            .output()
            .expect("quintet");
        assert_eq!(
            text(&output),
            format!("{debugger} -p {}\n", machine.pid(Role::Io))
        );
    }

    let before = machine.wait_for("it is", |_| true).resets;
    succeeds(&["reset", name]);
    machine.wait_for("it was reset", |r| r.resets > before);
    succeeds(&["quit", name]);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn commands_to_nobody_are_refused() {
    for words in [
        &["status", "nobody"][..],
        &["pause", "nobody"],
        &["resume", "nobody"],
        &["quit", "nobody"],
        &["reset", "nobody"],
        &["screenshot", "nobody", "/tmp/x.png"],
        &["type", "nobody", "x"],
        &["key", "nobody", "a"],
        &["mouse", "nobody", "click", "left"],
        &["eject", "nobody", "floppy"],
        &["debug", "nobody", "io"],
        &["watch", "nobody"],
        &["top", "nobody"],
    ] {
        assert_refused(&run_to_end(words), "There is no machine \"nobody\"");
    }
}

#[test]
fn config_prints_what_run_would_take() {
    let shown = succeeds(&["config", "--ram", "64M", "--headless"]);
    assert!(
        shown.contains("ram = \"64M\"") && shown.contains("headless = true"),
        "{shown}"
    );
    assert_refused(&run_to_end(&["config", "--ram", "0"]), "--ram 0");
}

#[test]
fn submit_and_watch_a_machine_with_jobs() {
    let machine = modules::machine("submitted");
    let seed = Module::new("submitted", &module(&ANSWER, 0));
    let file = seed.0.display().to_string();
    let json = succeeds(&[
        "submit",
        &machine.name,
        &file,
        "--json",
        "--time-limit",
        "20s",
        "--memory",
        "1M",
    ]);
    assert!(json.contains("42"), "{json}");
    assert_refused(
        &run_to_end(&["submit", &machine.name, "/no/such/module"]),
        "/no/such/module",
    );
    run_to_end(&[
        "watch",
        &machine.name,
        "--for",
        "300ms",
        "--at",
        "0",
        "--memory",
        "0",
    ]);
}

#[test]
fn soak_takes_its_options() {
    let files = Files::new("command-soak");
    let report = format!("{}/soak.json", files.path());
    let all = [
        "soak",
        "--duration",
        "4s",
        "--faults",
        "kill-gpu",
        "--every",
        "1s",
        "--seed",
        "7",
        "--report",
        &report,
    ];
    let output = run_to_end(&all);
    let written = std::fs::read_to_string(&report).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let value: serde_json::Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(value["totals"]["violations"].as_u64(), Some(0), "{output:?}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output).contains("seed 7") || written.contains("\"seed\":7") || written.contains("\"seed\": 7"),
        "{output:?}"
    );
    assert!(
        written.contains("kill-gpu") && !written.contains("kill-io"),
        "{written}"
    );
    let merged = format!("{}/all.json", files.path());
    run_to_end(&["soak", "--merge", &report, "--report", &merged]);
    assert!(Path::new(&merged).exists());
}
