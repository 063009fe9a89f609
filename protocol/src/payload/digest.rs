//! Digests of payloads, and taking them beside other work.

use super::INLINE_LIMIT;

/// SHA-256.
pub type Digest = [u8; 32];

/// The digest of `bytes`.
pub fn digest(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

/// The digest of `bytes`, taken by a thread while `meanwhile` goes on: what is short, or finds no thread, waits.
pub fn digest_beside<T>(bytes: &[u8], meanwhile: impl FnOnce() -> T) -> (Digest, T) {
    if (bytes.len() as u64) < INLINE_LIMIT {
        return (digest(bytes), meanwhile());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("digest".into());
        let thread = thread.spawn_scoped(scope, || digest(bytes));
        let done = meanwhile();
        let taken = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
            Err(_) => digest(bytes),
        };
        (taken, done)
    })
}
