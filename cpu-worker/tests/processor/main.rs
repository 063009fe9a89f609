//! The processor's exceptional side, by guest code: what the vectors of docs/conformance.md do not reach.

mod breakpoints;
#[allow(dead_code, reason = "not every helper has its test yet")]
mod machine;
mod single_step;
