//! Sets of dirty tiles, and rectangles made of them (S3.84).

use super::FrameLayout;

/// More rectangles than this become one that covers the frame (S3.84).
pub const MAX_RECTS: usize = 65_536;

/// A rectangle of pixels inside a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width, not zero.
    pub width: u32,
    /// Height, not zero.
    pub height: u32,
}

/// A bit per tile, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TileSet {
    words: Vec<u32>,
}

impl TileSet {
    /// No tile of a frame of this layout.
    pub fn none(layout: &FrameLayout) -> Self {
        Self {
            words: vec![0; layout.dirty_words as usize],
        }
    }

    /// Every tile of a frame of this layout.
    pub fn all(layout: &FrameLayout) -> Self {
        let mut set = Self::none(layout);
        for tile in 0..layout.tiles_x * layout.tiles_y {
            set.words[tile as usize / 32] |= 1 << (tile % 32);
        }
        set
    }

    /// The set in these words.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// The words.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Whether no tile is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Takes every tile out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds the tiles of another set for the same layout.
    pub fn add_all(&mut self, other: &Self) {
        for (word, &more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Adds the tiles that `rect` touches; what lies outside the frame is left out.
    pub fn add_rect(&mut self, layout: &FrameLayout, rect: Rect) {
        if layout.tile_size == 0 || rect.width == 0 || rect.height == 0 {
            return;
        }
        let tiles = |from: u32, len: u32, limit: u32| {
            let last = from.saturating_add(len - 1).min(limit - 1);
            from / layout.tile_size..=last / layout.tile_size
        };
        let columns = tiles(rect.x, rect.width, layout.width);
        for y in tiles(rect.y, rect.height, layout.height) {
            let row = y * layout.tiles_x;
            let (mut tile, end) = (
                (row + columns.start()) as usize,
                (row + columns.end() + 1) as usize,
            );
            // Those that share a word at once: a line of a picture has 60, and a picture a thousand lines.
            while tile < end {
                let (bit, n) = (tile % 32, (32 - tile % 32).min(end - tile));
                self.words[tile / 32] |= (u32::MAX >> (32 - n)) << bit;
                tile += n;
            }
        }
    }
}

/// The dirty rectangles of a frame: runs of tiles along a row are merged and cut at the frame's edges. A layout
/// without tiles, a full set, and one of more than `MAX_RECTS` runs give the whole frame. Missing words count as
/// clean, bits behind the last tile are ignored.
pub fn dirty_rects(layout: &FrameLayout, words: &[u32]) -> Vec<Rect> {
    let whole = Rect {
        x: 0,
        y: 0,
        width: layout.width,
        height: layout.height,
    };
    let side = layout.tile_size;
    if side == 0 {
        return vec![whole];
    }
    let is_dirty = |x: u32, y: u32| {
        let tile = (y * layout.tiles_x + x) as usize;
        words
            .get(tile / 32)
            .is_some_and(|word| word & 1 << (tile % 32) != 0)
    };
    let mut rects = Vec::new();
    let mut dirty = 0;
    for row in 0..layout.tiles_y {
        let mut column = 0;
        while column < layout.tiles_x {
            if !is_dirty(column, row) {
                column += 1;
                continue;
            }
            let start = column;
            while column < layout.tiles_x && is_dirty(column, row) {
                column += 1;
            }
            dirty += column - start;
            let (x, y) = (start * side, row * side);
            rects.push(Rect {
                x,
                y,
                width: ((column - start) * side).min(layout.width - x),
                height: side.min(layout.height - y),
            });
            if rects.len() > MAX_RECTS {
                return vec![whole];
            }
        }
    }
    if dirty == layout.tiles_x * layout.tiles_y {
        vec![whole]
    } else {
        rects
    }
}
