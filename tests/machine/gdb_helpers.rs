//! `quintet debug`: gdb's commands for what is in shared memory and in the vCPU, on each worker of a machine that runs, against what the
//! machine says of itself at the same moment; and that the worker names the debugger to the kernel.

#[path = "support/gdb.rs"]
#[allow(dead_code, reason = "nothing is interrupted here")]
mod gdb;
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use gdb::{Client, free_port};
use quintet_protocol::control::StatusReport;
use quintet_protocol::handshake::Role;
use quintet_protocol::status::{MachineState, PeerState, StatusWord};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Machine, Setup, guest_file, quintet, state_of};

/// What gdb prints for `commands` on a process of `guest`.
fn debug(guest: &Machine, role: Role, commands: &[&str]) -> String {
    let mut command = Command::new(quintet().expect("the machine runs"));
    command.args(["debug", &guest.name, role.name(), "--", "-q", "-nx", "-batch"]);
    for one in commands {
        command.args(["-ex", one]);
    }
    let output = command.stdin(Stdio::null()).output().expect("quintet starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(
        !errors.contains("Error") && !errors.contains("Traceback"),
        "{commands:?}\n{out}\n{errors}"
    );
    out
}

/// A command of gdb's that has the machine describe itself, on one line.
fn describe(guest: &Machine) -> String {
    let quintet = quintet().expect("the machine runs");
    format!("shell '{}' status '{}' --json", quintet.display(), guest.name)
}

/// What it said then, in order.
fn descriptions(out: &str) -> Vec<Value> {
    let lines = out.lines().filter(|l| l.starts_with("{\""));
    lines.map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

/// The lines of the command that was echoed as `mark`.
fn part<'a>(out: &'a str, mark: &str) -> &'a str {
    let from = out
        .find(&format!("[{mark}]"))
        .unwrap_or_else(|| panic!("no {mark} in\n{out}"));
    let rest = &out[from + mark.len() + 2..];
    rest.find("\n[").map_or(rest, |end| &rest[..end])
}

/// The number after `name` in a line of the status words of `process`.
fn status_word(status: &str, process: &str, name: &str) -> u64 {
    let mut lines = status.lines().skip_while(|l| *l != format!("{process}:")).skip(1);
    let line = lines.find(|l| l.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} of {process} in\n{status}"));
    line.split_whitespace()
        .nth(1)
        .expect("a value")
        .parse()
        .expect("a number")
}

/// Looks at everything from one worker, twice between two of the machine's own answers.
fn look(guest: &Machine, role: Role) {
    let own = describe(guest);
    let out = debug(
        guest,
        role,
        &[
            &own,
            "echo [status]\\n",
            "quintet status",
            "echo [rings]\\n",
            "quintet rings",
            "echo [clock]\\n",
            "quintet clock",
            "echo [sleepers]\\n",
            "quintet sleepers",
            "echo [help]\\n",
            "quintet",
            "echo [end]\\n",
            &own,
        ],
    );
    let [before, after] = &descriptions(&out)[..] else {
        panic!("{out}")
    };
    let status = part(&out, "status");
    for r in Role::WORKERS {
        let index = r.index() - 1;
        let said = &after["workers"][index];
        let word = |process: &str, word: StatusWord| status_word(status, process, &format!("{word:?}"));
        assert_eq!(
            Some(word("coordinator", StatusWord::generation(r))),
            said["generation"].as_u64(),
            "{out}"
        );
        assert_eq!(word(r.name(), StatusWord::ready(r)), 1, "{out}");
        if r == role {
            // It is held: what it says stays.
            assert_eq!(
                Some(word(r.name(), StatusWord::Heartbeat)),
                said["beats"].as_u64(),
                "{out}"
            );
        }
    }
    assert!(
        status.contains("MachineState") && status.contains("Running"),
        "{out}"
    );

    // A ring that both ends of are mapped is in both accounts, between what it was before and after.
    let count = |description: &Value, name: &str, what: &str| {
        let rings = description["rings"].as_array().expect("rings");
        let ring = rings.iter().find(|r| r["name"] == name)?;
        ring["traffic"][what].as_u64()
    };
    let mut compared = 0;
    for line in part(&out, "rings").lines().skip(2) {
        let Some((name, numbers)) = line.split_at_checked(18) else {
            continue;
        };
        let (name, numbers) = (name.trim(), numbers.split_whitespace().collect::<Vec<_>>());
        let (Some(least), Some(most)) = (count(before, name, "pushed"), count(after, name, "pushed")) else {
            continue;
        };
        if let Ok(pushed) = numbers[0].parse::<u64>() {
            assert!(
                (least..=most).contains(&pushed),
                "{name}: {least} {pushed} {most}\n{out}"
            );
            assert_eq!(count(after, name, "capacity"), numbers[3].parse().ok(), "{out}");
            compared += 1;
        }
    }
    let expected = match role {
        Role::Cpu => 3,
        Role::Io => 4,
        Role::Gpu => 2,
        Role::Audio | Role::Coordinator => 0,
    };
    assert!(compared >= expected, "{compared} of {expected}\n{out}");
    assert!(part(&out, "clock").contains("VM time "), "{out}");
    assert!(part(&out, "sleepers").contains("Coordinator"), "{out}");
    assert!(part(&out, "help").contains("quintet code [ADDRESS]"), "{out}");
}

