//! An X server without a screen.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// An X server without a screen.
#[derive(Debug)]
pub struct Xvfb {
    process: Child,
    /// As in the variable `DISPLAY`.
    pub display: String,
}

impl Xvfb {
    /// Starts it. `None`, loudly, where it or one of `tools` is missing; a failure in continuous integration.
    pub fn start(tools: &[&str]) -> Option<Self> {
        for tool in ["Xvfb"].iter().chain(tools) {
            if Command::new(tool).arg("-help").output().is_err() {
                assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
                eprintln!("SKIPPED: {tool} is missing; run cargo xtask test");
                return None;
            }
        }
        let mut process = Command::new("Xvfb")
            .args([
                "-displayfd",
                "1",
                "-screen",
                "0",
                "1600x1200x24",
                // Without its last client it would begin anew, and refuse who comes meanwhile.
                "-noreset",
                "-nolisten",
                "tcp",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb starts");
        let mut number = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut number).expect("a display");
        Some(Self {
            process,
            display: format!(":{}", number.trim()),
        })
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
