//! A WAV file: 16 bits, stereo, at the rate of the first stream.
//!
//! The coordinator opened it; a successor of a killed audio-worker finds the file with what was written up to the
//! last header, and appends. So the header is brought up to date every second.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use hound::{SampleFormat, WavSpec, WavWriter};
use quintet_protocol::audio::Format;

use super::Sink;

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
    state: State,
    channels: usize,
    unsaved: u32,
    /// A stream that cannot be recorded has been told.
    told: bool,
}

enum State {
    /// No stream yet: the rate is not known.
    Empty(File),
    Writing(WavWriter<Buffered>),
    /// The disk is full, or worse.
    Broken,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Empty(_) => "Empty",
            Self::Writing(_) => "Writing",
            Self::Broken => "Broken",
        })
    }
}

impl WavSink {
    /// Records into `file`, which must be open for reading and writing. What a predecessor recorded stays.
    ///
    /// # Errors
    /// [`WavError`] when the file holds something else, or cannot be read.
    pub fn new(mut file: File) -> Result<Self, WavError> {
        let empty = file.seek(SeekFrom::End(0))? == 0;
        file.seek(SeekFrom::Start(0))?;
        let state = if empty {
            State::Empty(file)
        } else {
            State::Writing(WavWriter::new_append(Buffered::new(file))?)
        };
        Ok(Self {
            state,
            channels: 2,
            unsaved: 0,
            told: false,
        })
    }

    fn fail(&mut self, error: &hound::Error) {
        tracing::error!("The WAV file ends here: {error}");
        // Dropping the writer would try to write once more.
        core::mem::forget(core::mem::replace(&mut self.state, State::Broken));
    }

    fn update_header(&mut self) {
        self.unsaved = 0;
        if let State::Writing(writer) = &mut self.state
            && let Err(error) = writer.flush()
        {
            self.fail(&error);
        }
    }
}

fn to_pcm(sample: f32) -> i16 {
    (sample.clamp(-1.0, 1.0) * 32767.0).round() as i16
}

impl Sink for WavSink {
    fn start(&mut self, format: Format) {
        self.channels = format.channels as usize;
        self.told = false;
        if let State::Empty(_) = self.state
            && let State::Empty(file) = core::mem::replace(&mut self.state, State::Broken)
        {
            let spec = WavSpec {
                channels: 2,
                sample_rate: format.rate,
                bits_per_sample: 16,
                sample_format: SampleFormat::Int,
            };
            match WavWriter::new(Buffered::new(file), spec) {
                Ok(writer) => self.state = State::Writing(writer),
                Err(error) => tracing::error!("Cannot begin the WAV file: {error}"),
            }
        }
        if let State::Writing(writer) = &self.state
            && writer.spec().sample_rate != format.rate
        {
            tracing::warn!(
                "A stream of {} Hz is left out of the WAV file of {} Hz",
                format.rate,
                writer.spec().sample_rate
            );
            self.told = true;
        }
    }

    fn play(&mut self, samples: &[f32], _real: usize) {
        let State::Writing(writer) = &mut self.state else {
            return;
        };
        if self.told {
            return;
        }
        let mut result = Ok(());
        for frame in samples.chunks_exact(self.channels) {
            let (left, right) = (frame[0], frame[self.channels - 1]);
            result = writer
                .write_sample(to_pcm(left))
                .and_then(|()| writer.write_sample(to_pcm(right)));
            if result.is_err() {
                break;
            }
        }
        self.unsaved += (samples.len() / self.channels) as u32;
        let second = self.unsaved >= writer.spec().sample_rate;
        if let Err(error) = result {
            self.fail(&error);
        } else if second {
            self.update_header();
        }
    }

    fn stop(&mut self) {
        self.update_header();
    }
}

impl Drop for WavSink {
    fn drop(&mut self) {
        self.update_header();
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
