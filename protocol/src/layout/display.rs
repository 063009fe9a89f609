//! The ends of picture and sound.

use super::{Ends, Region, SleeperId};
use crate::audio::{
    self, AudioError, CaptureConsumer, CaptureProducer, Format, PlaybackConsumer, PlaybackProducer,
};
use crate::framebuffer::{FrameReader, FrameWriter, ShotReader, ShotWriter};
use crate::shm::{View, ViewMut};
use crate::vram::{EpochWish, SleepHint, VramError, VramReader, VramWriter};

impl Ends {
    /// VRAM, in cpu-worker. Rings gpu-worker when something changes while that sleeps.
    ///
    /// # Errors
    /// [`VramError`].
    pub fn vram_writer(&self) -> Result<VramWriter, VramError> {
        let hint = SleepHint::new(self.view(Region::vram_armed()), self.doorbell(SleeperId::Gpu));
        Ok(VramWriter::new(self.view_mut(Region::vram()))?.with_bell(hint))
    }

    /// VRAM, for reading.
    ///
    /// # Errors
    /// [`VramError`].
    pub fn vram_reader(&self) -> Result<VramReader, VramError> {
        VramReader::new(self.view(Region::vram()))
    }

    /// The way in which gpu-worker asks the vCPU for a new frame epoch.
    pub fn epoch_wish(&self) -> EpochWish {
        EpochWish::new(
            self.view_mut(Region::vram_armed()),
            self.doorbell(SleeperId::Vcpu(0)),
        )
    }

    /// Presented frames, in gpu-worker.
    pub fn frame_writer(&self) -> FrameWriter {
        FrameWriter::new(
            self.view_mut(Region::framebuffer()),
            vec![self.view(Region::frame_lease())],
        )
    }

    /// Presented frames, in the coordinator: the only reader with a lease.
    pub fn frame_reader(&self) -> FrameReader {
        FrameReader::new(
            self.view(Region::framebuffer()),
            &self.view_mut(Region::frame_lease()),
        )
    }

    /// Screenshots, in gpu-worker.
    pub fn shot_writer(&self) -> ShotWriter {
        ShotWriter::new(
            &self.view_mut(Region::framebuffer()),
            &self.view(Region::frame_lease()),
        )
    }

    /// Asks gpu-worker for a screenshot, in the coordinator, and returns the request's number for
    /// [`ShotReader::take`].
    pub fn ask_for_shot(&self) -> u32 {
        let request = ShotReader::ask(&self.view_mut(Region::frame_lease()));
        self.doorbell(SleeperId::Gpu).ring();
        request
    }

    /// Screenshots, for reading.
    pub fn shot_reader(&self) -> ShotReader {
        ShotReader::new(&self.view(Region::framebuffer()))
    }

    /// Playback, in io-worker.
    pub fn playback_producer(&self, format: Format) -> PlaybackProducer<ViewMut, View> {
        PlaybackProducer::attach(
            self.view_mut(Region::playback()),
            self.view(Region::playback_head()),
            format,
        )
    }

    /// Playback, in audio-worker.
    pub fn playback_consumer(&self, host_rate: u32) -> PlaybackConsumer<ViewMut, View> {
        PlaybackConsumer::attach(
            self.view_mut(Region::playback_head()),
            self.view(Region::playback()),
            host_rate,
        )
    }

    /// Frames of silence that the host's sound device made up for, as audio-worker tells; wraps.
    pub fn unheard_frames(&self) -> u32 {
        audio::unheard(&self.view(Region::playback_head()))
    }

    /// Capture, in audio-worker.
    pub fn capture_producer(&self, rate: u32) -> CaptureProducer<ViewMut, View> {
        CaptureProducer::attach(
            self.view_mut(Region::capture()),
            self.view(Region::capture_head()),
            rate,
        )
    }

    /// Capture, in io-worker; `None` until audio-worker has made the ring.
    ///
    /// # Errors
    /// [`AudioError`].
    pub fn capture_consumer(&self) -> Result<Option<CaptureConsumer<ViewMut, View>>, AudioError> {
        CaptureConsumer::attach(
            self.view_mut(Region::capture_head()),
            self.view(Region::capture()),
        )
    }
}
