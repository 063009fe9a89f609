//! What the shared-memory algorithms ask of memory, as two small traits.
//!
//! Rings, seqlocks, wires and doorbells are written once, over these, and run on [`View`]s of a segment in
//! a build and on loom's atomics under the model checker. Writing the models as copies of the algorithms was
//! rejected: a copy proves the copy.
//!
//! [`Steps`] serves the other kind of test, the one that kills a process between any two stores.

use crate::shm::{View, ViewMut};
use crate::sync::{Ordering, fence};

/// Memory that can be read by word and by byte. Offsets are in bytes; an offset outside, or misaligned for
/// its width, is a fault of the caller and panics.
pub trait ReadWords {
    /// Length in bytes.
    fn size(&self) -> usize;
    /// Loads the 32-bit word at `offset`.
    fn load_u32(&self, offset: usize, order: Ordering) -> u32;
    /// Loads the 64-bit word at `offset`.
    fn load_u64(&self, offset: usize, order: Ordering) -> u64;
    /// Copies bytes out. A racing writer may tear them.
    fn read_bytes(&self, offset: usize, into: &mut [u8]);
    /// A sequentially consistent fence: between a store to one word and a load of another, on both sides, so that one of
    /// two peers sees the other. A method, so that a model can leave one side's out and show that it is needed.
    #[inline(always)]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// Memory that this process may also write.
pub trait WriteWords: ReadWords {
    /// Stores the 32-bit word at `offset`.
    fn store_u32(&self, offset: usize, value: u32, order: Ordering);
    /// Stores the 64-bit word at `offset`.
    fn store_u64(&self, offset: usize, value: u64, order: Ordering);
    /// Swaps the 32-bit word at `offset`.
    fn swap_u32(&self, offset: usize, value: u32, order: Ordering) -> u32;
    /// Sets bits of the 32-bit word at `offset` and returns what it held.
    fn fetch_or_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32;
    /// Clears all but `bits` of the 32-bit word at `offset` and returns what it held.
    fn fetch_and_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32;
    /// Copies bytes in.
    fn write_bytes(&self, offset: usize, from: &[u8]);
}

macro_rules! forward_reads {
    ($type:ty) => {
        impl ReadWords for $type {
            fn size(&self) -> usize {
                self.len()
            }
            #[inline]
            fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
                <$type>::load_u32(self, offset, order)
            }
            #[inline]
            fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
                <$type>::load_u64(self, offset, order)
            }
            #[inline]
            fn read_bytes(&self, offset: usize, into: &mut [u8]) {
                <$type>::read_bytes(self, offset, into);
            }
        }
    };
}
forward_reads!(View);
forward_reads!(ViewMut);

impl WriteWords for ViewMut {
    #[inline]
    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        Self::store_u32(self, offset, value, order);
    }
    #[inline]
    fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        Self::store_u64(self, offset, value, order);
    }
    #[inline]
    fn swap_u32(&self, offset: usize, value: u32, order: Ordering) -> u32 {
        Self::swap_u32(self, offset, value, order)
    }
    #[inline]
    fn fetch_or_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32 {
        Self::fetch_or_u32(self, offset, bits, order)
    }
    #[inline]
    fn fetch_and_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32 {
        Self::fetch_and_u32(self, offset, bits, order)
    }
    #[inline]
    fn write_bytes(&self, offset: usize, from: &[u8]) {
        Self::write_bytes(self, offset, from);
    }
}

/// A hook before every store that another process can see. Production code uses [`NoSteps`], which
/// compiles to nothing; tests die at the n-th step.
pub trait Steps {
    /// The next shared store is about to happen.
    fn step(&self);
}

/// No hook.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSteps;

impl Steps for NoSteps {
    #[inline(always)]
    fn step(&self) {}
}
