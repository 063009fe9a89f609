//! A machine of five processes under test: what it prints, what is typed, how it is, and who dies.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod folder;

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quintet_coordinator::control::client;
use quintet_protocol::control::{Answer, Request, StatusReport};
use quintet_protocol::handshake::Role;
use quintet_protocol::status::{MachineState, PeerState};
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for one piece of output: a watchdog, not a measurement.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Longest wait for something that takes no work of the guest's: a watchdog, too.
const SOON: Duration = Duration::from_secs(120);

/// Waits until `look` finds something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < SOON, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What no kernel's log may contain.
const COMPLAINTS: &[&str] = &[
    "nobody cared",
    "unstable",
    "soft lockup",
    "spurious",
    "Disabling IRQ",
    "overrun",
    "rcu_sched self-detected stall",
    "Kernel panic",
];

/// Whether the long form is wanted: `cargo xtask test --long`.
pub fn long() -> bool {
    std::env::var_os("QUINTET_LONG").is_some()
}

/// The size of a test: what continuous integration has time for, or all of it.
pub fn scale<T>(short: T, all: T) -> T {
    if long() { all } else { short }
}

/// A variable that the test runner sets; without it the test is skipped loudly, and fails where `CI` is set.
pub fn variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name);
    if value.is_none() {
        assert!(
            std::env::var_os("CI").is_none_or(|v| v != "true"),
            "{name} is not set"
        );
        eprintln!("SKIPPED: {name} is not set; run cargo xtask test");
    }
    value
}

/// The coordinator's executable; `None` as [`variable`].
pub fn quintet() -> Option<PathBuf> {
    variable("QUINTET_BIN_DIR").map(|dir| PathBuf::from(dir).join("quintet"))
}

/// A guest of ours as a file.
pub fn guest_file(name: &str, image: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.elf", std::process::id()));
    std::fs::write(&path, image).expect("the guest as a file");
    path
}

/// What a machine is started with.
#[derive(Debug)]
pub struct Setup {
    quintet: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Setup {
    /// A machine without a window and with its serial line on this process's pipes.
    pub fn headless(quintet: PathBuf) -> Self {
        Self::bare(quintet).flag("--headless")
    }

    /// The same with a guest in `kernel`.
    pub fn new(quintet: PathBuf, kernel: impl AsRef<OsStr>) -> Self {
        Self::headless(quintet).option("--kernel", kernel)
    }

    /// The same with a disk to boot from by the built-in BIOS.
    pub fn disk(quintet: PathBuf, disk: impl AsRef<OsStr>) -> Self {
        Self::headless(quintet).option("--disk", disk)
    }

    /// A machine with a window and with its serial line on this process's pipes. Until something else is named, the guest is
    /// the built-in demo.
    pub fn bare(quintet: PathBuf) -> Self {
        Self {
            quintet,
            arguments: ["run", "--serial", "stdio"].map(OsString::from).into(),
            environment: Vec::new(),
        }
    }

    /// Debian's kernel of an architecture (`AMD64` or `I686`) with the tests' initramfs; `None` as [`variable`].
    pub fn linux(architecture: &str) -> Option<Self> {
        let quintet = quintet()?;
        let kernel = variable(&format!("QUINTET_KERNEL_{architecture}"))?;
        let initrd = variable(&format!("QUINTET_INITRD_{architecture}"))?;
        Some(
            Self::new(quintet, kernel)
                .option("--initrd", initrd)
                .option("--append", "console=ttyS0"),
        )
    }

    /// As [`Self::linux`] with an initramfs that loads the modules for disks.
    pub fn linux_with_disks(architecture: &str) -> Option<Self> {
        let quintet = quintet()?;
        let kernel = variable(&format!("QUINTET_KERNEL_{architecture}"))?;
        let initrd = variable(&format!("QUINTET_INITRD_DISK_{architecture}"))?;
        Some(
            Self::new(quintet, kernel)
                .option("--initrd", initrd)
                .option("--append", "console=ttyS0"),
        )
    }

    /// The same with the programs of another folder.
    pub fn built_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.quintet = folder.into().join("quintet");
        self
    }

