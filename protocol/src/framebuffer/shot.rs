//! Screenshots: the coordinator asks by raising a counter of its own, gpu-worker answers with a PNG file in an area
//! of its own. So the coordinator needs no image codec, gpu-worker needs no descriptor of a host file, and a
//! gpu-worker that dies over it is replaced and answers the same request.

use super::AT_SHOT;
use crate::shm::{View, ViewMut};
use crate::sync::{Ordering, fence};

/// Bytes of the area.
pub(super) const SHOT_BYTES: usize = 15 << 20;
const AT_BYTES: usize = 64;
/// Longest PNG file: enough for a frame of [`super::FRAME_MAX`] bytes of noise.
pub const SHOT_MAX: usize = SHOT_BYTES - AT_BYTES;

const AT_ANSWERED: usize = 0;
const AT_STATUS: usize = 4;
const AT_LEN: usize = 8;

const GOOD: u32 = 1;
const NO_PICTURE: u32 = 2;

/// Why there is no screenshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShotError {
    /// The screen shows nothing that could be drawn.
    #[error("The screen has no picture")]
    NoPicture,
    /// The answer is impossible.
    #[error("The gpu-worker answered with status {status} and {len} bytes")]
    Broken {
        /// Status word found.
        status: u32,
        /// Length found.
        len: u32,
    },
}

/// gpu-worker's end.
#[derive(Debug)]
pub struct ShotWriter {
    area: ViewMut,
}

impl ShotWriter {
    /// The area in the framebuffer file's contents.
    pub fn new(framebuffer: &ViewMut) -> Self {
        Self {
            area: framebuffer.slice(AT_SHOT, SHOT_BYTES),
        }
    }

    /// The last request that was answered.
    pub fn answered(&self) -> u32 {
        self.area.load_u32(AT_ANSWERED, Ordering::Relaxed)
    }

    /// Answers request `request` with a PNG file, or with nothing. A file longer than [`SHOT_MAX`] counts as none.
    pub fn answer(&self, request: u32, png: Option<&[u8]>) {
        let png = png.filter(|png| png.len() <= SHOT_MAX);
        self.area.store_u32(
            AT_STATUS,
            if png.is_some() { GOOD } else { NO_PICTURE },
            Ordering::Relaxed,
        );
        self.area
            .store_u32(AT_LEN, png.map_or(0, <[u8]>::len) as u32, Ordering::Relaxed);
        self.area.write_bytes(AT_BYTES, png.unwrap_or_default());
        // SYNC POINT shot: the file before its number; pairs with the acquire load in `take`.
        fence(Ordering::Release);
        self.area.store_u32(AT_ANSWERED, request, Ordering::Release);
    }
}

/// The coordinator's end. It has one request open at a time.
#[derive(Debug)]
pub struct ShotReader {
    area: View,
}

impl ShotReader {
    /// The area in the framebuffer file's contents.
    pub fn new(framebuffer: &View) -> Self {
        Self {
            area: framebuffer.slice(AT_SHOT, SHOT_BYTES),
        }
    }

    /// The last request that was answered. A coordinator starts counting from here.
    pub fn answered(&self) -> u32 {
        self.area.load_u32(AT_ANSWERED, Ordering::Relaxed)
    }

    /// The PNG file that answers request `request`; `None` while there is no answer yet.
    ///
    /// # Errors
    /// [`ShotError`].
    pub fn take(&self, request: u32) -> Result<Option<Vec<u8>>, ShotError> {
        if self.area.load_u32(AT_ANSWERED, Ordering::Acquire) != request {
            return Ok(None);
        }
        let status = self.area.load_u32(AT_STATUS, Ordering::Relaxed);
        let len = self.area.load_u32(AT_LEN, Ordering::Relaxed);
        match status {
            GOOD if len as usize <= SHOT_MAX => {
                let mut png = vec![0; len as usize];
                self.area.read_bytes(AT_BYTES, &mut png);
                Ok(Some(png))
            }
            NO_PICTURE => Err(ShotError::NoPicture),
            _ => Err(ShotError::Broken { status, len }),
        }
    }
}
