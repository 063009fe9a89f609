//! A machine's report in the text format of Prometheus, version 0.0.4.
//!
//! A library for metrics was rejected: they all want to own the numbers, and these are the report's.

use std::fmt::{Display, Write as _};

use quintet_protocol::control::StatusReport;
use quintet_protocol::status::{MachineState, PeerState};

use crate::supervise::process;

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Sound frames in a second.
const FRAMES: f64 = 48_000.0;

/// The text of a metrics page.
struct Page {
    machine: String,
    text: String,
}

impl Page {
    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(
            self.text,
            "# HELP quintet_{name} {help}\n# TYPE quintet_{name} {kind}\n"
        );
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "quintet_{name}{{machine=\"{}\"", self.machine);
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escape(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.describe(name, "gauge", help);
        self.value(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.describe(name, "counter", help);
        self.value(name, &[], value);
    }
}

/// A label's text as the format wants it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The page for a report. Counters that the machine keeps in 32 bits wrap, which a reader takes for a restart.
pub fn page(report: &StatusReport) -> String {
    let mut page = Page {
        machine: escape(&report.name),
        text: String::new(),
    };
    machine(&mut page, report);
    workers(&mut page, report);
    rings(&mut page, report);
    guest(&mut page, report);
    page.text
}

fn machine(page: &mut Page, report: &StatusReport) {
    let running = u8::from(report.state == MachineState::Running);
    page.gauge("running", "Whether the guest's time passes.", running);
    page.counter(
        "uptime_seconds_total",
        "Time since the coordinator started.",
        report.uptime_ms as f64 / 1e3,
    );
    page.counter(
        "vm_time_seconds_total",
        "Time that has passed for the guest.",
        report.vm_time_ms as f64 / 1e3,
    );
    page.gauge("ram_bytes", "Guest RAM.", report.ram);
    page.counter(
        "resets_total",
        "Resets of the guest, power-on included.",
        report.resets,
    );
}

fn workers(page: &mut Page, report: &StatusReport) {
    let workers: Vec<_> = report
        .workers
        .iter()
        .map(|w| (w.role.name(), w.pid.and_then(|pid| u32::try_from(pid).ok()), w))
        .collect();
    page.describe("worker_running", "gauge", "Whether the worker is ready.");
    for (role, _, w) in &workers {
        let running = u8::from(w.state == PeerState::Running);
        page.value("worker_running", &[("role", role)], running);
    }
    page.describe(
        "worker_held",
        "gauge",
        "Whether a debugger or a signal holds the worker.",
    );
    for (role, _, w) in &workers {
        page.value(
            "worker_held",
            &[("role", role)],
            u8::from(w.state == PeerState::Held),
        );
    }
    page.describe(
        "worker_processes_total",
        "counter",
        "Processes that have had the role.",
    );
    for (role, _, w) in &workers {
        page.value("worker_processes_total", &[("role", role)], w.generation);
    }
    page.describe(
        "worker_heartbeats_total",
        "counter",
        "How often the worker said that it goes on.",
    );
    for (role, _, w) in &workers {
        page.value("worker_heartbeats_total", &[("role", role)], w.beats);
    }
    let coordinator = ("coordinator", u32::try_from(report.pid).ok());
    let processes = || std::iter::once(coordinator).chain(workers.iter().map(|(role, pid, _)| (*role, *pid)));
    page.describe("process_cpu_seconds_total", "counter", "Processor time.");
    for (role, pid) in processes() {
        if let Some(look) = pid.and_then(process::look) {
            page.value(
                "process_cpu_seconds_total",
                &[("role", role)],
                look.cpu.as_secs_f64(),
            );
        }
    }
    page.describe(
        "process_memory_bytes",
        "gauge",
        "Proportional set size, guest RAM excluded.",
    );
    for (role, pid) in processes() {
        if let Some(bytes) = pid.and_then(process::pss) {
            page.value("process_memory_bytes", &[("role", role)], bytes);
        }
    }
}