    /// An option with its value.
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.arguments.push(name.into());
        self.arguments.push(value.as_ref().to_owned());
        self
    }

    /// An option without a value.
    pub fn flag(mut self, name: &str) -> Self {
        self.arguments.push(name.into());
        self
    }

    /// A variable of its environment.
    pub fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Starts it under a name of its own.
    pub fn start(self, test: &str) -> Machine {
        let name = format!("{test}-{}", std::process::id());
        let mut process = Command::new(&self.quintet)
            .args(&self.arguments)
            .args(["--name", &name])
            .envs(self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("quintet starts");
        let mut stdout = process.stdout.take().expect("piped");
        let (send, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut bytes) {
                if send.send((bytes[..n].to_vec(), Instant::now())).is_err() {
                    return;
                }
            }
        });
        Machine {
            stdin: process.stdin.take(),
            process,
            name,
            output,
            seen: String::new(),
            heard: 0,
            at: Instant::now(),
        }
    }
}

/// A machine that runs; killed when dropped.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    stdin: Option<ChildStdin>,
    /// Its name.
    pub name: String,
    output: Receiver<(Vec<u8>, Instant)>,
    /// Everything that it has printed.
    pub seen: String,
    /// How much of that has been listened to.
    heard: usize,
    /// When the newest piece of it arrived.
    pub at: Instant,
}

