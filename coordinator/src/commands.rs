//! The commands of the command line.

use std::path::Path;
use std::time::Duration;

use quintet_protocol::control::{Answer, Request, StatusReport};
use quintet_protocol::handshake::Role;

use crate::cli::{Cli, Command, RunArgs};
use crate::config::{self, MachineConfig, UsageError, reason};
use crate::control::{client, show};
use crate::signals::Signals;
use crate::wasm::{self, SubmitArgs, WatchArgs};
use crate::{machine, profile};

/// Carries out a command line and answers the exit status. `signals` are blocked already.
///
/// # Errors
/// [`UsageError`], one sentence for the user; the exit status is 1 then.
pub fn execute(cli: Cli, signals: &Signals) -> Result<u8, UsageError> {
    match cli.command {
        None => run(&RunArgs::default(), signals),
        Some(Command::Run(args)) => run(&args, signals),
        Some(Command::Ps) => Ok(ps()),
        Some(Command::Status(n)) => status(&n.name),
        Some(Command::Pause(n)) => tell(&n.name, &Request::Pause),
        Some(Command::Resume(n)) => tell(&n.name, &Request::Resume),
        Some(Command::Quit(n)) => tell(&n.name, &Request::Quit),
        Some(Command::Reset(n)) => tell(&n.name, &Request::Reset),
        Some(Command::Type { name, text }) => tell(&name, &Request::Type(unescape(&text))),
        Some(Command::Mouse { name, action }) => tell(&name, &Request::Mouse(action.join(" "))),
        Some(Command::Key { name, chord }) => tell(&name, &Request::Key(chord)),
        Some(Command::Config(args)) => show_config(&args),
        Some(Command::Screenshot { name, file }) => screenshot(&name, &file),
        Some(Command::Debug { name, role, time }) => debug(&name, &role, time),
        Some(Command::Top(_)) => not_yet("top"),
        Some(Command::Submit {
            name,
            modules,
            json,
            invoke,
            time_limit,
            memory,
            transport,
            args,
        }) => {
            let args = SubmitArgs {
                invoke,
                args,
                time_limit,
                memory,
                json,
                transport: config::transport(transport.as_deref())?,
            };
            wasm::submit(&name, &modules, &args)
        }
        Some(Command::Watch {
            name,
            at,
            time,
            memory,
        }) => wasm::watch(&name, &WatchArgs { at, time, memory }),
        Some(Command::Soak { .. }) => not_yet("soak"),
    }
}

fn not_yet(command: &str) -> Result<u8, UsageError> {
    Err(UsageError(format!("`quintet {command}` does not work yet")))
}

fn run(args: &RunArgs, signals: &Signals) -> Result<u8, UsageError> {
    log_to_stderr(&args.log);
    let config = MachineConfig::new(args)?;
    if !config.gpu.headless && !has_display() {
        return Err(UsageError(
            "There is no display (neither WAYLAND_DISPLAY nor DISPLAY is set); add --headless".to_owned(),
        ));
    }
    match config.wasm.clone() {
        Some(wasm) => wasm::run(config, &wasm, signals),
        None => machine::run(config, signals),
    }
}

