//! `cargo xtask bench`: the same guest under several PC emulators, side by side in one run and timed from outside.
//!
//! Rounds interleave the engines, so that a host that becomes slower hits all of them. No guest clock is trusted: wall
//! seconds are the host's between two marks on the serial line, CPU seconds those of all the engine's processes over the
//! same stretch.

mod disk;
mod display;
mod engine;
mod guest;
mod measure;
mod options;
mod plot;
mod procfs;
mod report;
mod stats;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::sh::{self, Failure};
use crate::{packages, run};
use engine::{Engine, Setup};
use measure::{Run, Watch};
use options::{Given, Options};

/// Measures what `args` ask for ([`options::HELP`]).
///
/// # Errors
/// A [`Failure`] when nothing can be measured, an engine does not get to the end, or two compute different things.
pub fn bench(args: &[String]) -> Result<ExitCode, Failure> {
    match args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("disk", rest)) => return disk::disk(rest),
        Some(("display", rest)) => return display::display(rest),
        _ => {}
    }
    let options = match Options::parse(args)? {
        Given::Help => {
            print!("{}", options::HELP);
            return Ok(ExitCode::SUCCESS);
        }
        Given::List => {
            for piece in guest::PIECES {
                println!("{:<10} {}", piece.name, piece.what);
            }
            return Ok(ExitCode::SUCCESS);
        }
        Given::Run(options) => options,
    };
    let ours = options.engines.iter().any(|e| e.is_ours());
    let quintet = quintet(options.quintet.as_deref(), ours)?;
    let engines = usable(&options, &quintet)?;
    let files = guest::prepare(options.bits)?;
    let setup = Setup {
        bits: options.bits,
        ram: options.ram,
        append: guest::append(&options.only, options.scale),
        quintet,
        files,
        disk: None,
    };
    let how = Watch {
        log: options.log.as_deref(),
        timeout: options.timeout,
    };
    let mut runs: Vec<Run> = Vec::new();
    let total = engines.len() * options.rounds;
    for round in 1..=options.rounds {
        for engine in &engines {
            let title = format!("[{}/{total}] {}", runs.len() + 1, engine.name());
            let run = measure::run(*engine, &setup, round, &how, &title)?;
            eprintln!("{title}: {}", run.outcome_line());
            runs.push(run);
        }
    }
    let report = report::Report::new(&engines, &options, &runs);
    let table = report.markdown(&host(&engines));
    print!("{table}");
    let outputs = [
        (&options.markdown, table),
        (&options.json, report.json(&host(&engines))),
        (&options.svg, plot::svg(&report)),
    ];
    for (path, text) in outputs {
        if let Some(path) = path {
            sh::write(path, text.as_bytes())?;
        }
    }
    verdict(&report, &runs)
}

/// What was wrong, if anything.
fn verdict(report: &report::Report<'_>, runs: &[Run]) -> Result<ExitCode, Failure> {
    let differing = report.differing();
    if !differing.is_empty() {
        let names = differing.join(", ");
        return Err(Failure::new(format!(
            "the engines computed different things: {names}"
        )));
    }
    if let Some(run) = runs.iter().find(|run| !run.done) {
        let line = run.outcome_line();
        return Err(Failure::new(format!(
            "{} did not finish: {line}",
            run.engine.name()
        )));
    }
    Ok(ExitCode::SUCCESS)
}

/// The program to measure: the one named, or a release, built now if it is `wanted`.
fn quintet(named: Option<&Path>, wanted: bool) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        if path.is_file() {
            return Ok(path.to_owned());
        }
        return Err(Failure::new(format!("{}: no such program", path.display())));
    }
    if wanted {
        packages::for_build()?;
        run::build("release")?;
    }
    Ok(sh::target().join("release/quintet"))
}

/// Those of the engines asked for that are there; of each other one it is said why not.
fn usable(options: &Options, quintet: &Path) -> Result<Vec<Engine>, Failure> {
    let mut engines = Vec::new();
    for engine in &options.engines {
        match engine.missing(options.bits, quintet) {
            None => engines.push(*engine),
            Some(why) => eprintln!("xtask: {} is skipped: {why}", engine.name()),
        }
    }
    if engines.is_empty() {
        return Err(Failure::new("no engine is left to measure"));
    }
    Ok(engines)
}

/// Versions and the host, for the head of the report.
fn host(engines: &[Engine]) -> Vec<(String, String)> {
    let mut facts = vec![("host".to_owned(), procfs::host())];
    for engine in engines {
        if let Some(version) = engine.version() {
            facts.push((engine.name().to_owned(), version));
        }
    }
    facts
}

/// Gives each option and its value to `take`, which answers whether it knows it. False when help is asked for.
///
/// # Errors
/// A [`Failure`] that names the word.
fn options_of(
    args: &[String],
    mut take: impl FnMut(&str, &str) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--help" {
            return Ok(false);
        }
        let value = words
            .next()
            .ok_or_else(|| Failure::new(format!("{word}: a value is missing")))?;
        if !take(word, value)? {
            return Err(Failure::new(format!("{word} is not known; --help tells more")));
        }
    }
    Ok(true)
}

/// The program to measure, once all `engines` are there.
///
/// # Errors
/// A [`Failure`] that names the one that is missing.
fn quintet_beside(given: Option<&Path>, engines: &[Engine]) -> Result<PathBuf, Failure> {
    let quintet = quintet(given, true)?;
    match engines.iter().find_map(|e| e.missing(64, &quintet)) {
        Some(why) => Err(Failure::new(why)),
        None => Ok(quintet),
    }
}
