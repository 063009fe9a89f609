//! Policy files: their language, and their way to BPF.
//!
//! A line is `CALL`, `CALL CONDITION`, `CALL = ERRNO`, `CALL CONDITION = ERRNO` or `include NAME`; `#` starts a comment. ERRNO is
//! ENOSYS, or EPERM in the policy of the coordinator, which lists what is refused and allows the rest ([`compile_refusals`]). Conditions:
//! `!exec` (the protection argument has no PROT_EXEC), `!write` (no PROT_WRITE), `thread` (the flags make a thread, not a process),
//! `set-name` (only PR_SET_NAME), `get-auxv` (only PR_GET_AUXV, which finds the vDSO's clock),
//! `set-ptracer` (only PR_SET_PTRACER, which lets a debugger in and nothing out), `empty-path` (only the descriptor itself),
//! `read-only` (no new limit), `own` (the process itself), `data` (commands of fcntl that send nobody signals), `!signal` (requests of
//! ioctl that send nobody signals and type into no terminal), `!unix` (not a socket of this host).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use quintet_protocol::handshake::confine::OWN_PID;

use super::calls::call_number;

/// `prctl` that copies the auxiliary vector (Linux 6.4); not in `libc` yet.
const PR_GET_AUXV: u64 = 0x4155_5856;

/// Commands of `fcntl` that concern the descriptor and its data: F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, the locks of processes and of open files,
/// F_DUPFD_CLOEXEC and the seals (linux/fcntl.h). The others choose who gets a signal, and which.
const DATA_COMMANDS: [u64; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1033, 1034];
/// Requests of `ioctl` that choose who gets a signal or type into a terminal: FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX (asm-generic/ioctls.h).
const SIGNAL_REQUESTS: [u64; 4] = [0x8901, 0x8902, 0x5412, 0x541C];

/// What is wrong with a policy file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No such file.
    #[error("There is no policy \"{0}\"")]
    Unknown(String),
    /// A line is not in the language.
    #[error("Policy \"{policy}\", line {line}: \"{text}\" is not understood")]
    Syntax {
        /// Name of the policy.
        policy: String,
        /// Line number from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// The compiler refused.
    #[error("Policy \"{0}\" does not compile: {1}")]
    Compile(String, String),
}

#[derive(Default)]
struct Rules {
    allow: BTreeMap<i64, Vec<SeccompRule>>,
    errno: BTreeMap<i64, Vec<SeccompRule>>,
    refuse: BTreeMap<i64, Vec<SeccompRule>>,
}

/// Compiles a policy to two programs, to be installed in this order: calls that are answered with ENOSYS, then the
/// list of what is allowed. The kernel takes the stricter answer of the two.
///
/// # Errors
/// [`PolicyError`].
pub fn compile(name: &str) -> Result<Vec<BpfProgram>, PolicyError> {
    let mut rules = Rules::default();
    read(name, &mut rules)?;
    Ok(vec![
        program(name, rules.errno, SeccompAction::Allow, errno(libc::ENOSYS))?,
        program(name, rules.allow, SeccompAction::Trap, SeccompAction::Allow)?,
    ])
}

/// Compiles a policy whose lines are refused with EPERM; what it does not list is allowed.
///
/// # Errors
/// [`PolicyError`].
pub fn compile_refusals(name: &str) -> Result<BpfProgram, PolicyError> {
    let mut rules = Rules::default();
    read(name, &mut rules)?;
    program(name, rules.refuse, SeccompAction::Allow, errno(libc::EPERM))
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number as u32)
}

fn program(
    name: &str,
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, PolicyError> {
    let failed = |e: &dyn std::fmt::Display| PolicyError::Compile(name.to_owned(), e.to_string());
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(|e| failed(&e))?;
    SeccompFilter::new(rules, otherwise, listed, arch)
        .map_err(|e| failed(&e))?
        .try_into()
        .map_err(|e: seccompiler::BackendError| failed(&e))
}

fn read(name: &str, rules: &mut Rules) -> Result<(), PolicyError> {
    let text = super::policy_text(name).ok_or_else(|| PolicyError::Unknown(name.to_owned()))?;
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let syntax = || PolicyError::Syntax {
            policy: name.to_owned(),
            line: index + 1,
            text: line.to_owned(),
        };
        match words[..] {
            [] => {}
            ["include", other] => read(other, rules)?,
            [call] => {
                // A call that this architecture lacks need not be allowed.
                if let Some(number) = call_number(call).ok_or_else(syntax)? {
                    rules.allow.insert(number, Vec::new());
                }
            }
            [call, "=", "ENOSYS"] => {
                if let Some(number) = call_number(call).ok_or_else(syntax)? {
                    rules.errno.insert(number, Vec::new());
                    rules.allow.insert(number, Vec::new());
                }
            }
            [call, condition, "=", "ENOSYS"] => {
                let conditions = conditions(condition).ok_or_else(syntax)?;
                if let Some(number) = call_number(call).ok_or_else(syntax)? {
                    rules.errno.entry(number).or_default().extend(conditions);
                    rules.allow.insert(number, Vec::new());
                }
            }
            [call, "=", "EPERM"] => {
                if let Some(number) = call_number(call).ok_or_else(syntax)? {
                    rules.refuse.insert(number, Vec::new());
                }
            }
            [call, condition] => {
                let conditions = conditions(condition).ok_or_else(syntax)?;
                if let Some(number) = call_number(call).ok_or_else(syntax)? {
                    rules.allow.entry(number).or_default().extend(conditions);
                }
            }
            _ => return Err(syntax()),
        }
    }
    Ok(())
}

