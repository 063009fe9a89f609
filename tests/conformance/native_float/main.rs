//! Floating-point and SIMD instructions in the interpreter, compared with this machine's CPU.
#![cfg(target_arch = "x86_64")]

mod faults;
mod instructions;
mod native;
mod state;
mod twin;
