//! Interrupt pins, the lines they drive, and the rising edges the lines have seen.
//!
//! A device drives pins. Pins are wired to lines, or to PCI lines A–D that the PIIX3 routes to lines
//! (registers 60h–63h). A line is high while any pin on it is (S3.90, S3.91): only the step from none to one
//! is an edge. Levels and edge counts are committed with the devices, so that a successor shows the very
//! same wires. Edge counts kept per device were rejected: two devices on one line would count edges that the
//! wired line never had.

use serde::{Deserialize, Serialize};

use super::device::{StateError, load_state, save_state};

/// An interrupt line, 0–23: ISA IRQs 0–15, and the pins 16–23 of the I/O APIC that no PIC has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Line(pub u8);

/// What a pin is wired to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinTarget {
    /// Straight to a line.
    Line(Line),
    /// To PCI line A (0) to D (3), before routing.
    Pirq(u8),
}

/// A pin of a device. Made by [`Interrupts::pin`]; the same order of making gives the same pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pin(u8);

/// A line as the outside sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Whether any pin holds it high.
    pub high: bool,
    /// Rising edges since power-on, wrapping.
    pub edges: u32,
}

/// Number of lines.
pub const LINES: usize = 24;
const STATE_VERSION: u16 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    pins: u64,
    routing: [Option<Line>; 4],
    wires: [Wire; LINES],
}

/// All pins and lines of the machine.
#[derive(Debug, Default)]
pub struct Interrupts {
    targets: Vec<PinTarget>,
    /// Pins high per line; derived.
    holders: [u16; LINES],
    state: State,
    dirty: bool,
}

impl Interrupts {
    /// Adds a pin, low. At most 64; more is a fault of the machine's builder and panics.
    pub fn pin(&mut self, target: PinTarget) -> Pin {
        assert!(self.targets.len() < 64, "more than 64 interrupt pins");
        match target {
            PinTarget::Line(line) => assert!(usize::from(line.0) < LINES, "line {}", line.0),
            PinTarget::Pirq(n) => assert!(n < 4, "PCI line {n}"),
        }
        self.targets.push(target);
        Pin(self.targets.len() as u8 - 1)
    }

    fn line_of(&self, pin: usize) -> Option<usize> {
        match self.targets[pin] {
            PinTarget::Line(line) => Some(usize::from(line.0)),
            PinTarget::Pirq(n) => self.state.routing[usize::from(n)].map(|l| usize::from(l.0)),
        }
    }

    fn hold(&mut self, line: usize) {
        self.holders[line] += 1;
        if self.holders[line] == 1 {
            let wire = &mut self.state.wires[line];
            wire.high = true;
            wire.edges = wire.edges.wrapping_add(1);
        }
    }

    fn release(&mut self, line: usize) {
        self.holders[line] -= 1;
        if self.holders[line] == 0 {
            self.state.wires[line].high = false;
        }
    }

    /// Drives a pin. Driving it where it already is does nothing.
    pub fn set(&mut self, pin: Pin, high: bool) {
        let bit = 1_u64 << pin.0;
        if (self.state.pins & bit != 0) == high {
            return;
        }
        self.state.pins ^= bit;
        self.dirty = true;
        if let Some(line) = self.line_of(usize::from(pin.0)) {
            if high {
                self.hold(line);
            } else {
                self.release(line);
            }
        }
    }

    /// Drives a pin high and low again; nothing happens on a line that is high already (S3.92).
    pub fn pulse(&mut self, pin: Pin) {
        self.set(pin, true);
        self.set(pin, false);
    }

    /// Whether the device holds this pin high.
    pub fn level(&self, pin: Pin) -> bool {
        self.state.pins >> pin.0 & 1 != 0
    }

    /// Routes PCI line `pirq` (0–3) to a line, or nowhere. High pins move with it, which is an edge on
    /// the new line if it was low.
    pub fn route(&mut self, pirq: u8, to: Option<Line>) {
        let slot = usize::from(pirq & 3);
        let to = to.filter(|line| usize::from(line.0) < LINES);
        if self.state.routing[slot] == to {
            return;
        }
        self.dirty = true;
        let high: Vec<usize> = (0..self.targets.len())
            .filter(|&p| self.targets[p] == PinTarget::Pirq(slot as u8) && self.state.pins >> p & 1 != 0)
            .collect();
        for &pin in &high {
            if let Some(line) = self.line_of(pin) {
                self.release(line);
            }
        }
        self.state.routing[slot] = to;
        for &pin in &high {
            if let Some(line) = self.line_of(pin) {
                self.hold(line);
            }
        }
    }

    /// Where PCI line `pirq` (0–3) goes.
    pub fn routing(&self, pirq: u8) -> Option<Line> {
        self.state.routing[usize::from(pirq & 3)]
    }

