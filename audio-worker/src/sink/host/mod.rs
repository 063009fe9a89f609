//! The host's sound device, which somebody listens to.
//!
//! The player pushes frames at the pace of VM time, the device pulls them at that of its own crystal. Between them are a resampler whose ratio
//! follows the difference (`drift`), and a queue (`feed`). Pulling straight from the shared ring in the device's callback was rejected: then
//! VM time would be the device's, a pause would have to reach into a real-time thread, and each kind of device would need the
//! player's care for format changes, held-up streams and the PC speaker.

mod device;
mod drift;
mod feed;

use std::sync::mpsc::{Receiver, Sender, channel};

use quintet_protocol::audio::Format;

use self::device::Order;
use self::drift::Drift;
use self::feed::Filler;
use super::{Sink, stereo};
use crate::resample::Resampler;

/// Whether this host has a sound server or a device that could be opened.
pub fn is_there() -> bool {
    pulse_server() || devices().next().is_some()
}

/// Whether there is a server that speaks PulseAudio's protocol.
pub fn pulse_server() -> bool {
    cpal::available_hosts().contains(&cpal::HostId::PulseAudio)
}

/// The devices that ALSA could play to.
pub fn devices() -> impl Iterator<Item = std::path::PathBuf> {
    let entries = std::fs::read_dir("/dev/snd").into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files.filter(|path| device::card(path).is_some())
}

/// Plays to whatever the host's default device is, when there is one.
#[derive(Debug)]
pub struct HostSink {
    orders: Sender<Order>,
    opened: Receiver<Filler>,
    output: Option<Output>,
    format: Format,
    plays: bool,
    /// What devices that are gone have missed; wraps.
    missed: u32,
}

/// A device, and the way to it.
#[derive(Debug)]
struct Output {
    filler: Filler,
    drift: Drift,
    /// From frames per second, and how.
    resampler: Option<(u32, Resampler)>,
}

impl Output {
    fn new(filler: Filler) -> Self {
        Self {
            drift: Drift::new(filler.rate()),
            filler,
            resampler: None,
        }
    }

    fn play(&mut self, format: Format, samples: &[f32]) {
        let rate = self.filler.rate();
        if self
            .resampler
            .as_ref()
            .is_none_or(|(from, _)| *from != format.rate)
        {
            self.resampler = Some((format.rate, Resampler::new(format.rate, rate)));
        }
        let Some((_, resampler)) = &mut self.resampler else {
            return;
        };
        let frames = stereo(samples, format);
        let (filler, mut put) = (&mut self.filler, 0);
        resampler.push(frames, |frame| {
            put += 1;
            filler.push(frame);
        });
        let pace = self.drift.look(filler.level(), filler.target(), put);
        resampler.set_pace(pace);
    }

    /// What is under way goes out, and nothing is expected behind it.
    fn end(&mut self) {
        if let Some((_, resampler)) = &mut self.resampler {
            let filler = &mut self.filler;
            resampler.finish(|frame| filler.push(frame));
        }
        self.filler.set_live(false);
        self.drift.restart();
    }
}

impl HostSink {
    /// Opens no device before something plays.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn new() -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let (outbox, opened) = channel();
        let own = orders.clone();
        std::thread::Builder::new()
            .name("sound".to_owned())
            .spawn(move || device::serve(&inbox, &own, &outbox))?;
        Ok(Self::with(orders, opened))
    }

    fn with(orders: Sender<Order>, opened: Receiver<Filler>) -> Self {
        Self {
            orders,
            opened,
            output: None,
            format: Format::new(48_000, 2),
            plays: false,
            missed: 0,
        }
    }

    /// Takes the newest device, and lets go of one that is lost.
    fn look_for_a_device(&mut self) {
        let newest = self.opened.try_iter().last();
        let lost = self.output.as_ref().is_some_and(|o| !o.filler.is_connected());
        if newest.is_some() || lost {
            self.missed = self.unheard();
            self.output = newest.map(Output::new);
            if let Some(output) = &self.output {
                output.filler.set_live(self.plays);
            }
        }
    }

    fn set_playing(&mut self, plays: bool) {
        if self.plays == plays {
            return;
        }
        self.plays = plays;
        let _ = self.orders.send(if plays { Order::Play } else { Order::Rest });
        match &mut self.output {
            Some(output) if plays => output.filler.set_live(true),
            Some(output) => output.end(),
            None => {}
        }
    }
}

impl Drop for HostSink {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End);
    }
}

impl Sink for HostSink {
    fn start(&mut self, format: Format) {
        self.set_playing(false);
        self.format = format;
    }

    fn play(&mut self, samples: &[f32], _real: usize) {
        self.look_for_a_device();
        self.set_playing(true);
        if let Some(output) = &mut self.output {
            output.play(self.format, samples);
        }
    }

    fn hold(&mut self) {
        self.set_playing(false);
    }

    fn stop(&mut self) {
        self.set_playing(false);
    }

    fn waiting(&self) -> u32 {
        let Some(output) = &self.output else { return 0 };
        let frames =
            output.filler.level() as u64 * u64::from(self.format.rate) / u64::from(output.filler.rate());
        u32::try_from(frames).unwrap_or(u32::MAX)
    }

    fn unheard(&self) -> u32 {
        let now = self.output.as_ref().map_or(0, |output| output.filler.missed());
        self.missed.wrapping_add(now)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
