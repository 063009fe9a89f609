//! The table in `docs/contracts.md`: every promise of the seeds has tests that name it, or a line that says why it has none.
//!
//! A test names a promise in its function's name: `s1_2_s1_35_…` are tests of S1.2 and of S1.35.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

const BEGIN: &str =
    "<!-- contracts: begin; QUINTET_BLESS=1 cargo test -p protocol --test contracts_doc -->\n";
const END: &str = "<!-- contracts: end -->\n";
const HEAD: &str = "| number | what | tests |\n|---|---|---|\n";

/// Seed and number.
type Number = (u32, u32);

/// The numbers that there are: a seed's sections.
const NUMBERS: [(u32, &[RangeInclusive<u32>]); 3] = [
    (1, &[1..=12, 20..=36]),
    (2, &[1..=11, 20..=26, 30..=36]),
    (
        3,
        &[
            1..=10,
            20..=24,
            30..=33,
            40..=54,
            60..=64,
            70..=77,
            80..=87,
            90..=94,
            100..=108,
            110..=112,
        ],
    ),
];

/// How a line without a test begins.
const REASONS: [&str; 3] = ["not yet: ", "instead: ", "no test: "];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn numbers() -> BTreeSet<Number> {
    NUMBERS
        .iter()
        .flat_map(|(seed, ranges)| ranges.iter().cloned().flatten().map(|n| (*seed, n)))
        .collect()
}

/// All source files of the repository.
fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Names of the functions that are tests.
fn tests_in(text: &str) -> Vec<&str> {
    let mut tests = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            if is_test {
                tests.push(&rest[..end.unwrap_or(rest.len())]);
            }
            is_test = false;
        }
    }
    tests
}

/// The promises that a test's name names.
fn named(test: &str) -> Vec<Number> {
    let parts: Vec<&str> = test.split('_').collect();
    parts
        .windows(2)
        .filter_map(|pair| {
            let seed = pair[0].strip_prefix('s')?.parse().ok()?;
            Some((seed, pair[1].parse().ok()?))
        })
        .collect()
}

/// The tests of each promise, by name.
fn tests() -> BTreeMap<Number, BTreeSet<String>> {
    let mut files = Vec::new();
    sources(root(), &mut files);
    let mut tests = BTreeMap::<Number, BTreeSet<String>>::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for test in tests_in(&text) {
            for number in named(test) {
                tests.entry(number).or_default().insert(test.to_owned());
            }
        }
    }
    tests
}

#[derive(Debug)]
struct Row<'a> {
    number: Number,
    what: &'a str,
    tests: &'a str,
}

fn row(line: &str) -> Row<'_> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [number, what, tests] = cells[..] else {
        panic!("not three cells: {line}");
    };
    let (seed, n) = number
        .strip_prefix('S')
        .and_then(|n| n.split_once('.'))
        .expect("S1.2");
    Row {
        number: (seed.parse().expect("a seed"), n.parse().expect("a number")),
        what,
        tests,
    }
}

/// The table as it should be, with the reasons that stand in it.
fn table(rows: &[Row<'_>], tests: &BTreeMap<Number, BTreeSet<String>>) -> String {
    let mut out = String::from(HEAD);
    for Row {
        number: number @ (seed, n),
        what,
        tests: cell,
    } in rows
    {
        let cell = match tests.get(number) {
            Some(tests) => tests
                .iter()
                .map(|t| format!("`{t}`"))
                .collect::<Vec<_>>()
                .join(", "),
            None => (*cell).to_owned(),
        };
        writeln!(out, "| S{seed}.{n} | {what} | {cell} |").expect("a string");
    }
    out
}

#[test]
fn every_promise_has_a_test_or_a_reason() {
    let path = root().join("docs/contracts.md");
    let text = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = text.split_once(BEGIN).expect("the begin marker");
    let (documented, after) = rest.split_once(END).expect("the end marker");
    let rows: Vec<Row<'_>> = documented
        .strip_prefix(HEAD)
        .expect("the table's head")
        .lines()
        .map(row)
        .collect();
    let listed: Vec<Number> = rows.iter().map(|r| r.number).collect();
    assert_eq!(
        listed,
        numbers().into_iter().collect::<Vec<_>>(),
        "one row each, in order"
    );
    let tests = tests();
    let table = table(&rows, &tests);
    if std::env::var_os("QUINTET_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("written");
        return;
    }
    for number in tests.keys() {
        assert!(
            numbers().contains(number),
            "a test names S{}.{}",
            number.0,
            number.1
        );
    }
    for Row {
        number,
        what,
        tests: cell,
    } in &rows
    {
        assert!(!what.is_empty(), "{number:?}");
        let reason = REASONS
            .iter()
            .any(|r| cell.len() > r.len() && cell.starts_with(r));
        assert!(
            tests.contains_key(number) || reason,
            "S{}.{} has no test and no reason",
            number.0,
            number.1
        );
    }
    assert!(
        documented == table,
        "docs/contracts.md differs from the tests there are; bless it after review"
    );
}

#[test]
fn names_are_read_as_they_are_meant() {
    let text = "#[test]\n#[ignore = \"x\"]\nfn s1_2_s1_35_a_b2() {\n}\nfn s1_3_no_test() {}\n    #[test]\n    fn plain() {}";
    assert_eq!(tests_in(text), ["s1_2_s1_35_a_b2", "plain"]);
    assert_eq!(named("s1_2_s1_35_a_b2"), [(1, 2), (1, 35)]);
    assert_eq!(named("plain_s_1"), []);
}
