//! The decode map in the form that accesses look it up in.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::decode_map::{
    Attributes, Claim, DEVICE_POWER, DEVICE_VGA_REGISTERS, DEVICE_VRAM, DecodeMap,
};
use quintet_protocol::ram::PCI_MMIO_BASE;

use super::shadow::LowMap;
use crate::mmu::PageKind;

/// Number of ports.
const PORTS: usize = 1 << 16;
/// No claim.
const NONE: u16 = u16::MAX;

/// A window of the VGA's PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VgaWindow {
    /// The linear frame buffer.
    Memory(u64),
    /// The register window.
    Registers(u64),
}

/// Tables made from one version of the decode map.
#[derive(Debug)]
pub struct Tables {
    map: DecodeMap,
    /// Index of the claim on each port, so that an access costs one load.
    ports: Box<[u16; PORTS]>,
    low: LowMap,
    /// Pages of the linear frame buffer, where no RAM can lie.
    vram: core::ops::Range<u64>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            map: DecodeMap {
                a20: true,
                ..DecodeMap::default()
            },
            ports: Box::new([NONE; PORTS]),
            low: LowMap::default(),
            vram: 0..0,
        }
    }
}

impl Tables {
    /// Takes over a map that has been validated.
    pub(super) fn replace(&mut self, map: DecodeMap) {
        self.ports.fill(NONE);
        for (n, claim) in map.ports.iter().enumerate() {
            let range = claim.start as usize..(claim.start + claim.len) as usize;
            self.ports[range].fill(n as u16);
        }
        self.low = LowMap::new(&map.shadows);
        let vram = map.memory.iter().find(|c| c.device == DEVICE_VRAM);
        self.vram = vram
            .filter(|c| c.start >= PCI_MMIO_BASE && c.start % 4096 == 0)
            .map_or(0..0, |c| c.start / 4096..(c.start + c.len) / 4096);
        self.map = map;
    }

    /// The claim on any of `size` ports from `port`.
    pub(super) fn port(&self, port: u16, size: u8) -> Option<&Claim> {
        (0..u16::from(size)).find_map(|i| {
            let n = self.ports[usize::from(port.wrapping_add(i))];
            self.map.ports.get(usize::from(n))
        })
    }

    /// The claim on any of `size` bytes from `addr`.
    pub(super) fn memory(&self, addr: GuestPhys, size: u8) -> Option<&Claim> {
        self.map
            .address(addr.0)
            .or_else(|| self.map.address(addr.0.saturating_add(u64::from(size) - 1)))
    }

    /// A20 as the keyboard controller drives it.
    pub(super) fn a20(&self) -> bool {
        self.map.a20
    }

    /// What a page is when it is not what the RAM layout says.
    pub(super) fn page_kind(&self, page: u64) -> Option<PageKind> {
        self.low.kind(page)
    }

    /// Where in the ROM window an address is read from.
    pub(super) fn rom_offset(&self, addr: GuestPhys) -> Option<usize> {
        if let Some(at) = self.low.rom(addr.page()) {
            return Some(at as usize + addr.page_offset() as usize);
        }
        let claim = self.map.address(addr.0)?;
        claim
            .attributes
            .contains(Attributes::ROM)
            .then(|| claim.rom as usize + (addr.0 - claim.start) as usize)
    }

    /// What of the VGA lies at an address above 1 MiB, and the offset in it.
    pub(super) fn vga(&self, addr: GuestPhys) -> Option<VgaWindow> {
        let claim = self.map.address(addr.0)?;
        let offset = addr.0 - claim.start;
        match claim.device {
            DEVICE_VRAM => Some(VgaWindow::Memory(offset)),
            DEVICE_VGA_REGISTERS => Some(VgaWindow::Registers(offset)),
            _ => None,
        }
    }

    /// The page of display memory that the linear frame buffer shows at page `page`. One that lies lower than
    /// [`PCI_MMIO_BASE`], where RAM may be in its way, has none.
    pub(super) fn vram_page(&self, page: u64) -> Option<u64> {
        if !self.vram.contains(&page) {
            return None;
        }
        match self.vga(GuestPhys(page * 4096))? {
            VgaWindow::Memory(offset) => Some(offset / 4096),
            VgaWindow::Registers(_) => None,
        }
    }

    /// Whether the ACPI block is decoded, and where.
    pub(super) fn pmbase(&self) -> (bool, u16) {
        match self.map.ports.iter().find(|c| c.device == DEVICE_POWER) {
            Some(claim) => (true, claim.start as u16),
            None => (false, 0),
        }
    }
}
