//! The private directory in which `ipc-channel` makes its one-shot servers.
//!
//! They are sockets with names in a file system, the only such names in the project. The directory exists
//! while a start is under way and never longer; what a coordinator that was killed in that moment left behind is
//! swept at the next start. Its name carries the owner's process and that process's start time, so that
//! nobody sweeps what belongs to the living.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The directory of this process, there or not.
#[derive(Debug)]
pub struct StartDir {
    path: PathBuf,
    /// Starts under way.
    users: usize,
}

impl StartDir {
    /// Sweeps what the dead left behind and points `ipc-channel` to this process's directory.
    pub fn new() -> Self {
        let base = base();
        sweep(&base);
        let path = base.join(own_name());
        // Refused when somebody in this process did it before: then that place is used, by its own rules.
        let _ = tempfile::env::override_temp_dir(&path);
        Self { path, users: 0 }
    }

    /// A start begins: the directory exists until [`Self::leave`].
    ///
    /// # Errors
    /// The host's.
    pub fn enter(&mut self) -> std::io::Result<()> {
        self.users += 1;
        match std::fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// A start is over, one way or the other.
    pub fn leave(&mut self) {
        self.users = self.users.saturating_sub(1);
        if self.users == 0 {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl Default for StartDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for StartDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn base() -> PathBuf {
    let usable = |p: &PathBuf| p.is_absolute() && p.is_dir();
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(usable)
        .unwrap_or_else(|| "/tmp".into())
}

fn prefix() -> String {
    format!("quintet-start-{}-", rustix::process::geteuid().as_raw())
}

fn own_name() -> String {
    let pid = std::process::id();
    format!("{}{pid}-{}", prefix(), start_time(pid).unwrap_or(0))
}

/// When a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)); `None` when it is gone.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn sweep(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    let prefix = prefix();
    let uid = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(&prefix)) else {
            continue;
        };
        let Some((pid, start)) = rest.split_once('-') else {
            continue;
        };
        let (Ok(pid), Ok(start)) = (pid.parse::<u32>(), start.parse::<u64>()) else {
            continue;
        };
        // symlink_metadata: never follow what somebody else may have put there.
        let ours = entry
            .path()
            .symlink_metadata()
            .is_ok_and(|m| m.is_dir() && m.uid() == uid);
        if ours && start_time(pid) != Some(start) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_swept_and_the_living_are_not() {
        let base = std::env::temp_dir().join(format!("quintet-sweep-test-{}", std::process::id()));
        let make = |name: String| {
            let path = base.join(name);
            std::fs::create_dir_all(path.join("server")).expect("directory");
            path
        };
        let living = make(own_name());
        let recycled = make(format!("{}{}-1", prefix(), std::process::id()));
        // Beyond the largest process id of Linux.
        let dead = make(format!("{}{}-5", prefix(), 1 << 23));
        let foreign = make("somebody-elses".into());
        sweep(&base);
        let left = [&living, &recycled, &dead, &foreign].map(|p| p.exists());
        std::fs::remove_dir_all(&base).expect("remove");
        assert_eq!(left, [true, false, false, true]);
    }

    #[test]
    fn a_process_has_a_start_time_while_it_lives() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(1 << 23), None);
    }
}
