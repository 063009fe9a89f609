//! The graphics controller's way to memory: read and write modes, set/reset, rotation, logic, latches.
//!
//! IBM VGA technical reference, "Graphics Controller". The four planes of an offset lie next to each other in
//! VRAM, so that latches, set/reset and masks are 32-bit words here with plane p in byte p, and one load
//! and one store serve all planes. A loop over planes and bits is the slow twin in the tests.

/// A byte repeated for each plane.
#[inline]
const fn spread(byte: u8) -> u32 {
    byte as u32 * 0x0101_0101
}

/// Bit p of a four-bit mask becomes byte p.
#[inline]
fn planes(mask: u8) -> u32 {
    const WORDS: [u32; 16] = {
        let mut words = [0; 16];
        let mut i = 0;
        while i < 64 {
            if (i / 4) & (1 << (i % 4)) != 0 {
                words[i / 4] |= 0xFF << (8 * (i % 4));
            }
            i += 1;
        }
        words
    };
    WORDS[usize::from(mask & 15)]
}

/// Registers 0 to 8 of the graphics controller.
#[derive(Clone, Copy, Debug)]
pub struct Graphics<'a>(pub &'a [u8; 9]);

impl Graphics<'_> {
    /// What a write of `data` leaves in the planes of `map_mask`, of which memory holds `old`.
    #[inline]
    pub fn write(self, data: u8, latch: u32, old: u32, map_mask: u8) -> u32 {
        let r = self.0;
        let rotated = data.rotate_right(u32::from(r[3] & 7));
        let (value, bit_mask) = match r[5] & 3 {
            0 => {
                let set_reset = planes(r[1] & 15);
                (spread(rotated) & !set_reset | planes(r[0] & 15) & set_reset, r[8])
            }
            1 => {
                let enabled = planes(map_mask);
                return old & !enabled | latch & enabled;
            }
            2 => (planes(data & 15), r[8]),
            _ => (planes(r[0] & 15), r[8] & rotated),
        };
        let value = match r[3] >> 3 & 3 {
            0 => value,
            1 => value & latch,
            2 => value | latch,
            _ => value ^ latch,
        };
        let bits = spread(bit_mask);
        let value = value & bits | latch & !bits;
        let enabled = planes(map_mask);
        old & !enabled | value & enabled
    }

    /// What the processor reads when `latch` has been loaded and `plane` is selected.
    #[inline]
    pub fn read(self, latch: u32, plane: u8) -> u8 {
        let r = self.0;
        if r[5] & 8 == 0 {
            return (latch >> (8 * (plane & 3))) as u8;
        }
        // Colour compare: a bit is set where every plane that counts has the colour's bit.
        let differs = (latch ^ planes(r[2] & 15)) & planes(r[7] & 15);
        let any = differs | differs >> 16;
        !((any | any >> 8) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The slow twin: plane by plane and bit by bit, in the words of the technical reference.
    fn write_bit_by_bit(r: &[u8; 9], data: u8, latch: u32, old: u32, map_mask: u8) -> u32 {
        let mut result = [0u8; 4];
        for (plane, byte_of_plane) in result.iter_mut().enumerate() {
            let latched = latch.to_le_bytes()[plane];
            let before = old.to_le_bytes()[plane];
            let mut byte = 0;
            for bit in 0..8u8 {
                let get = |b: u8| b >> bit & 1;
                let processor_bit = data >> ((bit + (r[3] & 7)) % 8) & 1;
                let set_reset = r[0] >> plane & 1;
                let (source, masked_in) = match r[5] & 3 {
                    0 => (
                        if r[1] >> plane & 1 == 1 {
                            set_reset
                        } else {
                            processor_bit
                        },
                        get(r[8]) == 1,
                    ),
                    1 => (get(latched), true),
                    2 => (data >> plane & 1, get(r[8]) == 1),
                    _ => (set_reset, get(r[8]) == 1 && processor_bit == 1),
                };
                let combined = match (r[5] & 3, r[3] >> 3 & 3) {
                    (1, _) | (_, 0) => source,
                    (_, 1) => source & get(latched),
                    (_, 2) => source | get(latched),
                    _ => source ^ get(latched),
                };
                let chosen = if masked_in { combined } else { get(latched) };
                byte |= chosen << bit;
            }
            *byte_of_plane = if map_mask >> plane & 1 == 1 { byte } else { before };
        }
        u32::from_le_bytes(result)
    }

    fn read_bit_by_bit(r: &[u8; 9], latch: u32, plane: u8) -> u8 {
        let planes = latch.to_le_bytes();
        if r[5] >> 3 & 1 == 0 {
            return planes[usize::from(plane)];
        }
        let mut byte = 0;
        for bit in 0..8 {
            let equal = (0..4).all(|p| r[7] >> p & 1 == 0 || planes[p] >> bit & 1 == r[2] >> p & 1);
            byte |= u8::from(equal) << bit;
        }
        byte
    }

    proptest! {
        #[test]
        fn words_and_bits_agree_on_every_write(
            r in any::<[u8; 9]>(), data: u8, latch: u32, old: u32, map_mask in 0u8..16,
        ) {
            prop_assert_eq!(
                Graphics(&r).write(data, latch, old, map_mask),
                write_bit_by_bit(&r, data, latch, old, map_mask)
            );
        }

        #[test]
        fn words_and_bits_agree_on_every_read(r in any::<[u8; 9]>(), latch: u32, plane in 0u8..4) {
            prop_assert_eq!(Graphics(&r).read(latch, plane), read_bit_by_bit(&r, latch, plane));
        }
    }

    #[test]
    fn set_reset_fills_a_plane_whatever_the_processor_writes() {
        let r = [0b0101, 0b1111, 0, 0, 0, 0, 0, 0, 0xFF];
        assert_eq!(Graphics(&r).write(0x00, 0, 0, 0xF), 0x00FF_00FF);
    }

    #[test]
    fn colour_compare_finds_the_pixels_of_one_colour() {
        let mut r = [0; 9];
        (r[2], r[5], r[7]) = (0b0011, 8, 0b1111);
        assert_eq!(Graphics(&r).read(0x0000_0FFF, 0), 0x0F);
    }
}