fn spinning(test: &str, more: impl FnOnce(Setup) -> Setup) -> Option<Machine> {
    let setup = Setup::new(quintet()?, guest_file(test, quintet_guests::SPIN)).option("--append", "j");
    let mut guest = more(setup).start(test);
    guest.hear("spinning");
    guest.wait_for("it runs", |r| r.state == MachineState::Running);
    Some(guest)
}

#[test]
fn each_worker_shows_status_words_and_rings_as_the_machine_itself_does() {
    let Some(guest) = spinning("gdb-helpers", |s| s) else {
        return;
    };
    for role in Role::WORKERS {
        look(&guest, role);
        guest.wait_for("it is let go", |r| state_of(r, role) == PeerState::Running);
    }
    // Nothing has died of it.
    let report = guest.report().expect("answers");
    assert!(report.workers.iter().all(|w| w.generation == 1), "{report:?}");
}

#[test]
fn the_wires_are_those_of_the_report() {
    let Some(setup) = Setup::linux("AMD64") else {
        return;
    };
    let mut guest = setup.start("gdb-wires");
    guest.shell();
    let own = describe(&guest);
    let out = debug(
        &guest,
        Role::Io,
        &["echo [wires]\\n", "quintet wires", "echo [end]\\n", &own],
    );
    let mut seen = BTreeMap::new();
    for line in part(&out, "wires").lines().filter(|l| l.starts_with("line ")) {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        if number(3) > 0 {
            seen.insert(number(1), number(3));
        }
    }
    let described = &descriptions(&out)[0]["interrupts"];
    let described = described.as_array().expect("a list").iter();
    let said: BTreeMap<_, _> = described
        .map(|i| {
            (
                i["line"].as_u64().expect("line"),
                i["edges"].as_u64().expect("edges"),
            )
        })
        .collect();
    assert!(!said.is_empty(), "Linux uses its serial line\n{out}");
    assert_eq!(seen, said, "{out}");
    // Linux in long mode: what only it has.
    let out = debug(&guest, Role::Cpu, &["quintet regs"]);
    assert!(
        out.contains("64-bit code") && out.contains("r15 ffff") || out.contains("r15 0"),
        "{out}"
    );
    let value = |name: &str| register(&out, name);
    assert_eq!(value("cr0") & 0x8000_0001, 0x8000_0001, "{out}");
    assert_eq!(value("efer") & 0x500, 0x500, "{out}");
    let log = guest.power_off();
    support::assert_clean(&log);
}

/// The value after `name` in what `quintet regs` prints.
fn register(out: &str, name: &str) -> u64 {
    let lines = out.lines().filter(|l| !l.starts_with("vCPU"));
    let mut words = lines
        .flat_map(str::split_whitespace)
        .skip_while(|w| *w != name)
        .skip(1);
    let value = words.next().unwrap_or_else(|| panic!("no {name} in\n{out}"));
    u64::from_str_radix(value, 16).unwrap_or_else(|_| panic!("{name}: {value}\n{out}"))
}

