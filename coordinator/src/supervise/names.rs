//! The few names of the project that others can see: the directory of a start under way, and the segments of the portable
//! back end.
//!
//! A killed process cannot take its names with it. So each carries its owner's user, process and that process's start
//! time, which no other process ever shares, and whatever belongs to a process that is gone is swept at the next
//! start of anybody. Nobody sweeps what belongs to the living.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Where the host keeps names of shared memory, if it lists them.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// What the names of this user's things of a kind begin with.
pub fn prefix(kind: &str) -> String {
    format!("quintet-{kind}-{}-", rustix::process::geteuid().as_raw())
}

/// What this process's names of a kind begin with.
pub fn own(kind: &str) -> String {
    let pid = std::process::id();
    format!("{}{pid}-{}", prefix(kind), start_time(pid).unwrap_or(0))
}

/// What the names of this process's portable segments begin with.
pub fn own_prefix() -> String {
    format!("/{}-", own("shm"))
}

/// When a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)); `None` when it is gone.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Removes the segments that dead processes of this user have left behind.
pub fn sweep_segments() {
    sweep(Path::new(SHARED_MEMORY), "shm");
}

/// Removes what dead processes of this user have left in `base` under names of a kind.
pub fn sweep(base: &Path, kind: &str) {
    let Ok(entries) = std::fs::read_dir(base) else {
        return;
    };
    let prefix = prefix(kind);
    let uid = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((pid, start)) = name
            .to_str()
            .and_then(|n| n.strip_prefix(&prefix))
            .and_then(owner)
        else {
            continue;
        };
        // symlink_metadata: never follow what somebody else may have put there.
        let Ok(meta) = entry.path().symlink_metadata() else {
            continue;
        };
        if meta.uid() == uid && start_time(pid) != Some(start) {
            let _ = if meta.is_dir() {
                std::fs::remove_dir_all(entry.path())
            } else {
                std::fs::remove_file(entry.path())
            };
        }
    }
}

/// Process and start time at the beginning of what follows the prefix of a name.
fn owner(rest: &str) -> Option<(u32, u64)> {
    let mut parts = rest.splitn(3, '-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_swept_and_the_living_are_not() {
        let base = std::env::temp_dir().join(format!("quintet-sweep-test-{}", std::process::id()));
        let make = |name: String| {
            let path = base.join(name);
            std::fs::create_dir_all(path.join("server")).expect("directory");
            path
        };
        let file = |name: String| {
            let path = base.join(name);
            std::fs::write(&path, b"x").expect("file");
            path
        };
        // Beyond the largest process id of Linux.
        let nobody = 1 << 23;
        let living = make(own("start"));
        let recycled = make(format!("{}{}-1", prefix("start"), std::process::id()));
        let dead = make(format!("{}{nobody}-5", prefix("start")));
        let foreign = make("somebody-elses".into());
        let living_segment = file(format!("{}-quintet-ram", own("start")));
        let dead_segment = file(format!("{}{nobody}-5-quintet-ram", prefix("start")));
        let other_kind = file(format!("{}{nobody}-5-quintet-ram", prefix("shm")));
        sweep(&base, "start");
        let left = [
            &living,
            &recycled,
            &dead,
            &foreign,
            &living_segment,
            &dead_segment,
            &other_kind,
        ]
        .map(|p| p.exists());
        std::fs::remove_dir_all(&base).expect("remove");
        assert_eq!(left, [true, false, false, true, true, false, true]);
    }

    #[test]
    fn a_process_has_a_start_time_while_it_lives() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(1 << 23), None);
    }
}
