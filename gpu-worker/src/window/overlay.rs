//! Figures over the picture, in the font of the text modes.

use quintet_protocol::font::{CP437_8X16, HEIGHT, WIDTH};
use quintet_protocol::framebuffer::Rect;

use super::scale::Dot;

const INK: Dot = [255, 255, 255, 255];
const PAPER: Dot = [0, 0, 60, 255];
/// Around the text, in pixels.
const MARGIN: usize = 8;

/// Text as pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    text: String,
    pixels: Vec<Dot>,
    width: usize,
}

impl Overlay {
    /// Draws `text`, whose lines are padded to `columns`. Characters outside ASCII are shown as they come.
    pub fn new(text: &str, columns: usize) -> Self {
        let width = columns * WIDTH + 2 * MARGIN;
        let lines: Vec<&str> = text.lines().collect();
        let height = lines.len() * HEIGHT + 2 * MARGIN;
        let mut pixels = vec![PAPER; width * height];
        for (row, line) in lines.iter().enumerate() {
            for (column, byte) in line.bytes().take(columns).enumerate() {
                for (y, bits) in CP437_8X16[usize::from(byte)].iter().enumerate() {
                    let at = (MARGIN + row * HEIGHT + y) * width + MARGIN + column * WIDTH;
                    for x in (0..WIDTH).filter(|x| bits & 0x80 >> x != 0) {
                        pixels[at + x] = INK;
                    }
                }
            }
        }
        Self {
            text: text.to_owned(),
            pixels,
            width,
        }
    }

    /// What it says.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its pixels, and where they go: the upper left corner.
    pub fn placed(&self) -> (&[Dot], Rect) {
        let rect = Rect {
            x: 0,
            y: 0,
            width: self.width as u32,
            height: (self.pixels.len() / self.width) as u32,
        };
        (&self.pixels, rect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_the_font() {
        let overlay = Overlay::new("AB\nC", 4);
        let (pixels, at) = overlay.placed();
        assert_eq!((at.width, at.height), (48, 48));
        for (character, column, row) in [(b'A', 0, 0), (b'B', 1, 0), (b'C', 0, 1)] {
            for y in 0..HEIGHT {
                for x in 0..WIDTH {
                    let ink = CP437_8X16[usize::from(character)][y] & 0x80 >> x != 0;
                    let pixel = pixels[(8 + row * 16 + y) * 48 + 8 + column * 8 + x];
                    assert_eq!(pixel, if ink { INK } else { PAPER });
                }
            }
        }
    }
}
