//! A fingerprint of what was played: for tests that compare sound without keeping it.

use std::sync::{Arc, Mutex};

use quintet_protocol::audio::Format;

use super::Sink;

/// What has been played so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// FNV-1a over rate, channels and the samples' bits.
    pub hash: u64,
    /// Frames from the ring.
    pub frames: u64,
}

/// Hashes the frames that came from the ring, and leaves the silence of underruns out: so the digest depends on what the
/// guest played, and not on how fast the host is.
#[derive(Debug, Clone)]
pub struct HashSink {
    digest: Arc<Mutex<Digest>>,
    channels: usize,
}

impl Default for HashSink {
    fn default() -> Self {
        Self {
            digest: Arc::new(Mutex::new(Digest {
                hash: 0xCBF2_9CE4_8422_2325,
                frames: 0,
            })),
            channels: 1,
        }
    }
}

impl HashSink {
    /// The digest so far; clones of a sink share it.
    pub fn digest(&self) -> Digest {
        *self
            .digest
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn add(&self, words: impl Iterator<Item = u32>, frames: u64) {
        let mut digest = self
            .digest
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for byte in words.flat_map(u32::to_le_bytes) {
            digest.hash = (digest.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        digest.frames += frames;
    }
}

impl Sink for HashSink {
    fn start(&mut self, format: Format) {
        self.channels = format.channels as usize;
        self.add([format.rate, format.channels].into_iter(), 0);
    }

    fn play(&mut self, samples: &[f32], real: usize) {
        self.add(
            samples[..real * self.channels]
                .iter()
                .map(|sample| sample.to_bits()),
            real as u64,
        );
    }

    fn stop(&mut self) {}
}
