//! Reports as people read them.

use std::fmt::Write as _;

use quintet_protocol::control::{MachineError, SoundReport, StatusReport};

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
        s.push('\n');
        for missing in &w.unconfined {
            let _ = writeln!(s, "    not confined: {missing}");
        }
    }
    if r.sound != SoundReport::default() {
        let SoundReport { missing, dropped } = r.sound;
        let _ = writeln!(
            s,
            "  sound: {missing} frames were missing, {dropped} found no room"
        );
    }
    if let Some(e) = &r.error {
        s.push_str(&error(e));
        s.push('\n');
    }
    s
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
