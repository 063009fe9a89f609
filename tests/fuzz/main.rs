//! Hostile writers (S3.63): a process writes anything into the files that it may write, while the real readers of the
//! other processes work. No reader panics, hangs, or looks outside; what it answers is what its module defines.
//!
//! `replay` gives every fuzz target its corpus (docs/fuzzing.md); the others are seeded and in one process, so that a finding can
//! be had again; a few seconds in a usual run, minutes with
//! `cargo xtask test --long`.

mod budget;
mod replay;
mod seeded;
mod workers;
