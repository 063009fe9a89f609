//! Keys by their usage on the USB HID keyboard page (HID Usage Tables, page 07h).

/// A key of the keyboard, by its place: the usage number, 04h–E7h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Key(pub u8);

macro_rules! keys {
    ($($(#[$doc:meta])* $constant:ident = $usage:literal, $name:literal;)*) => {
        impl Key {
            $($(#[$doc])* pub const $constant: Self = Self($usage);)*

            /// Names for the command line, lower case, with their keys. A key may have several.
            pub const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self($usage)),)*];
        }
    };
}

keys! {
    /// Return on the main block.
    ENTER = 0x28, "enter";
    /// Escape.
    ESCAPE = 0x29, "esc";
    /// Backspace.
    BACKSPACE = 0x2A, "backspace";
    /// Tabulator.
    TAB = 0x2B, "tab";
    /// Space bar.
    SPACE = 0x2C, "space";
    /// `-` and `_`.
    MINUS = 0x2D, "minus";
    /// `=` and `+`.
    EQUAL = 0x2E, "equal";
    /// `[` and `{`.
    LEFT_BRACKET = 0x2F, "bracket-left";
    /// `]` and `}`.
    RIGHT_BRACKET = 0x30, "bracket-right";
    /// `\` and `|`.
    BACKSLASH = 0x31, "backslash";
    /// `;` and `:`.
    SEMICOLON = 0x33, "semicolon";
    /// `'` and `"`.
    APOSTROPHE = 0x34, "apostrophe";
    /// `` ` `` and `~`.
    GRAVE = 0x35, "grave";
    /// `,` and `<`.
    COMMA = 0x36, "comma";
    /// `.` and `>`.
    DOT = 0x37, "dot";
    /// `/` and `?`.
    SLASH = 0x38, "slash";
    /// Caps lock.
    CAPS_LOCK = 0x39, "caps-lock";
    /// First function key; the others follow in order to F12.
    F1 = 0x3A, "f1";
    /// F2.
    F2 = 0x3B, "f2";
    /// F3.
    F3 = 0x3C, "f3";
    /// F4.
    F4 = 0x3D, "f4";
    /// F5.
    F5 = 0x3E, "f5";
    /// F6.
    F6 = 0x3F, "f6";
    /// F7.
    F7 = 0x40, "f7";
    /// F8.
    F8 = 0x41, "f8";
    /// F9.
    F9 = 0x42, "f9";
    /// F10.
    F10 = 0x43, "f10";
    /// F11.
    F11 = 0x44, "f11";
    /// F12.
    F12 = 0x45, "f12";
    /// Print screen, with Alt: SysRq.
    PRINT_SCREEN = 0x46, "sysrq";
    /// Scroll lock.
    SCROLL_LOCK = 0x47, "scroll-lock";
    /// Pause, with Ctrl: Break.
    PAUSE = 0x48, "pause";
    /// Insert.
    INSERT = 0x49, "insert";
    /// Home.
    HOME = 0x4A, "home";
    /// Page up.
    PAGE_UP = 0x4B, "page-up";
    /// Delete.
    DELETE = 0x4C, "delete";
    /// End.
    END = 0x4D, "end";
    /// Page down.
    PAGE_DOWN = 0x4E, "page-down";
    /// Right arrow.
    RIGHT = 0x4F, "right";
    /// Left arrow.
    LEFT = 0x50, "left";
    /// Down arrow.
    DOWN = 0x51, "down";
    /// Up arrow.
    UP = 0x52, "up";
    /// Num lock.
    NUM_LOCK = 0x53, "num-lock";
    /// `/` of the number pad.
    PAD_SLASH = 0x54, "kp-divide";
    /// `*` of the number pad.
    PAD_STAR = 0x55, "kp-multiply";
    /// `-` of the number pad.
    PAD_MINUS = 0x56, "kp-subtract";
    /// `+` of the number pad.
    PAD_PLUS = 0x57, "kp-add";
    /// Enter of the number pad.
    PAD_ENTER = 0x58, "kp-enter";
    /// `1` of the number pad; 2–9 follow in order.
    PAD_1 = 0x59, "kp-1";
    /// `2` of the number pad.
    PAD_2 = 0x5A, "kp-2";
    /// `3` of the number pad.
    PAD_3 = 0x5B, "kp-3";
    /// `4` of the number pad.
    PAD_4 = 0x5C, "kp-4";
    /// `5` of the number pad.
    PAD_5 = 0x5D, "kp-5";
    /// `6` of the number pad.
    PAD_6 = 0x5E, "kp-6";
    /// `7` of the number pad.
    PAD_7 = 0x5F, "kp-7";
    /// `8` of the number pad.
    PAD_8 = 0x60, "kp-8";
    /// `9` of the number pad.
    PAD_9 = 0x61, "kp-9";
    /// `0` of the number pad.
    PAD_0 = 0x62, "kp-0";
    /// `.` of the number pad.
    PAD_DOT = 0x63, "kp-decimal";
    /// The key beside the left shift of keyboards with 102 keys.
    INTERNATIONAL_BACKSLASH = 0x64, "less";
    /// Menu.
    MENU = 0x65, "menu";
    /// Left control.
    LEFT_CTRL = 0xE0, "ctrl";
    /// Left shift.
    LEFT_SHIFT = 0xE1, "shift";
    /// Left alt.
    LEFT_ALT = 0xE2, "alt";
    /// Left logo key.
    LEFT_META = 0xE3, "meta";
    /// Right control.
    RIGHT_CTRL = 0xE4, "ctrl-right";
    /// Right shift.
    RIGHT_SHIFT = 0xE5, "shift-right";
    /// Right alt, AltGr.
    RIGHT_ALT = 0xE6, "alt-right";
    /// Right logo key.
    RIGHT_META = 0xE7, "meta-right";
}

impl Key {
    /// The key of a letter, whatever its case.
    pub const fn letter(letter: char) -> Option<Self> {
        match letter.to_ascii_lowercase() {
            letter @ 'a'..='z' => Some(Self(0x04 + (letter as u8 - b'a'))),
            _ => None,
        }
    }

    /// The key of a digit above the letters.
    pub const fn digit(digit: char) -> Option<Self> {
        match digit {
            '1'..='9' => Some(Self(0x1E + (digit as u8 - b'1'))),
            '0' => Some(Self(0x27)),
            _ => None,
        }
    }

    /// The key of a name: a letter, a digit, or one of [`Self::NAMES`], whatever the case.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut characters = name.chars();
        if let (Some(only), None) = (characters.next(), characters.next()) {
            return Self::letter(only).or_else(|| Self::digit(only));
        }
        Self::NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|&(_, key)| key)
    }
}
