//! `cargo xtask run`: builds in release and starts quintet.

use std::process::{Command, ExitCode};

use crate::packages;
use crate::sh::{self, Failure};

/// Packages of the five processes.
pub const BINARIES: [&str; 5] = [
    "quintet-coordinator",
    "quintet-cpu-worker",
    "quintet-io-worker",
    "quintet-gpu-worker",
    "quintet-audio-worker",
];

/// The package of the WebAssembly compiler. Never in one call with the others: features unify across what a call builds,
/// and the cpu-worker must not contain a compiler (docs/adr/0060-wasm-guests.md).
pub const COMPILER: &str = "quintet-wasm-compile";

/// Builds the five processes, and then the compiler of WebAssembly guests, with a cargo profile.
///
/// # Errors
/// A [`Failure`] when the build fails.
pub fn build(profile: &str) -> Result<(), Failure> {
    let mut args = vec!["build", "--profile", profile];
    for package in BINARIES {
        args.extend(["--package", package]);
    }
    sh::run(&mut sh::cargo(&args))?;
    sh::run(&mut sh::cargo(&[
        "build",
        "--profile",
        profile,
        "--package",
        COMPILER,
    ]))
}

/// Options alone are those of `quintet run`; nothing at all is the demo.
fn arguments(args: &[String], display: bool) -> Vec<String> {
    let mut all = args.to_vec();
    if all.first().is_some_and(|a| !a.starts_with('-')) {
        return all;
    }
    if all.is_empty() {
        all.extend(["--serial".into(), "stdio".into()]);
    }
    all.insert(0, "run".into());
    if !display && !all.iter().any(|a| a == "--headless") {
        all.insert(1, "--headless".into());
    }
    all
}

/// Builds and starts quintet with `args`.
///
/// # Errors
/// A [`Failure`] when something is missing or the build fails.
pub fn run(args: &[String]) -> Result<ExitCode, Failure> {
    packages::for_build()?;
    build("release")?;
    let display = ["WAYLAND_DISPLAY", "DISPLAY"]
        .into_iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if display {
        packages::for_window()?;
    } else {
        eprintln!("xtask: no display here: running headless, with the first serial port on this terminal");
    }
    let program = sh::target().join("release/quintet");
    let status = Command::new(&program)
        .args(arguments(args, display))
        .status()
        .map_err(|e| Failure::new(format!("cannot run {}: {e}", program.display())))?;
    Ok(status
        .code()
        .and_then(|c| u8::try_from(c).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(args: &[&str]) -> String {
        arguments(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(), false).join(" ")
    }

    #[test]
    fn nothing_is_the_demo_and_options_are_those_of_run() {
        assert_eq!(given(&[]), "run --headless --serial stdio");
        assert_eq!(given(&["--kernel", "k"]), "run --headless --kernel k");
        assert_eq!(given(&["--headless", "--ram", "1G"]), "run --headless --ram 1G");
        assert_eq!(given(&["ps"]), "ps");
        assert_eq!(arguments(&[], true).join(" "), "run --serial stdio");
    }
}
