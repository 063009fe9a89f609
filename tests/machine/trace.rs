//! `--trace FILE`: one timeline of all five processes, which is whole, in order, and tells of a death.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use quintet_coordinator::control::client;
use quintet_protocol::control::Request;
use quintet_protocol::handshake::Role;
use serde_json::Value;
use support::{Setup, guest_file, quintet};

/// The file of a timeline, which goes with the test.
struct Trace(PathBuf);

impl Trace {
    fn new(test: &str) -> Self {
        let name = format!("trace-{test}-{}.json", std::process::id());
        Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    /// What a machine that has ended in good order left.
    fn whole(&self) -> Timeline {
        let text = std::fs::read_to_string(&self.0).expect("a trace");
        let events = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in\n{text:.500}"));
        Timeline { events }
    }

    /// What a machine that was killed left.
    fn cut_off(&self) -> Timeline {
        let text = std::fs::read_to_string(&self.0).expect("a trace");
        assert!(!text.ends_with("]\n"), "it was not cut off");
        let end = text.rfind("},\n").expect("a whole line") + 1;
        let events = serde_json::from_str(&format!("{}]", &text[..end])).expect("JSON");
        Timeline { events }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Timeline {
    events: Vec<Value>,
}

fn name(event: &Value) -> &str {
    event["name"].as_str().expect("a name")
}

/// A time in whole nanoseconds.
fn nanos(time: &Value) -> u64 {
    (time.as_f64().expect("microseconds") * 1000.0).round() as u64
}

/// Spans, from and to, and moments of a track, in nanoseconds.
type Track = (Vec<(u64, u64)>, Vec<u64>);

impl Timeline {
    fn called(&self, wanted: &str) -> Vec<&Value> {
        self.events.iter().filter(|e| name(e) == wanted).collect()
    }

    /// Pids by the names of processes.
    fn processes(&self) -> BTreeMap<String, u64> {
        let named = self.called("process_name").into_iter().map(|e| {
            let name = e["args"]["name"].as_str().expect("a name").to_owned();
            (name, e["pid"].as_u64().expect("a pid"))
        });
        named.collect()
    }

    /// Names of what is told of a process.
    fn told_of(&self, pid: u64) -> BTreeSet<&str> {
        let of = self.events.iter().filter(|e| e["pid"] == pid && e["ph"] != "M");
        of.map(name).collect()
    }

    /// Every span ends, spans of a track nest, those beside others have an end each, and moments are in order.
    fn assert_in_order(&self) {
        let mut tracks: BTreeMap<(u64, u64), Track> = BTreeMap::new();
        let mut open = BTreeSet::new();
        for event in &self.events {
            let place = (
                event["pid"].as_u64().expect("a pid"),
                event["tid"].as_u64().expect("a tid"),
            );
            let (spans, moments) = tracks.entry(place).or_default();
            let at = || nanos(&event["ts"]);
            match event["ph"].as_str().expect("a phase") {
                "X" => spans.push((at(), at() + nanos(&event["dur"]))),
                "i" if name(event) != "events dropped" => moments.push(at()),
                "b" => assert!(open.insert(event["id"].as_u64()), "{event}"),
                "e" => assert!(open.remove(&event["id"].as_u64()), "{event}"),
                "M" | "C" | "i" => {}
                other => panic!("phase {other}"),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        for (place, (mut spans, moments)) in tracks {
            assert!(moments.is_sorted(), "{place:?}: moments out of order");
            // The longer of two that begin together is the outer one.
            spans.sort_by_key(|&(begin, end)| (begin, std::cmp::Reverse(end)));
            let mut outer: Vec<u64> = Vec::new();
            for (begin, end) in spans {
                while outer.last().is_some_and(|&over| over <= begin) {
                    outer.pop();
                }
                // The nanosecond is what is lost of a time in binary.
                assert!(
                    outer.last().is_none_or(|&over| end <= over + 1),
                    "{place:?}: {begin}..{end} sticks out"
                );
                outer.push(end);
            }
        }
    }
}

/// A machine whose guest does nothing but ask a device.
fn asking(program: PathBuf, name: &str) -> Setup {
    Setup::new(program, guest_file(name, quintet_guests::SPIN))
        .option("--ram", "16M")
        .option("--append", "d")
}

const WORKERS: [&str; 4] = ["cpu-worker", "io-worker", "gpu-worker", "audio-worker"];

#[test]
fn all_five_processes_are_on_one_timeline_and_a_death_is_seen() {
    let Some(program) = quintet() else { return };
    let trace = Trace::new("five");
    let mut guest = asking(program, "trace")
        .option("--log", "info")
        .option("--trace", trace.path())
        .start("trace");
    guest.hear("spinning");
    let first = guest.pid(Role::Io);
    guest.kill(Role::Io);
    let second = guest.pid(Role::Io);
    client::ask(&guest.name, &Request::Pause).expect("paused");
    client::ask(&guest.name, &Request::Screenshot).expect("a picture");
    client::ask(&guest.name, &Request::Resume).expect("resumed");
    client::ask(&guest.name, &Request::Quit).expect("it ends");
    guest.end();

    let timeline = trace.whole();
    timeline.assert_in_order();
    let processes = timeline.processes();
    for worker in WORKERS {
        assert!(processes.contains_key(worker), "{worker} in {processes:?}");
    }
    assert_eq!(processes["io-worker"], first as u64);
    assert_eq!(processes["io-worker #2"], second as u64);
    let pids: BTreeSet<u64> = processes.values().copied().collect();
    assert_eq!(pids.len(), 6, "{processes:?}");
    let told = |of: &str, wanted: &[&str]| {
        let all = timeline.told_of(processes[of]);
        for what in wanted {
            assert!(all.contains(what), "{of} told no {what:?}, but {all:?}");
        }
    };
    told("cpu-worker", &["runs", "port read", "guest starts"]);
    told("io-worker", &["turn", "reset"]);
    told("io-worker #2", &["turn", "takes over"]);
    told("gpu-worker", &["draw", "screenshot"]);
    told("audio-worker", &["period"]);
    let own = [
        "died",
        "started",
        "running",
        "restarting",
        "paused",
        "pause",
        "screenshot",
        "quit",
    ];
    told("coordinator", &own);
    told(
        "coordinator",
        &["VM time, percent of the host's", "end of the trace"],
    );

    // The death lies between what the one and what the other told last and first.
    let (first, second) = (first as u64, second as u64);
    let times = |pid: u64| {
        let of = timeline
            .events
            .iter()
            .filter(move |e| e["pid"] == pid && e["ph"] != "M");
        of.map(|e| nanos(&e["ts"]))
    };
    let died = nanos(&timeline.called("died")[0]["ts"]);
    assert!(times(first).max().expect("told") < died && died < times(second).min().expect("told"));
    // Lines of all logs are there, and say whose they are.
    let from = |who: &str| timeline.events.iter().any(|e| e["args"]["from"] == who);
    assert!(from("coordinator") && from("gpu-worker.1"), "log lines");
    let mourned = timeline
        .events
        .iter()
        .filter(|e| name(e).contains("the io-worker died"));
    assert_eq!(mourned.count(), 1);
    let counts = timeline.called("end of the trace")[0]["args"]["events"].as_str();
    // A full ring on a crowded host is no fault; a refused event is.
    let counts = counts.expect("counts");
    assert_eq!(counts.matches(" 0 refused").count(), 4, "{counts}");
}

#[test]
fn workers_that_are_threads_have_tracks_in_the_one_process() {
    let Some(program) = quintet() else { return };
    let trace = Trace::new("single");
    let mut guest = asking(program, "trace-single")
        .option("--trace", trace.path())
        .flag("--single-process")
        .start("trace-single");
    guest.hear("spinning");
    client::ask(&guest.name, &Request::Quit).expect("it ends");
    guest.end();
    let timeline = trace.whole();
    timeline.assert_in_order();
    let processes = timeline.processes();
    assert_eq!(processes.keys().collect::<Vec<_>>(), ["coordinator"]);
    let threads = timeline.called("thread_name");
    for worker in WORKERS {
        assert!(threads.iter().any(|e| e["args"]["name"] == worker), "{worker}");
    }
    let told = timeline.told_of(processes["coordinator"]);
    for what in ["runs", "turn", "draw", "period", "running"] {
        assert!(told.contains(what), "no {what:?} in {told:?}");
    }
}

#[test]
fn what_a_killed_machine_had_told_can_be_read() {
    let Some(program) = quintet() else { return };
    let trace = Trace::new("killed");
    let mut guest = asking(program, "trace-killed")
        .option("--trace", trace.path())
        .start("trace-killed");
    guest.hear("spinning");
    std::thread::sleep(std::time::Duration::from_millis(300));
    guest.cut_power();
    let timeline = trace.cut_off();
    timeline.assert_in_order();
    assert_eq!(timeline.processes().len(), 5);
    assert!(!timeline.called("port read").is_empty());
}

#[test]
fn disk_requests_are_told_from_begin_to_end() {
    let Some(setup) = Setup::linux_with_disks("AMD64") else {
        return;
    };
    let trace = Trace::new("disk");
    let disk = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-{}.img", std::process::id()));
    std::fs::write(&disk, vec![0x5A; 4 << 20]).expect("a disk");
    let mut guest = setup
        .option("--disk", &disk)
        .option("--trace", trace.path())
        .start("trace-disk");
    guest.shell();
    let read = guest.command("cat /dev/sda | wc -c");
    assert!(read.contains("4194304"), "{read}");
    guest.power_off();
    let _ = std::fs::remove_file(&disk);
    let timeline = trace.whole();
    timeline.assert_in_order();
    let reads = timeline.called("disk 0 read");
    let begun = reads.iter().filter(|e| e["ph"] == "b");
    let bytes: u64 = begun.map(|e| e["args"]["bytes"].as_u64().expect("bytes")).sum();
    assert!(bytes >= 4 << 20, "{bytes}");
    for what in [
        "interrupt",
        "idle",
        "translates",
        "IRQ line high",
        "commit",
        "publish",
    ] {
        assert!(!timeline.called(what).is_empty(), "{what}");
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_one_line_and_status_1() {
    let Some(program) = quintet() else { return };
    let out = std::process::Command::new(program)
        .args(["run", "--headless", "--trace", "/proc/self/none/t"])
        .output();
    let out = out.expect("quintet starts");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("--trace /proc/self/none/t") && said.lines().count() == 1,
        "{said}"
    );
}
