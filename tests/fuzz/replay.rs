//! The corpus of each fuzz target through that target, so that it does not rot, and what was found once is not found again.

use std::path::Path;

use quintet_tests::fuzz::TARGETS;

/// The folder of a target's inputs.
fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name)
}

#[test]
fn every_target_goes_through_its_corpus() {
    for (name, target) in TARGETS {
        let mut inputs = 0;
        let mut files: Vec<_> = std::fs::read_dir(folder(name))
            .unwrap_or_else(|e| panic!("the corpus of {name}: {e}"))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        for file in files {
            let data = std::fs::read(&file).expect("an input");
            // Shown when it fails.
            println!("{}", file.display());
            target(&data);
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn every_target_has_a_program_and_every_corpus_a_target() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for name in &names {
        let program = root.join("fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(&program).unwrap_or_default();
        assert!(
            text.contains(&format!("fuzz::{name}(data)")),
            "{}",
            program.display()
        );
    }
    for entry in std::fs::read_dir(root.join("corpus")).expect("the corpora") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        // The one whose function is next to the compiler (cpu-worker/wasm-compile/tests).
        assert!(name == "wasm" || names.contains(&&*name), "{name} has no target");
    }
}
