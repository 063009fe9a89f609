//! The local APIC: SDM vol. 3 chapter 11 ("Advanced Programmable Interrupt Controller").
//!
//! xAPIC registers and x2APIC MSRs are one register file with two doors (`regs`); what decides which
//! interrupt the processor sees is in `priority`, the timer in `timer`, what leaves for other processors in
//! `ipi`. Nothing here knows the I/O APIC or the 8259A: those are reached through what the calls give back.

pub mod ipi;
mod priority;
mod regs;
mod timer;

use quintet_protocol::time::VmTime;

use super::ioapic::InterruptMessage;
use super::snapshot::Snapshot;
use super::tsc::Tsc;

pub use regs::{GeneralProtection, reg};
pub use timer::LAPIC_TIMER_HZ;

/// Where the registers lie unless the guest moves them (IA32_APIC_BASE at reset).
pub const LAPIC_DEFAULT_BASE: u64 = 0xFEE0_0000;
/// IA32_APIC_BASE: this is the bootstrap processor.
const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode.
const BASE_X2APIC: u64 = 1 << 10;
/// IA32_APIC_BASE: the APIC is enabled at all.
const BASE_ENABLE: u64 = 1 << 11;

/// Indices into [`LapicState::lvt`].
pub(crate) mod lvt {
    pub const TIMER: usize = 0;
    pub const THERMAL: usize = 1;
    pub const PERFORMANCE: usize = 2;
    pub const LINT0: usize = 3;
    pub const LINT1: usize = 4;
    pub const ERROR: usize = 5;
    /// Mask bit of every entry.
    pub const MASKED: u32 = 1 << 16;
    /// Trigger mode bit of the LINT entries.
    pub const LEVEL: u32 = 1 << 15;
    /// Remote IRR of the LINT entries.
    pub const REMOTE_IRR: u32 = 1 << 14;
}

/// What a local APIC asks the rest of the machine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LapicOutput {
    /// An interrupt message for the APICs of `message`'s destination.
    Ipi {
        /// The message.
        message: InterruptMessage,
        /// Which APICs it is for.
        shorthand: ipi::Shorthand,
    },
    /// A level interrupt with this vector was ended: the I/O APIC hears of it.
    Eoi(u8),
    /// This processor takes an NMI.
    Nmi,
    /// This processor takes an INIT.
    Init,
    /// This processor takes a start-up message: real mode at `vector << 12`.
    StartUp(u8),
    /// This processor takes an SMI.
    Smi,
}

/// Registers of a local APIC.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LapicState {
    apic_base: u64,
    id: u32,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    irr: [u32; 8],
    isr: [u32; 8],
    tmr: [u32; 8],
    esr: u32,
    esr_pending: u32,
    icr: u64,
    lvt: [u32; 6],
    /// Levels of LINT0 and LINT1.
    lint: [bool; 2],
    /// An I/O APIC sent an ExtINT message that is not yet acknowledged.
    extint_latched: bool,
    timer: timer::TimerState,
}

/// A local APIC. Calls that do something beyond it push [`LapicOutput`]s onto `out`.
#[derive(Clone, Debug)]
pub struct Lapic {
    state: LapicState,
    /// Physical address bits, for the reserved bits of IA32_APIC_BASE.
    phys_bits: u32,
    /// Highest vector in the IRR, recomputed when it changes.
    highest_request: Option<u8>,
    /// Highest vector in the ISR.
    highest_service: Option<u8>,
}

impl Lapic {
    /// The APIC of processor `id` after power-on; number 0 is the bootstrap processor. `phys_bits` is
    /// the width of physical addresses that CPUID tells, 36 to 52.
    pub fn new(id: u32, phys_bits: u32) -> Self {
        let bsp = if id == 0 { BASE_BSP } else { 0 };
        let state = LapicState {
            apic_base: LAPIC_DEFAULT_BASE | BASE_ENABLE | bsp,
            id,
            tpr: 0,
            ldr: 0,
            dfr: 0xFFFF_FFFF,
            svr: 0xFF,
            irr: [0; 8],
            isr: [0; 8],
            tmr: [0; 8],
            esr: 0,
            esr_pending: 0,
            icr: 0,
            lvt: [lvt::MASKED; 6],
            lint: [false; 2],
            extint_latched: false,
            timer: timer::TimerState::default(),
        };
        Self {
            state,
            phys_bits: phys_bits.clamp(36, 52),
            highest_request: None,
            highest_service: None,
        }
    }

    /// Power-on. The levels of LINT0 and LINT1 stay, since they are not the APIC's.
    pub fn reset(&mut self) {
        let lint = self.state.lint;
        *self = Self::new(self.state.id, self.phys_bits);
        self.state.lint = lint;
    }

    /// INIT: as power-on but IA32_APIC_BASE and the APIC ID stay (SDM vol. 3 §11.4.7.3).
    pub fn init(&mut self) {
        let base = self.state.apic_base;
        self.reset();
        self.state.apic_base = base;
    }

