//! WebAssembly modules instead of a PC. The coordinator moves sealed files and never looks into one.

mod cache;
mod compile;
pub(crate) mod dirs;
mod jobs;
mod make;
pub mod report;
mod submit;
pub mod watch;

use std::path::PathBuf;

use quintet_protocol::lifecycle::Outcome;
use quintet_protocol::payload::{Outgoing, PayloadKind, TransportChoice};
use quintet_protocol::wasm::{CompileLimits, JobLimits, JobReport, JobStatus, WasmConfig};

pub use compile::{BINARY, CompileError, Compiler, Product};
pub use dirs::GuestDir;
pub use jobs::{Jobs, MOST_JOBS};
pub use make::{Made, Maker, Source};
pub use submit::{SubmitArgs, submit};
pub use watch::{WatchArgs, watch};

use crate::config::{MachineConfig, UsageError};
use crate::machine;
use crate::signals::Signals;

/// Exit status of a module that trapped.
const EXIT_TRAPPED: u8 = 3;
/// Exit status when the process that ran the module died.
const EXIT_DIED: u8 = 2;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct WasmRun {
    /// The module to start with; without one the machine waits for `quintet submit`.
    pub module: Option<PathBuf>,
    /// What to call in it, with which arguments.
    pub config: WasmConfig,
    /// Directories that it may use.
    pub dirs: Vec<GuestDir>,
    /// Report as JSON.
    pub json: bool,
    /// Exit with what the module returned.
    pub exit_code: bool,
    /// Go on when the module has ended.
    pub stay: bool,
    /// How the module travels.
    pub transport: TransportChoice,
    /// The compiler behaves as if it could not map.
    pub refuse_map: bool,
}

impl WasmRun {
    /// The module as a job, read from its file.
    ///
    /// # Errors
    /// [`UsageError`] when it cannot be read.
    pub fn first(&self, config: &MachineConfig) -> Result<Option<Source>, UsageError> {
        let Some(path) = &self.module else {
            return Ok(None);
        };
        let bytes = config.read_module(path, CompileLimits::default().module)?;
        let module = Outgoing::new(PayloadKind::WasmModule, &bytes, self.transport)
            .map_err(|e| UsageError(format!("{}: {e}", path.display())))?;
        let digest = module.digest();
        Ok(Some(Source {
            module: module.into(),
            announced: Box::new(move || Ok(digest)),
            transport: self.transport,
            refuse_map: self.refuse_map,
            config: self.config.clone(),
            limits: JobLimits::NONE,
        }))
    }
}

/// Runs a machine for modules, reports what became of the first one, and answers the exit status.
///
/// # Errors
/// [`UsageError`] for whatever keeps the machine from starting. What is wrong with the module is a report.
pub fn run(config: MachineConfig, wasm: &WasmRun, signals: &Signals) -> Result<u8, UsageError> {
    let first = wasm.first(&config)?;
    let end = machine::run_with(config, Vec::new(), first, signals)?;
    let Some(report) = end.job else {
        return Ok(end.outcome.exit_status());
    };
    print(&report, wasm.json);
    Ok(status(&report, &end.outcome, wasm.exit_code))
}

/// Prints a report; the way of a module that did not load goes to standard error.
pub fn print(report: &JobReport, json: bool) {
    if json {
        println!("{}", report::json(report));
        return;
    }
    print!("{}", report::text(report));
    if let Some(trace) = &report.trace {
        eprint!("{trace}");
    }
}

fn status(report: &JobReport, outcome: &Outcome, exit_code: bool) -> u8 {
    match (report.status, report.return_code) {
        (JobStatus::Executed, Some(code)) if exit_code => code as u8,
        (JobStatus::Executed | JobStatus::Loaded, _) => outcome.exit_status(),
        (JobStatus::ExecutionFailed, _) => EXIT_TRAPPED,
        (JobStatus::WorkerDied, _) => EXIT_DIED,
        (JobStatus::LoadFailed | JobStatus::InstantiateFailed, _) => 1,
    }
}
