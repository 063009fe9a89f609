//! Bus 0: the configuration mechanism, and what follows from the registers of all functions.

use std::collections::BTreeMap;

use super::bar::{BarKind, SizedBar};
use super::config::{ConfigSpace, ConfigState, FunctionSpec};
use super::piix;
use crate::bus::{
    Access, Backplane, Device, Line, Region, RegionKind, Size, StateError, load_state, save_state,
};
use crate::dma::Pam;
use crate::storage::virtio;

/// A function on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Slot, 0–31.
    pub device: u8,
    /// Function, 0–7.
    pub function: u8,
}

/// Shorthand.
pub const fn bdf(device: u8, function: u8) -> Bdf {
    Bdf { device, function }
}

impl Bdf {
    /// From bits 15–8 of the address latch.
    pub const fn from_devfn(devfn: u8) -> Self {
        Self {
            device: devfn >> 3,
            function: devfn & 7,
        }
    }

    /// As bits 15–8 of the address latch have it.
    pub const fn devfn(self) -> u8 {
        self.device << 3 | self.function
    }
}

/// Who answers a window that a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowTarget {
    /// A device of this process: its number in the machine and its region.
    Device {
        /// Number of the device.
        device: u16,
        /// Index into its regions.
        region: u8,
    },
    /// The linear frame buffer, served beside the vCPU.
    Vram,
    /// The VGA's register window, served beside the vCPU.
    VgaRegisters,
    /// The VGA's BIOS in the ROM window, read beside the vCPU.
    VgaRom,
    /// The ACPI power-management block, served beside the vCPU.
    PowerManagement,
    /// Nobody: reads give ones.
    Nobody,
}

/// A window that is decoded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PciWindow {
    /// Ports or memory.
    pub kind: WindowKind,
    /// First port or guest physical address.
    pub start: u64,
    /// Length in ports or bytes.
    pub len: u64,
    /// Who answers.
    pub target: WindowTarget,
}

/// Address space of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// I/O ports.
    Port,
    /// Guest physical memory.
    Memory,
}

/// What lies below 1 MiB: the host bridge's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shadow {
    /// PAM registers 59h–5Fh.
    pub pam: Pam,
    /// SMRAM register 72h.
    pub smram: u8,
}

/// Bus 0 with its functions.
#[derive(Debug, Default)]
pub struct PciBus {
    functions: BTreeMap<u8, ConfigSpace>,
    /// Counts changes of anything but data registers; derived, never committed.
    version: u64,
}

const NAME: &str = "pci";

