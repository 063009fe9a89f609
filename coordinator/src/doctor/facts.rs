//! What there is on a host, without a word on what it means.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use quintet_audio_worker::sink::host;
use quintet_protocol::handshake::Role;
use quintet_protocol::shm::Segment;
use rustix::process::{Resource, getrlimit};

use super::probe::{Confined, Probe};
use crate::supervise::binaries::{open_one, own_directory};
use crate::supervise::{names, startdir};
use crate::wasm;
use crate::{commands, config, limits};

/// A limit on a resource of a process; `None` is no limit.
pub type Limit = Option<u64>;

/// What a machine would meet on this host.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: String,
    /// The host's architecture.
    pub arch: &'static str,
    /// Whether a sealed segment can be made and opened for reading, or why not.
    pub segment: Result<(), String>,
    /// Whether a process can be watched by a descriptor, or why not.
    pub pidfd: Result<(), String>,
    /// Where the sockets of a start lie, and whether they can, or why not.
    pub start: (PathBuf, Result<(), String>),
    /// Directory of the running executable.
    pub own_directory: PathBuf,
    /// Executables beside this one: name, and whether it is there.
    pub programs: Vec<(&'static str, bool)>,
    /// Processors that this process may use.
    pub cores: usize,
    /// Whether waiting for a device begins by spinning.
    pub spins: bool,
    /// What translated code needs and does not find.
    pub jit_lacks: Vec<&'static str>,
    /// Bytes of memory that the kernel takes for available; `u64::MAX` when it does not say.
    pub host_memory: u64,
    /// Bytes that control groups leave.
    pub group_memory: Limit,
    /// Bytes that named shared memory can take; `u64::MAX` when nothing is known.
    pub shared_memory: u64,
    /// Most bytes of addresses of a process.
    pub address_space: Limit,
    /// Most bytes of a file, those in memory included.
    pub file_size: Limit,
    /// Most descriptors of a process.
    pub files: Limit,
    /// Most bytes that a process may lock in memory.
    pub locked: Limit,
    /// What came of confining a process, or why nothing did.
    pub confined: Result<Confined, String>,
    /// Whether this user may make user namespaces.
    pub user_namespaces: bool,
    /// Whether this user is root.
    pub root: bool,
    /// Yama's restriction on debuggers; `None` without Yama.
    pub yama: Option<u32>,
    /// Debuggers in the search path.
    pub debuggers: Vec<&'static str>,
    /// What names a display, as `NAME=value`.
    pub display_named: Vec<String>,
    /// What came of connecting to it: the kind of window system, or why it did not work.
    pub display: Option<Result<String, String>>,
    /// Devices that draw, and whether this user may use them.
    pub gpus: Vec<(String, bool)>,
    /// Whether there is a sound server.
    pub sound_server: bool,
    /// Devices that play, and whether this user may use them.
    pub sound: Vec<(String, bool)>,
}

impl Facts {
    /// Looks at this host. Takes as long as a display and a confined child take to answer.
    pub fn of_this_host() -> Self {
        let own = own_directory();
        let wanted = Role::WORKERS.map(Role::binary).into_iter().chain([wasm::BINARY]);
        let display_named = display_named();
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            arch: std::env::consts::ARCH,
            segment: segment(),
            pidfd: pidfd(),
            start: start(),
            programs: wanted.map(|name| (name, open_one(&own, name).is_ok())).collect(),
            own_directory: own,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            spins: config::spin_budget() > 0,
            jit_lacks: jit_lacks(),
            host_memory: limits::host_memory(),
            group_memory: limits::group_memory(),
            shared_memory: limits::available_shared_memory(),
            address_space: getrlimit(Resource::As).current,
            file_size: getrlimit(Resource::Fsize).current,
            files: getrlimit(Resource::Nofile).current,
            locked: getrlimit(Resource::Memlock).current,
            confined: Probe::Confinement.by_child(),
            user_namespaces: user_namespaces(),
            root: rustix::process::geteuid().is_root(),
            yama: number("/proc/sys/kernel/yama/ptrace_scope"),
            debuggers: ["gdb", "lldb"].into_iter().filter(|name| in_path(name)).collect(),
            display: (!display_named.is_empty()).then(|| Probe::Display.by_child()),
            display_named,
            gpus: devices("/dev/dri", "renderD")
                .into_iter()
                .map(|path| (path.clone(), may_use(&path)))
                .collect(),
            sound_server: host::pulse_server(),
            sound: host::devices()
                .map(|path| path.display().to_string())
                .map(|path| (path.clone(), may_use(&path)))
                .collect(),
        }
    }

    /// Bytes of memory that a machine can have.
    pub fn memory(&self) -> u64 {
        self.host_memory.min(self.group_memory.unwrap_or(u64::MAX))
    }
}

/// An error with what it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text
}

fn segment() -> Result<(), String> {
    let segment = Segment::create("quintet-doctor", 4096).map_err(|e| chain(&e))?;
    segment.reader().map(drop).map_err(|e| chain(&e))
}

fn pidfd() -> Result<(), String> {
    rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .map(drop)
        .map_err(|e| e.to_string())
}

/// Whether the directory of a start can be made where it would be.
fn start() -> (PathBuf, Result<(), String>) {
    let base = startdir::base();
    let path = base.join(names::own("doctor"));
    let made = std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .and_then(|()| std::os::unix::net::UnixListener::bind(path.join("socket")).map(drop));
    let _ = std::fs::remove_dir_all(&path);
    (base, made.map_err(|e| e.to_string()))
}

#[cfg(target_arch = "x86_64")]
fn jit_lacks() -> Vec<&'static str> {
    quintet_cpu_worker::jit::missing_on_host()
}

#[cfg(not(target_arch = "x86_64"))]
fn jit_lacks() -> Vec<&'static str> {
    vec!["an x86-64 processor"]
}

fn number(path: &str) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn user_namespaces() -> bool {
    let allowed = |path: &str, otherwise: u32| number(path).unwrap_or(otherwise) > 0;
    Path::new("/proc/self/ns/user").exists()
        && allowed("/proc/sys/user/max_user_namespaces", 1)
        && (rustix::process::geteuid().is_root()
            || allowed("/proc/sys/kernel/unprivileged_userns_clone", 1)
                && number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").unwrap_or(0) == 0)
}

fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| may_execute(&dir.join(program))))
}

fn may_execute(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn may_use(path: &str) -> bool {
    rustix::fs::access(path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok()
}

fn display_named() -> Vec<String> {
    commands::DISPLAYS
        .into_iter()
        .filter_map(|name| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
            Some(format!("{name}={}", value.to_string_lossy()))
        })
        .collect()
}

/// Files of a directory whose names begin so, sorted.
fn devices(dir: &str, beginning: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
        .map(|entry| entry.path().display().to_string())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_with_their_cause() {
        let inner = std::io::Error::other("inner");
        let outer = quintet_protocol::handshake::WorkerError::Failed("outer".into());
        assert_eq!(chain(&inner), "inner");
        assert!(chain(&outer).contains("outer"));
    }

    #[test]
    fn what_a_start_needs_is_tried_and_nothing_is_left() {
        let (base, made) = start();
        assert_eq!(made, Ok(()), "{}", base.display());
        assert!(!base.join(names::own("doctor")).exists());
        assert_eq!(segment(), Ok(()));
        assert_eq!(pidfd(), Ok(()));
    }

    #[test]
    fn the_search_path_has_a_shell_and_no_nonsense() {
        assert!(in_path("sh"));
        assert!(!in_path("quintet-no-such-program"));
    }
}
