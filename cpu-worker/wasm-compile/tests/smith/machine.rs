//! Modules through a whole machine: transport, the confined compiler, the confined cpu-worker.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a machine, and for a group of modules.
const PATIENCE: Duration = Duration::from_secs(120);
/// Guest RAM of the machine in bytes.
pub const RAM: u64 = 64 << 20;

/// `quintet` of the same profile; `None` when it or something beside it has not been built.
pub fn quintet() -> Option<PathBuf> {
    let dir = std::env::var_os("QUINTET_BIN_DIR").map_or_else(
        || {
            let compiler = Path::new(env!("CARGO_BIN_EXE_quintet-wasm-compile"));
            compiler.parent().expect("a directory").to_owned()
        },
        PathBuf::from,
    );
    let all = [
        "quintet",
        "quintet-cpu-worker",
        "quintet-io-worker",
        "quintet-gpu-worker",
        "quintet-audio-worker",
    ];
    all.iter()
        .all(|name| dir.join(name).exists())
        .then(|| dir.join("quintet"))
}

/// A machine that waits for modules, with [`RAM`]; killed when dropped.
pub struct Machine {
    quintet: PathBuf,
    name: String,
    child: Child,
}

impl Machine {
    pub fn start(quintet: PathBuf) -> Self {
        let name = format!("smith-{}", std::process::id());
        let child = Command::new(&quintet)
            .args([
                "run",
                "--headless",
                "--jobs",
                "--serial",
                "none",
                "--ram",
                "64M",
                "--name",
                &name,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("quintet starts");
        let this = Self { quintet, name, child };
        let start = Instant::now();
        while !this.status() {
            assert!(start.elapsed() < PATIENCE, "the machine does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        this
    }

    fn status(&self) -> bool {
        let mut status = Command::new(&self.quintet);
        status
            .args(["status", &self.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        status.status().is_ok_and(|s| s.success())
    }

    /// The reports of some modules, in their order, as lines of JSON.
    pub fn submit(&self, files: &[PathBuf]) -> Vec<String> {
        let output = Command::new(&self.quintet)
            .args(["submit", &self.name, "--json"])
            .args(files)
            .output()
            .expect("quintet starts");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