impl PciBus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a function on the bus. Panics when the place is taken: the builder's fault.
    pub fn add(&mut self, at: Bdf, spec: FunctionSpec) {
        let previous = self.functions.insert(at.devfn(), ConfigSpace::new(spec));
        assert!(previous.is_none(), "two PCI functions at {at:?}");
        self.version += 1;
    }

    /// All functions in ascending order.
    pub fn functions(&self) -> impl Iterator<Item = (Bdf, &ConfigSpace)> {
        self.functions.iter().map(|(d, f)| (Bdf::from_devfn(*d), f))
    }

    /// The function at a place.
    pub fn function(&self, at: Bdf) -> Option<&ConfigSpace> {
        self.functions.get(&at.devfn())
    }

    /// Base address registers of a function with their sizes, for whoever lays out the address space.
    pub fn bars(&self, at: Bdf) -> Vec<SizedBar> {
        let bars = self.function(at).map_or(&[][..], |f| &f.spec().bars);
        bars.iter()
            .map(|b| SizedBar {
                register: b.register,
                kind: b.kind,
                len: b.len,
            })
            .collect()
    }

    /// Changes whenever [`Self::windows`], [`Self::idle_masters`], [`Self::shadow`] or [`Self::routing`] may answer
    /// differently.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Function and register that the latch `cf8` names, with `offset` 0–3 from CFCh; `None` when the enable
    /// bit is clear or another bus is meant.
    fn select(cf8: u32, offset: u8) -> Option<(u8, u8)> {
        let bus = cf8 >> 16 & 0xFF;
        (cf8 >> 31 == 1 && bus == 0).then_some(((cf8 >> 8) as u8, (cf8 as u8 & 0xFC) | (offset & 3)))
    }

    /// A read of `size` bytes at CFCh + `offset` under the latch `cf8`. Bytes past CFFh are ones.
    pub fn config_read(&self, cf8: u32, offset: u8, size: Size) -> u32 {
        let mut value = size.ones() as u32;
        let Some((devfn, register)) = Self::select(cf8, offset) else {
            return value;
        };
        let Some(function) = self.functions.get(&devfn) else {
            return value;
        };
        for i in 0..size.bytes().min(4 - (offset & 3)) {
            value &= !(0xFF << (8 * i));
            value |= u32::from(function.byte(register + i)) << (8 * i);
        }
        value
    }

    /// A write of `size` bytes at CFCh + `offset` under the latch `cf8`.
    pub fn config_write(&mut self, cf8: u32, offset: u8, size: Size, value: u32) {
        let Some((devfn, register)) = Self::select(cf8, offset) else {
            return;
        };
        let Some(function) = self.functions.get_mut(&devfn) else {
            return;
        };
        for i in 0..size.bytes().min(4 - (offset & 3)) {
            let at = register + i;
            let before = function.byte(at);
            function.write_byte(at, (value >> (8 * i)) as u8);
            super::i440fx::after_write(function, at, before);
            if function.byte(at) != before && at != 0x3C {
                self.version += 1;
            }
        }
    }

    /// Where an access leads that touches the data of virtio's window into a BAR: device and place
    /// ([`crate::storage::virtio::window`]).
    pub fn window(&self, cf8: u32, offset: u8, size: Size) -> Option<(u16, Access)> {
        let (devfn, register) = Self::select(cf8, offset)?;
        let bytes = size.bytes().min(4 - (offset & 3));
        let touched = u16::from(register)..u16::from(register) + u16::from(bytes);
        virtio::window(self.functions.get(&devfn)?, touched)
    }

    /// What has been written into the window of the function that the latch names.
    pub fn window_data(&self, cf8: u32) -> u32 {
        let function = Self::select(cf8, 0).and_then(|(devfn, _)| self.functions.get(&devfn));
        function.map_or(0, |f| f.dword(virtio::WINDOW_DATA))
    }

    /// Puts into the window what it shows.
    pub fn fill_window(&mut self, cf8: u32, value: u32) {
        let function = Self::select(cf8, 0).and_then(|(devfn, _)| self.functions.get_mut(&devfn));
        if let Some(function) = function {
            for (at, byte) in (virtio::WINDOW_DATA..).zip(value.to_le_bytes()) {
                function.write_byte(at, byte);
            }
        }
    }

    /// Reads a register of a function as firmware does.
    pub fn peek(&self, at: Bdf, register: u8, size: Size) -> u32 {
        self.config_read(Self::latch(at, register), register & 3, size)
    }

    /// Writes a register of a function as firmware does. Not across a multiple of four.
    pub fn poke(&mut self, at: Bdf, register: u8, size: Size, value: u32) {
        self.config_write(Self::latch(at, register), register & 3, size, value);
    }

    fn latch(at: Bdf, register: u8) -> u32 {
        1 << 31 | u32::from(at.devfn()) << 8 | u32::from(register & 0xFC)
    }

    /// What is decoded now, in the order in which it wins.
    pub fn windows(&self) -> Vec<PciWindow> {
        let mut windows = Vec::new();
        for function in self.functions.values() {
            for (bar, start) in function.decoded() {
                let kind = if bar.kind == BarKind::Io {
                    WindowKind::Port
                } else {
                    WindowKind::Memory
                };
                windows.push(PciWindow {
                    kind,
                    start,
                    len: u64::from(bar.len),
                    target: bar.target,
                });
            }
            windows.extend(piix::pm_window(function));
        }
        windows
    }

    /// Devices behind functions whose command register forbids them to be bus masters.
    pub fn idle_masters(&self) -> impl Iterator<Item = u16> {
        let idle = self.functions.values().filter(|f| !f.is_master());
        idle.flat_map(|f| &f.spec().bars)
            .filter_map(|bar| match bar.target {
                WindowTarget::Device { device, .. } => Some(device),
                _ => None,
            })
    }

    /// What lies below 1 MiB.
    pub fn shadow(&self) -> Shadow {
        self.functions
            .get(&bdf(0, 0).devfn())
            .map_or_else(Shadow::default, super::i440fx::shadow)
    }

    /// Where PCI lines A–D go: registers 60h–63h of the ISA bridge.
    pub fn routing(&self) -> [Option<Line>; 4] {
        self.functions
            .get(&bdf(1, 0).devfn())
            .map_or([None; 4], piix::routing)
    }
}

impl Device for PciBus {
    fn name(&self) -> &'static str {
        NAME
    }

    fn regions(&self) -> Vec<Region> {
        Vec::new()
    }

    fn read(&mut self, _bp: &mut Backplane<'_>, at: Access) -> u64 {
        at.size.ones()
    }

    fn write(&mut self, _bp: &mut Backplane<'_>, _at: Access, _value: u64) {}

    fn reset(&mut self, _bp: &mut Backplane<'_>) {
        self.functions.values_mut().for_each(ConfigSpace::reset);
        self.version += 1;
    }

    fn save(&self, out: &mut Vec<u8>) {
        let state: Vec<(u8, ConfigState)> = self.functions.iter().map(|(d, f)| (*d, f.state())).collect();
        save_state(&state, out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let state: Vec<(u8, ConfigState)> = load_state(NAME, self.state_version(), version, bytes)?;
        let damaged = |why: &str| StateError::Damaged {
            device: NAME,
            len: bytes.len(),
            why: why.into(),
        };
        if state.len() != self.functions.len() || state.iter().any(|(d, _)| !self.functions.contains_key(d)) {
            return Err(damaged("other functions than this machine's"));
        }
        let mut functions = self.functions.clone();
        for (devfn, config) in &state {
            if !functions.get_mut(devfn).is_some_and(|f| f.restore(config)) {
                return Err(damaged("a configuration space without 256 bytes"));
            }
        }
        self.functions = functions;
        self.version += 1;
        Ok(())
    }
}

impl From<WindowKind> for RegionKind {
    fn from(kind: WindowKind) -> Self {
        match kind {
            WindowKind::Port => Self::Port,
            WindowKind::Memory => Self::Memory,
        }
    }
}
