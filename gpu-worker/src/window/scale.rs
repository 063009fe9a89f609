//! Where the picture lies in the window, and its dots as the window's pixels.
//!
//! Everything here counts physical pixels: winit gives them, and a picture that the window system scales once more is blurred.
//! The scaling is done here for both presenters, so that they show the same; what has not changed is not scaled
//! again. Scaling by the GPU was rejected: `pixels` knows neither dots that are not square nor this choice of filters, and a
//! picture of the usual size costs less than its transfer.

use quintet_protocol::framebuffer::Rect;
use quintet_protocol::window::Look;

/// A dot of the picture: R, G, B, A.
pub type Dot = [u8; 4];

/// The size at which a picture has its right shape without losing a line, in pixels.
pub fn natural_size(picture: (u32, u32), legacy: bool, look: Look) -> (u32, u32) {
    let (width, height) = picture;
    if !legacy || !look.aspect {
        return picture;
    }
    // 640×400 and 720×400 become higher, 720×350 too; what is high already becomes wider.
    let high = (width * 3).div_ceil(4);
    if high >= height {
        (width, high)
    } else {
        ((height * 4).div_ceil(3), height)
    }
}

/// Where the picture lies in a window of `window` pixels: as large as fits, in the middle.
pub fn place(natural: (u32, u32), window: (u32, u32), look: Look) -> Rect {
    let (nw, nh) = (f64::from(natural.0.max(1)), f64::from(natural.1.max(1)));
    let mut scale = (f64::from(window.0) / nw).min(f64::from(window.1) / nh);
    if look.integer && scale >= 1.0 {
        scale = scale.floor();
    }
    let side = |n: f64, most: u32| ((n * scale).round() as u32).clamp(1, most.max(1));
    let (width, height) = (side(nw, window.0), side(nh, window.1));
    Rect {
        x: (window.0 - width.min(window.0)) / 2,
        y: (window.1 - height.min(window.1)) / 2,
        width,
        height,
    }
}

/// One axis: for each pixel the dot on its left or upper side, and how much of the next one is mixed in, in 1/256.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Axis {
    dots: u32,
    map: Vec<(u32, u16)>,
}

impl Axis {
    fn new(dots: u32, pixels: u32, smooth: bool) -> Self {
        let map = (0..u64::from(pixels))
            .map(|pixel| {
                if !smooth || dots == pixels {
                    return ((pixel * u64::from(dots) / u64::from(pixels)) as u32, 0);
                }
                // The middle of the pixel, in 1/256 of a dot from the middle of the first one.
                let middle =
                    ((2 * pixel + 1) * u64::from(dots) * 128 / u64::from(pixels)).saturating_sub(128);
                let dot = (middle / 256) as u32;
                if dot + 1 >= dots {
                    (dots - 1, 0)
                } else {
                    (dot, (middle % 256) as u16)
                }
            })
            .collect();
        Self { dots, map }
    }

    /// The pixels that depend on the dots `from..from + len`.
    fn pixels_of(&self, from: u32, len: u32) -> std::ops::Range<usize> {
        let first = self.map.partition_point(|&(dot, part)| {
            let last = if part == 0 { dot } else { dot + 1 };
            last < from
        });
        let end = self.map.partition_point(|&(dot, _)| dot < from + len);
        first..end.max(first)
    }
}

/// Draws a picture of one size into a window of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaler {
    window: (u32, u32),
    place: Rect,
    x: Axis,
    y: Axis,
    smooth: bool,
}

impl Scaler {
    /// For a picture of that size, shown at `place` of a window of `window` pixels. None of them may be zero.
    pub fn new(picture: (u32, u32), place: Rect, window: (u32, u32), smooth: bool) -> Self {
        Self {
            window,
            place,
            x: Axis::new(picture.0, place.width, smooth),
            y: Axis::new(picture.1, place.height, smooth),
            smooth,
        }
    }

    /// Where the picture lies.
    pub fn place(&self) -> Rect {
        self.place
    }

    /// The window's pixels that depend on a rectangle of the picture; `None` when there are none (a picture shown smaller
    /// than it is leaves lines out).
    pub fn pixels_of(&self, dots: Rect) -> Option<Rect> {
        let x = self.x.pixels_of(dots.x, dots.width);
        let y = self.y.pixels_of(dots.y, dots.height);
        (!x.is_empty() && !y.is_empty()).then(|| Rect {
            x: self.place.x + x.start as u32,
            y: self.place.y + y.start as u32,
            width: x.len() as u32,
            height: y.len() as u32,
        })
    }

