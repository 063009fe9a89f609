//! An X server without a screen.
#![allow(dead_code, reason = "each user has its own part")]

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
    /// Starts one of 1600 by 1200 dots. `None`, loudly, where it or one of `tools` is missing; a failure in continuous integration.
    pub fn start(tools: &[&str]) -> Option<Self> {
        Self::sized("1600x1200x24", tools)
    }

    /// As [`Self::start`], of another size: dots in a row, rows, bits of a dot.
    pub fn sized(screen: &str, tools: &[&str]) -> Option<Self> {
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
                screen,
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

    /// Number of its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
