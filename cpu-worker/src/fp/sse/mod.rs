//! SIMD kernels: the host's SSE units under the guest's MXCSR.
//!
//! An instruction is a value here, chosen once when the guest's code is decoded: a function on two
//! registers ([`Integer`]) or a [`Float`]. An immediate is part of that choice: each of its values is a
//! kernel of its own, as the host encodes it, taken from a table. Interpreting immediates at run time was
//! rejected: it costs at every execution what a table costs once in code size.
//!
//! The kernels execute the instruction itself, so a guest's CPUID must not offer what the host lacks:
//! [`Extensions::host`] says what that is.

mod extension;
pub mod float;
mod host;
pub mod immediate;
pub mod integer;
pub mod mmx;
pub mod string;
mod unmasked;

pub use super::Xmm;
pub use extension::Extensions;
pub use float::{Comparison, Float, SimdException, ToInteger, mxcsr};

/// An instruction without exceptions: the new destination from the old one and the source.
pub type Integer = fn(&mut Xmm, &Xmm);
