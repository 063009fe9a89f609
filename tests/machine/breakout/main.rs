//! Workers that were taken over: each confined process of a machine tries to break out, and each attempt is refused.
//!
//! The processes are the real ones, made to try by a tracer (`captive`); what they try is a table (`attempts`). Afterwards they
//! go on as if nothing had been. `host` starts the machines, as another user and on hosts that lack something.
#![cfg(target_arch = "x86_64")]

mod attempts;
mod captive;
mod host;
mod own;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/xvfb.rs"]
mod xvfb;

use std::time::{Duration, Instant};

use quintet_protocol::control::{StatusReport, address};
use quintet_protocol::handshake::Role;
use quintet_protocol::status::MachineState;
use syscalls::Sysno;

use attempts::{ATTEMPTS, Column, Scene};
use captive::{Captive, Outcome, maps};
use host::{Guest, Host, Lacking, User};
use own::OWN_ATTEMPTS;
use support::PATIENCE;
use xvfb::Xvfb;

/// Lets every attempt be made by one process, and lets it go.
fn attempts_of(guest: &Guest, column: Column, pid: i32, mut captive: Captive) -> Vec<Outcome> {
    let coordinator = guest.report().pid;
    let sibling = guest
        .report()
        .workers
        .iter()
        .filter_map(|w| w.pid)
        .find(|p| *p != pid);
    let scene = Scene {
        coordinator,
        sibling: sibling.expect("there are four"),
        file: guest.host.file(),
        new_file: guest.host.new_file(),
        control: address(guest.host.uid(), &guest.name),
        // Its peers' words: mapped shared, and not writable.
        foreign: maps(pid)
            .into_iter()
            .find(|m| m.mode == "r--s" && m.name.contains("quintet-")),
    };
    assert_eq!(scene.foreign.is_none(), column == Column::Compiler, "{column:?}");
    let outcomes = ATTEMPTS.iter().map(|a| a.by(&mut captive, &scene)).collect();
    captive.release();
    outcomes
}

/// Prints who tried what and how it ended, and answers what should not have ended so.
fn judge(columns: &[(Column, Vec<Outcome>)]) -> Vec<String> {
    let mut wrong = Vec::new();
    print!("{:<34}", "");
    for (column, _) in columns {
        print!(" {:<24}", column.name());
    }
    println!();
    for (row, attempt) in ATTEMPTS.iter().enumerate() {
        print!("{:<34}", attempt.name);
        for (column, outcomes) in columns {
            let outcome = outcomes[row];
            print!(" {outcome:<24}");
            if !attempt.accepts(*column, outcome) {
                wrong.push(format!("{}: {}: {outcome}", column.name(), attempt.name));
            }
        }
        println!();
    }
    wrong
}

/// What shows from outside that a worker is confined: each of its threads, its network, its limits, its descriptors.
fn looks_confined(column: Column, pid: i32, coordinator: i32, host: &Host) {
    let read = |path: String| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it lives")
        .flatten()
    {
        let status = read(task.path().join("status").display().to_string());
        for line in [
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
        ] {
            assert!(status.contains(line), "{column:?}: no {line} in\n{status}");
        }
    }
    let network = |pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).expect("it lives");
    let alone = network(pid) != network(coordinator);
    assert_eq!(alone, host.has_namespaces(), "{column:?}");
    if alone {
        let devices = read(format!("/proc/{pid}/net/dev"));
        let devices: Vec<_> = devices
            .lines()
            .skip(2)
            .filter_map(|l| l.split(':').next())
            .collect();
        assert_eq!(
            devices.iter().map(|d| d.trim()).collect::<Vec<_>>(),
            ["lo"],
            "{column:?}"
        );
    }
    let limits = read(format!("/proc/{pid}/limits"));
    let limit = |name: &str| {
        let line = limits
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .expect("a limit");
        line.split_whitespace().nth(1).expect("a hard limit").to_owned()
    };
    assert_eq!(limit("Max core file size"), "0", "{column:?}");
    assert_eq!(limit("Max msgqueue size"), "0", "{column:?}");
    if column != Column::Window {
        assert_eq!(limit("Max open files"), "256", "{column:?}");
        assert_eq!(limit("Max locked memory"), "0", "{column:?}");
        assert_ne!(limit("Max data size"), "unlimited", "{column:?}");
        let files = limit("Max file size");
        match column {
            Column::Io | Column::IoFiles => assert_eq!(files, "unlimited"),
            Column::Audio => assert_eq!(files, (4u64 << 30).to_string()),
            Column::Compiler => assert_ne!(files, "unlimited"),
            _ => assert_eq!(files, "0", "{column:?}"),
        }
    }
    // A map can be made no more writable than its descriptor was, and there is none left to try with.
    if column != Column::Compiler {
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("it lives")
            .flatten()
        {
            let target = std::fs::read_link(fd.path())
                .unwrap_or_default()
                .display()
                .to_string();
            assert!(!target.contains("memfd:quintet-"), "{column:?} has {target} open");
        }
    }
}

