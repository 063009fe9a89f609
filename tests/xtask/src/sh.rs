//! Running other programs, and where things are.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a chore ended, in one line (or with what the user should type below it).
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The repository.
pub fn root() -> PathBuf {
    // tests/xtask is two levels down.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Where cargo builds to.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    // Set by the cargo that started us for this package, and wrong for any other.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    command
}

/// Whether a program is in PATH.
pub fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Whether this runs in continuous integration, where a skip is a failure.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|v| v == "true" || v == "1")
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command and asks for success.
///
/// # Errors
/// A [`Failure`] that shows the command.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|e| Failure::new(format!("cannot run {}: {e}", shown(command))))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("{}: {status}", shown(command))))
    }
}

/// Runs a command and answers what it printed.
///
/// # Errors
/// A [`Failure`] that shows the command and what it said.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let out = command
        .output()
        .map_err(|e| Failure::new(format!("cannot run {}: {e}", shown(command))))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&out.stderr);
        Err(Failure::new(format!(
            "{}: {}\n{}",
            shown(command),
            out.status,
            said.trim_end()
        )))
    }
}

/// Reads a file of the repository.
///
/// # Errors
/// A [`Failure`] that names it.
pub fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

/// Reads a file that need not be text.
///
/// # Errors
/// A [`Failure`] that names it.
pub fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

/// Writes a file, making its directory.
///
/// # Errors
/// A [`Failure`] that names it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::new(format!("{}: {e}", path.display()));
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(fail)?;
    }
    std::fs::write(path, bytes).map_err(fail)
}

/// All files below the repository that git would track, by their path relative to it, sorted.
pub fn tree() -> Result<Vec<PathBuf>, Failure> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    walk(&path, root, found)?;
                }
            } else if let Ok(relative) = path.strip_prefix(root) {
                found.push(relative.to_path_buf());
            }
        }
        Ok(())
    }
    let (root, mut found) = (root(), Vec::new());
    walk(&root, &root, &mut found).map_err(|e| Failure::new(format!("{}: {e}", root.display())))?;
    found.sort();
    Ok(found)
}
