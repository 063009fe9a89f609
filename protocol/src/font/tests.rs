use super::*;

fn at(code: usize, x: usize, y: usize) -> bool {
    CP437_8X16[code][y] & (0x80 >> x) != 0
}

/// Pixels on an edge of the cell, in the order of [`ARMS`]: up, down, left, right.
fn edges(code: usize) -> [Vec<usize>; 4] {
    [
        (0..WIDTH).filter(|&x| at(code, x, 0)).collect(),
        (0..WIDTH).filter(|&x| at(code, x, HEIGHT - 1)).collect(),
        (0..HEIGHT).filter(|&y| at(code, 0, y)).collect(),
        (0..HEIGHT).filter(|&y| at(code, WIDTH - 1, y)).collect(),
    ]
}

#[test]
fn box_lines_meet_the_edge_where_the_next_cell_goes_on() {
    for (index, arms) in ARMS.iter().enumerate() {
        let edges = edges(0xB3 + index);
        for (side, (&arm, edge)) in arms.iter().zip(&edges).enumerate() {
            let middle = if side < 2 { WIDTH / 2 } else { HEIGHT / 2 };
            let expected = match arm {
                0 => vec![],
                1 => vec![middle - 1, middle],
                _ => vec![middle - 3, middle - 2, middle + 1, middle + 2],
            };
            assert_eq!(edge, &expected, "character {:02X}, side {side}", 0xB3 + index);
        }
    }
}

#[test]
fn mirrored_box_characters_are_mirror_images() {
    for (index, &[up, down, left, right]) in ARMS.iter().enumerate() {
        let code = 0xB3 + index;
        let find = |wanted: [u8; 4]| {
            ARMS.iter()
                .position(|&arms| arms == wanted)
                .map(|found| found + 0xB3)
        };
        let sideways = find([up, down, right, left]).expect("every box character has its mirror image");
        let upside_down = find([down, up, left, right]).expect("every box character has its mirror image");
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                assert_eq!(
                    at(code, x, y),
                    at(sideways, WIDTH - 1 - x, y),
                    "{code:02X} and {sideways:02X}"
                );
                assert_eq!(
                    at(code, x, y),
                    at(upside_down, x, HEIGHT - 1 - y),
                    "{code:02X} and {upside_down:02X}"
                );
            }
        }
    }
}

#[test]
fn shades_cover_a_quarter_a_half_and_three_quarters() {
    let lit = |code: usize| CP437_8X16[code].iter().map(|line| line.count_ones()).sum::<u32>();
    assert_eq!([0xB0, 0xB1, 0xB2, 0xDB].map(lit), [32, 64, 96, 128]);
}

#[test]
fn half_blocks_complete_each_other() {
    let both = |a: usize, b: usize| {
        CP437_8X16[a]
            .iter()
            .zip(CP437_8X16[b])
            .all(|(x, y)| x ^ y == 0xFF)
    };
    assert!(both(0xDC, 0xDF));
    assert!(both(0xDD, 0xDE));
}

#[test]
fn no_two_characters_look_alike_but_the_blanks() {
    for (a, glyph) in CP437_8X16.iter().enumerate() {
        for (b, other) in CP437_8X16.iter().enumerate().skip(a + 1) {
            assert!(glyph != other || *glyph == [0; HEIGHT], "{a:02X} and {b:02X}");
        }
    }
    let blanks: Vec<_> = (0..256).filter(|&code| CP437_8X16[code] == [0; HEIGHT]).collect();
    assert_eq!(blanks, [0x00, 0x20, 0xFF]);
}

#[test]
fn letters_and_digits_keep_the_last_column_free() {
    for code in (0x21..0x7F).filter(|&code| code != usize::from(b'_')) {
        let used = CP437_8X16[code].iter().fold(0, |all, line| all | line);
        assert_eq!(used & 1, 0, "{code:02X}");
    }
}
