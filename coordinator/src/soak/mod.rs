//! `quintet soak`: a machine that runs for hours while it is broken on schedule, judged from outside.
//!
//! The driver is a user with patience: it starts an ordinary `quintet run` as a child ([`machine`]), does to it what a user or
//! an unkind host could do ([`fault`], [`schedule`]), looks at it once a second ([`sample`]), judges what it saw ([`invariants`],
//! [`workload`]) and writes it down ([`report`], [`html`]). It shares nothing with the machine but the control socket,
//! pipes and signals, and what a fault writes: the image of its disk, a limit, a ring ([`disk_fault`], [`hostile`]; [`pressure`]
//! is the host's memory). A driver inside the coordinator was rejected: it would judge what it is part of.

pub mod disk_fault;
pub mod driver;
pub mod fault;
pub mod hostile;
pub mod html;
pub mod inject;
pub mod invariants;
pub mod machine;
pub mod merge;
pub mod plan;
pub mod plot;
pub mod pressure;
pub mod progress;
pub mod report;
pub mod sample;
pub mod schedule;
pub mod workload;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::RunArgs;
use crate::config::UsageError;
use crate::signals::Signals;
use crate::units::parse_duration;

/// Exit status of a soak that found a violation.
pub const EXIT_VIOLATION: u8 = 4;

/// The options of `soak`.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// As for `run`; without anything to start from, a built-in workload is run that checks all of the machine.
    #[command(flatten)]
    pub run: RunArgs,
    /// How long.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub duration: Duration,
    /// What to break: kill-, stall- or slow- with cpu, io, gpu or audio; pause, reset; disk-error, disk-full;
    /// hostile-ring, memory-pressure; all, none [default: all that neither guest nor other users of the host notice].
    #[arg(long, value_delimiter = ',')]
    pub faults: Vec<String>,
    /// Mean time from one fault to the next.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub every: Duration,
    /// Seed of the schedule: the same one gives the same faults at the same times [default: another one each time].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Where to write the report; a page and, after a violation, a folder lie beside it [default: soak-SEED.json].
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    /// Merge these reports into --report, and run nothing.
    #[arg(long, value_name = "FILE.json", num_args = 1.., conflicts_with_all = ["seed", "faults"], requires = "report")]
    pub merge: Vec<PathBuf>,
}

/// Runs a soak, or merges reports, and answers the exit status.
///
/// # Errors
/// [`UsageError`] for a mistake of usage, and for a machine that cannot be started.
pub fn run(args: &SoakArgs, signals: &Signals) -> Result<u8, UsageError> {
    if let (false, Some(into)) = (args.merge.is_empty(), &args.report) {
        let merged = merge::merge_files(&args.merge, into)?;
        println!("{}", merged.summary());
        println!("report: {}", into.display());
        return Ok(verdict(&merged));
    }
    let plan = plan::Plan::new(args)?;
    let given: Vec<OsString> = std::env::args_os()
        .skip_while(|word| word != "soak")
        .skip(1)
        .collect();
    driver::run(&plan, &plan.command(&given), signals)
}

/// The exit status that a report stands for.
fn verdict(report: &report::Report) -> u8 {
    match report.totals.violations {
        0 => 0,
        _ => EXIT_VIOLATION,
    }
}
