//! The cpu-worker of Quintet: vCPUs and the core complex.
//!
//! A library, so that tests, fuzzers and `--single-process` link the code that the process runs.

pub mod bus;
pub mod core_complex;
pub mod cpuid;
pub mod except;
pub mod exec;
pub mod fp;
pub mod gdb;
pub mod interp;
#[cfg(target_arch = "x86_64")]
pub mod jit;
pub mod machine;
pub mod mmu;
pub mod state;
pub mod vga;

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!(
    "Quintet needs a 64-bit little-endian host: the register file and guest RAM are accessed in place"
);
