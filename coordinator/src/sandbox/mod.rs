//! What each worker is allowed, as data; the worker applies it to itself (`protocol::handshake::confine`).
//!
//! "Which system calls may the io-worker make?" is a file name: `policies/io.policy`. Applying the filter before
//! `exec` was rejected: it would have to allow what only the dynamic loader needs.

mod calls;
mod display;
pub mod own;
mod policy;

use quintet_protocol::handshake::confine::encode_instruction;
use quintet_protocol::handshake::{Confinement, Network, Role};

pub use policy::{PolicyError, compile};

/// The text of a policy file; `None` for a name that has none.
pub fn policy_text(name: &str) -> Option<&'static str> {
    Some(match name {
        "common" => include_str!("policies/common.policy"),
        "coordinator" => include_str!("policies/coordinator.policy"),
        "cpu" => include_str!("policies/cpu.policy"),
        "cpu-wasm" => include_str!("policies/cpu-wasm.policy"),
        "compile" => include_str!("policies/compile.policy"),
        "io" => include_str!("policies/io.policy"),
        "io-files" => include_str!("policies/io-files.policy"),
        "gpu" => include_str!("policies/gpu.policy"),
        "gpu-window" => include_str!("policies/gpu-window.policy"),
        "audio" => include_str!("policies/audio.policy"),
        "audio-host" => include_str!("policies/audio-host.policy"),
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
        abstract_sockets: false,
        network: Network::Leave,
        // Twice what a start needs: shared files, channels, log, payloads.
        max_files: 256,
        // Shared memory does not count; what is left is caches and buffers. A limit on all maps (RLIMIT_AS) would have to leave room for
        // guest RAM and code, and so would limit nothing.
        max_data: Some(2 << 30),
        max_file_size: max_file_size(policy),
        // What cannot be swapped is the host's memory.
        max_locked: Some(0),
    })
}

/// How long a worker may make a file, in bytes.
fn max_file_size(policy: &str) -> Option<u64> {
    match policy {
        // Images grow as far as the guest and their formats say.
        "io" | "io-files" => None,
        // The sizes in a WAV file have 32 bits.
        "audio" => Some(4 << 30),
        // They write into shared memory, whose size is fixed, and to pipes.
        _ => Some(0),
    }
}

/// What an audio-worker that plays to the host's sound server or device has to give up: it keeps the way to either, and what ALSA reads.
///
/// # Errors
/// [`PolicyError`].
pub fn sound_confinement(enabled: bool) -> Result<Confinement, PolicyError> {
    let confinement = confinement_by("audio-host", enabled)?;
    if !enabled {
        return Ok(confinement);
    }
    let mut read_paths: Vec<String> = ["/usr", "/lib", "/lib64", "/etc", "/proc/asound"]
        .map(str::to_owned)
        .into();
    // The user's settings, and the key to the server.
    if let Ok(home) = std::env::var("HOME") {
        let settings = [".asoundrc", ".config/alsa", ".config/pulse", ".pulse-cookie"];
        read_paths.extend(settings.map(|below| format!("{home}/{below}")));
    }
    read_paths.extend(
        std::env::var("PULSE_COOKIE")
            .ok()
            .filter(|path| path.starts_with('/')),
    );
    Ok(Confinement {
        read_paths,
        write_paths: vec!["/dev/snd".to_owned()],
        ..confinement
    })
}

/// What a gpu-worker with a window has to give up: it keeps libraries, drivers and what they read, and the way to the
/// window system.
///
/// # Errors
/// [`PolicyError`].
pub fn window_confinement(enabled: bool) -> Result<Confinement, PolicyError> {
    let confinement = confinement_by("gpu-window", enabled)?;
    if !enabled {
        return Ok(confinement);
    }
    let home = |below: &str| std::env::var("HOME").map(|home| format!("{home}/{below}"));
    let mut read_paths: Vec<String> = [
        "/usr",
        "/lib",
        "/lib64",
        "/etc",
        "/proc",
        "/sys",
        "/run/udev",
        "/tmp/.X11-unix",
    ]
    .map(str::to_owned)
    .into();
    // The key to the X server, the user's pointers and driver settings.
    read_paths.extend(std::env::var("XAUTHORITY"));
    read_paths.extend(
        [
            ".Xauthority",
            ".icons",
            ".local/share/icons",
            ".drirc",
            ".XCompose",
        ]
        .map(home)
        .into_iter()
        .flatten(),
    );
    read_paths.extend(std::env::var("XDG_RUNTIME_DIR"));
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let graphics = devices
        .filter_map(|entry| entry.path().into_os_string().into_string().ok())
        .filter(|path| path.starts_with("/dev/nvidia") || path == "/dev/dri" || path == "/dev/udmabuf");
    let mut write_paths: Vec<String> = graphics.collect();
    write_paths.extend(["/dev/shm", "/dev/null", "/dev/zero", "/dev/urandom"].map(str::to_owned));
    Ok(Confinement {
        read_paths,
        write_paths,
        abstract_sockets: true,
        network: display::network(),
        // Drivers keep buffers as descriptors, reserve what they never touch, make files for what they share, and may pin it.
        max_files: 1024,
        max_data: None,
        max_file_size: None,
        max_locked: None,
        ..confinement
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
    fn the_window_keeps_what_drivers_need_and_nothing_of_the_user() {
        let c = window_confinement(true).expect("compiles");
        assert!(c.seccomp.iter().all(|p| !p.is_empty() && p.len() < 4096));
        assert!(c.read_paths.iter().any(|path| path == "/usr"));
        let home = std::env::var("HOME").unwrap_or_default();
        for path in c.read_paths.iter().chain(&c.write_paths) {
            assert!(
                path != "/" && *path != home && path != "/tmp" && path != "/dev",
                "{path}"
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
