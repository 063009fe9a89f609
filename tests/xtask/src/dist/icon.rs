//! The icon: five processes around one memory. Drawn here once, as SVG and as PNG.

use crate::sh::Failure;

/// Side of the drawing.
const SIDE: f64 = 64.0;
const GROUND: [u8; 3] = [0x1D, 0x26, 0x33];
/// Radius of the ground's corners.
const CORNER: f64 = 13.0;
/// Sizes of PNG files, in pixels: those that desktops ask for where they cannot draw SVG.
pub const SIZES: [u32; 4] = [32, 48, 128, 256];

/// A line with round ends; a dot, if it ends where it begins.
struct Stroke {
    from: (f64, f64),
    to: (f64, f64),
    width: f64,
    colour: [u8; 3],
}

fn strokes() -> Vec<Stroke> {
    let centre = (SIDE / 2.0, SIDE / 2.0);
    let colours = [
        [0xF2, 0xF4, 0xF8],
        [0xE8, 0x5D, 0x4A],
        [0x4F, 0xB2, 0x86],
        [0x4A, 0x90, 0xD9],
        [0xB9, 0x7B, 0xD6],
    ];
    let around: Vec<(f64, f64)> = (0..5)
        .map(|n| {
            let (sine, cosine) = (f64::from(n) * std::f64::consts::TAU / 5.0).sin_cos();
            (centre.0 + 20.0 * sine, centre.1 - 20.0 * cosine)
        })
        .collect();
    let spoke = |to: &(f64, f64)| Stroke {
        from: centre,
        to: *to,
        width: 3.0,
        colour: [0x6B, 0x7A, 0x90],
    };
    let dot = |at: (f64, f64), width, colour| Stroke {
        from: at,
        to: at,
        width,
        colour,
    };
    let mut all: Vec<Stroke> = around.iter().map(spoke).collect();
    all.push(dot(centre, 18.0, [0xF2, 0xC1, 0x4E]));
    all.extend(
        around
            .iter()
            .zip(colours)
            .map(|(at, colour)| dot(*at, 12.0, colour)),
    );
    all
}

/// As a scalable drawing.
pub fn svg() -> String {
    let colour = |[r, g, b]: [u8; 3]| format!("#{r:02x}{g:02x}{b:02x}");
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIDE} {SIDE}\">\n\
         <rect width=\"{SIDE}\" height=\"{SIDE}\" rx=\"{CORNER}\" fill=\"{}\"/>\n<g stroke-linecap=\"round\">\n",
        colour(GROUND)
    );
    for stroke in strokes() {
        let (from, to) = (stroke.from, stroke.to);
        text.push_str(&format!(
            "<path d=\"M{:.2} {:.2}L{:.2} {:.2}\" stroke=\"{}\" stroke-width=\"{}\"/>\n",
            from.0,
            from.1,
            to.0,
            to.1,
            colour(stroke.colour),
            stroke.width
        ));
    }
    text.push_str("</g>\n</svg>\n");
    text
}

/// How far a point is from the ground's edge, negative inside.
fn ground(x: f64, y: f64) -> f64 {
    let beyond = |v: f64| (v - SIDE / 2.0).abs() - (SIDE / 2.0 - CORNER);
    let (x, y) = (beyond(x), beyond(y));
    x.max(0.0).hypot(y.max(0.0)) + x.max(y).min(0.0) - CORNER
}

impl Stroke {
    /// How far a point is from the edge, negative inside.
    fn distance(&self, x: f64, y: f64) -> f64 {
        let along = (self.to.0 - self.from.0, self.to.1 - self.from.1);
        let square = along.0 * along.0 + along.1 * along.1;
        let (x, y) = (x - self.from.0, y - self.from.1);
        let part = if square > 0.0 {
            ((x * along.0 + y * along.1) / square).clamp(0.0, 1.0)
        } else {
            0.0
        };
        (x - part * along.0).hypot(y - part * along.1) - self.width / 2.0
    }
}

/// The pixels of a square of `size`, red, green, blue and opacity.
fn pixels(size: u32) -> Vec<u8> {
    let scale = SIDE / f64::from(size);
    let strokes = strokes();
    let covered = |distance: f64| (0.5 - distance / scale).clamp(0.0, 1.0);
    let mut out = Vec::with_capacity((size * size * 4) as usize);
    for y in 0..size {
        for x in 0..size {
            let (x, y) = ((f64::from(x) + 0.5) * scale, (f64::from(y) + 0.5) * scale);
            let mut colour = GROUND.map(f64::from);
            for stroke in &strokes {
                let part = covered(stroke.distance(x, y));
                for (have, want) in colour.iter_mut().zip(stroke.colour) {
                    *have += (f64::from(want) - *have) * part;
                }
            }
            out.extend(colour.map(|value| value.round() as u8));
            out.push((covered(ground(x, y)) * 255.0).round() as u8);
        }
    }
    out
}

/// As a PNG file of `size` by `size` pixels.
///
/// # Errors
/// None that a vector would cause.
pub fn png(size: u32) -> Result<Vec<u8>, Failure> {
    let fail = |e: ::png::EncodingError| Failure::new(format!("icon: {e}"));
    let mut out = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut out, size, size);
    encoder.set_color(::png::ColorType::Rgba);
    encoder.set_depth(::png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(fail)?;
    writer.write_image_data(&pixels(size)).map_err(fail)?;
    writer.finish().map_err(fail)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_memory_and_the_corners_are_clear() {
        for size in SIZES {
            let all = pixels(size);
            let at = |x: u32, y: u32| &all[((y * size + x) * 4) as usize..][..4];
            assert_eq!(at(size / 2, size / 2), [0xF2, 0xC1, 0x4E, 0xFF]);
            assert_eq!(at(0, 0)[3], 0);
            assert_eq!(at(size / 2, size * 12 / 64), [0xF2, 0xF4, 0xF8, 0xFF]);
        }
    }

    #[test]
    fn both_forms_have_all_dots() {
        assert_eq!(svg().matches("<path").count(), 11);
        assert!(png(32).expect("a picture").starts_with(b"\x89PNG"));
    }
}