/// One worker of a machine: looked at, and made to try everything.
fn worker(guest: &Guest, role: Role, column: Column) -> (Column, Vec<Outcome>) {
    let report = guest.running();
    let pid = pid_of(&report, role);
    looks_confined(column, pid, report.pid, &guest.host);
    let captive = Captive::take(pid).unwrap_or_else(|e| panic!("{column:?}: {e}"));
    (column, attempts_of(guest, column, pid, captive))
}

fn pid_of(report: &StatusReport, role: Role) -> i32 {
    let worker = report.workers.iter().find(|w| w.role == role);
    worker.and_then(|w| w.pid).expect("it runs")
}

/// Nobody died of what was tried, and the machine works.
fn unharmed(guest: &mut Guest, wrong: &[String]) {
    assert!(wrong.is_empty(), "not refused:\n{}", wrong.join("\n"));
    let report = guest.running();
    assert!(report.workers.iter().all(|w| w.generation == 1), "{report:?}");
    assert_eq!(
        std::fs::read(guest.host.file()).expect("still there"),
        host::CONTENTS
    );
    assert!(!std::path::Path::new(&guest.host.new_file()).exists());
}

const PC: [(Role, Column); 4] = [
    (Role::Cpu, Column::Cpu),
    (Role::Io, Column::Io),
    (Role::Gpu, Column::Gpu),
    (Role::Audio, Column::Audio),
];

fn the_workers_of_a_pc(test: &str, user: User, lacking: Lacking) -> Option<Guest> {
    let host = Host::new(test, user, lacking)?;
    let mut guest = host.pc(&["--headless"], &[]);
    guest.echoes("before");
    let columns = PC.map(|(role, column)| worker(&guest, role, column));
    unharmed(&mut guest, &judge(&columns));
    guest.echoes("after");
    Some(guest)
}

/// A PC whose window is drawn by software, and which echoes.
fn in_a_window(host: Host, x: &Xvfb) -> Guest {
    let mut guest = host.pc(
        &["--software"],
        &[("DISPLAY", &x.display), ("WAYLAND_DISPLAY", "")],
    );
    guest.echoes("before");
    guest
}

fn a_worker_with_a_window(test: &str, user: User) {
    let Some(host) = Host::new(test, user, Lacking::Nothing) else {
        return;
    };
    let Some(x) = Xvfb::start(&[]) else { return };
    let mut guest = in_a_window(host, &x);
    let column = worker(&guest, Role::Gpu, Column::Window);
    unharmed(&mut guest, &judge(&[column]));
    guest.echoes("after");
}

/// The audio-worker, where there is something that looks like a sound server.
fn a_worker_with_a_sound_device(test: &str, user: User) {
    let Some(host) = Host::new(test, user, Lacking::Nothing) else {
        return;
    };
    let server = host.sound_server();
    let mut guest = host.pc(&["--headless"], &[("PULSE_SERVER", &server)]);
    guest.echoes("before");
    let column = worker(&guest, Role::Audio, Column::AudioHost);
    unharmed(&mut guest, &judge(&[column]));
    guest.echoes("after");
}

fn the_processes_of_modules(test: &str, user: User) {
    let Some(host) = Host::new(test, user, Lacking::Nothing) else {
        return;
    };
    if !host.has_compiler() {
        return;
    }
    let mut guest = host.modules();
    guest.running();
    let mut columns = vec![
        worker(&guest, Role::Cpu, Column::CpuModules),
        worker(&guest, Role::Io, Column::IoFiles),
    ];
    // A module that takes the compiler seconds; it is caught once its second filter is there.
    let coordinator = guest.running().pid;
    let mut submission = guest.submit_something_large();
    let start = Instant::now();
    let pid = loop {
        if let Some(pid) = host::compiler_of(coordinator) {
            break pid;
        }
        assert!(start.elapsed() < PATIENCE, "no compiler");
        std::thread::sleep(Duration::from_millis(1));
    };
    looks_confined(Column::Compiler, pid, coordinator, &guest.host);
    let captive = Captive::take(pid).expect("it compiles");
    columns.push((
        Column::Compiler,
        attempts_of(&guest, Column::Compiler, pid, captive),
    ));
    // It compiles on, and what it makes is right.
    let output = submission.wait().expect("it ends");
    assert!(output.success(), "{output}");
    unharmed(&mut guest, &judge(&columns));
}

