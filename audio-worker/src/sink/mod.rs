//! Where the sound goes.

mod hash;
mod null;
mod wav;

pub use hash::HashSink;
pub use null::NullSink;
pub use wav::{WavError, WavSink};

use quintet_protocol::audio::Format;

/// What decides when a sink takes frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// VM time: somebody listens, and hears silence where a frame is missing when it is due.
    Clock,
    /// The producer: frames are taken as they come, so that neither process can be late. The producer counts them by VM time.
    Ring,
}

/// A destination of frames. It keeps up by itself: whatever goes wrong is its own to tell, once, and to live with.
pub trait Sink: Send + core::fmt::Debug {
    /// A stream of this format begins, or the format changes.
    fn start(&mut self, format: Format);

    /// What decides when frames are taken.
    fn pace(&self) -> Pace {
        Pace::Clock
    }

    /// Plays interleaved samples of the format told last. The first `real` frames came from the ring; silence stands for
    /// the others.
    fn play(&mut self, samples: &[f32], real: usize);

    /// The stream has ended; another may begin.
    fn stop(&mut self);
}
