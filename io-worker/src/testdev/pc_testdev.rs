//! QEMU's `pc-testdev`, which the KVM unit tests expect (behaviour: QEMU's `hw/misc/pc-testdev.c`).
//!
//! Scratch at ports E0h–E3h; a port at E4h that asks the host to flush a page, where there is nothing to be
//! flushed here; 24 ports from 2000h on that drive the interrupt lines. Its memory is [`super::TestMemory`]. The byte-wise twin of the scratch at E8h–EBh is left out: it would take E9h from a debug
//! console.

use crate::bus::regmap::{Attr, RegMap, Registers, reg};
use crate::bus::{
    Access, Backplane, Device, Interrupts, LINES, Line, Pin, PinTarget, Region, RegionKind, StateError,
    load_state, save_state,
};

/// Port of the scratch register; its region is 0.
pub const SCRATCH_PORT: u64 = 0xE0;
/// First interrupt port; its region is 1.
pub const IRQ_PORT: u64 = 0x2000;
#[derive(Clone, Copy, Debug)]
enum Reg {
    Scratch,
    Flush,
}

const MAP: RegMap<Reg> = RegMap::new(
    8,
    &[
        reg(0, 4, Reg::Scratch, Attr::PURE),
        reg(4, 4, Reg::Flush, Attr::PURE),
    ],
);

/// The test device.
#[derive(Debug)]
pub struct PcTestdev {
    pins: Vec<Pin>,
    scratch: u32,
    /// Levels of the pins.
    levels: u32,
}

impl PcTestdev {
    /// A test device that drives all lines.
    pub fn new(irq: &mut Interrupts) -> Self {
        let pins = (0..LINES as u8)
            .map(|n| irq.pin(PinTarget::Line(Line(n))))
            .collect();
        Self {
            pins,
            scratch: 0,
            levels: 0,
        }
    }
}

impl Registers<Reg> for PcTestdev {
    fn read_reg(&mut self, _bp: &mut Backplane<'_>, reg: Reg) -> u64 {
        match reg {
            Reg::Scratch => u64::from(self.scratch),
            Reg::Flush => u64::MAX,
        }
    }

    fn write_reg(&mut self, _bp: &mut Backplane<'_>, reg: Reg, value: u64) {
        if let Reg::Scratch = reg {
            self.scratch = value as u32;
        }
    }

    fn held(&self, _reg: Reg) -> u64 {
        u64::from(self.scratch)
    }
}

impl Device for PcTestdev {
    fn name(&self) -> &'static str {
        "pc-testdev"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            MAP.region(RegionKind::Port),
            // A test looks for the interrupt at the next instruction.
            Region {
                kind: RegionKind::Port,
                len: LINES as u64,
                runs: vec![(0, LINES as u64, Attr::VIEW)],
            },
        ]
    }

    fn read(&mut self, bp: &mut Backplane<'_>, at: Access) -> u64 {
        if at.region == 0 {
            MAP.read(self, bp, at)
        } else {
            at.size.ones()
        }
    }

    fn write(&mut self, bp: &mut Backplane<'_>, at: Access, value: u64) {
        if at.region == 0 {
            MAP.write(self, bp, at, value);
            return;
        }
        for i in 0..u64::from(at.size.bytes()) {
            let (line, high) = (at.offset + i, (value >> (8 * i)) as u8 != 0);
            self.levels = self.levels & !(1 << line) | u32::from(high) << line;
            bp.irq.set(self.pins[line as usize], high);
        }
    }

    fn reset(&mut self, bp: &mut Backplane<'_>) {
        self.scratch = 0;
        self.levels = 0;
        self.pins.iter().for_each(|pin| bp.irq.set(*pin, false));
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&(self.scratch, self.levels), out);
    }

    fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        (self.scratch, self.levels) = load_state(self.name(), self.state_version(), version, bytes)?;
        Ok(())
    }
}
