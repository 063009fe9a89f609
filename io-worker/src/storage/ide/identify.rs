//! What a drive says of itself: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA/ATAPI-6, 8.15 and 8.16), in QEMU's words
//! where the standard leaves a choice, so that guests find the drives that they know.

use super::drive::{Drive, DriveKind};

/// Most sectors a block of READ and WRITE MULTIPLE.
pub(super) const MAX_MULTIPLE: u8 = 16;
/// Version of the "firmware".
const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

/// What never changes about a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    model: &'static str,
    serial: String,
    pub(super) cylinders: u16,
    pub(super) heads: u8,
    pub(super) sectors: u8,
}

impl Identity {
    /// Of a drive of `total` sectors.
    pub(super) fn new(kind: DriveKind, total: u64, serial: &str) -> Self {
        let (heads, sectors) = (16, 63);
        let cylinders = total / (u64::from(heads) * u64::from(sectors));
        Self {
            model: match kind {
                DriveKind::Disk => "QUINTET HARDDISK",
                DriveKind::Cdrom => "QUINTET DVD-ROM",
            },
            serial: serial.to_owned(),
            cylinders: cylinders.clamp(1, 16383) as u16,
            heads,
            sectors,
        }
    }
}

/// Text as drives have it: padded with spaces, the bytes of each word swapped.
fn text(words: &mut [u16], text: &str) {
    let mut bytes = text.bytes().map(|b| {
        if b.is_ascii_graphic() || b == b' ' {
            b
        } else {
            b'?'
        }
    });
    for word in words {
        let mut next = || u16::from(bytes.next().unwrap_or(b' '));
        *word = next() << 8 | next();
    }
}

/// Bit of the selected mode in words 62, 63 and 88, when it is of that kind.
fn selected(mode: u8, kind: u8) -> u16 {
    if mode >> 3 == kind {
        1 << (8 + (mode & 7))
    } else {
        0
    }
}

impl Drive {
    /// 512 bytes.
    pub(super) fn identify(&self) -> Vec<u8> {
        let mut w = [0_u16; 256];
        text(&mut w[10..20], &self.identity.serial);
        text(&mut w[23..27], FIRMWARE);
        text(&mut w[27..47], self.identity.model);
        match self.kind {
            DriveKind::Disk => self.disk_words(&mut w),
            DriveKind::Cdrom => {
                // CD-ROM, removable, DRQ within 3 ms, packets of 12 bytes.
                w[0] = 0x8580;
                w[49] = 1 << 9 | 1 << 8;
                w[71] = 30;
                w[72] = 30;
                w[82] = 1 << 4 | 1 << 9 | 1 << 14;
                w[85] = 1 << 4 | 1 << 9 | 1 << 14;
                w[83] = 1 << 14;
                w[87] = 1 << 14;
            }
        }
        // Words 64–70 and 88 mean something.
        w[53] |= 1 << 1 | 1 << 2;
        w[62] = 0x07 | selected(self.s.mode, 2);
        w[63] = 0x07 | selected(self.s.mode, 4);
        w[64] = 0x03;
        w[65..69].fill(120);
        // ATA/ATAPI-4 to -6.
        w[80] = 0x70;
        w[88] = 0x3F | selected(self.s.mode, 8);
        w[93] = 0x6001;
        let mut bytes: Vec<u8> = w.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes[510] = 0xA5;
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[511] = sum.wrapping_neg();
        bytes
    }

    fn disk_words(&self, w: &mut [u16; 256]) {
        let (id, s) = (&self.identity, &self.s);
        w[0] = 0x0040;
        w[1] = id.cylinders;
        w[3] = u16::from(id.heads);
        w[6] = u16::from(id.sectors);
        w[47] = 0x8000 | u16::from(MAX_MULTIPLE);
        w[48] = 1;
        w[49] = 1 << 11 | 1 << 9 | 1 << 8;
        w[50] = 1 << 14;
        // The translation in force.
        w[53] = 1;
        let track = u64::from(s.heads.max(1)) * u64::from(s.sectors.max(1));
        let cylinders = (self.total / track).min(65535);
        let capacity = (cylinders * track).min(0xFFFF_FFFF) as u32;
        (w[54], w[55], w[56]) = (cylinders as u16, u16::from(s.heads), u16::from(s.sectors));
        (w[57], w[58]) = (capacity as u16, (capacity >> 16) as u16);
        if s.multiple != 0 {
            w[59] = 0x100 | u16::from(s.multiple);
        }
        let narrow = self.total.min(0xFFF_FFFF) as u32;
        (w[60], w[61]) = (narrow as u16, (narrow >> 16) as u16);
        // Power management, write cache, look-ahead; then 48 bits, FLUSH CACHE and FLUSH CACHE EXT.
        w[82] = 1 << 3 | 1 << 5 | 1 << 6;
        w[83] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10;
        w[84] = 1 << 14;
        w[85] = 1 << 3 | u16::from(s.write_cache) << 5 | u16::from(s.look_ahead) << 6;
        w[86] = w[83] & !(1 << 14);
        w[87] = 1 << 14;
        for (i, word) in w[100..104].iter_mut().enumerate() {
            *word = (self.total >> (16 * i)) as u16;
        }
    }
}