/// The general registers by the packet `g`: 64 bits each, little-endian, in gdb's order; and RFLAGS, 32 bits.
fn general(client: &mut Client) -> (Vec<u64>, u64) {
    let hex = client.ask("g");
    let bytes: Vec<u8> = (0..17 * 8 + 4)
        .map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hex"))
        .collect();
    let (words, flags) = bytes.as_chunks::<8>();
    let flags = u32::from_le_bytes(flags.try_into().expect("four bytes"));
    (
        words.iter().map(|w| u64::from_le_bytes(*w)).collect(),
        flags.into(),
    )
}

/// gdb's order of [`general`].
const ORDER: [&str; 8] = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"];

#[test]
fn the_registers_are_the_guests_own_and_code_is_found_both_ways() {
    let port = free_port();
    let Some(guest) = spinning("gdb-regs", |s| s.option("--gdb", format!("127.0.0.1:{port}"))) else {
        return;
    };
    let mut client = Client::connect(port);
    guest.wait_for("it is held", |r| r.state == MachineState::Paused);
    let rip = client.step_to_spin();
    let (theirs, flags) = general(&mut client);
    let check = |out: &str| {
        for (name, value) in ORDER.into_iter().zip(&theirs) {
            assert_eq!(register(out, name), *value, "{name}\n{out}");
        }
        assert_eq!(register(out, "rip"), rip, "{out}");
        assert_eq!(register(out, "cr0") & 1, 1, "protected mode\n{out}");
    };
    // Between two instructions they are where they belong.
    let out = debug(&guest, Role::Cpu, &["quintet regs"]);
    assert!(out.contains("between instructions"), "{out}");
    check(&out);
    assert_eq!(register(&out, "rflags"), flags, "{out}");

    // In translated code they are in the host's registers.
    client.done("D");
    guest.wait_for("it runs", |r| r.state == MachineState::Running);
    let mut translated = String::new();
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        translated = debug(
            &guest,
            Role::Cpu,
            &["quintet regs", "echo [frames]\\n", "thread apply all backtrace"],
        );
        // A name is told with the next heartbeat: one who comes between that and the translation sees the code without.
        if translated.contains("vCPU in the translation") && translated.contains(&format!("guest_{rip:#x}")) {
            break;
        }
    }
    assert!(
        translated.contains(&format!("vCPU in the translation of {rip:#x}")),
        "{translated}"
    );
    check(&translated);
    // gdb finds the way out of it, down to the thread's start.
    let frames = part(&translated, "frames");
    let at = frames
        .find(&format!("guest_{rip:#x}"))
        .unwrap_or_else(|| panic!("{translated}"));
    assert!(
        frames[at..].contains("run_native") || frames[at..].contains("quintet_cpu_worker"),
        "{translated}"
    );
    assert!(frames[at..].contains("main"), "{translated}");

    // From the guest's address to the host's, and back.
    let out = debug(
        &guest,
        Role::Cpu,
        &["quintet code", &format!("quintet code {rip:#x}")],
    );
    assert!(out.contains(" translations, "), "{out}");
    let found = out
        .lines()
        .find(|l| l.starts_with(&format!("guest {rip:#x} is 0x0 bytes into")));
    let host = found
        .and_then(|l| l.split("at host ").nth(1))
        .and_then(|l| l.split('-').next());
    let host = host.unwrap_or_else(|| panic!("{out}"));
    let back = debug(&guest, Role::Cpu, &[&format!("quintet code {host}")]);
    assert!(
        back.contains(&format!(
            "host {host} is 0x0 bytes into the translation of guest {rip:#x}-"
        )),
        "{back}"
    );
    // perf is told the same.
    let map = perf_map(&guest);
    let line = format!("{} ", &host[2..]);
    let line = map
        .lines()
        .find(|l| l.starts_with(&line))
        .unwrap_or_else(|| panic!("{host} in {map}"));
    assert!(line.ends_with(&format!(" guest_{rip:#x}")), "{line}");
    // And gdb itself finds it named when it comes.
    let named = debug(&guest, Role::Cpu, &[&format!("info symbol {host}")]);
    assert!(
        named.contains(&format!("guest_{rip:#x} in section .text")),
        "{named}"
    );
    let none = debug(&guest, Role::Cpu, &["quintet code 0xDEADBEE0"]);
    assert!(none.contains("guest 0xdeadbee0 is not translated"), "{none}");
}