    /// Draws what of the picture lies in `area` of the window into `into`, all pixels of the window line by line.
    /// `dots` are all dots of the picture line by line. Pixels around the picture are left alone.
    ///
    /// Panics when either has another size than was told.
    pub fn draw<P: Copy>(&self, dots: &[Dot], area: Rect, into: &mut [P], pixel: impl Fn(Dot) -> P + Copy) {
        assert_eq!(dots.len(), self.x.dots as usize * self.y.dots as usize);
        assert_eq!(into.len(), self.window.0 as usize * self.window.1 as usize);
        let clip = |at: u32, len: u32, start: u32, size: u32| {
            let first = at.clamp(start, start + size);
            let end = at.saturating_add(len).clamp(start, start + size);
            (first - start) as usize..(end - start) as usize
        };
        let columns = clip(area.x, area.width, self.place.x, self.place.width);
        let rows = clip(area.y, area.height, self.place.y, self.place.height);
        if columns.is_empty() {
            return;
        }
        let stride = self.window.0 as usize;
        let width = self.x.dots as usize;
        let line = |y: u32| &dots[y as usize * width..][..width];
        let mut last: Option<((u32, u16), usize)> = None;
        for row in rows {
            let (y, part) = self.y.map[row];
            let at = (self.place.y as usize + row) * stride + self.place.x as usize + columns.start;
            if let Some((_, from)) = last.filter(|(key, _)| *key == (y, part)) {
                into.copy_within(from..from + columns.len(), at);
            } else {
                let target = &mut into[at..at + columns.len()];
                let map = &self.x.map[columns.clone()];
                if self.smooth && (part != 0 || width != self.x.map.len()) {
                    let below = line((y + 1).min(self.y.dots - 1));
                    mixed(line(y), below, part, map, target, pixel);
                } else if width == self.x.map.len() {
                    let source = &line(y)[columns.clone()];
                    for (to, dot) in target.iter_mut().zip(source) {
                        *to = pixel(*dot);
                    }
                } else {
                    let source = line(y);
                    for (to, &(x, _)) in target.iter_mut().zip(map) {
                        *to = pixel(source[x as usize]);
                    }
                }
            }
            last = Some(((y, part), at));
        }
    }
}

