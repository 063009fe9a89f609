//! The report of a job (S1.5), for people and for scripts.

use std::fmt::Write as _;

use quintet_protocol::payload::Strategy;
use quintet_protocol::wasm::{JobOutcome, JobStatus};
use serde_json::json;

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub status: JobStatus,
    /// What the function returned, or the program's exit status.
    pub return_code: Option<i64>,
    /// Linear memory at the end, in bytes.
    pub memory: Option<u64>,
    /// How the module travelled.
    pub transport: &'static str,
    /// How it became readable; `None` when it did not.
    pub strategy: Option<Strategy>,
    /// The process that ran it.
    pub pid: Option<u32>,
    /// Why it failed; empty when it did not.
    pub error: String,
    /// Microseconds in the compiler, its start included.
    pub compile_micros: u64,
    /// Microseconds of loading and running.
    pub run_micros: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            status: JobStatus::Loaded,
            return_code: None,
            memory: None,
            transport: "",
            strategy: None,
            pid: None,
            error: String::new(),
            compile_micros: 0,
            run_micros: 0,
        }
    }
}

impl Report {
    /// Takes over what the cpu-worker said.
    pub fn take(&mut self, job: JobOutcome) {
        self.status = job.status;
        self.return_code = job.return_code;
        self.memory = job.memory;
        self.pid = Some(job.pid);
        self.error = job.error;
        self.run_micros = job.micros;
    }

    /// For people: a line for each thing that there is.
    pub fn text(&self) -> String {
        let mut s = String::new();
        let _ = writeln!(s, "Status: {}", self.status.text());
        if let Some(code) = self.return_code {
            let _ = writeln!(s, "Return Code: {code}");
        }
        if let Some(bytes) = self.memory {
            let _ = writeln!(s, "Linear Memory: {bytes} bytes");
        }
        let _ = writeln!(s, "Transport: {}", self.transport);
        if let Some(strategy) = self.strategy {
            let _ = writeln!(s, "Strategy: {}", strategy.text());
        }
        if let Some(pid) = self.pid {
            let _ = writeln!(s, "Worker: pid {pid}");
        }
        if !self.error.is_empty() {
            let _ = writeln!(s, "Error: {}", self.error);
        }
        s
    }

    /// For scripts: one line.
    pub fn json(&self) -> String {
        json!({
            "status": self.status.text(),
            "return_code": self.return_code,
            "linear_memory_bytes": self.memory,
            "transport": self.transport,
            "strategy": self.strategy.map(Strategy::text),
            "worker_pid": self.pid,
            "error": if self.error.is_empty() { None } else { Some(&self.error) },
            "compile_us": self.compile_micros,
            "run_us": self.run_micros,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report {
            transport: "sealed memfd",
            strategy: Some(Strategy::Mapped),
            ..Report::default()
        };
        report.take(JobOutcome {
            status: JobStatus::Executed,
            return_code: Some(42),
            memory: Some(65_536),
            pid: 7,
            error: String::new(),
            micros: 1,
        });
        report
    }

    #[test]
    fn s1_3_s1_5_the_report_names_everything() {
        assert_eq!(
            report().text(),
            "Status: Executed Successfully\nReturn Code: 42\nLinear Memory: 65536 bytes\n\
             Transport: sealed memfd\nStrategy: mapped\nWorker: pid 7\n"
        );
    }

    #[test]
    fn s1_5_what_there_is_not_is_not_named() {
        let mut report = report();
        (report.return_code, report.memory) = (None, None);
        report.error = "a \"quoted\"\\ reason".into();
        assert!(!report.text().contains("Return Code") && !report.text().contains("Memory"));
        let value: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert!(value["return_code"].is_null());
        assert_eq!(value["error"], "a \"quoted\"\\ reason");
        assert_eq!(value["strategy"], "mapped");
    }
}
