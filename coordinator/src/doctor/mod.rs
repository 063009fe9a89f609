//! `quintet doctor`: what this host gives a machine, and what to do about what it does not.
//!
//! [`facts`] looks, [`judge`] says what it means, [`show`] writes it down; between them is a plain value, so that every remedy is
//! tested without the host that needs it. What only an attempt can tell (confinement, which cannot be taken back; the
//! display, whose libraries may end the process) is tried by a child, [`probe`]. A list of versions and files to look for was rejected
//! there: it would be a second opinion beside the code that a machine is made by.

pub mod facts;
pub mod judge;
pub mod probe;
pub mod show;

use clap::Args;

use crate::config::UsageError;
use facts::Facts;

/// Exit status where not even a machine without a window can run.
const EXIT_UNFIT: u8 = 1;

/// The options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Try one thing, say in JSON what came of it, and end.
    #[arg(long, hide = true)]
    pub probe: Option<probe::Probe>,
}

/// Examines this host and answers the exit status: 0 where a machine without a window can run.
///
/// # Errors
/// [`UsageError`] when a probe cannot say what it found.
pub fn run(args: &DoctorArgs) -> Result<u8, UsageError> {
    if let Some(probe) = args.probe {
        return probe.run();
    }
    let findings = judge::judge(&Facts::of_this_host());
    if args.json {
        println!("{}", show::json(&findings));
    } else {
        print!("{}", show::text(&findings));
    }
    Ok(if judge::fit_headless(&findings) {
        0
    } else {
        EXIT_UNFIT
    })
}
