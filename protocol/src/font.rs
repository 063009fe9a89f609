//! The text font: code page 437 in cells of 8×16, drawn for this project.
//!
//! Both sides of the screen need the very same bits: cpu-worker loads them into plane 2 as a BIOS would, and
//! scan-out and its tests compare against them. Letters stand in `font/cp437.txt` as pictures that a person can
//! edit; the compiler turns them into a table. Box drawing, shades and blocks are computed, because they have to
//! join at the edges of the cell in every direction and 64 hand-made pictures would drift apart. The ROM font of
//! a real VGA was rejected: it is somebody's work, and a guest that wants it brings its own.
//!
//! The face: upright, without serifs but for the narrow letters; stems of two pixels, bars of one, in columns 0–6
//! (the ninth column of a text cell is blank outside C0h–DFh). Capitals stand on row 11 and reach row 2,
//! ascenders reach row 1, small letters row 5, descenders row 14. Box lines are two pixels in both
//! directions and symmetric about the centre of the cell.

/// Width of a glyph in pixels.
pub const WIDTH: usize = 8;
/// Height of a glyph in lines.
pub const HEIGHT: usize = 16;

/// A glyph: a byte per line from the top, bit 7 on the left.
pub type Glyph = [u8; HEIGHT];

/// The font, indexed by code page 437 character.
pub static CP437_8X16: [Glyph; 256] = build();

const PICTURES: &[u8] = include_bytes!("font/cp437.txt");
/// Glyphs side by side in the picture file.
const PER_BLOCK: usize = 8;
/// First character that is computed.
const COMPUTED: usize = 0xB0;
/// First character after those.
const COMPUTED_END: usize = 0xE0;

const fn build() -> [Glyph; 256] {
    let mut font = [[0; HEIGHT]; 256];
    let mut at = 0;
    let mut code = 0;
    while code < 256 {
        if code == COMPUTED {
            code = COMPUTED_END;
        }
        assert!(
            hex(PICTURES[at]) * 16 + hex(PICTURES[at + 1]) == code,
            "blocks are in order of their codes"
        );
        while PICTURES[at] != b'\n' {
            at += 1;
        }
        at += 1;
        let mut line = 0;
        while line < HEIGHT {
            let mut column = 0;
            while column < PER_BLOCK * (WIDTH + 1) {
                let (glyph, x) = (column / (WIDTH + 1), column % (WIDTH + 1));
                let last = column + 1 == PER_BLOCK * (WIDTH + 1);
                match PICTURES[at] {
                    b'#' if x < WIDTH => font[code + glyph][line] |= 0x80 >> x,
                    b'.' if x < WIDTH => {}
                    b' ' if x == WIDTH && !last => {}
                    b'\n' if last => {}
                    _ => panic!("a picture line is eight cells of # and ., with a space between two"),
                }
                at += 1;
                column += 1;
            }
            line += 1;
        }
        code += PER_BLOCK;
    }
    assert!(at == PICTURES.len(), "nothing follows the last block");
    let mut code = COMPUTED;
    while code < COMPUTED_END {
        font[code] = computed(code);
        code += 1;
    }
    font
}

const fn hex(digit: u8) -> usize {
    match digit {
        b'0'..=b'9' => (digit - b'0') as usize,
        b'A'..=b'F' => (digit - b'A') as usize + 10,
        _ => panic!("a block starts with the code of its first glyph in upper-case hexadecimal"),
    }
}

/// Arms of the box characters from B3h on as up, down, left, right: 0 none, 1 single, 2 double. The four
/// blocks at DBh and the half blocks are not among them.
const ARMS: [[u8; 4]; 40] = [
    [1, 1, 0, 0], // B3 │
    [1, 1, 1, 0], // B4 ┤
    [1, 1, 2, 0], // B5 ╡
    [2, 2, 1, 0], // B6 ╢
    [0, 2, 1, 0], // B7 ╖
    [0, 1, 2, 0], // B8 ╕
    [2, 2, 2, 0], // B9 ╣
    [2, 2, 0, 0], // BA ║
    [0, 2, 2, 0], // BB ╗
    [2, 0, 2, 0], // BC ╝
    [2, 0, 1, 0], // BD ╜
    [1, 0, 2, 0], // BE ╛
    [0, 1, 1, 0], // BF ┐
    [1, 0, 0, 1], // C0 └
    [1, 0, 1, 1], // C1 ┴
    [0, 1, 1, 1], // C2 ┬
    [1, 1, 0, 1], // C3 ├
    [0, 0, 1, 1], // C4 ─
    [1, 1, 1, 1], // C5 ┼
    [1, 1, 0, 2], // C6 ╞
    [2, 2, 0, 1], // C7 ╟
    [2, 0, 0, 2], // C8 ╚
    [0, 2, 0, 2], // C9 ╔
    [2, 0, 2, 2], // CA ╩
    [0, 2, 2, 2], // CB ╦
    [2, 2, 0, 2], // CC ╠
    [0, 0, 2, 2], // CD ═
    [2, 2, 2, 2], // CE ╬
    [1, 0, 2, 2], // CF ╧
    [2, 0, 1, 1], // D0 ╨
    [0, 1, 2, 2], // D1 ╤
    [0, 2, 1, 1], // D2 ╥
    [2, 0, 0, 1], // D3 ╙
    [1, 0, 0, 2], // D4 ╘
    [0, 1, 0, 2], // D5 ╒
    [0, 2, 0, 1], // D6 ╓
    [2, 2, 1, 1], // D7 ╫
    [1, 1, 2, 2], // D8 ╪
    [1, 0, 1, 0], // D9 ┘
    [0, 1, 0, 1], // DA ┌
];

