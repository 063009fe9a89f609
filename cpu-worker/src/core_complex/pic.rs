//! The pair of 8259A interrupt controllers with the edge/level control registers of the PIIX.
//!
//! Intel 8259A data sheet (order 231468); ELCR from the PIIX3 data sheet §2.5.11. Departures, as in QEMU's
//! pc machine: LTIM of ICW1 is ignored, because the ELCR decides per line; an edge stays latched until it is
//! acknowledged even when the line falls (S3.93), so that IRQ 7 is spurious only for level lines withdrawn
//! in time; 8080 mode of ICW4 is not modelled.
//!
//! The slave's INT is an edge input of the master like any other. It is looked at afresh after every
//! acknowledge and every ICW1, so that no request of the slave is lost between two edges.

use super::snapshot::Snapshot;

/// Lines of the master whose ELCR bit is writable: 0, 1 and 2 are always edge.
const ELCR_MASTER: u8 = 0xF8;
/// Lines of the slave whose ELCR bit is writable: 8 and 13 are always edge.
const ELCR_SLAVE: u8 = 0xDE;
/// The master's input that the slave is wired to.
const CASCADE: u8 = 2;

/// One 8259A.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChipState {
    /// Edges latched and not yet acknowledged.
    latched: u8,
    /// Levels of the inputs.
    lines: u8,
    /// Interrupt mask register (OCW1).
    imr: u8,
    /// In-service register.
    isr: u8,
    /// Edge/level control register; a set bit is a level input.
    elcr: u8,
    /// Vector of input 0 (ICW2), a multiple of 8.
    base: u8,
    /// The input with the lowest priority, 0 to 7.
    lowest: u8,
    /// The initialisation word expected next at the odd port, 2 to 4, or 0.
    expect: u8,
    /// ICW1 bit 0: ICW4 will come.
    needs_icw4: bool,
    /// ICW1 bit 1: no cascade, no ICW3.
    single: bool,
    /// OCW3: the even port reads the ISR, not the IRR.
    read_isr: bool,
    /// OCW3: the next read is a poll.
    poll: bool,
    /// OCW3: special mask mode.
    special_mask: bool,
    /// ICW4 bit 1.
    auto_eoi: bool,
    /// OCW2: rotate in automatic EOI mode.
    rotate_on_auto_eoi: bool,
    /// ICW4 bit 4: special fully nested mode.
    fully_nested: bool,
}

impl ChipState {
    fn irr(&self) -> u8 {
        (self.latched & !self.elcr) | (self.lines & self.elcr)
    }

