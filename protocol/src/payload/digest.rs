//! Digests of payloads, and taking them beside other work.

use super::INLINE_LIMIT;
use crate::sync::{AtomicBool, Ordering};

/// SHA-256.
pub type Digest = [u8; 32];

/// The digest of `bytes`.
pub fn digest(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

/// Bytes of which the digest is taken before others may have the processor.
const PIECE: usize = 256 << 10;

/// Which of two things goes first where both have one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The digest.
    Digest,
    /// What goes on meanwhile.
    Other,
}

/// The digest of `bytes`, taken by a thread while `meanwhile` goes on: what is short, or finds no thread, waits.
pub fn digest_beside<T>(bytes: &[u8], first: First, meanwhile: impl FnOnce() -> T) -> (Digest, T) {
    use sha2::Digest as _;
    if (bytes.len() as u64) < INLINE_LIMIT {
        return (digest(bytes), meanwhile());
    }
    let patient = AtomicBool::new(first == First::Other);
    let take = || {
        let mut sha = sha2::Sha256::new();
        for piece in bytes.chunks(PIECE) {
            if patient.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            sha.update(piece);
        }
        sha.finalize().into()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("digest".into());
        let thread = thread.spawn_scoped(scope, take);
        if first == First::Digest {
            std::thread::yield_now();
        }
        let done = meanwhile();
        patient.store(false, Ordering::Relaxed);
        let taken = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
            Err(_) => digest(bytes),
        };
        (taken, done)
    })
}
