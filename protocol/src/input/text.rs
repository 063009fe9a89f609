//! Text as key strokes of a US keyboard: what `quintet type` and `quintet key` send.

use super::{InputEvent, Key};

/// A key pressed and let go, with or without shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStroke {
    /// The key.
    pub key: Key,
    /// Whether shift is held.
    pub shift: bool,
}

impl KeyStroke {
    /// The events in order: two, or four with shift.
    pub fn events(self) -> impl Iterator<Item = InputEvent> {
        let shift = |down| {
            self.shift.then_some(InputEvent::Key {
                key: Key::LEFT_SHIFT,
                down,
            })
        };
        let key = |down| Some(InputEvent::Key { key: self.key, down });
        [shift(true), key(true), key(false), shift(false)]
            .into_iter()
            .flatten()
    }
}

/// A character that a US keyboard cannot type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Character {character:?} at position {position} is not on a US keyboard")]
pub struct Untypable {
    /// The character.
    pub character: char,
    /// Its place in the text, counted in characters from 0.
    pub position: usize,
}

/// The strokes that type `text`, all of it or none. A line feed types Enter.
///
/// # Errors
/// [`Untypable`] names the first character that has no key.
pub fn strokes_of(text: &str) -> Result<Vec<KeyStroke>, Untypable> {
    text.chars()
        .enumerate()
        .map(|(position, character)| stroke_of(character).ok_or(Untypable { character, position }))
        .collect()
}

fn stroke_of(character: char) -> Option<KeyStroke> {
    let plain = |key| Some(KeyStroke { key, shift: false });
    let shifted = |key| Some(KeyStroke { key, shift: true });
    match character {
        'a'..='z' => plain(Key::letter(character)?),
        'A'..='Z' => shifted(Key::letter(character)?),
        '0'..='9' => plain(Key::digit(character)?),
        '\n' | '\r' => plain(Key::ENTER),
        '\t' => plain(Key::TAB),
        '\u{8}' | '\u{7F}' => plain(Key::BACKSPACE),
        '\u{1B}' => plain(Key::ESCAPE),
        ' ' => plain(Key::SPACE),
        _ => {
            const SYMBOLS: [(char, char, Key); 11] = [
                ('-', '_', Key::MINUS),
                ('=', '+', Key::EQUAL),
                ('[', '{', Key::LEFT_BRACKET),
                (']', '}', Key::RIGHT_BRACKET),
                ('\\', '|', Key::BACKSLASH),
                (';', ':', Key::SEMICOLON),
                ('\'', '"', Key::APOSTROPHE),
                ('`', '~', Key::GRAVE),
                (',', '<', Key::COMMA),
                ('.', '>', Key::DOT),
                ('/', '?', Key::SLASH),
            ];
            if let Some(digit) = ")!@#$%^&*(".chars().position(|above| above == character) {
                return shifted(Key::digit(char::from(b'0' + digit as u8))?);
            }
            SYMBOLS.iter().find_map(|&(below, above, key)| match character {
                c if c == below => plain(key),
                c if c == above => shifted(key),
                _ => None,
            })
        }
    }
}

/// Keys held together, as `quintet key` names them: `ctrl-alt-delete`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chord(Vec<Key>);

impl Chord {
    /// The keys in the order in which they go down.
    pub fn keys(&self) -> &[Key] {
        &self.0
    }

    /// The events in order: all keys down, then up again in the opposite order.
    pub fn events(&self) -> impl Iterator<Item = InputEvent> + '_ {
        let down = self.0.iter().map(|&key| InputEvent::Key { key, down: true });
        down.chain(
            self.0
                .iter()
                .rev()
                .map(|&key| InputEvent::Key { key, down: false }),
        )
    }
}

/// A word that names no chord.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("No key is called {0:?}; examples: enter, f1, page-up, ctrl-alt-delete, shift+a")]
pub struct ChordError(pub String);

/// Parses key names joined by `+` or `-`.
///
/// # Errors
/// [`ChordError`] with the part that names no key.
pub fn parse_chord(chord: &str) -> Result<Chord, ChordError> {
    let mut keys = Vec::new();
    for group in chord.split('+') {
        let mut parts = group.split('-').peekable();
        while let Some(first) = parts.next() {
            // A name may hold a hyphen itself: the longer name wins.
            let joined = parts.peek().map(|second| format!("{first}-{second}"));
            let key = match joined.as_deref().and_then(Key::from_name) {
                Some(key) => {
                    parts.next();
                    key
                }
                None => Key::from_name(first).ok_or_else(|| ChordError(first.to_owned()))?,
            };
            keys.push(key);
        }
    }
    Ok(Chord(keys))
}
