//! The commit store: what makes io-worker restartable.
//!
//! After a batch of commands io-worker writes the state of the devices that changed and one global record, and
//! then stores one word. That word is the only thing that makes the commit visible: killed at any instruction
//! before it, the previous commit stands; after it, the new one. Only then may anything that the commit caused
//! be published. An undo log was rejected (a successor would have to apply it, and could die while it does),
//! and so was one big record (a serial port would pay for every disk).
//!
//! Each device has two slots. A state goes into the one that does not hold the newest committed state, so
//! there is always a whole one. A slot carries the number of the commit it was written for; it counts only
//! once that commit has happened. A successor first empties every slot from a commit that never happened: else a
//! later commit with that number would adopt it.
//!
//! Nobody but io-worker reads the store, and a predecessor that lies is a predecessor that ran hostile code, so
//! everything is checked: lengths against the slot, contents against a CRC-32, states by their decoder.
//!
//! Layout: the commit word (u64) at 0; two global slots from [`GLOBAL_AT`]; two slots per device from
//! [`DEVICES_AT`]. A slot: number (u64), length (u32), CRC-32 (u32), bytes.

use serde::{Serialize, de::DeserializeOwned};

use crate::shm::ViewMut;
use crate::sync::{Ordering, fence};
use crate::words::{NoSteps, Steps, WriteWords};

/// Number of devices that can have a state.
pub const MAX_DEVICES: usize = 64;
/// Bytes of a slot, header included.
pub const SLOT_SIZE: usize = 64 << 10;
const SLOT_HEADER: usize = 16;
/// Most bytes of a state or of the global record.
pub const MAX_STATE: usize = SLOT_SIZE - SLOT_HEADER;
/// Offset of the first global slot.
pub const GLOBAL_AT: usize = 4096;
/// Offset of the first device slot.
pub const DEVICES_AT: usize = GLOBAL_AT + 2 * SLOT_SIZE;
/// Bytes of the store.
pub const COMMIT_SIZE: usize = DEVICES_AT + MAX_DEVICES * 2 * SLOT_SIZE;

/// Why a state could not be committed or loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The state does not fit its slot.
    #[error("The state of {who} has {len} bytes; a slot holds {MAX_STATE}")]
    TooLarge {
        /// Which state.
        who: Who,
        /// Its length in bytes.
        len: usize,
    },
    /// The state could not be serialised.
    #[error("The state of {who} cannot be encoded: {reason}")]
    Encode {
        /// Which state.
        who: Who,
        /// The encoder's reason.
        reason: String,
    },
    /// A committed state is not what a device would have written.
    #[error("The committed state of {who} cannot be decoded: {reason}")]
    Decode {
        /// Which state.
        who: Who,
        /// The decoder's reason.
        reason: String,
    },
    /// A commit is recorded but its global record is damaged.
    #[error("The global record of commit {0} is damaged")]
    Damaged(u64),
}

/// Whose state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The global record.
    Global,
    /// A device, by its number below [`MAX_DEVICES`].
    Device(usize),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Global => f.write_str("the machine"),
            Self::Device(n) => write!(f, "device {n}"),
        }
    }
}

/// The commit store, in the io-worker that owns it.
#[derive(Debug)]
pub struct CommitStore<W = ViewMut, S = NoSteps> {
    words: W,
    steps: S,
    committed: u64,
    /// Per device: which slot holds the newest committed state, if any.
    newest: [Option<u8>; MAX_DEVICES],
    /// Devices staged for the next commit.
    staged: u64,
    buffer: Vec<u8>,
}

impl<W: WriteWords> CommitStore<W> {
    /// Opens the store that starts `words` ([`COMMIT_SIZE`] bytes) and empties what a predecessor left
    /// uncommitted.
    pub fn open(words: W) -> Self {
        CommitStore::open_with_steps(words, NoSteps)
    }
}

impl<W: WriteWords, S: Steps> CommitStore<W, S> {
    /// The same with a hook before each store.
    pub fn open_with_steps(words: W, steps: S) -> Self {
        let committed = words.load_u64(0, Ordering::Acquire);
        let mut this = Self {
            words,
            steps,
            committed,
            newest: [None; MAX_DEVICES],
            staged: 0,
            buffer: Vec::new(),
        };
        for device in 0..MAX_DEVICES {
            let mut best: Option<(u64, u8)> = None;
            for which in 0..2u8 {
                let at = slot_at(device, which);
                let number = this.words.load_u64(at, Ordering::Relaxed);
                if number > committed {
                    this.steps.step();
                    this.words.store_u64(at, 0, Ordering::Relaxed);
                } else if number > 0
                    && best.is_none_or(|(n, _)| number > n)
                    && this.read_slot(Who::Device(device), at).is_some()
                {
                    best = Some((number, which));
                }
            }
            this.newest[device] = best.map(|(_, which)| which);
        }
        fence(Ordering::SeqCst);
        this
    }

    /// Number of the last commit; 0 before the first.
    pub fn number(&self) -> u64 {
        self.committed
    }

    /// The global record of the last commit; `None` before the first.
    ///
    /// # Errors
    /// [`CommitError::Damaged`], [`CommitError::Decode`].
    pub fn load_global<G: DeserializeOwned>(&self) -> Result<Option<G>, CommitError> {
        if self.committed == 0 {
            return Ok(None);
        }
        let at = global_at(self.committed);
        let number = self.words.load_u64(at, Ordering::Relaxed);
        let bytes = self
            .read_slot(Who::Global, at)
            .filter(|_| number == self.committed);
        let bytes = bytes.ok_or(CommitError::Damaged(self.committed))?;
        decode(Who::Global, &bytes).map(Some)
    }

