//! What a machine shows: dots, and the text they make.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Red, green and blue of every dot.
#[derive(PartialEq, Eq)]
pub struct Screen {
    /// Dots in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The dots, row by row.
    pub dots: Vec<[u8; 3]>,
}

impl Screen {
    /// By `quintet screenshot` of the machine `name`; the file stays.
    pub fn take(quintet: &Path, name: &str, file: &Path) -> Self {
        Self::try_take(quintet, name, file).expect("a screenshot")
    }

    /// The same, or none if there is none to be had now.
    pub fn try_take(quintet: &Path, name: &str, file: &Path) -> Option<Self> {
        let status = Command::new(quintet)
            .args(["screenshot", name])
            .arg(file)
            .stdout(Stdio::null())
            .status()
            .expect("quintet starts");
        status.success().then(|| Self::read(file))
    }

    /// A screenshot in a file.
    pub fn read(file: &Path) -> Self {
        let bytes = std::fs::read(file).expect("the screenshot");
        let mut png = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .expect("a PNG");
        let mut dots = vec![0; png.output_buffer_size().expect("a size")];
        let info = png.next_frame(&mut dots).expect("a picture");
        assert_eq!(info.color_type, png::ColorType::Rgb);
        Self {
            width: info.width as usize,
            height: info.height as usize,
            dots: dots.as_chunks().0.to_vec(),
        }
    }

    /// Puts it into a file, for people to look at.
    pub fn write(&self, file: &Path) {
        let out = std::fs::File::create(file).expect("a file");
        let mut png = png::Encoder::new(out, self.width as u32, self.height as u32);
        png.set_color(png::ColorType::Rgb);
        let mut writer = png.write_header().expect("a head");
        writer
            .write_image_data(self.dots.as_flattened())
            .expect("a picture");
    }

    /// The text in cells of 9 by 16 dots. A cell whose dots are no character of the font reads as '?'.
    pub fn text(&self, font: &Font) -> String {
        let mut text = String::new();
        for row in 0..self.height / HEIGHT {
            let cells = (0..self.width / CELL).map(|column| self.cell(row, column, font));
            let line: String = cells.collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn cell(&self, row: usize, column: usize, font: &Font) -> char {
        let at = |x: usize, y: usize| self.dots[(row * HEIGHT + y) * self.width + column * CELL + x];
        // The ninth column of letters shows the background.
        let background = at(CELL - 1, 0);
        let glyph: [u8; HEIGHT] =
            std::array::from_fn(|y| (0..8).fold(0, |bits, x| bits << 1 | u8::from(at(x, y) != background)));
        font.0
            .iter()
            .position(|g| *g == glyph)
            .map_or('?', |code| match code {
                0x20..0x7F => char::from(code as u8),
                0 | 0xFF => ' ',
                _ => '?',
            })
    }
}

/// Looks at the machine `name` by `quintet screenshot`, again and again; the last screenshot stays in `shot`.
pub fn shots(quintet: &Path, name: &str, shot: &Path) -> impl Fn() -> Option<Screen> {
    move || Screen::try_take(quintet, name, shot)
}

/// Waits until the text on a screen that is looked at satisfies a condition, and says what was missed when it does not.
pub fn see(
    look: impl FnMut() -> Option<Screen>,
    font: &Font,
    patience: Duration,
    what: &str,
    condition: impl Fn(&str) -> bool,
) {
    let mut text = "no screen".to_owned();
    let seen = until(look, patience, |screen| {
        text = screen.text(font);
        condition(&text).then_some(())
    });
    assert!(seen.is_some(), "no {what}, but:\n{text}");
}

/// Waits until something can be told of a screen that is looked at, and answers both; none when patience ends.
pub fn until<T>(
    mut look: impl FnMut() -> Option<Screen>,
    patience: Duration,
    mut tell: impl FnMut(&Screen) -> Option<T>,
) -> Option<(Screen, T)> {
    let start = Instant::now();
    loop {
        // There is no screen to be had before a machine can be spoken to, and while the process that makes pictures is replaced.
        if let Some(screen) = look()
            && let Some(told) = tell(&screen)
        {
            return Some((screen, told));
        }
        if start.elapsed() >= patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Columns and rows of a character.
const CELL: usize = 9;
const HEIGHT: usize = 16;

/// 256 characters of 8 by 16 dots.
pub struct Font(Vec<[u8; HEIGHT]>);

impl Font {
    /// The one that the machine's own BIOS and its VGA begin with.
    pub fn own() -> Self {
        Self(quintet_protocol::font::CP437_8X16.to_vec())
    }

    /// The font in a VGA BIOS, found by how VGAs write "A".
    pub fn of_vga_bios(rom: &[u8]) -> Self {
        const A: [u8; HEIGHT] = [
            0, 0, 0x10, 0x38, 0x6C, 0xC6, 0xC6, 0xFE, 0xC6, 0xC6, 0xC6, 0xC6, 0, 0, 0, 0,
        ];
        let at = rom.windows(HEIGHT).position(|w| w == A).expect("a font");
        let start = at - usize::from(b'A') * HEIGHT;
        Self(rom[start..start + 256 * HEIGHT].as_chunks().0.to_vec())
    }
}
