//! x87 state (SDM vol. 1, 8.1): the unit that [`crate::fp`] computes on, and the 128-bit registers.

pub use crate::fp::x87::Unit as FpuState;
pub use crate::fp::{F80, Xmm};
