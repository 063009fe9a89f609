//! The memory of `pc-testdev`: 64 KiB at FF000000h that are not RAM, in four banks, so that the state of each
//! fits a commit.

use std::collections::BTreeMap;

use crate::bus::regmap::Attr;
use crate::bus::{Access, Backplane, Device, Region, RegionKind, StateError, load_state, save_state};

/// Address of the first bank.
pub const MEMORY: u64 = 0xFF00_0000;
/// Length of a bank in bytes.
pub const BANK: u64 = 0x4000;
/// Number of banks.
pub const BANKS: usize = 4;
const NAMES: [&str; BANKS] = [
    "pc-testdev-memory0",
    "pc-testdev-memory1",
    "pc-testdev-memory2",
    "pc-testdev-memory3",
];
const PIECE: u64 = 256;

/// A bank.
#[derive(Debug)]
pub struct TestMemory {
    name: &'static str,
    /// Pieces that were ever written, by number.
    pieces: BTreeMap<u8, Vec<u8>>,
}

impl TestMemory {
    /// Bank `n`, below [`BANKS`], all zero.
    pub fn new(n: usize) -> Self {
        Self {
            name: NAMES[n],
            pieces: BTreeMap::new(),
        }
    }
}

impl Device for TestMemory {
    fn name(&self) -> &'static str {
        self.name
    }

    fn regions(&self) -> Vec<Region> {
        vec![Region {
            kind: RegionKind::Memory,
            len: BANK,
            runs: vec![(0, BANK, Attr::PURE)],
        }]
    }

    fn read(&mut self, _bp: &mut Backplane<'_>, at: Access) -> u64 {
        (0..u64::from(at.size.bytes())).fold(0, |value, i| {
            let at = at.offset + i;
            let byte = self
                .pieces
                .get(&((at / PIECE) as u8))
                .map_or(0, |piece| piece[(at % PIECE) as usize]);
            value | u64::from(byte) << (8 * i)
        })
    }

    fn write(&mut self, _bp: &mut Backplane<'_>, at: Access, value: u64) {
        for i in 0..u64::from(at.size.bytes()) {
            let at = at.offset + i;
            let piece = self
                .pieces
                .entry((at / PIECE) as u8)
                .or_insert_with(|| vec![0; PIECE as usize]);
            piece[(at % PIECE) as usize] = (value >> (8 * i)) as u8;
        }
    }

    fn reset(&mut self, _bp: &mut Backplane<'_>) {
        self.pieces.clear();
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.pieces, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let pieces: BTreeMap<u8, Vec<u8>> = load_state(self.name, self.state_version(), version, bytes)?;
        if pieces
            .iter()
            .any(|(n, piece)| u64::from(*n) >= BANK / PIECE || piece.len() as u64 != PIECE)
        {
            let why = "a piece of memory has a wrong place or length".to_owned();
            return Err(StateError::Damaged {
                device: self.name,
                len: bytes.len(),
                why,
            });
        }
        self.pieces = pieces;
        Ok(())
    }
}