    /// How far `input` is from the highest priority, 0 to 7.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest.wrapping_add(1)) & 7
    }

    /// The set bit of highest priority.
    fn highest(&self, bits: u8) -> Option<u8> {
        (1..=8u8)
            .map(|i| self.lowest.wrapping_add(i) & 7)
            .find(|&i| bits & (1 << i) != 0)
    }

    /// The input the chip asks the processor to serve.
    fn request(&self) -> Option<u8> {
        let input = self.highest(self.irr() & !self.imr)?;
        let in_service = if self.special_mask {
            self.isr & !self.imr
        } else {
            self.isr
        };
        match self.highest(in_service) {
            None => Some(input),
            Some(served) if self.rank(input) < self.rank(served) => Some(input),
            Some(served) if self.fully_nested && input == CASCADE && served == CASCADE => Some(input),
            Some(_) => None,
        }
    }

    fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        if level {
            if self.lines & bit == 0 {
                self.latched |= bit;
            }
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
    }

    /// What the second INTA pulse does to the registers.
    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        self.latched &= !bit;
        if self.auto_eoi {
            if self.rotate_on_auto_eoi {
                self.lowest = input;
            }
        } else {
            self.isr |= bit;
        }
    }

    fn end_of_interrupt(&mut self, specific: Option<u8>, rotate: bool) {
        // In special mask mode a masked in-service bit is not cleared by a non-specific EOI.
        let visible = if self.special_mask {
            self.isr & !self.imr
        } else {
            self.isr
        };
        if let Some(input) = specific.or_else(|| self.highest(visible)) {
            self.isr &= !(1 << input);
            if rotate {
                self.lowest = input;
            }
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            let keep = (self.lines, self.elcr, self.base);
            *self = Self {
                lowest: 7,
                expect: 2,
                ..Self::default()
            };
            (self.lines, self.elcr, self.base) = keep;
            self.needs_icw4 = value & 0x01 != 0;
            self.single = value & 0x02 != 0;
        } else if value & 0x08 != 0 {
            self.poll = value & 0x04 != 0;
            if value & 0x02 != 0 {
                self.read_isr = value & 0x01 != 0;
            }
            if value & 0x40 != 0 {
                self.special_mask = value & 0x20 != 0;
            }
        } else {
            let input = value & 7;
            match value >> 5 {
                0 => self.rotate_on_auto_eoi = false,
                1 => self.end_of_interrupt(None, false),
                3 => self.end_of_interrupt(Some(input), false),
                4 => self.rotate_on_auto_eoi = true,
                5 => self.end_of_interrupt(None, true),
                6 => self.lowest = input,
                7 => self.end_of_interrupt(Some(input), true),
                _ => {}
            }
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.expect {
            2 => {
                self.base = value & 0xF8;
                self.expect = match (self.single, self.needs_icw4) {
                    (false, _) => 3,
                    (true, true) => 4,
                    (true, false) => 0,
                };
            }
            3 => self.expect = if self.needs_icw4 { 4 } else { 0 },
            4 => {
                self.auto_eoi = value & 0x02 != 0;
                self.fully_nested = value & 0x10 != 0;
                self.expect = 0;
            }
            _ => self.imr = value,
        }
    }

    /// A read of either port when a poll is due: the request, acknowledged, with bit 7.
    fn take_poll(&mut self) -> u8 {
        self.poll = false;
        match self.request() {
            Some(input) => {
                self.acknowledge(input);
                0x80 | input
            }
            None => 0,
        }
    }
}

/// State of the pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PicState {
    chips: [ChipState; 2],
}

/// The pair of 8259As as the PC wires it: the slave's INT on the master's input 2.
#[derive(Clone, Debug)]
pub struct Pic {
    state: PicState,
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

impl Pic {
    /// The pair after power-on. Hardware is undefined then; here nothing is requested and vectors start at 0.
    pub fn new() -> Self {
        let mut state = PicState::default();
        for chip in &mut state.chips {
            chip.lowest = 7;
        }
        Self { state }
    }

    /// Back to power-on; the levels of the inputs stay, since they are not the controller's.
    pub fn reset(&mut self) {
        let lines = self.state.chips.each_ref().map(|c| c.lines);
        *self = Self::new();
        for (chip, lines) in self.state.chips.iter_mut().zip(lines) {
            chip.lines = lines;
        }
        self.recheck_cascade();
    }

    /// What a PC BIOS leaves: vectors 08h and 70h, everything edge but `elcr` (bit n is IRQ n), all inputs
    /// masked but timer, keyboard, cascade and real-time clock.
    pub fn firmware_state(&mut self, elcr: u16) {
        for (chip, base, icw3) in [(0, 0x08, 0x04), (1, 0x70, 0x02)] {
            let port = if chip == 0 { 0x20 } else { 0xA0 };
            self.write(port, 0x11);
            self.write(port + 1, base);
            self.write(port + 1, icw3);
            self.write(port + 1, 0x01);
        }
        self.write(0x4D0, elcr as u8);
        self.write(0x4D1, (elcr >> 8) as u8);
        self.write(0x21, 0xF8);
        self.write(0xA1, 0xFE);
    }

    /// Whether `port` is one of the pair's: 20h, 21h, A0h, A1h, 4D0h, 4D1h.
    pub fn claims(port: u16) -> bool {
        matches!(port, 0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1)
    }

    /// Sets the level of IRQ `irq`, 0 to 15. IRQ 2 is the cascade and cannot be driven from outside.
    pub fn set_line(&mut self, irq: u8, level: bool) {
        if irq == CASCADE || irq > 15 {
            return;
        }
        self.state.chips[usize::from(irq >> 3)].set_line(irq & 7, level);
        self.update_cascade();
    }

    /// Whether the master's INT output is high.
    pub fn int_output(&self) -> bool {
        self.state.chips[0].request().is_some()
    }

