//! The report of a job (S1.5), for people and for scripts.

use std::fmt::Write as _;

use quintet_protocol::payload::Strategy;
use quintet_protocol::wasm::JobReport;
use serde_json::json;

/// For people: a line for each thing that there is.
pub fn text(report: &JobReport) -> String {
    let mut s = String::new();
    let _ = writeln!(s, "Status: {}", report.status.text());
    if let Some(code) = report.return_code {
        let _ = writeln!(s, "Return Code: {code}");
    }
    if let Some(bytes) = report.memory {
        let _ = writeln!(s, "Linear Memory: {bytes} bytes");
    }
    let _ = writeln!(s, "Transport: {}", report.transport);
    if let Some(strategy) = report.strategy {
        let _ = writeln!(s, "Strategy: {}", strategy.text());
    }
    if let Some(pid) = report.pid {
        let _ = writeln!(s, "Worker: pid {pid}");
    }
    if !report.error.is_empty() {
        let _ = writeln!(s, "Error: {}", report.error);
    }
    s
}

/// For scripts: one line.
pub fn json(report: &JobReport) -> String {
    json!({
        "status": report.status.text(),
        "return_code": report.return_code,
        "linear_memory_bytes": report.memory,
        "transport": report.transport,
        "strategy": report.strategy.map(Strategy::text),
        "worker_pid": report.pid,
        "error": if report.error.is_empty() { None } else { Some(&report.error) },
        "compile_us": report.compile_micros,
        "compiler_us": report.compiler_micros,
        "run_us": report.run_micros,
        "cached": report.cached,
        "trace": report.trace.as_ref().map(ToString::to_string),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use quintet_protocol::wasm::JobStatus;

    use super::*;

    fn report() -> JobReport {
        JobReport {
            status: JobStatus::Executed,
            return_code: Some(42),
            memory: Some(65_536),
            transport: "sealed memfd".into(),
            strategy: Some(Strategy::Mapped),
            pid: Some(7),
            ..JobReport::default()
        }
    }

    #[test]
    fn s1_3_s1_5_the_report_names_everything() {
        assert_eq!(
            text(&report()),
            "Status: Executed Successfully\nReturn Code: 42\nLinear Memory: 65536 bytes\n\
             Transport: sealed memfd\nStrategy: mapped\nWorker: pid 7\n"
        );
    }

    #[test]
    fn s1_5_what_there_is_not_is_not_named() {
        let mut report = report();
        (report.return_code, report.memory) = (None, None);
        report.error = "a \"quoted\"\\ reason".into();
        assert!(!text(&report).contains("Return Code") && !text(&report).contains("Memory"));
        let value: serde_json::Value = serde_json::from_str(&json(&report)).expect("JSON");
        assert!(value["return_code"].is_null());
        assert_eq!(value["error"], "a \"quoted\"\\ reason");
        assert_eq!(value["strategy"], "mapped");
    }
}
