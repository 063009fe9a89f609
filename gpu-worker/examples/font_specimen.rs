//! Writes a specimen sheet of the text font as a PNG, for the eye: `font_specimen OUT.png`.

use quintet_protocol::font::{CP437_8X16, HEIGHT, WIDTH};

const SCALE: usize = 2;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "font.png".to_owned());
    let mut lines: Vec<Vec<u8>> = (0..8).map(|row| (row * 32..=row * 32 + 31).collect()).collect();
    for text in [
        "",
        "The quick brown fox jumps over the lazy dog. 0123456789",
        "SPHINX OF BLACK QUARTZ, JUDGE MY VOW! (a[i] != {b}) <= ~x^2;",
        "root@quintet:~# ls -l /dev/tty0 | grep 'crw--w----' && echo \"$?\"",
        "[    0.000000] Linux version 6.1.0-18-amd64 (gcc-12) @ 100%",
    ] {
        lines.push(text.bytes().collect());
    }
    for row in [
        &[
            0xC9, 0xCD, 0xCD, 0xD1, 0xCD, 0xCB, 0xCD, 0xBB, 0x20, 0xDA, 0xC4, 0xC2, 0xC4, 0xD2, 0xC4, 0xBF,
            0x20, 0xB0, 0xB0, 0xB1, 0xB1, 0xB2, 0xB2, 0xDB, 0xDB,
        ][..],
        &[
            0xBA, 0x20, 0x20, 0xB3, 0x20, 0xBA, 0x20, 0xBA, 0x20, 0xB3, 0x20, 0xB3, 0x20, 0xBA, 0x20, 0xB3,
            0x20, 0xB0, 0xB0, 0xB1, 0xB1, 0xB2, 0xB2, 0xDB, 0xDB,
        ],
        &[
            0xC7, 0xC4, 0xC4, 0xC5, 0xC4, 0xD7, 0xC4, 0xB6, 0x20, 0xC6, 0xCD, 0xD8, 0xCD, 0xCE, 0xCD, 0xB5,
            0x20, 0xDC, 0xDF, 0xDD, 0xDE, 0xD5, 0xCD, 0xD1, 0xB8,
        ],
        &[
            0xCC, 0xCD, 0xCD, 0xD8, 0xCD, 0xCE, 0xCD, 0xB9, 0x20, 0xC3, 0xC4, 0xC5, 0xC4, 0xD7, 0xC4, 0xB4,
            0x20, 0xD6, 0xC4, 0xD2, 0xB7, 0xB3, 0x20, 0xB3, 0xB3,
        ],
        &[
            0xC8, 0xCD, 0xCD, 0xCF, 0xCD, 0xCA, 0xCD, 0xBC, 0x20, 0xC0, 0xC4, 0xC1, 0xC4, 0xD0, 0xC4, 0xD9,
            0x20, 0xD3, 0xC4, 0xD0, 0xBD, 0xD4, 0xCD, 0xCF, 0xBE,
        ],
    ] {
        lines.push(row.to_vec());
    }
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let (width, height) = (columns * (WIDTH + 1) * SCALE, lines.len() * HEIGHT * SCALE);
    let mut grey = vec![0x18; width * height];
    for (row, line) in lines.iter().enumerate() {
        for (column, &code) in line.iter().enumerate() {
            for y in 0..HEIGHT * SCALE {
                for x in 0..(WIDTH + 1) * SCALE {
                    let bits = CP437_8X16[usize::from(code)][y / SCALE];
                    let dot = match x / SCALE {
                        8 if (0xC0..0xE0).contains(&code) => 7,
                        dot => dot,
                    };
                    if dot < WIDTH && bits & (0x80 >> dot) != 0 {
                        grey[(row * HEIGHT * SCALE + y) * width + column * (WIDTH + 1) * SCALE + x] = 0xE0;
                    }
                }
            }
        }
    }
    let file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    let mut encoder = png::Encoder::new(file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&grey)?;
    println!("{path}: {width}x{height}");
    Ok(())
}
