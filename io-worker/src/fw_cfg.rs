//! QEMU's firmware configuration device (its `docs/specs/fw_cfg.rst`): named items that firmware and guests
//! read by port or by DMA.
//!
//! Ports 510h (selector, 16 bits), 511h (data), 514h–51Bh (DMA address, big-endian; its low half starts the
//! transfer). Items are given at construction and cannot be written.
//!
//! A transfer is done while the write that starts it is served, up to [`STEP`] bytes; the rest of a longer
//! one follows by itself, so that a guest's absurd length cannot hold the process up. The control word that
//! tells the guest of the end is written by [`Device::completed`], after the commit: a successor repeats a
//! transfer that was not committed, and finds its descriptor as the guest wrote it.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::time::VmTime;
use serde::{Deserialize, Serialize};

use crate::bus::regmap::{Attr, RegMap, Registers, reg};
use crate::bus::{Access, Backplane, Device, Region, RegionKind, Size, StateError, load_state, save_state};

/// Port of the selector; region 0 starts here.
pub const FW_CFG_PORT: u64 = 0x510;
/// Port of the DMA address; region 1 starts here.
pub const FW_CFG_DMA_PORT: u64 = 0x514;
/// Most bytes that one call transfers.
pub const STEP: u32 = 4 << 20;

/// Selector of the signature.
pub const KEY_SIGNATURE: u16 = 0x00;
/// Selector of the feature bits.
pub const KEY_ID: u16 = 0x01;
/// Selector of the RAM size below 4 GiB and above, in bytes, as a u64.
pub const KEY_RAM_SIZE: u16 = 0x03;
/// Selector of the number of CPUs at start, as a u16.
pub const KEY_CPUS: u16 = 0x05;
/// Selector of the largest number of CPUs, as a u16.
pub const KEY_MAX_CPUS: u16 = 0x0F;
/// Selector of the file directory.
pub const KEY_DIRECTORY: u16 = 0x19;
/// Selector of the first file.
pub const KEY_FIRST_FILE: u16 = 0x20;

const NAME_LEN: usize = 56;
/// Port access and DMA.
const FEATURES: u32 = 3;
/// What the DMA address register reads as.
const DMA_SIGNATURE: u64 = u64::from_be_bytes(*b"QEMU CFG");

mod control {
    pub(super) const ERROR: u32 = 1;
    pub(super) const READ: u32 = 2;
    pub(super) const SKIP: u32 = 4;
    pub(super) const SELECT: u32 = 8;
    pub(super) const WRITE: u32 = 16;
}

#[derive(Clone, Copy, Debug)]
enum Reg {
    DmaHigh,
    DmaLow,
}

/// Region 1. The transfer is over, or under way, before the next instruction.
const DMA_MAP: RegMap<Reg> = RegMap::new(
    8,
    &[
        reg(0, 4, Reg::DmaHigh, Attr::PURE),
        reg(4, 4, Reg::DmaLow, Attr::SYNC.union(Attr::PURE)),
    ],
);

#[derive(Clone, Debug)]
struct Item {
    key: u16,
    name: Option<String>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Transfer {
    /// Where the descriptor lies.
    descriptor: u64,
    address: u64,
    left: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    selector: u16,
    offset: u32,
    dma_high: u32,
    transfer: Option<Transfer>,
    /// Control word to be written after the commit: where, and what.
    completion: Option<(u64, u32)>,
    /// When the transfer goes on.
    next: Option<VmTime>,
}

/// Why an item was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The directory has 55 bytes for a name.
    #[error("Name {0:?} of a fw_cfg file is empty, too long or not ASCII")]
    Name(String),
    /// There is such an item.
    #[error("A fw_cfg item {0} is there already")]
    Taken(String),
    /// Lengths are 32 bits, keys are 14.
    #[error("The fw_cfg store is full")]
    Full,
}

/// The device with its store.
#[derive(Debug)]
pub struct FwCfg {
    items: Vec<Item>,
    state: State,
}