const fn computed(code: usize) -> Glyph {
    let mut glyph = [0; HEIGHT];
    let mut y = 0;
    while y < HEIGHT {
        let mut x = 0;
        while x < WIDTH {
            let lit = match code {
                0xB0 => (x + 2 * (y % 2)).is_multiple_of(4),
                0xB1 => (x + y).is_multiple_of(2),
                0xB2 => !(x + 2 * (y % 2) + 1).is_multiple_of(4),
                0xB3..=0xDA => in_box(ARMS[code - 0xB3], x, y),
                0xDB => true,
                0xDC => y >= HEIGHT / 2,
                0xDD => x < WIDTH / 2,
                0xDE => x >= WIDTH / 2,
                _ => y < HEIGHT / 2,
            };
            if lit {
                glyph[y] |= 0x80 >> x;
            }
            x += 1;
        }
        y += 1;
    }
    glyph
}

const fn max(a: u8, b: u8) -> u8 {
    if a > b { a } else { b }
}

/// Whether a box character with these arms covers the pixel: the outline of its lines less the gaps of the
/// double ones.
const fn in_box([up, down, left, right]: [u8; 4], x: usize, y: usize) -> bool {
    let vertical = Axis::new(max(up, down), WIDTH / 2);
    let horizontal = Axis::new(max(left, right), HEIGHT / 2);
    let upright = vertical.covers(x)
        && (up > 0 && y <= horizontal.crossing_end() || down > 0 && y >= horizontal.crossing_start());
    let level = horizontal.covers(y)
        && (left > 0 && x <= vertical.crossing_end() || right > 0 && x >= vertical.crossing_start());
    // A gap runs through the crossing, unless a single line passes there from side to side or ends there.
    let upright_blocked =
        horizontal.kind == 1 && (left > 0 && right > 0 || !(up > 0 && down > 0)) && horizontal.covers(y);
    let level_blocked =
        vertical.kind == 1 && (up > 0 && down > 0 || !(left > 0 && right > 0)) && vertical.covers(x);
    let upright_gap = vertical.in_gap(x)
        && !upright_blocked
        && (up > 0 && y <= horizontal.middle || down > 0 && y + 1 >= horizontal.middle);
    let level_gap = horizontal.in_gap(y)
        && !level_blocked
        && (left > 0 && x <= vertical.middle || right > 0 && x + 1 >= vertical.middle);
    (upright || level) && !upright_gap && !level_gap
}

/// The lines in one direction, measured across it.
struct Axis {
    kind: u8,
    /// The first pixel after the middle.
    middle: usize,
}

impl Axis {
    const fn new(kind: u8, middle: usize) -> Self {
        Self { kind, middle }
    }

    /// Half the width of the outline: one pixel for a single line, three for a double one.
    const fn half(&self) -> usize {
        if self.kind == 2 { 3 } else { 1 }
    }

    const fn covers(&self, at: usize) -> bool {
        self.kind > 0 && at + self.half() >= self.middle && at < self.middle + self.half()
    }

    const fn in_gap(&self, at: usize) -> bool {
        self.kind == 2 && at + 1 >= self.middle && at < self.middle + 1
    }

    /// Last pixel that an arm from the low side covers.
    const fn crossing_end(&self) -> usize {
        self.middle + self.half() - 1
    }

    /// First pixel that an arm from the high side covers.
    const fn crossing_start(&self) -> usize {
        self.middle - self.half()
    }
}

#[cfg(test)]
#[path = "font/tests.rs"] // by path, because the firmware's build takes this file in from elsewhere
mod tests;
