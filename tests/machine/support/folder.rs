//! A place for the files of one test.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::PathBuf;

/// A folder of one test, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new(test: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// The name of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
