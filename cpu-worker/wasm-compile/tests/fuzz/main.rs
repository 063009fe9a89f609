//! The corpus of the fuzz target `wasm` through that target.

mod target;

use std::path::Path;

#[test]
fn the_target_goes_through_its_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/wasm");
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus") {
        let file = entry.expect("an entry").path();
        println!("{}", file.display());
        target::wasm(&std::fs::read(&file).expect("an input"));
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}
