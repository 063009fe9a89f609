//! What the monitor says of itself: EDID 1.4, 128 bytes, at the start of the card's register BAR.
//!
//! VESA E-EDID Standard, release A2. The preferred mode is 1280×800 at 60 Hz with reduced blanking (CVT-RB); whatever
//! else the VBE interface can do is allowed by the range limits.

/// Length of a block in bytes.
pub const LEN: usize = 128;

const fn block() -> [u8; LEN] {
    let head: [u8; 54] = [
        0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, // header
        0x45, 0xD4, 0x11, 0x11, 1, 0, 0, 0, // maker "QNT" in five bits a letter, product, serial number
        0, 36, 1, 4, // made in 2026; version 1.4
        0xA0, 34, 21, 120,
        0x06, // digital, 8 bits a colour; 34 by 21 cm; gamma 2.2; sRGB, preferred mode
        0xEE, 0x91, 0xA3, 0x54, 0x4C, 0x99, 0x26, 0x0F, 0x50, 0x54, // sRGB's primaries
        0x21, 0x08, 0x00, // 640×480, 800×600 and 1024×768 at 60 Hz
        // Standard timings at 60 Hz: 1280×720, 1280×800, 1280×1024, 1440×900, 1600×1200, 1920×1080, 1920×1200.
        0x81, 0xC0, 0x81, 0x00, 0x81, 0x80, 0x95, 0x00, 0xA9, 0x40, 0xD1, 0xC0, 0xD1, 0x00, 0x01, 0x01,
    ];
    let descriptors: [[u8; 18]; 4] = [
        // 71 MHz; 1280 + 160 dots, 800 + 23 lines; sync 48 and 32 dots, 3 and 6 lines; 340 by 212 mm.
        [
            0xBC, 0x1B, 0x00, 0xA0, 0x50, 0x20, 0x17, 0x30, 0x30, 0x20, 0x36, 0x00, 0x54, 0xD4, 0x10, 0, 0,
            0x1A,
        ],
        // 50 to 125 Hz, 30 to 160 kHz, up to 450 MHz.
        [
            0, 0, 0, 0xFD, 0, 50, 125, 30, 160, 45, 1, 0x0A, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20,
        ],
        *b"\0\0\0\xFC\0Quintet\n     ",
        [0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    let mut bytes = [0; LEN];
    let mut sum = 0u8;
    let mut i = 0;
    while i < LEN - 2 {
        bytes[i] = if i < 54 {
            head[i]
        } else {
            descriptors[(i - 54) / 18][(i - 54) % 18]
        };
        sum = sum.wrapping_add(bytes[i]);
        i += 1;
    }
    bytes[LEN - 1] = sum.wrapping_neg();
    bytes
}

/// The block; no extension follows.
pub const EDID: [u8; LEN] = block();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_one_and_prefers_1280_by_800() {
        assert_eq!(EDID[..8], [0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0]);
        assert_eq!(EDID.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let letter = |shift: u16| b'A' - 1 + (u16::from_be_bytes([EDID[8], EDID[9]]) >> shift & 31) as u8;
        assert_eq!([10, 5, 0].map(letter), *b"QNT");
        let twelve = |low: usize, high: usize, shift: u8| {
            u16::from(EDID[54 + low]) | u16::from(EDID[54 + high] >> shift & 15) << 8
        };
        let (width, blank_x) = (twelve(2, 4, 4), twelve(3, 4, 0));
        let (height, blank_y) = (twelve(5, 7, 4), twelve(6, 7, 0));
        assert_eq!((width, height), (1280, 800));
        let clock = u32::from(EDID[54]) | u32::from(EDID[55]) << 8;
        let dots = u32::from(width + blank_x) * u32::from(height + blank_y);
        assert_eq!((clock * 10_000 + dots / 2) / dots, 60);
    }
}
