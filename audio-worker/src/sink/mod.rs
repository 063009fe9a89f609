//! Where the sound goes.

mod hash;
pub mod host;
mod null;
mod wav;

pub use hash::HashSink;
pub use host::HostSink;
pub use null::NullSink;
pub use wav::{WavError, WavSink};

use quintet_protocol::audio::Format;

/// Interleaved samples of one or two channels as left and right.
fn stereo(samples: &[f32], format: Format) -> impl Iterator<Item = [f32; 2]> {
    let channels = format.channels as usize;
    let frames = samples.chunks_exact(channels);
    frames.map(move |frame| [frame[0], frame[channels - 1]])
}

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

    /// VM time stands still: nothing comes until it goes on, and nothing is missing.
    fn hold(&mut self) {}

    /// The stream has ended; another may begin.
    fn stop(&mut self);

    /// Frames of the stream that have been played here and not been heard yet.
    fn waiting(&self) -> u32 {
        0
    }

    /// Frames of silence that somebody heard in the middle of a stream because what was played here came too late; wraps.
    fn unheard(&self) -> u32 {
        0
    }
}
