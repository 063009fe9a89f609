//! Chords that are for the window and not for the guest: Ctrl and Alt with one more key.

use quintet_protocol::input::Key;
use winit::keyboard::KeyCode;

/// What a chord asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chord {
    /// Let the pointer go, or catch it.
    Grab,
    /// Fill the screen, or do so no more.
    FullScreen,
    /// Whole multiples only, or any size.
    Integer,
    /// 4:3 for old modes, or square dots.
    Aspect,
    /// Mix neighbouring dots, or not.
    Smooth,
    /// Give the window the size of the picture.
    FitWindow,
    /// Show figures, or not.
    Overlay,
    /// Save what the screen shows.
    Screenshot,
    /// Type the text that was copied on the host.
    Paste,
    /// Pause, or go on.
    Pause,
    /// Press the reset button.
    Reset,
    /// Press the power button.
    Power,
    /// The next diskette.
    Diskette,
    /// The next CD-ROM.
    Disc,
}

/// Key, chord, and what it does in words.
pub const CHORDS: [(KeyCode, Chord, &str); 14] = [
    (KeyCode::KeyG, Chord::Grab, "G  catch or release the mouse"),
    (KeyCode::KeyF, Chord::FullScreen, "F  full screen"),
    (KeyCode::KeyI, Chord::Integer, "I  whole multiples only"),
    (KeyCode::KeyA, Chord::Aspect, "A  4:3 or square dots"),
    (KeyCode::KeyM, Chord::Smooth, "M  smooth or sharp"),
    (KeyCode::Digit1, Chord::FitWindow, "1  size of the picture"),
    (KeyCode::KeyO, Chord::Overlay, "O  these figures"),
    (KeyCode::KeyS, Chord::Screenshot, "S  screenshot"),
    (KeyCode::KeyV, Chord::Paste, "V  type the clipboard"),
    (KeyCode::KeyP, Chord::Pause, "P  pause"),
    (KeyCode::KeyR, Chord::Reset, "R  reset"),
    (KeyCode::KeyQ, Chord::Power, "Q  power button"),
    (KeyCode::KeyD, Chord::Diskette, "D  next diskette, or none"),
    (KeyCode::KeyC, Chord::Disc, "C  next CD, or none"),
];

const CTRL: [Key; 2] = [Key::LEFT_CTRL, Key::RIGHT_CTRL];
const ALT: [Key; 2] = [Key::LEFT_ALT, Key::RIGHT_ALT];

/// The chord that `code` completes while `held` are down.
pub fn chord(code: KeyCode, held: impl Fn(Key) -> bool) -> Option<Chord> {
    let any = |keys: [Key; 2]| keys.into_iter().any(&held);
    if !any(CTRL) || !any(ALT) {
        return None;
    }
    CHORDS
        .iter()
        .find(|(key, ..)| *key == code)
        .map(|&(_, chord, _)| chord)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chord_needs_both_keys_of_either_side() {
        let with = |held: &'static [Key]| chord(KeyCode::KeyG, |key| held.contains(&key));
        assert_eq!(with(&[Key::LEFT_CTRL]), None);
        assert_eq!(with(&[Key::RIGHT_ALT]), None);
        assert_eq!(with(&[Key::LEFT_CTRL, Key::RIGHT_ALT]), Some(Chord::Grab));
        assert_eq!(chord(KeyCode::Delete, |_| true), None, "that one is the guest's");
    }

    #[test]
    fn no_two_chords_share_a_key() {
        for (n, (key, ..)) in CHORDS.iter().enumerate() {
            assert!(CHORDS[..n].iter().all(|(other, ..)| other != key), "{key:?}");
        }
    }
}
