//! Processes that die: who comes back, who ends, and what is left.

mod harness;

use std::time::Duration;

use harness::{Machine, alive, leftovers, pid, processes_of, wait_until};
use quintet_coordinator::control::client;
use quintet_protocol::control::{Answer, ErrorCode, Request};
use quintet_protocol::handshake::Role;
use quintet_protocol::status::{MachineState, PeerState};
use rustix::process::{Signal, kill_process};

#[test]
fn s3_101_a_killed_gpu_worker_comes_back_alone() {
    let machine = Machine::start("kill-gpu", &[]);
    let others = [Role::Cpu, Role::Io, Role::Audio].map(|r| machine.pid(r));
    machine.signal(Role::Gpu, Signal::KILL);
    let report = machine.wait_for_generation(Role::Gpu, 2);
    assert_eq!([Role::Cpu, Role::Io, Role::Audio].map(|r| machine.pid(r)), others);
    let gpu = report
        .workers
        .iter()
        .find(|w| w.role == Role::Gpu)
        .expect("listed");
    assert_eq!(gpu.last_death, "killed by signal 9");
    let error = report.error.expect("kept");
    assert_eq!(error.code, ErrorCode::WorkerCrashed, "S3.105");
    assert_eq!(machine.quit().0, Some(0));
}

#[test]
fn s3_101_a_killed_audio_worker_comes_back_alone() {
    let machine = Machine::start("kill-audio", &[]);
    let io = machine.pid(Role::Io);
    machine.signal(Role::Audio, Signal::KILL);
    machine.wait_for_generation(Role::Audio, 2);
    assert_eq!(machine.pid(Role::Io), io);
}

#[test]
fn s3_101_a_killed_io_worker_comes_back_without_a_reset() {
    let machine = Machine::start("kill-io", &["--stable-after", "0s"]);
    let cpu = machine.pid(Role::Cpu);
    for generation in 2..=6 {
        machine.signal(Role::Io, Signal::KILL);
        let report = machine.wait_for_generation(Role::Io, generation);
        assert_eq!(report.resets, 1, "the guest was reset");
    }
    assert_eq!(machine.pid(Role::Cpu), cpu);
}

#[test]
fn s3_101_a_killed_cpu_worker_comes_back_and_the_guest_is_reset() {
    let machine = Machine::start("kill-cpu", &[]);
    let io = machine.pid(Role::Io);
    machine.signal(Role::Cpu, Signal::KILL);
    let report = machine.wait_for_generation(Role::Cpu, 2);
    assert_eq!(report.resets, 2);
    assert_eq!(machine.pid(Role::Io), io);
}

#[test]
fn guest_time_stands_still_while_an_io_worker_is_replaced() {
    let machine = Machine::start("kill-time", &[]);
    let before = machine.report().expect("answers");
    machine.signal(Role::Io, Signal::KILL);
    let after = machine.wait_for_generation(Role::Io, 2);
    // The backoff alone takes 200 ms at least, and none of it is guest time.
    let passed = after.uptime_ms - before.uptime_ms;
    let guest = after.vm_time_ms - before.vm_time_ms;
    assert!(guest + 150 <= passed, "{guest} ms of guest time in {passed} ms");
}

#[test]
fn five_deaths_in_a_row_end_the_machine_with_status_2() {
    let machine = Machine::start("five-deaths", &[]);
    for generation in 2..=5 {
        machine.signal(Role::Io, Signal::KILL);
        machine.wait_for_generation(Role::Io, generation);
    }
    machine.signal(Role::Io, Signal::KILL);
    let (status, text) = machine.end();
    assert_eq!(status, Some(2), "{text}");
    assert!(
        text.contains("the io-worker failed for good: killed by signal 9"),
        "{text}"
    );
}

