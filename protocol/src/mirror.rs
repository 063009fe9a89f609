//! Mirrored registers: what guests poll, readable without asking (UART line status, ATA status …).
//!
//! A device publishes the registers whose reading has no effect, together with the number of the last command of
//! each vCPU that they take into account. A vCPU may believe a mirror only while it has posted nothing to that
//! device beyond that number; else it has to ask. Publishing without numbers was rejected: a guest that writes a
//! command and polls status would read the status from before the command.
//!
//! A mirror is a seqlock in io-worker's file: the numbers, a mask of the bytes that are valid now, the bytes.

use crate::layout::MAX_VCPUS;
use crate::seqlock::{ReadLimit, SEQ_HEADER, SeqReader, SeqWriter, seq_size};
use crate::shm::{View, ViewMut};
use crate::sync::Ordering;
use crate::words::{ReadWords, WriteWords};

/// Bytes of registers in a mirror.
pub const MIRROR_BYTES: usize = 32;
/// Number of mirrors.
pub const MIRRORS: usize = 32;
const APPLIED: usize = SEQ_HEADER;
const MASK: usize = APPLIED + MAX_VCPUS * 8;
const BYTES: usize = MASK + 8;
/// Bytes that a mirror takes.
pub const MIRROR_SIZE: usize = seq_size(MAX_VCPUS * 8 + 8 + MIRROR_BYTES);

/// The writing end of one mirror, in io-worker.
#[derive(Debug)]
pub struct MirrorWriter<W = ViewMut>(SeqWriter<W>);

impl<W: WriteWords> MirrorWriter<W> {
    /// The mirror that starts `words`.
    pub fn new(words: W) -> Self {
        Self(SeqWriter::new(words))
    }

    /// Publishes register bytes; bit n of `valid` says that byte n may be read here. `applied` holds, per vCPU,
    /// the number of the last command that the bytes take into account.
    pub fn publish(&mut self, applied: &[u64; MAX_VCPUS], valid: u32, bytes: &[u8; MIRROR_BYTES]) {
        self.0.write_with(|w| {
            for (vcpu, number) in applied.iter().enumerate() {
                w.store_u64(APPLIED + vcpu * 8, *number, Ordering::Relaxed);
            }
            w.store_u32(MASK, valid, Ordering::Relaxed);
            w.write_bytes(BYTES, bytes);
        });
    }
}

/// The reading end of one mirror, in cpu-worker.
#[derive(Clone, Debug)]
pub struct MirrorReader<R = View>(SeqReader<R>);

impl<R: ReadWords> MirrorReader<R> {
    /// The mirror that starts `words`.
    pub fn new(words: R) -> Self {
        // Asking is the way out, so a busy mirror is not worth waiting for.
        Self(SeqReader::with_limit(
            words,
            ReadLimit {
                tries: 64,
                nanos: 100_000,
            },
        ))
    }

    /// The register of `size` (1, 2, 4) bytes at `offset`, if it may be read here by `vcpu`, whose last command
    /// posted to the device has number `posted` (0 for none). `None` means: ask.
    #[inline]
    pub fn read(&self, vcpu: usize, posted: u64, offset: usize, size: usize) -> Option<u32> {
        if vcpu >= MAX_VCPUS || !matches!(size, 1 | 2 | 4) || offset + size > MIRROR_BYTES {
            return None;
        }
        let mut bytes = [0; 4];
        let taken = self.0.read_with(|w| {
            w.read_bytes(BYTES + offset, &mut bytes[..size]);
            (
                w.load_u64(APPLIED + vcpu * 8, Ordering::Relaxed),
                w.load_u32(MASK, Ordering::Relaxed),
            )
        });
        let (_, (applied, valid)) = taken.ok()?;
        let wanted = ((1u32 << size) - 1) << offset;
        (applied >= posted && valid & wanted == wanted).then(|| u32::from_le_bytes(bytes))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    fn mirror() -> (ViewMut, MirrorWriter, MirrorReader) {
        let words = ViewMut::new(Arc::new(Map::anonymous(4096).unwrap()));
        (
            words.clone(),
            MirrorWriter::new(words.clone()),
            MirrorReader::new(words.view().clone()),
        )
    }

    fn bytes(at: usize, value: u8) -> [u8; MIRROR_BYTES] {
        let mut b = [0; MIRROR_BYTES];
        b[at] = value;
        b
    }

    #[test]
    fn a_mirror_counts_only_while_nothing_newer_is_posted_by_this_vcpu() {
        let (_, mut w, r) = mirror();
        let mut applied = [0; MAX_VCPUS];
        applied[1] = 10;
        w.publish(&applied, 1 << 5, &bytes(5, 0x60));
        assert_eq!(r.read(1, 9, 5, 1), Some(0x60));
        assert_eq!(r.read(1, 10, 5, 1), Some(0x60));
        assert_eq!(r.read(1, 11, 5, 1), None);
        assert_eq!(r.read(0, 1, 5, 1), None);
        assert_eq!(r.read(0, 0, 5, 1), Some(0x60));
    }

    #[test]
    fn bytes_outside_the_mask_and_outside_the_mirror_are_asked_for() {
        let (_, mut w, r) = mirror();
        w.publish(&[0; MAX_VCPUS], 0b0110, &bytes(1, 7));
        assert_eq!(r.read(0, 0, 1, 2), Some(7));
        assert_eq!(r.read(0, 0, 2, 2), None);
        assert_eq!(r.read(0, 0, 0, 1), None);
        assert_eq!(r.read(0, 0, MIRROR_BYTES - 1, 2), None);
        assert_eq!(r.read(MAX_VCPUS, 0, 1, 1), None);
        assert_eq!(r.read(0, 0, 1, 3), None);
    }

    #[test]
    fn a_mirror_left_busy_by_a_dead_writer_is_asked_for() {
        let (words, mut w, r) = mirror();
        w.publish(&[0; MAX_VCPUS], !0, &bytes(0, 1));
        words.store_u32(0, 3, Ordering::Relaxed);
        assert_eq!(r.read(0, 0, 0, 1), None);
    }
}