/// The rules of which one has to match.
fn conditions(condition: &str) -> Option<Vec<SeccompRule>> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let masked = |argument, mask: i32, value: i32| {
        vec![vec![(
            argument,
            MaskedEq(mask as u32 as u64),
            value as u32 as u64,
        )]]
    };
    let rules = match condition {
        "!exec" => masked(2, libc::PROT_EXEC, 0),
        "!write" => masked(2, libc::PROT_WRITE, 0),
        "thread" => {
            let flags = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
            masked(0, flags, flags)
        }
        "set-name" => vec![vec![(0, Eq, libc::PR_SET_NAME as u64)]],
        "set-ptracer" => vec![vec![(0, Eq, libc::PR_SET_PTRACER as u64)]],
        "get-auxv" => vec![vec![(0, Eq, PR_GET_AUXV)]],
        "empty-path" => masked(3, libc::AT_EMPTY_PATH, libc::AT_EMPTY_PATH),
        "read-only" => vec![vec![(2, Eq, 0)]],
        "own" => vec![vec![(0, Eq, u64::from(OWN_PID))]],
        "data" => DATA_COMMANDS.map(|command| vec![(1, Eq, command)]).into(),
        "!signal" => vec![SIGNAL_REQUESTS.map(|request| (1, Ne, request)).into()],
        "!unix" => vec![vec![(0, Ne, libc::AF_UNIX as u64)]],
        _ => return None,
    };
    // The pointer of prlimit64 has 64 bits; the rest are ints.
    let len = if condition == "read-only" {
        SeccompCmpArgLen::Qword
    } else {
        SeccompCmpArgLen::Dword
    };
    let rule = |conditions: Vec<(u8, SeccompCmpOp, u64)>| {
        let conditions = conditions
            .into_iter()
            .map(|(argument, op, value)| SeccompCondition::new(argument, len.clone(), op, value).ok());
        SeccompRule::new(conditions.collect::<Option<_>>()?).ok()
    };
    rules.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_policy_is_an_error() {
        assert!(matches!(compile("nobody"), Err(PolicyError::Unknown(_))));
    }

    #[test]
    fn no_policy_allows_opening_files_sockets_or_other_processes() {
        for role in ["cpu", "cpu-wasm", "compile", "io", "gpu", "audio"] {
            let mut rules = Rules::default();
            read(role, &mut rules).expect("reads");
            let forbidden = [
                libc::SYS_openat,
                libc::SYS_socket,
                libc::SYS_connect,
                libc::SYS_execve,
                libc::SYS_ptrace,
                libc::SYS_kill,
                libc::SYS_process_vm_writev,
                libc::SYS_memfd_create,
                libc::SYS_unlinkat,
                libc::SYS_mount,
                libc::SYS_bpf,
                libc::SYS_io_uring_setup,
                libc::SYS_setuid,
            ];
            for call in forbidden {
                assert!(!rules.allow.contains_key(&call), "{role}: {call}");
            }
        }
    }

    #[test]
    fn the_coordinator_is_refused_what_no_emulator_needs() {
        let mut rules = Rules::default();
        read("coordinator", &mut rules).expect("reads");
        assert!(rules.allow.is_empty() && rules.errno.is_empty());
        for call in [
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_mount,
            libc::SYS_bpf,
        ] {
            assert!(rules.refuse.contains_key(&call), "{call}");
        }
        // Its workers are its children, and what it may not they may not either.
        for call in [
            libc::SYS_execve,
            libc::SYS_unshare,
            libc::SYS_seccomp,
            libc::SYS_clone,
        ] {
            assert!(!rules.refuse.contains_key(&call), "{call}");
        }
        assert!(compile_refusals("coordinator").is_ok());
    }

    #[test]
    fn memory_can_be_mapped_only_without_execution() {
        for role in ["cpu", "cpu-wasm", "compile", "io", "gpu", "audio"] {
            only_with_conditions(role);
        }
    }

    fn only_with_conditions(role: &str) {
        let mut rules = Rules::default();
        read(role, &mut rules).expect("reads");
        for call in [
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_clone,
            libc::SYS_prctl,
            libc::SYS_tgkill,
            libc::SYS_fcntl,
            libc::SYS_prlimit64,
        ] {
            assert!(
                !rules.allow[&call].is_empty(),
                "{role}: call {call} is allowed without a condition"
            );
        }
    }
}
