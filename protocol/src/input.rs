//! Host input events: what a keyboard or pointer of the host did, on the way to the devices of the guest.
//!
//! gpu-worker sends what happens in the window through the ring in its input file (of [`INPUT_RING`] bytes) to
//! io-worker, which gives the events to its devices. What the command line asks for (`type`, `key`, `mouse`) goes
//! from the coordinator to gpu-worker, as the same records on its lifecycle ring, and gpu-worker passes it on: io-worker
//! has one ring and one committed position, and typed text waits while gpu-worker is being replaced. A second
//! ring from the coordinator to io-worker was rejected for that. The records are S3.54's: magic, version, device,
//! report, milliseconds, length, data.
//!
//! Keys travel as usages of the USB HID keyboard page: they name a key by its place, not by what a layout makes
//! of it, and every device (PS/2 today, USB and virtio later) has a published table from them. Scan codes
//! were rejected, because the guest may switch between three sets of them.
//!
//! When the ring is full, events of the window are dropped, and [`InputEvent::ReleaseAll`] follows as soon as there is
//! room, so that no key stays down; typed text waits.

mod keys;
mod pointer;
mod text;

pub use keys::Key;
pub use pointer::{PointerError, parse_pointer};
pub use text::{Chord, ChordError, KeyStroke, Untypable, parse_chord, strokes_of};

/// Capacity of an input ring in bytes. At 1000 pointer events a second, it holds two seconds.
pub const INPUT_RING: usize = 64 << 10;
/// First word of a record, "HIDR" in memory (S3.54).
pub const RECORD_MAGIC: u32 = 0x5244_4948;
/// Version of the records.
pub const RECORD_VERSION: u16 = 1;
/// Bytes before the data of a record.
pub const RECORD_HEADER: usize = 16;
/// Most bytes of data that a record of this version has.
pub const RECORD_DATA_MAX: usize = 16;
/// Length of the buffer that a ring's consumer needs.
pub const RECORD_MAX: usize = RECORD_HEADER + RECORD_DATA_MAX;

/// A button of a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Button {
    /// The first one, under the index finger.
    Left = 0,
    /// The second one.
    Right = 1,
    /// The wheel.
    Middle = 2,
    /// The fourth one, "back".
    Back = 3,
    /// The fifth one, "forward".
    Forward = 4,
}

impl Button {
    /// The button of a number, 0–4.
    pub const fn from_index(index: u8) -> Option<Self> {
        Some(match index {
            0 => Self::Left,
            1 => Self::Right,
            2 => Self::Middle,
            3 => Self::Back,
            4 => Self::Forward,
            _ => return None,
        })
    }
}

/// Something a user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum InputEvent {
    /// A key went down or up. The host's own repetitions are not sent: the guest's keyboard repeats by itself.
    Key {
        /// Which.
        key: Key,
        /// Whether it is down now.
        down: bool,
    },
    /// The pointer moved by so much, in mickeys, x to the right and y downwards.
    Motion {
        /// To the right.
        dx: i16,
        /// Downwards.
        dy: i16,
    },
    /// The pointer is at this place of the picture, each axis in 1/32768 of its extent.
    Position {
        /// From the left, 0–32767.
        x: u16,
        /// From the top, 0–32767.
        y: u16,
    },
    /// The wheel turned by so many notches; positive is away from the user.
    Wheel {
        /// Notches.
        notches: i8,
    },
    /// A button went down or up.
    Button {
        /// Which.
        button: Button,
        /// Whether it is down now.
        down: bool,
    },
    /// Every key and button is up: the window lost the focus, events were dropped, or a successor took over.
    ReleaseAll,
}

/// Why a record is no input event. The reader drops it and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than its header or than the length in it.
    #[error("Input record of {0} bytes is cut short")]
    Short(usize),
    /// Not a record of this format.
    #[error("Input record has magic {magic:#x} and version {version}")]
    Foreign {
        /// Magic found.
        magic: u32,
        /// Version found.
        version: u16,
    },
    /// A device or report that this version does not have, or data of a wrong length or value.
    #[error("Input record for device {device}, report {report} with {len} bytes of data is unknown")]
    Unknown {
        /// Device number.
        device: u8,
        /// Report number.
        report: u8,
        /// Length of the data.
        len: u32,
    },
}