impl Default for FwCfg {
    fn default() -> Self {
        Self::new()
    }
}

impl FwCfg {
    /// A store with the signature, the feature bits and an empty directory.
    pub fn new() -> Self {
        let mut this = Self {
            items: Vec::new(),
            state: State::default(),
        };
        this.put(KEY_SIGNATURE, b"QEMU".to_vec());
        this.put(KEY_ID, FEATURES.to_le_bytes().to_vec());
        this.put(KEY_DIRECTORY, 0_u32.to_be_bytes().to_vec());
        this
    }

    fn put(&mut self, key: u16, bytes: Vec<u8>) {
        self.items.retain(|i| i.key != key);
        self.items.push(Item {
            key,
            name: None,
            bytes,
        });
    }

    /// Adds an item under a selector below [`KEY_FIRST_FILE`].
    ///
    /// # Errors
    /// [`ItemError`].
    pub fn add_item(&mut self, key: u16, bytes: Vec<u8>) -> Result<(), ItemError> {
        if key >= KEY_FIRST_FILE || self.find(key).is_some() {
            return Err(ItemError::Taken(format!("{key:#x}")));
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(ItemError::Full);
        }
        self.put(key, bytes);
        Ok(())
    }

    /// Adds a file such as `etc/e820`. The order of adding gives the selectors.
    ///
    /// # Errors
    /// [`ItemError`].
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), ItemError> {
        if name.is_empty() || name.len() >= NAME_LEN || !name.is_ascii() {
            return Err(ItemError::Name(name.to_owned()));
        }
        if self.items.iter().any(|i| i.name.as_deref() == Some(name)) {
            return Err(ItemError::Taken(name.to_owned()));
        }
        let key = self.items.iter().filter(|i| i.name.is_some()).count() + usize::from(KEY_FIRST_FILE);
        if key >= 0x4000 || u32::try_from(bytes.len()).is_err() {
            return Err(ItemError::Full);
        }
        self.items.push(Item {
            key: key as u16,
            name: Some(name.to_owned()),
            bytes,
        });
        let files: Vec<&Item> = self.items.iter().filter(|i| i.name.is_some()).collect();
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for file in files {
            directory.extend((file.bytes.len() as u32).to_be_bytes());
            directory.extend(file.key.to_be_bytes());
            directory.extend([0, 0]);
            let mut name = [0; NAME_LEN];
            let text = file.name.as_deref().unwrap_or_default().as_bytes();
            name[..text.len()].copy_from_slice(text);
            directory.extend(name);
        }
        self.put(KEY_DIRECTORY, directory);
        Ok(())
    }

    /// The bytes of a file.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let item = self.items.iter().find(|i| i.name.as_deref() == Some(name));
        item.map(|i| i.bytes.as_slice())
    }

    fn find(&self, key: u16) -> Option<&Item> {
        // Bit 15 tells the architecture's own items, bit 14 asks for the writing that old versions had.
        self.items.iter().find(|i| i.key == key & 0xBFFF)
    }

    fn select(&mut self, key: u16) {
        self.state.selector = key;
        self.state.offset = 0;
    }

    fn next_byte(&mut self) -> u8 {
        let offset = self.state.offset as usize;
        let byte = self
            .find(self.state.selector)
            .and_then(|i| i.bytes.get(offset))
            .copied();
        if byte.is_some() {
            self.state.offset += 1;
        }
        byte.unwrap_or(0)
    }

    fn begin(&mut self, bp: &mut Backplane<'_>, low: u32) {
        let at = u64::from(std::mem::take(&mut self.state.dma_high)) << 32 | u64::from(low);
        let mut descriptor = [0; 16];
        bp.dma.read(GuestPhys(at), &mut descriptor);
        let word = |i: usize| u32::from_be_bytes([0, 1, 2, 3].map(|b| descriptor[i + b]));
        let (what, len) = (word(0), word(4));
        let address = u64::from(word(8)) << 32 | u64::from(word(12));
        if what & control::SELECT != 0 {
            self.select((what >> 16) as u16);
        }
        self.state.transfer = None;
        self.state.next = None;
        if what & control::READ != 0 {
            self.state.transfer = Some(Transfer {
                descriptor: at,
                address,
                left: len,
            });
            self.step(bp);
            return;
        }
        let mut result = 0;
        if what & control::WRITE != 0 {
            result = control::ERROR;
        } else if what & control::SKIP != 0 {
            let end = self.find(self.state.selector).map_or(0, |i| i.bytes.len() as u32);
            self.state.offset = self
                .state
                .offset
                .saturating_add(len)
                .min(end.max(self.state.offset));
        }
        self.state.completion = Some((at, result));
    }

    /// Transfers up to [`STEP`] bytes.
    fn step(&mut self, bp: &mut Backplane<'_>) {
        let Some(mut t) = self.state.transfer.take() else {
            return;
        };
        let n = t.left.min(STEP);
        let from = self.state.offset as usize;
        let have = self
            .find(self.state.selector)
            .map_or(&[][..], |i| i.bytes.get(from..).unwrap_or(&[]));
        let copied = have.len().min(n as usize);
        bp.dma.write(GuestPhys(t.address), &have[..copied]);
        if let Some(rest) = GuestPhys(t.address).checked_add(copied as u64) {
            bp.dma.zero(rest, u64::from(n) - copied as u64);
        }
        self.state.offset += copied as u32;
        t.left -= n;
        t.address = t.address.wrapping_add(u64::from(n));
        if t.left > 0 {
            self.state.transfer = Some(t);
            self.state.next = Some(bp.now);
        } else {
            self.state.next = None;
            self.state.completion = Some((t.descriptor, 0));
        }
    }
}

