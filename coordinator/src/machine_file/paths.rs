//! Which options name files, and where in their values.

use std::path::Path;

use crate::images::{EMPTY, words};
use crate::wasm::dirs::SEPARATOR;

/// Where the value of an option names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Nowhere.
    Nothing,
    /// It is one.
    File,
    /// It is one, or the word for an empty drive.
    Medium,
    /// Up to the first comma, and behind one of the keys; a comma in a name is written twice.
    Image(&'static [&'static str]),
    /// At the start of every part between commas, up to a space.
    Modules,
    /// Behind one of the prefixes, which may themselves stand behind something and a colon.
    Behind(&'static [&'static str]),
    /// Up to the name that a module knows it by.
    Directory,
}

/// What the value of `--option` names; none for an option that this table has not heard of.
pub(super) fn names(option: &str) -> Option<Names> {
    Some(match option {
        "cdrom" | "floppy" => Names::Medium,
        "kernel" | "firmware" | "wasm" | "trace" | "profile" | "report" | "merge" => Names::File,
        "disk" | "pflash" => Names::Image(&["overlay"]),
        "device" => Names::Image(&["romfile"]),
        "initrd" => Names::Modules,
        "serial" | "debugcon" => Names::Behind(&["file:"]),
        "metrics" => Names::Behind(&["unix:"]),
        "audio" => Names::Behind(&["wav:"]),
        "dir" => Names::Directory,
        "headless" | "name" | "ram" | "cpus" | "cpu" | "accel" | "append" | "boot" | "invoke" | "json"
        | "exit-code" | "jobs" | "no-reboot" | "exit-port" | "time-limit" | "gdb" | "wait-for-debugger"
        | "external" | "software" | "any-gpu" | "log" | "check-jit" | "single-process" | "no-sandbox"
        | "backend" | "stable-after" | "hang-timeout" | "transport" | "refuse-map" | "pretend-available"
        | "duration" | "every" | "faults" | "seed" => Names::Nothing,
        _ => return None,
    })
}

/// The value with its relative file names taken from `dir`.
pub(super) fn rebase(option: &str, value: &str, dir: &Path) -> String {
    match names(option) {
        None | Some(Names::Nothing) => value.to_owned(),
        Some(Names::Medium) if value == EMPTY => value.to_owned(),
        Some(Names::File | Names::Medium) => join(dir, value),
        Some(Names::Image(keys)) => {
            let mut parts = words(value);
            for (at, part) in parts.iter_mut().enumerate() {
                *part = match part.split_once('=') {
                    Some((key, file)) if at > 0 && keys.contains(&key) => {
                        format!("{key}={}", join(dir, file))
                    }
                    // A device's name, or a file's.
                    _ if at == 0 && option != "device" => join(dir, part),
                    _ => continue,
                };
            }
            let doubled: Vec<String> = parts.iter().map(|part| part.replace(',', ",,")).collect();
            doubled.join(",")
        }
        Some(Names::Modules) => {
            let modules: Vec<String> = value.split(',').map(|m| join(dir, m.trim_start())).collect();
            modules.join(",")
        }
        Some(Names::Behind(prefixes)) => {
            for prefix in prefixes {
                if let Some((before, file)) = value.split_once(prefix)
                    && (before.is_empty() || before.ends_with(':'))
                {
                    return format!("{before}{prefix}{}", join(dir, file));
                }
            }
            value.to_owned()
        }
        Some(Names::Directory) => {
            let (host, guest) = value.split_once(SEPARATOR).unwrap_or((value, value));
            format!("{}{SEPARATOR}{guest}", join(dir, host))
        }
    }
}

/// An empty name stays one, for its option to refuse.
fn join(dir: &Path, file: &str) -> String {
    if file.is_empty() {
        return String::new();
    }
    dir.join(file).display().to_string()
}
