//! The commands of the command line.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use quintet_protocol::control::{Answer, Drive, Medium, Request};

use crate::cli::{Command, Line, RunArgs};
use crate::config::{self, MachineConfig, UsageError, reason};
use crate::control::{client, show};
use crate::machine::media;
use crate::signals::Signals;
use crate::units::parse_duration;
use crate::wasm::{self, SubmitArgs, WatchArgs};
use crate::{debug, doctor, generate, images, machine, soak, top};

/// Carries out a command line and answers the exit status. `signals` are blocked already.
///
/// # Errors
/// [`UsageError`], one sentence for the user; the exit status is 1 then.
pub fn execute(line: Line, signals: &Signals) -> Result<u8, UsageError> {
    match line.cli.command {
        None => run(&RunArgs::default(), signals),
        Some(Command::Run(args)) => run(&args, signals),
        Some(Command::Ps) => Ok(ps()),
        Some(Command::Status { name, json }) => status(&name, json),
        Some(Command::Pause(n)) => tell(&n.name, &Request::Pause),
        Some(Command::Resume(n)) => tell(&n.name, &Request::Resume),
        Some(Command::Quit(n)) => tell(&n.name, &Request::Quit),
        Some(Command::Reset(n)) => tell(&n.name, &Request::Reset),
        Some(Command::Type { name, text }) => tell(&name, &Request::Type(unescape(&text))),
        Some(Command::Mouse { name, action }) => tell(&name, &Request::Mouse(action.join(" "))),
        Some(Command::Insert {
            name,
            drive,
            file,
            read_only,
        }) => insert(&name, drive.into(), &file, read_only),
        Some(Command::Eject { name, drive }) => change(&name, &Request::Eject(drive.into()), None),
        Some(Command::Key { name, chord }) => tell(&name, &Request::Key(chord)),
        Some(Command::Config(args)) => {
            // What cannot be run is not shown either.
            MachineConfig::new(&args)?;
            print!("{}", line.described.machine_file());
            Ok(0)
        }
        Some(Command::Screenshot { name, file }) => screenshot(&name, &file),
        Some(Command::Debug {
            name,
            role,
            time,
            source,
            with,
            more,
        }) => debug::run(&debug::DebugArgs {
            name,
            role,
            time,
            source,
            with,
            more,
        }),
        Some(Command::Top { name, every, once }) => {
            let every = parse_duration(&every).map_err(|e| UsageError(format!("--every: {e}")))?;
            top::run(&name, every, once, signals)
        }
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
        Some(Command::Soak(args)) => soak::run(&args, signals),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Generate(args)) => generate::run(&args),
        Some(Command::TakeMemory(args)) => soak::pressure::run(&args),
    }
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

/// Environment variables that name a display.
pub(crate) const DISPLAYS: [&str; 3] = ["WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY"];

/// Whether the environment names a display.
fn has_display() -> bool {
    DISPLAYS
        .into_iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Our own log goes to the standard error, among the workers' lines.
fn log_to_stderr(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(crate::trace::LogWriter::default)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .try_init();
}

fn ps() -> u8 {
    for name in client::names() {
        match client::ask(&name, &Request::Status) {
            Ok(Answer::Status(r)) => println!("{}", show::line(&r)),
            Ok(_) => println!("{name:<24} answers strangely"),
            Err(e) => println!("{name:<24} {e}"),
        }
    }
    0
}

fn status(name: &str, json: bool) -> Result<u8, UsageError> {
    let report = client::report(name)?;
    if json {
        println!("{}", show::json(&report));
    } else {
        print!("{}", show::status(&report));
    }
    Ok(0)
}

fn tell(name: &str, request: &Request) -> Result<u8, UsageError> {
    match client::ask(name, request)? {
        Answer::Error(e) => Err(UsageError(show::error(&e))),
        _ => Ok(0),
    }
}

/// Opens an image and has it put into a drive; the machine judges and locks it.
fn insert(name: &str, drive: Drive, file: &Path, read_only: bool) -> Result<u8, UsageError> {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let image = images::open_unlocked(&media::image(drive, file, read_only))?;
    let medium = Medium {
        name: path.display().to_string(),
        read_only,
    };
    change(name, &Request::Insert(drive, medium), Some(image.as_fd()))
}

/// Has what is in a drive changed.
fn change(name: &str, request: &Request, image: Option<BorrowedFd<'_>>) -> Result<u8, UsageError> {
    // The machine's own patience and some.
    let patience = media::patience() + Duration::from_secs(2);
    match client::Conversation::start(name, request, image)?.answer(Some(patience))? {
        (Answer::Error(e), _) => Err(UsageError(show::error(&e))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_typed_text_are_keys() {
        assert_eq!(unescape(r"ls\n\t\\x\q\"), "ls\n\t\\x\\q\\");
    }
}
