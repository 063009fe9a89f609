//! Every command and every option of the manual, each run and judged by what it does; and that `--help`, the man pages and the manual
//! have the same ones.
//!
//! The manual's lists stand here, typed out: this file is what says that the command line is stable.

mod commands;
#[path = "../harness/mod.rs"]
mod harness;
mod manual;
#[path = "../modules/mod.rs"]
mod modules;
mod options;

use std::collections::BTreeSet;

/// Options of `run` in the manual.
const RUN: [&str; 40] = [
    "headless",
    "name",
    "ram",
    "cpus",
    "cpu",
    "accel",
    "kernel",
    "initrd",
    "append",
    "boot",
    "firmware",
    "pflash",
    "disk",
    "cdrom",
    "floppy",
    "wasm",
    "invoke",
    "dir",
    "json",
    "exit-code",
    "serial",
    "audio",
    "no-reboot",
    "exit-port",
    "debugcon",
    "device",
    "time-limit",
    "machine",
    "gdb",
    "wait-for-debugger",
    "external",
    "software",
    "log",
    "trace",
    "profile",
    "check-jit",
    "single-process",
    "no-sandbox",
    "backend",
    // Behind `--`.
    "ARGS",
];
/// Options of `run` that the manual has not.
const RUN_MORE: [&str; 2] = ["jobs", "metrics"];
/// Commands of the manual but `run`, with options of their own; `config` and `soak` have those of `run` as well.
const COMMANDS: [(&str, &[&str]); 16] = [
    ("ps", &[]),
    ("status", &[]),
    ("top", &["every", "once"]),
    ("pause", &[]),
    ("resume", &[]),
    ("quit", &[]),
    ("reset", &[]),
    ("config", &[]),
    ("screenshot", &[]),
    ("type", &[]),
    ("key", &[]),
    ("mouse", &[]),
    ("submit", &["json"]),
    ("watch", &[]),
    ("debug", &[]),
    ("soak", &["duration", "faults", "seed", "report"]),
];
/// Commands and options that the manual has not.
const MORE: [(&str, &[&str]); 8] = [
    ("status", &["json"]),
    ("submit", &["invoke", "time-limit", "memory", "ARGS"]),
    ("watch", &["at", "for", "memory"]),
    ("debug", &["time", "source", "with"]),
    ("soak", &["every", "merge"]),
    ("doctor", &["json"]),
    ("insert", &["read-only"]),
    ("eject", &[]),
];

/// What a command takes, by the lists above.
fn listed(command: &str) -> BTreeSet<String> {
    let mut all: Vec<&str> = Vec::new();
    if ["run", "config", "soak"].contains(&command) {
        all.extend(RUN);
        all.extend(RUN_MORE);
    }
    for (name, options) in COMMANDS.iter().chain(&MORE) {
        if *name == command {
            all.extend(*options);
        }
    }
    all.into_iter().map(str::to_owned).collect()
}

fn all_commands() -> BTreeSet<String> {
    let all = COMMANDS.iter().chain(&MORE).map(|(name, _)| *name);
    all.chain(["run"]).map(str::to_owned).collect()
}
