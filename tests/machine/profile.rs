//! Where a vCPU's time goes, as seen from outside: of a running machine, and of a whole run.

mod support;

use std::process::Command;

use quintet_coordinator::control::client;
use quintet_protocol::control::Request;
use support::{Setup, guest_file, quintet};

/// Share in percent, and how often, of the line that ends in `what`.
fn line(report: &str, what: &str) -> (f64, u64) {
    let of = |l: &str| -> Option<(f64, u64)> {
        let mut words = l.split_whitespace();
        let share = words.next()?.parse().ok()?;
        (words.next()? == "%").then_some(())?;
        Some((share, words.next()?.parse().ok()?))
    };
    let found = report.lines().filter(|l| l.ends_with(&format!("  {what}")));
    let mut found = found.map(|l| of(l).unwrap_or_else(|| panic!("{l:?} in\n{report}")));
    found.next().unwrap_or_default()
}

fn looked_at(name: &str) -> String {
    let quintet = quintet().expect("the machine runs");
    let out = Command::new(quintet)
        .args(["debug", name, "profile", "--time", "1s"])
        .output();
    let out = out.expect("quintet starts");
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).expect("text")
}

#[test]
fn a_running_machine_is_looked_into_and_a_whole_run_is_written_down() {
    let Some(program) = quintet() else { return };
    let file = std::env::temp_dir().join(format!("quintet-profile-{}", std::process::id()));
    let mut guest = Setup::new(program, guest_file("profile", quintet_guests::SPIN))
        .option("--ram", "16M")
        .option("--append", "d")
        .option("--profile", file.to_str().expect("UTF-8"))
        .start("profile");
    guest.hear("spinning");
    let report = looked_at(&guest.name);
    let (share, times) = line(&report, "waiting for io-worker");
    assert!(
        share > 0.0 && times > 100,
        "it asks a device all the time:\n{report}"
    );
    assert_eq!(line(&report, "idle").1, 0, "{report}");

    client::ask(&guest.name, &Request::Pause).expect("paused");
    let paused = looked_at(&guest.name);
    assert!(
        line(&paused, "idle").0 > 90.0,
        "nothing happens while paused:\n{paused}"
    );
    client::ask(&guest.name, &Request::Quit).expect("it ends");
    guest.end();
    let whole = std::fs::read_to_string(&file).expect("a profile");
    assert!(line(&whole, "waiting for io-worker").1 > times, "{whole}");
    assert!(line(&whole, "decoding").1 > 0, "{whole}");
    let _ = std::fs::remove_file(&file);
}

#[test]
fn a_profile_that_cannot_be_written_is_one_line_and_status_1() {
    let Some(program) = quintet() else { return };
    let out = Command::new(program)
        .args(["run", "--headless", "--profile", "/proc/self/none/p"])
        .output();
    let out = out.expect("quintet starts");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("--profile /proc/self/none/p") && said.lines().count() == 1,
        "{said}"
    );
}
