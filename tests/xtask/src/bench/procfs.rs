//! What the host's kernel says of processes and processors (proc(5)).

use std::collections::HashMap;
use std::fs;

/// Ticks a second in `/proc`: USER_HZ, part of Linux's ABI.
const HZ: f64 = 100.0;

/// One process, as `/proc/PID/stat` describes it.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    /// User and system ticks, with those of children that were waited for.
    ticks: u64,
}

/// Fields 4 and 14 to 17. The name (field 2) may hold anything, parentheses too, so that counting starts after the last.
fn parse(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|f| f.parse::<u64>());
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks.sum::<Result<u64, _>>().ok()?,
    })
}

fn processes() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, parse(&fs::read_to_string(entry.path().join("stat")).ok()?)?))
        })
        .collect()
}

/// `root` and its descendants, among `all`.
fn family(all: &HashMap<u32, Process>, root: u32) -> Vec<u32> {
    let mut found: Vec<u32> = all.contains_key(&root).then_some(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = all
            .iter()
            .filter(|(_, p)| p.parent == parent)
            .map(|(pid, _)| *pid);
        found.extend(children.filter(|pid| *pid != root).collect::<Vec<_>>());
        next += 1;
    }
    found
}

/// CPU seconds used so far by a process and its descendants, in steps of 10 ms.
pub fn cpu_seconds(root: u32) -> f64 {
    let all = processes();
    let ticks: u64 = family(&all, root).iter().map(|pid| all[pid].ticks).sum();
    ticks as f64 / HZ
}

/// A process and its descendants that are there now.
pub fn tree(root: u32) -> Vec<u32> {
    family(&processes(), root)
}

/// CPU seconds that all processors were busy since the host's start; time stolen from a virtual machine counts.
pub fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    busy(&stat).unwrap_or(0) as f64 / HZ
}

/// Of the first line: all of the first eight columns but idle and iowait.
fn busy(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let fields: Vec<u64> = fields.take(8).map_while(|f| f.parse().ok()).collect();
    let all: u64 = fields.iter().sum();
    Some(all - fields.get(3)? - fields.get(4)?)
}

/// The processor's name, how many, and the kernel's release.
pub fn host() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names: Vec<&str> = info
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, name)| name.trim())
        .collect();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.split('-').next().unwrap_or_default().trim();
    let name = names.first().copied().unwrap_or("unknown processor");
    format!("{} × {name}, Linux {release}", names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: u32, ticks: u64) -> Process {
        Process { parent, ticks }
    }

    #[test]
    fn stat_is_counted_from_the_last_parenthesis() {
        let line = "7 (a ) b (c) S 3 7 7 0 -1 0 1 2 3 4 100 20 3 4 20 0 1 0";
        assert_eq!(parse(line), Some(process(3, 127)));
        assert_eq!(parse("7 (a) S 3"), None);
    }

    #[test]
    fn a_family_is_a_process_and_all_below_it() {
        let all = HashMap::from([
            (1, process(0, 0)),
            (10, process(1, 0)),
            (11, process(10, 0)),
            (12, process(11, 0)),
            (20, process(1, 0)),
        ]);
        let mut found = family(&all, 10);
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12]);
        assert!(family(&all, 99).is_empty());
    }

    #[test]
    fn busy_time_leaves_idling_and_guests_out() {
        assert_eq!(busy("cpu  1 2 3 1000 500 4 5 6 7 8\ncpu0 1\n"), Some(21));
        assert_eq!(busy(""), None);
    }

    #[test]
    fn this_process_has_used_time_and_is_its_own_family() {
        let me = std::process::id();
        assert!(tree(me).contains(&me));
        assert!(cpu_seconds(me) >= 0.0 && busy_seconds() > 0.0);
    }
}
