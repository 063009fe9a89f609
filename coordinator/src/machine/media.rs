//! Changing what is in a drive while the machine runs.
//!
//! The io-worker's descriptors and its right to them are fixed when it starts, so the one that has the old medium ends in good order, with all that
//! was written where it lasts, and its successor is started with the new one (ADR 0122). VM time stands still meanwhile. Whoever asks has opened
//! the image: this process may open nothing any more.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use quintet_protocol::control::{Drive, DriveReport, Medium};
use quintet_protocol::handshake::Role;
use quintet_protocol::handshake::config::{DiskConfig, DiskKind};
use quintet_protocol::lifecycle::{Input, Policy};

use super::Machine;
use super::crew::encode;
use super::requests::{Until, refused, reply};
use crate::config::{UsageError, reason};
use crate::firmware;
use crate::images::{self, ImageArg};

impl Machine {
    /// Puts a medium, which came as `file`, into a drive.
    pub(super) fn insert(&mut self, drive: Drive, medium: Medium, file: Option<OwnedFd>, socket: OwnedFd) {
        let inserted = self.drive(drive).and_then(|at| {
            let file = file.ok_or_else(|| UsageError("No image came with the request".into()))?;
            let shelf = &mut self.shelves[drive as usize];
            // What is at hand was judged, and is locked.
            let n = match shelf.find(&file) {
                Some(n) => {
                    shelf.protect(n, medium.read_only);
                    n
                }
                None => {
                    let image = image(drive, medium.name.as_ref(), medium.read_only);
                    let takes = firmware::floppy_drive(&self.config.cpu.cmos);
                    let file = images::take_medium(&image, file.into(), takes)?;
                    shelf.put(medium, file.into())
                }
            };
            self.put_in(drive, at, Some(n))
        });
        match inserted {
            Ok(()) => self.answer_when_changed(socket),
            Err(e) => reply(&socket, &refused(&e)),
        }
    }

    /// Takes out what is in a drive.
    pub(super) fn eject(&mut self, drive: Drive, socket: OwnedFd) {
        let found = self
            .drive(drive)
            .and_then(|at| match self.config.io.disks[at].loaded {
                true => Ok(at),
                false => Err(UsageError(format!("Nothing is in the {drive} drive"))),
            });
        match found {
            Ok(at) => {
                self.shelves[drive as usize].take();
                self.change(at, None);
                self.answer_when_changed(socket);
            }
            Err(e) => reply(&socket, &refused(&e)),
        }
    }

    /// Puts the next medium that is at hand into a drive, after the last one none. Whoever asks is told on the terminal.
    pub(super) fn next_medium(&mut self, drive: Drive) {
        let next = self.shelves[drive as usize].next();
        let changed = self
            .drive(drive)
            .and_then(|at| self.put_in(drive, at, next).map(|()| at));
        match changed {
            Ok(at) => {
                let disk = &self.config.io.disks[at];
                let what = if disk.loaded { &disk.name } else { "nothing" };
                eprintln!("quintet: in the {drive} drive: {what}");
            }
            Err(e) => eprintln!("quintet: {e}"),
        }
    }

    /// Puts medium `n` of those at hand, or nothing, into a drive, which is the machine's disk `at`.
    fn put_in(&mut self, drive: Drive, at: usize, n: Option<usize>) -> Result<(), UsageError> {
        let shelf = &mut self.shelves[drive as usize];
        let medium = n.map(|n| shelf.get(n)).transpose();
        let medium =
            medium.map_err(|e| UsageError(format!("Cannot open the image again: {}", reason(&e))))?;
        shelf.set(n);
        self.change(at, medium);
        Ok(())
    }

    /// What is in which drive.
    pub(super) fn drives(&self) -> Vec<DriveReport> {
        let disks = &self.config.io.disks;
        let report = |drive| {
            let disk = &disks[find(disks, drive)?];
            let image = disk.loaded.then(|| disk.name.clone());
            Some(DriveReport { drive, image })
        };
        Drive::ALL.into_iter().filter_map(report).collect()
    }

    /// Which of the disks is in that drive now.
    fn drive(&self, drive: Drive) -> Result<usize, UsageError> {
        if !self.life.can_be_replaced(Role::Io) {
            return Err(UsageError(
                "The io-worker is not running: look at `quintet status`, and try again when it is".into(),
            ));
        }
        find(&self.config.io.disks, drive).ok_or_else(|| {
            UsageError(format!(
                "This machine has no {drive} drive; start it with --{drive}"
            ))
        })
    }

    /// Has the io-worker replaced by one that has `medium` in the drive that is its disk `at`.
    fn change(&mut self, at: usize, medium: Option<(Medium, OwnedFd)>) {
        let disks = &mut self.config.io.disks;
        let first = disks[..at].iter().map(DiskConfig::descriptors).sum();
        let disk = &mut disks[at];
        let replaced = disk.descriptors();
        disk.medium = disk.medium.wrapping_add(1);
        disk.loaded = medium.is_some();
        let file = medium.map(|(medium, file)| {
            (disk.name, disk.read_only) = (medium.name, medium.read_only || disk.kind == DiskKind::Cdrom);
            file
        });
        let config = encode(&self.config.io);
        self.fleet.change_plan(Role::Io, config, (first, replaced), file);
        self.step(Input::Replace(Role::Io));
    }

    /// Answers when the successor of the io-worker that is being replaced runs.
    fn answer_when_changed(&mut self, socket: OwnedFd) {
        let until = Until::Successor(Role::Io, self.life.generation(Role::Io));
        self.wait_for(socket, until, patience());
    }
}

/// How long that may take: what was written has to reach the host's disks first.
pub fn patience() -> Duration {
    let policy = Policy::default();
    policy.flush + policy.start
}

/// Which of the disks is in a drive.
pub(super) fn find(disks: &[DiskConfig], drive: Drive) -> Option<usize> {
    let kind = match drive {
        Drive::Floppy => DiskKind::Floppy,
        Drive::Cdrom => DiskKind::Cdrom,
    };
    disks.iter().position(|disk| disk.kind == kind)
}

/// What is to go into a drive.
pub fn image(drive: Drive, path: &Path, read_only: bool) -> ImageArg {
    let mut image = ImageArg::medium(drive, path);
    image.read_only |= read_only;
    image
}
