//! `--help`, the man pages and the manual have the same commands and options.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::harness::mistakes::Files;
use crate::harness::{quintet, run_to_end};
use crate::modules::text;
use crate::{all_commands, listed};

fn help(words: &[&str]) -> String {
    let output = Command::new(quintet())
        .args(words)
        .arg("--help")
        .output()
        .expect("quintet");
    assert_eq!(output.status.code(), Some(0), "{words:?}");
    text(&output)
}

/// The names of options at the beginnings of lines, and ARGS.
fn options(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let line = line.trim_start();
        if line.starts_with("[ARGS]") || line.starts_with("[<ARGS>]") {
            return Some("ARGS".to_owned());
        }
        // `--name`, or `-n, --name`; `- value: …` is a value's meaning.
        let (short, long) = line.split_once("--")?;
        if !(short.is_empty() || short.len() == 4 && short.ends_with(", ")) {
            return None;
        }
        let end = long.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        Some(long[..end.unwrap_or(long.len())].to_owned())
    };
    text.lines()
        .filter_map(name)
        .filter(|n| n != "help" && n != "version")
        .collect()
}

/// A man page without its markup.
fn plain(roff: &str) -> String {
    let mut text = roff.replace("\\-", "-").replace("\\*(Aq", "'");
    for mark in ["\\fB", "\\fI", "\\fR"] {
        text = text.replace(mark, "");
    }
    text
}

#[test]
fn help_the_man_pages_and_the_manual_have_the_same_commands_and_options() {
    let dir = Files::new("manual");
    let man = format!("{}/man", dir.path());
    assert_eq!(run_to_end(&["generate", "--man", &man]).status.code(), Some(0));
    let page = |name: &str| {
        let path = Path::new(&man).join(name);
        plain(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    };

    let overview = help(&[]);
    let of_help: BTreeSet<String> = overview
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    let main = page("quintet.1");
    let of_man: BTreeSet<String> = main
        .lines()
        .filter_map(|line| line.strip_prefix("quintet-")?.strip_suffix("(1)"))
        .map(str::to_owned)
        .collect();
    assert_eq!(of_help, all_commands());
    assert_eq!(of_man, all_commands());
    for what in [&overview, &main] {
        let words = what.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("124 time limit"), "no exit statuses in {what}");
    }

    for command in all_commands() {
        let wanted = listed(&command);
        let of_help = help(&[&command]);
        assert_eq!(options(&of_help), wanted, "quintet {command} --help");
        let of_man = page(&format!("quintet-{command}.1"));
        // Behind the synopsis, which has them all in one line.
        let described = of_man.split(".SH OPTIONS").nth(1).unwrap_or_default();
        assert_eq!(options(described), wanted, "quintet-{command}(1)");
        // The same is said of each: the words of the first line of what help says.
        let words = of_man.split_whitespace().collect::<Vec<_>>().join(" ");
        let about = of_help.lines().next().unwrap_or_default();
        assert!(words.contains(about), "{about:?} is not in quintet-{command}(1)");
    }
}

#[test]
fn a_command_that_does_not_exist_has_status_1() {
    for words in [
        &["frob"][..],
        &["status"],
        &["run", "--frob"],
        &["quit", "a", "b"],
    ] {
        assert_eq!(run_to_end(words).status.code(), Some(1), "{words:?}");
    }
}
