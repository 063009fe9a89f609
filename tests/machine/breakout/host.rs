//! Hosts that machines are started on: as another user, and without what a kernel may lack.
//!
//! What is lacking is refused by a filter of the test's own, in front of the coordinator, which all of a machine inherits: to them
//! it is as if the kernel did not have it.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quintet_protocol::control::StatusReport;
use quintet_protocol::handshake::Role;
use quintet_protocol::status::MachineState;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use seccompiler::{SeccompAction, SeccompFilter};

use super::support::{PATIENCE, variable};

/// What is in the file that nobody is to get at.
pub const CONTENTS: &[u8] = b"the user's own";
/// User and group of an ordinary user who exists everywhere.
const NOBODY: u32 = 65534;
/// What the stand-in executes, an argument a line; the first lines are what is lacking, and the user.
const COMMAND: &str = "QUINTET_TEST_COMMAND";
const COMPILER: &str = "quintet-wasm-compile";

/// Who starts the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Who runs the test.
    Own,
    /// Not root.
    Ordinary,
}

/// What the kernel seems to lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    Nothing,
    Landlock,
    Namespaces,
}

/// A place to start machines.
#[derive(Debug)]
pub struct Host {
    folder: PathBuf,
    programs: PathBuf,
    user: User,
    /// What it lacks.
    pub lacking: Lacking,
}

