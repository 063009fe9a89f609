//! What only an attempt can tell, tried by a child of ours that may die of it.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use landlock::{
    Access as _, AccessFs, CompatLevel, Compatible as _, LandlockStatus, Ruleset, RulesetAttr as _,
};
use quintet_protocol::handshake::Role;
use serde::{Deserialize, Serialize};

use crate::config::UsageError;
use crate::sandbox;

/// Longest time for an attempt. A display that does not answer for so long is of no use either.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Give up what the io-worker gives up.
    Confinement,
    /// Connect to the display as the window does.
    Display,
}

/// What came of confining a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// What could not be applied, in the words of `quintet status`.
    pub missing: Vec<String>,
    /// The kernel's version of Landlock, 0 for none.
    pub landlock: i32,
    /// Landlock is in the kernel, but was not chosen at boot.
    pub landlock_off: bool,
}

impl Probe {
    /// Tries it in this process, which should end soon.
    ///
    /// # Errors
    /// [`UsageError`]: it did not work, or the result cannot be written.
    pub fn run(self) -> Result<u8, UsageError> {
        let text = match self {
            Self::Confinement => serde_json::to_string(&confined()?),
            Self::Display => serde_json::to_string(&quintet_gpu_worker::check_display().map_err(UsageError)?),
        };
        println!("{}", text.map_err(|e| UsageError(e.to_string()))?);
        Ok(0)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Confinement => "confinement",
            Self::Display => "display",
        }
    }

    /// Has a child try it and answers what it found, else in one line how it failed.
    pub fn by_child<T: serde::de::DeserializeOwned>(self) -> Result<T, String> {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut child = Command::new(own)
            .args(["doctor", "--probe", self.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("quintet cannot start itself: {e}"))?;
        let ended = wait(&mut child);
        let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
        match ended {
            Some(status) if status.success() => serde_json::from_str(&out).map_err(|e| e.to_string()),
            Some(status) => Err(last_words(&err).unwrap_or_else(|| status.to_string())),
            None => Err(format!("no answer for {} s", DEADLINE.as_secs())),
        }
    }
}

/// Waits for the end until the deadline, and then makes it.
fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// What is in a pipe; the writer is gone, and wrote less than the pipe holds.
fn read(pipe: Option<impl std::io::Read>) -> String {
    let mut text = String::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(1 << 16).read_to_string(&mut text);
    }
    text
}

/// The line that says why; the last one, but for what a panic says of itself.
fn last_words(err: &str) -> Option<String> {
    err.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !line.starts_with("note: "))
        .map(|line| line.trim_start_matches("quintet: ").to_owned())
}

fn confined() -> Result<Confined, UsageError> {
    let confinement = sandbox::confinement(Role::Io, true).map_err(|e| UsageError(e.to_string()))?;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(landlock::ABI::V1))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map(|status| status.landlock);
    let (landlock, landlock_off) = match status {
        Ok(LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        }) => (kernel_abi.unwrap_or(effective_abi as i32), false),
        Ok(LandlockStatus::NotEnabled) => (0, true),
        Ok(LandlockStatus::NotImplemented) | Err(_) => (0, false),
    };
    Ok(Confined {
        missing: quintet_protocol::handshake::confine::confine(&confinement),
        landlock,
        landlock_off,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_reason_and_not_the_advice() {
        assert_eq!(
            last_words("chatter\nquintet: No display\n\n").as_deref(),
            Some("No display")
        );
        let panic = "thread 'main' panicked at x.rs:1:2:\nno library\nnote: run with RUST_BACKTRACE=1\n";
        assert_eq!(last_words(panic).as_deref(), Some("no library"));
        assert_eq!(last_words(" \n"), None);
    }
}
