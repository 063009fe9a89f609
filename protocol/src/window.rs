//! The window: what its user asks of the machine, and where it was.
//!
//! What is asked goes to the coordinator on gpu-worker's lifecycle ring, a byte a record; the coordinator carries it out as if it
//! had come through the control socket. Where the window was lies in gpu-worker's own control file, so that a
//! successor opens it there: the coordinator could keep that too, but would have to be told of every movement.

use crate::shm::ViewMut;
use crate::sync::Ordering;

/// What the user of the window asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WindowCommand {
    /// Pause a running machine, let a paused one run.
    TogglePause = 1,
    /// Press the reset button.
    Reset = 2,
    /// Press the power button.
    PowerButton = 3,
    /// End the machine: the window has been closed.
    Quit = 4,
    /// Write what the screen shows into a file.
    Screenshot = 5,
    /// Put the next diskette that is at hand into the drive; after the last one none.
    NextDiskette = 6,
    /// The same with CD-ROMs.
    NextDisc = 7,
}

impl WindowCommand {
    /// Its record.
    pub fn to_record(self) -> [u8; 1] {
        [self as u8]
    }

    /// The command of a record; `None` for one that no gpu-worker of this version sends.
    pub fn from_record(record: &[u8]) -> Option<Self> {
        let all = [
            Self::TogglePause,
            Self::Reset,
            Self::PowerButton,
            Self::Quit,
            Self::Screenshot,
            Self::NextDiskette,
            Self::NextDisc,
        ];
        all.into_iter().find(|command| record == command.to_record())
    }
}

/// Words of a [`WindowPlace`] in shared memory, with its magic number.
const WORDS: usize = 6;
/// Bytes that it takes.
pub const PLACE_BYTES: usize = 128;
const _: () = assert!(WORDS * 4 <= PLACE_BYTES);
/// "QWIN": there is a place.
const MAGIC: u32 = u32::from_le_bytes(*b"QWIN");

/// Where a window is and how its user looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WindowPlace {
    /// Left edge in pixels of the screen.
    pub x: i32,
    /// Top edge in pixels of the screen.
    pub y: i32,
    /// Width of its contents in pixels.
    pub width: u32,
    /// Height of its contents in pixels.
    pub height: u32,
    /// Bits that its owner defines.
    pub flags: u32,
}

impl WindowPlace {
    /// Leaves it for a successor.
    pub fn store(&self, area: &ViewMut) {
        let words = [
            MAGIC,
            self.x.cast_unsigned(),
            self.y.cast_unsigned(),
            self.width,
            self.height,
            self.flags,
        ];
        for (at, word) in words.into_iter().enumerate() {
            area.store_u32(at * 4, word, Ordering::Relaxed);
        }
    }

    /// What a predecessor left, if it did. One that died while it wrote leaves a mixture of two places, which is a place, too.
    pub fn load(area: &ViewMut) -> Option<Self> {
        let [magic, x, y, width, height, flags]: [u32; WORDS] =
            core::array::from_fn(|at| area.load_u32(at * 4, Ordering::Relaxed));
        (magic == MAGIC).then(|| Self {
            x: x.cast_signed(),
            y: y.cast_signed(),
            width,
            height,
            flags,
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;
    use std::sync::Arc;

    #[test]
    fn a_place_is_there_once_it_has_been_left() {
        let area = ViewMut::new(Arc::new(Map::anonymous(4096).expect("anonymous map")));
        assert_eq!(WindowPlace::load(&area), None);
        let place = WindowPlace {
            x: -5,
            y: 7,
            width: 640,
            height: 480,
            flags: 3,
        };
        place.store(&area);
        assert_eq!(WindowPlace::load(&area), Some(place));
    }

    #[test]
    fn commands_come_back_and_nonsense_does_not() {
        for command in [
            WindowCommand::TogglePause,
            WindowCommand::Quit,
            WindowCommand::Screenshot,
            WindowCommand::NextDisc,
        ] {
            assert_eq!(WindowCommand::from_record(&command.to_record()), Some(command));
        }
        for record in [&[][..], &[0], &[8], &[1, 1]] {
            assert_eq!(WindowCommand::from_record(record), None);
        }
    }
}
