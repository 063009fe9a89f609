//! Text modes: characters and attributes from planes 0 and 1, glyphs from plane 2.
//!
//! Each cell is remembered by what it shows (character, colours, font, cursor, underline), and drawn only when that
//! changes, so that a scrolling console costs what changes on it.

use quintet_protocol::framebuffer::{Rect, TileSet};
use quintet_protocol::vram::VgaRegisters;

use super::{Colour, Geometry, Inputs, Lut, Memory, Picture, Scan};

/// Bytes of a glyph in plane 2.
const GLYPH_BYTES: usize = 32;
/// Bytes of a font of 256 glyphs in plane 2.
const FONT_BYTES: usize = 256 * GLYPH_BYTES;

/// Lines of the picture that come from one character row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    y: u32,
    lines: u32,
    scan: Scan,
}

/// What a cell shows; equal cells look alike under one [`Look`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Cell {
    character: u8,
    foreground: u8,
    background: u8,
    second_font: bool,
    /// A blinking character in its dark phase.
    hidden: bool,
    cursor: bool,
    underline: bool,
}

/// Everything besides the cells that decides about the pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    spans: Vec<(u32, u32, u32, u32)>,
    columns: u32,
    cell_width: u32,
    dot_scale: u32,
    line_scale: u32,
    cell_height: u32,
    colours: [Colour; 16],
    cursor_lines: (u8, u8),
    underline_line: u32,
    line_graphics: bool,
    fonts: Vec<u8>,
}

/// What was drawn last.
#[derive(Debug, Default)]
pub(super) struct TextCache {
    look: Option<Look>,
    cells: Vec<Cell>,
    blinks: bool,
}

impl TextCache {
    /// Everything is drawn again next time.
    pub(super) fn forget(&mut self) {
        self.look = None;
        self.blinks = false;
    }

    /// Whether something on the screen drawn last blinks.
    pub(super) fn blinks(&self) -> bool {
        self.blinks
    }
}

/// Draws the cells that differ from before.
pub(super) fn draw<M: Memory>(
    picture: &mut Picture,
    cache: &mut TextCache,
    geometry: &Geometry,
    inputs: &Inputs<'_, M>,
    lut: &Lut,
    dirty: &mut TileSet,
) {
    let r = inputs.registers;
    let spans = spans(geometry);
    let look = Look {
        spans: spans
            .iter()
            .map(|s| (s.y, s.lines, s.scan.row_scan, s.scan.pan))
            .collect(),
        columns: geometry.columns,
        cell_width: geometry.cell_width,
        dot_scale: geometry.dot_scale,
        line_scale: geometry.line_scale,
        cell_height: geometry.cell_height,
        colours: lut.attribute,
        cursor_lines: (r.crtc[0x0A] & 0x1F, r.crtc[0x0B] & 0x1F),
        underline_line: u32::from(r.crtc[0x14] & 0x1F),
        line_graphics: r.attribute[0x10] & 4 != 0,
        fonts: fonts(r, inputs.memory),
    };
    let fresh = cache.look.as_ref() != Some(&look);
    let per_span = geometry.columns as usize + 1;
    cache.cells.resize(spans.len() * per_span, Cell::default());
    let screen = Screen::new(r, geometry, inputs);
    cache.blinks = false;
    for (span, known) in spans.iter().zip(cache.cells.chunks_exact_mut(per_span)) {
        // The cell after the last shows only when panning shifts it in.
        let shown = geometry.columns + u32::from(span.scan.pan > 0);
        for (column, known) in (0..shown).zip(known) {
            let counter = span.scan.counter.wrapping_add(column);
            let mut planes = [[0; 4]];
            inputs
                .memory
                .read_planes(geometry.addressing.offset(counter, 0), &mut planes);
            let cell = screen.cell(planes[0][0], planes[0][1], counter, &mut cache.blinks);
            if fresh || cell != *known {
                *known = cell;
                draw_cell(picture, &look, span, column, cell, dirty);
            }
        }
    }
    cache.look = Some(look);
}

/// The character rows of the picture, cut where the split or the first line's row scan cuts them.
fn spans(geometry: &Geometry) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut last: Option<Scan> = None;
    for y in 0..geometry.height {
        let scan = geometry.scan_at(y);
        let goes_on = last.is_some_and(|last| {
            (last.counter, last.pan) == (scan.counter, scan.pan) && scan.row_scan >= last.row_scan
        });
        match spans.last_mut() {
            Some(span) if goes_on => span.lines += 1,
            _ => spans.push(Span { y, lines: 1, scan }),
        }
        last = Some(scan);
    }
    spans
}

