//! ROMs: firmware below 4 GiB and below 1 MiB, and the VGA's BIOS.
//!
//! Their bytes lie in the ROM window of the ioIpc segment, from which the vCPU reads them itself; the decode map says what
//! appears where. The window's first part stands for the last 16 MiB below 4 GiB, so that an address and its place differ by a
//! constant; what PCI functions have follows. A copy in guest RAM was rejected: below 1 MiB there is RAM behind the
//! ROM, which PAM registers show and which firmware copies the ROM to.

use quintet_protocol::decode_map::{ROM_SIZE, ROM_TOP};
use quintet_protocol::shm::{View, ViewMut};

use crate::storage::pflash::BLOCK;

/// First address past everything that firmware may take.
const TOP: u64 = 1 << 32;
/// First address past its copy below 1 MiB.
const LOW_TOP: u64 = 1 << 20;
/// Most of the firmware that appears below 1 MiB as well (82371SB, 2.2.5 BIOS decode).
const LOW_MOST: u64 = 128 << 10;
/// Least and most bytes of an image, and what its length is a multiple of.
pub const FIRMWARE_LEN: std::ops::RangeInclusive<u64> = FIRMWARE_UNIT..=ROM_TOP as u64;
/// What the length of a firmware image is a multiple of.
pub const FIRMWARE_UNIT: u64 = 64 << 10;
/// Most bytes of the VGA's BIOS.
pub const VGA_ROM_MOST: u64 = (ROM_SIZE - ROM_TOP) as u64;

/// Why ROMs cannot be put into a machine. The coordinator has checked lengths before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RomError {
    /// The firmware's length is not possible.
    #[error("Firmware of {0} bytes: a multiple of 64 KiB up to 16 MiB is needed")]
    Firmware(u64),
    /// Flash of an impossible length, or too much of it.
    #[error(
        "Flash of {0} bytes: multiples of 4 KiB are possible, 16 MiB with the firmware, and the first of at least 64 KiB without"
    )]
    Flash(u64),
    /// The VGA's BIOS is too long.
    #[error("A VGA BIOS of {0} bytes: at most {VGA_ROM_MOST} are possible")]
    Vga(u64),
}

/// The ROMs of a machine.
#[derive(Clone, Debug, Default)]
pub struct Roms {
    bytes: Option<View>,
    firmware: u64,
    /// Bytes that end at 4 GiB: firmware and flash.
    top: u64,
    vga: u32,
}

/// A range of addresses that shows a part of the ROM window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RomRange {
    /// First guest physical address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where its first byte lies in the ROM window.
    pub at: u32,
}

impl RomRange {
    fn ends_at(end: u64, len: u64) -> Option<Self> {
        (len != 0).then_some(Self {
            start: end - len,
            len,
            at: (ROM_TOP as u64 - len) as u32,
        })
    }
}

impl Roms {
    /// Puts images into the ROM window.
    ///
    /// # Errors
    /// [`RomError`] for lengths that are not possible; nothing has been written then.
    pub fn load(window: &ViewMut, firmware: Option<&[u8]>, vga: Option<&[u8]>) -> Result<Self, RomError> {
        let len = |image: Option<&[u8]>| image.map_or(0, |bytes| bytes.len() as u64);
        let (firmware_len, vga_len) = (len(firmware), len(vga));
        if firmware.is_some()
            && (!FIRMWARE_LEN.contains(&firmware_len) || !firmware_len.is_multiple_of(FIRMWARE_UNIT))
        {
            return Err(RomError::Firmware(firmware_len));
        }
        if vga_len > VGA_ROM_MOST {
            return Err(RomError::Vga(vga_len));
        }
        if let Some(bytes) = firmware {
            window.write_bytes(ROM_TOP - bytes.len(), bytes);
        }
        if let Some(bytes) = vga {
            window.write_bytes(ROM_TOP, bytes);
        }
        Ok(Self {
            bytes: Some(window.view().clone()),
            firmware: firmware_len,
            top: firmware_len,
            vga: vga_len as u32,
        })
    }

    /// The firmware where it ends at 4 GiB.
    pub fn firmware(&self) -> Option<RomRange> {
        RomRange::ends_at(TOP, self.firmware)
    }

    /// Makes room for a flash chip of `len` bytes below what there is, and says where.
    ///
    /// # Errors
    /// [`RomError::Flash`].
    pub fn add_flash(&mut self, len: u64) -> Result<RomRange, RomError> {
        let most = ROM_TOP as u64 - self.top;
        let least = if self.top == 0 { FIRMWARE_UNIT } else { BLOCK };
        if len < least || len > most || !len.is_multiple_of(BLOCK) {
            return Err(RomError::Flash(len));
        }
        let at = RomRange {
            start: TOP - self.top - len,
            len,
            at: (most - len) as u32,
        };
        self.top += len;
        Ok(at)
    }

    /// The end of the firmware where it ends at 1 MiB. PAM registers decide where reads reach it.
    pub fn low(&self) -> Option<RomRange> {
        RomRange::ends_at(LOW_TOP, self.top.min(LOW_MOST))
    }

    /// Bytes of the VGA's BIOS; zero without one.
    pub fn vga_len(&self) -> u32 {
        self.vga
    }

