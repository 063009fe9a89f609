//! The I/O APIC: Intel 82093AA data sheet (order 290566), 24 inputs.
//!
//! Version 20h is reported, as QEMU does, because it comes with the EOI register with which a guest ends
//! one level interrupt by itself. As in QEMU the polarity bit is kept but inputs are logical levels: wires
//! here know "asserted", not volts. An edge at a masked input is lost, as the data sheet says.

use super::snapshot::Snapshot;

/// Guest physical address of the register window.
pub const IOAPIC_BASE: u64 = 0xFEC0_0000;
/// Length of the register window, in bytes.
pub const IOAPIC_LEN: u64 = 0x1000;
/// Number of inputs.
pub const PINS: usize = 24;
/// Version register: 24 inputs, version 20h.
const VERSION: u32 = ((PINS as u32 - 1) << 16) | 0x20;

const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR are read-only.
const READ_ONLY: u64 = 1 << 12 | REMOTE_IRR;
/// Bits that exist: vector to mask, and the destination.
const WRITABLE: u64 = (0xFF << 56 | 0x1_FFFF) & !READ_ONLY;

/// How an interrupt message is delivered (SDM vol. 3 §11.6.1, 82093AA §3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeliveryMode {
    /// The vector, to every processor of the destination.
    Fixed,
    /// The vector, to the processor of the destination with the lowest priority.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up; between local APICs only.
    StartUp,
    /// The vector comes from the 8259A.
    ExtInt,
    /// Reserved encoding: delivers nothing.
    Reserved,
}

impl DeliveryMode {
    /// The mode of the three-bit field.
    pub fn from_bits(bits: u64) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => Self::Reserved,
        }
    }
}

/// An interrupt on its way to the local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptMessage {
    /// The vector, 0 to 255.
    pub vector: u8,
    /// How it is delivered.
    pub mode: DeliveryMode,
    /// The destination is a set in the sense of the logical destination register, not an APIC id.
    pub logical: bool,
    /// The destination field: 8 bits from the I/O APIC, 32 in x2APIC mode.
    pub destination: u32,
    /// Level triggered: the local APIC broadcasts its EOI.
    pub level: bool,
}

/// State of the I/O APIC.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IoApicState {
    id: u8,
    select: u8,
    lines: u32,
    redirection: [u64; PINS],
}

/// The I/O APIC. Calls that may send interrupts push them onto `out`.
#[derive(Clone, Debug)]
pub struct IoApic {
    state: IoApicState,
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// All inputs masked and low.
    pub fn new() -> Self {
        Self {
            state: IoApicState {
                id: 0,
                select: 0,
                lines: 0,
                redirection: [MASKED; PINS],
            },
        }
    }

    /// Back to power-on; the levels of the inputs stay, since they are not the controller's.
    pub fn reset(&mut self) {
        let lines = self.state.lines;
        *self = Self::new();
        self.state.lines = lines;
    }

    /// Sets the level of input `pin`; numbers beyond the last input are ignored.
    pub fn set_pin(&mut self, pin: usize, level: bool, out: &mut Vec<InterruptMessage>) {
        if pin >= PINS {
            return;
        }
        let bit = 1 << pin;
        let was = self.state.lines & bit != 0;
        self.state.lines = if level {
            self.state.lines | bit
        } else {
            self.state.lines & !bit
        };
        let entry = self.state.redirection[pin];
        if entry & LEVEL != 0 {
            self.service_level(pin, out);
        } else if level && !was && entry & MASKED == 0 {
            out.push(Self::message(entry));
        }
    }

    /// Whether input `pin` is masked.
    pub fn is_masked(&self, pin: usize) -> bool {
        self.state
            .redirection
            .get(pin)
            .is_none_or(|entry| entry & MASKED != 0)
    }