fn the_coordinator_itself(test: &str, user: User) {
    let Some(host) = Host::new(test, user, Lacking::Nothing) else {
        return;
    };
    let mut guest = host.pc(&["--headless"], &[]);
    guest.echoes("before");
    let report = guest.running();
    let scene = Scene {
        coordinator: report.pid,
        sibling: std::process::id() as i32,
        file: guest.host.file(),
        new_file: guest.host.new_file(),
        control: Vec::new(),
        foreign: None,
    };
    // Before Linux 6.12 Landlock knows nothing of signals, which is named.
    let older = report.unconfined.iter().any(|m| m.contains("Landlock"));
    let mut captive = Captive::take(report.pid).expect("it runs");
    let mut wrong = Vec::new();
    for attempt in OWN_ATTEMPTS.iter().filter(|a| !(older && a.newest)) {
        let outcome = (attempt.act)(&mut captive, &scene);
        println!("{:<34} {outcome}", attempt.name);
        if !attempt.refused.iter().any(|e| outcome == Outcome::Refused(*e)) {
            wrong.push(format!("{}: {outcome}", attempt.name));
        }
    }
    captive.release();
    for task in std::fs::read_dir(format!("/proc/{}/task", report.pid))
        .expect("it lives")
        .flatten()
    {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line), "no {line} in\n{status}");
        }
    }
    unharmed(&mut guest, &wrong);
    guest.echoes("after");
}

#[test]
fn each_worker_of_a_pc_is_refused_everything() {
    the_workers_of_a_pc("breakout-pc", User::Own, Lacking::Nothing);
}

#[test]
fn each_worker_of_a_pc_is_refused_everything_as_an_ordinary_user() {
    the_workers_of_a_pc("breakout-pc-user", User::Ordinary, Lacking::Nothing);
}

#[test]
fn an_audio_worker_with_a_device_cannot_break_out() {
    a_worker_with_a_sound_device("breakout-sound", User::Own);
}

#[test]
fn an_ordinary_users_audio_worker_with_a_device_cannot_either() {
    a_worker_with_a_sound_device("breakout-sound-user", User::Ordinary);
}

#[test]
fn a_worker_with_a_window_is_refused_everything_but_what_drivers_need() {
    a_worker_with_a_window("breakout-window", User::Own);
}

#[test]
fn a_worker_with_a_window_is_refused_as_much_as_an_ordinary_user() {
    a_worker_with_a_window("breakout-window-user", User::Ordinary);
}

#[test]
fn the_processes_of_modules_and_their_compiler_are_refused_everything() {
    the_processes_of_modules("breakout-modules", User::Own);
}

#[test]
fn the_processes_of_modules_are_refused_everything_as_an_ordinary_user() {
    the_processes_of_modules("breakout-modules-user", User::Ordinary);
}

#[test]
fn the_coordinator_is_refused_what_its_job_does_not_need() {
    the_coordinator_itself("breakout-own", User::Own);
}

#[test]
fn the_coordinator_is_refused_as_much_as_an_ordinary_user() {
    the_coordinator_itself("breakout-own-user", User::Ordinary);
}

