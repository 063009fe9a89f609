//! The core complex: clocks and interrupt controllers, next to the processor as in KVM.
//!
//! Everything a guest touches thousands of times a second, and everything that decides whether the next
//! instruction is interrupted, is answered inside cpu-worker: 8259 pair, 8254 with port 61h, local APIC,
//! I/O APIC, HPET, real-time clock, ACPI power management, time-stamp counter, ports 92h, CF8h and CF9h.
//! Asking io-worker was rejected: a crossing costs hundreds of guest instructions.
//!
//! All of it is a state machine on VM time: no thread, no host clock, nothing ticks. The run loop calls
//! [`CoreComplex::advance`] when [`CoreComplex::next_deadline`] has passed, and asks
//! [`CoreComplex::interrupt_pending`] between instructions; the answer is a cached bool. This file is the
//! wiring (that of QEMU's pc machine); `front` is what accesses meet.

pub mod acpi_pm;
pub mod calendar;
mod front;
pub mod hpet;
pub mod ioapic;
pub mod lapic;
pub mod pic;
pub mod pit;
mod pit_channel;
pub mod reset;
pub mod rtc;
pub mod snapshot;
pub mod tsc;
pub mod wires;
mod wiring;

use std::collections::VecDeque;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::RamLayout;
use quintet_protocol::speaker::Waves;
use quintet_protocol::time::VmTime;

use acpi_pm::AcpiPm;
use hpet::{HPET_BASE, HPET_LEN, Hpet, HpetInterrupt, HpetLine, TIMERS};
use ioapic::{IOAPIC_BASE, IOAPIC_LEN, InterruptMessage, IoApic};
use lapic::ipi::{Shorthand, route};
use lapic::{Lapic, LapicOutput};
use pic::Pic;
use pit::Pit;
use reset::ResetPorts;
use rtc::Rtc;
use snapshot::Snapshot;
use tsc::Tsc;
pub use wires::WireSource;
use wires::Wires;

pub use front::Access;
pub use lapic::{GeneralProtection, LAPIC_TIMER_HZ};

/// IRQ lines a PC BIOS gives to PCI, as ELCR bits: 10 and 11.
pub const PCI_ELCR: u16 = 1 << 10 | 1 << 11;

bitflags::bitflags! {
    /// What an access may have changed for the vCPU, to be looked at before its next instruction.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Effects: u8 {
        /// An interrupt is pending: look at [`CoreComplex::interrupt_pending`].
        const INTERRUPT = 1;
        /// [`CoreComplex::pop_event`] has something.
        const EVENTS = 2;
        /// [`CoreComplex::next_deadline`] changed: the timer thread must hear of it.
        const DEADLINE = 4;
        /// The map of memory changed (A20, IA32_APIC_BASE): translations of physical addresses are stale.
        const VIEW = 8;
    }
}

/// Why the guest asked for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetCause {
    /// Port 92h bit 0.
    Port92,
    /// CF9h with a soft reset.
    Cf9Soft,
    /// CF9h with a hard reset.
    Cf9Hard,
}

/// Something for the vCPU or the machine, in order of occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreEvent {
    /// Non-maskable interrupt.
    Nmi,
    /// INIT of this processor; its local APIC has been reset already.
    Init,
    /// Start-up: real mode at `vector << 12`. Counts only while waiting for it.
    StartUp(u8),
    /// The A20 gate: open (true) passes address line 20.
    A20(bool),
    /// The guest asks for a reset of the machine.
    Reset(ResetCause),
    /// The guest switched the machine off (ACPI S5).
    PowerOff,
}

/// Kinds of reset (design: RAM and CMOS stay in both).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// As after power-on; the shutdown byte and the memory sizes in CMOS are set anew.
    Cold,
    /// CMOS stays to the byte.
    Warm,
}

/// What the complex must know of its machine.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Rate of the time-stamp counter in Hz, also told in CPUID.
    pub tsc_hz: u64,
    /// What the real-time clock shows at VM time zero, in nanoseconds since 1970.
    pub unix_nanos: i128,
    /// How much RAM the CMOS tells of.
    pub ram: RamLayout,
    /// Width of physical addresses, 36 to 52 bits.
    pub phys_bits: u32,
    /// What else the CMOS tells: index (0Eh to 7Fh) and value.
    pub cmos: Vec<(u8, u8)>,
}