fn mixed<P>(
    upper: &[Dot],
    lower: &[Dot],
    part: u16,
    map: &[(u32, u16)],
    into: &mut [P],
    pixel: impl Fn(Dot) -> P,
) {
    let mix = |a: u8, b: u8, part: u16| {
        ((u32::from(a) * (256 - u32::from(part)) + u32::from(b) * u32::from(part)) >> 8) as u8
    };
    for (to, &(x, right)) in into.iter_mut().zip(map) {
        let (x, next) = (x as usize, (x as usize + 1).min(upper.len() - 1));
        let channel = |c: usize| {
            let above = mix(upper[x][c], upper[next][c], right);
            let below = mix(lower[x][c], lower[next][c], right);
            mix(above, below, part)
        };
        *to = pixel([channel(0), channel(1), channel(2), 255]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rect = Rect {
        x: 0,
        y: 0,
        width: u32::MAX,
        height: u32::MAX,
    };

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    fn look(integer: bool) -> Look {
        Look {
            integer,
            ..Look::default()
        }
    }

    /// A picture in which every dot differs from its neighbours.
    fn picture(width: u32, height: u32) -> Vec<Dot> {
        (0..height)
            .flat_map(|y| (0..width).map(move |x| [x as u8, y as u8, (x * 7 + y * 13) as u8, 255]))
            .collect()
    }

    fn drawn(scaler: &Scaler, dots: &[Dot], window: (u32, u32)) -> Vec<Dot> {
        let mut pixels = vec![[9; 4]; (window.0 * window.1) as usize];
        scaler.draw(dots, ALL, &mut pixels, |dot| dot);
        pixels
    }

    #[test]
    fn old_modes_are_four_to_three_and_new_ones_as_they_are() {
        assert_eq!(natural_size((720, 400), true, look(false)), (720, 540));
        assert_eq!(natural_size((640, 400), true, look(false)), (640, 480));
        assert_eq!(natural_size((640, 480), true, look(false)), (640, 480));
        assert_eq!(natural_size((320, 480), true, look(false)), (640, 480));
        assert_eq!(natural_size((1280, 1024), false, look(false)), (1280, 1024));
        let square = Look {
            aspect: false,
            ..Look::default()
        };
        assert_eq!(natural_size((720, 400), true, square), (720, 400));
    }

    #[test]
    fn the_picture_fills_the_window_or_a_whole_multiple_of_it() {
        assert_eq!(place((640, 480), (640, 480), look(false)), rect(0, 0, 640, 480));
        // 1.25, 1.5 and 2.
        assert_eq!(place((640, 480), (800, 600), look(false)), rect(0, 0, 800, 600));
        assert_eq!(place((640, 480), (960, 720), look(false)), rect(0, 0, 960, 720));
        assert_eq!(place((640, 480), (1280, 960), look(true)), rect(0, 0, 1280, 960));
        assert_eq!(
            place((640, 480), (1300, 1000), look(true)),
            rect(10, 20, 1280, 960)
        );
        assert_eq!(
            place((640, 480), (1920, 1080), look(false)),
            rect(240, 0, 1440, 1080)
        );
        assert_eq!(place((640, 480), (320, 400), look(true)), rect(0, 80, 320, 240));
        assert_eq!(place((640, 480), (1, 1), look(true)), rect(0, 0, 1, 1));
    }

    #[test]
    fn one_to_one_and_multiples_show_every_dot_alike() {
        let dots = picture(5, 3);
        let same = Scaler::new((5, 3), rect(0, 0, 5, 3), (5, 3), false);
        assert_eq!(drawn(&same, &dots, (5, 3)), dots);
        let tripled = Scaler::new((5, 3), rect(1, 2, 15, 9), (17, 12), false);
        let pixels = drawn(&tripled, &dots, (17, 12));
        for (at, pixel) in pixels.iter().enumerate() {
            let (x, y) = (at % 17, at / 17);
            let inside = (1..16).contains(&x) && (2..11).contains(&y);
            let expected = if inside {
                dots[(y - 2) / 3 * 5 + (x - 1) / 3]
            } else {
                [9; 4]
            };
            assert_eq!(*pixel, expected, "{x} {y}");
        }
    }

    #[test]
    fn smooth_pictures_of_one_colour_stay_so_and_edges_are_mixed() {
        let plain = vec![[10, 200, 30, 255]; 12];
        let scaler = Scaler::new((4, 3), rect(0, 0, 10, 8), (10, 8), true);
        assert!(drawn(&scaler, &plain, (10, 8)).iter().all(|p| *p == plain[0]));
        let edge = [[0, 0, 0, 255], [200, 200, 200, 255]];
        let scaler = Scaler::new((2, 1), rect(0, 0, 8, 1), (8, 1), true);
        let red: Vec<u8> = drawn(&scaler, &edge, (8, 1)).iter().map(|p| p[0]).collect();
        assert_eq!(red, [0, 0, 25, 75, 125, 175, 200, 200]);
    }

    /// Whatever changes in the picture, redrawing the pixels that depend on it gives what redrawing all gives.
    #[test]
    fn redrawing_what_changed_is_enough() {
        let sizes = [(16, 9), (40, 30), (7, 50), (13, 13), (16, 10)];
        for smooth in [false, true] {
            for (width, height) in sizes {
                let window = (width + 3, height + 2);
                let scaler = Scaler::new((16, 10), rect(2, 1, width, height), window, smooth);
                for change in [
                    rect(0, 0, 1, 1),
                    rect(15, 9, 1, 1),
                    rect(3, 4, 5, 2),
                    rect(0, 0, 16, 10),
                ] {
                    let mut dots = picture(16, 10);
                    let mut pixels = drawn(&scaler, &dots, window);
                    for y in change.y..change.y + change.height {
                        for x in change.x..change.x + change.width {
                            dots[(y * 16 + x) as usize] = [255, 0, 255, 255];
                        }
                    }
                    if let Some(area) = scaler.pixels_of(change) {
                        scaler.draw(&dots, area, &mut pixels, |dot| dot);
                    }
                    assert!(
                        pixels == drawn(&scaler, &dots, window),
                        "{smooth} {width}x{height} {change:?}"
                    );
                }
            }
        }
    }
}
