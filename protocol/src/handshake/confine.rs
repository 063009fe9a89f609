//! Giving up everything a worker does not need, once its maps exist.
//!
//! The coordinator decides what each worker keeps (its policies are data there); this module only applies it, in
//! the order in which it can be applied: limits, no-new-privileges, capabilities, Landlock, seccomp. What the
//! kernel cannot do is reported and not fatal: a machine that refuses to start on an older kernel helps
//! nobody, a missing wall that is not mentioned helps an attacker.
#![allow(
    unsafe_code,
    reason = "installs the handler that names a forbidden system call"
)]

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::Confinement;

/// Exit status of a worker that called what its policy forbids: 128 + SIGSYS.
pub const EXIT_TRAPPED: i32 = 128 + 31;

/// Applies `confinement` to this process and answers what could not be applied.
pub fn confine(confinement: &Confinement) -> Vec<String> {
    let mut missing = Vec::new();
    // Never a core file: it would hold guest memory. The process stays dumpable, for debuggers.
    limit(Resource::Core, 0, &mut missing);
    if !confinement.enabled {
        missing.push("everything: --no-sandbox".to_owned());
        return missing;
    }
    limit(Resource::Nofile, confinement.max_files, &mut missing);
    if let Some(bytes) = confinement.max_data {
        limit(Resource::Data, bytes, &mut missing);
    }
    if let Some(threads) = confinement.max_threads {
        limit(Resource::Nproc, threads, &mut missing);
    }
    if let Err(e) = rustix::thread::set_no_new_privs(true) {
        missing.push(format!("no-new-privileges: {e}"));
    }
    if let Err(e) = drop_capabilities() {
        missing.push(format!("capabilities: {e}"));
    }
    match landlock(confinement) {
        Ok(RulesetStatus::FullyEnforced) => {}
        Ok(RulesetStatus::PartiallyEnforced) => {
            missing.push("Landlock: this kernel knows only part of it".to_owned());
        }
        Ok(RulesetStatus::NotEnforced) => missing.push("Landlock: this kernel has none".to_owned()),
        Err(e) => missing.push(format!("Landlock: {e}")),
    }
    if confinement.seccomp.is_empty() {
        missing.push("seccomp: no policy for this machine's architecture".to_owned());
    } else {
        report_forbidden_calls();
        for words in &confinement.seccomp {
            let program: Vec<_> = words.iter().map(|&word| instruction(word)).collect();
            if let Err(e) = seccompiler::apply_filter_all_threads(&program) {
                missing.push(format!("seccomp: {e}"));
                break;
            }
        }
    }
    missing
}

fn limit(resource: Resource, value: u64, missing: &mut Vec<String>) {
    // A limit that is lower already stays.
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

fn drop_capabilities() -> rustix::io::Result<()> {
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

fn landlock(confinement: &Confinement) -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V6;
    let scope = if confinement.abstract_sockets {
        Scope::Signal.into()
    } else {
        Scope::from_all(abi)
    };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(scope)?
        .create()?
        .add_rules(path_beneath_rules(
            &confinement.read_paths,
            AccessFs::from_read(abi),
        ))?
        .add_rules(path_beneath_rules(
            &confinement.write_paths,
            AccessFs::from_all(abi),
        ))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// One BPF instruction as the hello carries it.
pub fn encode_instruction(i: &seccompiler::sock_filter) -> u64 {
    u64::from(i.code) << 48 | u64::from(i.jt) << 40 | u64::from(i.jf) << 32 | u64::from(i.k)
}

fn instruction(word: u64) -> seccompiler::sock_filter {
    seccompiler::sock_filter {
        code: (word >> 48) as u16,
        jt: (word >> 40) as u8,
        jf: (word >> 32) as u8,
        k: word as u32,
    }
}

/// Makes a trapped system call end the process with a line that names it.
fn report_forbidden_calls() {
    extern "C" fn trapped(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
        // SAFETY: the kernel hands a valid siginfo of SIGSYS; its field `si_syscall` lies 8 bytes into the union,
        // which starts at 16 on every 64-bit Linux (asm-generic/siginfo.h).
        let number = unsafe { info.cast::<u8>().add(24).cast::<i32>().read() };
        let mut line = *b"system call 00000 is not allowed by the sandbox\n";
        let mut n = number.unsigned_abs();
        for place in line[12..17].iter_mut().rev() {
            *place = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        // SAFETY: both calls are async-signal-safe and allowed by every policy; the buffer is ours.
        unsafe {
            libc::write(2, line.as_ptr().cast(), line.len());
            libc::_exit(EXIT_TRAPPED);
        }
    }
    // SAFETY: the action is fully initialised and its handler calls only async-signal-safe functions.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = trapped as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &action, core::ptr::null_mut());
    }
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
