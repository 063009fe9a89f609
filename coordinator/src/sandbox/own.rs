//! The coordinator's own confinement, as far as its job allows.
//!
//! It reads no guest data, but it is the one process with the user's whole rights. After everything that the user named is open it
//! writes nowhere but beneath the directory of start-up sockets and to devices, becomes nobody else, signals nobody but its
//! children and to workers that were started by hand, opens no TCP connection, and asks the kernel for nothing that an emulator has no use for. It goes on reading files and starting
//! programs: workers are started again, and their loaders, libraries and drivers inherit all of this.

use std::path::PathBuf;

use quintet_protocol::handshake::confine::paths::{self, Paths};
use quintet_protocol::handshake::confine::{drop_capabilities, limit};
use rustix::process::Resource;

use super::policy::compile_refusals;
use crate::supervise::names::SHARED_MEMORY;
use crate::supervise::startdir;

/// Where Yama, if there is one, says whom a process may trace.
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Confines this thread, and what it starts from now on: everything but the capabilities. `dirs` stay writable, and abstract addresses in
/// reach if a child may need one; from the directories `remove`, files can be removed. With `signals`, processes can be ended that are not
/// of its making. Answers what could not be applied.
pub fn restrict(
    dirs: impl Iterator<Item = PathBuf>,
    remove: &[PathBuf],
    abstract_sockets: bool,
    signals: bool,
) -> Vec<String> {
    let mut missing = Vec::new();
    limit(Resource::Core, 0, &mut missing);
    if let Err(e) = rustix::thread::set_no_new_privs(true) {
        missing.push(format!("no-new-privileges: {e}"));
    }
    let mut write: Vec<PathBuf> = dirs.collect();
    write.push(startdir::base());
    write.extend(["/dev", SHARED_MEMORY].map(PathBuf::from));
    if !rustix::process::geteuid().is_root() {
        // A worker numbers the users of its namespace there. Root's are not needed, and could set the kernel's parameters.
        write.push("/proc".into());
    }
    missing.extend(paths::restrict(&Paths {
        read: None,
        write: &write,
        remove,
        abstract_sockets,
        signals,
    }));
    if signals {
        missing
            .push("signals: they reach other processes of this user, for workers started by hand".to_owned());
    }
    let refused = compile_refusals("coordinator").map_err(|e| e.to_string());
    let applied = refused.and_then(|p| seccompiler::apply_filter(&p).map_err(|e| e.to_string()));
    if let Err(e) = applied {
        missing.push(format!("seccomp: {e}"));
    }
    missing
}

/// Gives up this thread's capabilities, which root has. Answers what could not be applied.
pub fn give_up_rights() -> Option<String> {
    let error = drop_capabilities().err()?;
    Some(format!("capabilities: {error}"))
}

/// What Yama leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// It restricts who traces whom.
    Restricted,
    /// The kernel has no Yama; what follows from that.
    NoYama(String),
    /// The host's administrator has it off; what follows from that.
    Off(String),
}

/// Looks whether other programs of this user may trace a machine.
pub fn tracing() -> Tracing {
    tracing_by(std::fs::read_to_string(YAMA).ok().as_deref())
}

fn tracing_by(scope: Option<&str>) -> Tracing {
    let text = |why| format!("Yama: {why}, so other programs of this user can look into the machine");
    match scope.map(str::trim) {
        None => Tracing::NoYama(text("this kernel has none")),
        Some("0") => Tracing::Off(text("the sysctl kernel.yama.ptrace_scope is 0")),
        Some(_) => Tracing::Restricted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_tracing_is_named() {
        assert!(matches!(tracing_by(None), Tracing::NoYama(text) if text.contains("none")));
        assert!(matches!(tracing_by(Some("0\n")), Tracing::Off(text) if text.contains("ptrace_scope is 0")));
        assert_eq!(tracing_by(Some("1\n")), Tracing::Restricted);
    }
}