/// Both fonts, as far as they are in use: the one for attribute bit 3 clear, then the other.
fn fonts(r: &VgaRegisters, memory: &impl Memory) -> Vec<u8> {
    let select = r.sequencer[3];
    let base = |low: u8, high: u8| u16::from(low & 3) << 14 | u16::from(high & 1) << 13;
    let mut fonts = vec![0; 2 * FONT_BYTES];
    let (first, second) = (base(select, select >> 4), base(select >> 2, select >> 5));
    let mut planes = vec![[0; 4]; FONT_BYTES];
    for (to, base) in fonts.chunks_exact_mut(FONT_BYTES).zip([first, second]) {
        memory.read_planes(base, &mut planes);
        for (to, planes) in to.iter_mut().zip(&planes) {
            *to = planes[2];
        }
        if first == second {
            // One set of 256: bit 3 is intensity and nothing else.
            break;
        }
    }
    if first == second {
        fonts.truncate(FONT_BYTES);
    }
    fonts
}

/// The registers that turn two bytes into a cell.
struct Screen {
    blink: bool,
    text_on: bool,
    two_fonts: bool,
    underline: bool,
    /// Counter value under the cursor, if it can be seen at all.
    cursor: Option<u32>,
    cursor_on: bool,
}

impl Screen {
    fn new<M>(r: &VgaRegisters, geometry: &Geometry, inputs: &Inputs<'_, M>) -> Self {
        let select = r.sequencer[3];
        let (start, end) = (r.crtc[0x0A] & 0x1F, r.crtc[0x0B] & 0x1F);
        let lit = r.crtc[0x0A] & 0x20 == 0 && start <= end && u32::from(start) < geometry.cell_height;
        let skew = u32::from(r.crtc[0x0B] >> 5 & 3);
        let place = (u32::from(r.crtc[0x0E]) << 8 | u32::from(r.crtc[0x0F])) + skew;
        Self {
            blink: r.attribute[0x10] & 8 != 0,
            text_on: geometry.timing.text_on(inputs.now),
            two_fonts: (select & 3, select >> 4 & 1) != (select >> 2 & 3, select >> 5 & 1),
            underline: u32::from(r.crtc[0x14] & 0x1F) < geometry.cell_height,
            cursor: lit.then_some(place & 0xFFFF),
            cursor_on: geometry.timing.cursor_on(inputs.now),
        }
    }

    fn cell(&self, character: u8, attribute: u8, counter: u32, blinks: &mut bool) -> Cell {
        let blinking = self.blink && attribute & 0x80 != 0;
        let at_cursor = self.cursor == Some(counter & 0xFFFF);
        *blinks |= at_cursor || blinking;
        Cell {
            character,
            foreground: attribute & 0x0F,
            background: if self.blink {
                attribute >> 4 & 7
            } else {
                attribute >> 4
            },
            second_font: self.two_fonts && attribute & 8 != 0,
            hidden: blinking && !self.text_on,
            cursor: at_cursor && self.cursor_on,
            underline: self.underline && attribute & 0x77 == 0x01,
        }
    }
}

fn draw_cell(picture: &mut Picture, look: &Look, span: &Span, column: u32, cell: Cell, dirty: &mut TileSet) {
    let width = look.cell_width as usize;
    let font = if cell.second_font && look.fonts.len() > FONT_BYTES {
        FONT_BYTES
    } else {
        0
    };
    let glyph = &look.fonts[font + usize::from(cell.character) * GLYPH_BYTES..][..GLYPH_BYTES];
    let nine = width == 9 && look.line_graphics && (0xC0..0xE0).contains(&cell.character);
    let (fore, back) = (
        look.colours[usize::from(cell.foreground)],
        look.colours[usize::from(cell.background)],
    );
    let (cursor_start, cursor_end) = (u32::from(look.cursor_lines.0), u32::from(look.cursor_lines.1));
    // Dots of the picture, left to right; what panning shifts out is negative.
    let left = i64::from(column * look.cell_width) - i64::from(span.scan.pan);
    for line in 0..span.lines {
        let row_scan = span.scan.row_scan + line / look.line_scale;
        let mut bits = u16::from(glyph[row_scan as usize % GLYPH_BYTES]) << 1;
        if nine {
            bits |= bits >> 1 & 1;
        }
        if cell.hidden {
            bits = 0;
        }
        let underlined = cell.underline && !cell.hidden && row_scan == look.underline_line;
        if underlined || cell.cursor && (cursor_start..=cursor_end).contains(&row_scan) {
            bits = 0x1FF;
        }
        let pixels = picture.line_mut(span.y + line);
        for dot in 0..width {
            let colour = if bits & 0x100 >> dot != 0 { fore } else { back };
            let Ok(x) = usize::try_from(left + dot as i64) else {
                continue;
            };
            let scale = look.dot_scale as usize;
            if let Some(to) = pixels.get_mut(x * scale..(x + 1) * scale) {
                to.fill(colour);
            }
        }
    }
    let x = left.max(0) as u32 * look.dot_scale;
    let rect = Rect {
        x,
        y: span.y,
        width: look.cell_width * look.dot_scale,
        height: span.lines,
    };
    if x < picture.layout.width {
        dirty.add_rect(&picture.layout, rect);
    }
}
