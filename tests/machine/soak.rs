//! `quintet soak` from its command line: a sound machine has no violation, whatever is done to it; each planted bug is found.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

#[path = "support/gdb.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod gdb;

use quintet_coordinator::soak::fault::{Fault, Target, names};
use quintet_coordinator::soak::report::Report;
use rustix::process::{Pid, Signal, kill_process};
use support::{guest_file, quintet, scale};

/// A folder of a test, empty at first.
fn folder(test: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{test}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

fn command(report: &Path, options: &str) -> Option<Command> {
    let mut command = Command::new(quintet()?);
    command
        .arg("soak")
        .args(options.split_whitespace())
        .arg("--report")
        .arg(report)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Runs a soak to its end, and answers its exit status, what it printed and its report.
fn soak(report: &Path, options: &str) -> Option<(Option<i32>, String, Report)> {
    let output = command(report, options)?.output().expect("quintet starts");
    let text = text(&output);
    println!("{text}");
    let read = Report::read(report).unwrap_or_else(|e| panic!("{e}: {text}"));
    Some((output.status.code(), text, read))
}

#[test]
fn a_machine_survives_compressed_faults_of_every_kind() {
    let folder = folder("all");
    let report = folder.join("all.json");
    // Memory is taken from whatever else the host does, too: only when nothing else is tested.
    let mut faults = Fault::all();
    faults.retain(|f| *f != Fault::MemoryPressure);
    let (duration, every, faults) = scale(("5m", "1s", names(&faults)), ("60m", "2s", "all".to_owned()));
    let options = format!("--duration {duration} --every {every} --faults {faults} --seed 11");
    let Some((status, text, read)) = soak(&report, &options) else {
        return;
    };
    assert_eq!(read.shards[0].violations, [], "{text}");
    assert_eq!(status, Some(0), "{text}");
    let totals = read.totals;
    assert!(
        totals.rounds > 20 && totals.pictures > 5 && totals.interrupts > 10_000,
        "{totals:?}"
    );
    assert!(totals.vm_time_ms > 0 && totals.vm_time_ms <= totals.ran_ms + 2000);
    // Which faults come is the seed's; that all of them do, the long form's.
    assert!(totals.faults >= scale(60, 800), "{totals:?}");
    assert!(totals.disk_errors > 0, "{totals:?}");
    for fault in [Fault::Kill(Target::Io), Fault::HostileRing] {
        assert!(read.recoveries.contains_key(&fault), "{fault}");
    }
    assert!(scale(true, read.recoveries.len() == Fault::all().len()));
    assert!(folder.join("all.html").exists() && !folder.join("all.evidence").exists());
    assert!(text.contains("no violation"), "{text}");
}

#[test]
fn resets_that_follow_one_another_at_once_are_each_waited_for() {
    let folder = folder("resets");
    let report = folder.join("r.json");
    let options = "--duration 12s --every 20ms --faults reset,kill-cpu --seed 5";
    let Some((status, text, read)) = soak(&report, options) else {
        return;
    };
    assert_eq!(read.shards[0].violations, [], "{text}");
    assert_eq!(status, Some(0), "{text}");
    assert!(read.totals.faults > 4, "{:?}", read.totals);
}

/// Runs the built-in workload with a planted fault, and answers what was found.
#[track_caller]
fn planted(plant: &str, invariant: &str, says: &str) {
    let folder = folder(plant);
    let report = folder.join("r.json");
    let options = format!("--duration 6s --faults none --seed 1 --append plant={plant}");
    let Some((status, text, read)) = soak(&report, &options) else {
        return;
    };
    let violations = &read.shards[0].violations;
    assert!(
        violations
            .iter()
            .any(|v| v.invariant == invariant && v.text.contains(says)),
        "{violations:?}"
    );
    assert_eq!(status, Some(4), "{text}");
    let evidence = folder.join("r.evidence");
    for kept in [
        "serial.log",
        "machine.log",
        "schedule.txt",
        "status.json",
        "disk.img",
    ] {
        assert!(evidence.join(kept).exists(), "{kept}");
    }
    let last = text.lines().last().expect("a line");
    assert!(
        last.starts_with("seed 1; kept: ") && last.contains("r.evidence"),
        "{last}"
    );
    let page = std::fs::read_to_string(folder.join("r.html")).expect("a page");
    assert!(page.contains("<h2>Violations</h2>"));
}

#[test]
fn a_lost_interrupt_is_found() {
    planted("lost", "guest", "interrupts lost: 1 instead of 0");
}

#[test]
fn an_interrupt_that_comes_twice_is_found() {
    planted("doubled", "guest", "interrupts delivered twice: 1 instead of 0");
}

#[test]
fn a_write_that_is_lost_is_found() {
    planted("skipped", "guest", "begins with 2 where version 3 was written");
}

#[test]
fn a_write_that_comes_again_late_is_found() {
    planted(
        "written-twice",
        "guest",
        "begins with 2 where version 3 was written",
    );
}

#[test]
fn a_torn_frame_is_found() {
    planted("torn", "picture", "frame 2 is torn: rows 240 to 479 show frame 1");
}

#[test]
fn a_descriptor_that_stays_open_is_found() {
    let folder = folder("leak");
    let report = folder.join("r.json");
    let port = gdb::free_port();
    let options = format!("--duration 30s --faults none --seed 1 --gdb 127.0.0.1:{port}");
    let Some(mut command) = command(&report, &options) else {
        return;
    };
    let child = command.spawn().expect("quintet starts");
    // The levels are taken from the first seconds; from then on this end of a connection is held for ever.
    std::thread::sleep(Duration::from_secs(8));
    let mut leak = gdb::Client::connect(port);
    leak.say("c");
    let output = child.wait_with_output().expect("it ends");
    drop(leak);
    let text = text(&output);
    println!("{text}");
    let read = Report::read(&report).expect("a report");
    let violations = &read.shards[0].violations;
    assert!(
        violations
            .iter()
            .any(|v| v.invariant == "descriptors" && v.text.starts_with("the coordinator had")),
        "{violations:?}"
    );
    assert_eq!(output.status.code(), Some(4), "{text}");
}

#[test]
fn a_machine_that_ends_by_itself_is_found() {
    let folder = folder("ends");
    let report = folder.join("r.json");
    let Some((status, text, read)) = soak(&report, "--duration 60s --seed 1 --faults none --time-limit 3s")
    else {
        return;
    };
    assert_eq!(status, Some(4), "{text}");
    let violations = &read.shards[0].violations;
    assert!(
        violations.iter().any(|v| v.invariant == "ended"),
        "{violations:?}"
    );
    assert!(read.totals.ran_ms < 60_000);
}

#[test]
fn another_guest_is_judged_from_outside_alone() {
    let folder = folder("other");
    let report = folder.join("r.json");
    let guest = guest_file("soak-other", quintet_guests::SPIN);
    let options = format!(
        "--duration 8s --every 1s --seed 2 --faults kill-io,stall-gpu --kernel {} --append j --ram 64M",
        guest.display()
    );
    let Some((status, text, read)) = soak(&report, &options) else {
        return;
    };
    assert_eq!(read.shards[0].violations, [], "{text}");
    assert_eq!(status, Some(0), "{text}");
    assert!(read.totals.faults > 2 && read.totals.rounds == 0);
    assert!(text.contains("seen from outside the guest"), "{text}");
}

#[test]
fn four_shards_at_once_are_merged_into_one_report() {
    let folder = folder("shards");
    let reports: Vec<PathBuf> = (1..=4).map(|n| folder.join(format!("shard-{n}.json"))).collect();
    let mut children = Vec::new();
    for (seed, report) in (1..).zip(&reports) {
        let options = format!("--duration 5s --every 1s --seed {seed}");
        let Some(mut command) = command(report, &options) else {
            return;
        };
        children.push(command.spawn().expect("quintet starts"));
    }
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
    let names: Vec<String> = reports.iter().map(|r| r.display().to_string()).collect();
    let merged = folder.join("merged.json");
    let (status, text, read) = soak(&merged, &format!("--merge {}", names.join(" "))).expect("it is there");
    assert_eq!(status, Some(0), "{text}");
    assert!(text.starts_with("4 shards, "), "{text}");
    let parts: Vec<Report> = reports
        .iter()
        .map(|r| Report::read(r).expect("a report"))
        .collect();
    let rounds: u64 = parts.iter().map(|r| r.totals.rounds).sum();
    assert!(rounds > 0 && read.totals.rounds == rounds && read.shards.len() == 4);
    let page = std::fs::read_to_string(folder.join("merged.html")).expect("a page");
    assert!(page.contains("seed 4"));
}

#[test]
fn a_soak_that_is_interrupted_ends_in_order_and_reports() {
    let folder = folder("interrupted");
    let report = folder.join("r.json");
    let Some(mut command) = command(&report, "--duration 10m --every 1s --seed 3") else {
        return;
    };
    let child = command.spawn().expect("quintet starts");
    std::thread::sleep(Duration::from_secs(5));
    let pid = Pid::from_raw(child.id() as i32).expect("a process");
    kill_process(pid, Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(130), "{text}");
    let read = Report::read(&report).expect("a report");
    assert!(
        read.shards[0].interrupted && read.shards[0].violations.is_empty(),
        "{text}"
    );
}
