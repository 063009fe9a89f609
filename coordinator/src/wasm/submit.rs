//! `quintet submit`: modules for a machine that runs already.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quintet_protocol::control::{Answer, Request};
use quintet_protocol::payload::{Outgoing, PayloadKind, TransportChoice};
use quintet_protocol::wasm::{CompileLimits, JobLimits, JobReport, Submission, WasmConfig};

use super::print;
use crate::config::{UsageError, read_file};
use crate::control::client::Conversation;
use crate::control::show;
use crate::supervise::start::random_u64;
use crate::units::show_size;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct SubmitArgs {
    /// Function to call.
    pub invoke: Option<String>,
    /// Arguments of the program.
    pub args: Vec<String>,
    /// How long each may run.
    pub time_limit: Duration,
    /// Linear memory of each in bytes.
    pub memory: u64,
    /// Reports as JSON.
    pub json: bool,
    /// How the modules travel.
    pub transport: TransportChoice,
}

/// Modules whose answers are waited for at the same time.
const AT_ONCE: usize = 32;

/// Sends the modules and prints a report for each in the order given. The exit status is 0 when all did what was asked of
/// them, else 1.
///
/// # Errors
/// [`UsageError`] when a module cannot be read or the machine does not answer.
pub fn submit(name: &str, modules: &[PathBuf], args: &SubmitArgs) -> Result<u8, UsageError> {
    let mut status = 0;
    for group in modules.chunks(AT_ONCE) {
        let asked = group
            .iter()
            .map(|path| ask(name, path, args))
            .collect::<Result<Vec<_>, _>>()?;
        for (path, conversation) in group.iter().zip(asked) {
            let report = wait(name, conversation)?;
            if modules.len() > 1 && !args.json {
                println!("Module: {}", path.display());
            }
            print(&report, args.json);
            status |= u8::from(!report.status.is_success());
        }
    }
    Ok(status)
}

fn ask(name: &str, path: &Path, args: &SubmitArgs) -> Result<Conversation, UsageError> {
    let most = CompileLimits::default().module;
    let bytes = read_file("module", path, most, |len| {
        format!(
            "The module \"{}\" has {len} bytes, {} are the most",
            path.display(),
            show_size(most)
        )
    })?;
    // To the machine it always travels as a memfd; the size decides from there on (S1.1).
    let submission = |module| Submission {
        module,
        config: WasmConfig {
            invoke: args.invoke.clone(),
            args: std::iter::once(path.display().to_string())
                .chain(args.args.iter().cloned())
                .collect(),
            seed: random_u64(),
        },
        limits: JobLimits {
            memory: args.memory,
            millis: args.time_limit.as_millis() as u64,
        },
        memfd: match args.transport {
            TransportChoice::BySize => None,
            TransportChoice::Inline => Some(false),
            TransportChoice::Memfd => Some(true),
        },
        refuse_map: false,
    };
    let sent = Outgoing::new_ahead(PayloadKind::WasmModule, &bytes, |module, fd| {
        let request = Request::Submit(Box::new(submission(module)));
        Conversation::start(name, &request, Some(fd))
    });
    let (module, conversation) = sent.map_err(|e| UsageError(format!("{}: {e}", path.display())))?;
    let conversation = conversation?;
    conversation.announce(&module.digest());
    Ok(conversation)
}

fn wait(name: &str, conversation: Conversation) -> Result<JobReport, UsageError> {
    match conversation.answer(None)? {
        (Answer::Job(report), _) => Ok(*report),
        (Answer::Error(e), _) => Err(UsageError(show::error(&e))),
        _ => Err(UsageError(format!("The machine \"{name}\" answers strangely"))),
    }
}