impl Host {
    /// Prepares files; `None` where there is nothing to test, which is said.
    pub fn new(test: &str, user: User, lacking: Lacking) -> Option<Self> {
        let built = PathBuf::from(variable("QUINTET_BIN_DIR")?);
        if user == User::Ordinary && !rustix::process::geteuid().is_root() {
            eprintln!("this is an ordinary user already, so the other test has shown it");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
        let host = Self {
            programs: folder.join("bin"),
            folder,
            user,
            lacking,
        };
        for (name, mode) in [
            ("", 0o755),
            ("bin", 0o755),
            ("own", 0o700),
            ("run", 0o700),
            ("shared", 0o700),
        ] {
            let path = host.folder.join(name);
            std::fs::create_dir_all(&path).expect("a folder");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("its mode");
            host.give(&path);
        }
        std::fs::write(host.file(), CONTENTS).expect("a file");
        host.give(Path::new(&host.file()));
        // The folder of the build may be out of an ordinary user's reach.
        let names = Role::WORKERS.map(Role::binary);
        for name in ["quintet", COMPILER].iter().chain(&names) {
            let (from, to) = (built.join(name), host.programs.join(name));
            if from.exists() && std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to).expect("a program");
            }
        }
        Some(host)
    }

    fn give(&self, path: &Path) {
        if self.user == User::Ordinary {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
    }

    /// The number of the user.
    pub fn uid(&self) -> u32 {
        match self.user {
            User::Own => rustix::process::geteuid().as_raw(),
            User::Ordinary => NOBODY,
        }
    }

    /// A file of the user's that is no business of the machine.
    pub fn file(&self) -> String {
        self.folder.join("own/letter").display().to_string()
    }

    /// A file that does not exist, where the user could make it.
    pub fn new_file(&self) -> String {
        self.folder.join("own/new").display().to_string()
    }

    /// Whether its user may make namespaces here: containers may refuse that.
    pub fn has_namespaces(&self) -> bool {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--net", "true"]).stderr(Stdio::null());
        self.become_user(&mut unshare);
        self.lacking != Lacking::Namespaces && unshare.status().is_ok_and(|s| s.success())
    }

    fn become_user(&self, command: &mut Command) {
        if self.user == User::Ordinary {
            command.uid(NOBODY).gid(NOBODY);
        }
    }

    /// What gdb prints that its user attaches to a process.
    pub fn gdb(&self, pid: i32, command: &str) -> String {
        let mut gdb = Command::new("gdb");
        gdb.args(["-q", "-nx", "-batch", "-p", &pid.to_string(), "-ex", command])
            .stdin(Stdio::null());
        self.become_user(&mut gdb);
        let output = gdb.output().expect("gdb is installed");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Whether the compiler of modules was built.
    pub fn has_compiler(&self) -> bool {
        let there = self.programs.join(COMPILER).exists();
        if !there {
            assert!(std::env::var_os("CI").is_none(), "{COMPILER} is missing");
            eprintln!("SKIPPED: {COMPILER} is missing; run cargo xtask test");
        }
        there
    }

    fn command(&self, arguments: &[String]) -> Command {
        let program = self.programs.join("quintet");
        let mut command = if self.lacking == Lacking::Nothing {
            let mut command = Command::new(program);
            command.args(arguments);
            self.become_user(&mut command);
            command
        } else {
            let mut command = Command::new(std::env::current_exe().expect("this test"));
            command.args([
                "--exact",
                "host::stand_in",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ]);
            let lines = [
                format!("{:?}", self.lacking),
                self.uid().to_string(),
                program.display().to_string(),
            ];
            let lines: Vec<_> = lines.iter().chain(arguments).map(String::as_str).collect();
            command.env(COMMAND, lines.join("\n"));
            command
        };
        command
            .env("XDG_RUNTIME_DIR", self.folder.join("run"))
            .env("HOME", self.folder.join("own"))
            .env_remove("XAUTHORITY");
        command
    }

    fn start(self, arguments: &[&str], environment: &[(&str, &str)]) -> Guest {
        let name = self.folder.file_name().expect("a name").display().to_string();
        let mut all: Vec<String> = ["run", "--name", &name].map(str::to_owned).into();
        all.extend(arguments.iter().map(|a| (*a).to_owned()));
        let mut process = self
            .command(&all)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = follow(process.stderr.take().expect("piped"));
        let printed = follow(process.stdout.take().expect("piped"));
        Guest {
            host: self,
            name,
            process,
            printed,
            said,
        }
    }

    /// A PC with the guest that echoes.
    pub fn pc(self, options: &[&str], environment: &[(&str, &str)]) -> Guest {
        let kernel = self.folder.join("echo.elf");
        std::fs::write(&kernel, quintet_guests::ECHO).expect("the guest as a file");
        let kernel = kernel.display().to_string();
        let mut all = vec!["--ram", "64M", "--serial", "stdio", "--kernel", &kernel];
        all.extend(options);
        self.start(&all, environment)
    }

    /// What looks like a sound server to who does not speak to it; the value of `PULSE_SERVER`.
    pub fn sound_server(&self) -> String {
        let socket = self.folder.join("native");
        std::fs::write(&socket, "").expect("a file");
        format!("unix:{}", socket.display())
    }

    /// A machine for modules, with a directory for them.
    pub fn modules(self) -> Guest {
        let dir = self.folder.join("shared").display().to_string();
        self.start(&["--ram", "64M", "--headless", "--jobs", "--dir", &dir], &[])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Text that a thread collects, to its end.
type Collected = (Arc<Mutex<String>>, JoinHandle<()>);

fn follow(mut pipe: impl std::io::Read + Send + 'static) -> Collected {
    let text = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&text);
    let thread = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut bytes) {
            let mut text = into.lock().expect("no panic");
            text.extend(bytes[..n].iter().copied().map(char::from));
        }
    });
    (text, thread)
}

/// A machine on a host.
#[derive(Debug)]
pub struct Guest {
    process: Child,
    printed: Collected,
    said: Collected,
    pub name: String,
    pub host: Host,
}

