//! Where the sound goes: what `--audio` means on this host.

use std::path::PathBuf;

use quintet_audio_worker::sink::host;
use quintet_protocol::handshake::config::AudioSink;

use crate::config::{UsageError, refuse};

/// Where the sound goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audio {
    /// Nowhere.
    Null,
    /// Nowhere, because this host has neither a sound server nor a device.
    Absent,
    /// To the host's sound server or device, whichever is there when something plays.
    Host,
    /// A WAV file.
    Wav(PathBuf),
}

impl Audio {
    /// The value of `--audio`, on this host.
    ///
    /// # Errors
    /// [`UsageError`] for what is none of `auto`, `null` and `wav:FILE`.
    pub fn parse(text: &str) -> Result<Self, UsageError> {
        match text.split_once(':') {
            None if text == "null" => Ok(Self::Null),
            // A worker that could open no device is not given the rights for one.
            None if text == "auto" => Ok(if host::is_there() {
                Self::Host
            } else {
                Self::Absent
            }),
            Some(("wav", path)) if !path.is_empty() => Ok(Self::Wav(path.into())),
            _ => refuse(format!(
                "--audio {text} is not known; auto, null and wav:FILE are"
            )),
        }
    }

    /// What the audio-worker is told.
    pub fn sink(&self) -> AudioSink {
        match self {
            Self::Null | Self::Absent => AudioSink::Null,
            Self::Host => AudioSink::Host,
            Self::Wav(_) => AudioSink::Wav,
        }
    }

    /// Says that nothing will be heard, if the user may expect something to be.
    pub fn tell(&self, headless: bool) {
        const TEXT: &str =
            "No sound server or device was found: sound goes nowhere (--audio wav:FILE records it)";
        match (self, headless) {
            (Self::Absent, false) => tracing::warn!("{TEXT}"),
            (Self::Absent, true) => tracing::info!("{TEXT}"),
            _ => {}
        }
    }
}
