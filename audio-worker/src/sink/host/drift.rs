//! Two clocks that do not agree: VM time fills the queue, the device's crystal empties it.
//!
//! The mean of the queue's level over a second says by how much, and the resampler takes its input a little faster or slower: half of a
//! per cent at the most, which nobody hears. Dropping or doubling frames was rejected: each time it clicks. So was telling the device model
//! the device's rate: VM time is the guest's, and no host's crystal may change it.

/// Parts in a million that the pace may be changed by: a twelfth of a semitone.
const MOST: f64 = 5000.0;
/// Change in parts in a million for a queue that is twice as long as it should be. Crystals differ by a hundred, which so is one per
/// cent of the queue; the loop needs some five seconds to settle and does not swing.
const PULL: f64 = 10_000.0;

/// The mean level of a queue.
#[derive(Debug)]
pub struct Drift {
    rate: f64,
    /// None before the first look of a stream.
    mean: Option<f64>,
}

impl Drift {
    /// Of a queue that a device of `rate` frames per second empties.
    pub fn new(rate: u32) -> Self {
        Self {
            rate: rate.into(),
            mean: None,
        }
    }

    /// A stream begins, or goes on after a pause.
    pub fn restart(&mut self) {
        self.mean = None;
    }

    /// Looks at the level after `frames` frames have been put in, and says by how many parts in a million the input is to be taken faster.
    pub fn look(&mut self, level: usize, target: usize, frames: usize) -> i32 {
        let (level, target) = (level as f64, target as f64);
        // A queue that is being filled for the first time is no slow one.
        let mean = self.mean.get_or_insert(target);
        *mean += (level - *mean) * (frames as f64 / self.rate).min(1.0);
        let off = (*mean - target) / target;
        (off * PULL).clamp(-MOST, MOST) as i32
    }
}
