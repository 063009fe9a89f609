//! A debugger on one worker: waited for from the start, let run, and held, while the others go on.

mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quintet_protocol::handshake::Role;
use quintet_protocol::status::{MachineState, PeerState};
use rustix::process::{Pid, Signal, kill_process};
use support::{Machine, Setup, guest_file, quintet, state_of};

/// A gdb that attaches and runs `commands`; ended when dropped.
struct Gdb(Child);

impl Gdb {
    fn attach(pid: i32, commands: &[&str]) -> Self {
        let mut gdb = Command::new("gdb");
        gdb.args(["-q", "-nx", "-batch", "-p", &pid.to_string()]);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        let quiet = gdb
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(quiet.spawn().expect("gdb is installed"))
    }

    /// Ctrl-C: what it debugs stops, and its next command is run.
    fn interrupt(&self) {
        let pid = Pid::from_raw(self.0.id() as i32).expect("a process");
        kill_process(pid, Signal::INT).expect("gdb runs");
    }
}

impl Drop for Gdb {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// VM time that passes in some time of the host.
fn passes(guest: &Machine) -> u64 {
    let before = guest.report().expect("answers").vm_time_ms;
    std::thread::sleep(Duration::from_millis(500));
    guest.report().expect("answers").vm_time_ms - before
}

/// From waiting to the debugger's end, with the debugger on `role`.
fn debugged(role: Role) {
    let Some(quintet) = quintet() else { return };
    let test = format!("attach-{}", role.name());
    let mut guest = Setup::new(quintet, guest_file(&test, quintet_guests::SPIN))
        .option("--append", "j")
        .option("--wait-for-debugger", role.name())
        .start(&test);
    // Nothing is executed and no time passes.
    let waits = guest.wait_for("it waits", |r| r.state == MachineState::Paused);
    assert!(
        waits.workers.iter().all(|w| w.state == PeerState::Running),
        "{waits:?}"
    );
    assert_eq!(
        (passes(&guest), guest.report().expect("answers").vm_time_ms),
        (0, 0)
    );
    assert_eq!(guest.seen, "");

    // A debugger that lets it run hinders nobody.
    let gdb = Gdb::attach(guest.pid(role), &["continue", "shell sleep 4"]);
    guest.hear("spinning");
    guest.wait_for("it runs", |r| r.state == MachineState::Running);
    assert!(passes(&guest) > 100);
    let report = guest.report().expect("answers");
    assert_eq!(state_of(&report, role), PeerState::Running);

    // One that holds it stops the guest's time where the guest would miss it, and nobody is killed.
    gdb.interrupt();
    guest.wait_for("it is held", |r| state_of(r, role) == PeerState::Held);
    let stands = matches!(role, Role::Cpu | Role::Io);
    let passed = passes(&guest);
    assert!(if stands { passed == 0 } else { passed > 100 }, "{passed} ms");

    // It leaves by itself.
    let end = guest.wait_for("it is let go", |r| {
        r.state == MachineState::Running && state_of(r, role) == PeerState::Running
    });
    assert!(passes(&guest) > 100);
    assert!(end.workers.iter().all(|w| w.generation == 1), "{end:?}");
}

#[test]
fn the_cpu_worker_waits_for_its_debugger_and_is_run_and_held_by_it() {
    debugged(Role::Cpu);
}

#[test]
fn the_io_worker_waits_for_its_debugger_and_is_run_and_held_by_it() {
    debugged(Role::Io);
}

#[test]
fn the_gpu_worker_waits_for_its_debugger_and_is_run_and_held_by_it() {
    debugged(Role::Gpu);
}

#[test]
fn the_audio_worker_waits_for_its_debugger_and_is_run_and_held_by_it() {
    debugged(Role::Audio);
}
