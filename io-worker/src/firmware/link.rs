//! Tables whose addresses are open until somebody places them: ourselves for `--kernel`, firmware by QEMU's table loader.
//!
//! A table names others by address, and its checksum covers the address. So tables are built with offsets instead, beside
//! a list of where those stand and what is summed; [`Linked::place`] carries the list out, [`Linked::offer`] tells it to
//! firmware (QEMU, `hw/acpi/bios-linker-loader.c`, defines its commands).

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::{GuestRam, RamError};

use crate::fw_cfg::{FwCfg, ItemError};

/// One of the pieces that are placed apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Everything that is only read.
    Tables,
    /// What the operating system writes, too.
    Facs,
    /// The root pointer, in the BIOS segment.
    Rsdp,
}

impl Piece {
    const ALL: [Self; 3] = [Self::Tables, Self::Facs, Self::Rsdp];

    /// Name of its file in fw_cfg.
    const fn file(self) -> &'static str {
        match self {
            Self::Tables => "etc/acpi/tables",
            Self::Facs => "etc/acpi/facs",
            Self::Rsdp => "etc/acpi/rsdp",
        }
    }
}

/// An offset that is to become an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    within: Piece,
    at: u32,
    /// Four bytes or eight.
    size: u8,
    to: Piece,
}

/// A byte that is to make a sum zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    within: Piece,
    at: u32,
    start: u32,
    len: u32,
}

/// Tables with open addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    bytes: [Vec<u8>; 3],
    pointers: Vec<Pointer>,
    sums: Vec<Sum>,
}

/// Offset of the checksum in a table's header.
const HEADER_SUM: u32 = 9;

impl Linked {
    /// Appends `bytes` to a piece, on a multiple of 64 bytes, and answers their offset in it.
    pub fn add(&mut self, to: Piece, bytes: &[u8]) -> u32 {
        let piece = &mut self.bytes[to as usize];
        piece.resize(piece.len().next_multiple_of(64), 0);
        let at = piece.len() as u32;
        piece.extend(bytes);
        at
    }

    /// As [`Self::add`], for a table whose header has a checksum.
    pub fn add_table(&mut self, bytes: &[u8]) -> u32 {
        let at = self.add(Piece::Tables, bytes);
        self.sum(Piece::Tables, at + HEADER_SUM, at, bytes.len() as u32);
        at
    }

    /// Writes `offset` within `to` at `at`, in `size` bytes, as what is to become an address.
    pub fn point(&mut self, within: Piece, at: u32, size: u8, to: Piece, offset: u32) {
        let value = u64::from(offset).to_le_bytes();
        let (from, len) = (at as usize, usize::from(size));
        self.bytes[within as usize][from..from + len].copy_from_slice(&value[..len]);
        self.pointers.push(Pointer { within, at, size, to });
    }

    /// The byte at `at` makes the sum of `len` bytes from `start` zero. Sums are made in the order of these calls, after all
    /// pointers.
    pub fn sum(&mut self, within: Piece, at: u32, start: u32, len: u32) {
        self.sums.push(Sum {
            within,
            at,
            start,
            len,
        });
    }

    /// Length of a piece in bytes.
    pub fn len_of(&self, piece: Piece) -> u64 {
        self.bytes[piece as usize].len() as u64
    }

    /// Writes the pieces to guest RAM at the addresses that `place` gives them.
    ///
    /// # Errors
    /// [`RamError`].
    pub fn place(&self, ram: &GuestRam, place: impl Fn(Piece) -> u64) -> Result<(), RamError> {
        let mut bytes = self.bytes.clone();
        for p in &self.pointers {
            let field = &mut bytes[p.within as usize][p.at as usize..][..usize::from(p.size)];
            let mut value = [0; 8];
            value[..field.len()].copy_from_slice(field);
            let address = (u64::from_le_bytes(value) + place(p.to)).to_le_bytes();
            field.copy_from_slice(&address[..field.len()]);
        }
        for s in &self.sums {
            let piece = &mut bytes[s.within as usize];
            piece[s.at as usize] = 0;
            let summed = &piece[s.start as usize..][..s.len as usize];
            piece[s.at as usize] = summed.iter().fold(0_u8, |a, &b| a.wrapping_sub(b));
        }
        for piece in Piece::ALL {
            ram.write(GuestPhys(place(piece)), &bytes[piece as usize])?;
        }
        Ok(())
    }

    /// Offers the pieces to firmware with the commands that place them.
    ///
    /// # Errors
    /// [`ItemError`] when there is such a file already.
    pub fn offer(&self, fw_cfg: &mut FwCfg) -> Result<(), ItemError> {
        /// Anywhere below 4 GiB, and in the segment F000h.
        const HIGH: u8 = 1;
        const FSEG: u8 = 2;
        let mut script = Vec::new();
        let mut command = |number: u32, fields: &[&[u8]]| {
            let start = script.len();
            script.extend(number.to_le_bytes());
            fields.iter().for_each(|f| script.extend(*f));
            script.resize(start + 128, 0);
        };
        for piece in Piece::ALL {
            let (align, zone) = match piece {
                Piece::Rsdp => (16_u32, FSEG),
                Piece::Tables | Piece::Facs => (64, HIGH),
            };
            command(1, &[&name(piece), &align.to_le_bytes(), &[zone]]);
        }
        for p in &self.pointers {
            command(2, &[&name(p.within), &name(p.to), &p.at.to_le_bytes(), &[p.size]]);
        }
        for s in &self.sums {
            let words = [s.at, s.start, s.len].map(u32::to_le_bytes);
            command(3, &[&name(s.within), words.as_flattened()]);
        }
        for piece in Piece::ALL {
            let mut bytes = self.bytes[piece as usize].clone();
            // The loader subtracts what it sums up from what is there.
            for s in self.sums.iter().filter(|s| s.within == piece) {
                bytes[s.at as usize] = 0;
            }
            fw_cfg.add_file(piece.file(), bytes)?;
        }
        fw_cfg.add_file("etc/table-loader", script)
    }
}

/// The name of a piece's file in 56 bytes.
fn name(piece: Piece) -> [u8; 56] {
    let mut field = [0; 56];
    field[..piece.file().len()].copy_from_slice(piece.file().as_bytes());
    field
}
