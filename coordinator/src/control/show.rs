//! Reports as people read them.

use std::fmt::Write as _;

use quintet_protocol::control::{
    BrokenReport, DiskReport, DriveReport, MachineError, SoundReport, StatusReport,
};

use crate::units::show_size;

/// The text of `quintet status`.
pub fn status(r: &StatusReport) -> String {
    let mut s = String::new();
    let _ = writeln!(
        s,
        "{}: {:?}, up {}, guest time {}, {} RAM, {} resets, pid {}{}",
        r.name,
        r.state,
        seconds(r.uptime_ms),
        seconds(r.vm_time_ms),
        show_size(r.ram),
        r.resets.saturating_sub(1),
        r.pid,
        if r.single_process { ", single process" } else { "" },
    );
    for missing in &r.unconfined {
        let _ = writeln!(s, "  coordinator  not confined: {missing}");
    }
    for w in &r.workers {
        let pid = w.pid.map_or_else(|| "-".to_owned(), |p| p.to_string());
        let state = if w.parked {
            "Parked".to_owned()
        } else {
            format!("{:?}", w.state)
        };
        let _ = write!(
            s,
            "  {:<12} pid {pid:<8} {state:<10} process {}",
            w.role.to_string(),
            w.generation
        );
        if !w.last_death.is_empty() {
            let _ = write!(s, ", the one before: {}", w.last_death);
        }
        if let Some(BrokenReport { by, times }) = w.broken {
            let _ = write!(s, ", its rings found broken {times} times, last by the {by}");
        }
        s.push('\n');
        if let Some(command) = &w.awaited {
            let _ = writeln!(s, "    waits to be started by hand: {command}");
        }
        for missing in &w.unconfined {
            let _ = writeln!(s, "    not confined: {missing}");
        }
    }
    if r.disks != DiskReport::default() {
        let DiskReport {
            under_way,
            read,
            written,
            flushes,
        } = r.disks;
        let _ = writeln!(
            s,
            "  disks: {read} sectors read, {written} written, {flushes} flushes, {under_way} requests under way"
        );
    }
    for DriveReport { drive, image } in &r.drives {
        let _ = writeln!(s, "  {drive}: {}", image.as_deref().unwrap_or("empty"));
    }
    let SoundReport {
        level: _,
        missing,
        dropped,
        unheard,
    } = r.sound;
    if (missing, dropped, unheard) != (0, 0, 0) {
        let _ = writeln!(
            s,
            "  sound: {missing} frames were missing, {dropped} found no room, {unheard} came too late for the host's device"
        );
    }
    if let Some(e) = &r.error {
        s.push_str(&error(e));
        s.push('\n');
    }
    s
}

/// A machine's line of `quintet ps`.
pub fn line(r: &StatusReport) -> String {
    let awaited = r.workers.iter().filter(|w| w.awaited.is_some());
    let awaited: Vec<_> = awaited.map(|w| w.role.to_string()).collect();
    let mut line = format!(
        "{:<24} {:<10} pid {:<8} {} s",
        r.name,
        format!("{:?}", r.state),
        r.pid,
        r.uptime_ms / 1000
    );
    if !awaited.is_empty() {
        let _ = write!(line, ", waits for {} to be started by hand", awaited.join(", "));
    }
    line
}

/// The text of `quintet status --json`: every field of the report, on one line.
pub fn json(r: &StatusReport) -> String {
    serde_json::to_string(r).expect("a report has only text, numbers and lists")
}

/// An error on one line.
pub fn error(e: &MachineError) -> String {
    let mut s = e.message.clone();
    if let Some((requested, max)) = e.limit {
        let _ = write!(s, " (asked for {requested}, at most {max})");
    }
    if !e.suggestion.is_empty() {
        let _ = write!(s, "; {}", e.suggestion);
    }
    s
}

fn seconds(ms: u64) -> String {
    format!("{}.{:01} s", ms / 1000, ms % 1000 / 100)
}
