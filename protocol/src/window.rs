//! The window: what its user asks of the machine, and where it was.
//!
//! What is asked goes to the coordinator on gpu-worker's lifecycle ring, a byte a record; the coordinator carries it out as if it
//! had come through the control socket. Where the window was lies in gpu-worker's own control file, so that a
//! successor opens it there: the coordinator could keep that too, but would have to be told of every movement. How it was looked at
//! the coordinator reads there at the end, and keeps it for the next machine.

use serde::{Deserialize, Serialize};

use crate::shm::{View, ViewMut};
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

/// Largest width or height of a window, in pixels: that of X11 (X Window System Protocol, CreateWindow).
pub const MOST_PIXELS: u32 = 32_767;

/// How the user wants to see the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Look {
    /// Whole multiples only.
    pub integer: bool,
    /// Pictures of the VGA's own modes fill 4:3, as on a monitor.
    pub aspect: bool,
    /// Neighbouring dots are mixed.
    pub smooth: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            integer: false,
            aspect: true,
            smooth: false,
        }
    }
}

/// What of a window is kept from one machine to the next. Its place is not: two machines would cover each other; nor is full screen, which
/// would be a surprise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowSettings {
    /// Width and height of its contents in pixels, 1 to [`MOST_PIXELS`], once its user has chosen them; otherwise it follows the guest.
    pub size: Option<[u32; 2]>,
    /// Figures lie over the picture.
    pub overlay: bool,
    /// How the picture is seen.
    pub look: Look,
}

impl WindowSettings {
    /// Whether a window can have that size.
    pub fn is_valid(&self) -> bool {
        let possible = |pixels: &u32| (1..=MOST_PIXELS).contains(pixels);
        self.size.is_none_or(|size| size.iter().all(possible))
    }
}

/// Where a window is and how its user looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WindowPlace {
    /// Left edge in pixels of the screen.
    pub x: i32,
    /// Top edge in pixels of the screen.
    pub y: i32,
    /// Width and height of its contents in pixels.
    pub size: [u32; 2],
    /// It covers the screen; place and size are those before.
    pub full_screen: bool,
    /// Its user has chosen the size; it does not follow the guest's mode.
    pub sized: bool,
    /// Figures lie over the picture.
    pub overlay: bool,
    /// How the picture is seen.
    pub look: Look,
}

/// Bits of a place's last word.
mod flag {
    pub(super) const FULL_SCREEN: u32 = 1;
    pub(super) const INTEGER: u32 = 2;
    pub(super) const SQUARE: u32 = 4;
    pub(super) const SMOOTH: u32 = 8;
    pub(super) const OVERLAY: u32 = 16;
    pub(super) const SIZED: u32 = 32;
}

impl WindowPlace {
    /// Leaves it for a successor.
    pub fn store(&self, area: &ViewMut) {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let flags = bit(self.full_screen, flag::FULL_SCREEN)
            | bit(self.look.integer, flag::INTEGER)
            | bit(!self.look.aspect, flag::SQUARE)
            | bit(self.look.smooth, flag::SMOOTH)
            | bit(self.overlay, flag::OVERLAY)
            | bit(self.sized, flag::SIZED);
        let words = [
            MAGIC,
            self.x.cast_unsigned(),
            self.y.cast_unsigned(),
            self.size[0],
            self.size[1],
            flags,
        ];
        for (at, word) in words.into_iter().enumerate() {
            area.store_u32(at * 4, word, Ordering::Relaxed);
        }
    }

    /// What a predecessor left, if it did. One that died while it wrote leaves a mixture of two places, which is a place, too.
    pub fn load(area: &View) -> Option<Self> {
        let [magic, x, y, width, height, flags]: [u32; WORDS] =
            core::array::from_fn(|at| area.load_u32(at * 4, Ordering::Relaxed));
        let has = |bit: u32| flags & bit != 0;
        (magic == MAGIC).then(|| Self {
            x: x.cast_signed(),
            y: y.cast_signed(),
            size: [width, height].map(|pixels| pixels.clamp(1, MOST_PIXELS)),
            full_screen: has(flag::FULL_SCREEN),
            sized: has(flag::SIZED),
            overlay: has(flag::OVERLAY),
            look: Look {
                integer: has(flag::INTEGER),
                aspect: !has(flag::SQUARE),
                smooth: has(flag::SMOOTH),
            },
        })
    }

    /// What of it the next machine's window begins with.
    pub fn settings(&self) -> WindowSettings {
        WindowSettings {
            size: self.sized.then_some(self.size),
            overlay: self.overlay,
            look: self.look,
        }
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
        assert_eq!(WindowPlace::load(area.view()), None);
        let place = WindowPlace {
            x: -5,
            y: 7,
            size: [640, 480],
            full_screen: true,
            sized: false,
            overlay: true,
            look: Look {
                integer: true,
                ..Look::default()
            },
        };
        place.store(&area);
        assert_eq!(WindowPlace::load(area.view()), Some(place));
        assert_eq!(place.settings().size, None, "the guest's");
        let place = WindowPlace {
            sized: true,
            size: [0, u32::MAX],
            ..place
        };
        place.store(&area);
        let settings = WindowPlace::load(area.view()).expect("a place").settings();
        assert_eq!(settings.size, Some([1, MOST_PIXELS]), "who writes may lie");
        assert!(settings.is_valid() && !place.settings().is_valid());
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