    /// What a PC BIOS leaves on the bootstrap processor: enabled, LINT0 as ExtINT, LINT1 as NMI.
    pub fn firmware_state(&mut self) {
        self.state.svr = 0x1FF;
        self.state.lvt[lvt::LINT0] = 0x0700;
        self.state.lvt[lvt::LINT1] = 0x0400;
    }

    /// The APIC ID.
    pub fn id(&self) -> u32 {
        self.state.id
    }

    /// Whether IA32_APIC_BASE enables the APIC: CPUID leaf 1 EDX bit 9 tells the same.
    pub fn is_enabled(&self) -> bool {
        self.state.apic_base & BASE_ENABLE != 0
    }

    /// Whether the APIC is in x2APIC mode.
    pub fn is_x2apic(&self) -> bool {
        self.state.apic_base & (BASE_ENABLE | BASE_X2APIC) == BASE_ENABLE | BASE_X2APIC
    }

    /// Guest physical address of the register page, in bytes; `None` when there is none to be seen.
    pub fn mmio_base(&self) -> Option<u64> {
        (self.is_enabled() && !self.is_x2apic()).then_some(self.state.apic_base & !0xFFF)
    }

    /// Drives LINT0 (0) or LINT1 (1). The mode of its LVT entry decides what a rise or level does; ExtINT
    /// is a matter of [`Self::accepts_extint`].
    pub fn set_lint(&mut self, pin: usize, level: bool, out: &mut Vec<LapicOutput>) {
        let pin = pin & 1;
        let was = core::mem::replace(&mut self.state.lint[pin], level);
        self.service_lint(pin, level && !was, out);
    }

    /// Whether the INT output of the 8259A reaches the processor: the APIC is off, or LINT0 is unmasked in
    /// ExtINT mode.
    pub fn accepts_extint(&self) -> bool {
        let entry = self.state.lvt[lvt::LINT0];
        !self.is_enabled() || entry & (lvt::MASKED | 0x700) == 0x700
    }

    /// Whether the INT output of the 8259A has any way to the processor: ExtINT, or LINT0 in another mode.
    pub fn is_lint0_open(&self) -> bool {
        !self.is_enabled() || self.state.lvt[lvt::LINT0] & lvt::MASKED == 0
    }

    /// Whether an I/O APIC sent an ExtINT message that waits.
    pub fn extint_latched(&self) -> bool {
        self.state.extint_latched
    }

    /// The processor acknowledged at the 8259A.
    pub fn extint_taken(&mut self) {
        self.state.extint_latched = false;
    }

    /// Delivers what the timer owes up to `now`. Late periods of a periodic timer merge into one.
    pub fn advance(&mut self, now: VmTime, tsc: &Tsc) {
        if self.timer_expired(now, tsc) {
            self.fire_lvt(lvt::TIMER);
        }
    }

    fn service_lint(&mut self, pin: usize, rose: bool, out: &mut Vec<LapicOutput>) {
        if !self.is_enabled() {
            return;
        }
        let index = lvt::LINT0 + pin;
        let entry = self.state.lvt[index];
        if entry & lvt::MASKED != 0 {
            return;
        }
        match entry >> 8 & 7 {
            0 => {
                let level = entry & lvt::LEVEL != 0;
                if level && self.state.lint[pin] && entry & lvt::REMOTE_IRR == 0 {
                    self.state.lvt[index] |= lvt::REMOTE_IRR;
                    self.accept(entry as u8, true);
                } else if !level && rose {
                    self.accept(entry as u8, false);
                }
            }
            2 if rose => out.push(LapicOutput::Smi),
            4 if rose => out.push(LapicOutput::Nmi),
            5 if rose => out.push(LapicOutput::Init),
            _ => {}
        }
    }

    /// Raises a local interrupt whose entry has only a vector and a delivery mode.
    fn fire_lvt(&mut self, index: usize) {
        let entry = self.state.lvt[index];
        if entry & lvt::MASKED == 0 {
            self.accept(entry as u8, false);
        }
    }

    /// Notes errors for the ESR (SDM vol. 3 §11.5.3) and raises the error interrupt.
    fn error(&mut self, bits: u32) {
        self.state.esr_pending |= bits;
        let entry = self.state.lvt[lvt::ERROR];
        // A bad vector in the error entry itself is noted but must not raise the interrupt again.
        if entry & lvt::MASKED == 0 && entry as u8 >= 16 {
            self.accept(entry as u8, false);
        }
    }
}

impl Snapshot for Lapic {
    const KIND: &'static str = "lapic";
    const VERSION: u16 = 1;
    type State = LapicState;

    fn save(&self) -> LapicState {
        self.state.clone()
    }

    fn restore(&mut self, state: LapicState) {
        self.state = state;
        self.recompute();
    }
}

#[cfg(test)]
mod tests;
