use quintet_protocol::font::CP437_8X16;
use quintet_protocol::vram::{PAGE_BYTES, VRAM_BYTES, plane_index};

use super::*;

/// A screen without processes: registers, colours and memory that a test sets as a guest would.
struct Bench {
    registers: VgaRegisters,
    palette: Palette,
    memory: Vec<u8>,
    renderer: Renderer,
    now: VmTime,
}

impl Bench {
    fn new(registers: VgaRegisters) -> Self {
        let mut bench = Self {
            registers,
            palette: Palette::ega(),
            memory: vec![0; 256 << 10],
            renderer: Renderer::default(),
            now: VmTime(0),
        };
        for (code, glyph) in CP437_8X16.iter().enumerate() {
            bench.load_glyph(0, code, glyph);
        }
        bench
    }

    fn text() -> Self {
        let mut bench = Self::new(VgaRegisters::text_80x25());
        bench.registers.crtc[0x0A] |= 0x20;
        bench.put(0, 0, &" ".repeat(80 * 25), 0x07);
        bench
    }

    fn load_glyph(&mut self, base: u16, code: usize, glyph: &[u8]) {
        for (line, &bits) in (0..).zip(glyph) {
            self.memory[plane_index(base + code as u16 * 32 + line, 2)] = bits;
        }
    }

    fn cell(&mut self, column: usize, row: usize, character: u8, attribute: u8) {
        let offset = ((row * 80 + column) * 2) as u16;
        self.memory[plane_index(offset, 0)] = character;
        self.memory[plane_index(offset, 1)] = attribute;
    }

    fn put(&mut self, column: usize, row: usize, text: &str, attribute: u8) {
        for (index, character) in text.bytes().enumerate() {
            let at = row * 80 + column + index;
            self.cell(at % 80, at / 80, character, attribute);
        }
    }

    fn draw(&mut self) -> Drawn {
        self.draw_damage(&Damage::All)
    }

    fn draw_damage(&mut self, damage: &Damage) -> Drawn {
        let inputs = Inputs {
            registers: &self.registers,
            palette: &self.palette,
            memory: &self.memory,
            now: self.now,
        };
        self.renderer.render(&inputs, damage)
    }

    fn size(&self) -> (u32, u32) {
        (
            self.renderer.picture.layout.width,
            self.renderer.picture.layout.height,
        )
    }

    fn pixel(&self, x: usize, y: usize) -> Colour {
        let stride = self.renderer.picture.layout.stride as usize;
        let at = y * stride + x * 4;
        self.renderer.picture.pixels[at..at + 4]
            .try_into()
            .expect("four bytes")
    }

    /// The cell at a place as bits: set where the pixel is `fore`; every other pixel must be `back`.
    fn bits(&self, column: usize, row: usize, fore: Colour, back: Colour) -> Vec<u16> {
        (0..16)
            .map(|line| {
                (0..9).fold(0, |bits, dot| {
                    let pixel = self.pixel(column * 9 + dot, row * 16 + line);
                    assert!(pixel == fore || pixel == back, "{pixel:?} in cell {column},{row}");
                    bits << 1 | u16::from(pixel == fore)
                })
            })
            .collect()
    }
}

const BLACK: Colour = [0, 0, 0, 255];
const GREY: Colour = [170, 170, 170, 255];
const BLUE: Colour = [0, 0, 170, 255];
const YELLOW: Colour = [255, 255, 85, 255];

fn glyph(code: u8) -> Vec<u16> {
    CP437_8X16[usize::from(code)]
        .iter()
        .map(|&bits| u16::from(bits) << 1)
        .collect()
}

#[test]
fn mode_3_is_80_by_25_cells_of_9_by_16_at_70_hz() {
    let mut bench = Bench::text();
    assert!(!bench.draw().resized, "720x400 is what a renderer starts with");
    assert_eq!(bench.size(), (720, 400));
    assert_eq!(describe(&bench.registers), "text 80x25");
    let hz = 1e9 / Geometry::of(&bench.registers).timing.frame as f64;
    assert!((70.0..70.2).contains(&hz), "{hz}");
}

#[test]
fn a_character_is_drawn_from_plane_2_in_its_attribute_colours() {
    let mut bench = Bench::text();
    bench.put(79, 24, "A", 0x1E);
    bench.put(0, 0, "g", 0x07);
    bench.draw();
    assert_eq!(bench.bits(79, 24, YELLOW, BLUE), glyph(b'A'));
    assert_eq!(bench.bits(0, 0, GREY, BLACK), glyph(b'g'));
}

