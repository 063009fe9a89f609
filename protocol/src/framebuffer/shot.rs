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

/// Offset of the coordinator's request counter in its frame lease area, in bytes.
pub const AT_REQUEST: usize = 64;
const _: () = assert!(AT_REQUEST + 4 <= super::LEASE_BYTES);

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
    requests: View,
}

impl ShotWriter {
    /// The area in the framebuffer file's contents, and the coordinator's lease area.
    pub fn new(framebuffer: &ViewMut, lease: &View) -> Self {
        Self {
            area: framebuffer.slice(AT_SHOT, SHOT_BYTES),
            requests: lease.slice(AT_REQUEST, 4),
        }
    }

    /// The request that waits for an answer, if one does.
    pub fn pending(&self) -> Option<u32> {
        let request = self.requests.load_u32(0, Ordering::Acquire);
        (request != self.answered()).then_some(request)
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

    /// Asks for a screenshot and returns the request's number. Then ring gpu-worker's doorbell, and look for the answer
    /// with [`Self::take`]. `lease` is the coordinator's lease area.
    pub fn ask(lease: &ViewMut) -> u32 {
        // 0 is the number of no request: the file starts with it as answered.
        let request = lease
            .load_u32(AT_REQUEST, Ordering::Relaxed)
            .wrapping_add(1)
            .max(1);
        lease.store_u32(AT_REQUEST, request, Ordering::Release);
        request
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
