//! What devices play, from the call that plays it to the ring.
//!
//! Frames become audible only after the commit of the device that moved past them, as everything that leaves this process.
//! A kill between the commit and the ring loses them: samples may be lost or repeated (docs/adr/0090-sound.md).

use quintet_protocol::audio::CHANNELS_MAX;

/// Frames that are kept at most; a device that is advanced in time never has so many.
const STAGED_MAX: usize = 192_000;

/// The stream that the sound card plays: its rate, and the frames since the last publication.
#[derive(Debug, Default)]
pub struct Playback {
    rate: Option<u32>,
    begins: bool,
    frames: Vec<f32>,
}

/// What is to be published.
#[derive(Debug, PartialEq)]
pub struct Staged {
    /// Frames per second of the stream that runs; `None` while none does.
    pub rate: Option<u32>,
    /// The stream began since the last time.
    pub begins: bool,
    /// Frames to play, left and right by turns. Without a rate they end the stream that ran.
    pub frames: Vec<f32>,
}

impl Playback {
    /// A stream of `rate` frames per second runs from now on, or none. Nothing happens when that is so already.
    pub fn set_rate(&mut self, rate: Option<u32>) {
        if self.rate == rate {
            return;
        }
        self.rate = rate;
        self.begins = rate.is_some();
        if rate.is_some() {
            // Frames of another rate would be out of tune.
            self.frames.clear();
        }
    }

    /// A predecessor's stream goes on.
    pub fn go_on(&mut self, rate: Option<u32>) {
        self.rate = rate;
        self.begins = false;
    }

    /// Plays a frame, if a stream runs.
    pub fn push(&mut self, left: f32, right: f32) {
        if self.rate.is_some() && self.frames.len() < STAGED_MAX * CHANNELS_MAX as usize {
            self.frames.extend([left, right]);
        }
    }

    /// Takes what is to be published.
    pub fn take(&mut self) -> Staged {
        Staged {
            rate: self.rate,
            begins: std::mem::take(&mut self.begins),
            frames: std::mem::take(&mut self.frames),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_once_and_ends_with_what_was_played() {
        let mut playback = Playback::default();
        playback.push(1.0, 1.0);
        playback.set_rate(Some(44_100));
        playback.push(0.5, -0.5);
        let first = playback.take();
        assert_eq!((first.rate, first.begins), (Some(44_100), true));
        assert_eq!(first.frames, [0.5, -0.5]);
        playback.set_rate(Some(44_100));
        playback.push(0.25, 0.0);
        playback.set_rate(None);
        let last = playback.take();
        assert_eq!(
            last,
            Staged {
                rate: None,
                begins: false,
                frames: vec![0.25, 0.0]
            }
        );
    }

    #[test]
    fn a_predecessors_stream_does_not_begin_again() {
        let mut playback = Playback::default();
        playback.go_on(Some(8000));
        playback.set_rate(Some(8000));
        assert_eq!(
            playback.take(),
            Staged {
                rate: Some(8000),
                begins: false,
                frames: Vec::new()
            }
        );
    }
}
