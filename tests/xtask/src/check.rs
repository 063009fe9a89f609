//! `cargo xtask check`: what is judged without running anything of ours. Installs nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::packages;
use crate::sh::{self, Failure};

/// The most lines a source file may have, tests included.
const MOST_LINES: usize = 700;

type Check = fn() -> Result<(), Failure>;

/// Runs every check and reports all that fail. With `--bless`, docs/unsafe.md is rewritten first.
///
/// # Errors
/// A [`Failure`] with the names of those that failed.
pub fn check(args: &[String]) -> Result<ExitCode, Failure> {
    if args.iter().any(|a| a == "--bless") {
        sh::write(&sh::root().join(UNSAFE_LIST), unsafe_list()?.as_bytes())?;
    }
    let checks: [(&str, Check); 8] = [
        ("packages", packages::build_has_all),
        ("sizes", sizes),
        ("unsafe", unsafe_modules),
        ("links", links),
        ("format", format),
        ("clippy", clippy),
        ("rustdoc", rustdoc),
        ("deny", deny),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        eprintln!("xtask: check {name}");
        if let Err(failure) = check() {
            eprintln!("xtask: {name}: {failure}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        eprintln!("xtask: all checks passed");
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new(format!("failed: {}", failed.join(", "))))
    }
}

fn format() -> Result<(), Failure> {
    sh::run(&mut sh::cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<(), Failure> {
    sh::run(&mut sh::cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn rustdoc() -> Result<(), Failure> {
    let mut command = sh::cargo(&[
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    sh::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny() -> Result<(), Failure> {
    if !sh::has("cargo-deny") {
        eprintln!("xtask: cargo-deny is not installed: licences and advisories are not checked");
        return Ok(());
    }
    sh::run(&mut sh::cargo(&["deny", "check", "licenses", "bans", "sources"]))
}

fn is_source(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e == "rs" || e == "S" || e == "inc" || e == "sh")
}

/// Fails `problems` unless there are none.
fn none(problems: &[String]) -> Result<(), Failure> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(problems.join("\n  ")))
    }
}

/// No source file is longer than a head holds.
fn sizes() -> Result<(), Failure> {
    let mut long = Vec::new();
    for path in sh::tree()?.iter().filter(|p| is_source(p)) {
        let lines = sh::read(&sh::root().join(path))?.lines().count();
        if lines > MOST_LINES {
            long.push(format!(
                "{} has {lines} lines, {MOST_LINES} are the most",
                path.display()
            ));
        }
    }
    none(&long)
}

const UNSAFE_LIST: &str = "docs/unsafe.md";

/// The modules that allow `unsafe`, by path, with their reasons.
fn unsafe_reasons() -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    for path in sh::tree()?
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
    {
        if path.starts_with("tests/xtask") {
            continue; // this file speaks of the attribute
        }
        let text = sh::read(&sh::root().join(path))?;
        for reason in allowed_unsafe(&text) {
            found.insert(path.display().to_string(), reason);
        }
    }
    Ok(found)
}

/// The reasons of all attributes that allow `unsafe_code`, inner or outer, on one line or several.
fn allowed_unsafe(text: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    for start in ["#![allow(", "#[allow(", "#![expect(", "#[expect("] {
        for (_, rest) in text
            .match_indices(start)
            .map(|(at, s)| (at, &text[at + s.len()..]))
        {
            let attribute = rest.split(")]").next().unwrap_or_default();
            if attribute.contains("unsafe_code") {
                let reason = attribute
                    .split_once("reason")
                    .and_then(|(_, r)| r.split('"').nth(1));
                let words = reason
                    .unwrap_or("no reason given")
                    .split_whitespace()
                    .collect::<Vec<_>>();
                reasons.push(words.join(" "));
            }
        }
    }
    reasons
}

fn unsafe_list() -> Result<String, Failure> {
    let mut text = String::from(
        "# Modules that may use `unsafe`\n\n\
         `unsafe_code` is denied in every crate; these modules allow it, each for the reason its first lines give.\n\
         `cargo xtask check` compares this list with the tree, `cargo xtask check --bless` rewrites it.\n\n\
         | module | reason |\n|---|---|\n",
    );
    for (path, reason) in unsafe_reasons()? {
        let _ = writeln!(text, "| `{path}` | {reason} |");
    }
    Ok(text)
}

fn unsafe_modules() -> Result<(), Failure> {
    let listed = sh::read(&sh::root().join(UNSAFE_LIST)).unwrap_or_default();
    let fresh = unsafe_list()?;
    let rows = |text: &str| {
        text.lines()
            .filter(|l| l.starts_with("| `"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (listed, fresh) = (rows(&listed), rows(&fresh));
    let missing = fresh
        .iter()
        .filter(|row| !listed.contains(row))
        .map(|row| format!("not listed: {row}"));
    let stale = listed
        .iter()
        .filter(|row| !fresh.contains(row))
        .map(|row| format!("not in the tree: {row}"));
    let mut problems: Vec<String> = missing.chain(stale).collect();
    if !problems.is_empty() {
        problems.push("cargo xtask check --bless rewrites docs/unsafe.md".into());
    }
    none(&problems)
}

/// Every relative link of a page leads to a file.
fn links() -> Result<(), Failure> {
    let mut broken = Vec::new();
    for path in sh::tree()?
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
    {
        let text = sh::read(&sh::root().join(path))?;
        for target in link_targets(&text) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let from = path.parent().unwrap_or(Path::new(""));
            if !sh::root().join(from).join(file).exists() {
                broken.push(format!("{}: no {target}", path.display()));
            }
        }
    }
    none(&broken)
}

/// Targets of `[text](target)` outside code blocks.
fn link_targets(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        // What stands between backticks is no link.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        for (at, _) in prose.match_indices("](") {
            if let Some((target, _)) = prose[at + 2..].split_once(')') {
                targets.push(target.split(' ').next().unwrap_or_default().to_owned());
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_over_several_lines_are_found() {
        let text =
            "#![allow(\n    unsafe_code,\n    reason = \"a b\"\n)]\n#[allow(dead_code, reason = \"c\")]\n";
        assert_eq!(allowed_unsafe(text), ["a b"]);
    }

    #[test]
    fn links_in_code_are_none() {
        let text = "see [a](x.md#y) and `[b](z)`\n```\n[c](w)\n```\n[d](https://e.org/)";
        assert_eq!(link_targets(text), ["x.md#y", "https://e.org/"]);
    }
}