    /// All lines.
    pub fn wires(&self) -> &[Wire; LINES] {
        &self.state.wires
    }

    /// Whether anything changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Version of [`Self::save`].
    pub fn state_version(&self) -> u16 {
        STATE_VERSION
    }

    /// Appends the committed state.
    pub fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    /// Takes up a committed state. Pins that this machine does not have are dropped.
    ///
    /// # Errors
    /// [`StateError`]; nothing is changed then.
    pub fn load(&mut self, version: u16, bytes: &[u8]) -> Result<(), StateError> {
        let mut state: State = load_state("irq", STATE_VERSION, version, bytes)?;
        if state.routing.iter().flatten().any(|l| usize::from(l.0) >= LINES) {
            return Err(StateError::Damaged {
                device: "irq",
                len: bytes.len(),
                why: "line out of range".into(),
            });
        }
        if self.targets.len() < 64 {
            state.pins &= (1_u64 << self.targets.len()) - 1;
        }
        self.state = state;
        self.holders = [0; LINES];
        for pin in 0..self.targets.len() {
            if self.state.pins >> pin & 1 != 0
                && let Some(line) = self.line_of(pin)
            {
                self.holders[line] += 1;
            }
        }
        for (wire, &holders) in self.state.wires.iter_mut().zip(&self.holders) {
            wire.high = holders > 0;
        }
        self.dirty = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_91_a_shared_line_has_an_edge_for_the_first_pin_only() {
        let mut irq = Interrupts::default();
        let (a, b) = (
            irq.pin(PinTarget::Line(Line(4))),
            irq.pin(PinTarget::Line(Line(4))),
        );
        irq.set(a, true);
        irq.set(b, true);
        irq.set(b, true);
        assert_eq!(irq.wires()[4], Wire { high: true, edges: 1 });
        irq.set(a, false);
        assert_eq!(irq.wires()[4], Wire { high: true, edges: 1 });
        irq.set(b, false);
        irq.set(b, false);
        assert_eq!(
            irq.wires()[4],
            Wire {
                high: false,
                edges: 1
            }
        );
    }

    #[test]
    fn s3_92_a_pulse_on_a_high_line_is_invisible() {
        let mut irq = Interrupts::default();
        let (a, b) = (
            irq.pin(PinTarget::Line(Line(1))),
            irq.pin(PinTarget::Line(Line(1))),
        );
        irq.pulse(a);
        assert_eq!(
            irq.wires()[1],
            Wire {
                high: false,
                edges: 1
            }
        );
        irq.set(b, true);
        irq.pulse(a);
        assert_eq!(irq.wires()[1], Wire { high: true, edges: 2 });
    }

    #[test]
    fn s3_91_seventy_thousand_raises_balance() {
        let mut irq = Interrupts::default();
        let a = irq.pin(PinTarget::Line(Line(7)));
        for _ in 0..70_000 {
            irq.set(a, true);
            irq.set(a, true);
            irq.set(a, false);
        }
        assert_eq!(
            irq.wires()[7],
            Wire {
                high: false,
                edges: 70_000
            }
        );
    }

    #[test]
    fn a_high_pci_pin_moves_with_its_routing() {
        let mut irq = Interrupts::default();
        let a = irq.pin(PinTarget::Pirq(1));
        irq.set(a, true);
        assert!(irq.wires().iter().all(|w| !w.high));
        irq.route(1, Some(Line(11)));
        assert_eq!(irq.wires()[11], Wire { high: true, edges: 1 });
        irq.route(1, Some(Line(10)));
        assert!(!irq.wires()[11].high);
        assert_eq!(irq.wires()[10], Wire { high: true, edges: 1 });
        irq.route(1, None);
        assert!(!irq.wires()[10].high);
    }

    #[test]
    fn a_successor_has_the_same_wires() {
        let build = || {
            let mut irq = Interrupts::default();
            let pins = (irq.pin(PinTarget::Line(Line(3))), irq.pin(PinTarget::Pirq(0)));
            (irq, pins)
        };
        let (mut irq, (a, p)) = build();
        irq.route(0, Some(Line(10)));
        irq.pulse(a);
        irq.set(a, true);
        irq.set(p, true);
        let mut bytes = Vec::new();
        irq.save(&mut bytes);
        let (mut next, (a, _)) = build();
        next.load(1, &bytes).expect("load");
        assert_eq!(next.wires(), irq.wires());
        next.set(a, false);
        assert_eq!(
            next.wires()[3],
            Wire {
                high: false,
                edges: 2
            }
        );
        let mut again = Vec::new();
        irq.save(&mut again);
        assert_eq!(again, bytes);
    }
}
