//! Nowhere, at the right pace.

use quintet_protocol::audio::Format;

use super::Sink;

/// Takes frames and forgets them. The guest hears of no difference.
#[derive(Debug, Default)]
pub struct NullSink;

impl Sink for NullSink {
    fn start(&mut self, _format: Format) {}

    fn play(&mut self, _samples: &[f32], _real: usize) {}

    fn stop(&mut self) {}
}
