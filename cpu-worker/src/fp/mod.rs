//! Floating-point and SIMD arithmetic of the guest, without the guest.
//!
//! Everything here is a function of its operands and of a control register: no vCPU, no guest memory, no
//! exception delivery. That is what lets the same kernels serve the interpreter, the translator's helper
//! calls and the vector runners.
//!
//! On an x86 host each operation is the host's own instruction, run under the guest's rounding, precision and
//! exception masks, so that results and flags are exact by construction, the transcendental functions and the
//! reciprocal approximations included (they are then the host's, as they are under hardware
//! virtualisation). A soft-float library on every host was rejected: ten times slower and, for the functions
//! that no standard defines, a different answer. [`x87::soft`] is the
//! arithmetic in integers, the twin that the tests compare the host's instructions with; other hosts will use it once
//! it has the transcendental functions, and the SIMD kernels a portable form.

pub mod f80;
#[cfg(target_arch = "x86_64")]
pub mod sse;
pub mod x87;
mod xmm;

pub use f80::F80;
pub use xmm::Xmm;
