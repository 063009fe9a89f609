//! Nearly all memory that the host has left, taken for a while by a process of its own.
//!
//! Of its own so that the host's out-of-memory killer has somebody to take (proc_pid_oom_score_adj(5)) before it looks at the
//! machine or at who judges it. A limit on the machine's cgroup was rejected: it needs rights that users do not have.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;

use crate::config::{UsageError, reason};

/// Bytes that are taken at a time.
const STEP: usize = 32 << 20;
/// What is left to everybody else, in bytes: at least so much, and at least a fiftieth of all.
const LEFT: u64 = 384 << 20;

/// The options of `take-memory`.
#[derive(Debug, Args)]
pub struct PressureArgs {
    /// For how long, in milliseconds, once it is taken.
    pub millis: u64,
}

/// Takes memory until little is left, keeps it for as long as asked, and ends; at once when standard input does.
///
/// # Errors
/// [`UsageError`] when the host does not say how much it has.
pub fn run(args: &PressureArgs) -> Result<u8, UsageError> {
    std::thread::spawn(|| {
        // Whoever asked for this is gone.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    // A container may have this file read-only; then the size of this process is what the killer goes by.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let mut taken = Vec::new();
    while more_is_left()? {
        let mut part = Vec::new();
        if part.try_reserve_exact(STEP).is_err() {
            break;
        }
        // Not zeros, which a host may keep once for all.
        part.resize(STEP, 0xA5_u8);
        taken.push(std::hint::black_box(part));
    }
    println!("{} MiB", taken.len() * (STEP >> 20));
    let _ = std::io::stdout().flush();
    std::thread::sleep(Duration::from_millis(args.millis));
    Ok(0)
}

/// Whether another step would leave enough.
fn more_is_left() -> Result<bool, UsageError> {
    let info = std::fs::read_to_string("/proc/meminfo")
        .map_err(|e| UsageError(format!("Cannot read \"/proc/meminfo\": {}", reason(&e))))?;
    let bytes = |name: &str| bytes_of(&info, name);
    match (bytes("MemTotal:"), bytes("MemAvailable:")) {
        (Some(total), Some(available)) => Ok(available > LEFT.max(total / 50) + STEP as u64),
        _ => Err(UsageError(
            "\"/proc/meminfo\" does not say how much memory there is".to_owned(),
        )),
    }
}

/// A line of `/proc/meminfo`, in bytes.
fn bytes_of(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|k| k << 10)
}

/// A process that takes memory; it ends with its owner.
#[derive(Debug)]
pub struct Pressure(Child);

impl Pressure {
    /// Starts taking, for as long once it is taken.
    ///
    /// # Errors
    /// The host's.
    pub fn begin(time: Duration) -> std::io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["take-memory", &time.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self(child))
    }

    /// Whether it has ended; also by the host's hand, which is what it is there for.
    pub fn is_over(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_has_is_read_from_its_lines() {
        let info = "MemTotal:       24684084 kB\nMemFree:  1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(bytes_of(info, "MemAvailable:"), Some(2 << 20));
        assert_eq!(bytes_of(info, "SwapTotal:"), None);
        assert!(more_is_left().is_ok());
    }
}
