//! VBE modes: pixels one after another in display memory.

use quintet_protocol::framebuffer::TileSet;
use quintet_protocol::scanout::PixelFormat;
use quintet_protocol::vram::{PAGE_BYTES, PAGES};

use super::{Colour, Damage, Geometry, Lut, Memory, Picture};

/// Pages that the picture lies in; those past the end of memory are left out.
pub(super) fn pages(geometry: &Geometry) -> core::ops::Range<usize> {
    let start = geometry.base as usize / PAGE_BYTES;
    let end = geometry.base as usize + geometry.height as usize * geometry.pitch as usize;
    start.min(PAGES)..end.div_ceil(PAGE_BYTES).min(PAGES)
}

/// Which lines the damage touches.
pub(super) fn damaged_lines(geometry: &Geometry, format: PixelFormat, damage: &Damage) -> Vec<bool> {
    let Damage::Pages(pages) = damage else {
        return vec![true; geometry.height as usize];
    };
    let mut lines = vec![false; geometry.height as usize];
    let base = geometry.base as usize;
    let pitch = (geometry.pitch as usize).max(format.bytes() as usize);
    for &page in pages {
        let (start, end) = (page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
        if end <= base {
            continue;
        }
        let first = start.saturating_sub(base) / pitch;
        let last = (end - 1 - base) / pitch;
        for line in lines.iter_mut().take(last + 1).skip(first) {
            *line = true;
        }
    }
    lines
}

/// Draws the lines that are set in `lines`, and marks what differs from before: a page may be taken twice.
pub(super) fn draw(
    picture: &mut Picture,
    geometry: &Geometry,
    format: PixelFormat,
    memory: &impl Memory,
    lut: &Lut,
    lines: &[bool],
    dirty: &mut TileSet,
) {
    let mut bytes = vec![0; geometry.width as usize * format.bytes() as usize];
    let mut line: Vec<Colour> = vec![[0, 0, 0, 255]; geometry.width as usize];
    for (y, _) in (0..geometry.height).zip(lines).filter(|&(_, &set)| set) {
        memory.read(
            geometry.base as usize + y as usize * geometry.pitch as usize,
            &mut bytes,
        );
        convert(format, &bytes, lut, &mut line);
        picture.put_line(y, &line, dirty);
    }
}

/// Converts a line of pixels; X bytes become alpha 255 (S3.87).
fn convert(format: PixelFormat, bytes: &[u8], lut: &Lut, line: &mut [Colour]) {
    let wide = |value: u16, bits: u32| -> u8 {
        let value = value & ((1 << bits) - 1);
        (value << (8 - bits) | value >> (2 * bits - 8)) as u8
    };
    let words = || {
        bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
    };
    match format {
        PixelFormat::Indexed8 => {
            for (to, &index) in line.iter_mut().zip(bytes) {
                *to = lut.dac[usize::from(index)];
            }
        }
        PixelFormat::Xrgb1555 => {
            for (to, word) in line.iter_mut().zip(words()) {
                *to = [wide(word >> 10, 5), wide(word >> 5, 5), wide(word, 5), 255];
            }
        }
        PixelFormat::Rgb565 => {
            for (to, word) in line.iter_mut().zip(words()) {
                *to = [wide(word >> 11, 5), wide(word >> 5, 6), wide(word, 5), 255];
            }
        }
        PixelFormat::Bgr8 => {
            for (to, from) in line.iter_mut().zip(bytes.chunks_exact(3)) {
                *to = [from[2], from[1], from[0], 255];
            }
        }
        PixelFormat::Bgrx8 => {
            // As words, which the compiler takes several of at a time.
            for (to, from) in line.iter_mut().zip(bytes.as_chunks().0) {
                let word = u32::from_le_bytes(*from);
                let turned = word & 0xFF00 | word >> 16 & 0xFF | (word & 0xFF) << 16;
                *to = (turned | 0xFF00_0000).to_le_bytes();
            }
        }
        PixelFormat::Rgba8 | PixelFormat::Planar4 => {}
    }
}
