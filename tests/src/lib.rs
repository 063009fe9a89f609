//! Harness of the whole-machine tests and the conformance runners.

pub mod fuzz;
pub mod intops;
pub mod moo;
pub mod random;
pub mod snippet;
pub mod twins;
pub mod vectors;
