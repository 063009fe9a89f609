//! Where the CPU test vectors are, and how they are read.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The folder of the vectors: `QUINTET_VECTORS`, else `../shared/vectors` beside the repository.
///
/// `None`, said loudly, when there is no such folder; with `CI=true` that is a panic, since a skipped
/// conformance test is a failed one there.
pub fn folder() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let path = std::env::var_os("QUINTET_VECTORS").map_or_else(default, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    let text = format!(
        "SKIPPED: no CPU vectors in {}; set QUINTET_VECTORS to their folder",
        path.display()
    );
    assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "{text}");
    eprintln!("{text}");
    None
}

/// The files of `folder` whose names end in `suffix`, in order.
///
/// # Panics
/// When the folder cannot be read.
pub fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut all: Vec<_> = entries
        .map(|e| e.expect("folder entry").path())
        .filter(|p| p.to_string_lossy().ends_with(suffix))
        .collect();
    all.sort();
    all
}

/// The decompressed contents of a `.gz` file.
///
/// # Panics
/// When it cannot be read or is not gzip.
pub fn gunzip(path: &Path) -> Vec<u8> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes
}