impl Registers<Reg> for FwCfg {
    fn read_reg(&mut self, _bp: &mut Backplane<'_>, reg: Reg) -> u64 {
        // Big-endian registers on a little-endian bus.
        let half = match reg {
            Reg::DmaHigh => (DMA_SIGNATURE >> 32) as u32,
            Reg::DmaLow => DMA_SIGNATURE as u32,
        };
        u64::from(half.swap_bytes())
    }

    fn write_reg(&mut self, bp: &mut Backplane<'_>, reg: Reg, value: u64) {
        let value = (value as u32).swap_bytes();
        match reg {
            Reg::DmaHigh => self.state.dma_high = value,
            Reg::DmaLow => self.begin(bp, value),
        }
    }
}

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            Region {
                kind: RegionKind::Port,
                len: 2,
                runs: vec![(0, 2, Attr::empty())],
            },
            DMA_MAP.region(RegionKind::Port),
        ]
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        match (at.region, at.offset, at.size) {
            (0, 1, Size::BYTE) => u64::from(self.next_byte()),
            (0, ..) => at.size.ones(),
            _ => DMA_MAP.read(self, bp, at),
        }
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        match (at.region, at.offset, at.size) {
            (0, 0, Size::WORD) => self.select(value as u16),
            // The selector and the data register overlap; nothing else is one.
            (0, ..) => {}
            _ => DMA_MAP.write(self, bp, at, value),
        }
    }

    fn reset(&mut self, _bp: &mut Backplane<'_>) {
        self.state = State::default();
    }

    fn next_deadline(&self) -> Option<VmTime> {
        self.state.next
    }

    fn advance(&mut self, bp: &mut Backplane<'_>) -> bool {
        if self.state.next.is_none_or(|t| t > bp.now) {
            return false;
        }
        self.step(bp);
        true
    }

    fn completed(&mut self, bp: &mut Backplane<'_>) -> bool {
        let Some((at, result)) = self.state.completion.take() else {
            return false;
        };
        bp.dma.write(GuestPhys(at), &result.to_be_bytes());
        true
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        self.state = load_state(self.name(), self.state_version(), version, bytes)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "fw_cfg_tests.rs"]
mod tests;
