//! The workers' executables, opened once at start.
//!
//! A restart executes the same descriptor, so that an upgrade on disk in mid-run cannot put two builds into one
//! machine.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quintet_protocol::handshake::Role;

/// A worker's executable is not where it should be.
#[derive(Debug, thiserror::Error)]
#[error("Cannot open {binary} in {beside} or in {libexec}; build it, or install quintet as a whole")]
pub struct MissingBinary {
    binary: &'static str,
    beside: String,
    libexec: String,
}

/// The four open executables.
#[derive(Debug)]
pub struct Binaries {
    files: [Arc<File>; 4],
}

impl Binaries {
    /// Opens the executables beside the running one, else in `../libexec/quintet`.
    ///
    /// # Errors
    /// [`MissingBinary`] for the first that is in neither place.
    pub fn open() -> Result<Self, MissingBinary> {
        Self::open_near(&own_directory())
    }

    /// As [`Self::open`] for an executable in `dir`.
    ///
    /// # Errors
    /// [`MissingBinary`].
    pub fn open_near(dir: &Path) -> Result<Self, MissingBinary> {
        let open = |role: Role| open_one(dir, role.binary());
        let [cpu, io, gpu, audio] = Role::WORKERS;
        Ok(Self {
            files: [open(cpu)?, open(io)?, open(gpu)?, open(audio)?],
        })
    }

    /// The executable of a worker. Panics for the coordinator.
    pub fn of(&self, role: Role) -> Arc<File> {
        Arc::clone(&self.files[role.index() - 1])
    }

    /// Where that executable is, or was when it was opened. Panics for the coordinator.
    pub fn path(&self, role: Role) -> PathBuf {
        let fd = self.files[role.index() - 1].as_raw_fd();
        let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        let path = path.unwrap_or_else(|_| own_directory().join(role.binary()));
        // Replaced on disk: the handshake sees whether what is there now is of the same build.
        match path.to_str().and_then(|p| p.strip_suffix(" (deleted)")) {
            Some(replaced) => replaced.into(),
            None => path,
        }
    }
}

/// Directory of the running executable.
pub fn own_directory() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("quintet"));
    own.parent().unwrap_or(Path::new(".")).to_owned()
}

/// Opens an executable in `dir`, else in `../libexec/quintet` from there.
///
/// # Errors
/// [`MissingBinary`].
pub fn open_one(dir: &Path, binary: &'static str) -> Result<Arc<File>, MissingBinary> {
    let libexec = dir.join("../libexec/quintet");
    let at = |dir: &Path| {
        File::open(dir.join(binary))
            .ok()
            .filter(|f| f.metadata().is_ok_and(|m| m.is_file()))
    };
    at(dir)
        .or_else(|| at(&libexec))
        .map(Arc::new)
        .ok_or_else(|| MissingBinary {
            binary,
            beside: dir.display().to_string(),
            libexec: libexec.display().to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_beside_or_in_libexec_and_missed_by_name() {
        let root = std::env::temp_dir().join(format!("quintet-binaries-test-{}", std::process::id()));
        let (bin, libexec) = (root.join("bin"), root.join("libexec/quintet"));
        std::fs::create_dir_all(&bin).expect("bin");
        std::fs::create_dir_all(&libexec).expect("libexec");
        std::fs::write(bin.join("quintet-cpu-worker"), "x").expect("file");
        for name in ["quintet-io-worker", "quintet-gpu-worker"] {
            std::fs::write(libexec.join(name), "x").expect("file");
        }
        let missing = Binaries::open_near(&bin).expect_err("one is missing").to_string();
        std::fs::write(libexec.join("quintet-audio-worker"), "x").expect("file");
        let found = Binaries::open_near(&bin).expect("all are there");
        let path = || found.path(Role::Audio);
        let there = path();
        std::fs::remove_dir_all(&root).expect("remove");
        assert!(missing.contains("quintet-audio-worker"), "{missing}");
        assert!(there.is_absolute() && there.ends_with("libexec/quintet/quintet-audio-worker"));
        assert_eq!(path(), there, "even when it is gone");
    }
}
