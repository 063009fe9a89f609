//! Sound devices: registers and DMA. What they play is staged in a [`Playback`], and goes to audio-worker after the commit.

pub mod ac97;
mod playback;

pub use playback::{Playback, Staged};
