//! How much memory this host can give.
//!
//! Guest RAM is made sparse, so a size that the host cannot hold would not fail at once but in the middle of a
//! guest's life, by the OOM killer. So it is refused before a segment is made.

use std::path::{Path, PathBuf};

use crate::supervise::names::SHARED_MEMORY;

/// Bytes of memory that are available: the least of what the kernel estimates and what every control group above
/// this process leaves. `u64::MAX` when nothing is known.
pub fn available_memory() -> u64 {
    host_memory().min(group_memory().unwrap_or(u64::MAX))
}

/// Bytes of memory that the kernel takes for available; `u64::MAX` when it does not say.
pub fn host_memory() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
    meminfo.as_deref().and_then(mem_available).unwrap_or(u64::MAX)
}

/// Bytes that the control groups above this process leave; `None` without a limit.
pub fn group_memory() -> Option<u64> {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_available(&cgroup, Path::new("/sys/fs/cgroup"))
}

/// Bytes that named shared memory can still take; `u64::MAX` when nothing is known. Where it is full, a write to a
/// segment would end the process by SIGBUS.
pub fn available_shared_memory() -> u64 {
    rustix::fs::statvfs(SHARED_MEMORY).map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The least that the control groups of `/proc/self/cgroup` leave, in bytes; `None` without a limit.
fn cgroup_available(membership: &str, root: &Path) -> Option<u64> {
    membership
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let path = path.trim_start_matches('/');
            match controllers {
                "" => least_of_ancestors(root, path, "memory.max", "memory.current"),
                c if c.split(',').any(|c| c == "memory") => {
                    let root = root.join("memory");
                    least_of_ancestors(&root, path, "memory.limit_in_bytes", "memory.usage_in_bytes")
                }
                _ => None,
            }
        })
        .min()
}

fn least_of_ancestors(root: &Path, path: &str, max: &str, current: &str) -> Option<u64> {
    let read = |dir: &PathBuf, file| -> Option<u64> {
        std::fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
    };
    let mut dir = root.join(path);
    let mut least = None;
    loop {
        if let Some(limit) = read(&dir, max) {
            let left = limit.saturating_sub(read(&dir, current).unwrap_or(0));
            least = Some(least.map_or(left, |l: u64| l.min(left)));
        }
        if dir == root || !dir.pop() {
            return least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_kibibytes() {
        assert_eq!(
            mem_available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(mem_available("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = std::env::temp_dir().join(format!("quintet-cgroup-test-{}", std::process::id()));
        let inner = root.join("a/b");
        std::fs::create_dir_all(&inner).expect("directories");
        let write = |p: &str, text: &str| std::fs::write(root.join(p), text).expect("file");
        write("a/memory.max", "1000000\n");
        write("a/memory.current", "400000\n");
        write("a/b/memory.max", "max\n");
        let left = cgroup_available("0::/a/b\n", &root);
        std::fs::remove_dir_all(&root).expect("remove");
        assert_eq!(left, Some(600_000));
    }

    #[test]
    fn this_host_has_some_memory() {
        assert!(available_memory() > 1 << 20);
    }
}
