//! Media at hand: what was named at the start, and what was put in since, for a key in the window to go through.
//!
//! They are open and locked for as long as they are here: this process may open nothing once the machine runs.

use std::os::fd::{AsFd as _, OwnedFd};

use quintet_protocol::control::{Drive, Medium};
use quintet_protocol::handshake::config::DiskConfig;

use super::media::find;
use crate::config::{MachineConfig, UsageError, reason};
use crate::{firmware, images};

/// The media of one drive.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    media: Vec<(Medium, OwnedFd)>,
    /// Which of them is in the drive.
    at: Option<usize>,
}

impl Shelf {
    /// The media of `drive` that `config` names: the first, whose file is among `files`, those of all disks, is in it, if there is one.
    ///
    /// # Errors
    /// [`UsageError`] for one that cannot be opened or that the drive cannot read.
    pub(super) fn open(config: &MachineConfig, drive: Drive, files: &[OwnedFd]) -> Result<Self, UsageError> {
        let mut shelf = Self::default();
        let disks = &config.io.disks;
        let Some(first) = find(disks, drive) else {
            return Ok(shelf);
        };
        let kind = disks[first].kind;
        if disks[first].loaded {
            let file: usize = disks[..first].iter().map(DiskConfig::descriptors).sum();
            let medium = Medium {
                name: disks[first].name.clone(),
                read_only: disks[first].read_only,
            };
            let file = files[file].try_clone().map_err(|e| {
                UsageError(format!("Cannot keep \"{}\" at hand: {}", medium.name, reason(&e)))
            })?;
            shelf.at = Some(shelf.put(medium, file));
        }
        let takes = firmware::floppy_drive(&config.cpu.cmos);
        for image in config.at_hand.iter().filter(|image| image.kind == kind) {
            let file = images::take_medium(image, images::open_unlocked(image)?, takes)?;
            let medium = Medium {
                name: image.path.display().to_string(),
                read_only: image.read_only,
            };
            shelf.media.push((medium, file.into()));
        }
        Ok(shelf)
    }

    /// What comes after what is in the drive: the next one, after the last nothing, after nothing the first.
    pub(super) fn next(&self) -> Option<usize> {
        let next = self.at.map_or(0, |at| at + 1);
        (next < self.media.len()).then_some(next)
    }

    /// A medium of it, with another descriptor of its file.
    ///
    /// # Errors
    /// The host's, when it has no descriptor left.
    pub(super) fn get(&self, n: usize) -> std::io::Result<(Medium, OwnedFd)> {
        let (medium, file) = &self.media[n];
        Ok((medium.clone(), file.as_fd().try_clone_to_owned()?))
    }

    /// Which of them has this file.
    pub(super) fn find(&self, file: &OwnedFd) -> Option<usize> {
        let of = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        let wanted = of(file)?;
        self.media.iter().position(|(_, fd)| of(fd) == Some(wanted))
    }

    /// Has writes to one of them refused from now on, if so.
    pub(super) fn protect(&mut self, n: usize, read_only: bool) {
        self.media[n].0.read_only |= read_only;
    }

    /// Takes note that `at` is in the drive, or nothing.
    pub(super) fn set(&mut self, at: Option<usize>) {
        self.at = at;
    }

    /// Adds one in place of what is in the drive, and answers its number.
    pub(super) fn put(&mut self, medium: Medium, file: OwnedFd) -> usize {
        match self.at {
            Some(at) => {
                self.media[at] = (medium, file);
                at
            }
            None => {
                self.media.push((medium, file));
                self.media.len() - 1
            }
        }
    }

    /// Gives away what is in the drive: whoever took it out may want to write to it.
    pub(super) fn take(&mut self) {
        if let Some(at) = self.at.take() {
            self.media.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium(name: &str) -> (Medium, OwnedFd) {
        let file = std::fs::File::open("/dev/null").expect("it is there");
        let medium = Medium {
            name: name.to_owned(),
            read_only: true,
        };
        (medium, file.into())
    }

    fn shelf(names: &[&str]) -> Shelf {
        Shelf {
            media: names.iter().map(|name| medium(name)).collect(),
            at: Some(0),
        }
    }

    /// What a key puts in, time after time.
    fn round(shelf: &mut Shelf, times: usize) -> Vec<String> {
        (0..times)
            .map(|_| {
                let next = shelf.next();
                shelf.set(next);
                next.map_or_else(String::new, |n| shelf.get(n).expect("a descriptor").0.name)
            })
            .collect()
    }

    #[test]
    fn a_key_goes_through_all_of_them_and_nothing() {
        assert_eq!(round(&mut shelf(&["a", "b", "c"]), 5), ["b", "c", "", "a", "b"]);
        assert_eq!(round(&mut shelf(&["a"]), 3), ["", "a", ""]);
        assert_eq!(round(&mut Shelf::default(), 2), ["", ""]);
    }

    #[test]
    fn one_that_is_at_hand_can_be_put_in_again_for_reading_only() {
        let mut all = shelf(&["a", "b"]);
        all.media[1].0.read_only = false;
        all.protect(1, false);
        assert!(!all.get(1).expect("a descriptor").0.read_only);
        all.protect(1, true);
        all.protect(1, false);
        assert!(all.get(1).expect("a descriptor").0.read_only);
    }

    #[test]
    fn what_a_command_puts_in_takes_the_place_of_what_was_there() {
        let mut all = shelf(&["a", "b"]);
        let (new, file) = medium("n");
        assert_eq!(all.put(new, file), 0);
        assert_eq!(round(&mut all, 4), ["b", "", "n", "b"]);
        // What a command takes out is not at hand any more.
        all.take();
        assert_eq!(round(&mut all, 3), ["n", "", "n"]);
        all.set(None);
        all.take();
        let (new, file) = medium("m");
        let at = all.put(new, file);
        all.set(Some(at));
        assert_eq!(round(&mut all, 3), ["", "n", "m"]);
    }
}