/// The core complex of one machine with one processor.
#[derive(Debug)]
pub struct CoreComplex {
    config: CoreConfig,
    pub(crate) pic: Pic,
    pub(crate) pit: Pit,
    pub(crate) lapics: Vec<Lapic>,
    pub(crate) ioapic: IoApic,
    pub(crate) hpet: Hpet,
    pub(crate) rtc: Rtc,
    pub(crate) pm: AcpiPm,
    pub(crate) tsc: Tsc,
    pub(crate) reset: ResetPorts,
    wires: Wires,
    /// Registers 60h to 63h of the PIIX.
    pirq_routing: [u8; 4],
    pirq_levels: [bool; 4],
    /// The line each HPET timer holds up.
    hpet_held: [Option<u8>; TIMERS],
    events: VecDeque<CoreEvent>,
    /// Messages of the I/O APIC under way; empty between calls.
    messages: Vec<InterruptMessage>,
    /// No local APIC took a level interrupt: it is offered again when one changes.
    refused: bool,
    pending: bool,
    /// `u64::MAX` when there is none.
    deadline: VmTime,
}

/// State of the whole complex.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CoreComplexState {
    pic: pic::PicState,
    pit: pit::PitState,
    lapic: lapic::LapicState,
    ioapic: ioapic::IoApicState,
    hpet: hpet::HpetState,
    rtc: rtc::RtcState,
    pm: acpi_pm::AcpiPmState,
    tsc: tsc::TscState,
    reset: reset::ResetState,
    wires: Wires,
    pirq_routing: [u8; 4],
    pirq_levels: [bool; 4],
    hpet_held: [Option<u8>; TIMERS],
}

impl CoreComplex {
    /// The complex as at power-on.
    pub fn new(config: CoreConfig) -> Self {
        let mut rtc = Rtc::new(config.unix_nanos);
        rtc.set_memory(config.ram);
        let mut complex = Self {
            pic: Pic::new(),
            pit: Pit::new(),
            lapics: vec![Lapic::new(0, config.phys_bits)],
            ioapic: IoApic::new(),
            hpet: Hpet::new(),
            rtc,
            pm: AcpiPm::new(),
            tsc: Tsc::new(config.tsc_hz),
            reset: ResetPorts::new(),
            wires: Wires::default(),
            pirq_routing: [0x80; 4],
            pirq_levels: [false; 4],
            hpet_held: [None; TIMERS],
            events: VecDeque::new(),
            messages: Vec::new(),
            refused: false,
            pending: false,
            deadline: VmTime(u64::MAX),
            config,
        };
        complex.refresh(VmTime(0));
        complex
    }

    /// Resets every device. Levels on the wires stay: they belong to whoever drives them.
    pub fn reset(&mut self, now: VmTime, kind: ResetKind) {
        self.advance(now);
        self.pic.reset();
        self.pit.reset();
        self.ioapic.reset();
        self.hpet.reset();
        self.rtc.reset(now);
        self.pm.reset(now);
        self.reset.reset();
        for lapic in &mut self.lapics {
            lapic.reset();
        }
        self.tsc.reset(now);
        if kind == ResetKind::Cold {
            self.rtc.set_cmos(rtc::SHUTDOWN_STATUS, 0);
            self.rtc.set_memory(self.config.ram);
            for &(index, value) in &self.config.cmos {
                self.rtc.set_cmos(index, value);
            }
        }
        self.events.clear();
        self.refresh(now);
    }

    /// The state a PC BIOS leaves: vectors 08h and 70h with IRQ 0, 1, 2 and 8 open, `elcr` level lines
    /// ([`PCI_ELCR`]), 18.2 ticks a second, 8259 through LINT0 as ExtINT, LINT1 as NMI, A20 open.
    pub fn firmware_state(&mut self, now: VmTime, elcr: u16) {
        self.pic.firmware_state(elcr);
        self.pit.firmware_state(now);
        self.lapics[0].firmware_state();
        self.reset.set_a20(true);
        self.refresh(now);
    }

    // ---- time -----------------------------------------------------------------------------------------

    /// When [`Self::advance`] must be called next; `None` when no device waits for anything.
    pub fn next_deadline(&self) -> Option<VmTime> {
        (self.deadline.0 != u64::MAX).then_some(self.deadline)
    }

    /// Lets every device do what was due by `now`.
    pub fn advance(&mut self, now: VmTime) {
        self.pit.advance(now);
        self.rtc.advance(now);
        self.pm.advance(now);
        for lapic in &mut self.lapics {
            lapic.advance(now, &self.tsc);
        }
        self.advance_hpet(now);
        self.refresh(now);
    }

