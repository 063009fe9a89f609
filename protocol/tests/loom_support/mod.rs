//! Word memory made of loom's atomics, so that the crate's own algorithms run under the model checker.

#![allow(dead_code, reason = "each model uses its part")]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use quintet_protocol::words::{ReadWords, WriteWords};

/// Shared memory of a model. 32-bit and 64-bit words at the same offset are different words here: no
/// algorithm accesses one place with two widths. Bytes are accessed as relaxed 32-bit words, the weakest thing
/// that hardware does with plain accesses.
#[derive(Clone)]
pub struct Words {
    narrow: Arc<Vec<AtomicU32>>,
    wide: Arc<Vec<AtomicU64>>,
    start: usize,
    len: usize,
    fences: bool,
}

impl Words {
    /// Zeroed memory of `len` bytes.
    pub fn new(len: usize) -> Self {
        // A 64-bit word exists only where an algorithm keeps one: at the start.
        let wide = (0..len.min(16) / 8).map(|_| AtomicU64::new(0)).collect();
        let narrow = (0..len / 4).map(|_| AtomicU32::new(0)).collect();
        Self {
            narrow: Arc::new(narrow),
            wide: Arc::new(wide),
            start: 0,
            len,
            fences: true,
        }
    }

    /// The same memory for an algorithm that forgets its fences.
    pub fn without_fences(&self) -> Self {
        Self {
            fences: false,
            ..self.clone()
        }
    }

    /// The part from `start` on; without 64-bit words unless `start` is zero.
    pub fn from(&self, start: usize) -> Self {
        Self {
            start: self.start + start,
            len: self.len - start,
            ..self.clone()
        }
    }

    fn u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset % 4 == 0 && offset < self.len);
        &self.narrow[(self.start + offset) / 4]
    }

    fn u64(&self, offset: usize) -> &AtomicU64 {
        &self.wide[(self.start + offset) / 8]
    }
}

impl ReadWords for Words {
    fn size(&self) -> usize {
        self.len
    }
    fn load_u32(&self, offset: usize, order: Ordering) -> u32 {
        self.u32(offset).load(order)
    }
    fn load_u64(&self, offset: usize, order: Ordering) -> u64 {
        self.u64(offset).load(order)
    }
    fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        for (n, part) in into.chunks_mut(4).enumerate() {
            let word = self.load_u32(offset + n * 4, Ordering::Relaxed).to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }
    fn full_fence(&self) {
        if self.fences {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }
}

impl WriteWords for Words {
    fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        self.u32(offset).store(value, order);
    }
    fn store_u64(&self, offset: usize, value: u64, order: Ordering) {
        self.u64(offset).store(value, order);
    }
    fn swap_u32(&self, offset: usize, value: u32, order: Ordering) -> u32 {
        self.u32(offset).swap(value, order)
    }
    fn fetch_or_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32 {
        self.u32(offset).fetch_or(bits, order)
    }
    fn fetch_and_u32(&self, offset: usize, bits: u32, order: Ordering) -> u32 {
        self.u32(offset).fetch_and(bits, order)
    }
    fn write_bytes(&self, offset: usize, from: &[u8]) {
        for (n, part) in from.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            self.store_u32(offset + n * 4, u32::from_le_bytes(word), Ordering::Relaxed);
        }
    }
}

/// Runs a model with a bound on preemptions that keeps it within seconds; unbounded when
/// `LOOM_MAX_PREEMPTIONS` says otherwise.
pub fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(3);
    }
    builder.max_branches = 100_000;
    builder.check(f);
}
