//! Which crates are in the programs, and under which licences.
//!
//! Cargo says what a program is linked from, and each crate in the registry's sources has its texts beside it. `cargo-about` does the
//! same from outside; it would be one more program to install for a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

use crate::run;
use crate::sh::{self, Failure};

/// A crate that a program is linked from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    name: String,
    version: String,
    licence: String,
    authors: Vec<String>,
    source: String,
    /// Where its texts are; empty when they are not on this host.
    folder: PathBuf,
}

/// Licences that ask for nothing to be handed on with a program, so that their text need not be found.
const WITHOUT_CONDITIONS: [&str; 3] = ["0BSD", "CC0-1.0", "Unlicense"];

/// The product's version and the crates of others in it, sorted.
///
/// # Errors
/// A [`Failure`] when cargo cannot say, or a crate says no licence.
pub fn crates() -> Result<(String, Vec<Crate>), Failure> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let text = sh::output(&mut sh::cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        &target,
    ]))?;
    let metadata: Value =
        serde_json::from_str(&text).map_err(|e| Failure::new(format!("cargo metadata: {e}")))?;
    let roots = run::BINARIES.into_iter().chain([run::COMPILER]);
    let (version, mut crates) = linked(&metadata, &roots.collect::<Vec<_>>())?;
    crates.push(standard_library()?);
    Ok((version, crates))
}

/// What every program contains, and cargo does not list.
fn standard_library() -> Result<Crate, Failure> {
    let rustc = sh::output(Command::new("rustc").arg("--version").current_dir(sh::root()))?;
    Ok(Crate {
        name: "std".into(),
        version: rustc.split_whitespace().nth(1).unwrap_or_default().to_owned(),
        licence: "MIT OR Apache-2.0".into(),
        authors: vec!["The Rust Project Developers".into()],
        source: "https://github.com/rust-lang/rust".into(),
        folder: PathBuf::new(),
    })
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// What the packages `roots` are linked from: dependencies that are not for tests or for building alone, and no macros, which run
/// in the compiler.
fn linked(metadata: &Value, roots: &[&str]) -> Result<(String, Vec<Crate>), Failure> {
    let packages: BTreeMap<String, &Value> = array(metadata, "packages")
        .iter()
        .map(|package| (text(package, "id"), package))
        .collect();
    let nodes: BTreeMap<String, &Value> = array(&metadata["resolve"], "nodes")
        .iter()
        .map(|node| (text(node, "id"), node))
        .collect();
    let is_macro = |package: &Value| {
        array(package, "targets")
            .iter()
            .any(|target| array(target, "kind").iter().any(|kind| kind == "proc-macro"))
    };
    let mut version = String::new();
    let mut todo = Vec::new();
    for root in roots {
        let found = packages.iter().find(|(_, package)| package["name"] == *root);
        let (id, package) = found.ok_or_else(|| Failure::new(format!("cargo knows no package {root}")))?;
        version = text(package, "version");
        todo.push(id.clone());
    }
    let mut seen = BTreeSet::new();
    let mut crates = BTreeSet::new();
    while let Some(id) = todo.pop() {
        let Some(package) = packages.get(&id).filter(|package| !is_macro(package)) else {
            continue;
        };
        if !seen.insert(id.clone()) {
            continue;
        }
        // Those of the workspace have no source.
        if !package["source"].is_null() {
            crates.insert(of(package)?);
        }
        for dependency in nodes.get(&id).map_or(&[][..], |node| array(node, "deps")) {
            // A kind of null is the ordinary one.
            if array(dependency, "dep_kinds")
                .iter()
                .any(|kind| kind["kind"].is_null())
            {
                todo.push(text(dependency, "pkg"));
            }
        }
    }
    Ok((version, crates.into_iter().collect()))
}

fn of(package: &Value) -> Result<Crate, Failure> {
    let (name, licence) = (text(package, "name"), text(package, "license"));
    if licence.is_empty() {
        return Err(Failure::new(format!("the crate {name} does not say its licence")));
    }
    let manifest = PathBuf::from(text(package, "manifest_path"));
    Ok(Crate {
        version: text(package, "version"),
        authors: array(package, "authors")
            .iter()
            .filter_map(|author| author.as_str().map(str::to_owned))
            .collect(),
        source: text(package, "repository"),
        folder: manifest.parent().unwrap_or(Path::new("/")).to_owned(),
        name,
        licence,
    })
}

/// The list with the texts behind it, each text once.
///
/// # Errors
/// A [`Failure`] that names the crate whose licence deny.toml does not allow, or whose text is nowhere.
pub fn list(crates: &[Crate]) -> Result<String, Failure> {
    let allowed = allowed(&sh::read(&sh::root().join("deny.toml"))?);
    let mut own: Vec<Vec<String>> = Vec::new();
    for each in crates {
        check(each, &allowed)?;
        let elsewhere = each.folder.as_os_str().is_empty();
        own.push(if elsewhere {
            Vec::new()
        } else {
            texts(&each.folder)?
        });
    }
    // Where a crate lacks its text, that of the same licence from another crate stands in.
    let standard = standard(crates, &own);
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut number = |text: &str| {
        *numbers.entry(text.to_owned()).or_insert_with(|| {
            order.push(text.to_owned());
            order.len()
        })
    };
    let mut head = String::from(
        "Quintet's programs contain these crates. Behind each stand its licence in SPDX's words and the numbers of the texts below.\n\n",
    );
    for (each, mut texts) in crates.iter().zip(own) {
        let mut note = String::new();
        if texts.is_empty() {
            match lent(&each.licence, &standard) {
                Lent::Text(text) => {
                    let authors = each.authors.join(", ");
                    note = format!(
                        "; copyright: its authors{}{authors}",
                        if authors.is_empty() { "" } else { ", " }
                    );
                    texts.push(anonymous(text));
                }
                Lent::NotNeeded(name) => note = format!("; https://spdx.org/licenses/{name}.html"),
                Lent::Nowhere => {
                    return Err(Failure::new(format!(
                        "the text of the licence {} of the crate {} is nowhere",
                        each.licence, each.name
                    )));
                }
            }
        }
        let numbers: Vec<String> = texts.iter().map(|text| number(text).to_string()).collect();
        let _ = writeln!(
            head,
            "{} {}: {} [{}]{note}\n    {}",
            each.name,
            each.version,
            each.licence,
            numbers.join(", "),
            each.source
        );
    }
    for (n, text) in order.iter().enumerate() {
        let _ = write!(head, "\n{:=<78}\n[{}]\n\n{}\n", "", n + 1, text.trim_end());
    }
    Ok(head)
}

/// The names that deny.toml allows, one in quotes a line behind `allow = [`.
fn allowed(deny: &str) -> Vec<String> {
    let list = deny.split_once("allow = [").map_or("", |(_, rest)| rest);
    list.lines()
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| line.split('"').nth(1).map(str::to_owned))
        .collect()
}