    /// Before an access: nothing it can see is older than `now`.
    fn catch_up(&mut self, now: VmTime) {
        if now >= self.deadline {
            self.advance(now);
        } else if !self.is_pit_heard() {
            self.pit.advance(now);
            self.deliver_pit(self.hpet.is_legacy());
        }
    }

    fn advance_hpet(&mut self, now: VmTime) {
        let mut fired: Vec<HpetInterrupt> = Vec::new();
        self.hpet.advance(now, &mut fired);
        for interrupt in fired {
            if let Some(line) = interrupt.line
                && !self.hpet.is_level(interrupt.timer)
            {
                self.pulse_as(Self::hpet_wire(line), WireSource::hpet(interrupt.timer));
            }
        }
    }

    fn hpet_wire(line: HpetLine) -> u8 {
        match line {
            HpetLine::Irq0 => 0,
            HpetLine::Irq8 => 8,
            HpetLine::Gsi(gsi) => gsi,
        }
    }

    // ---- interrupts to the vCPU -----------------------------------------------------------------------

    /// Whether an interrupt waits for the processor to open itself. A cached answer unless a deadline has
    /// passed.
    #[inline]
    pub fn interrupt_pending(&mut self, now: VmTime) -> bool {
        if now >= self.deadline {
            self.advance(now);
        }
        self.pending
    }

    /// The cached answer, for callers that call [`Self::advance`] themselves when the timer says so.
    #[inline]
    pub fn has_interrupt(&self) -> bool {
        self.pending
    }

    /// The processor takes the interrupt: its vector, or `None` when it has gone again.
    pub fn acknowledge(&mut self, now: VmTime) -> Option<u8> {
        if !self.interrupt_pending(now) {
            return None;
        }
        let lapic = &mut self.lapics[0];
        let vector = if lapic.pending().is_some() {
            lapic.acknowledge()
        } else {
            lapic.extint_taken();
            self.pic.acknowledge()
        };
        self.refresh(now);
        Some(vector)
    }

    /// The oldest event not yet taken.
    pub fn pop_event(&mut self) -> Option<CoreEvent> {
        self.events.pop_front()
    }

    /// CR8 of the processor, 0 to 15.
    #[inline]
    pub fn cr8(&self) -> u8 {
        self.lapics[0].cr8()
    }

    /// A write of CR8, 0 to 15; reserved bits are the caller's to refuse.
    pub fn set_cr8(&mut self, now: VmTime, value: u8) -> Effects {
        let before = self.deadline;
        self.lapics[0].set_cr8(value & 15);
        self.refresh(now);
        self.effects(before)
    }

    // ---- other inputs ---------------------------------------------------------------------------------

    /// The power button is pressed (once, not held).
    pub fn press_power_button(&mut self, now: VmTime) {
        self.pm.press_power_button();
        self.refresh(now);
    }

    /// A general-purpose event of ACPI, 0 to 15.
    pub fn raise_gpe(&mut self, now: VmTime, bit: u8) {
        self.pm.raise_gpe(bit);
        self.refresh(now);
    }

    /// An NMI from the chipset: LINT1, unless port 70h masks it.
    pub fn raise_nmi(&mut self, now: VmTime) {
        if self.rtc.nmi_masked() {
            return;
        }
        if !self.lapics[0].is_enabled() {
            self.events.push_back(CoreEvent::Nmi);
            return;
        }
        let mut out = Vec::new();
        self.lapics[0].set_lint(1, true, &mut out);
        self.lapics[0].set_lint(1, false, &mut out);
        self.take_outputs(out.into_iter().map(|output| (0, output)).collect());
        self.refresh(now);
    }

    /// The keyboard controller moved its A20 gate.
    pub fn set_keyboard_a20(&mut self, open: bool) -> Effects {
        if !self.reset.set_a20(open) {
            return Effects::empty();
        }
        self.events.push_back(CoreEvent::A20(open));
        Effects::EVENTS | Effects::VIEW
    }

    /// Whether address line 20 passes.
    pub fn a20(&self) -> bool {
        self.reset.a20()
    }

    /// PCI configuration moved the ACPI block: its first port while it is decoded.
    pub fn set_pmbase(&mut self, enabled: bool, base: u16) {
        self.pm.set_base(enabled.then_some(base));
    }

