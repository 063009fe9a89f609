//! The wiring probe: does the worker's map show what the coordinator's does?
//!
//! Wrong descriptor, wrong offset, private instead of shared: each makes a machine that works until two
//! processes must see the same byte. So before any guest instruction runs, fresh numbers go both ways through
//! the very maps that will be used (S3.20–S3.23), and a failure names the direction, the place, both values
//! and the likely cause. Every worker has two words of its own in each file's probe window: hashing names into
//! 16 words, as the source did, lets two workers collide. The numbers are nonces: a constant could be left over.
//!
//! A worker writes only into files that it may write. Of the others it returns what it read; that a
//! private map was wrongly made of one cannot be seen this way (an untouched private page shows the file), so
//! maps are also judged by the kernel's own description of them.

use std::fmt;

use crate::handshake::files::{PROBE_OFFSET, PROBE_WINDOW};
use crate::handshake::{FileId, MapSet, ProbeGo, ProbeResult, Role};
use crate::ram::GUEST_BASE;
use crate::shm::{Map, View, ViewMut};
use crate::sync::Ordering;

/// Which way a nonce went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The coordinator wrote, the worker read.
    CoordinatorToWorker,
    /// The worker wrote, the coordinator read.
    WorkerToCoordinator,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoordinatorToWorker => "coordinator to worker",
            Self::WorkerToCoordinator => "worker to coordinator",
        })
    }
}

/// Why a worker's wiring was refused. Fatal for that worker (S3.23).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// A nonce did not arrive.
    #[error(
        "Wiring of the {role}: {file:?}, {direction}, offset {offset:#x} of {len:#x}: wrote {wrote:#010x}, \
         read {read:#010x}; {cause}"
    )]
    Mismatch {
        /// The worker.
        role: Role,
        /// The file.
        file: FileId,
        /// Which way.
        direction: Direction,
        /// Offset of the word in the file, in bytes.
        offset: u64,
        /// Length of the file, in bytes.
        len: u64,
        /// The nonce.
        wrote: u32,
        /// What was read instead.
        read: u32,
        /// The likely cause.
        cause: String,
    },
    /// The worker did not answer for this file.
    #[error("Wiring of the {role}: it did not answer for {file:?}")]
    Missing {
        /// The worker.
        role: Role,
        /// The file.
        file: FileId,
    },
    /// The kernel describes a map as private.
    #[error("Wiring of the {role}: {fault}")]
    Map {
        /// The worker.
        role: Role,
        /// What the worker found in `/proc/self/smaps`.
        fault: String,
    },
}

/// Offset in a head of the word that the coordinator writes for `role`.
fn down(role: Role) -> usize {
    PROBE_OFFSET + 8 * (role.index() - 1)
}

/// Offset in a head of the word that `role` writes.
fn up(role: Role) -> usize {
    down(role) + 4
}

const _: () = assert!(8 * Role::WORKERS.len() <= PROBE_WINDOW);

/// What a worker writes into `file`, never zero.
fn reply_nonce(salt: u32, file: FileId) -> u32 {
    let x = (salt ^ file.number().wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B);
    (x ^ x >> 15) | 1
}

struct Entry {
    file: FileId,
    head: ViewMut,
    len: u64,
    saved: [u32; 2],
    nonce: u32,
}

/// The coordinator's side of one worker's probe. Restores the words it used when dropped (S3.22).
pub struct CoordinatorProbe {
    role: Role,
    salt: u32,
    entries: Vec<Entry>,
}