fn parse(licence: &str) -> Option<Expression> {
    Expression::parse_mode(licence, ParseMode::LAX).ok()
}

fn check(each: &Crate, allowed: &[String]) -> Result<(), Failure> {
    let expression = parse(&each.licence).ok_or_else(|| {
        Failure::new(format!(
            "the crate {} says the licence {:?}, which is none",
            each.name, each.licence
        ))
    })?;
    if expression.evaluate(|one| allowed.contains(&one.to_string())) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the crate {} is under {}, which deny.toml does not allow",
        each.name, each.licence
    )))
}

/// The texts of licences and notices in a crate's folder.
fn texts(folder: &Path) -> Result<Vec<String>, Failure> {
    let fail = |e: std::io::Error| Failure::new(format!("{}: {e}", folder.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let words = ["licen", "copying", "notice", "copyright"];
        if path.is_file() && words.iter().any(|word| name.contains(word)) {
            found.push((name, String::from_utf8_lossy(&sh::bytes(&path)?).into_owned()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, text)| text).collect())
}

/// For each licence that stands alone over a crate with one text, that text.
fn standard(crates: &[Crate], texts: &[Vec<String>]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (each, texts) in crates.iter().zip(texts) {
        if let ([text], Some(expression)) = (texts.as_slice(), parse(&each.licence)) {
            let mut names = expression.requirements().map(|one| one.req.to_string());
            if let (Some(name), None) = (names.next(), names.next()) {
                found.entry(name).or_insert_with(|| text.clone());
            }
        }
    }
    found
}

/// A short licence without the line that says whose the crate is that lends it.
fn anonymous(text: &str) -> String {
    let whose = |line: &&str| line.starts_with("Copyright ");
    text.lines()
        .filter(|line| !whose(line))
        .flat_map(|line| [line, "\n"])
        .collect()
}

enum Lent<'a> {
    /// This one, of another crate.
    Text(&'a str),
    /// The licence of this name asks for none.
    NotNeeded(String),
    Nowhere,
}

/// A text that satisfies `licence`, from the licences whose texts are known.
fn lent<'a>(licence: &str, standard: &'a BTreeMap<String, String>) -> Lent<'a> {
    let Some(expression) = parse(licence) else {
        return Lent::Nowhere;
    };
    let names: Vec<String> = expression.requirements().map(|one| one.req.to_string()).collect();
    let satisfies = |name: &String| expression.evaluate(|one| one.to_string() == *name);
    let known = names
        .iter()
        .filter(|name| satisfies(name))
        .find_map(|name| standard.get(name));
    match known {
        Some(text) => Lent::Text(text),
        None => names
            .into_iter()
            .find(|name| satisfies(name) && WITHOUT_CONDITIONS.contains(&name.as_str()))
            .map_or(Lent::Nowhere, Lent::NotNeeded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(licence: &str) -> Crate {
        Crate {
            name: "frob".into(),
            version: "1.0.0".into(),
            licence: licence.into(),
            authors: vec![],
            source: String::new(),
            folder: PathBuf::new(),
        }
    }

    #[test]
    fn one_of_several_licences_is_enough_and_both_of_two_are_needed() {
        let allowed = ["MIT".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
        for good in [
            "MIT",
            "GPL-3.0-only OR MIT",
            "Apache-2.0/MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            check(&with(good), &allowed).expect(good);
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "Apache-2.0", "no such"] {
            let error = check(&with(bad), &allowed).expect_err(bad).to_string();
            assert!(error.contains("frob"), "{error}");
        }
    }

    #[test]
    fn the_list_of_what_is_allowed_is_denys() {
        let allowed = allowed(&sh::read(&sh::root().join("deny.toml")).expect("deny.toml"));
        assert!(allowed.contains(&"MIT".to_owned()) && allowed.contains(&"Unicode-3.0".to_owned()));
        assert!(!allowed.iter().any(|name| name.contains("deny")), "{allowed:?}");
    }

    #[test]
    fn a_text_is_lent_by_the_same_licence_or_is_not_needed_or_missed() {
        let standard = BTreeMap::from([("MIT".to_owned(), "permission".to_owned())]);
        assert!(matches!(
            lent("Apache-2.0 OR MIT", &standard),
            Lent::Text("permission")
        ));
        assert!(matches!(lent("Apache-2.0 AND MIT", &standard), Lent::Nowhere));
        assert!(matches!(lent("CC0-1.0", &standard), Lent::NotNeeded(name) if name == "CC0-1.0"));
        assert!(matches!(lent("BSD-3-Clause", &standard), Lent::Nowhere));
    }

    #[test]
    fn who_lends_a_text_is_not_named_in_it() {
        assert_eq!(
            anonymous("MIT\n\nCopyright (c) A\n\nPermission\n"),
            "MIT\n\n\nPermission\n"
        );
        // The appendix of Apache's licence is part of it.
        assert!(anonymous("   Copyright [yyyy] [name]\n").contains("yyyy"));
    }

    fn metadata(licence: &str) -> Value {
        let package = |id: &str, source: Value, licence: &str, kind: &str| {
            serde_json::json!({"id": id, "name": id, "version": "1.0.0", "source": source, "license": licence,
                "authors": [], "manifest_path": "/x/Cargo.toml", "targets": [{"kind": [kind]}]})
        };
        let dependency =
            |id: &str, kind: Value| serde_json::json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let registry = || Value::from("registry");
        serde_json::json!({
            "packages": [package("root", Value::Null, "MIT", "bin"), package("lib", registry(), licence, "lib"),
                package("below", registry(), "MIT", "lib"), package("test", registry(), "MIT", "lib"),
                package("macro", registry(), "MIT", "proc-macro")],
            "resolve": {"nodes": [
                {"id": "root", "deps": [dependency("lib", Value::Null), dependency("test", "dev".into()),
                    dependency("macro", Value::Null)]},
                {"id": "lib", "deps": [dependency("below", Value::Null)]},
                {"id": "macro", "deps": [dependency("test", Value::Null)]}]}
        })
    }

    #[test]
    fn what_is_linked_counts_and_what_is_for_tests_or_in_the_compiler_does_not() {
        let (version, crates) = linked(&metadata("MIT"), &["root"]).expect("linked");
        let names: Vec<&str> = crates.iter().map(|each| each.name.as_str()).collect();
        assert_eq!((version.as_str(), names), ("1.0.0", vec!["below", "lib"]));
    }

    #[test]
    fn a_crate_without_a_licence_is_named() {
        let error = linked(&metadata(""), &["root"])
            .expect_err("no licence")
            .to_string();
        assert!(error.contains("lib"), "{error}");
    }
}