    /// Whether an edge or level of IRQ `irq` waits to be acknowledged, masked or not.
    pub fn is_requested(&self, irq: u8) -> bool {
        self.state.chips[usize::from(irq >> 3) & 1].irr() & (1 << (irq & 7)) != 0
    }

    /// Whether IRQ `irq` is masked in its chip or, for 8 to 15, by the master's cascade input.
    pub fn is_masked(&self, irq: u8) -> bool {
        self.state.chips[usize::from(irq >> 3) & 1].imr & (1 << (irq & 7)) != 0
            || irq >= 8 && self.state.chips[0].imr & (1 << CASCADE) != 0
    }

    /// The two INTA cycles: the vector of the request, which is now in service. With no request the vector
    /// is that of the spurious input 7, of the master or of the slave, and nothing goes into service there.
    pub fn acknowledge(&mut self) -> u8 {
        let [master, slave] = &mut self.state.chips;
        let vector = match master.request() {
            Some(CASCADE) => {
                let input = slave.request();
                if let Some(input) = input {
                    slave.acknowledge(input);
                }
                master.acknowledge(CASCADE);
                slave.base | input.unwrap_or(7)
            }
            Some(input) => {
                master.acknowledge(input);
                master.base | input
            }
            None => master.base | 7,
        };
        self.recheck_cascade();
        vector
    }

    /// Reads a port of [`Self::claims`]. Reading acts when a poll is due.
    pub fn read(&mut self, port: u16) -> u8 {
        let chip = Self::chip_of(port);
        if port >= 0x4D0 {
            return self.state.chips[chip].elcr;
        }
        if self.state.chips[chip].poll {
            let value = self.state.chips[chip].take_poll();
            self.recheck_cascade();
            return value;
        }
        let c = &self.state.chips[chip];
        match (port & 1, c.read_isr) {
            (1, _) => c.imr,
            (_, true) => c.isr,
            (_, false) => c.irr(),
        }
    }

    /// Writes a port of [`Self::claims`].
    pub fn write(&mut self, port: u16, value: u8) {
        let chip = &mut self.state.chips[Self::chip_of(port)];
        match port {
            0x4D0 => chip.elcr = value & ELCR_MASTER,
            0x4D1 => chip.elcr = value & ELCR_SLAVE,
            _ if port & 1 == 0 => {
                chip.write_command(value);
                if value & 0x10 != 0 {
                    self.recheck_cascade();
                    return;
                }
            }
            _ => chip.write_data(value),
        }
        self.update_cascade();
    }

    /// Whether a write would end an interrupt or unmask an input, so that level wires must be sampled
    /// first.
    pub fn would_unmask_or_eoi(&self, port: u16, value: u8) -> bool {
        let chip = &self.state.chips[Self::chip_of(port)];
        match port {
            0x4D0 => value & ELCR_MASTER != chip.elcr,
            0x4D1 => value & ELCR_SLAVE != chip.elcr,
            0x20 | 0xA0 if value & 0x10 != 0 => true,
            0x20 | 0xA0 if value & 0x08 != 0 => value & 0x60 == 0x60,
            0x20 | 0xA0 => value & 0x20 != 0,
            _ => chip.expect == 0 && chip.imr & !value != 0,
        }
    }

    fn chip_of(port: u16) -> usize {
        usize::from(matches!(port, 0xA0 | 0xA1 | 0x4D1))
    }

    fn update_cascade(&mut self) {
        let level = self.state.chips[1].request().is_some();
        self.state.chips[0].set_line(CASCADE, level);
    }

    /// The slave's INT falls during INTA and the master's edge detector is cleared by ICW1: a request that
    /// is still there is a new edge.
    fn recheck_cascade(&mut self) {
        self.state.chips[0].set_line(CASCADE, false);
        self.update_cascade();
    }
}

impl Snapshot for Pic {
    const KIND: &'static str = "pic";
    const VERSION: u16 = 1;
    type State = PicState;

    fn save(&self) -> PicState {
        self.state.clone()
    }

    fn restore(&mut self, state: PicState) {
        self.state = state;
    }
}

#[cfg(test)]
#[path = "pic_tests.rs"]
mod tests;