    /// Where in the ROM window the VGA's BIOS lies.
    pub const VGA_AT: u32 = ROM_TOP as u32;

    /// What a bus master reads of the firmware at `addr`; other bytes of `into` stay as they are.
    pub fn read(&self, addr: u64, into: &mut [u8]) {
        let Some(bytes) = &self.bytes else { return };
        let end = addr.saturating_add(into.len() as u64);
        for rom in [self.low(), RomRange::ends_at(TOP, self.top)]
            .into_iter()
            .flatten()
        {
            let (from, to) = (addr.max(rom.start), end.min(rom.start + rom.len));
            if from < to {
                let piece = &mut into[(from - addr) as usize..(to - addr) as usize];
                bytes.read_bytes(rom.at as usize + (from - rom.start) as usize, piece);
            }
        }
    }
}

/// Vendor and device of the PCI function that an option ROM is made for (PCI firmware specification 3.0, 5.1); `None`
/// without a PCI data structure.
pub fn made_for(rom: &[u8]) -> Option<(u16, u16)> {
    let word = |at: usize| Some(u16::from_le_bytes([*rom.get(at)?, *rom.get(at + 1)?]));
    if rom.get(..2)? != [0x55, 0xAA] {
        return None;
    }
    let data = usize::from(word(0x18)?);
    if rom.get(data..data + 4)? != b"PCIR" {
        return None;
    }
    Some((word(data + 4)?, word(data + 6)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quintet_protocol::shm::Map;

    use super::*;

    fn window() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(ROM_SIZE as u64).expect("map")))
    }

    fn image(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7 + i) as u8).collect()
    }

    #[test]
    fn firmware_ends_at_4_gib_and_its_last_128_kib_at_1_mib() {
        let image = image(256 << 10);
        let roms = Roms::load(&window(), Some(&image), None).expect("loaded");
        let (high, low) = (roms.firmware().expect("high"), roms.low().expect("low"));
        assert_eq!((high.start, high.len), (0xFFFC_0000, 256 << 10));
        assert_eq!((low.start, low.len), (0xE_0000, 128 << 10));
        assert_eq!(low.at - high.at, 128 << 10);
        let mut two = [0; 2];
        roms.read(0xFFFF_FFFE, &mut two);
        assert_eq!(two, image[(256 << 10) - 2..]);
        roms.read(0xE_0000, &mut two);
        assert_eq!(two, image[128 << 10..][..2]);
        let mut edge = [0xAA; 2];
        roms.read(0xD_FFFF, &mut edge);
        assert_eq!(edge, [0xAA, image[128 << 10]]);
    }

    #[test]
    fn a_short_image_leaves_e0000_alone() {
        let roms = Roms::load(&window(), Some(&image(64 << 10)), None).expect("loaded");
        assert_eq!(roms.low().map(|r| (r.start, r.len)), Some((0xF_0000, 64 << 10)));
        assert_eq!(Roms::default().low(), None);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let window = window();
        for len in [0, 1, 65535, 65537, 96 << 10, (16 << 20) + (64 << 10)] {
            let refused = Roms::load(&window, Some(&image(len)), None).map(|_| ());
            assert_eq!(refused, Err(RomError::Firmware(len as u64)));
        }
        Roms::load(&window, Some(&image(16 << 20)), Some(&image(4 << 20))).expect("the most there can be");
        let refused = Roms::load(&window, None, Some(&image((4 << 20) + 1))).map(|_| ());
        assert_eq!(refused, Err(RomError::Vga((4 << 20) + 1)));
    }

    #[test]
    fn flash_lies_below_the_firmware_or_in_its_place() {
        let place = |roms: &mut Roms, len| roms.add_flash(len).map(|r| (r.start, r.at));
        let mut roms = Roms::load(&window(), Some(&image(128 << 10)), None).expect("loaded");
        assert_eq!(place(&mut roms, 16 << 10), Ok((0xFFFD_C000, 0xFD_C000)));
        assert_eq!(place(&mut roms, 4 << 10), Ok((0xFFFD_B000, 0xFD_B000)));
        assert_eq!(place(&mut roms, 16 << 20), Err(RomError::Flash(16 << 20)));
        assert_eq!(place(&mut roms, 4097), Err(RomError::Flash(4097)));
        let mut alone = Roms::default();
        assert_eq!(place(&mut alone, 4 << 10), Err(RomError::Flash(4 << 10)));
        assert_eq!(place(&mut alone, 64 << 10), Ok((0xFFFF_0000, 0xFF_0000)));
        assert_eq!(alone.low().map(|r| (r.start, r.at)), Some((0xF_0000, 0xFF_0000)));
        assert_eq!(alone.firmware(), None);
    }

    #[test]
    fn an_option_rom_says_what_it_is_for() {
        let mut rom = vec![0; 1024];
        assert_eq!(made_for(&rom), None);
        rom[..2].copy_from_slice(&[0x55, 0xAA]);
        rom[0x18] = 0x40;
        rom[0x40..0x48].copy_from_slice(b"PCIR\x34\x12\x11\x11");
        assert_eq!(made_for(&rom), Some((0x1234, 0x1111)));
        assert_eq!(made_for(&rom[..0x46]), None, "cut off");
        rom[0x19] = 0xFF;
        assert_eq!(made_for(&rom), None, "points past its end");
    }
}
