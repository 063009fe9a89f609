//! What each worker is allowed, as data; the worker applies it to itself (`protocol::handshake::confine`).
//!
//! "Which system calls may the io-worker make?" is a file name: `policies/io.policy`. Applying the filter before
//! `exec` was rejected: it would have to allow what only the dynamic loader needs.

mod calls;
mod policy;

use quintet_protocol::handshake::confine::encode_instruction;
use quintet_protocol::handshake::{Confinement, Role};

pub use policy::{PolicyError, compile};

/// The text of a policy file; `None` for a name that has none.
pub fn policy_text(name: &str) -> Option<&'static str> {
    Some(match name {
        "common" => include_str!("policies/common.policy"),
        "cpu" => include_str!("policies/cpu.policy"),
        "cpu-wasm" => include_str!("policies/cpu-wasm.policy"),
        "compile" => include_str!("policies/compile.policy"),
        "io" => include_str!("policies/io.policy"),
        "gpu" => include_str!("policies/gpu.policy"),
        "audio" => include_str!("policies/audio.policy"),
        _ => return None,
    })
}

/// What `role` has to give up; nothing when not `enabled`.
///
/// # Errors
/// [`PolicyError`] when a policy file is wrong, which the tests rule out.
pub fn confinement(role: Role, enabled: bool) -> Result<Confinement, PolicyError> {
    confinement_by(role.name(), enabled)
}

/// As [`confinement`], by the name of a policy.
///
/// # Errors
/// [`PolicyError`].
pub fn confinement_by(policy: &str, enabled: bool) -> Result<Confinement, PolicyError> {
    if !enabled {
        return Ok(Confinement::default());
    }
    let programs = compile(policy)?;
    Ok(Confinement {
        enabled: true,
        seccomp: programs
            .iter()
            .map(|p| p.iter().map(encode_instruction).collect())
            .collect(),
        read_paths: Vec::new(),
        write_paths: Vec::new(),
        // Twice what a start needs: shared files, channels, log, payloads.
        max_files: 256,
        max_threads: None,
        max_data: Some(2 << 30),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_a_policy_that_compiles_and_is_small_enough() {
        for role in Role::WORKERS {
            let c = confinement(role, true).expect("compiles");
            assert_eq!(c.seccomp.len(), 2, "{role}");
            // BPF_MAXINSNS of the kernel.
            assert!(
                c.seccomp.iter().all(|p| !p.is_empty() && p.len() < 4096),
                "{role}"
            );
        }
    }

    #[test]
    fn without_a_sandbox_nothing_is_asked_for() {
        assert_eq!(
            confinement(Role::Io, false).expect("nothing"),
            Confinement::default()
        );
    }
}
