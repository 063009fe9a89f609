//! The processor's exceptional side, by guest code: what the vectors of docs/conformance.md do not reach.

mod backdoor;
mod breakpoints;
mod debugger;
mod fast_call;
mod faults;
mod gates;
mod loops;
mod machine;
mod paging;
mod returns;
mod segments;
mod single_step;
mod smc;
mod straddle;
mod tasks;
mod v86;