/// Whether the environment names a display.
fn has_display() -> bool {
    ["WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY"]
        .into_iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Our own log goes to the standard error, among the workers' lines.
fn log_to_stderr(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .try_init();
}

fn show_config(args: &RunArgs) -> Result<u8, UsageError> {
    let c = MachineConfig::new(args)?;
    println!("name = {:?}", c.name);
    println!("ram = \"{}\"", crate::units::show_size(c.ram.total()));
    println!("cpus = {}", c.cpu.vcpus);
    println!("cpu = {:?}", c.cpu.model);
    println!("accel = \"{}\"", format!("{:?}", c.cpu.accel).to_lowercase());
    println!(
        "kernel = {:?}",
        c.kernel
            .as_deref()
            .unwrap_or(Path::new("(the built-in demo guest)"))
    );
    for (file, line) in &c.initrd {
        println!("initrd = {file:?} # {line}");
    }
    println!("append = {:?}", c.io.append);
    println!("serial = {:?}", c.serial);
    println!("debugcon = {:?}", c.debugcon);
    println!("audio = {:?}", c.audio);
    println!("exit-port = {:?}", c.io.exit_port);
    println!("pc-testdev = {}", c.io.testdev);
    println!("AC97 = {}", c.io.ac97);
    println!("no-reboot = {}", c.io.no_reboot);
    println!("time-limit = {:?}", c.time_limit);
    println!("sandbox = {}", c.sandbox);
    println!("single-process = {}", c.single_process);
    Ok(0)
}

fn ps() -> u8 {
    for name in client::names() {
        match client::ask(&name, &Request::Status) {
            Ok(Answer::Status(r)) => {
                println!(
                    "{:<24} {:<10} pid {:<8} {} s",
                    r.name,
                    format!("{:?}", r.state),
                    r.pid,
                    r.uptime_ms / 1000
                );
            }
            Ok(_) => println!("{name:<24} answers strangely"),
            Err(e) => println!("{name:<24} {e}"),
        }
    }
    0
}

fn report(name: &str) -> Result<StatusReport, UsageError> {
    match client::ask(name, &Request::Status)? {
        Answer::Status(report) => Ok(*report),
        Answer::Error(e) => Err(UsageError(show::error(&e))),
        _ => Err(UsageError(format!("The machine \"{name}\" answers strangely"))),
    }
}

fn status(name: &str) -> Result<u8, UsageError> {
    print!("{}", show::status(&report(name)?));
    Ok(0)
}

fn tell(name: &str, request: &Request) -> Result<u8, UsageError> {
    match client::ask(name, request)? {
        Answer::Error(e) => Err(UsageError(show::error(&e))),
        _ => Ok(0),
    }
}

/// `\n`, `\t` and `\\` in a text to type.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('\\') | None => out.push('\\'),
                Some(other) => out.extend(['\\', other]),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

pub(crate) fn screenshot(name: &str, file: &Path) -> Result<u8, UsageError> {
    let cannot =
        |e: &std::io::Error| UsageError(format!("Cannot write \"{}\": {}", file.display(), reason(e)));
    let (answer, picture) = client::ask_for_file(name, &Request::Screenshot)?;
    match (answer, picture) {
        (Answer::Screenshot(_), Some(picture)) => {
            let mut picture = std::fs::File::from(picture);
            let mut out = std::fs::File::create(file).map_err(|e| cannot(&e))?;
            // The sender's descriptor shares its offset with this one.
            std::io::Seek::rewind(&mut picture).map_err(|e| cannot(&e))?;
            std::io::copy(&mut picture, &mut out).map_err(|e| cannot(&e))?;
            Ok(0)
        }
        (Answer::Error(e), _) => Err(UsageError(show::error(&e))),
        _ => Err(UsageError(format!("The machine \"{name}\" answers strangely"))),
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

/// Attaches gdb to a worker, or prints how.
fn debug(name: &str, role: &str, time: Option<Duration>) -> Result<u8, UsageError> {
    use std::os::unix::process::CommandExt as _;
    if role == "profile" {
        return profile::of_machine(name, time.unwrap_or(profile::DEFAULT_TIME));
    }
    if role == "transport" {
        return transport(name);
    }
    let report = report(name)?;
    let pid = if role == Role::Coordinator.name() {
        Some(report.pid)
    } else {
        let Some(role) = Role::from_name(role) else {
            return Err(UsageError(format!(
                "\"{role}\" is not a worker; cpu, io, gpu, audio, coordinator, transport and profile are"
            )));
        };
        report.workers.iter().find(|w| w.role == role).and_then(|w| w.pid)
    };
    let Some(pid) = pid else {
        return Err(UsageError(format!(
            "The {role} of \"{name}\" does not run at present"
        )));
    };
    let error = std::process::Command::new("gdb")
        .args(["-p", &pid.to_string()])
        .exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        println!("gdb -p {pid}");
        return Ok(0);
    }
    Err(UsageError(format!("Cannot start gdb: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_typed_text_are_keys() {
        assert_eq!(unescape(r"ls\n\t\\x\q\"), "ls\n\t\\x\\q\\");
    }
}
