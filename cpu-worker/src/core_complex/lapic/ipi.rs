//! Interrupt messages between local APICs, and whom a message is for (SDM vol. 3 §11.6).
//!
//! Routing works on a slice of APICs. One vCPU exists so far; the slice is what more of them will share.

use super::{Lapic, LapicOutput};
use crate::core_complex::ioapic::{DeliveryMode, InterruptMessage};

/// ESR: this APIC was told to send a vector below 16.
const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;

/// Bits 19:18 of the ICR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorthand {
    /// The destination field decides.
    Destination,
    /// The sender alone.
    Itself,
    /// Every APIC.
    All,
    /// Every APIC but the sender.
    Others,
}

impl Lapic {
    /// A write of the low half of the ICR sends what the ICR holds.
    pub(super) fn send_ipi(&mut self, out: &mut Vec<LapicOutput>) {
        let icr = self.state.icr;
        let mode = DeliveryMode::from_bits(icr >> 8);
        let vector = icr as u8;
        let level = icr & (1 << 15) != 0;
        let assert = icr & (1 << 14) != 0;
        if mode == DeliveryMode::Init && level && !assert {
            // INIT level de-assert sets arbitration IDs on processors that have them; nothing since.
            return;
        }
        if vector < 16 && matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority) {
            self.error(SEND_ILLEGAL_VECTOR);
            return;
        }
        let destination = if self.is_x2apic() {
            (icr >> 32) as u32
        } else {
            (icr >> 56) as u32
        };
        let shorthand = match icr >> 18 & 3 {
            0 => Shorthand::Destination,
            1 => Shorthand::Itself,
            2 => Shorthand::All,
            _ => Shorthand::Others,
        };
        let message = InterruptMessage {
            vector,
            mode,
            logical: icr & (1 << 11) != 0,
            destination,
            level: false,
        };
        out.push(LapicOutput::Ipi { message, shorthand });
    }

    /// Whether a message with this destination is for this APIC (SDM vol. 3 §11.6.2).
    pub fn is_destination(&self, message: &InterruptMessage) -> bool {
        let destination = message.destination;
        if !self.is_enabled() {
            return false;
        }
        // An 8-bit FFh is a broadcast also when an I/O APIC sends it to an APIC in x2APIC mode.
        if destination == 0xFF || self.is_x2apic() && destination == u32::MAX {
            return true;
        }
        if !message.logical {
            return destination == self.state.id;
        }
        if self.is_x2apic() {
            let ldr = self.x2apic_ldr();
            return destination >> 16 == ldr >> 16 && destination & ldr & 0xFFFF != 0;
        }
        let (mda, id) = (destination as u8, (self.state.ldr >> 24) as u8);
        match self.state.dfr >> 28 {
            0xF => mda & id != 0,
            0x0 => mda >> 4 == id >> 4 && mda & id & 0x0F != 0,
            _ => false,
        }
    }

    /// Logical ID in x2APIC mode: the cluster and one bit (SDM vol. 3 §11.12.10.2).
    pub(super) fn x2apic_ldr(&self) -> u32 {
        (self.state.id >> 4) << 16 | 1 << (self.state.id & 0xF)
    }

    /// Takes a message that is for this APIC. Gives whether it was taken.
    pub fn deliver(&mut self, message: &InterruptMessage, out: &mut Vec<LapicOutput>) -> bool {
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.accept(message.vector, message.level),
            DeliveryMode::ExtInt => {
                self.state.extint_latched = true;
                true
            }
            DeliveryMode::Nmi => Self::push(out, LapicOutput::Nmi),
            DeliveryMode::Smi => Self::push(out, LapicOutput::Smi),
            DeliveryMode::Init => Self::push(out, LapicOutput::Init),
            DeliveryMode::StartUp => Self::push(out, LapicOutput::StartUp(message.vector)),
            DeliveryMode::Reserved => false,
        }
    }

    fn push(out: &mut Vec<LapicOutput>, output: LapicOutput) -> bool {
        out.push(output);
        true
    }
}

/// Gives `message` to the APICs it is for. `sender` is the index of the sending APIC, `None` for the I/O
/// APIC. Outputs of the receivers go to `out` with the receiver's index. Gives whether anyone took it.
pub fn route(
    apics: &mut [Lapic],
    sender: Option<usize>,
    shorthand: Shorthand,
    message: &InterruptMessage,
    out: &mut Vec<(usize, LapicOutput)>,
) -> bool {
    let is_target = |index: usize, apic: &Lapic| match shorthand {
        Shorthand::Destination => apic.is_destination(message),
        Shorthand::Itself => Some(index) == sender,
        Shorthand::All => true,
        Shorthand::Others => Some(index) != sender,
    };
    let mut local = Vec::new();
    let mut give = |apics: &mut [Lapic], index: usize| {
        let taken = apics[index].deliver(message, &mut local);
        out.extend(local.drain(..).map(|output| (index, output)));
        taken
    };
    if message.mode == DeliveryMode::LowestPriority {
        let target = (0..apics.len())
            .filter(|&i| is_target(i, &apics[i]))
            .min_by_key(|&i| {
                (
                    !apics[i].is_software_enabled(),
                    apics[i].arbitration(),
                    apics[i].id(),
                )
            });
        return target.is_some_and(|index| give(apics, index));
    }
    let mut taken = false;
    for index in 0..apics.len() {
        if is_target(index, &apics[index]) {
            taken |= give(apics, index);
        }
    }
    taken
}
