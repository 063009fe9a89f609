//! The terminal of `--serial stdio`: raw while the machine runs, as it was afterwards.

use std::io::IsTerminal as _;

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// Puts the terminal back when dropped. A panic unwinds through it; signals are read, not handled, so that they
/// end in a drop as well. Only SIGKILL leaves a raw terminal; `stty sane` cures it.
#[derive(Debug)]
pub struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Makes standard input raw if it is a terminal and this process is in its foreground. Lines are then edited
    /// by the guest, and all keys, Ctrl-C included, are the guest's; output processing stays on for our own lines.
    pub fn enter() -> Self {
        let stdin = std::io::stdin();
        // Changing the terminal from the background would stop the whole process.
        let foreground = tcgetpgrp(&stdin).is_ok_and(|g| g == rustix::process::getpgrp());
        if !stdin.is_terminal() || !foreground {
            return Self { before: None };
        }
        let Ok(before) = tcgetattr(&stdin) else {
            return Self { before: None };
        };
        let mut raw = before.clone();
        raw.input_modes -= InputModes::IGNBRK
            | InputModes::BRKINT
            | InputModes::PARMRK
            | InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON;
        raw.local_modes -= LocalModes::ECHO
            | LocalModes::ECHONL
            | LocalModes::ICANON
            | LocalModes::IEXTEN
            | LocalModes::ISIG;
        match tcsetattr(&stdin, OptionalActions::Now, &raw) {
            Ok(()) => Self { before: Some(before) },
            Err(_) => Self { before: None },
        }
    }

    /// Leaves the terminal alone.
    pub fn none() -> Self {
        Self { before: None }
    }

    /// Whether the terminal is raw now.
    pub fn is_raw(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
        }
    }
}

/// What a byte typed at a raw terminal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// For the guest.
    Byte(u8),
    /// Nothing yet.
    Nothing,
    /// Ctrl-A x: end the machine.
    Quit,
    /// Ctrl-A r: press the reset button.
    Reset,
    /// Ctrl-A h, or an unknown key: say which there are.
    Help,
}

/// Finds Ctrl-A sequences, the way out of a terminal whose every key is the guest's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Escape {
    armed: bool,
}

/// Ctrl-A.
const ESCAPE: u8 = 1;

impl Escape {
    /// Takes the next byte.
    pub fn take(&mut self, byte: u8) -> Typed {
        if !self.armed {
            self.armed = byte == ESCAPE;
            return if self.armed {
                Typed::Nothing
            } else {
                Typed::Byte(byte)
            };
        }
        self.armed = false;
        match byte {
            ESCAPE => Typed::Byte(ESCAPE),
            b'x' | b'X' => Typed::Quit,
            b'r' | b'R' => Typed::Reset,
            _ => Typed::Help,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Vec<Typed> {
        let mut escape = Escape::default();
        bytes.iter().map(|&b| escape.take(b)).collect()
    }

    #[test]
    fn every_byte_but_ctrl_a_is_the_guests() {
        let all: Vec<u8> = (0..=255).filter(|&b| b != ESCAPE).collect();
        let expected: Vec<_> = all.iter().map(|&b| Typed::Byte(b)).collect();
        assert_eq!(typed(&all), expected);
    }

    #[test]
    fn ctrl_a_twice_is_one_ctrl_a_and_with_x_the_end() {
        assert_eq!(
            typed(&[1, 1, b'a']),
            [Typed::Nothing, Typed::Byte(1), Typed::Byte(b'a')]
        );
        assert_eq!(typed(&[1, b'x']), [Typed::Nothing, Typed::Quit]);
        assert_eq!(
            typed(&[1, b'?', b'x']),
            [Typed::Nothing, Typed::Help, Typed::Byte(b'x')]
        );
    }
}
