//! What the host's device is fed from: the consumer's side of a queue, run in the device's real-time callback.
//!
//! It neither allocates nor waits nor makes a system call. A queue that runs dry is faded out, not cut, and played from again
//! when it holds enough: one gap instead of many.

use std::sync::Arc;

use quintet_protocol::sync::{AtomicBool, AtomicU32, Ordering};
use rtrb::{Consumer, Producer, RingBuffer};

/// A left and a right sample.
pub type Frame = [f32; 2];

/// Frames that a fade from silence takes: three milliseconds at usual rates.
const FADE: f32 = 128.0;
/// What remains of the last frame with each frame of a gap.
const DECAY: f32 = 0.97;
/// Frames that the queue has room for, at any rate a second or more.
const ROOM: usize = 192_000;
/// How many times as long as it should be the queue may get before its excess is passed over: that is late sound, not drift.
const LATE: usize = 3;
/// Frames that the device takes at a time until it has told otherwise.
const USUAL: u32 = 512;

/// What both sides of the queue tell each other.
#[derive(Debug)]
pub struct Line {
    /// A stream is under way: what is missing now is missed.
    live: AtomicBool,
    /// Frames of silence that the device was given in the middle of a stream; wraps.
    missed: AtomicU32,
    /// Most frames that the device has asked for at a time.
    block: AtomicU32,
}

impl Line {
    /// A queue before a device of `rate` frames per second.
    pub fn open(rate: u32) -> (Filler, Feed) {
        let (producer, consumer) = RingBuffer::new(ROOM);
        let line = Arc::new(Self {
            live: AtomicBool::new(false),
            missed: AtomicU32::new(0),
            block: AtomicU32::new(USUAL),
        });
        let filler = Filler {
            queue: producer,
            line: Arc::clone(&line),
            rate,
        };
        let feed = Feed {
            queue: consumer,
            line,
            state: State::Rests,
            gain: 0.0,
            last: [0.0; 2],
        };
        (filler, feed)
    }

    /// Frames that should wait in the queue: two blocks of the device, and two of the player's.
    fn target(&self) -> usize {
        2 * (self.block.load(Ordering::Relaxed) as usize + crate::player::PERIOD)
    }
}

/// The player's side.
#[derive(Debug)]
pub struct Filler {
    queue: Producer<Frame>,
    line: Arc<Line>,
    rate: u32,
}

impl Filler {
    /// Frames per second of the device.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Whether there is a device at the other end.
    pub fn is_connected(&self) -> bool {
        !self.queue.is_abandoned()
    }

    /// Says whether a stream is under way.
    pub fn set_live(&self, live: bool) {
        self.line.live.store(live, Ordering::Release);
    }

    /// Puts a frame in, unless the queue is full.
    pub fn push(&mut self, frame: Frame) {
        let _ = self.queue.push(frame);
    }

    /// Frames that wait.
    pub fn level(&self) -> usize {
        ROOM - self.queue.slots()
    }

    /// Frames that should.
    pub fn target(&self) -> usize {
        self.line.target()
    }

    /// Frames of silence that the device was given in the middle of a stream; wraps.
    pub fn missed(&self) -> u32 {
        self.line.missed.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No stream has begun.
    Rests,
    Plays,
    /// The queue ran dry in the middle of a stream, and fills again.
    Dry,
}

/// The device's side.
#[derive(Debug)]
pub struct Feed {
    queue: Consumer<Frame>,
    line: Arc<Line>,
    state: State,
    /// How loud it is: less than 1 while it is faded in.
    gain: f32,
    /// What was given last, which a gap fades out from.
    last: Frame,
}

impl Feed {
    /// Gives `frames` frames to `out`, in order.
    pub fn fill(&mut self, frames: usize, mut out: impl FnMut(Frame)) {
        let block = u32::try_from(frames).unwrap_or(u32::MAX).min(ROOM as u32 / 8);
        if block > self.line.block.load(Ordering::Relaxed) {
            self.line.block.store(block, Ordering::Relaxed);
        }
        // The level after the word: what a stream had queued when it ended is seen.
        let live = self.line.live.load(Ordering::Acquire);
        let (level, target) = (self.queue.slots(), self.line.target());
        // The device stood still, or the player did and makes good for it.
        if level > LATE * target
            && let Ok(oldest) = self.queue.read_chunk(level - target)
        {
            oldest.commit_all();
        }
        match self.state {
            State::Plays => {}
            // The rest of a stream may be short.
            _ if level >= target || !live && level > 0 => {
                self.state = State::Plays;
                self.gain = 0.0;
            }
            _ if !live => self.state = State::Rests,
            _ => {}
        }
        let mut silent = 0;
        for _ in 0..frames {
            let frame = match self.state {
                State::Plays => self.queue.pop().ok(),
                State::Rests | State::Dry => None,
            };
            match frame {
                Some(frame) => {
                    self.gain = (self.gain + 1.0 / FADE).min(1.0);
                    self.last = frame.map(|sample| sample * self.gain);
                }
                None => {
                    if self.state == State::Plays {
                        self.state = if live { State::Dry } else { State::Rests };
                    }
                    silent += u32::from(self.state == State::Dry);
                    self.last = self.last.map(|sample| sample * DECAY);
                }
            }
            out(self.last);
        }
        if silent > 0 {
            let missed = self.line.missed.load(Ordering::Relaxed).wrapping_add(silent);
            self.line.missed.store(missed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(feed: &mut Feed, frames: usize) -> Vec<f32> {
        let mut out = Vec::new();
        feed.fill(frames, |frame| out.push(frame[0]));
        out
    }

    #[test]
    fn a_stream_begins_when_enough_waits_and_a_gap_is_one() {
        let (mut filler, mut feed) = Line::open(48_000);
        filler.set_live(true);
        let target = filler.target();
        for _ in 0..target - 1 {
            filler.push([1.0; 2]);
        }
        assert!(heard(&mut feed, 64).iter().all(|s| *s == 0.0));
        assert_eq!(filler.missed(), 0, "it has not begun");
        filler.push([1.0; 2]);
        let begin = heard(&mut feed, 512);
        assert!(begin.is_sorted() && begin[0] < 0.01 && begin[511] == 1.0);
        let end = heard(&mut feed, 4096);
        assert_eq!(end[target - 513], 1.0);
        assert!(end[target - 512..].is_sorted_by(|a, b| a >= b), "faded out");
        assert!(end[4095].abs() < 1e-6);
        assert_eq!(filler.missed() as usize, 4096 + 512 - target);
        // A few frames are not enough to go on with.
        filler.push([1.0; 2]);
        assert!(heard(&mut feed, 512).iter().all(|s| s.abs() < 1e-6));
        assert_eq!(filler.missed() as usize, 4096 + 1024 - target);
    }

    #[test]
    fn the_end_of_a_stream_is_played_and_nothing_is_missed() {
        let (mut filler, mut feed) = Line::open(48_000);
        filler.set_live(true);
        for _ in 0..10 {
            filler.push([1.0; 2]);
        }
        assert!(heard(&mut feed, 512).iter().all(|s| *s == 0.0));
        filler.set_live(false);
        assert!(heard(&mut feed, 512)[9] > 0.05);
        assert_eq!((filler.missed(), filler.level()), (0, 0));
    }

    #[test]
    fn a_device_with_long_blocks_gets_a_longer_queue() {
        let (filler, mut feed) = Line::open(48_000);
        let before = filler.target();
        heard(&mut feed, 4096);
        assert_eq!(filler.target(), before + 2 * (4096 - USUAL as usize));
    }
}