#[test]
fn a_killed_coordinator_leaves_nothing_behind() {
    let mut machine = Machine::start("kill-coordinator", &[]);
    let workers = Role::WORKERS.map(|r| machine.pid(r));
    let coordinator = machine.child.id();
    machine.child.kill().expect("kill");
    machine.child.wait().expect("reap");
    let start = std::time::Instant::now();
    wait_until("nothing is left", || {
        !workers.iter().any(|&p| alive(p))
            && processes_of(coordinator, &machine.name).is_empty()
            && leftovers(coordinator).is_empty()
            && !client::names().contains(&machine.name)
    });
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        start.elapsed()
    );
    // A segment is a memfd: it lives in the descriptors and maps of processes, and there are none left.
}

#[test]
fn a_coordinator_killed_while_workers_start_leaves_nothing_behind() {
    let times: u64 = if std::env::var_os("QUINTET_LONG").is_some() {
        400
    } else {
        25
    };
    for n in 0..times {
        let mut machine = Machine::spawn(&format!("kill-start-{n}"), &[]);
        let coordinator = machine.child.id();
        // The moments are spread over the whole of a start, and some way beyond.
        std::thread::sleep(Duration::from_micros(n % 25 * 4_000 + n * 10));
        machine.child.kill().expect("kill");
        machine.child.wait().expect("reap");
        let start = std::time::Instant::now();
        wait_until("nothing is left", || {
            leftovers(coordinator).is_empty()
                && processes_of(coordinator, &machine.name).is_empty()
                && !client::names().contains(&machine.name)
        });
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "it took {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn an_orderly_end_leaves_nothing_behind() {
    let machine = Machine::start("orderly-end", &[]);
    let pids = machine.pids();
    let (name, coordinator) = (machine.name.clone(), machine.child.id());
    assert_eq!(machine.quit().0, Some(0));
    assert!(!pids.iter().any(|&p| alive(p)));
    assert_eq!(leftovers(coordinator), Vec::<String>::new());
    assert!(!client::names().contains(&name));
}

#[test]
fn a_termination_signal_ends_the_machine_in_order() {
    let machine = Machine::start("terminate", &[]);
    let workers = Role::WORKERS.map(|r| machine.pid(r));
    kill_process(pid(machine.child.id() as i32), Signal::TERM).expect("signal");
    assert_eq!(machine.end().0, Some(128 + 15));
    assert!(!workers.iter().any(|&p| alive(p)));
}

#[test]
fn s3_104_a_stopped_worker_is_held_and_not_killed() {
    let machine = Machine::start("stopped", &["--hang-timeout", "400ms"]);
    let io = machine.pid(Role::Io);
    machine.signal(Role::Io, Signal::STOP);
    let held = |r: &quintet_protocol::control::StatusReport| {
        r.workers
            .iter()
            .any(|w| w.role == Role::Io && w.state == PeerState::Held)
    };
    let before = machine.wait_for("it is held", held).vm_time_ms;
    std::thread::sleep(Duration::from_secs(1));
    let report = machine.wait_for("it is still held", held);
    assert_eq!(report.vm_time_ms, before, "guest time went on");
    machine.signal(Role::Io, Signal::CONT);
    machine.wait_for("it runs again", |r| !held(r) && r.state == MachineState::Running);
    assert_eq!(machine.pid(Role::Io), io);
}

#[test]
fn s3_100_pause_stops_guest_time_and_resume_lets_it_go_on() {
    let machine = Machine::start("pause", &[]);
    client::ask(&machine.name, &Request::Pause).expect("paused");
    let a = machine
        .wait_for("it is paused", |r| r.state == MachineState::Paused)
        .vm_time_ms;
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(machine.report().expect("answers").vm_time_ms, a);
    client::ask(&machine.name, &Request::Resume).expect("resumed");
    machine.wait_for("time goes on", |r| {
        r.state == MachineState::Running && r.vm_time_ms > a
    });
}

#[test]
fn s3_108_what_a_dead_gpu_worker_was_asked_is_answered_by_its_successor() {
    let machine = Machine::start("asked-the-dead", &[]);
    machine.signal(Role::Gpu, Signal::STOP);
    let name = machine.name.clone();
    let asked = std::thread::spawn(move || client::ask(&name, &Request::Screenshot));
    std::thread::sleep(Duration::from_millis(200));
    machine.signal(Role::Gpu, Signal::KILL);
    machine.wait_for_generation(Role::Gpu, 2);
    let answer = asked.join().expect("asked");
    assert!(matches!(answer, Ok(Answer::Screenshot(1..))), "{answer:?}");
}

#[test]
fn s3_108_only_so_many_requests_wait_at_a_time() {
    let machine = Machine::start("many-wait", &[]);
    machine.signal(Role::Gpu, Signal::STOP);
    let ask = |_| {
        let name = machine.name.clone();
        std::thread::spawn(move || client::ask(&name, &Request::Screenshot))
    };
    let asked: Vec<_> = (0..80).map(ask).collect();
    std::thread::sleep(Duration::from_millis(500));
    machine.signal(Role::Gpu, Signal::CONT);
    let answers: Vec<_> = asked.into_iter().map(|t| t.join().expect("asked")).collect();
    let served = answers
        .iter()
        .filter(|a| matches!(a, Ok(Answer::Screenshot(_))))
        .count();
    assert_eq!(served, 64, "{answers:?}");
    assert!(machine.report().is_some());
}

#[test]
fn s3_102_a_reset_restarts_no_process() {
    let machine = Machine::start("reset", &[]);
    let before = machine.pids();
    client::ask(&machine.name, &Request::Reset).expect("reset");
    let report = machine.wait_for("it runs", |r| r.state == MachineState::Running);
    assert_eq!(report.resets, 2);
    assert_eq!(machine.pids(), before);
}

#[test]
fn the_time_limit_has_status_124() {
    let machine = Machine::spawn("limit", &["--time-limit", "1s"]);
    assert_eq!(machine.end().0, Some(124));
}

#[test]
fn a_second_machine_of_the_same_name_is_refused() {
    let machine = Machine::start("twice", &[]);
    let output = harness::run_to_end(&["run", "--headless", "--name", &machine.name]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is running already"));
}

#[test]
fn workers_have_no_privileges_and_no_files_of_ours() {
    let machine = Machine::start("confined", &[]);
    for role in Role::WORKERS {
        let status = std::fs::read_to_string(format!("/proc/{}/status", machine.pid(role))).expect("status");
        let field = |name: &str| {
            status
                .lines()
                .find_map(|l| l.strip_prefix(name))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1", "{role}");
        assert_eq!(field("Seccomp:"), "2", "{role}");
        assert_eq!(field("CapEff:"), "0000000000000000", "{role}");
        assert_eq!(field("CapPrm:"), "0000000000000000", "{role}");
    }
}

#[test]
fn single_process_machines_run_and_end() {
    let machine = Machine::start("single", &["--single-process"]);
    let report = machine.report().expect("answers");
    assert!(report.single_process && report.workers.iter().all(|w| w.pid == Some(report.pid)));
    assert_eq!(machine.quit().0, Some(0));
}

#[test]
fn five_processes_take_less_than_120_mib_beside_guest_ram() {
    let machine = Machine::start("pss", &[]);
    let pss: u64 = machine
        .pids()
        .iter()
        .map(|&p| quintet_coordinator::supervise::process::pss(p as u32).unwrap_or(0))
        .sum();
    assert!(pss < 120 << 20, "{} KiB", pss >> 10);
    println!("{} KiB", pss >> 10);
}

#[test]
fn text_is_typed_and_what_cannot_be_is_refused() {
    let machine = Machine::start("type", &[]);
    let type_in = |text: &str| harness::run_to_end(&["type", &machine.name, text]);
    assert!(type_in("ls -l\\n").status.success());
    let refused = type_in("日");
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&refused.stderr).lines().count(), 1);
    let chord = harness::run_to_end(&["key", &machine.name, "ctrl-alt-delete"]);
    assert!(chord.status.success());
}
