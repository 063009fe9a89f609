//! The rule that atomics come from `quintet_protocol::sync`, kept by reading the sources of every crate.
//!
//! Clippy's `disallowed-types` was tried: it looks through re-exports, so it forbids the gate too.

use std::fs;
use std::path::Path;

/// The gate, and the one module that makes atomics out of shared words.
const MAY: [&str; 2] = ["protocol/src/sync.rs", "protocol/src/shm/view.rs"];

fn offenders(root: &Path, dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            offenders(root, &path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let direct = ["std::sync::atomic", "core::sync::atomic", "loom::sync::atomic"];
            if direct.iter().any(|d| text.contains(d)) && !MAY.contains(&name.as_str()) {
                found.push(name);
            }
        }
    }
}

#[test]
fn no_module_but_the_gate_names_the_atomics_of_the_standard_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for krate in [
        "protocol",
        "coordinator",
        "cpu-worker",
        "io-worker",
        "gpu-worker",
        "audio-worker",
    ] {
        offenders(root, &root.join(krate).join("src"), &mut found);
    }
    assert!(
        found.is_empty(),
        "use quintet_protocol::sync instead of the standard atomics in {found:?}"
    );
}
