//! The host's sound device, on a thread of its own: opening one may take long, and whoever paces the stream must not wait for it.
//!
//! PulseAudio's protocol is spoken directly, which PipeWire's server understands as well; without such a server the first card that can be opened
//! is ALSA's, with the conversions of its library (`plughw`). What ALSA calls its default was rejected: where there is no server that
//! is a mixer that makes a process, and where there is one its plug-ins load that server's libraries into the worker, and are
//! known for endless underruns through PipeWire.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use cpal::traits::{DeviceTrait as _, HostTrait as _, StreamTrait as _};
use cpal::{
    BufferSize, DeviceId, FromSample, SampleFormat, SizedSample, StreamConfig, SupportedBufferSize,
    SupportedStreamConfig,
};

use super::feed::{Feed, Filler, Line};

/// Frames that a device is asked to take at a time: a power of two, as servers like it.
const BLOCK: u32 = 512;
/// The rate that devices are asked for.
const RATE: u32 = 48_000;
/// How long a device stays open behind the end of a stream.
const LINGER: Duration = Duration::from_secs(2);
/// How long until a device that could not be opened is tried again, while something plays.
const AGAIN: Duration = Duration::from_secs(2);
/// How long a server may take to open a stream.
const OPENING: Duration = Duration::from_secs(5);

/// What the thread is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A stream is under way.
    Play,
    /// None is.
    Rest,
    /// The device of this number has failed.
    Lost(u64),
    /// That is all.
    End,
}

