//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, one after another (docs/fuzzing.md).
//!
//! The toolchain is the usual one: what cargo-fuzz wants of a nightly compiler are flags, which a variable unlocks.
//! Inputs that a run finds are kept in the target folder; the corpus in the repository changes only by `--keep`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use crate::sh::{self, Failure};

const USAGE: &str = "\
Usage: cargo xtask fuzz [TARGET…] [--seconds N] [--sanitizer NAME]
       cargo xtask fuzz TARGET --replay FILE
       cargo xtask fuzz [TARGET…] --keep

  --seconds N       how long each target runs, 60 without
  --sanitizer NAME  address without; none is faster
  --replay FILE     give the target one input
  --keep            add inputs found by earlier runs that reach new code to the corpus in the repository";

/// Where the package of the targets lies.
const FOLDER: &str = "tests/fuzz";
/// Seconds that a target runs.
const SECONDS: u64 = 60;
/// Seconds after which one input is called a hang.
const HANG: u64 = 60;
/// Longest input in bytes: a sequence of some hundred accesses.
const LONGEST: u64 = 4096;
/// Longest input that is kept, in bytes, so that the corpus stays small.
const KEPT: u64 = 1024;

/// What is asked for.
struct Order {
    targets: Vec<String>,
    seconds: u64,
    sanitizer: String,
    replay: Option<PathBuf>,
    keep: bool,
}

/// Names of all targets, sorted.
fn targets() -> Result<Vec<String>, Failure> {
    let tree = sh::tree()?;
    let programs = tree
        .iter()
        .filter(|path| path.starts_with(Path::new(FOLDER).join("fuzz_targets")));
    let names = programs.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    Ok(names.collect())
}

fn parse(args: &[String], known: &[String]) -> Result<Order, Failure> {
    let mut order = Order {
        targets: Vec::new(),
        seconds: SECONDS,
        sanitizer: "address".into(),
        replay: None,
        keep: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || {
            let missing = || Failure::new(format!("{arg} needs a value\n\n{USAGE}"));
            args.next().cloned().ok_or_else(missing)
        };
        match arg.as_str() {
            "--seconds" => {
                let text = value()?;
                let seconds = text.parse().ok().filter(|n| *n > 0);
                order.seconds = seconds
                    .ok_or_else(|| Failure::new(format!("--seconds {text}: not a number of seconds")))?;
            }
            "--sanitizer" => order.sanitizer = value()?,
            "--replay" => order.replay = Some(value()?.into()),
            "--keep" => order.keep = true,
            name if known.iter().any(|n| n == name) => order.targets.push(name.to_owned()),
            other => {
                let names = known.join(", ");
                return Err(Failure::new(format!(
                    "no target {other:?}; there are {names}\n\n{USAGE}"
                )));
            }
        }
    }
    if order.replay.is_some() && order.targets.len() != 1 {
        return Err(Failure::new(
            "--replay needs the one target that the input is for",
        ));
    }
    if order.targets.is_empty() {
        order.targets = known.to_vec();
    }
    Ok(order)
}

/// `cargo fuzz run TARGET …`, to which libFuzzer's own arguments can be added.
fn command(order: &Order, target: &str, inputs: &[&Path]) -> Command {
    let mut command = sh::cargo(&["fuzz", "run", "--fuzz-dir", FOLDER]);
    command.args(["--sanitizer", &order.sanitizer, target]);
    command
        .args(inputs)
        .arg("--")
        .arg(format!("-timeout={HANG}"))
        .arg("-rss_limit_mb=4096")
        .env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Inputs found by runs here.
fn found(target: &str) -> PathBuf {
    sh::root().join(FOLDER).join("target/corpus").join(target)
}

/// The corpus in the repository.
fn kept(target: &str) -> PathBuf {
    sh::root().join(FOLDER).join("corpus").join(target)
}

/// Files below the target's artifacts that are newer than `since`.
fn findings(target: &str, since: SystemTime) -> Vec<PathBuf> {
    let folder = Path::new(FOLDER).join("artifacts").join(target);
    let entries = std::fs::read_dir(sh::root().join(&folder));
    let is_new = |entry: &std::fs::DirEntry| {
        let changed = entry.metadata().and_then(|m| m.modified());
        changed.is_ok_and(|at| at >= since)
    };
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(is_new)
        .map(|entry| folder.join(entry.file_name()))
        .collect()
}

fn run_one(order: &Order, target: &str) -> Result<(), Failure> {
    let (found, kept) = (found(target), kept(target));
    let fail = |e: std::io::Error| Failure::new(format!("{}: {e}", found.display()));
    std::fs::create_dir_all(&found).map_err(fail)?;
    let began = SystemTime::now();
    let mut command = command(order, target, &[&found, &kept]);
    command
        .arg(format!("-max_total_time={}", order.seconds))
        .arg(format!("-max_len={LONGEST}"))
        .arg("-print_final_stats=1");
    sh::run(&mut command).map_err(|failure| {
        let mut text = format!("{target}: {failure}");
        for file in findings(target, began) {
            text += &format!(
                "\n  a finding; again with: cargo xtask fuzz {target} --replay {}",
                file.display()
            );
        }
        Failure::new(text)
    })
}

/// Adds what was found and is short to the corpus, as far as it reaches code that the corpus does not.
fn keep(order: &Order, target: &str) -> Result<(), Failure> {
    let (found, kept) = (found(target), kept(target));
    if !found.is_dir() {
        return Ok(());
    }
    let mut command = command(order, target, &[&kept, &found]);
    sh::run(command.arg("-merge=1").arg(format!("-max_len={KEPT}")))
}

/// Runs the targets that are named, or all; the others go on when one finds something.
///
/// # Errors
/// A [`Failure`] that names what was found, and how to see it again.
pub fn fuzz(args: &[String]) -> Result<ExitCode, Failure> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let order = parse(args, &targets()?)?;
    if !sh::has("cargo-fuzz") {
        return Err(Failure::new(
            "cargo-fuzz is not installed; type: cargo install cargo-fuzz --locked",
        ));
    }
    if let Some(file) = &order.replay {
        sh::run(&mut command(&order, &order.targets[0], &[file]))?;
        return Ok(ExitCode::SUCCESS);
    }
    let count = order.targets.len();
    let mut failures = Vec::new();
    for (n, target) in order.targets.iter().enumerate() {
        eprintln!("xtask: fuzz {target}, {} of {count}", n + 1);
        let done = match order.keep {
            true => keep(&order, target),
            false => run_one(&order, target),
        };
        if let Err(failure) = done {
            eprintln!("xtask: {failure}");
            failures.push(failure.to_string());
        }
    }
    if failures.is_empty() {
        eprintln!("xtask: {count} targets, no finding");
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(failures.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(words: &[&str]) -> Result<Order, Failure> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&words, &["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn every_target_runs_unless_some_are_named() {
        assert_eq!(order(&[]).expect("an order").targets, ["a", "b"]);
        let order = order(&["b", "--seconds", "5"]).expect("an order");
        assert_eq!(
            (order.targets.as_slice(), order.seconds),
            (&["b".to_owned()][..], 5)
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (words, part) in [
            (&["c"][..], "no target \"c\"; there are a, b"),
            (&["--seconds"], "needs a value"),
            (&["--seconds", "x"], "not a number"),
            (&["--replay", "f"], "the one target"),
        ] {
            let error = order(words).map(|_| ()).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_programs_of_the_repository_are_found() {
        let names = targets().expect("a tree");
        assert!(names.iter().any(|name| name == "devices"), "{names:?}");
    }
}