impl Machine {
    /// Waits until `text` is printed, and answers what came before it since the last wait.
    pub fn hear(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen[self.heard..].find(text) {
                let before = self.seen[self.heard..self.heard + at].to_owned();
                self.heard += at + text.len();
                return before;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                // The kernel's log is ASCII, and so is all that our guests say.
                Ok((bytes, at)) => {
                    self.seen.extend(bytes.into_iter().map(char::from));
                    self.at = at;
                }
                Err(why) => {
                    let _ = self.process.kill();
                    panic!("no {text:?} ({why}), but:\n{}", self.seen);
                }
            }
        }
    }

    /// Reads whatever it still prints, to its end.
    pub fn hear_all(&mut self) {
        let deadline = Instant::now() + PATIENCE * 20;
        loop {
            match self
                .output
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok((bytes, _)) => self.seen.extend(bytes.into_iter().map(char::from)),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.seen),
            }
        }
    }

    /// Types.
    pub fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(text.as_bytes()).expect("the machine takes input");
    }

    /// Waits for the shell of the tests' initramfs.
    pub fn shell(&mut self) {
        self.hear("quintet: ready");
        self.hear("# ");
    }

    /// Has the shell execute a command, and answers what that printed.
    pub fn command(&mut self, command: &str) -> String {
        // The marks are typed in two halves, so that the echo of the typing, which wraps, is not taken for them.
        self.say(&format!("echo sta''rt=; {command}; echo do''ne=$?=\n"));
        self.hear("start=\r\n");
        let text = self.hear("done=");
        let status = self.hear("=");
        assert_eq!(status, "0", "{command}: {text}");
        self.hear("# ");
        text.replace('\r', "")
    }

    /// How it is; `None` while it does not answer.
    pub fn report(&self) -> Option<StatusReport> {
        report(&self.name)
    }

    /// Waits until its report satisfies a condition.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&StatusReport) -> bool) -> StatusReport {
        let start = Instant::now();
        loop {
            match self.report() {
                Some(report) if condition(&report) => return report,
                last => assert!(
                    start.elapsed() < PATIENCE,
                    "waited in vain until {what}: {last:?}"
                ),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process of a worker.
    pub fn pid(&self, role: Role) -> i32 {
        let report = self.wait_for("the worker has a process", |r| worker(r, role).is_some());
        worker(&report, role).expect("checked").0
    }

    /// All five processes, the coordinator first.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = vec![self.process.id() as i32];
        pids.extend(Role::WORKERS.map(|role| self.pid(role)));
        pids
    }

    /// Kills a worker and waits until its successor runs.
    pub fn kill(&self, role: Role) -> StatusReport {
        let report = self.wait_for("the worker has a process", |r| worker(r, role).is_some());
        let (pid, generation) = worker(&report, role).expect("checked");
        let _ = kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL);
        self.wait_for("a successor runs", |r| {
            r.state == MachineState::Running && worker(r, role).is_some_and(|w| w.1 > generation)
        })
    }

    /// Starts killing a worker again and again.
    pub fn killer(&self, role: Role, pause: Duration) -> Killer {
        Killer::start(self.name.clone(), role, pause)
    }

    /// Kills all five processes at once, as a loss of the host's power would, and reads what they had printed.
    pub fn cut_power(&mut self) {
        let workers = self.pids();
        self.process.kill().expect("it runs");
        for pid in workers {
            // The kernel may have been faster: they die with the coordinator.
            let _ = kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL);
        }
        self.hear_all();
        let _ = self.process.wait();
    }

    /// Powers Linux off and answers everything that was printed.
    pub fn power_off(mut self) -> String {
        self.say("poweroff -f\n");
        self.hear_all();
        let status = self.process.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.seen);
        std::mem::take(&mut self.seen)
    }

    /// Waits for its end and answers exit status and everything that was printed.
    pub fn end(mut self) -> (Option<i32>, String) {
        self.hear_all();
        let status = self.process.wait().expect("it ends");
        (status.code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How the machine `name` is; `None` while it does not answer.
pub fn report(name: &str) -> Option<StatusReport> {
    match client::ask(name, &Request::Status) {
        Ok(Answer::Status(report)) => Some(*report),
        _ => None,
    }
}

/// Process id and generation of a worker.
pub fn worker(report: &StatusReport, role: Role) -> Option<(i32, u32)> {
    let worker = report.workers.iter().find(|w| w.role == role)?;
    Some((worker.pid?, worker.generation))
}

/// How a worker is.
pub fn state_of(report: &StatusReport, role: Role) -> PeerState {
    let found = report.workers.iter().find(|w| w.role == role);
    found.expect("every worker is reported").state
}

/// Checks that a kernel's log complains of nothing.
pub fn assert_clean(log: &str) {
    for complaint in COMPLAINTS {
        assert!(!log.contains(complaint), "{complaint}:\n{log}");
    }
}

/// Kills a worker at random moments until it is told to stop.
#[derive(Debug)]
pub struct Killer {
    stop: Arc<AtomicBool>,
    kills: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Killer {
    fn start(name: String, role: Role, pause: Duration) -> Self {
        let (stop, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&kills));
        let thread = std::thread::spawn(move || {
            let mut last = 0;
            while !told.load(Ordering::Relaxed) {
                let Some((pid, generation)) = report(&name)
                    .filter(|r| r.state == MachineState::Running)
                    .and_then(|r| worker(&r, role))
                else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                if generation == last {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                last = generation;
                std::thread::sleep(pause.mul_f64(random()));
                if kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self {
            stop,
            kills,
            thread: Some(thread),
        }
    }

    /// How many it has killed so far.
    pub fn kills(&self) -> u32 {
        self.kills.load(Ordering::Relaxed)
    }

    /// Stops, and answers how many were killed.
    pub fn stop(mut self) -> u32 {
        self.join();
        self.kills()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.join();
    }
}

/// A number in 0..1, another one each time: the standard library seeds its hashers from the kernel.
pub fn random() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let bits = std::hash::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Threads that do nothing but burn processor time, until dropped.
#[derive(Debug)]
pub struct BusyLoops {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BusyLoops {
    /// Starts `n` of them.
    pub fn start(n: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = || {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..n).map(|_| spin()).collect();
        Self { stop, threads }
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
