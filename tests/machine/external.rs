//! Workers that are started by hand (`--external`): by the line that the machine gives, in a plain shell and behind tools; killed, started
//! again, and by lines that are not the one that is waited for.

mod support;

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use quintet_coordinator::control::client;
use quintet_protocol::control::{Request, StatusReport};
use quintet_protocol::handshake::Role;
use quintet_protocol::handshake::worker::{EXIT_ORPHANED, EXIT_STOPPED, EXIT_USAGE};
use quintet_protocol::status::{MachineState, PeerState};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use support::{Machine, PATIENCE, Setup, guest_file, quintet, state_of, worker};

/// A line in a shell of its own; whatever it has started is killed when dropped.
struct Typed(Child);

impl Typed {
    fn start(line: &str) -> Self {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Self(shell.spawn().expect("a shell"))
    }

    /// Its end.
    fn end(mut self) -> Output {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().expect("ours") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let read = |from: &mut dyn std::io::Read| {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).expect("readable");
            bytes
        };
        Output {
            status,
            stdout: read(self.0.stdout.as_mut().expect("piped")),
            stderr: read(self.0.stderr.as_mut().expect("piped")),
        }
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id() as i32).expect("a process");
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

/// The line that is to be typed for `role`.
fn awaited(report: &StatusReport, role: Role) -> Option<&str> {
    report.workers[role.index() - 1].awaited.as_deref()
}

/// Waits until `role` is waited for, and answers the line.
fn line(guest: &Machine, role: Role) -> String {
    let report = guest.wait_for("it is waited for", |r| awaited(r, role).is_some());
    awaited(&report, role).expect("checked").to_owned()
}

fn external(test: &str, role: Role) -> Option<Machine> {
    let setup = Setup::new(quintet()?, guest_file(test, quintet_guests::SPIN)).option("--append", "j");
    Some(setup.option("--external", role.name()).start(test))
}

fn running(guest: &Machine, role: Role, generation: u32) -> i32 {
    let runs = |r: &StatusReport| {
        r.state == MachineState::Running
            && state_of(r, role) != PeerState::Starting
            && awaited(r, role).is_none()
    };
    let report = guest.wait_for("it runs", |r| {
        runs(r) && worker(r, role).is_some_and(|(_, g)| g == generation)
    });
    worker(&report, role).expect("checked").0
}

/// VM time passes.
fn goes_on(guest: &Machine) {
    let before = guest.report().expect("answers").vm_time_ms;
    guest.wait_for("time passes", |r| r.vm_time_ms > before + 100);
}

/// What a line says that is refused.
fn refused(line: &str) -> String {
    let output = Typed::start(line).end();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(EXIT_USAGE)), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn by_hand(role: Role) {
    let test = format!("external-{}", role.name());
    let Some(mut guest) = external(&test, role) else {
        return;
    };
    // The others are there, and time stands.
    let first = line(&guest, role);
    let others = Role::WORKERS.into_iter().filter(|r| *r != role);
    let report = guest.wait_for("the others are ready", |r| {
        others.clone().all(|o| state_of(r, o) == PeerState::Running)
    });
    assert_eq!((report.state, report.vm_time_ms), (MachineState::Starting, 0));
    assert_eq!(worker(&report, role), None);

    let typed = Typed::start(&first);
    guest.hear("spinning");
    let pid = running(&guest, role, 1);
    goes_on(&guest);
    let report = guest.report().expect("answers");
    let lacks = &report.workers[role.index() - 1].unconfined;
    assert!(
        lacks.iter().any(|l| l.starts_with("started by hand")),
        "{lacks:?}"
    );
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("it lives");
    assert_eq!(name, format!("quintet-{}\n", role.name()));

    // Typed once more, or with another program, it changes nothing.
    assert!(refused(&first).contains(&format!("runs already, as process {pid}")));
    let other = others.clone().next_back().expect("three");
    let stranger = first.replace(role.binary(), other.binary());
    assert!(refused(&stranger).contains(&format!("starts its {other} itself")));

    // Dead, it is asked for anew, and the old line is past.
    kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).expect("it lives");
    drop(typed.end());
    let second = line(&guest, role);
    assert_ne!(first, second);
    assert!(refused(&first).contains("process 2 is next"));
    let report = guest.report().expect("answers");
    assert_eq!(awaited(&report, role), Some(&second[..]), "nothing has changed");

    let typed = Typed::start(&second);
    if role == Role::Cpu {
        // Its state has died with it.
        guest.hear("spinning");
    }
    running(&guest, role, 2);
    goes_on(&guest);
    let report = guest.report().expect("answers");
    assert!(
        report.workers.iter().all(|w| w.role == role || w.generation == 1),
        "{report:?}"
    );

    // It ends with the machine, in good order, and what was printed for it leads nowhere then.
    client::ask(&guest.name, &Request::Quit).expect("it runs");
    assert_eq!(guest.end().0, Some(0));
    let output = typed.end();
    assert_eq!(output.status.code(), Some(i32::from(EXIT_STOPPED)), "{output:?}");
    assert!(refused(&second).contains("There is no machine"));
}

#[test]
fn the_cpu_worker_is_started_by_hand_and_again() {
    by_hand(Role::Cpu);
}

#[test]
fn the_io_worker_is_started_by_hand_and_again() {
    by_hand(Role::Io);
}

#[test]
fn the_gpu_worker_is_started_by_hand_and_again() {
    by_hand(Role::Gpu);
}

#[test]
fn the_audio_worker_is_started_by_hand_and_again() {
    by_hand(Role::Audio);
}

#[test]
fn a_tool_can_stand_in_front() {
    let Some(mut guest) = external("external-tool", Role::Io) else {
        return;
    };
    let line = line(&guest, Role::Io);
    // One that executes it, and one that is its parent and its debugger.
    let typed = Typed::start(&format!("nice -n 1 gdb -q -nx -batch -ex run --args {line}"));
    guest.hear("spinning");
    let pid = running(&guest, Role::Io, 1);
    assert_ne!(pid as u32, typed.0.id());
    goes_on(&guest);
    client::ask(&guest.name, &Request::Quit).expect("it runs");
    assert_eq!(guest.end().0, Some(0));
    let output = typed.end();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("exited normally"), "{output:?}");
}

#[test]
fn a_machine_that_waits_can_be_ended_and_its_successor_does_not_take_its_commands() {
    let Some(guest) = external("external-gone", Role::Audio) else {
        return;
    };
    let old = line(&guest, Role::Audio);
    client::ask(&guest.name, &Request::Quit).expect("it runs");
    assert_eq!(guest.end().0, Some(0));
    let Some(next) = external("external-gone", Role::Audio) else {
        return;
    };
    let new = line(&next, Role::Audio);
    assert!(refused(&old).contains("of a machine") && old != new);
    assert!(refused(&format!("{old}x")).contains("is not a ticket"));
    let report = next.report().expect("answers");
    assert_eq!(awaited(&report, Role::Audio), Some(&new[..]));
}

#[test]
fn who_was_started_by_hand_ends_when_the_coordinator_is_killed() {
    let Some(mut guest) = external("external-orphan", Role::Gpu) else {
        return;
    };
    let typed = Typed::start(&line(&guest, Role::Gpu));
    guest.hear("spinning");
    running(&guest, Role::Gpu, 1);
    drop(guest);
    let output = typed.end();
    assert_eq!(output.status.code(), Some(i32::from(EXIT_ORPHANED)), "{output:?}");
}