const KEYBOARD: u8 = 0;
const POINTER: u8 = 1;
const REPORT_RELEASE: u8 = 0;
const REPORT_KEY: u8 = 1;
const REPORT_MOTION: u8 = 1;
const REPORT_POSITION: u8 = 2;
const REPORT_WHEEL: u8 = 3;
const REPORT_BUTTON: u8 = 4;

/// A record, ready to be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    bytes: [u8; RECORD_MAX],
    len: usize,
}

impl Record {
    /// The bytes to push.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl InputEvent {
    /// The record of this event, which happened at `ts_ms` milliseconds of VM time; 0 says unknown.
    pub fn to_record(self, ts_ms: u32) -> Record {
        let mut data = [0; RECORD_DATA_MAX];
        let pair = |data: &mut [u8; RECORD_DATA_MAX], a: [u8; 2], b: [u8; 2]| {
            data[..2].copy_from_slice(&a);
            data[2..4].copy_from_slice(&b);
            4
        };
        let (device, report, len) = match self {
            Self::Key { key, down } => {
                data[..2].copy_from_slice(&[key.0, u8::from(down)]);
                (KEYBOARD, REPORT_KEY, 2)
            }
            Self::Motion { dx, dy } => (
                POINTER,
                REPORT_MOTION,
                pair(&mut data, dx.to_le_bytes(), dy.to_le_bytes()),
            ),
            Self::Position { x, y } => (
                POINTER,
                REPORT_POSITION,
                pair(&mut data, x.to_le_bytes(), y.to_le_bytes()),
            ),
            Self::Wheel { notches } => {
                data[0] = notches.cast_unsigned();
                (POINTER, REPORT_WHEEL, 1)
            }
            Self::Button { button, down } => {
                data[..2].copy_from_slice(&[button as u8, u8::from(down)]);
                (POINTER, REPORT_BUTTON, 2)
            }
            Self::ReleaseAll => (KEYBOARD, REPORT_RELEASE, 0),
        };
        let mut bytes = [0; RECORD_MAX];
        bytes[0..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&RECORD_VERSION.to_le_bytes());
        bytes[6] = device;
        bytes[7] = report;
        bytes[8..12].copy_from_slice(&ts_ms.to_le_bytes());
        bytes[12..16].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[16..].copy_from_slice(&data);
        Record {
            bytes,
            len: RECORD_HEADER + len,
        }
    }

    /// The event of a record and its time stamp in milliseconds, `None` when the sender knew none.
    ///
    /// # Errors
    /// [`RecordError`] for bytes that no sender of this version writes.
    pub fn from_record(record: &[u8]) -> Result<(Self, Option<u32>), RecordError> {
        let (header, rest) = record
            .split_first_chunk::<RECORD_HEADER>()
            .ok_or(RecordError::Short(record.len()))?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (magic, version) = (word(0), u16::from_le_bytes([header[4], header[5]]));
        if magic != RECORD_MAGIC || version != RECORD_VERSION {
            return Err(RecordError::Foreign { magic, version });
        }
        let (device, report, ts_ms, len) = (header[6], header[7], word(8), word(12));
        let data = usize::try_from(len)
            .ok()
            .and_then(|len| rest.get(..len))
            .ok_or(RecordError::Short(record.len()))?;
        let event = match (device, report, data) {
            (KEYBOARD, REPORT_RELEASE, []) => Self::ReleaseAll,
            (KEYBOARD, REPORT_KEY, &[key, down @ (0 | 1)]) => Self::Key {
                key: Key(key),
                down: down == 1,
            },
            (POINTER, REPORT_MOTION, &[a, b, c, d]) => Self::Motion {
                dx: i16::from_le_bytes([a, b]),
                dy: i16::from_le_bytes([c, d]),
            },
            (POINTER, REPORT_POSITION, &[a, b, c, d]) if b < 0x80 && d < 0x80 => Self::Position {
                x: u16::from_le_bytes([a, b]),
                y: u16::from_le_bytes([c, d]),
            },
            (POINTER, REPORT_WHEEL, &[notches]) => Self::Wheel {
                notches: notches.cast_signed(),
            },
            (POINTER, REPORT_BUTTON, &[index, down @ (0 | 1)]) if Button::from_index(index).is_some() => {
                let button = Button::from_index(index).unwrap_or(Button::Left);
                Self::Button {
                    button,
                    down: down == 1,
                }
            }
            _ => return Err(RecordError::Unknown { device, report, len }),
        };
        Ok((event, (ts_ms != 0).then_some(ts_ms)))
    }
}

#[cfg(test)]
mod tests;
