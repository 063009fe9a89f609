//! The WebAssembly example `seed`, whose source names what fills it and does not contain it.

/// Bytes that fill it.
const FILL: usize = 1_500_000;

/// The module in the text format.
pub fn text() -> String {
    let mut fill = String::with_capacity(3 * FILL);
    for n in 0..FILL {
        let byte = n * 167 % 256;
        fill.push('\\');
        fill.extend([byte / 16, byte % 16].map(|digit| char::from(b"0123456789abcdef"[digit])));
    }
    include_str!("../wat/seed.wat").replace("FILL", &fill)
}