    /// The committed state of a device as bytes; `None` when it never committed one. Panics when `device` is not
    /// below [`MAX_DEVICES`].
    pub fn load_bytes(&self, device: usize) -> Option<Vec<u8>> {
        let which = self.newest[device]?;
        self.read_slot(Who::Device(device), slot_at(device, which))
    }

    /// The committed state of a device; otherwise as [`Self::load_bytes`].
    ///
    /// # Errors
    /// [`CommitError::Decode`].
    pub fn load<T: DeserializeOwned>(&self, device: usize) -> Result<Option<T>, CommitError> {
        self.load_bytes(device)
            .map(|bytes| decode(Who::Device(device), &bytes))
            .transpose()
    }

    /// Writes a device's state for the next commit; a second one before it replaces the first. Panics when
    /// `device` is not below [`MAX_DEVICES`].
    ///
    /// # Errors
    /// [`CommitError::TooLarge`]; what was staged before for this device is gone then.
    pub fn stage_bytes(&mut self, device: usize, bytes: &[u8]) -> Result<(), CommitError> {
        let which = self.newest[device].map_or(0, |newest| 1 - newest);
        self.write_slot(Who::Device(device), slot_at(device, which), bytes)?;
        self.staged |= 1 << device;
        Ok(())
    }

    /// [`Self::stage_bytes`] of a serialised state.
    ///
    /// # Errors
    /// [`CommitError::TooLarge`], [`CommitError::Encode`].
    pub fn stage<T: Serialize>(&mut self, device: usize, state: &T) -> Result<(), CommitError> {
        let bytes = self.encode(Who::Device(device), state)?;
        let result = self.stage_bytes(device, &bytes);
        self.buffer = bytes;
        result
    }

    /// Commits everything staged, with a global record; returns the number of the commit. What the commit caused
    /// may be published after this and not before.
    ///
    /// # Errors
    /// [`CommitError::TooLarge`], [`CommitError::Encode`]; the last commit stands then.
    pub fn commit<G: Serialize>(&mut self, global: &G) -> Result<u64, CommitError> {
        let bytes = self.encode(Who::Global, global)?;
        let result = self.write_slot(Who::Global, global_at(self.committed + 1), &bytes);
        self.buffer = bytes;
        result?;
        self.committed += 1;
        self.steps.step();
        self.words.store_u64(0, self.committed, Ordering::Release);
        // Nothing that follows may become visible before the commit, on any kind of host.
        fence(Ordering::SeqCst);
        self.steps.step();
        let mut staged = std::mem::take(&mut self.staged);
        while staged != 0 {
            let newest = &mut self.newest[staged.trailing_zeros() as usize];
            *newest = Some(newest.map_or(0, |n| 1 - n));
            staged &= staged - 1;
        }
        Ok(self.committed)
    }

    fn encode<T: Serialize>(&mut self, who: Who, state: &T) -> Result<Vec<u8>, CommitError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        postcard::to_extend(state, buffer).map_err(|e| CommitError::Encode {
            who,
            reason: e.to_string(),
        })
    }

    fn write_slot(&mut self, who: Who, at: usize, bytes: &[u8]) -> Result<(), CommitError> {
        let number = self.committed + 1;
        self.steps.step();
        self.words.store_u64(at, 0, Ordering::Relaxed);
        if let Who::Device(device) = who {
            self.staged &= !(1 << device);
        }
        if bytes.len() > MAX_STATE {
            return Err(CommitError::TooLarge {
                who,
                len: bytes.len(),
            });
        }
        fence(Ordering::Release);
        self.steps.step();
        self.words.write_bytes(at + SLOT_HEADER, bytes);
        self.steps.step();
        self.words
            .store_u32(at + 8, bytes.len() as u32, Ordering::Relaxed);
        self.words
            .store_u32(at + 12, checksum(who, bytes), Ordering::Relaxed);
        self.steps.step();
        self.words.store_u64(at, number, Ordering::Release);
        self.steps.step();
        Ok(())
    }

    /// The bytes of a slot, if its length is possible and its checksum right.
    fn read_slot(&self, who: Who, at: usize) -> Option<Vec<u8>> {
        let len = self.words.load_u32(at + 8, Ordering::Relaxed) as usize;
        if len > MAX_STATE {
            return None;
        }
        let mut bytes = vec![0; len];
        self.words.read_bytes(at + SLOT_HEADER, &mut bytes);
        (checksum(who, &bytes) == self.words.load_u32(at + 12, Ordering::Relaxed)).then_some(bytes)
    }
}

/// CRC-32 of the bytes, begun with whose they are, so that a slot copied elsewhere does not count.
fn checksum(who: Who, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    let owner = match who {
        Who::Global => u32::MAX,
        Who::Device(n) => n as u32,
    };
    crc.update(&owner.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

fn slot_at(device: usize, which: u8) -> usize {
    assert!(device < MAX_DEVICES, "device {device}");
    DEVICES_AT + (device * 2 + usize::from(which)) * SLOT_SIZE
}

fn global_at(number: u64) -> usize {
    GLOBAL_AT + (number & 1) as usize * SLOT_SIZE
}

fn decode<T: DeserializeOwned>(who: Who, bytes: &[u8]) -> Result<T, CommitError> {
    let failed = |reason: String| CommitError::Decode { who, reason };
    match postcard::take_from_bytes(bytes) {
        Ok((state, [])) => Ok(state),
        Ok((_, rest)) => Err(failed(format!("{} bytes too many", rest.len()))),
        Err(e) => Err(failed(e.to_string())),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