    /// Sets a byte of CMOS RAM from 0Eh on, as the machine's builder does.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        self.rtc.set_cmos(index, value);
    }

    /// A byte of CMOS RAM; [`rtc::SHUTDOWN_STATUS`] decides what a reset does.
    pub fn cmos(&self, index: u8) -> u8 {
        self.rtc.cmos(index)
    }

    /// The PCI configuration address latched at CF8h.
    pub fn config_address(&self) -> u32 {
        self.reset.config_address()
    }

    /// How the speaker's line goes on from `now` if nothing is written.
    pub fn speaker(&mut self, now: VmTime) -> Waves {
        self.pit.speaker(now)
    }

    /// The time-stamp counter at `now`, for RDTSC.
    #[inline]
    pub fn read_tsc(&self, now: VmTime) -> u64 {
        self.tsc.read(now)
    }

    /// Rate of the time-stamp counter in Hz.
    pub fn tsc_hz(&self) -> u64 {
        self.tsc.hz()
    }

    /// Whether IA32_APIC_BASE enables the local APIC: CPUID leaf 1 EDX bit 9.
    pub fn is_apic_enabled(&self) -> bool {
        self.lapics[0].is_enabled()
    }

    /// The windows of guest physical memory that are answered here, as (start, bytes). The first moves with
    /// IA32_APIC_BASE and is missing while the APIC is off or in x2APIC mode.
    pub fn mmio_windows(&self) -> [Option<(GuestPhys, u64)>; 3] {
        [
            self.lapics[0].mmio_base().map(|base| (GuestPhys(base), 0x1000)),
            Some((GuestPhys(IOAPIC_BASE), IOAPIC_LEN)),
            Some((GuestPhys(HPET_BASE), HPET_LEN)),
        ]
    }

    // ---- keeping what follows from the registers ------------------------------------------------------

    /// Brings wires, controllers, the pending interrupt and the deadline up to date after any change.
    fn refresh(&mut self, now: VmTime) {
        let legacy = self.hpet.is_legacy();
        self.set_wire(8, WireSource::Rtc, self.rtc.irq() && !legacy);
        self.set_wire(9, WireSource::Sci, self.pm.sci());
        for timer in 0..TIMERS {
            let line = self
                .hpet
                .line(timer)
                .filter(|_| self.hpet.level(timer))
                .map(Self::hpet_wire);
            let held = core::mem::replace(&mut self.hpet_held[timer], line);
            if held != line {
                if let Some(old) = held {
                    self.set_wire(old, WireSource::hpet(timer), false);
                }
                if let Some(new) = line {
                    self.set_wire(new, WireSource::hpet(timer), true);
                }
            }
        }
        self.deliver_pit(legacy);
        self.deliver_messages();
        self.update_lint0();
        let lapic = &self.lapics[0];
        self.pending = lapic.pending().is_some()
            || (lapic.accepts_extint() || lapic.extint_latched()) && self.pic.int_output();
        self.deadline = [
            // Nobody is woken for ticks that nobody hears: an idle guest with another timer sleeps on.
            self.pit
                .next_deadline()
                .filter(|_| !legacy && self.is_pit_heard()),
            self.rtc.next_deadline(),
            self.hpet.next_deadline(now),
            self.pm.next_deadline(),
            lapic.next_deadline(now, &self.tsc),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(VmTime(u64::MAX));
    }

    /// The ways by which a tick of the 8254 can reach the processor: 8259 pair, I/O APIC.
    fn pit_ways(&self) -> (bool, bool) {
        let lapic = &self.lapics[0];
        (
            !self.pic.is_masked(0) && lapic.is_lint0_open(),
            !self.ioapic.is_masked(2) && lapic.is_software_enabled(),
        )
    }

    fn is_pit_heard(&self) -> bool {
        self.pit_ways() != (false, false)
    }

    /// Hands over the oldest owed tick of the 8254 once the one before it has been taken. Where the guest
    /// takes none they are lost but for the edge that stays latched, as on hardware.
    fn deliver_pit(&mut self, legacy: bool) {
        if self.pit.owed() == 0 {
            return;
        }
        if legacy {
            self.pit.drop_owed();
            return;
        }
        let (through_pic, through_apic) = self.pit_ways();
        let lapic = &self.lapics[0];
        if !through_pic && !through_apic {
            self.pit.drop_owed();
            self.pulse_as(0, WireSource::Pit);
            return;
        }
        let waits = through_pic && self.pic.is_requested(0)
            || through_apic
                && self
                    .ioapic
                    .vector(2)
                    .is_some_and(|vector| lapic.is_requested(vector));
        if !waits {
            self.pit.tick_delivered();
            self.pulse_as(0, WireSource::Pit);
        }
    }

    fn update_lint0(&mut self) {
        let mut out = Vec::new();
        let level = self.pic.int_output();
        self.lapics[0].set_lint(0, level, &mut out);
        self.take_outputs(out.into_iter().map(|output| (0, output)).collect());
    }

    fn deliver_messages(&mut self) {
        let mut outputs = Vec::new();
        self.route_messages(&mut outputs);
        if !outputs.is_empty() {
            self.take_outputs(outputs);
        }
    }

    /// Gives the messages of the I/O APIC to the local APICs.
    fn route_messages(&mut self, outputs: &mut Vec<(usize, LapicOutput)>) {
        while let Some(message) = self.messages.pop() {
            let taken = route(&mut self.lapics, None, Shorthand::Destination, &message, outputs);
            if !taken && message.level {
                self.ioapic.refused(message.vector);
                self.refused = true;
            }
        }
    }

    /// After a write to a local APIC: level interrupts that none took before are offered again.
    fn retry_refused(&mut self) {
        if core::mem::take(&mut self.refused) {
            self.ioapic.retry(&mut self.messages);
        }
    }

    /// Acts on what local APICs gave out. An EOI can free a level input that fires again; that ends,
    /// because it cannot fire once more before the next EOI.
    fn take_outputs(&mut self, mut outputs: Vec<(usize, LapicOutput)>) {
        while !outputs.is_empty() {
            let mut next = Vec::new();
            for (index, output) in outputs.drain(..) {
                match output {
                    LapicOutput::Ipi { message, shorthand } => {
                        route(&mut self.lapics, Some(index), shorthand, &message, &mut next);
                    }
                    LapicOutput::Eoi(vector) => self.ioapic.end_of_interrupt(vector, &mut self.messages),
                    LapicOutput::Nmi => self.events.push_back(CoreEvent::Nmi),
                    LapicOutput::Init => {
                        self.lapics[index].init();
                        self.events.push_back(CoreEvent::Init);
                    }
                    LapicOutput::StartUp(vector) => self.events.push_back(CoreEvent::StartUp(vector)),
                    // There is no system management mode.
                    LapicOutput::Smi => {}
                }
            }
            self.route_messages(&mut next);
            outputs = next;
        }
    }

    fn effects(&self, deadline_before: VmTime) -> Effects {
        let mut effects = Effects::empty();
        effects.set(Effects::INTERRUPT, self.pending);
        effects.set(Effects::EVENTS, !self.events.is_empty());
        effects.set(Effects::DEADLINE, self.deadline != deadline_before);
        effects
    }
}

