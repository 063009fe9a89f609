//! Where the sound goes.

mod hash;
mod null;
mod wav;

pub use hash::HashSink;
pub use null::NullSink;
pub use wav::{WavError, WavSink};

use quintet_protocol::audio::Format;

/// A destination of frames. It keeps up by itself: whatever goes wrong is its own to tell, once, and to live with.
pub trait Sink: Send + core::fmt::Debug {
    /// A stream of this format begins, or the format changes.
    fn start(&mut self, format: Format);

    /// By how many frames the producer may be late before silence takes their place: none, where somebody listens.
    fn patience(&self, _format: Format) -> u64 {
        0
    }

    /// Plays interleaved samples of the format told last. The first `real` frames came from the ring; silence stands for
    /// the others.
    fn play(&mut self, samples: &[f32], real: usize);

    /// The stream has ended; another may begin.
    fn stop(&mut self);
}
