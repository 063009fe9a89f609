//! Frames out of the ring, at the pace of VM time.
//!
//! The PC speaker is mixed into the stream from the ring, at that one's rate, and makes one of its own while there is none.
//!
//! How many frames are due is computed from the stream's start each time, never summed up from periods, so there is no
//! drift, however late or early the wake-ups are. While VM time stands still, nothing is due.
//!
//! Where nobody listens, frames that are due and not there are waited for: the sink says how long. A producer that was late makes good for it by a burst, which would delay all that follows. So what is never needed
//! for a second is passed over (`Excess`).

use quintet_protocol::audio::{Fill, Format, PREFILL, PlaybackConsumer};
use quintet_protocol::shm::{View, ViewMut};
use quintet_protocol::time::VmTime;

use crate::sink::Sink;
use crate::speaker::Speaker;

/// Frames that are taken at a time: a power of two, some 10 ms at usual rates.
pub const PERIOD: usize = 512;
/// Longest gap that is made up for, in seconds. After a longer one (a debugger held the process) the stream starts
/// anew.
const GAP: u64 = 2;

/// Frames due since a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacer {
    rate: u32,
    start: VmTime,
    taken: u64,
}

impl Pacer {
    /// A stream of `rate` frames per second that starts now.
    pub fn new(rate: u32, now: VmTime) -> Self {
        Self {
            rate,
            start: now,
            taken: 0,
        }
    }

    /// Frames that should have been taken by `now` and have not.
    pub fn due(&self, now: VmTime) -> u64 {
        VmTime(now.since(self.start))
            .ticks(u64::from(self.rate))
            .saturating_sub(self.taken)
    }

    /// Counts frames as taken.
    pub fn take(&mut self, frames: u64) {
        self.taken += frames;
    }

    /// When `frames` more will be due.
    pub fn due_at(&self, frames: u64) -> VmTime {
        self.start + VmTime::from_ticks(self.taken + frames, u64::from(self.rate)).0
    }

    /// Frames taken since the start.
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

/// Frames that lay in the ring all the time: latency and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Excess {
    least: u32,
    /// Frames taken at the end of the span that is looked at.
    until: u64,
}

impl Excess {
    fn new(format: Format) -> Self {
        Self {
            least: u32::MAX,
            until: format.rate.into(),
        }
    }

    /// Looks at the level behind what has been taken. Each second it says how many frames are to be passed over, so that
    /// [`PREFILL`] remain at the least.
    fn look(&mut self, level: u32, pacer: &Pacer) -> u32 {
        self.least = self.least.min(level);
        if pacer.taken() < self.until {
            return 0;
        }
        let least = core::mem::replace(&mut self.least, u32::MAX);
        self.until = pacer.taken() + u64::from(pacer.rate);
        // Less than as much again is the difference between two wake-ups.
        if least > 2 * PREFILL { least - PREFILL } else { 0 }
    }
}

/// What gives a stream its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The ring; the speaker is mixed in.
    Ring,
    /// Nothing but the speaker.
    Speaker,
}

/// A stream under way.
#[derive(Debug, Clone, Copy)]
struct Stream {
    source: Source,
    format: Format,
    pacer: Pacer,
    excess: Excess,
}

impl Stream {
    fn new(source: Source, format: Format, now: VmTime) -> Self {
        Self {
            source,
            format,
            pacer: Pacer::new(format.rate, now),
            excess: Excess::new(format),
        }
    }
}

/// What a [`Player::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Frames from the ring that went to the sink.
    pub played: u64,
    /// Frames of silence in their place, counted as missing.
    pub missing: u64,
    /// When to come again; `None` when there is no stream, until the producer rings.
    pub next: Option<VmTime>,
}

impl Step {
    fn add(&mut self, filled: Fill) {
        self.played += u64::from(filled.frames);
        self.missing += u64::from(filled.missing);
    }
}

/// The consumer of the playback ring and of the PC speaker, with a sink behind them.
#[derive(Debug)]
pub struct Player {
    ring: PlaybackConsumer<ViewMut, View>,
    speaker: Speaker,
    sink: Box<dyn Sink>,
    /// Frames per second while there is nothing but the speaker.
    rate: u32,
    stream: Option<Stream>,
    period: [f32; PERIOD * 2],
    /// An error of the ring that has been told.
    told: bool,
}

impl Player {
    /// Plays what is in `ring` and `speaker` to `sink`; the latter alone at `rate` frames per second.
    pub fn new(
        ring: PlaybackConsumer<ViewMut, View>,
        speaker: Speaker,
        sink: Box<dyn Sink>,
        rate: u32,
    ) -> Self {
        Self {
            ring,
            speaker,
            sink,
            rate,
            stream: None,
            period: [0.0; PERIOD * 2],
            told: false,
        }
    }

    /// Whether there is something to play, for a sleeper's condition.
    pub fn is_awake(&self) -> bool {
        self.ring.is_running() || self.stream.is_some() || self.speaker.has_news()
    }

    /// Frames that wait to be heard, in the ring and behind it.
    pub fn level(&self) -> u32 {
        self.ring.level().saturating_add(self.sink.waiting())
    }

