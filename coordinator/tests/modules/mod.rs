//! Modules for tests, and a machine that runs them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;

use quintet_coordinator::control::client::Conversation;
use quintet_protocol::control::{Answer, Request};
use quintet_protocol::payload::{Digest, Outgoing, PayloadKind, digest};
use quintet_protocol::status::MachineState;
use quintet_protocol::wasm::{JobLimits, JobReport, Submission, WasmConfig};

use crate::harness::{Machine, quintet, run_to_end};

/// The compiler beside the coordinator; `cargo xtask test` builds it before, by a call of cargo of its own.
pub fn compiler() -> PathBuf {
    static BUILD: Once = Once::new();
    let dir = quintet().parent().expect("a directory").to_owned();
    let path = dir.join("quintet-wasm-compile");
    BUILD.call_once(|| {
        if path.exists() {
            return;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "-p", "quintet-wasm-compile"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        if let Some(profile) = dir.file_name().and_then(|n| n.to_str()).filter(|p| *p != "debug") {
            cargo.args(["--profile", profile]);
        }
        assert!(
            cargo.status().expect("cargo").success(),
            "the compiler does not build"
        );
    });
    path
}

/// A module file, removed at the end.
pub struct Module(pub PathBuf);

impl Module {
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        compiler();
        let file = format!("wasm-{name}-{}.wasm", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        std::fs::write(&path, bytes).expect("file");
        Self(path)
    }

    pub fn run(&self, options: &[&str]) -> Output {
        let path = self.0.display().to_string();
        let mut all = vec!["run", "--headless", "--ram", "64M", "--wasm", &path];
        all.extend(options);
        run_to_end(&all)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn leb(mut n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (n & 0x7F) as u8;
        n >>= 7;
        bytes.push(if n == 0 { byte } else { byte | 0x80 });
        if n == 0 {
            return bytes;
        }
    }
}

fn section(id: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id];
    bytes.extend(leb(contents.len() as u32));
    bytes.extend(contents);
    bytes
}

/// `main` with these instructions, one page of memory that can grow to 16, padded to `len` bytes by a custom section.
pub fn module(code: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.extend(section(1, &[1, 0x60, 0, 1, 0x7F]));
    bytes.extend(section(3, &[1, 0]));
    bytes.extend(section(5, &[1, 1, 1, 16]));
    bytes.extend(section(7, b"\x01\x04main\0\0"));
    let mut body = vec![0];
    body.extend(code);
    body.push(0x0B);
    let mut all = vec![1];
    all.extend(leb(body.len() as u32));
    all.extend(body);
    bytes.extend(section(10, &all));
    if len > bytes.len() {
        // Identity, five bytes of length, a name of one byte.
        let padding = (len - bytes.len() - 6) as u32;
        bytes.push(0);
        bytes.extend((0..5).map(|n| {
            let more = if n < 4 { 0x80 } else { 0 };
            (padding >> (7 * n) & 0x7F) as u8 | more
        }));
        bytes.extend([1, b'p']);
        bytes.resize(len, 0x55);
        assert_eq!(bytes.len(), len);
    }
    bytes
}

/// `i32.const 42`.
pub const ANSWER: [u8; 2] = [0x41, 42];
/// The seed's size.
pub const LARGE: usize = 1_500_000;

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn without_process(report: &str) -> String {
    report
        .lines()
        .filter(|l| {
            !["Transport", "Strategy", "Worker"]
                .iter()
                .any(|p| l.starts_with(p))
        })
        .collect()
}

/// A machine that waits for modules.
pub fn machine(test: &str) -> Machine {
    machine_with(test, &[])
}

/// As [`machine`], with further options.
pub fn machine_with(test: &str, options: &[&str]) -> Machine {
    compiler();
    let name = format!("wasm-{test}-{}", std::process::id());
    let child = Command::new(quintet())
        .args(["run", "--headless", "--ram", "64M", "--jobs", "--serial", "none"])
        .args(["--name", &name])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("quintet starts");
    let machine = Machine { child, name };
    machine.wait_for("it runs", |r| r.state == MachineState::Running);
    machine
}

/// A job, not yet submitted.
#[derive(Clone)]
pub struct Job {
    pub bytes: Vec<u8>,
    pub limits: JobLimits,
    pub memfd: Option<bool>,
    /// What to call; `main` when `None`.
    pub invoke: Option<String>,
    /// Whose digest is announced; its own when `None`.
    pub lie: Option<Digest>,
}

impl Job {
    /// With a time limit of 20 s and without others.
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            limits: JobLimits {
                memory: u64::MAX,
                millis: 20_000,
            },
            memfd: None,
            invoke: None,
            lie: None,
        }
    }

    /// From the text format.
    pub fn wat(text: &str) -> Self {
        Self::new(&wat::parse_str(text).expect("assembles"))
    }

    pub fn millis(mut self, millis: u64) -> Self {
        self.limits.millis = millis;
        self
    }

    pub fn memory(mut self, bytes: u64) -> Self {
        self.limits.memory = bytes;
        self
    }

    pub fn invoke(mut self, name: &str) -> Self {
        self.invoke = Some(name.to_owned());
        self
    }

    pub fn announced_as(mut self, other: &[u8]) -> Self {
        self.lie = Some(digest(other));
        self
    }

    pub fn over(mut self, memfd: bool) -> Self {
        self.memfd = Some(memfd);
        self
    }

    /// Gives it to the machine.
    pub fn submit(&self, machine: &Machine) -> Conversation {
        let (digest, conversation) = self.give(machine);
        conversation.announce(&self.lie.unwrap_or(digest));
        conversation
    }

    /// Gives it to the machine, and answers the digest that is to follow.
    pub fn give(&self, machine: &Machine) -> (Digest, Conversation) {
        let submission = |module| Submission {
            module,
            config: WasmConfig {
                invoke: self.invoke.clone(),
                ..WasmConfig::default()
            },
            limits: self.limits,
            memfd: self.memfd,
            refuse_map: false,
        };
        let sent = Outgoing::new_ahead(PayloadKind::WasmModule, &self.bytes, |module, fd| {
            let request = Request::Submit(Box::new(submission(module)));
            Conversation::start(&machine.name, &request, Some(fd)).expect("the machine is there")
        });
        let (module, conversation) = sent.expect("a memfd");
        (module.digest(), conversation)
    }

    /// Gives it to the machine and waits.
    pub fn run(&self, machine: &Machine) -> JobReport {
        report(self.submit(machine))
    }
}

/// Waits for a job's report.
pub fn report(conversation: Conversation) -> JobReport {
    match conversation
        .answer(Some(crate::harness::PATIENCE))
        .expect("an answer")
        .0
    {
        Answer::Job(report) => *report,
        other => panic!("{other:?}"),
    }
}