impl Guest {
    /// What `quintet status` prints.
    pub fn status(&self, options: &[&str]) -> String {
        let mut arguments = vec!["status".to_owned(), self.name.clone()];
        arguments.extend(options.iter().map(|o| (*o).to_owned()));
        let output = self.ask(&arguments).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A command as the machine's user gives it, on the host as it is.
    fn ask(&self, arguments: &[String]) -> Command {
        let mut command = Command::new(self.host.programs.join("quintet"));
        command.args(arguments).stdin(Stdio::null());
        self.host.become_user(&mut command);
        command
    }

    /// Waits until its report, which is that of `quintet status --json`, satisfies a condition.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&StatusReport) -> bool) -> StatusReport {
        let start = Instant::now();
        loop {
            let text = self.status(&["--json"]);
            match serde_json::from_str::<StatusReport>(&text) {
                Ok(report) if condition(&report) => return report,
                _ if start.elapsed() < PATIENCE && self.death().is_none() => {}
                _ => {
                    // What it said last is on its way.
                    std::thread::sleep(Duration::from_millis(300));
                    let said = self.said.0.lock().expect("no panic").clone();
                    let end = self.death();
                    panic!("waited in vain until {what}: {text}\n{said}\nits end: {end:?}");
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How it ended, if it did; whoever waits for it still finds it.
    /// Not by its state in /proc: a program that is executed by another thread than the first is a zombie for a moment.
    fn death(&self) -> Option<WaitIdStatus> {
        let pid = Pid::from_child(&self.process);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        waitid(WaitId::Pid(pid), options).expect("a child")
    }

    /// How it is.
    pub fn report(&self) -> StatusReport {
        self.wait_for("it answers", |_| true)
    }

    /// How it is once it runs.
    pub fn running(&self) -> StatusReport {
        self.wait_for("it runs", |r| r.state == MachineState::Running)
    }

    /// Types a line and waits for its echo.
    pub fn echoes(&mut self, line: &str) {
        self.running();
        // What is typed before the guest has set its UART up goes with the FIFO that it empties.
        self.hears("echo: real mode, polling");
        let stdin = self.process.stdin.as_mut().expect("piped");
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .expect("it takes input");
        self.hears(line);
    }

    /// Waits until the guest has printed something.
    fn hears(&self, text: &str) {
        let start = Instant::now();
        while !self.printed.0.lock().expect("no panic").contains(text) {
            assert!(start.elapsed() < PATIENCE, "{text:?} is not printed");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Submits a module that takes seconds to compile.
    pub fn submit_something_large(&self) -> Child {
        let step = "local.get 0 i32.const 7 i32.mul i32.const 3 i32.add local.set 0 ".repeat(40);
        let function = format!("(func (param i32) (result i32) {step} local.get 0) ");
        let text = format!(
            "(module {} (func (export \"main\") (result i32) i32.const 0))",
            function.repeat(2000)
        );
        let module = self.host.folder.join("large.wasm");
        std::fs::write(&module, wat::parse_str(text).expect("assembles")).expect("a file");
        let arguments = ["submit", &self.name, &module.display().to_string()].map(str::to_owned);
        let mut command = self.ask(&arguments);
        command.stdout(Stdio::null()).spawn().expect("it starts")
    }

    /// Ends it and answers what it had to say.
    pub fn end(mut self) -> String {
        let arguments = ["quit".to_owned(), self.name.clone()];
        let _ = self.ask(&arguments).status();
        let _ = self.process.wait();
        let start = Instant::now();
        while !self.said.1.is_finished() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.said.0.lock().expect("no panic").clone()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The compiler that a coordinator has started, once it is confined.
pub fn compiler_of(coordinator: i32) -> Option<i32> {
    let parent = format!("PPid:\t{coordinator}\n");
    let pids = std::fs::read_dir("/proc").expect("proc").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = read("status");
        // The coordinator's filter and its own two.
        status.contains(&parent)
            && status.contains("Seccomp_filters:\t3\n")
            && read("cmdline").starts_with(COMPILER)
    })
}

/// Not a test: becomes a coordinator on a kernel that lacks something.
#[test]
#[ignore = "executes what its environment says: used by the tests of hosts that lack something"]
fn stand_in() {
    let Ok(command) = std::env::var(COMMAND) else {
        return;
    };
    let mut lines = command.lines();
    let lacking = lines.next().expect("what is lacking");
    let uid: u32 = lines.next().and_then(|l| l.parse().ok()).expect("a user");
    let (call, errno) = match lacking {
        "Landlock" => (libc::SYS_landlock_create_ruleset, libc::ENOSYS),
        "Namespaces" => (libc::SYS_unshare, libc::EPERM),
        other => panic!("{other} cannot be taken away"),
    };
    let refused = SeccompAction::Errno(errno as u32);
    let arch = std::env::consts::ARCH
        .try_into()
        .expect("an architecture that has filters");
    let filter = SeccompFilter::new([(call, Vec::new())].into(), SeccompAction::Allow, refused, arch);
    let program: seccompiler::BpfProgram = filter.expect("rules").try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("applied");
    let mut command = Command::new(lines.next().expect("a program"));
    command.args(lines).env_remove(COMMAND);
    if rustix::process::geteuid().as_raw() != uid {
        command.uid(uid).gid(uid);
    }
    panic!("{}", command.exec());
}
