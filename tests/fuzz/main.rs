//! Hostile writers (S3.63): a process writes anything into the files that it may write, while the real readers of the
//! other processes work. No reader panics, hangs, or looks outside; what it answers is what its module defines.
//!
//! Seeded and in one process, so that a finding can be had again; a few seconds in a usual run, minutes with
//! `cargo xtask test --long`.

mod ends;
mod scribble;
mod workers;
