//! How diskettes are formatted: what a length says about cylinders, sides and sectors.

/// The format of a diskette with sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Tracks of a side.
    pub cylinders: u8,
    /// Sides.
    pub heads: u8,
    /// Sectors of a track.
    pub sectors: u8,
    /// What the CMOS calls the drive: 1 360 KB, 2 1.2 MB, 3 720 KB, 4 1.44 MB, 5 2.88 MB.
    pub drive: u8,
}

/// The formats that drives of a PC know.
pub const FORMATS: [Geometry; 8] = [
    format(40, 1, 8, 1),
    format(40, 1, 9, 1),
    format(40, 2, 8, 1),
    format(40, 2, 9, 1),
    format(80, 2, 9, 3),
    format(80, 2, 15, 2),
    format(80, 2, 18, 4),
    format(80, 2, 36, 5),
];

const fn format(cylinders: u8, heads: u8, sectors: u8, drive: u8) -> Geometry {
    Geometry {
        cylinders,
        heads,
        sectors,
        drive,
    }
}

impl Geometry {
    /// The format of an image of `len` bytes; `None` if no drive has such a one.
    pub fn of(len: u64) -> Option<Self> {
        FORMATS.into_iter().find(|g| g.bytes() == len)
    }

    /// Whether a drive of the kind `drive` reads it: one for high density reads what the one before it did.
    pub const fn fits(&self, drive: u8) -> bool {
        match drive {
            2 => self.drive <= 2,
            4 | 5 => 3 <= self.drive && self.drive <= drive,
            _ => self.drive == drive,
        }
    }

    /// Bytes of such a diskette.
    pub const fn bytes(&self) -> u64 {
        self.cylinders as u64 * self.heads as u64 * self.sectors as u64 * 512
    }

    /// Where a sector, counted from one, lies in the image.
    pub const fn offset(&self, cylinder: u8, head: u8, sector: u8) -> u64 {
        let track = cylinder as u64 * self.heads as u64 + head as u64;
        (track * self.sectors as u64 + sector as u64 - 1) * 512
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_is_of_one_format() {
        let kib: Vec<u64> = FORMATS.iter().map(|g| g.bytes() / 1024).collect();
        assert_eq!(kib, [160, 180, 320, 360, 720, 1200, 1440, 2880]);
        for format in FORMATS {
            assert_eq!(Geometry::of(format.bytes()), Some(format));
            assert_eq!(Geometry::of(format.bytes() + 512), None);
            let last = format.offset(format.cylinders - 1, format.heads - 1, format.sectors);
            assert_eq!(last + 512, format.bytes());
        }
        assert_eq!(Geometry::of(0), None);
    }

    #[test]
    fn a_drive_reads_what_is_of_its_size_and_not_denser() {
        let read = |drive| FORMATS.map(|format| format.fits(drive)).map(u8::from);
        assert_eq!(read(1), [1, 1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(read(2), [1, 1, 1, 1, 0, 1, 0, 0]);
        assert_eq!(read(3), [0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(read(4), [0, 0, 0, 0, 1, 0, 1, 0]);
        assert_eq!(read(5), [0, 0, 0, 0, 1, 0, 1, 1]);
        assert_eq!(read(0), [0; 8]);
    }
}
