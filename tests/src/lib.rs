//! Harness of the whole-machine tests and the conformance runners.

pub mod intops;
pub mod moo;
pub mod snippet;
pub mod vectors;
