//! Directories for a module, `--dir HOST[::GUEST]`: opened here and handed to io-worker, which opens what lies beneath.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::config::UsageError;

/// What separates the host's name of a directory from the module's.
pub(crate) const SEPARATOR: &str = "::";

/// A directory and the name that the module knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDir {
    /// On the host.
    pub host: PathBuf,
    /// For the module; as on the command line when nothing else is said.
    pub guest: String,
}

impl GuestDir {
    /// From the command line.
    ///
    /// # Errors
    /// [`UsageError`] for a name that is missing or that a module could not read.
    pub fn parse(text: &Path) -> Result<Self, UsageError> {
        let Some(text) = text.to_str() else {
            return Err(UsageError(format!(
                "--dir {}: a name in UTF-8 is wanted",
                text.display()
            )));
        };
        let (host, guest) = text.split_once(SEPARATOR).unwrap_or((text, text));
        if host.is_empty() || guest.is_empty() {
            return Err(UsageError(format!("--dir {text} is not HOST or HOST::GUEST")));
        }
        Ok(Self {
            host: host.into(),
            guest: guest.to_owned(),
        })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`UsageError`] when it is not a directory that can be read.
    pub fn open(&self) -> Result<OwnedFd, UsageError> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.host, how, Mode::empty()).map_err(|e| {
            let host = self.host.display();
            UsageError(format!("Cannot open the directory \"{host}\" (--dir): {e}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_name_or_two() {
        let parse = |text: &str| GuestDir::parse(Path::new(text)).ok().map(|d| (d.host, d.guest));
        assert_eq!(parse("a/b"), Some(("a/b".into(), "a/b".into())));
        assert_eq!(parse("/srv::/data"), Some(("/srv".into(), "/data".into())));
        assert!(parse("::x").is_none() && parse("x::").is_none());
    }
}
