//! The interrupt lines of the complex: who drives them and which inputs they reach.
//!
//! Wiring of QEMU's pc machine: ISA IRQ n goes to the 8259 pair and to input n of the I/O APIC, IRQ 0 to
//! input 2, PIRQA–D to the IRQs that registers 60h to 63h name.

use quintet_protocol::time::VmTime;

use super::CoreComplex;
use super::wires::{Transition, WireSource};

impl CoreComplex {
    /// Sets the level `source` drives on ISA IRQ `irq`, 0 to 15 (IRQ 2 is the cascade and ignored).
    pub fn set_isa_line(&mut self, now: VmTime, irq: u8, source: WireSource, level: bool) {
        if irq < 16 && irq != 2 {
            self.set_wire(irq, source, level);
            self.refresh(now);
        }
    }

    /// Raises and lowers ISA IRQ or GSI `line`, 0 to 23: an edge. Invisible on a line that is high (S3.92).
    pub fn pulse(&mut self, now: VmTime, line: u8) {
        if line < 24 {
            self.raise(line);
            self.lower(line);
            self.refresh(now);
        }
    }

    /// Sets the level `source` drives on global system interrupt `gsi`, 0 to 23: 0 to 15 are the ISA IRQs,
    /// but for 2, which is input 2 of the I/O APIC alone.
    pub fn set_gsi(&mut self, now: VmTime, gsi: u8, source: WireSource, level: bool) {
        self.set_wire(gsi, source, level);
        self.refresh(now);
    }

    /// One holder more on `line`, 0 to 23 (S3.94: IrqRaise).
    pub fn raise_line(&mut self, now: VmTime, line: u8) {
        self.raise(line);
        self.refresh(now);
    }

    /// One holder less on `line`, 0 to 23 (S3.94: IrqLower).
    pub fn lower_line(&mut self, now: VmTime, line: u8) {
        self.lower(line);
        self.refresh(now);
    }

    /// Sets PIRQ `pin`, 0 (A) to 3 (D). It goes where registers 60h to 63h route it.
    pub fn set_pirq(&mut self, now: VmTime, pin: u8, level: bool) {
        let pin = usize::from(pin & 3);
        if core::mem::replace(&mut self.pirq_levels[pin], level) != level {
            self.drive_pirq(pin, level);
            self.refresh(now);
        }
    }

    /// Takes over registers 60h to 63h: bit 7 switches a PIRQ off, bits 3:0 are its IRQ.
    pub fn set_pirq_routing(&mut self, now: VmTime, routing: [u8; 4]) {
        for pin in 0..4 {
            self.drive_pirq(pin, false);
        }
        self.pirq_routing = routing;
        for pin in 0..4 {
            self.drive_pirq(pin, self.pirq_levels[pin]);
        }
        self.refresh(now);
    }

    fn drive_pirq(&mut self, pin: usize, level: bool) {
        let routing = self.pirq_routing[pin];
        // The PIIX refuses 0, 1, 2, 8 and 13.
        if routing & 0x80 == 0 && !matches!(routing & 15, 0 | 1 | 2 | 8 | 13) {
            self.set_wire(routing & 15, WireSource::pirq(pin as u8), level);
        }
    }

    /// Whether io-worker, directly or by a PIRQ, holds a line up. Then posted writes must be drained and the
    /// wires sampled before an access for which [`Self::would_unmask_or_eoi`] is true.
    pub fn is_io_level_high(&self) -> bool {
        self.wires.is_any_high(WireSource::IoWorker) || self.pirq_levels.iter().any(|&level| level)
    }

    /// Whether `line`, 0 to 23, is asserted by anyone; for observation.
    pub fn is_line_asserted(&self, line: u8) -> bool {
        self.wires.is_asserted(line)
    }

    pub(super) fn set_wire(&mut self, line: u8, source: WireSource, level: bool) {
        let moved = self.wires.set(line, source, level);
        self.moved(line, moved);
    }

    pub(super) fn raise(&mut self, line: u8) {
        let moved = self.wires.counts().raise(line);
        self.moved(line, moved);
    }

    pub(super) fn lower(&mut self, line: u8) {
        let moved = self.wires.counts().lower(line);
        self.moved(line, moved);
    }

    pub(super) fn pulse_as(&mut self, line: u8, source: WireSource) {
        self.set_wire(line, source, true);
        self.set_wire(line, source, false);
    }

    fn moved(&mut self, line: u8, moved: Option<Transition>) {
        let Some(moved) = moved else { return };
        let level = moved == Transition::Assert;
        if line != 2 {
            self.pic.set_line(line, level);
        }
        match line {
            0 | 2 => {
                let level = self.wires.is_asserted(0) || self.wires.is_asserted(2);
                self.ioapic.set_pin(2, level, &mut self.messages);
            }
            _ => self.ioapic.set_pin(usize::from(line), level, &mut self.messages),
        }
    }
}
