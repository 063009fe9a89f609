//! `cargo xtask test`: builds what is needed and runs every test.

use std::process::ExitCode;

use crate::sh::{self, Failure};
use crate::{kernels, packages, run};

/// Optimised as a release, checked as a debug build.
const PROFILE: &str = "test-fast";

/// Runs doc tests and model checks, then all others, so that the last line is the runner's.
///
/// # Errors
/// A [`Failure`] when something is missing, does not build or does not pass.
pub fn test(args: &[String]) -> Result<ExitCode, Failure> {
    let long = args.iter().any(|a| a == "--long");
    let filters: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|a| *a != "--long")
        .collect();
    packages::for_tests()?;
    let mut variables: Vec<(&str, std::ffi::OsString)> = Vec::new();
    match kernels::prepare(long) {
        Ok(guests) => variables.extend(guests),
        Err(failure) if sh::in_ci() => return Err(failure),
        Err(failure) => eprintln!("xtask: no guest kernels, tests that need them will skip: {failure}"),
    }
    run::build(PROFILE)?;
    variables.push(("QUINTET_BIN_DIR", sh::target().join(PROFILE).into()));
    if long {
        variables.push(("QUINTET_LONG", "1".into()));
        // What a machine costs its host is a question about the release build.
        run::build("release")?;
        variables.push(("QUINTET_RELEASE_DIR", sh::target().join("release").into()));
    }
    if filters.is_empty() {
        let mut command = sh::cargo(&[
            "test",
            "--quiet",
            "--workspace",
            "--exclude",
            run::COMPILER,
            "--doc",
            "--profile",
            PROFILE,
        ]);
        sh::run(command.envs(variables.clone()))?;
        models()?;
        translated()?;
    }
    // The compiler's tests by a call of their own, for the sake of features; first, since they are few.
    let compiler = ["--package", run::COMPILER];
    let others = ["--workspace", "--exclude", run::COMPILER];
    runner(&compiler, long, &filters, &variables)?;
    runner(&others, long, &filters, &variables)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the tests of some packages.
fn runner(
    packages: &[&str],
    long: bool,
    filters: &[&str],
    variables: &[(&str, std::ffi::OsString)],
) -> Result<(), Failure> {
    let nextest = sh::has("cargo-nextest");
    let mut command = if nextest {
        sh::cargo(&[
            "nextest",
            "run",
            // A filter may name tests of the other call only.
            "--no-tests",
            if filters.is_empty() { "fail" } else { "pass" },
            "--cargo-profile",
            PROFILE,
            "--no-fail-fast",
        ])
    } else {
        sh::cargo(&[
            "test",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
            "--profile",
            PROFILE,
        ])
    };
    command.args(packages);
    match (nextest, long) {
        (true, true) => drop(
            command
                .args(["--profile", "long", "--run-ignored", "all"])
                .args(filters),
        ),
        (true, false) => drop(command.args(filters)),
        (false, true) => drop(command.args(filters).args(["--", "--include-ignored"])),
        (false, false) => drop(command.args(filters)),
    }
    sh::run(command.envs(variables.iter().map(|(name, value)| (name, value))))
}

/// The processor's tests by guest code once more, every block translated at its first execution; the run with all others
/// interprets them.
fn translated() -> Result<(), Failure> {
    let args = [
        "test",
        "--quiet",
        // Of the whole workspace, so that nothing is built a second time with other features.
        "--workspace",
        "--exclude",
        run::COMPILER,
        "--test",
        "processor",
        "--profile",
        PROFILE,
    ];
    sh::run(sh::cargo(&args).env("QUINTET_TEST_ACCEL", "jit"))
}

/// The tests for the model checker, `protocol/tests/loom_*.rs`: they exist only under `cfg(loom)`, with which nothing
/// else is to be built.
fn models() -> Result<(), Failure> {
    let to = sh::target().join("loom").to_string_lossy().into_owned();
    let mut args = vec![
        "test",
        "--quiet",
        "--package",
        "protocol",
        "--profile",
        PROFILE,
        "--target-dir",
        &to,
    ];
    let tree = sh::tree()?;
    let names: Vec<&str> = tree
        .iter()
        .filter(|path| path.starts_with("protocol/tests"))
        .filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".rs"))
        .filter(|name| name.starts_with("loom_"))
        .collect();
    for name in names {
        args.extend(["--test", name]);
    }
    sh::run(sh::cargo(&args).env("RUSTFLAGS", "--cfg loom"))
}
