//! Giving up everything a worker does not need, once its maps exist.
//!
//! The coordinator decides what each worker keeps (its policies are data there); this module only applies it, in
//! the order in which it can be applied: limits, network, no-new-privileges, capabilities, Landlock, seccomp. What the
//! kernel cannot do is reported and not fatal: a machine that refuses to start on an older kernel helps
//! nobody, a missing wall that is not mentioned helps an attacker.
#![allow(unsafe_code, reason = "sets up the C library's heaps")]

pub mod network;
pub mod paths;
mod trap;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Confinement, Network};
use paths::Paths;
pub use trap::EXIT_TRAPPED;

/// Stands in a filter for the process that installs it, whose number the coordinator does not know when it compiles. No process
/// has it: PID_MAX_LIMIT is 2^22 (linux/threads.h).
pub const OWN_PID: u32 = 0x7E1F_7E1F;

/// Applies `confinement` to this process, which has one thread, and answers what could not be applied.
pub fn confine(confinement: &Confinement) -> Vec<String> {
    let mut missing = Vec::new();
    // Never a core file: it would hold guest memory. The process stays dumpable, for debuggers.
    limit(Resource::Core, 0, &mut missing);
    if !confinement.enabled {
        missing.push("everything: --no-sandbox".to_owned());
        return missing;
    }
    limit(Resource::Nofile, confinement.max_files, &mut missing);
    let limits = [
        (Resource::Data, confinement.max_data),
        (Resource::Fsize, confinement.max_file_size),
        (Resource::Memlock, confinement.max_locked),
        (Resource::Msgqueue, Some(0)),
    ];
    for (resource, most) in limits {
        if let Some(most) = most {
            limit(resource, most, &mut missing);
        }
    }
    let alone = match &confinement.network {
        Network::Host(why) => {
            missing.push(format!("network namespace: {why}"));
            false
        }
        Network::Empty => true,
        Network::Leave => match network::leave() {
            Ok(()) => true,
            Err(why) => {
                missing.push(format!("network namespace: {why}"));
                false
            }
        },
    };
    if let Err(e) = rustix::thread::set_no_new_privs(true) {
        missing.push(format!("no-new-privileges: {e}"));
    }
    if let Err(e) = drop_capabilities() {
        missing.push(format!("capabilities: {e}"));
    }
    missing.extend(paths::restrict(&Paths {
        read: Some(&confinement.read_paths),
        write: &confinement.write_paths,
        remove: &[],
        // An empty namespace has none, and says so in a way that makes Xlib look for the socket file.
        abstract_sockets: confinement.abstract_sockets && !alone,
        signals: false,
    }));
    if confinement.seccomp.is_empty() {
        missing.push("seccomp: no policy for this machine's architecture".to_owned());
    } else {
        trap::report_forbidden_calls();
        keep_heaps();
        for words in &confinement.seccomp {
            let program: Vec<_> = words.iter().map(|&word| own(instruction(word))).collect();
            if let Err(e) = seccompiler::apply_filter_all_threads(&program) {
                missing.push(format!("seccomp: {e}"));
                break;
            }
        }
    }
    missing
}

/// Lowers a limit of this process for good; one that is lower already stays. What the host refuses is added to `missing`.
pub fn limit(resource: Resource, value: u64, missing: &mut Vec<String>) {
    let hard = rustix::process::getrlimit(resource)
        .maximum
        .unwrap_or(u64::MAX)
        .min(value);
    if let Err(e) = setrlimit(
        resource,
        Rlimit {
            current: Some(hard),
            maximum: Some(hard),
        },
    ) {
        missing.push(format!("limit {resource:?}: {e}"));
    }
}

/// Gives up all capabilities of this thread and of what it starts.
///
/// # Errors
/// The host's.
pub fn drop_capabilities() -> rustix::io::Result<()> {
    // The bounding set first: shrinking it takes a capability that goes with the rest. Without it there is
    // nothing to shrink.
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

/// One BPF instruction as the hello carries it.
pub fn encode_instruction(i: &seccompiler::sock_filter) -> u64 {
    u64::from(i.code) << 48 | u64::from(i.jt) << 40 | u64::from(i.jf) << 32 | u64::from(i.k)
}

/// Has the C library keep what threads have freed. Before glibc gives the end of a thread's heap back it opens
/// /proc/sys/vm/overcommit_memory (malloc/arena.c, `shrink_heap`), which no worker may: one whose disk thread had freed a few MiB
/// would die. Larger pieces, which are mapped one by one, are still given back.
fn keep_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two numbers; this is before anything else runs in the process.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
    }
}

fn instruction(word: u64) -> seccompiler::sock_filter {
    seccompiler::sock_filter {
        code: (word >> 48) as u16,
        jt: (word >> 40) as u8,
        jf: (word >> 32) as u8,
        k: word as u32,
    }
}

/// With this process's number where a filter speaks of it.
fn own(mut i: seccompiler::sock_filter) -> seccompiler::sock_filter {
    if i.k == OWN_PID {
        i.k = std::process::id();
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_survives_its_encoding() {
        let i = seccompiler::sock_filter {
            code: 0x8015,
            jt: 0x7F,
            jf: 0xFE,
            k: 0xDEAD_BEEF,
        };
        assert_eq!(instruction(encode_instruction(&i)), i);
    }
}