    /// The vector input `pin` would send in fixed or lowest-priority mode.
    pub fn vector(&self, pin: usize) -> Option<u8> {
        let entry = *self.state.redirection.get(pin)?;
        let mode = DeliveryMode::from_bits(entry >> 8);
        matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority).then_some(entry as u8)
    }

    /// An EOI message for `vector`: level inputs with it are free again and fire when still asserted.
    pub fn end_of_interrupt(&mut self, vector: u8, out: &mut Vec<InterruptMessage>) {
        for pin in 0..PINS {
            let entry = &mut self.state.redirection[pin];
            if *entry as u8 == vector && *entry & (LEVEL | REMOTE_IRR) == LEVEL | REMOTE_IRR {
                *entry &= !REMOTE_IRR;
                self.service_level(pin, out);
            }
        }
    }

    /// No local APIC took the level interrupt `vector`: the inputs with it may fire again, at
    /// [`Self::retry`].
    pub fn refused(&mut self, vector: u8) {
        for entry in &mut self.state.redirection {
            if *entry as u8 == vector && *entry & LEVEL != 0 {
                *entry &= !REMOTE_IRR;
            }
        }
    }

    /// Fires every asserted level input that is free, after a local APIC changed what it takes.
    pub fn retry(&mut self, out: &mut Vec<InterruptMessage>) {
        for pin in 0..PINS {
            if self.state.redirection[pin] & LEVEL != 0 {
                self.service_level(pin, out);
            }
        }
    }

    /// Reads the register window. Only IOREGSEL (0) and IOWIN (10h) read as something; bytes of them too.
    pub fn mmio_read(&self, offset: u64) -> u32 {
        match offset & 0xFF {
            0x00 => u32::from(self.state.select),
            0x10 => self.register(self.state.select),
            _ => 0,
        }
    }

    /// Writes the register window: IOREGSEL (0), IOWIN (10h) or EOI (40h).
    pub fn mmio_write(&mut self, offset: u64, value: u32, out: &mut Vec<InterruptMessage>) {
        match offset & 0xFF {
            0x00 => self.state.select = value as u8,
            0x10 => self.write_register(self.state.select, value, out),
            0x40 => self.end_of_interrupt(value as u8, out),
            _ => {}
        }
    }

    /// Whether a write would end an interrupt or unmask an input, so that level wires must be sampled
    /// first.
    pub fn would_unmask_or_eoi(&self, offset: u64, value: u32) -> bool {
        match offset & 0xFF {
            0x10 => {
                let select = self.state.select;
                let pin = usize::from(select.wrapping_sub(0x10) >> 1);
                select >= 0x10 && select & 1 == 0 && pin < PINS && u64::from(value) & MASKED == 0
            }
            0x40 => true,
            _ => false,
        }
    }

    fn register(&self, select: u8) -> u32 {
        match select {
            0x00 | 0x02 => u32::from(self.state.id) << 24,
            0x01 => VERSION,
            _ => {
                let entry = self
                    .state
                    .redirection
                    .get(usize::from(select.wrapping_sub(0x10) >> 1));
                match (select, entry) {
                    (0x10.., Some(&entry)) => (entry >> (32 * (select & 1))) as u32,
                    _ => 0,
                }
            }
        }
    }

    fn write_register(&mut self, select: u8, value: u32, out: &mut Vec<InterruptMessage>) {
        if select == 0 {
            self.state.id = (value >> 24) as u8 & 0x0F;
            return;
        }
        let pin = usize::from(select.wrapping_sub(0x10) >> 1);
        if select < 0x10 || pin >= PINS {
            return;
        }
        let entry = &mut self.state.redirection[pin];
        let shift = 32 * u32::from(select & 1);
        let written = (u64::from(value) << shift) & WRITABLE;
        *entry = *entry & !(0xFFFF_FFFF << shift) | *entry & READ_ONLY | written;
        if *entry & LEVEL == 0 {
            // Guests without the EOI register clear a stuck remote IRR by switching to edge and back.
            *entry &= !REMOTE_IRR;
        } else {
            self.service_level(pin, out);
        }
    }

    fn service_level(&mut self, pin: usize, out: &mut Vec<InterruptMessage>) {
        let entry = &mut self.state.redirection[pin];
        if self.state.lines & (1 << pin) != 0 && *entry & (MASKED | REMOTE_IRR) == 0 {
            let message = Self::message(*entry);
            if matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) {
                *entry |= REMOTE_IRR;
            }
            out.push(message);
        }
    }

    fn message(entry: u64) -> InterruptMessage {
        InterruptMessage {
            vector: entry as u8,
            mode: DeliveryMode::from_bits(entry >> 8),
            logical: entry & (1 << 11) != 0,
            destination: (entry >> 56) as u32,
            level: entry & LEVEL != 0,
        }
    }
}

impl Snapshot for IoApic {
    const KIND: &'static str = "ioapic";
    const VERSION: u16 = 1;
    type State = IoApicState;

    fn save(&self) -> IoApicState {
        self.state.clone()
    }

    fn restore(&mut self, state: IoApicState) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core_complex::snapshot::snapshot_tests;

    fn write(io: &mut IoApic, register: u8, value: u32) -> Vec<InterruptMessage> {
        let mut out = Vec::new();
        io.mmio_write(0x00, u32::from(register), &mut out);
        io.mmio_write(0x10, value, &mut out);
        out
    }

