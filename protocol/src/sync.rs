//! The gate for atomics: `core`'s in a build, loom's under `cfg(loom)`.
//!
//! A test (`tests/atomics_gate.rs`) keeps every other module from naming the atomics of `std`, so that
//! whatever shares memory can be model-checked.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

pub use crossbeam_utils::CachePadded;

/// Size of a cache line that two writers must not share, in bytes. 128, not 64: adjacent-line prefetch
/// pairs lines on x86 hosts, and Arm servers have lines of 128.
pub const CACHE_LINE: usize = 128;

/// Lets another thread run that waits for this processor, if there is one: perhaps the very peer whose answer is spun for.
#[inline]
pub fn yield_processor() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// What a spinning loop does between two looks: the processor's hint, or a switch of threads in a model.
#[inline]
pub fn spin_hint() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