/// What is missing is one line at the start and in both forms of `status`, and the filters hold without it.
fn lacks(test: &str, user: User, lacking: Lacking, words: &[&str]) {
    let Some(guest) = the_workers_of_a_pc(test, user, lacking) else {
        return;
    };
    let report = guest.report();
    for worker in &report.workers {
        assert!(
            worker
                .unconfined
                .iter()
                .any(|m| words.iter().all(|w| m.contains(w))),
            "{worker:?}"
        );
    }
    let text = guest.status(&[]);
    assert!(words.iter().all(|w| text.contains(w)), "{text}");
    let said = guest.end();
    let lines: Vec<_> = said
        .lines()
        .filter(|l| l.contains("not fully confined"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(words.iter().all(|w| lines[0].contains(w)), "{said}");
}

#[test]
fn without_landlock_the_filters_hold_and_what_is_missing_is_named() {
    lacks(
        "breakout-landlock",
        User::Own,
        Lacking::Landlock,
        &["Landlock", "none"],
    );
}

#[test]
fn without_landlock_the_filters_hold_as_an_ordinary_user() {
    lacks(
        "breakout-landlock-user",
        User::Ordinary,
        Lacking::Landlock,
        &["Landlock", "none"],
    );
}

#[test]
fn without_namespaces_the_filters_hold_and_what_is_missing_is_named() {
    let words = ["network namespace", "user namespaces"];
    lacks("breakout-names", User::Own, Lacking::Namespaces, &words);
}

#[test]
fn without_namespaces_the_filters_hold_as_an_ordinary_user() {
    let words = ["network namespace", "user namespaces"];
    lacks("breakout-names-user", User::Ordinary, Lacking::Namespaces, &words);
}

#[test]
fn without_namespaces_a_window_opens_and_what_is_missing_is_named() {
    let Some(host) = Host::new("breakout-names-window", User::Ordinary, Lacking::Namespaces) else {
        return;
    };
    let Some(x) = Xvfb::start(&[]) else { return };
    let guest = in_a_window(host, &x);
    let report = guest.running();
    let gpu = report
        .workers
        .iter()
        .find(|w| w.role == Role::Gpu)
        .expect("reported");
    assert!(
        gpu.unconfined.iter().any(|m| m.contains("network namespace")),
        "{gpu:?}"
    );
}

#[test]
fn a_window_whose_x_server_has_no_socket_file_opens_in_the_hosts_network() {
    for (test, user) in [
        ("breakout-abstract", User::Own),
        ("breakout-abstract-user", User::Ordinary),
    ] {
        let Some(host) = Host::new(test, user, Lacking::Nothing) else {
            return;
        };
        let Some(x) = Xvfb::start(&[]) else { return };
        let number = x.display.trim_start_matches(':');
        std::fs::remove_file(format!("/tmp/.X11-unix/X{number}")).expect("a socket file");
        let guest = in_a_window(host, &x);
        let report = guest.running();
        for worker in &report.workers {
            let kept = worker
                .unconfined
                .iter()
                .any(|m| m.contains("network namespace: kept"));
            assert_eq!(kept, worker.role == Role::Gpu, "{worker:?}");
        }
        // The others have none all the same.
        if guest.host.has_namespaces() {
            let network = |pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).expect("it lives");
            for (role, _) in PC {
                let alone = network(pid_of(&report, role)) != network(report.pid);
                assert_eq!(alone, role != Role::Gpu, "{role}");
            }
        }
    }
}

#[test]
fn in_a_user_namespace_workers_die_with_the_coordinator_and_can_be_debugged() {
    let Some(host) = Host::new("breakout-user", User::Ordinary, Lacking::Nothing) else {
        return;
    };
    let guest = host.pc(&["--headless"], &[]);
    let report = guest.running();
    for (role, _) in PC {
        let pid = pid_of(&report, role);
        let seen = guest.host.gdb(pid, "info registers rip");
        assert!(seen.contains("rip "), "{role}: {seen}");
    }
    guest.running();
    let pids: Vec<_> = PC.iter().map(|(role, _)| pid_of(&report, *role)).collect();
    drop(guest);
    let start = Instant::now();
    while pids
        .iter()
        .any(|pid| std::fs::exists(format!("/proc/{pid}")).unwrap_or(true))
    {
        assert!(start.elapsed() < PATIENCE, "they live on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn without_yama_that_is_named() {
    let Some(host) = Host::new("breakout-yama", User::Own, Lacking::Nothing) else {
        return;
    };
    let guest = host.pc(&["--headless"], &[]);
    let report = guest.running();
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let free = scope.as_deref().unwrap_or("0").trim() == "0";
    assert_eq!(
        report.unconfined.iter().any(|m| m.contains("Yama")),
        free,
        "{report:?}"
    );
    assert_eq!(guest.status(&[]).contains("Yama"), free);
    // What an administrator has switched off is no news at every start.
    assert_eq!(guest.end().contains("Yama"), scope.is_err());
}

#[test]
fn without_a_sandbox_the_workers_do_what_they_like_and_it_is_said() {
    let Some(host) = Host::new("breakout-none", User::Own, Lacking::Nothing) else {
        return;
    };
    let guest = host.pc(&["--headless", "--no-sandbox"], &[]);
    let report = guest.running();
    for role in Role::WORKERS {
        let mut captive = Captive::take(pid_of(&report, role)).expect("it runs");
        // The attempts would succeed, so the table is about the sandbox.
        let fd = captive.call(
            Sysno::socket,
            &[libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0],
        );
        assert!(matches!(fd, Outcome::Done(_)), "{role}: {fd}");
        captive.release();
    }
    assert!(guest.status(&[]).contains("--no-sandbox"));
    let said = guest.end();
    assert!(said.contains("WARNING: --no-sandbox"), "{said}");
}

#[test]
fn a_worker_that_calls_what_is_forbidden_dies_of_it_by_name() {
    let Some(host) = Host::new("breakout-named", User::Own, Lacking::Nothing) else {
        return;
    };
    let guest = host.pc(&["--headless", "--stable-after", "0s"], &[]);
    for (role, _) in PC {
        let report = guest.running();
        let captive = Captive::take(pid_of(&report, role)).expect("it runs");
        captive.fall(Sysno::socket);
        let named = format!(
            "system call {} (socket) is not allowed by the sandbox",
            libc::SYS_socket
        );
        guest.wait_for("its successor runs", |r| {
            let worker = r.workers.iter().find(|w| w.role == role).expect("reported");
            r.state == MachineState::Running && worker.generation == 2 && worker.last_death == named
        });
        assert!(guest.status(&[]).contains(&named));
    }
    let said = guest.end();
    assert!(said.contains("(socket) is not allowed by the sandbox"), "{said}");
}
