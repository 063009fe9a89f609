//! The private directory in which `ipc-channel` makes its one-shot servers.
//!
//! They are sockets with names in a file system. The directory exists while a start is under way and never longer;
//! what a coordinator that was killed in that moment left behind is swept at the next start (see [`names`]).

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::PathBuf;

use super::names;

use super::janitor::Janitor;

/// The directory of this process, there or not.
#[derive(Debug)]
pub struct StartDir {
    path: PathBuf,
    /// Starts under way.
    users: usize,
    /// Stands by while there are any.
    janitor: Option<Janitor>,
}

impl StartDir {
    /// Sweeps what the dead left behind and points `ipc-channel` to this process's directory.
    pub fn new() -> Self {
        let base = base();
        names::sweep(&base, "start");
        let path = base.join(names::own("start"));
        // Refused when somebody in this process did it before: then that place is used, by its own rules.
        let _ = tempfile::env::override_temp_dir(&path);
        Self {
            path,
            users: 0,
            janitor: None,
        }
    }

    /// A start begins: the directory exists until [`Self::leave`].
    ///
    /// # Errors
    /// The host's.
    pub fn enter(&mut self) -> std::io::Result<()> {
        self.users += 1;
        if self.janitor.is_none() {
            match Janitor::start(&self.path) {
                Ok(janitor) => self.janitor = Some(janitor),
                Err(e) => tracing::warn!("Nobody cleans up if the coordinator is killed now: {e}"),
            }
        }
        match std::fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// A start is over, one way or the other.
    pub fn leave(&mut self) {
        self.users = self.users.saturating_sub(1);
        if self.users == 0 {
            self.clear();
        }
    }

    fn clear(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        if let Some(janitor) = self.janitor.take() {
            drop(janitor.dismiss());
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
        self.clear();
    }
}

/// Where the directory is made: the user's own directory for such things, else that for everybody's.
pub fn base() -> PathBuf {
    // Somebody else's, as sudo may leave it behind, is none (XDG Base Directory Specification); and root's rights to it are given up.
    let own = rustix::process::geteuid().as_raw();
    let usable = |p: &PathBuf| p.is_absolute() && p.metadata().is_ok_and(|m| m.is_dir() && m.uid() == own);
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(usable)
        .unwrap_or_else(|| "/tmp".into())
}