    fn read(io: &mut IoApic, register: u8) -> u32 {
        io.mmio_write(0x00, u32::from(register), &mut Vec::new());
        io.mmio_read(0x10)
    }

    fn set(io: &mut IoApic, pin: usize, level: bool) -> Vec<u8> {
        let mut out = Vec::new();
        io.set_pin(pin, level, &mut out);
        out.iter().map(|m| m.vector).collect()
    }

    fn eoi(io: &mut IoApic, vector: u8) -> Vec<u8> {
        let mut out = Vec::new();
        io.end_of_interrupt(vector, &mut out);
        out.iter().map(|m| m.vector).collect()
    }

    snapshot_tests!(snapshot, IoApic::new(), |io: &mut IoApic| {
        write(io, 0x14, 0x1_8931);
        io.set_pin(2, true, &mut Vec::new());
    });

    #[test]
    fn identification_and_version_read_as_the_data_sheet_says() {
        let mut io = IoApic::new();
        assert_eq!(read(&mut io, 1), 0x0017_0020);
        write(&mut io, 0, 0xFF00_0000);
        assert_eq!(read(&mut io, 0), 0x0F00_0000);
        assert_eq!(read(&mut io, 2), 0x0F00_0000);
        assert_eq!(read(&mut io, 0x10), 0x0001_0000, "inputs come up masked");
        assert_eq!(read(&mut io, 0x0F), 0);
        assert_eq!(read(&mut io, 0x40), 0);
    }

    #[test]
    fn an_edge_input_fires_on_each_rise_and_loses_rises_while_masked() {
        let mut io = IoApic::new();
        assert!(set(&mut io, 4, true).is_empty());
        assert!(
            write(&mut io, 0x18, 0x34).is_empty(),
            "the rise was before the unmask"
        );
        set(&mut io, 4, false);
        assert_eq!(set(&mut io, 4, true), [0x34]);
        assert!(set(&mut io, 4, true).is_empty());
    }

    #[test]
    fn a_level_input_fires_once_until_its_eoi_and_again_while_asserted() {
        let mut io = IoApic::new();
        write(&mut io, 0x24, 0x8051);
        assert_eq!(set(&mut io, 10, true), [0x51]);
        assert_eq!(read(&mut io, 0x24), 0xC051);
        set(&mut io, 10, false);
        assert!(set(&mut io, 10, true).is_empty(), "remote IRR holds it");
        assert!(eoi(&mut io, 0x50).is_empty());
        assert_eq!(eoi(&mut io, 0x51), [0x51]);
        set(&mut io, 10, false);
        assert!(eoi(&mut io, 0x51).is_empty());
        assert_eq!(read(&mut io, 0x24), 0x8051);
    }

    #[test]
    fn unmasking_an_asserted_level_input_fires_it() {
        let mut io = IoApic::new();
        write(&mut io, 0x26, 0x1_8052);
        assert!(set(&mut io, 11, true).is_empty());
        assert!(io.would_unmask_or_eoi(0x10, 0x8052));
        assert_eq!(write(&mut io, 0x26, 0x8052).len(), 1);
    }

    #[test]
    fn switching_a_stuck_input_to_edge_clears_its_remote_irr() {
        let mut io = IoApic::new();
        write(&mut io, 0x26, 0x8052);
        set(&mut io, 11, true);
        write(&mut io, 0x26, 0x1_0052);
        assert_eq!(write(&mut io, 0x26, 0x8052).len(), 1);
    }

    #[test]
    fn the_eoi_register_ends_one_vector() {
        let mut io = IoApic::new();
        write(&mut io, 0x26, 0x8052);
        set(&mut io, 11, true);
        let mut out = Vec::new();
        io.mmio_write(0x40, 0x52, &mut out);
        assert_eq!(out.len(), 1);
        assert!(io.would_unmask_or_eoi(0x40, 0));
    }

    #[test]
    fn read_only_bits_cannot_be_written_and_the_destination_is_sent() {
        let mut io = IoApic::new();
        write(&mut io, 0x13, 0x0300_0000);
        write(&mut io, 0x12, 0xFFFE_FFFF & !0x8000);
        assert_eq!(read(&mut io, 0x12), 0x0000_2FFF);
        let mut out = Vec::new();
        io.set_pin(1, true, &mut out);
        assert_eq!(
            out,
            [InterruptMessage {
                vector: 0xFF,
                mode: DeliveryMode::ExtInt,
                logical: true,
                destination: 3,
                level: false
            }]
        );
    }
}
