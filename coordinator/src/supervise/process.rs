//! What `/proc` tells of a worker: enough to know whether it is held, blocked or busy.

use std::path::PathBuf;
use std::time::Duration;

/// A look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Processor time of all its threads.
    pub cpu: Duration,
    /// None of its threads is runnable.
    pub blocked: bool,
    /// A debugger or a stop signal holds one of its threads.
    pub stopped: bool,
    /// A debugger is attached, whether it lets it run or not.
    pub traced: bool,
}

/// Looks at a process; `None` when it is gone.
pub fn look(pid: u32) -> Option<Look> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let traced = field(&status, "TracerPid:").is_some_and(|t| t != "0");
    let mut cpu = Duration::ZERO;
    let mut runnable = false;
    let mut stopped = false;
    for (task, state, ticks) in threads(pid)? {
        let run = std::fs::read_to_string(task.join("schedstat")).ok();
        let nanos = run
            .as_deref()
            .and_then(|s| s.split_whitespace().next()?.parse().ok());
        cpu += nanos.map_or(Duration::from_millis(ticks * 10), Duration::from_nanos);
        runnable |= state == 'R';
        stopped |= matches!(state, 'T' | 't');
    }
    Some(Look {
        cpu,
        blocked: !runnable,
        stopped,
        traced,
    })
}

/// Whether every thread of a process is stopped, and in no system call: `false` when it is gone.
pub fn is_stopped(pid: u32) -> bool {
    threads(pid).is_some_and(|mut all| all.all(|(_, state, _)| matches!(state, 'T' | 't')))
}

/// The threads of a process: folder, state and processor time in clock ticks.
fn threads(pid: u32) -> Option<impl Iterator<Item = (PathBuf, char, u64)>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(tasks.flatten().filter_map(|task| {
        // A thread may end between the listing and the look.
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (state, ticks) = state_and_ticks(&stat)?;
        Some((task.path(), state, ticks))
    }))
}

/// Proportional set size of a process in bytes, guest RAM excluded; `None` when it is gone.
pub fn pss(pid: u32) -> Option<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    Some(pss_of(&smaps))
}

fn pss_of(smaps: &str) -> u64 {
    let mut counted = true;
    let mut total = 0;
    for line in smaps.lines() {
        if let Some(kib) = line.strip_prefix("Pss:") {
            let kib: u64 = kib.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
            total += if counted { kib << 10 } else { 0 };
        } else if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            counted = !line.contains("quintet-ram");
        }
    }
    total
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim)
}

/// State letter, and user and system time in clock ticks (fields 3, 14, 15 of proc_pid_stat(5)).
fn state_and_ticks(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut times = fields.skip(10).map(|f| f.parse::<u64>().unwrap_or(0));
    Some((state, times.next()? + times.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 99 0";
        assert_eq!(state_and_ticks(stat), Some(('S', 300)));
    }

    #[test]
    fn guest_ram_does_not_count() {
        let smaps = "1000-2000 rw-s 0 0:1 5 /memfd:quintet-ram (deleted)\nPss:  100 kB\n\
                     2000-3000 rw-s 0 0:1 5 /dev/shm/quintet-shm-0-9-9-quintet-ram\nPss:  50 kB\n\
                     2000-3000 rw-p 0 0:1 6 [heap]\nPss:   7 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(pss_of(smaps), 7 << 10);
    }

    #[test]
    fn this_process_runs_and_is_not_held() {
        let look = look(std::process::id()).expect("alive");
        assert!(!look.stopped && !look.traced && !look.blocked);
        assert!(pss(std::process::id()).expect("alive") > 0);
    }

    #[test]
    fn a_process_that_is_gone_is_none() {
        assert_eq!(look(1 << 23), None);
    }
}