impl fmt::Debug for CoordinatorProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorProbe")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl CoordinatorProbe {
    /// Writes fresh nonces for `role`. `heads` are the coordinator's own maps of each file's head with the
    /// length of the file; the worker's maps exist already. Panics for the coordinator's own role.
    pub fn begin(
        role: Role,
        heads: impl IntoIterator<Item = (FileId, ViewMut, u64)>,
        mut random: impl FnMut() -> u32,
    ) -> Self {
        assert!(role != Role::Coordinator, "the coordinator does not probe itself");
        let salt = random();
        let entries = heads
            .into_iter()
            .map(|(file, head, len)| {
                let saved = [
                    head.load_u32(down(role), Ordering::Acquire),
                    head.load_u32(up(role), Ordering::Acquire),
                ];
                // Never zero, which an empty page holds, and never what lies there already.
                let nonce = loop {
                    let n = random();
                    if n != 0 && n != saved[0] {
                        break n;
                    }
                };
                head.store_u32(down(role), nonce, Ordering::SeqCst);
                Entry {
                    file,
                    head,
                    len,
                    saved,
                    nonce,
                }
            })
            .collect();
        Self { role, salt, entries }
    }

    /// The message that lets the worker look.
    pub fn go(&self) -> ProbeGo {
        ProbeGo { salt: self.salt }
    }

    /// Judges the worker's answer and restores the words.
    ///
    /// # Errors
    /// [`ProbeError`] for the first file whose map is wrong.
    pub fn finish(self, result: &ProbeResult) -> Result<(), ProbeError> {
        self.entries.iter().try_for_each(|e| self.judge(e, result))
    }

    fn judge(&self, e: &Entry, result: &ProbeResult) -> Result<(), ProbeError> {
        let role = self.role;
        let read = result.read.iter().find(|(f, _)| *f == e.file).map(|(_, v)| *v);
        let read = read.ok_or(ProbeError::Missing { role, file: e.file })?;
        let mismatch = |direction, word, wrote, read, cause| ProbeError::Mismatch {
            role,
            file: e.file,
            direction,
            offset: e.file.map_start() + word as u64,
            len: e.len,
            wrote,
            read,
            cause,
        };
        if read != e.nonce {
            let other = self.entries.iter().find(|o| o.nonce == read);
            let cause = match other {
                Some(o) => format!("the worker has the descriptor of {:?} in its place", o.file),
                None if read == e.saved[0] => {
                    "the worker's map is a copy made before, not the file".to_owned()
                }
                None => "the worker's map is at a wrong offset or of a wrong file".to_owned(),
            };
            return Err(mismatch(
                Direction::CoordinatorToWorker,
                down(role),
                e.nonce,
                read,
                cause,
            ));
        }
        if e.file.writable_by(role) {
            let wrote = reply_nonce(self.salt, e.file);
            let read = e.head.load_u32(up(role), Ordering::SeqCst);
            if read != wrote {
                let cause = "the worker reads the file but its writes stay its own: a private map".to_owned();
                return Err(mismatch(
                    Direction::WorkerToCoordinator,
                    up(role),
                    wrote,
                    read,
                    cause,
                ));
            }
        }
        Ok(())
    }
}

impl Drop for CoordinatorProbe {
    fn drop(&mut self) {
        for e in &self.entries {
            e.head.store_u32(down(self.role), e.saved[0], Ordering::SeqCst);
            e.head.store_u32(up(self.role), e.saved[1], Ordering::SeqCst);
        }
    }
}

/// The worker's side: reads the coordinator's nonces through `maps`, and writes its own where it may.
pub fn answer(role: Role, maps: &MapSet, go: ProbeGo) -> ProbeResult {
    let read = maps
        .ids()
        .map(|file| {
            let head: View = maps.head(file);
            let value = head.load_u32(down(role), Ordering::SeqCst);
            if file.writable_by(role)
                && let Some(head) = maps.head_mut(file)
            {
                head.store_u32(up(role), reply_nonce(go.salt, file), Ordering::SeqCst);
            }
            (file, value)
        })
        .collect();
    ProbeResult { read }
}

/// Judges maps by the kernel's description of them: `smaps` is the text of `/proc/self/smaps`. Answers one
/// sentence per map that is private, missing, or writable although it should not be.
pub fn judge_maps(smaps: &str, role: Role, maps: &MapSet) -> Vec<String> {
    maps.ids()
        .filter_map(|file| judge_map(smaps, role, file, maps.map(file)?))
        .collect()
}

fn judge_map(smaps: &str, role: Role, file: FileId, map: &Map) -> Option<String> {
    let address = map.as_ptr().addr() as u64;
    let mut lines = smaps.lines();
    let found = lines.by_ref().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (
            u64::from_str_radix(start, 16).ok()?,
            u64::from_str_radix(end, 16).ok()?,
        );
        (start..end).contains(&address).then(|| rest.to_owned())
    });
    let Some(description) = found else {
        return Some(format!("{file:?} is not mapped at {address:#x}"));
    };
    let permissions = description.split(' ').next().unwrap_or_default().to_owned();
    // A shared map of a read-only descriptor has the flag "ms" (may share) without "sh".
    let flags = lines
        .take_while(|l| !is_range(l))
        .find_map(|l| l.strip_prefix("VmFlags:"));
    let shared = permissions.ends_with('s') && flags.is_none_or(|f| f.split_whitespace().any(|w| w == "ms"));
    if !shared {
        return Some(format!(
            "the map of {file:?} at {address:#x} is private ({permissions}), not shared"
        ));
    }
    let writable = permissions.as_bytes().get(1) == Some(&b'w');
    // The portable back end cannot map read-only, and says so.
    if writable && !file.writable_by(role) && !map.is_portable() {
        return Some(format!(
            "the map of {file:?} at {address:#x} is writable, which the {role} may not"
        ));
    }
    None
}

fn is_range(line: &str) -> bool {
    line.split_once(' ').is_some_and(|(range, _)| {
        range
            .split_once('-')
            .is_some_and(|(a, b)| u64::from_str_radix(a, 16).is_ok() && u64::from_str_radix(b, 16).is_ok())
    })
}

/// Offset in the guest-RAM file of the first byte behind the probe window: guest physical zero.
pub const PROBE_END: u64 = GUEST_BASE;

#[cfg(test)]
mod tests;
