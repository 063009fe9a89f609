//! `quintet`: the command line and, for `run`, the coordinator of a machine.

use std::process::ExitCode;

use quintet_coordinator::cli::{Line, LineError};
use quintet_coordinator::commands::execute;
use quintet_coordinator::signals::Signals;

/// Exit status for mistakes of usage and configuration.
const EXIT_USAGE: u8 = 1;

fn main() -> ExitCode {
    let line = match Line::read(std::env::args_os()) {
        Ok(line) => line,
        Err(LineError::Clap(e)) => {
            let asked_for = !e.use_stderr();
            let _ = e.print();
            return if asked_for {
                ExitCode::SUCCESS
            } else {
                EXIT_USAGE.into()
            };
        }
        Err(LineError::File(e)) => {
            eprintln!("quintet: {e}");
            return EXIT_USAGE.into();
        }
    };
    // Before any thread is made, so that all of them have the signals blocked.
    let result = Signals::block()
        .map_err(|e| quintet_coordinator::config::UsageError(format!("Cannot block signals: {e}")))
        .and_then(|signals| execute(line, &signals));
    match result {
        Ok(status) => status.into(),
        Err(e) => {
            eprintln!("quintet: {e}");
            EXIT_USAGE.into()
        }
    }
}
