//! Mistakes of the user, for the tests of what is said to them: files that are none, and how a refusal looks.

use std::path::PathBuf;
use std::process::Output;

use super::run_to_end;

/// A folder with files, removed at the end.
pub struct Files(PathBuf);

impl Files {
    /// An empty one. `test` is unique among the tests of the package.
    pub fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("quintet-mistakes-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        Self(dir)
    }

    /// The folder itself.
    pub fn path(&self) -> String {
        self.0.display().to_string()
    }

    /// A new file in it.
    pub fn with(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("file");
        path.display().to_string()
    }

    /// A file that is not there.
    pub fn missing(&self) -> String {
        self.0.join("no-such-file").display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Numbers without a pattern, the same in every run.
pub fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Runs a small machine to its end, which a time limit brings where the options do not.
pub fn run(options: &[&str]) -> Output {
    let mut arguments = vec![
        "run",
        "--headless",
        "--serial",
        "none",
        "--ram",
        "32M",
        "--time-limit",
        "30s",
    ];
    arguments.extend(options);
    run_to_end(&arguments)
}

/// One line on the standard error that contains `part`, and exit status 1.
pub fn assert_refused(output: &Output, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("quintet: ") && text.contains(part), "{text}");
    assert!(output.stdout.is_empty());
}
