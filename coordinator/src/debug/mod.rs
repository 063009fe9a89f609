//! `quintet debug NAME ROLE`: a debugger on one process of a machine.
//!
//! This process becomes gdb or lldb, which therefore is the process that the worker has admitted. It is given a script with commands for what
//! is in shared memory and in the vCPU, in a memfd: whatever happens to either, nothing is left. A file beside the executable was
//! rejected (it may be of another build, or not there), and so was one in `/tmp`. What the commands show is one text for both debuggers
//! (`quintet.py`); that of each (`quintet-gdb.py`, `quintet-lldb.py`) has what they do in ways of their own.

mod debugger;
mod perf;
mod table;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quintet_protocol::control::{Answer, Request, StatusReport};
use quintet_protocol::handshake::Role;

use crate::config::UsageError;
use crate::control::{client, show};
use crate::profile;

pub use debugger::Debugger;

/// What the command line says.
#[derive(Debug)]
pub struct DebugArgs {
    /// Name of the machine.
    pub name: String,
    /// What to debug, or to look at.
    pub role: String,
    /// How long to look.
    pub time: Option<Duration>,
    /// Where the sources are now.
    pub source: Option<PathBuf>,
    /// The debugger.
    pub with: Debugger,
    /// More arguments of it.
    pub more: Vec<String>,
}

/// Carries out `quintet debug`.
///
/// # Errors
/// [`UsageError`] when there is no such machine or process, or the debugger cannot be started.
pub fn run(args: &DebugArgs) -> Result<u8, UsageError> {
    let name = &args.name;
    match args.role.as_str() {
        "profile" => profile::of_machine(name, args.time.unwrap_or(profile::DEFAULT_TIME)),
        "transport" => transport(name),
        "perf-map" => perf_map(name),
        _ => attach(args),
    }
}

/// Shows how the payloads of a machine travelled.
fn transport(name: &str) -> Result<u8, UsageError> {
    match client::ask(name, &Request::Transport)? {
        Answer::Transport(traces) => {
            for trace in traces {
                print!("{trace}");
            }
            Ok(0)
        }
        Answer::Error(e) => Err(UsageError(show::error(&e))),
        _ => Err(UsageError(format!("The machine \"{name}\" answers strangely"))),
    }
}

/// The process of `role` in a report.
fn process(report: &StatusReport, name: &str) -> Result<Option<i32>, UsageError> {
    if name == Role::Coordinator.name() {
        return Ok(Some(report.pid));
    }
    let Some(role) = Role::from_name(name) else {
        return Err(UsageError(format!(
            "\"{name}\" is not a worker; cpu, io, gpu, audio, coordinator, perf-map, profile and transport are"
        )));
    };
    Ok(report.workers.iter().find(|w| w.role == role).and_then(|w| w.pid))
}

/// Writes perf's map of the cpu-worker's translations.
fn perf_map(name: &str) -> Result<u8, UsageError> {
    let role = Role::Cpu;
    let Some(pid) = process(&client::report(name)?, role.name())? else {
        return Err(UsageError(format!(
            "The {role} of \"{name}\" does not run at present"
        )));
    };
    admit(name, role);
    let (path, count) = perf::write(pid).map_err(|e| UsageError(e.to_string()))?;
    println!("{path}: {count} translations");
    Ok(0)
}

/// Attaches the debugger, or prints how.
fn attach(args: &DebugArgs) -> Result<u8, UsageError> {
    let (name, role) = (&args.name, &args.role);
    let report = client::report(name)?;
    let Some(pid) = process(&report, role)? else {
        return Err(UsageError(format!(
            "The {role} of \"{name}\" does not run at present"
        )));
    };
    if let Some(role) = Role::from_name(role).filter(|r| Role::WORKERS.contains(r)) {
        admit(name, role);
    }
    let with = args.with;
    let script = with
        .script()
        .map_err(|e| UsageError(format!("Cannot make the script for {with}: {e}")))?;
    let mut command = with.attach(pid);
    command.args(with.load(&script));
    if let Some(source) = sources(args.source.as_deref()) {
        command.args(with.order(&format!("quintet source {}", source.display())));
    }
    let error = command.args(&args.more).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        println!("{}", with.line(pid));
        return Ok(0);
    }
    Err(UsageError(format!("Cannot start {with}: {error}")))
}

/// Has the worker let this process, which becomes the debugger, trace it where Yama asks for that. One that hangs cannot, and is tried all the
/// same: without Yama, and for root, nothing needs to be let.
fn admit(name: &str, role: Role) {
    let why = match client::ask(name, &Request::Debug(role)) {
        Ok(Answer::Error(e)) => show::error(&e),
        Err(e) => e.to_string(),
        Ok(_) => return,
    };
    eprintln!("quintet: the {role} has not named the debugger to the kernel: {why}");
}

/// Where the sources are, if it is to be said: the option, or `QUINTET_SOURCE`.
fn sources(option: Option<&Path>) -> Option<PathBuf> {
    let named = std::env::var_os("QUINTET_SOURCE").filter(|s| !s.is_empty());
    option.map(Path::to_owned).or(named.map(PathBuf::from))
}

#[cfg(test)]
mod printers_tests;
