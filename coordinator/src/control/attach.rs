//! Looking at a running machine's memory from another process.
//!
//! The machine is asked once for each file and answers with a descriptor opened read-only; from then on nothing is asked.

use std::os::fd::AsFd as _;

use quintet_protocol::control::{Answer, Request};
use quintet_protocol::handshake::files::{check_header, layout_hash};
use quintet_protocol::handshake::{FileId, MapSet, Role};
use quintet_protocol::shm::Map;

use super::{client, show};
use crate::config::UsageError;

/// Whether anybody of this user may look at a file.
pub fn may_be_watched(file: FileId) -> bool {
    matches!(
        file,
        FileId::Control(Role::Coordinator | Role::Cpu) | FileId::GuestRam | FileId::Memory(_)
    )
}

/// Maps `files` of the machine `name`, read-only.
///
/// # Errors
/// [`UsageError`] when there is no such machine, or it does not let its files be looked at.
pub fn attach(name: &str, files: &[FileId]) -> Result<MapSet, UsageError> {
    let mut maps = MapSet::default();
    for &file in files {
        let failed =
            |e: &dyn std::fmt::Display| UsageError(format!("Cannot look at the machine \"{name}\": {e}"));
        let (len, instance, fd) = match client::ask_for_file(name, &Request::Watch(file))? {
            (Answer::Watch { len, instance }, Some(fd)) => (len, instance, fd),
            (Answer::Error(e), _) => return Err(UsageError(show::error(&e))),
            _ => return Err(UsageError(format!("The machine \"{name}\" answers strangely"))),
        };
        let start = file.map_start();
        let map = Map::read_only(fd.as_fd(), start, len.saturating_sub(start)).map_err(|e| failed(&e))?;
        maps.insert(file, map);
        check_header(&maps.head(file), file, layout_hash(), instance).map_err(|e| failed(&e))?;
    }
    Ok(maps)
}
