//! Policy files: their language, and their way to BPF.
//!
//! A line is `CALL`, `CALL CONDITION`, `CALL = ERRNO` or `include NAME`; `#` starts a comment. Conditions:
//! `!exec` (the protection argument has no PROT_EXEC), `!write` (no PROT_WRITE), `thread` (the flags make a thread, not a process),
//! `set-name` (only PR_SET_NAME), `get-auxv` (only PR_GET_AUXV, which finds the vDSO's clock), `empty-path` (only the descriptor itself), `read-only` (no new limit).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::calls::call_number;

/// `prctl` that copies the auxiliary vector (Linux 6.4); not in `libc` yet.
const PR_GET_AUXV: u64 = 0x4155_5856;

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
}

/// Compiles a policy to two programs, to be installed in this order: calls that are answered with ENOSYS, then the
/// list of what is allowed. The kernel takes the stricter answer of the two.
///
/// # Errors
/// [`PolicyError`].
pub fn compile(name: &str) -> Result<Vec<BpfProgram>, PolicyError> {
    let mut rules = Rules::default();
    read(name, &mut rules)?;
    let failed = |e: &dyn std::fmt::Display| PolicyError::Compile(name.to_owned(), e.to_string());
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(|e| failed(&e))?;
    let program = |rules, mismatch, matched| -> Result<BpfProgram, PolicyError> {
        SeccompFilter::new(rules, mismatch, matched, arch)
            .map_err(|e| failed(&e))?
            .try_into()
            .map_err(|e: seccompiler::BackendError| failed(&e))
    };
    Ok(vec![
        program(
            rules.errno,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
        )?,
        program(rules.allow, SeccompAction::Trap, SeccompAction::Allow)?,
    ])
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
            [call, condition] => {
                let rule = rule(condition).ok_or_else(syntax)?;
                if let Some(number) = call_number(call).ok_or_else(syntax)? {
                    rules.allow.entry(number).or_default().push(rule);
                }
            }
            _ => return Err(syntax()),
        }
    }
    Ok(())
}

fn rule(condition: &str) -> Option<SeccompRule> {
    let masked = |argument, mask: i32, value: i32| {
        (
            argument,
            SeccompCmpOp::MaskedEq(mask as u32 as u64),
            value as u32 as u64,
        )
    };
    let (argument, op, value) = match condition {
        "!exec" => masked(2, libc::PROT_EXEC, 0),
        "!write" => masked(2, libc::PROT_WRITE, 0),
        "thread" => {
            let flags = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
            masked(0, flags, flags)
        }
        "set-name" => (0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64),
        "get-auxv" => (0, SeccompCmpOp::Eq, PR_GET_AUXV),
        "empty-path" => masked(3, libc::AT_EMPTY_PATH, libc::AT_EMPTY_PATH),
        "read-only" => (2, SeccompCmpOp::Eq, 0),
        _ => return None,
    };
    // The pointer of prlimit64 has 64 bits; the rest are ints.
    let len = if condition == "read-only" {
        SeccompCmpArgLen::Qword
    } else {
        SeccompCmpArgLen::Dword
    };
    SeccompRule::new(vec![SeccompCondition::new(argument, len, op, value).ok()?]).ok()
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
        ] {
            assert!(
                !rules.allow[&call].is_empty(),
                "{role}: call {call} is allowed without a condition"
            );
        }
    }
}
