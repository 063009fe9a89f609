//! `run --wasm`: a module instead of a PC. The coordinator moves sealed files and never looks into one.

mod compile;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use quintet_protocol::lifecycle::Outcome;
use quintet_protocol::payload::{Outgoing, PayloadKind, TransportChoice};
use quintet_protocol::wasm::{CompileLimits, JobStatus};

pub use compile::{BINARY, CompileError, Compiler, Product};
pub use report::Report;

use crate::config::{MachineConfig, UsageError};
use crate::machine;
use crate::signals::Signals;
use crate::supervise::spawner::Spawner;

/// Exit status of a module that trapped.
const EXIT_TRAPPED: u8 = 3;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct WasmRun {
    /// The module.
    pub module: PathBuf,
    /// Report as JSON.
    pub json: bool,
    /// Exit with what the module returned.
    pub exit_code: bool,
    /// How the module travels.
    pub transport: TransportChoice,
    /// The compiler behaves as if it could not map.
    pub refuse_map: bool,
}

/// Compiles the module, runs it, reports, and answers the exit status.
///
/// # Errors
/// [`UsageError`] for whatever keeps the machine from starting. What is wrong with the module is a report.
pub fn run(config: MachineConfig, wasm: &WasmRun, signals: &Signals) -> Result<u8, UsageError> {
    let mut report = Report::default();
    let product = match prepare(&config, wasm, &mut report) {
        Ok(product) => product,
        Err(Failed::Usage(e)) => return Err(e),
        Err(Failed::Module(error)) => {
            report.status = JobStatus::LoadFailed;
            report.error = error;
            print(&report, wasm.json);
            return Ok(1);
        }
    };
    let name = product.payload.kind().text();
    tracing::debug!("{name}: {} bytes", product.payload.len());
    let traces = vec![product.trace];
    let end = machine::run_with(config, vec![product.payload], traces, signals)?;
    let Some(job) = end.job else {
        return Ok(end.outcome.exit_status());
    };
    report.take(job);
    print(&report, wasm.json);
    Ok(status(&report, &end.outcome, wasm.exit_code))
}

/// Why there is nothing to run.
enum Failed {
    Usage(UsageError),
    Module(String),
}

fn prepare(config: &MachineConfig, wasm: &WasmRun, report: &mut Report) -> Result<Product, Failed> {
    let limits = CompileLimits::default();
    let bytes = config
        .read_module(&wasm.module, limits.module)
        .map_err(Failed::Usage)?;
    let cannot = |e: &dyn std::fmt::Display| {
        Failed::Usage(UsageError(format!("{}: {e}", Path::new(&wasm.module).display())))
    };
    let module = Outgoing::new(PayloadKind::WasmModule, &bytes, wasm.transport).map_err(|e| cannot(&e))?;
    drop(bytes);
    report.transport = module.transport();
    let spawner = Spawner::start().map_err(|e| cannot(&e))?;
    let compiler = Compiler::open(spawner).map_err(Failed::Usage)?;
    let start = Instant::now();
    let product = compiler
        .compile(&module, &limits, config.sandbox, wasm.refuse_map)
        .map_err(|e| {
            if let Some(trace) = e.trace() {
                tracing::info!("{trace}");
            }
            Failed::Module(e.to_string())
        })?;
    report.strategy = Some(product.strategy);
    report.compile_micros = start.elapsed().as_micros() as u64;
    Ok(product)
}

fn print(report: &Report, json: bool) {
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
}

fn status(report: &Report, outcome: &Outcome, exit_code: bool) -> u8 {
    match (report.status, report.return_code) {
        (JobStatus::Executed, Some(code)) if exit_code => code as u8,
        (JobStatus::Executed | JobStatus::Loaded, _) => outcome.exit_status(),
        (JobStatus::ExecutionFailed, _) => EXIT_TRAPPED,
        (JobStatus::LoadFailed | JobStatus::InstantiateFailed, _) => 1,
    }
}
