//! A WAV file: 16 bits, stereo, at one rate, whatever the streams have.
//!
//! The coordinator opened it; a successor of a killed audio-worker finds the file with what was written up to the
//! last header, and appends. So the header is brought up to date every second.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use hound::{SampleFormat, WavSpec, WavWriter};
use quintet_protocol::audio::Format;

use super::{Sink, stereo};
use crate::resample::Resampler;

/// Why a WAV file could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    /// Its length or its start could not be read.
    #[error("Cannot read the WAV file")]
    Read(#[from] io::Error),
    /// It is not one of ours.
    #[error("Cannot append to the WAV file")]
    Append(#[from] hound::Error),
}

/// Records streams one after another into one file.
#[derive(Debug)]
pub struct WavSink {
    file: Recording,
    rate: u32,
    format: Format,
    /// For streams of another rate.
    resampler: Option<(u32, Resampler)>,
}

/// What is written, and how much of it the header does not know of.
struct Recording {
    /// `None` when the disk is full, or worse.
    writer: Option<WavWriter<Buffered>>,
    unsaved: u32,
}

impl core::fmt::Debug for Recording {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Recording")
            .field("goes_on", &self.writer.is_some())
            .finish_non_exhaustive()
    }
}

impl Recording {
    fn write(&mut self, [left, right]: [f32; 2]) {
        let Some(writer) = &mut self.writer else { return };
        let result = writer
            .write_sample(to_pcm(left))
            .and_then(|()| writer.write_sample(to_pcm(right)));
        self.unsaved += 1;
        if let Err(error) = result {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &hound::Error) {
        tracing::error!("The WAV file ends here: {error}");
        // Dropping the writer would try to write once more.
        core::mem::forget(self.writer.take());
    }

    fn update_header(&mut self) {
        self.unsaved = 0;
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush()
        {
            self.fail(&error);
        }
    }
}

impl WavSink {
    /// Records into `file`, which must be open for reading and writing, at `rate` frames per second. What a predecessor
    /// recorded stays, and so does its rate.
    ///
    /// # Errors
    /// [`WavError`] when the file holds something else, or cannot be read or written.
    pub fn new(mut file: File, rate: u32) -> Result<Self, WavError> {
        let empty = file.seek(SeekFrom::End(0))? == 0;
        file.seek(SeekFrom::Start(0))?;
        let writer = if empty {
            let spec = WavSpec {
                channels: 2,
                sample_rate: rate,
                bits_per_sample: 16,
                sample_format: SampleFormat::Int,
            };
            WavWriter::new(Buffered::new(file), spec)?
        } else {
            WavWriter::new_append(Buffered::new(file))?
        };
        let rate = writer.spec().sample_rate;
        let mut file = Recording {
            writer: Some(writer),
            unsaved: 0,
        };
        // A successor finds a file of ours, even if this process never plays.
        file.update_header();
        Ok(Self {
            file,
            rate,
            format: Format::new(rate, 2),
            resampler: None,
        })
    }

    fn finish_stream(&mut self) {
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.finish(|frame| self.file.write(frame));
        }
    }
}

fn to_pcm(sample: f32) -> i16 {
    (sample.clamp(-1.0, 1.0) * 32767.0).round() as i16
}

impl Sink for WavSink {
    fn start(&mut self, format: Format) {
        self.finish_stream();
        self.format = format;
        if self.resampler.as_ref().map_or(self.rate, |(rate, _)| *rate) != format.rate {
            self.resampler =
                (format.rate != self.rate).then(|| (format.rate, Resampler::new(format.rate, self.rate)));
        }
    }

    /// A second: nobody listens, and a busy host is no reason for a gap.
    fn patience(&self, format: Format) -> u64 {
        format.rate.into()
    }

    fn play(&mut self, samples: &[f32], _real: usize) {
        let frames = stereo(samples, self.format);
        match &mut self.resampler {
            Some((_, resampler)) => resampler.push(frames, |frame| self.file.write(frame)),
            None => frames.for_each(|frame| self.file.write(frame)),
        }
        if self.file.unsaved >= self.rate {
            self.file.update_header();
        }
    }

    fn stop(&mut self) {
        self.finish_stream();
        self.file.update_header();
    }
}

impl Drop for WavSink {
    fn drop(&mut self) {
        self.file.update_header();
    }
}

/// A file with a buffer for writing, which can also be read, as appending needs.
struct Buffered {
    file: File,
    pending: Vec<u8>,
}

impl Buffered {
    const SIZE: usize = 64 << 10;

    fn new(file: File) -> Self {
        Self {
            file,
            pending: Vec::with_capacity(Self::SIZE),
        }
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.len() + bytes.len() > Self::SIZE {
            self.flush()?;
        }
        self.pending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

impl Seek for Buffered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.flush()?;
        self.file.seek(to)
    }
}

impl Read for Buffered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.flush()?;
        self.file.read(into)
    }
}