#[test]
fn the_ninth_column_repeats_the_eighth_for_line_graphics_only() {
    let mut bench = Bench::text();
    for (column, code) in (0..).zip([0xC4, 0xDB, 0xDF, 0xE0, 0xB0, 0xBF]) {
        bench.cell(column, 0, code, 0x07);
    }
    bench.draw();
    let ninth = |bench: &Bench, column| {
        bench
            .bits(column, 0, GREY, BLACK)
            .iter()
            .any(|bits| bits & 1 != 0)
    };
    assert_eq!(
        [0, 1, 2, 3, 4, 5].map(|column| ninth(&bench, column)),
        [true, true, true, false, false, false]
    );
    bench.registers.attribute[0x10] &= !4;
    bench.draw();
    assert!(!ninth(&bench, 0));
}

#[test]
fn cells_of_eight_dots_have_no_ninth_column() {
    let mut bench = Bench::text();
    bench.registers.sequencer[1] |= 1;
    bench.draw();
    assert_eq!(bench.size(), (640, 400));
}

#[test]
fn forty_columns_show_each_dot_twice() {
    let mut bench = Bench::text();
    bench.registers.sequencer[1] |= 8;
    bench.registers.crtc[1] = 39;
    bench.registers.crtc[0x13] = 20;
    bench.put(0, 0, "|", 0x07);
    bench.draw();
    assert_eq!(bench.size(), (720, 400));
    let row: Vec<bool> = (0..18).map(|x| bench.pixel(x, 5) == GREY).collect();
    let dots: Vec<bool> = row.chunks(2).map(|pair| pair[0]).collect();
    assert!(row.chunks(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(
        dots,
        [false, false, false, true, true, false, false, false, false]
    );
}

#[test]
fn the_cursor_covers_its_lines_and_blinks_in_halves_of_16_frames() {
    let mut bench = Bench::text();
    bench.registers.crtc[0x0A] = 13;
    bench.registers.crtc[0x0B] = 14;
    bench.registers.crtc[0x0F] = 81;
    let frame = Geometry::of(&bench.registers).timing.frame;
    for (number, lit) in [(0, true), (7, true), (8, false), (15, false), (16, true)] {
        bench.now = VmTime(number * frame + 1);
        bench.draw();
        let lines: Vec<usize> = bench
            .bits(1, 1, GREY, BLACK)
            .iter()
            .enumerate()
            .filter(|(_, bits)| **bits == 0x1FF)
            .map(|(line, _)| line)
            .collect();
        assert_eq!(lines, if lit { vec![13, 14] } else { vec![] }, "frame {number}");
    }
    let at = bench
        .renderer
        .next_blink(&bench.registers, VmTime(1))
        .expect("a cursor blinks");
    assert_eq!(at, VmTime(8 * frame));
}

#[test]
fn no_cursor_shows_when_it_is_off_or_starts_below_its_end() {
    for (start, end) in [(0x20 | 13, 14), (14, 13), (16, 20)] {
        let mut bench = Bench::text();
        bench.registers.crtc[0x0A] = start;
        bench.registers.crtc[0x0B] = end;
        bench.draw();
        assert_eq!(
            bench.bits(0, 0, GREY, BLACK),
            [0; 16],
            "cursor {start:#x} to {end}"
        );
        assert_eq!(bench.renderer.next_blink(&bench.registers, bench.now), None);
    }
}

#[test]
fn attribute_bit_7_blinks_or_brightens_the_background() {
    let mut bench = Bench::text();
    bench.put(0, 0, "A", 0x87);
    let frame = Geometry::of(&bench.registers).timing.frame;
    bench.draw();
    assert_eq!(bench.bits(0, 0, GREY, BLACK), glyph(b'A'));
    bench.now = VmTime(16 * frame);
    bench.draw();
    assert_eq!(bench.bits(0, 0, GREY, BLACK), [0; 16]);
    bench.registers.attribute[0x10] &= !8;
    bench.draw();
    assert_eq!(bench.bits(0, 0, GREY, [85, 85, 85, 255]), glyph(b'A'));
}

#[test]
fn attribute_1_is_underlined_where_the_crtc_says() {
    let mut bench = Bench::text();
    bench.put(0, 0, "AA", 0x01);
    bench.cell(1, 0, b'A', 0x07);
    bench.registers.crtc[0x14] = 13;
    bench.draw();
    let mut underlined = glyph(b'A');
    underlined[13] = 0x1FF;
    assert_eq!(bench.bits(0, 0, BLUE, BLACK), underlined);
    assert_eq!(bench.bits(1, 0, GREY, BLACK), glyph(b'A'));
}

#[test]
fn attribute_bit_3_selects_the_second_font_when_there_are_two() {
    let mut bench = Bench::text();
    bench.load_glyph(0x4000, usize::from(b'A'), &[0x3C; 16]);
    bench.put(0, 0, "A", 0x0F);
    bench.put(1, 0, "A", 0x07);
    // Map A (bit 3 set) at 4000h, map B at 0.
    bench.registers.sequencer[3] = 0x04;
    bench.draw();
    assert_eq!(bench.bits(0, 0, [255; 4], BLACK), [0x78; 16]);
    assert_eq!(bench.bits(1, 0, GREY, BLACK), glyph(b'A'));
}

#[test]
fn a_font_that_is_loaded_while_text_stands_changes_it() {
    let mut bench = Bench::text();
    bench.put(5, 5, "A", 0x07);
    bench.draw();
    bench.load_glyph(0, usize::from(b'A'), &[0xF0; 16]);
    bench.draw();
    assert_eq!(bench.bits(5, 5, GREY, BLACK), [0x1E0; 16]);
}

#[test]
fn colours_pass_palette_plane_mask_colour_select_and_dac() {
    let mut bench = Bench::text();
    bench.put(0, 0, "\u{1}", 0x0F);
    bench.cell(0, 0, 0xDB, 0x0F);
    bench.palette.0[0x3F] = [1, 2, 4];
    bench.draw();
    assert_eq!(bench.pixel(0, 0), [4, 8, 16, 255]);
    bench.registers.attribute[0x12] = 0x07;
    bench.draw();
    assert_eq!(bench.pixel(0, 0), GREY, "the plane mask takes bit 3 away");
    bench.registers.attribute[0x14] = 0x0F;
    bench.palette.0[0xC7] = [63, 0, 0];
    bench.draw();
    assert_eq!(
        bench.pixel(0, 0),
        [255, 0, 0, 255],
        "colour select bits 3-2 are DAC bits 7-6"
    );
    bench.registers.attribute[0x10] |= 0x80;
    bench.palette.0[0xF7] = [0, 63, 0];
    bench.draw();
    assert_eq!(
        bench.pixel(0, 0),
        [0, 255, 0, 255],
        "colour select bits 1-0 replace DAC bits 5-4"
    );
    bench.registers.pel_mask = 0x07;
    bench.draw();
    assert_eq!(bench.pixel(0, 0), GREY, "the PEL mask comes last");
}

#[test]
fn one_changed_cell_is_one_dirty_tile() {
    let mut bench = Bench::text();
    bench.draw();
    assert!(bench.draw().dirty.is_empty());
    bench.put(1, 2, "x", 0x07);
    let drawn = bench.draw();
    let mut expected = TileSet::none(bench.renderer.picture.layout());
    expected.add_rect(
        bench.renderer.picture.layout(),
        Rect {
            x: 9,
            y: 32,
            width: 9,
            height: 16,
        },
    );
    assert_eq!(drawn.dirty, expected);
}

#[test]
fn the_start_address_scrolls_by_characters_and_the_preset_row_by_lines() {
    let mut bench = Bench::text();
    bench.put(0, 1, "A", 0x07);
    bench.registers.crtc[0x0D] = 80;
    bench.draw();
    assert_eq!(bench.bits(0, 0, GREY, BLACK), glyph(b'A'));
    bench.registers.crtc[8] = 3;
    bench.draw();
    assert_eq!(bench.bits(0, 0, GREY, BLACK)[..13], glyph(b'A')[3..]);
}

#[test]
fn panning_shifts_dots_out_on_the_left_and_the_81st_character_in() {
    let mut bench = Bench::text();
    bench.put(0, 0, "A", 0x07);
    bench.put(0, 1, "B", 0x07);
    // In cells of nine dots, 8 is no shift and 0 a shift by one.
    bench.registers.attribute[0x13] = 2;
    bench.draw();
    let shifted: Vec<u16> = glyph(b'A').iter().map(|bits| bits << 3 & 0x1FF).collect();
    assert_eq!(bench.bits(0, 0, GREY, BLACK), shifted);
    let from_next: Vec<u16> = glyph(b'B').iter().map(|bits| bits >> 6).collect();
    assert_eq!(bench.bits(79, 0, GREY, BLACK), from_next);
}

#[test]
fn below_the_line_compare_the_picture_starts_again_at_zero() {
    let mut bench = Bench::text();
    bench.put(0, 0, "A", 0x07);
    bench.put(0, 10, "B", 0x07);
    bench.registers.crtc[0x0C] = (800_u16 >> 8) as u8;
    bench.registers.crtc[0x0D] = (800_u16 & 0xFF) as u8;
    // Lines 0 to 159 come from the start address; compare is a ten-bit number.
    bench.registers.crtc[0x18] = 159;
    bench.registers.crtc[7] &= !0x10;
    bench.registers.crtc[9] &= !0x40;
    bench.draw();
    assert_eq!(bench.bits(0, 0, GREY, BLACK), glyph(b'B'));
    assert_eq!(bench.bits(0, 10, GREY, BLACK), glyph(b'A'));
}

#[test]
fn the_screen_is_black_while_it_is_switched_off() {
    let off: [fn(&mut VgaRegisters); 3] = [
        |r| r.attribute_index = 0,
        |r| r.sequencer[1] |= 0x20,
        |r| r.sequencer[0] = 1,
    ];
    for (index, off) in off.into_iter().enumerate() {
        let mut bench = Bench::text();
        bench.put(0, 0, "A", 0x77);
        bench.draw();
        off(&mut bench.registers);
        let drawn = bench.draw();
        assert!(!drawn.dirty.is_empty());
        assert_eq!(bench.size(), (720, 400));
        assert_eq!(bench.pixel(4, 4), BLACK, "way {index}");
        bench.registers = VgaRegisters::text_80x25();
        bench.draw();
        assert_eq!(bench.pixel(8, 4), GREY, "after way {index}");
    }
}

#[test]
fn registers_that_nobody_has_set_are_a_black_720_by_400() {
    let mut bench = Bench::new(VgaRegisters::default());
    bench.draw();
    assert_eq!(bench.size(), (720, 400));
    assert!(
        bench
            .renderer
            .picture
            .pixels
            .chunks_exact(4)
            .all(|pixel| pixel == BLACK)
    );
}

/// Registers of a BIOS graphics mode: those that differ from mode 3.
fn graphics(shift: u8, change: impl Fn(&mut VgaRegisters)) -> VgaRegisters {
    let mut r = VgaRegisters::text_80x25();
    r.sequencer[1] = 1;
    r.sequencer[4] = 6;
    r.crtc[9] = 0x40;
    r.crtc[0x17] = 0xE3;
    r.crtc[0x14] = 0;
    r.graphics[5] = shift;
    r.graphics[6] = 5;
    r.attribute[0x10] = 1;
    r.attribute[0x13] = 0;
    change(&mut r);
    r
}

#[test]
fn mode_12h_takes_one_bit_of_each_plane() {
    let mut bench = Bench::new(graphics(0, |r| {
        r.crtc[7] = 0x3E;
        r.crtc[0x12] = 0xDF;
        r.crtc[0x13] = 40;
        r.misc = 0xE3;
    }));
    bench.memory.fill(0);
    bench.memory[plane_index(80 + 3, 0)] = 0x81;
    bench.memory[plane_index(80 + 3, 3)] = 0x80;
    bench.draw();
    assert_eq!(
        (bench.size(), describe(&bench.registers)),
        ((640, 480), "planar 640x480".to_owned())
    );
    assert_eq!(bench.pixel(24, 1), [85, 85, 255, 255]);
    assert_eq!(bench.pixel(31, 1), BLUE);
    assert_eq!(
        [bench.pixel(25, 1), bench.pixel(24, 0), bench.pixel(24, 2)],
        [BLACK; 3]
    );
}

#[test]
fn mode_13h_takes_a_plane_per_pixel_in_turn_and_doubles_dots_and_lines() {
    let mut bench = Bench::new(graphics(0x40, |r| {
        r.sequencer[4] = 0x0E;
        r.crtc[9] = 0x41;
        r.crtc[0x14] = 0x40;
        r.crtc[0x17] = 0xA3;
        r.attribute[0x10] = 0x41;
    }));
    bench.memory.fill(0);
    for colour in 0..=255 {
        bench.palette.0[colour] = [0, 0, colour as u8 & 0x3F];
    }
    // Address A in chain-4 mode: plane A & 3, offset A & !3.
    let mut poke =
        |address: u16, value: u8| bench.memory[plane_index(address & !3, usize::from(address & 3))] = value;
    poke(0, 1);
    poke(5, 2);
    poke(320, 3);
    poke(63_999, 4);
    bench.draw();
    assert_eq!(bench.size(), (640, 400));
    let lit = |value: u8| [0, 0, value << 2, 255];
    assert_eq!([bench.pixel(0, 0), bench.pixel(1, 1)], [lit(1); 2]);
    assert_eq!([bench.pixel(10, 0), bench.pixel(11, 1)], [lit(2); 2]);
    assert_eq!([bench.pixel(0, 2), bench.pixel(1, 3)], [lit(3); 2]);
    assert_eq!([bench.pixel(638, 398), bench.pixel(639, 399)], [lit(4); 2]);
    assert_eq!(bench.pixel(2, 0), BLACK);
}

#[test]
fn unchained_256_colours_use_every_offset() {
    let mut bench = Bench::new(graphics(0x40, |r| {
        r.crtc[9] = 0x41;
        r.attribute[0x10] = 0x41;
    }));
    bench.memory.fill(0);
    bench.palette.0[9] = [63, 63, 63];
    bench.memory[plane_index(81, 2)] = 9;
    bench.draw();
    assert_eq!(bench.pixel((4 + 2) * 2, 2), [255; 4]);
}

#[test]
fn cga_mode_4_interleaves_lines_and_packs_two_bits() {
    let mut bench = Bench::new(graphics(0x20, |r| {
        r.sequencer[1] = 9;
        r.sequencer[4] = 2;
        r.crtc[1] = 39;
        r.crtc[9] = 0xC1;
        r.crtc[0x13] = 20;
        r.crtc[0x17] = 0xA2;
        r.attribute[1] = 0x13;
        r.attribute[0x12] = 3;
    }));
    bench.memory.fill(0);
    // CPU byte 2000h+3: odd/even puts it at offset 2002h of plane 1.
    bench.memory[plane_index(0x2002, 1)] = 0b01_00_00_00;
    bench.draw();
    assert_eq!(bench.size(), (640, 400));
    let cyan = [0, 170, 170, 255];
    bench.palette.0[0x13] = [0, 0x2A, 0x2A];
    bench.draw();
    // Pixel 12 of CGA line 1: two dots wide, two lines high.
    for (x, y) in [(24, 2), (25, 2), (24, 3), (25, 3)] {
        assert_eq!(bench.pixel(x, y), cyan, "{x},{y}");
    }
    assert_eq!(
        [bench.pixel(24, 1), bench.pixel(24, 4), bench.pixel(26, 2)],
        [BLACK; 3]
    );
}

fn vbe(width: u16, height: u16, bpp: u16) -> Bench {
    let mut bench = Bench::new(VgaRegisters::text_80x25());
    bench.registers.vbe = [0xB0C5, width, height, bpp, 0x41, 0, width, height, 0, 0, 256];
    bench.memory = vec![0; VRAM_BYTES];
    bench
}

#[test]
fn vbe_formats_are_converted_and_x_bytes_shown_opaque() {
    let cases: [(u16, &[u8], Colour); 5] = [
        (8, &[7], [0xA8 | 2, 0xA8 | 2, 0xA8 | 2, 255]),
        (15, &[0x1F, 0x80], [0, 0, 255, 255]),
        (16, &[0xE0, 0x07], [0, 255, 0, 255]),
        (24, &[1, 2, 3], [3, 2, 1, 255]),
        (32, &[1, 2, 3, 0], [3, 2, 1, 255]),
    ];
    for (bpp, bytes, expected) in cases {
        let mut bench = vbe(64, 32, bpp);
        let at = (2 * 64 + 5) * bytes.len();
        bench.memory[at..at + bytes.len()].copy_from_slice(bytes);
        bench.draw();
        assert_eq!(bench.size(), (64, 32));
        assert_eq!(
            (bench.pixel(5, 2), bench.pixel(4, 2)),
            (expected, BLACK),
            "{bpp} bits"
        );
    }
}

#[test]
fn vbe_with_4_bits_is_planar() {
    let mut bench = vbe(800, 600, 4);
    bench.memory[plane_index(100 * 2 + 1, 1)] = 0x01;
    bench.draw();
    assert_eq!((bench.size(), bench.pixel(15, 2)), ((800, 600), [0, 170, 0, 255]));
}

#[test]
fn vbe_offsets_and_a_wider_virtual_screen_move_the_window() {
    let mut bench = vbe(64, 32, 32);
    bench.registers.vbe[6] = 100;
    bench.registers.vbe[8] = 7;
    bench.registers.vbe[9] = 3;
    bench.memory[((3 + 1) * 100 + 7 + 2) * 4] = 0xFF;
    bench.draw();
    assert_eq!(bench.pixel(2, 1), [0, 0, 255, 255]);
}

#[test]
fn a_dirty_page_of_a_vbe_mode_redraws_its_lines_only() {
    let mut bench = vbe(64, 128, 32);
    bench.draw();
    bench.memory.fill(0xFF);
    let drawn = bench.draw_damage(&Damage::Pages(vec![2]));
    // A line is 256 bytes: page 2 holds lines 32 to 47.
    let lit: Vec<usize> = (0..128).filter(|&y| bench.pixel(0, y) != BLACK).collect();
    assert_eq!(lit, (32..48).collect::<Vec<_>>());
    let mut expected = TileSet::none(bench.renderer.picture.layout());
    expected.add_rect(
        bench.renderer.picture.layout(),
        Rect {
            x: 0,
            y: 32,
            width: 64,
            height: 16,
        },
    );
    assert_eq!(drawn.dirty, expected);
    assert_eq!(Renderer::watched(&bench.registers), 0..64 * 128 * 4 / PAGE_BYTES);
}

#[test]
fn a_vbe_window_past_the_end_of_memory_shows_black_there() {
    let mut bench = vbe(64, 32, 32);
    bench.memory.fill(0xFF);
    bench.registers.vbe[6] = 1024;
    bench.registers.vbe[9] = 4094;
    bench.draw();
    assert_eq!([bench.pixel(0, 1), bench.pixel(0, 2)], [[255; 4], BLACK]);
}

#[test]
fn s3_87_a_reset_returns_to_legacy_text() {
    let mut bench = vbe(64, 32, 32);
    bench.draw();
    bench.registers.vbe = [0; 11];
    let drawn = bench.draw();
    assert!(drawn.resized);
    assert_eq!(
        (bench.size(), drawn.dirty),
        ((720, 400), TileSet::all(bench.renderer.picture.layout()))
    );
}

#[test]
fn no_registers_whatsoever_make_the_renderer_fail() {
    let mut state = 0x9E37_79B9_u32;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut bench = Bench::new(VgaRegisters::default());
    for byte in &mut bench.memory {
        *byte = random() as u8;
    }
    let mut sizes = std::collections::BTreeSet::new();
    for _ in 0..80 {
        let mut words = [0; quintet_protocol::vram::REGISTER_WORDS];
        words.fill_with(&mut random);
        let mut registers = VgaRegisters::from_words(&words);
        if random() % 8 != 0 {
            registers.vbe[4] = 0;
        } else {
            registers.vbe[1] &= 0x3FF;
            registers.vbe[2] &= 0x3FF;
            registers.vbe[3] = [4, 8, 15, 16, 24, 32, 7, 0][random() as usize % 8];
        }
        if random() % 4 != 0 {
            registers.attribute_index |= 0x20;
            registers.sequencer[0] = 3;
            registers.sequencer[1] &= !0x20;
        }
        bench.registers = registers;
        bench.now = VmTime(u64::from(random()) << 20);
        bench.draw();
        bench.draw_damage(&Damage::Pages(vec![0, 63, 4095]));
        sizes.insert(bench.size());
        assert!(
            bench
                .renderer
                .picture
                .pixels
                .chunks_exact(4)
                .all(|pixel| pixel[3] == 255)
        );
    }
    assert!(sizes.len() > 20, "{} sizes", sizes.len());
}
