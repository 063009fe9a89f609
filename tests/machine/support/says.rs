//! A command of `quintet` about a machine that runs, as a user gives it, and what it says.

use std::process::Command;

/// Runs `quintet` with these words, and answers whether it did as told and what it said on the standard error.
pub fn quintet_says(words: &[&str]) -> (bool, String) {
    let output = Command::new(crate::support::quintet().expect("it is there"))
        .args(words)
        .output()
        .expect("quintet");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}