/// Why a device plays nothing.
#[derive(Debug, thiserror::Error)]
enum DeviceError {
    /// The host names none.
    #[error("the host has no sound device")]
    None,
    /// It has no format that there are samples for.
    #[error("its samples are {0}")]
    Format(SampleFormat),
    /// What the host says.
    #[error(transparent)]
    Host(#[from] cpal::Error),
}

/// Does what it is told until it is told that that was all. Each device that is opened comes out of `opened`.
pub fn serve(orders: &Receiver<Order>, own: &Sender<Order>, opened: &Sender<Filler>) {
    let mut keeper = Keeper {
        own,
        opened,
        stream: None,
        number: 0,
        told: false,
    };
    let mut plays = false;
    loop {
        let patience = match (plays, keeper.stream.is_some()) {
            (true, false) => Some(AGAIN),
            (false, true) => Some(LINGER),
            _ => None,
        };
        let order = match patience {
            Some(patience) => orders.recv_timeout(patience),
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match order {
            Ok(Order::Play) => plays = true,
            Ok(Order::Rest) => plays = false,
            Ok(Order::Lost(number)) => {
                // Not at once again, so that one that fails at once is no busy loop.
                if number == keeper.number {
                    keeper.stream = None;
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) if !plays => keeper.stream = None,
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
        if plays && keeper.stream.is_none() {
            keeper.open();
        }
    }
}

/// Keeps a device open.
struct Keeper<'a> {
    own: &'a Sender<Order>,
    opened: &'a Sender<Filler>,
    stream: Option<cpal::Stream>,
    /// Of the newest device, so that an older one's failure is not taken for its.
    number: u64,
    /// That there is none has been told.
    told: bool,
}

impl Keeper<'_> {
    fn open(&mut self) {
        self.number += 1;
        match self.open_any() {
            Ok((stream, filler, name)) => {
                tracing::info!("Sound goes to {name}, {} frames a second", filler.rate());
                self.told = false;
                self.stream = Some(stream);
                let _ = self.opened.send(filler);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!("No sound until there is a device: {error}");
                }
            }
        }
    }

    /// The server's default device, or the first card that can be opened.
    fn open_any(&self) -> Result<(cpal::Stream, Filler, String), DeviceError> {
        let host = cpal::default_host();
        let devices: Vec<cpal::Device> = match host.id() {
            cpal::HostId::Alsa => cards(&super::devices().collect::<Vec<_>>())
                .iter()
                .filter_map(|name| host.device_by_id(&DeviceId::new(cpal::HostId::Alsa, name)))
                .collect(),
            _ => host.default_output_device().into_iter().collect(),
        };
        let mut first = DeviceError::None;
        for device in devices {
            match self.open_one(&device) {
                Ok(open) => return Ok(open),
                Err(error) if matches!(first, DeviceError::None) => first = error,
                Err(_) => {}
            }
        }
        Err(first)
    }

    fn open_one(&self, device: &cpal::Device) -> Result<(cpal::Stream, Filler, String), DeviceError> {
        let chosen = choose(device)?;
        let (filler, feed) = Line::open(chosen.sample_rate());
        let config = StreamConfig {
            channels: chosen.channels(),
            sample_rate: chosen.sample_rate(),
            buffer_size: match chosen.buffer_size() {
                SupportedBufferSize::Range { min, max } => BufferSize::Fixed(BLOCK.clamp(*min, *max)),
                SupportedBufferSize::Unknown => BufferSize::Default,
            },
        };
        let stream = match chosen.sample_format() {
            SampleFormat::F32 => self.stream::<f32>(device, config, feed),
            SampleFormat::I32 => self.stream::<i32>(device, config, feed),
            SampleFormat::I16 => self.stream::<i16>(device, config, feed),
            other => return Err(DeviceError::Format(other)),
        }?;
        stream.play()?;
        let name = device
            .description()
            .map_or_else(|_| "a device".to_owned(), |d| d.name().to_owned());
        Ok((stream, filler, name))
    }

    fn stream<T: SizedSample + FromSample<f32>>(
        &self,
        device: &cpal::Device,
        config: StreamConfig,
        mut feed: Feed,
    ) -> Result<cpal::Stream, cpal::Error> {
        let channels = usize::from(config.channels);
        let (own, number) = (self.own.clone(), self.number);
        device.build_output_stream::<T, _, _>(
            config,
            move |samples, _| {
                let mut frames = samples.chunks_exact_mut(channels);
                feed.fill(frames.len(), |[left, right]| {
                    let Some(frame) = frames.next() else { return };
                    frame.fill(T::EQUILIBRIUM);
                    match frame {
                        [both] => *both = T::from_sample(f32::midpoint(left, right)),
                        [l, r, ..] => (*l, *r) = (T::from_sample(left), T::from_sample(right)),
                        [] => {}
                    }
                });
            },
            move |error| {
                if is_the_end(&error) {
                    tracing::info!("The sound device is lost: {error}");
                    let _ = own.send(Order::Lost(number));
                }
            },
            Some(OPENING),
        )
    }
}

/// Whether a device plays no more. A block that came late, or a wish that was not granted, is no such error.
fn is_the_end(error: &cpal::Error) -> bool {
    use cpal::ErrorKind::{DeviceChanged, RealtimeDenied, Xrun};
    !matches!(error.kind(), DeviceChanged | RealtimeDenied | Xrun)
}

/// Numbers of the card and of its device behind a file that plays, such as `/dev/snd/pcmC0D0p`.
pub fn card(file: &Path) -> Option<(u32, u32)> {
    let name = file.file_name()?.to_str()?;
    let (card, device) = name.strip_prefix("pcmC")?.strip_suffix('p')?.split_once('D')?;
    Some((card.parse().ok()?, device.parse().ok()?))
}

/// What ALSA calls the cards behind device files, in the order of their numbers.
fn cards(files: &[PathBuf]) -> Vec<String> {
    let mut found: Vec<(u32, u32)> = files.iter().filter_map(|file| card(file)).collect();
    found.sort_unstable();
    let name = |(card, device)| format!("plughw:CARD={card},DEV={device}");
    found.into_iter().map(name).collect()
}

/// The device's configuration nearest to two channels of floating-point samples at the usual rate.
fn choose(device: &cpal::Device) -> Result<SupportedStreamConfig, DeviceError> {
    let formats = [SampleFormat::F32, SampleFormat::I32, SampleFormat::I16];
    let place = |format| formats.iter().position(|known| *known == format);
    let best = device
        .supported_output_configs()?
        .filter(|range| (range.min_sample_rate()..=range.max_sample_rate()).contains(&RATE))
        .filter_map(|range| Some((place(range.sample_format())?, range)))
        .min_by_key(|(place, range)| (range.channels().abs_diff(2), *place));
    match best {
        Some((_, range)) => Ok(range.with_sample_rate(RATE)),
        None => Ok(device.default_output_config()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_named_in_order_and_what_only_records_is_none() {
        let files = [
            "pcmC1D0p",
            "pcmC0D10p",
            "pcmC0D0p",
            "pcmC0D0c",
            "controlC0",
            "seq",
        ];
        let files = files.map(|name| PathBuf::from("/dev/snd").join(name));
        assert_eq!(
            cards(&files),
            [
                "plughw:CARD=0,DEV=0",
                "plughw:CARD=0,DEV=10",
                "plughw:CARD=1,DEV=0"
            ]
        );
    }
}
