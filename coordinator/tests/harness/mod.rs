//! Real machines for tests: starts `quintet`, finds its workers, kills things, and never waits for ever.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod mistakes;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use quintet_protocol::control::{Answer, Request, StatusReport};
use quintet_protocol::handshake::Role;
use quintet_protocol::status::{MachineState, PeerState};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything; a loaded machine is slow, a hung one is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The coordinator's executable, with the workers' beside it.
pub fn quintet() -> PathBuf {
    static WORKERS: Once = Once::new();
    let path = PathBuf::from(env!("CARGO_BIN_EXE_quintet"));
    WORKERS.call_once(|| build_workers(&path));
    path
}

/// Cargo builds only the tested package's executables; `cargo xtask test` builds all before.
fn build_workers(quintet: &Path) {
    let dir = quintet.parent().expect("a directory");
    if Role::WORKERS.into_iter().all(|r| dir.join(r.binary()).exists()) {
        return;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .arg("build")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for role in Role::WORKERS {
        cargo.args(["-p", role.binary()]);
    }
    match dir.file_name().and_then(|n| n.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            cargo.args(["--profile", profile]);
        }
    }
    assert!(
        cargo.status().expect("cargo").success(),
        "the workers do not build"
    );
}

/// A machine that runs; killed when dropped.
pub struct Machine {
    pub child: Child,
    pub name: String,
}

impl Machine {
    /// Starts a machine with a serial line to nowhere and waits until it runs.
    pub fn start(test: &str, options: &[&str]) -> Self {
        let machine = Self::spawn(test, options);
        machine.wait_for("it runs", |r| r.state == MachineState::Running);
        machine
    }

    /// Starts a machine without waiting.
    pub fn spawn(test: &str, options: &[&str]) -> Self {
        let name = format!("{test}-{}", std::process::id());
        let child = Command::new(quintet())
            .args([
                "run",
                "--headless",
                "--ram",
                "64M",
                "--serial",
                "none",
                "--name",
                &name,
            ])
            .args(["--kernel", &echo_guest()])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("quintet starts");
        Self { child, name }
    }

    /// How it is; `None` while it does not answer.
    pub fn report(&self) -> Option<StatusReport> {
        match quintet_coordinator::control::client::ask(&self.name, &Request::Status) {
            Ok(Answer::Status(report)) => Some(*report),
            _ => None,
        }
    }

    /// Waits until a report satisfies `condition`.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&StatusReport) -> bool) -> StatusReport {
        let mut last = None;
        wait_until(what, || {
            last = self.report();
            last.as_ref().is_some_and(&condition)
        });
        last.expect("the condition held")
    }

    /// The process of a worker that is running.
    pub fn pid(&self, role: Role) -> i32 {
        let of = |r: &StatusReport| r.workers.iter().find(|w| w.role == role).and_then(|w| w.pid);
        of(&self.wait_for("the worker has a process", |r| of(r).is_some())).expect("checked")
    }

    /// All its processes.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = Role::WORKERS.into_iter().map(|r| self.pid(r)).collect();
        pids.push(self.child.id() as i32);
        pids
    }

    /// Sends a signal to a worker.
    pub fn signal(&self, role: Role, signal: Signal) {
        let _ = kill_process(pid(self.pid(role)), signal);
    }

    /// Waits until a worker's newest process has at least this number and everything runs.
    pub fn wait_for_generation(&self, role: Role, generation: u32) -> StatusReport {
        self.wait_for("a successor runs", |r| {
            r.state == MachineState::Running
                && r.workers
                    .iter()
                    .any(|w| w.role == role && w.generation >= generation && w.state == PeerState::Running)
        })
    }

    /// Waits for the end and answers exit status and standard error.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_until("the machine ends", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
        }
        (status.and_then(|s| s.code()), text)
    }

    /// Tells it to quit and waits for the end.
    pub fn quit(self) -> (Option<i32>, String) {
        let _ = quintet_coordinator::control::client::ask(&self.name, &Request::Quit);
        self.end()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `quintet` to its end, which a machine with a mistake in its configuration reaches by itself.
pub fn run_to_end(arguments: &[&str]) -> Output {
    let mut child = Command::new(quintet())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("quintet starts");
    let mut ended = false;
    let start = Instant::now();
    while !ended && start.elapsed() < PATIENCE {
        ended = child.try_wait().expect("wait").is_some();
        std::thread::sleep(Duration::from_millis(10));
    }
    if !ended {
        let _ = child.kill();
        panic!("quintet {arguments:?} did not end");
    }
    child.wait_with_output().expect("output")
}

/// Waits until something holds, for as long as [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The guest that echoes its serial line, as a file; it waits for ever without one.
pub fn echo_guest() -> String {
    static FILE: Once = Once::new();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("echo-{}.elf", std::process::id()));
    FILE.call_once(|| std::fs::write(&path, quintet_guests::ECHO).expect("the guest as a file"));
    path.display().to_string()
}

/// A process id as the type of system calls.
pub fn pid(raw: i32) -> Pid {
    Pid::from_raw(raw).expect("a process id")
}

/// Whether a process exists and is not only waiting to be reaped.
pub fn alive(raw: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{raw}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .is_some_and(|s| s != "Z" && s != "X")
}

/// What a coordinator with this process id has left in the places where names are.
pub fn leftovers(coordinator: u32) -> Vec<String> {
    let mut found = Vec::new();
    let mark = format!("-{coordinator}-");
    let runtime = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| "/tmp".into());
    for dir in ["/tmp", "/dev/shm", &runtime] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("quintet-start-") && name.contains(&mark) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// Processes that live and belong to a coordinator with this process id and name: workers, and what it has just forked.
pub fn processes_of(coordinator: u32, name: &str) -> Vec<i32> {
    let mark = format!("-{coordinator}-");
    let belongs = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(name) || line.contains("quintet-start-") && line.contains(&mark)
    };
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| alive(*pid))
        .filter(belongs)
        .collect()
}