    /// Tells what the sink's device had to do without.
    pub fn tell_unheard(&mut self) {
        self.ring.tell_unheard(self.sink.unheard());
    }

    /// Output frames missing so far; wraps.
    pub fn underruns(&self) -> u32 {
        self.ring.underruns()
    }

    /// Takes what is due. A stream that the producer has stopped is played to its end, and then forgotten.
    pub fn step(&mut self, now: VmTime) -> Step {
        self.speaker.listen(now);
        let running = self.ring.is_running();
        let Some(mut stream) = self.stream_at(now, running) else {
            return Step::default();
        };
        let step = match stream.source {
            Source::Ring => self.take_due(&mut stream, now, running),
            Source::Speaker => self.speak(&mut stream, now),
        };
        let over = match stream.source {
            Source::Ring => !running && self.ring.level() == 0,
            Source::Speaker => !self.speaker.sounds(now),
        };
        if over {
            self.stream = None;
            self.sink.stop();
            // What the other source has may go on at once.
            let other = self.ring.is_running() || self.speaker.sounds(now);
            let next = other.then_some(now);
            return Step { next, ..step };
        }
        self.stream = Some(stream);
        step
    }

    /// Periods of the speaker alone.
    fn speak(&mut self, stream: &mut Stream, now: VmTime) -> Step {
        let mut step = Step::default();
        while stream.pacer.due(now) >= PERIOD as u64 {
            let samples = &mut self.period[..PERIOD * stream.format.channels as usize];
            samples.fill(0.0);
            let (at, format) = (stream.pacer.due_at(0), stream.format);
            self.speaker
                .mix(at, format.rate, format.channels as usize, samples);
            self.sink.play(samples, PERIOD);
            stream.pacer.take(PERIOD as u64);
            step.played += PERIOD as u64;
        }
        step.next = Some(stream.pacer.due_at(PERIOD as u64));
        step
    }

    fn take_due(
        &mut self,
        Stream {
            format,
            pacer,
            excess,
            ..
        }: &mut Stream,
        now: VmTime,
        running: bool,
    ) -> Step {
        let mut step = Step::default();
        let patience = self.sink.patience(*format);
        loop {
            let (due, level) = (pacer.due(now), u64::from(self.ring.level()));
            let frames = if running {
                due.min(level.max(due.saturating_sub(patience)))
            } else {
                // The rest of a stopped stream: what is not there is not missing.
                due.min(level)
            };
            let frames = frames.min(PERIOD as u64);
            if frames == 0 || running && due < PERIOD as u64 {
                break;
            }
            step.add(self.take(frames as usize, *format, pacer.due_at(0)));
            pacer.take(frames);
        }
        let past = excess.look(self.ring.level(), pacer);
        if past > 0 {
            self.ring.skip_to_level(self.ring.level().saturating_sub(past));
        }
        let period = VmTime::from_ticks(PERIOD as u64, format.rate.into());
        let due_at = pacer.due_at(PERIOD as u64);
        // What is waited for is looked for once a period.
        step.next = Some(if due_at > now { due_at } else { now + period.0 });
        step
    }

    fn take(&mut self, frames: usize, format: Format, at: VmTime) -> Fill {
        let channels = format.channels as usize;
        let samples = &mut self.period[..frames * channels];
        let filled = self.ring.fill(samples);
        if self.speaker.sounds(at) {
            self.speaker.mix(at, format.rate, channels, samples);
        }
        self.sink.play(samples, filled.frames as usize);
        filled
    }

    /// The stream that is to be played, started if need be.
    fn stream_at(&mut self, now: VmTime, running: bool) -> Option<Stream> {
        let format = match self.ring.refresh() {
            Ok(format) => {
                self.told = false;
                format
            }
            Err(error) => {
                if !core::mem::replace(&mut self.told, true) {
                    tracing::error!("{error}; no sound until the ring is made again");
                }
                None
            }
        };
        let of_ring = self.stream.is_some_and(|stream| stream.source == Source::Ring);
        let wanted = match format.filter(|_| running || of_ring) {
            Some(format) => Some((Source::Ring, format)),
            None if self.speaker.sounds(now) => Some((Source::Speaker, Format::new(self.rate, 2))),
            None => None,
        };
        let Some((source, format)) = wanted else {
            if self.stream.take().is_some() {
                self.sink.stop();
            }
            return None;
        };
        let held_up = |stream: &Stream| stream.pacer.due(now) > GAP * u64::from(format.rate);
        let same = |stream: &Stream| (stream.source, stream.format) == (source, format);
        match self.stream {
            Some(stream) if same(&stream) && !held_up(&stream) => {}
            old => {
                if old.is_some_and(|old| same(&old)) {
                    tracing::warn!("Held up for more than {GAP} s: the sound goes on from now");
                    self.ring.skip_to_write();
                } else {
                    self.sink.start(format);
                }
                self.stream = Some(Stream::new(source, format, now));
            }
        }
        self.stream
    }

    /// VM time stands still: whoever listens hears the end of what there was.
    pub fn hold(&mut self) {
        self.sink.hold();
    }

    /// Ends the sink in good order.
    pub fn finish(&mut self) {
        self.sink.stop();
    }
}
