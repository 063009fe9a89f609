//! The BIOS of the machine, assembled from `asm/` at build time: what a PC runs from its reset vector on.
//!
//! It is guest code without host traps: it finds the machine by its ports alone, so it also runs under
//! `qemu-system-x86_64 -bios`, which its tests use. docs/firmware.md lists its services.

/// 128 KiB that end at 4 GiB, and at 1 MiB until the guest decides otherwise. Entered at F000:FFF0.
pub const BIOS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bios.bin"));

/// The VGA BIOS alone, an option ROM; [`BIOS`] contains it and copies it to C0000h.
pub const VGA_BIOS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vga.bin"));

#[cfg(test)]
mod tests {
    use super::*;

    /// What is at offset `at` of segment F000h.
    fn at(offset: usize) -> &'static [u8] {
        &BIOS[0x1_0000 + offset..]
    }

    #[test]
    fn the_image_is_128_kib_and_begins_with_a_far_jump_to_the_post_entry() {
        assert_eq!(BIOS.len(), 128 << 10);
        assert_eq!(&at(0xFFF0)[..5], [0xEA, 0x5B, 0xE0, 0x00, 0xF0]);
        assert_eq!(at(0xFFFE)[0], 0xFC, "the model byte of an AT");
        assert_eq!(at(0xFFF5)[2], b'/', "a date");
    }

    #[test]
    fn the_entry_points_of_the_ibm_bios_are_where_programs_jump_to() {
        for offset in [
            0xE05B, 0xE2C3, 0xE3FE, 0xE6F2, 0xE739, 0xE82E, 0xE987, 0xEC59, 0xEF57, 0xEFD2, 0xF065, 0xF841,
            0xF84D, 0xF859, 0xFE6E, 0xFEA5, 0xFF54,
        ] {
            let code = at(offset)[0];
            assert!(code == 0xE9 || code == 0xEB, "{offset:#x}: {code:#x} is no jump");
        }
        assert_eq!(at(0xFF53)[0], 0xCF, "an IRET");
        assert_eq!(at(0xE729)[..4], [0x17, 0x04, 0x00, 0x03], "baud rate divisors");
        assert_eq!(at(0xEFC7)[3..5], [2, 18], "diskette parameters");
    }

    #[test]
    fn the_vga_bios_is_an_option_rom_of_its_length_that_adds_up_to_zero() {
        assert_eq!(VGA_BIOS[..2], [0x55, 0xAA]);
        assert_eq!(usize::from(VGA_BIOS[2]) * 512, VGA_BIOS.len());
        assert_eq!(VGA_BIOS.iter().fold(0_u8, |sum, &b| sum.wrapping_add(b)), 0);
        assert!(BIOS.windows(VGA_BIOS.len()).any(|part| part == VGA_BIOS));
    }

    #[test]
    fn letters_of_eight_lines_are_told_apart() {
        let glyph = |code: usize| &at(0xFA6E)[code * 8..][..8];
        assert_eq!(glyph(b' '.into()), [0; 8]);
        for a in 0x21..0x7F {
            for b in a + 1..0x7F {
                assert_ne!(glyph(a), glyph(b), "{a:#x} and {b:#x}");
            }
        }
    }
}