impl Snapshot for CoreComplex {
    const KIND: &'static str = "core-complex";
    const VERSION: u16 = 1;
    type State = CoreComplexState;

    fn save(&self) -> CoreComplexState {
        CoreComplexState {
            pic: self.pic.save(),
            pit: self.pit.save(),
            lapic: self.lapics[0].save(),
            ioapic: self.ioapic.save(),
            hpet: self.hpet.save(),
            rtc: self.rtc.save(),
            pm: self.pm.save(),
            tsc: self.tsc.save(),
            reset: self.reset.save(),
            wires: self.wires.clone(),
            pirq_routing: self.pirq_routing,
            pirq_levels: self.pirq_levels,
            hpet_held: self.hpet_held,
        }
    }

    /// Events not yet taken are not state: the vCPU takes them before it is saved. The caller advances to
    /// the present afterwards, which also computes what follows from the registers.
    fn restore(&mut self, state: CoreComplexState) {
        self.pic.restore(state.pic);
        self.pit.restore(state.pit);
        self.lapics[0].restore(state.lapic);
        self.ioapic.restore(state.ioapic);
        self.hpet.restore(state.hpet);
        self.rtc.restore(state.rtc);
        self.pm.restore(state.pm);
        self.tsc.restore(state.tsc);
        self.reset.restore(state.reset);
        self.wires = state.wires;
        self.pirq_routing = state.pirq_routing;
        self.pirq_levels = state.pirq_levels;
        self.hpet_held = state.hpet_held;
        self.events.clear();
        self.refused = true;
        // Zero lies in the past of every deadline: the next look advances.
        (self.pending, self.deadline) = (false, VmTime(0));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
mod hostile_tests;
