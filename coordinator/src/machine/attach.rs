//! Debuggers that are waited for before the guest executes anything (`--wait-for-debugger`).
//!
//! The worker is ready and idle meanwhile, which is where a person wants to set breakpoints: everything is mapped, and nothing
//! has happened. The coordinator looks for the tracer from outside and keeps VM time back until it has let the worker go on. A
//! worker that stops itself was rejected: it would need system calls that its confinement does not allow, and a debugger
//! that attaches to a stopped process has to be told to wake it.

use quintet_protocol::handshake::Role;
use quintet_protocol::status::StatusWord;

use super::Machine;
use crate::config::UsageError;
use crate::supervise::process;

/// The workers that `option` names, each once.
///
/// # Errors
/// [`UsageError`] for what is no worker, and for any where all workers are threads of one process.
pub fn roles(option: &str, names: &[String], single_process: bool) -> Result<Vec<Role>, UsageError> {
    if single_process && !names.is_empty() {
        return Err(UsageError(format!(
            "{option} needs workers that are processes; with --single-process there is one, quintet itself"
        )));
    }
    let mut roles = Vec::new();
    for name in names {
        match Role::from_name(name).filter(|role| Role::WORKERS.contains(role)) {
            Some(role) if !roles.contains(&role) => roles.push(role),
            Some(_) => {}
            None => {
                return Err(UsageError(format!(
                    "{option} \"{name}\" is not a worker; cpu, io, gpu and audio are"
                )));
            }
        }
    }
    Ok(roles)
}

/// A worker for whose debugger the machine waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    role: Role,
    /// The process that was named to the user.
    told: Option<u32>,
}

impl Awaited {
    /// The debuggers of `roles`, none of which has come.
    pub(super) fn of(roles: &[Role]) -> Vec<Self> {
        let awaited = roles.iter().map(|&role| Self { role, told: None });
        awaited.collect()
    }
}

impl Machine {
    /// Looks for the debuggers that are missing, and answers whether one still is. Each worker is named once it is ready,
    /// and so is its successor.
    pub(super) fn awaits_debuggers(&mut self) -> bool {
        let (fleet, life, seen) = (&self.fleet, &self.life, &self.seen);
        self.awaited.retain_mut(|awaited| {
            let role = awaited.role;
            let status = &seen[role.index() - 1].status;
            let ready = status.load(StatusWord::ready(role)) == life.generation(role);
            let Some(pid) = fleet.pid_to_watch(role).filter(|_| ready) else {
                return true;
            };
            let Some(look) = process::look(pid) else {
                return true;
            };
            if look.traced && !look.stopped {
                tracing::info!("a debugger has let the {role} go on");
                return false;
            }
            if awaited.told.replace(pid) != Some(pid) {
                eprintln!("quintet: the {role} waits for a debugger to attach and continue: gdb -p {pid}");
            }
            true
        });
        !self.awaited.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_workers_and_each_counts_once() {
        let parse = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
            roles("--external", &names, false)
        };
        assert_eq!(parse(&["io", "cpu", "io"]).ok(), Some(vec![Role::Io, Role::Cpu]));
        for wrong in ["coordinator", "disk", ""] {
            let e = parse(&["cpu", wrong]).expect_err("refused").to_string();
            assert!(
                e.contains(&format!(
                    "--external \"{wrong}\" is not a worker; cpu, io, gpu and audio are"
                )),
                "{e}"
            );
        }
    }
}
