//! Why an image could not do what was asked of it.

use rustix::io::Errno;

/// What went wrong; the guest sees a device error for each of them.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host's reason: a bad sector, a full disk.
    #[error(transparent)]
    Host(#[from] std::io::Error),
    /// What the file holds makes no sense.
    #[error("the image is damaged: {0}")]
    Damaged(String),
    /// The host threw away what an earlier flush was to make safe, and would now say that all is well.
    #[error("an earlier flush failed, so that none can be trusted any more")]
    FlushLost,
}

impl From<Errno> for ImageError {
    fn from(errno: Errno) -> Self {
        Self::Host(errno.into())
    }
}

impl ImageError {
    /// What errors with one cause have in common: for the log, which names each cause once.
    pub fn cause(&self) -> String {
        match self {
            Self::Host(error) => error
                .raw_os_error()
                .map_or_else(|| error.to_string(), |number| format!("errno {number}")),
            other => other.to_string(),
        }
    }
}