/// What perf would read.
fn perf_map(guest: &Machine) -> String {
    let output = Command::new(quintet().expect("the machine runs"))
        .args(["debug", &guest.name, "perf-map"])
        .output()
        .expect("quintet starts");
    let path = format!("/tmp/perf-{}.map", guest.pid(Role::Cpu));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.starts_with(&format!("{path}: ")),
        "{output:?}"
    );
    let map = std::fs::read_to_string(&path).expect("the map");
    std::fs::remove_file(&path).expect("ours");
    // Its own count is that of its lines but for the routines.
    assert!(
        said.contains(&format!(": {} translations", map.lines().count() - 1)),
        "{said}"
    );
    map
}

/// What a gdb without our script prints that lets the process run for a while and then looks where all its threads are.
fn plain_gdb(pid: i32) -> String {
    let gdb = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-p", &pid.to_string()])
        .args(["-ex", "continue", "-ex", "thread apply all backtrace"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("gdb is installed");
    // Attaching, the next heartbeat, and what gdb makes of it.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let own = Pid::from_raw(gdb.id() as i32).expect("a process");
    kill_process(own, Signal::INT).expect("gdb runs");
    let output = gdb.wait_with_output().expect("gdb ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_gdb_that_knows_nothing_of_us_names_translated_code_and_gets_out_of_it() {
    let Some(guest) = spinning("gdb-plain", |s| s) else {
        return;
    };
    let pid = guest.pid(Role::Cpu);
    let mut out = String::new();
    for _ in 0..20 {
        out = plain_gdb(pid);
        if out.contains(" in guest_0x") {
            break;
        }
    }
    // Once where it was interrupted, then among the frames.
    let at = out.rfind(" in guest_0x").unwrap_or_else(|| panic!("{out}"));
    let name = out[at + 4..].split_whitespace().next().expect("a name");
    let map = perf_map(&guest);
    assert!(
        map.lines().any(|l| l.ends_with(&format!(" {name}"))),
        "{name}\n{map}"
    );
    // The way out of it leads to the thread's start.
    let thread = out[at..].split("\nThread ").next().expect("this one");
    assert!(thread.contains("run_native") && thread.contains("main"), "{out}");
    let goes_on = |r: &StatusReport| state_of(r, Role::Cpu) == PeerState::Running;
    let report = guest.wait_for("it goes on", goes_on);
    assert!(report.workers.iter().all(|w| w.generation == 1), "{report:?}");
}

#[test]
fn a_worker_names_the_debugger_that_asked_to_the_kernel() {
    for role in Role::WORKERS {
        let test = format!("gdb-ptracer-{}", role.name());
        let Some(guest) = spinning(&test, |s| s) else {
            return;
        };
        named(&guest, role);
    }
}

fn named(guest: &Machine, role: Role) {
    let mut watcher = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-p", &guest.pid(role).to_string()])
        .args([
            "-ex",
            "catch syscall prctl",
            "-ex",
            "echo caught\\n",
            "-ex",
            "continue",
        ])
        .args(["-ex", "printf \"%lx %ld\\n\", $rdi, $rsi"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("gdb is installed");
    let mut lines = BufReader::new(watcher.stdout.take().expect("piped")).lines();
    let mut until = |what: &dyn Fn(&str) -> bool| {
        lines
            .find_map(|l| l.ok().filter(|l| what(l)))
            .expect("gdb goes on")
    };
    until(&|l| l == "caught");
    // Without gdb in reach, the process that asks goes on to print the command.
    let mut asks = Command::new(quintet().expect("the machine runs"))
        .args(["debug", &guest.name, role.name()])
        .env("PATH", "/no/such/directory")
        .stdout(Stdio::null())
        .spawn()
        .expect("quintet starts");
    let line = until(&|l| l.starts_with("59616d61 "));
    assert_eq!(
        line,
        format!("{:x} {}", libc::PR_SET_PTRACER, asks.id()),
        "{role}"
    );
    assert!(asks.wait().expect("it ends").success());
    watcher.wait().expect("gdb ends");
    let goes_on = |r: &StatusReport| state_of(r, role) == PeerState::Running;
    let report = guest.wait_for("it goes on", goes_on);
    assert!(report.workers.iter().all(|w| w.generation == 1), "{report:?}");
}
