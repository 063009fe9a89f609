//! `cargo xtask bench`: runs the benchmarks of the workspace.

use std::process::ExitCode;

use crate::packages;
use crate::sh::{self, Failure};

/// Runs them all, or those that `args` name to `cargo bench`.
///
/// # Errors
/// A [`Failure`] when one does not build or fails.
pub fn bench(args: &[String]) -> Result<ExitCode, Failure> {
    packages::for_build()?;
    let mut command = sh::cargo(&["bench"]);
    if args.is_empty() {
        command.args(["--workspace", "--benches"]);
    }
    sh::run(command.args(args))?;
    Ok(ExitCode::SUCCESS)
}