fn rings(page: &mut Page, report: &StatusReport) {
    page.describe(
        "ring_records_total",
        "counter",
        "Records that went through an end of a ring.",
    );
    for ring in &report.rings {
        for (end, count) in [("pushed", ring.traffic.pushed), ("popped", ring.traffic.popped)] {
            page.value("ring_records_total", &[("ring", &ring.name), ("end", end)], count);
        }
    }
    page.describe("ring_waiting_bytes", "gauge", "Bytes that wait in a ring.");
    for ring in &report.rings {
        page.value(
            "ring_waiting_bytes",
            &[("ring", &ring.name)],
            ring.traffic.waiting,
        );
    }
    page.describe("ring_capacity_bytes", "gauge", "Bytes that a ring holds.");
    for ring in &report.rings {
        page.value(
            "ring_capacity_bytes",
            &[("ring", &ring.name)],
            ring.traffic.capacity,
        );
    }
}

fn guest(page: &mut Page, report: &StatusReport) {
    page.describe(
        "vcpu_turns_total",
        "counter",
        "How often a vCPU turned to something.",
    );
    for exit in &report.exits {
        page.value("vcpu_turns_total", &[("cause", &exit.cause)], exit.count);
    }
    page.describe(
        "interrupt_edges_total",
        "counter",
        "Rising edges of a device's interrupt line.",
    );
    for interrupt in &report.interrupts {
        let line = interrupt.line.to_string();
        page.value("interrupt_edges_total", &[("line", &line)], interrupt.edges);
    }
    let disks = report.disks;
    page.gauge(
        "disk_requests_under_way",
        "Disk requests that have not ended.",
        disks.under_way,
    );
    let bytes = |sectors: u32| u64::from(sectors) * SECTOR;
    page.counter(
        "disk_read_bytes_total",
        "Bytes that the guest asked its disks for.",
        bytes(disks.read),
    );
    page.counter(
        "disk_written_bytes_total",
        "Bytes that the guest gave its disks to write.",
        bytes(disks.written),
    );
    page.counter(
        "disk_flushes_total",
        "Times that the guest asked for what was written to last.",
        disks.flushes,
    );
    let sound = report.sound;
    page.gauge(
        "sound_waiting_seconds",
        "Sound that waits to be heard.",
        f64::from(sound.level) / FRAMES,
    );
    page.counter(
        "sound_missing_frames_total",
        "Frames replaced by silence.",
        sound.missing,
    );
    page.counter(
        "sound_dropped_frames_total",
        "Frames that found no room.",
        sound.dropped,
    );
    page.counter(
        "sound_unheard_frames_total",
        "Frames of silence that the host's sound device was given in the middle of a stream.",
        sound.unheard,
    );
    page.gauge(
        "echo_seconds",
        "From the newest key press in the window to the next change shown.",
        f64::from(report.latency.echo) / 1e6,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::sample_report;
    use std::collections::HashSet;

    #[test]
    fn every_line_is_of_the_format_and_every_value_was_described() {
        let mut report = sample_report();
        report.exits[0].cause = "a \"quoted\" \\ cause".to_owned();
        let text = page(&report);
        let mut described = HashSet::new();
        let mut values = 0;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("name and kind");
                assert!(["gauge", "counter"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(described.insert(name.to_owned()), "{name} is described twice");
            } else if !line.starts_with("# HELP ") {
                let (name, rest) = line.split_once('{').expect("labels");
                assert!(described.contains(name), "{line}");
                let (labels, value) = rest.rsplit_once("} ").expect("a value");
                assert!(labels.starts_with("machine=\"sample\""), "{line}");
                value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
                values += 1;
            }
        }
        assert!(values > 30, "{text}");
        assert!(text.contains(r#"cause="a \"quoted\" \\ cause""#), "{text}");
        assert!(text.contains("quintet_disk_written_bytes_total{machine=\"sample\"} 1024\n"));
    }
}
