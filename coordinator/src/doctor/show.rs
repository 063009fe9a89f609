//! Findings as text and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::judge::{Finding, State, fit_headless, fit_window};

/// Everything as JSON, on one line.
pub fn json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        version: &'static str,
        headless: bool,
        window: bool,
        findings: &'a [Finding],
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        headless: fit_headless(findings),
        window: fit_window(findings),
        findings,
    };
    // Strings and booleans always have a form.
    serde_json::to_string(&report).unwrap_or_default()
}

/// Everything for a reader, a line a finding and its remedy below.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut topic = "";
    for finding in findings {
        if finding.topic != topic {
            topic = finding.topic;
            let _ = writeln!(text, "{topic}");
        }
        let state = match finding.state {
            State::Ok => "ok",
            State::Limited => "limited",
            State::Missing => "missing",
        };
        let _ = writeln!(text, "  {state:<8} {}: {}", finding.name, finding.found);
        if !finding.means.is_empty() {
            let _ = writeln!(text, "           {}", finding.means);
        }
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "           remedy: {remedy}");
        }
    }
    let verdict = if fit_window(findings) {
        "Machines can run here, with a window and without."
    } else if fit_headless(findings) {
        "Machines can run here without a window (--headless)."
    } else {
        "No machine can run here; see what is missing above."
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}
