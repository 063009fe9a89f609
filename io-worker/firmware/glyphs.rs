//! The fonts of the VGA BIOS: 16 lines as the project has drawn them, 14 and 8 lines made from those.
//!
//! Drawing each size by hand was put off: what is legible can be had from one drawing, whose face keeps letters
//! within lines 1 to 14, stems two pixels wide and bars one line high.

#[path = "../../protocol/src/font.rs"]
#[allow(dead_code, reason = "its tests use the rest")]
mod font;

use font::{CP437_8X16, Glyph};

/// First and last box, shade and block characters, whose lines run through the whole cell.
const BOXES: core::ops::RangeInclusive<usize> = 0xB0..=0xDF;
/// Lines that the bands of a letter have: above small letters, small letters, below the line; with how many
/// of each a cell of eight lines gets.
const BANDS: [(core::ops::Range<usize>, usize); 3] = [(1..5, 2), (5..12, 5), (12..15, 1)];
/// Lines of a box character that a cell of eight lines keeps: both single and double lines meet their neighbours'.
const BOX_LINES: [usize; 8] = [1, 3, 5, 7, 8, 10, 12, 14];

/// 256 glyphs of 16 lines.
pub fn of_16_lines() -> Vec<u8> {
    CP437_8X16.concat()
}

/// 256 glyphs of 14 lines: without the first and the last, which only box characters use.
pub fn of_14_lines() -> Vec<u8> {
    CP437_8X16
        .iter()
        .flat_map(|glyph| glyph[1..15].to_vec())
        .collect()
}

/// 256 glyphs of 8 lines.
pub fn of_8_lines() -> Vec<u8> {
    CP437_8X16
        .iter()
        .enumerate()
        .flat_map(|(code, glyph)| {
            if BOXES.contains(&code) {
                BOX_LINES.map(|line| glyph[line]).to_vec()
            } else {
                BANDS
                    .iter()
                    .flat_map(|(lines, count)| squeeze(glyph, lines.clone(), *count))
                    .collect()
            }
        })
        .collect()
}

/// `count` of the lines: those that differ most from the one kept before, so that repeated stems go first.
fn squeeze(glyph: &Glyph, lines: core::ops::Range<usize>, count: usize) -> Vec<u8> {
    // Best sum of differences for each way to choose `n` lines ending with the line i.
    let all: Vec<u8> = lines.map(|line| glyph[line]).collect();
    let weight = |from: Option<u8>, to: u8| match from {
        Some(from) => 4 * (from ^ to).count_ones() + to.count_ones(),
        None => to.count_ones(),
    };
    let mut best: Vec<Vec<(u32, Vec<u8>)>> = vec![all.iter().map(|&l| (weight(None, l), vec![l])).collect()];
    for n in 1..count {
        let row = (0..all.len())
            .map(|i| {
                (0..i)
                    .filter(|&j| j + 1 >= n)
                    .map(|j| {
                        let (sum, kept) = &best[n - 1][j];
                        let mut kept = kept.clone();
                        let sum = if kept.len() < n {
                            0
                        } else {
                            sum + weight(kept.last().copied(), all[i])
                        };
                        kept.push(all[i]);
                        (sum, kept)
                    })
                    .max_by_key(|(sum, kept)| (kept.len(), *sum))
                    .unwrap_or((0, vec![]))
            })
            .collect();
        best.push(row);
    }
    best[count - 1]
        .iter()
        .filter(|(_, kept)| kept.len() == count)
        .max_by_key(|(sum, _)| *sum)
        .map(|(_, kept)| kept.clone())
        .expect("there are more lines than are kept")
}
