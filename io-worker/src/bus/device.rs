//! What every device is: offsets in, values out, a lifecycle, and a state that can be committed.

use quintet_protocol::time::VmTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Backplane;
use super::regmap::Attr;

/// Width of an access in bytes: 1, 2, 4 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u8);

impl Size {
    /// One byte.
    pub const BYTE: Self = Self(1);
    /// Two bytes.
    pub const WORD: Self = Self(2);
    /// Four bytes.
    pub const DWORD: Self = Self(4);
    /// Eight bytes; memory only.
    pub const QWORD: Self = Self(8);

    /// The size of `bytes`, or `None` for what no x86 access has.
    pub const fn new(bytes: u8) -> Option<Self> {
        match bytes {
            1 | 2 | 4 | 8 => Some(Self(bytes)),
            _ => None,
        }
    }

    /// In bytes.
    pub const fn bytes(self) -> u8 {
        self.0
    }

    /// All ones of this size: what nobody answers.
    pub const fn ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.0 as u32)
    }
}

/// Where in a device an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which of the device's regions: an index into [`Device::regions`].
    pub region: u8,
    /// Byte offset from the start of the region. `offset + size` does not pass the region's end.
    pub offset: u64,
    /// Width.
    pub size: Size,
}

/// Address space of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// I/O ports.
    Port,
    /// Guest physical memory.
    Memory,
}

/// A block of registers that a device shows on a bus. Where it lies is the bus's business.
#[derive(Clone, Debug)]
pub struct Region {
    /// Ports or memory.
    pub kind: RegionKind,
    /// Length in bytes.
    pub len: u64,
    /// Runs of registers with their attributes, in ascending order: `(offset, length, attributes)`. What lies
    /// between them answers like any register of the device, written posted.
    pub runs: Vec<(u64, u64, Attr)>,
}

/// What a pointer of the guest wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointerKind {
    /// Movements.
    Relative,
    /// Places on the screen.
    Absolute,
}

/// A committed state that a device cannot take up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by another version of the device.
    #[error("State of {device} has version {found}, not {expected}")]
    Version {
        /// Name of the device.
        device: &'static str,
        /// Version found.
        found: u16,
        /// Version understood.
        expected: u16,
    },
    /// The bytes are not such a state.
    #[error("State of {device} is damaged ({len} bytes): {why}")]
    Damaged {
        /// Name of the device.
        device: &'static str,
        /// Length in bytes.
        len: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// A device.
///
/// # Lifecycle
/// Constructed in its power-on state; then [`Self::load`] if a predecessor committed one; then
/// [`Self::start`] once. [`Self::pause`] and [`Self::resume`] alternate; between them VM time stands still and
/// no access arrives, so that most devices need neither. [`Self::reset`] may come at any time after `start`,
/// paused or not, and twice in a row is the same as once. Nothing is called after drop; there is no halt,
/// because a device owns nothing that needs one.
///
/// # Exactly once
/// What a call changes is visible to nobody until it is committed: pins, outgoing bytes and requests are
/// collected by the [`Backplane`] and published after [`Self::save`]. Guest memory cannot be held back; what
/// is written there must be the same when the call is repeated from the last commit, and the write that
/// tells the guest of the end goes into [`Self::completed`].
pub trait Device: Send {
    /// Short unique name, such as `com1`: for logs and for the commit.
    fn name(&self) -> &'static str;

    /// The blocks of registers, in the order that [`Access::region`] counts. Constant for a life.
    fn regions(&self) -> Vec<Region>;

    /// Reads. Bits beyond the size are ignored by the caller.
    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64;

    /// Writes. Bits of `value` beyond the size are zero.
    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64);

    /// The guest is about to run for the first time in this process's life.
    fn start(&mut self, _bp: &mut Backplane<'_>) {}

    /// VM time is about to stand still.
    fn pause(&mut self) {}

    /// VM time goes on.
    fn resume(&mut self) {}

    /// The machine's reset line. Registers take their reset values; what the outside owns (bytes under way)
    /// stays.
    fn reset(&mut self, bp: &mut Backplane<'_>);

    /// Takes the state in which a PC's firmware leaves the device; called after a reset.
    fn as_firmware_leaves_it(&mut self) {}

    /// When [`Self::advance`] is next due; `None` when only an access or input changes anything.
    fn next_deadline(&self) -> Option<VmTime> {
        None
    }

    /// Takes up what has happened since: deadlines up to `bp.now`, input that has come, output that has room.
    /// Returns whether the state changed.
    fn advance(&mut self, _bp: &mut Backplane<'_>) -> bool {
        false
    }

    /// Called after each commit and before anything of it is visible, and when a successor has loaded: writes
    /// completions that wait into guest memory, and forgets them. Returns whether there were any; the state is
    /// then committed again before the publication, so that a successor repeats a completion only while nobody
    /// can have seen it.
    fn completed(&mut self, _bp: &mut Backplane<'_>) -> bool {
        false
    }

    /// Lamps of a keyboard: bit 0 scroll, 1 num, 2 caps; `None` for devices without any.
    fn leds(&self) -> Option<u8> {
        None
    }

    /// What the guest's pointer wants to be told; `None` for devices without one.
    fn pointer(&self) -> Option<PointerKind> {
        None
    }

    /// The A20 gate as this device drives it; `None` for a device that does not.
    fn a20(&self) -> Option<bool> {
        None
    }

    /// Where in the ROM window the bytes of region 0 lie, while reads of it are to come from there; `None` for devices that
    /// answer reads themselves.
    fn rom(&self) -> Option<u32> {
        None
    }

    /// Version of what [`Self::save`] writes.
    fn state_version(&self) -> u16 {
        1
    }

    /// Appends the committed state: a pure function of the device.
    fn save(&self, out: &mut Vec<u8>);

    /// Takes up a state written by [`Self::save`] of `version`.
    ///
    /// # Errors
    /// [`StateError`]; the device is unchanged then.
    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError>;

    /// Bytes of region `region` as a read of each would answer now, and a bit per byte that says whether it
    /// may be answered so: whether a read would neither change anything nor depend on time. Only for regions
    /// with mirrored registers; at most 16 bytes are asked for.
    fn mirror(&self, _region: u8, _into: &mut [u8; 16]) -> u16 {
        0
    }
}

/// Appends `state` in the form all devices commit.
pub fn save_state<S: Serialize>(state: &S, out: &mut Vec<u8>) {
    match postcard::to_extend(state, std::mem::take(out)) {
        Ok(bytes) => *out = bytes,
        // Device states are plain data: there is no serialiser error to come by with a growing vector.
        Err(error) => unreachable!("a plain state was refused: {error}"),
    }
}

/// Reads back what [`save_state`] wrote.
///
/// # Errors
/// [`StateError`] when the version is another, or when the bytes are not exactly one such state.
pub fn load_state<S: DeserializeOwned>(
    device: &'static str,
    expected: u16,
    version: u16,
    bytes: &[u8],
) -> Result<S, StateError> {
    if version != expected {
        return Err(StateError::Version {
            device,
            found: version,
            expected,
        });
    }
    let damaged = |why: String| StateError::Damaged {
        device,
        len: bytes.len(),
        why,
    };
    match postcard::take_from_bytes(bytes) {
        Ok((state, [])) => Ok(state),
        Ok((_, rest)) => Err(damaged(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}
