//! The machine as one vCPU of the cpu-worker process sees it: core complex, io-worker behind its rings.
//!
//! [`MachineBus`] answers every access of the interpreter: from the core complex, from the decode map when nobody
//! claims the address, from a mirror, or by a command to io-worker. What crosses to the other process and
//! how long one waits for it is in `io_client`; the life of the process is in [`worker`].

#[cfg(test)]
mod apic_tests;
mod boot;
mod debugger;
mod decode;
mod io_client;
mod shadow;
mod speaker;
mod timer;
pub mod worker;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::clock::VmClock;
use quintet_protocol::codemap::CodeMapWriter;
use quintet_protocol::invalidation::{INVALIDATIONS_MAX, InvalidationReader, Stale};
use quintet_protocol::shm::View;
use quintet_protocol::time::{HostTime, VmTime};
use quintet_protocol::vram::PAGE_BYTES;
use quintet_protocol::wires::WireReader;

use crate::bus::{Bus, Effects};
use crate::core_complex::{
    Access, CoreComplex, CoreEvent, Effects as CoreEffects, PCI_ELCR, ResetKind, WireSource,
};
use crate::mmu::PageKind;
use crate::vga::{Vga, VgaEffects};

pub use decode::Tables;
use decode::VgaWindow;
pub use io_client::IoClient;
pub use speaker::SpeakerLine;
pub use timer::{TimerArm, TimerThread};

/// What the machine wants of whoever runs the vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The guest asks for a reset.
    Reset(crate::core_complex::ResetCause),
    /// The guest switched the machine off.
    PowerOff,
    /// INIT of this processor.
    Init,
    /// Start-up: real mode at `vector << 12`.
    Sipi(u8),
    /// The coordinator wants something: pause, stop, reset.
    Coordinator,
}

/// The bus of a vCPU. Lives on the vCPU's thread.
#[derive(Debug)]
pub struct MachineBus {
    core: CoreComplex,
    io: IoClient,
    clock: VmClock,
    tables: Tables,
    wires: WireReader,
    code_map: CodeMapWriter,
    invalidations: InvalidationReader,
    rom: View,
    vga: Vga,
    speaker: SpeakerLine,
    timer: TimerArm,
    nmi: bool,
    requests: Vec<Request>,
    /// What io-worker's keyboard controller last said of A20.
    keyboard_a20: bool,
    /// Everything decoded is to be dropped, one page after another.
    drop_all_from: Option<u64>,
    /// How many invalidations are still taken before the vCPU goes on.
    stale_left: u32,
    ram_pages: u64,
}

impl MachineBus {
    /// The bus over the ends that this process holds.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a different end of the shared memory, used once"
    )]
    pub fn new(
        core: CoreComplex,
        io: IoClient,
        clock: VmClock,
        wires: WireReader,
        code_map: CodeMapWriter,
        invalidations: InvalidationReader,
        rom: View,
        vga: Vga,
        speaker: SpeakerLine,
        timer: TimerArm,
        ram_pages: u64,
    ) -> Self {
        code_map.clear(ram_pages);
        Self {
            core,
            io,
            clock,
            tables: Tables::default(),
            wires,
            code_map,
            invalidations,
            rom,
            vga,
            speaker,
            timer,
            nmi: false,
            requests: Vec::new(),
            keyboard_a20: true,
            drop_all_from: None,
            stale_left: 0,
            ram_pages,
        }
    }

    /// The core complex, for start-up and reset.
    pub fn core(&mut self) -> &mut CoreComplex {
        &mut self.core
    }

    /// Takes what the machine wants, oldest first.
    pub fn take_request(&mut self) -> Option<Request> {
        if self.requests.is_empty() {
            None
        } else {
            Some(self.requests.remove(0))
        }
    }

    /// The earliest moment at which a device of the core complex has something to do.
    pub fn next_deadline(&self) -> Option<VmTime> {
        self.core.next_deadline()
    }

    /// Tells the timer thread of that moment; with `idle`, the vCPU wakes itself and the thread may sleep.
    pub fn arm_timer(&mut self, idle: bool) {
        let deadline = if idle { None } else { self.core.next_deadline() };
        self.timer.set_busy(!idle);
        self.timer.arm(deadline);
    }

    /// Takes io-worker's wires, the decode map and A20 as they stand now.
    pub fn resample(&mut self) -> Effects {
        let now = self.clock.now();
        let mut effects = Effects::empty();
        let core = &mut self.core;
        self.wires.changes(|change| {
            let Ok(line) = u8::try_from(change.line) else {
                return;
            };
            if line < 24 {
                if change.edges != 0 {
                    core.set_gsi(now, line, WireSource::IoWorker, false);
                    core.set_gsi(now, line, WireSource::IoWorker, true);
                }
                core.set_gsi(now, line, WireSource::IoWorker, change.high);
                effects |= Effects::INTERRUPT;
            }
        });
        effects | self.refresh_tables() | self.take_events()
    }

    fn refresh_tables(&mut self) -> Effects {
        if !self.io.map_changed(&mut self.tables) {
            return Effects::empty();
        }
        let a20 = self.tables.a20();
        if a20 != self.keyboard_a20 {
            self.keyboard_a20 = a20;
            let _ = self.core.set_keyboard_a20(a20);
        }
        let (enabled, base) = self.tables.pmbase();
        self.core.set_pmbase(enabled, base);
        Effects::VIEW
    }

    /// Takes over what an access to the core complex led to.
    fn core_effects(&mut self, effects: CoreEffects) -> Effects {
        let mut out = Effects::empty();
        if effects.contains(CoreEffects::INTERRUPT) {
            out |= Effects::INTERRUPT;
        }
        if effects.contains(CoreEffects::VIEW) {
            out |= Effects::VIEW;
        }
        if effects.contains(CoreEffects::DEADLINE) {
            self.arm_timer(false);
        }
        if effects.contains(CoreEffects::EVENTS) {
            out |= self.take_events();
        }
        out
    }

    fn take_events(&mut self) -> Effects {
        let mut effects = Effects::empty();
        while let Some(event) = self.core.pop_event() {
            let request = match event {
                CoreEvent::Nmi => {
                    self.nmi = true;
                    effects |= Effects::INTERRUPT;
                    continue;
                }
                CoreEvent::A20(_) => {
                    effects |= Effects::VIEW;
                    continue;
                }
                CoreEvent::Init => Request::Init,
                CoreEvent::StartUp(vector) => Request::Sipi(vector),
                CoreEvent::Reset(cause) => Request::Reset(cause),
                CoreEvent::PowerOff => Request::PowerOff,
            };
            self.requests.push(request);
            effects |= Effects::STOP;
        }
        effects
    }

    /// Before an EOI or an unmask: what has been posted may be the acknowledgement that lowers the line.
    fn drain_before(&mut self, access: Access, value: u64) -> Effects {
        if !self.core.is_io_level_high() || !self.core.would_unmask_or_eoi(access, value) {
            return Effects::empty();
        }
        self.io.drain();
        self.resample()
    }

    /// Resets the devices beside the vCPU, and then leaves them as firmware would if none is to run.
    pub fn restart(&mut self, now: VmTime, kind: ResetKind, firmware_runs: bool) {
        self.core.reset(now, kind);
        let _ = self.vga.reset();
        if !firmware_runs {
            self.core.firmware_state(now, PCI_ELCR);
            let _ = self.vga.firmware_mode3();
        }
        self.speaker.follow(self.core.speaker(now));
        self.requests.clear();
        self.nmi = false;
        self.io.forget_map();
        let _ = self.resample();
        self.arm_timer(false);
    }

    /// Says that the coordinator's state `epoch` has been obeyed, and looked for packets of the debugger up to number `sent`.
    pub fn obey(&mut self, epoch: u32, sent: u32) {
        self.io.obey(epoch, sent);
    }

    /// When the host clock will reach the next deadline; `None` without one, or while VM time stands still.
    pub fn host_deadline(&self) -> Option<HostTime> {
        self.clock.host_deadline(self.core.next_deadline()?)
    }

    /// Whether scan-out wants the vCPU to close display memory.
    pub fn is_frame_begun(&self) -> bool {
        self.vga.vram().is_epoch_wanted()
    }

    /// Whether accesses to `port` are answered here, or need more than the port's number: one string message to the
    /// io-worker would miss them.
    fn answers(&self, port: u16, size: u8) -> bool {
        self.core.claims_port(port, size) || Vga::claims_port(port) || port & 0xFFFC == 0xCFC
    }

    /// What a change of the VGA's registers means to the vCPU, which caches ways into the window while it is `linear`.
    /// The VRAM writer wakes scan-out itself.
    fn vga_effects(&self, linear: bool, changed: VgaEffects) -> Effects {
        if changed.contains(VgaEffects::WINDOW) && (linear || self.vga.window().is_linear()) {
            Effects::VIEW
        } else {
            Effects::empty()
        }
    }

    fn frame_buffer_read(&self, offset: u64, size: u8) -> u64 {
        let memory = self.vga.vram().memory();
        let (at, len) = (offset as usize, usize::from(size));
        let mut bytes = [0xFF; 8];
        if at + len <= memory.len() {
            memory.read_bytes(at, &mut bytes[..len]);
        }
        u64::from_le_bytes(bytes) & u64::MAX >> (64 - 8 * u32::from(size))
    }

    fn frame_buffer_write(&mut self, offset: u64, size: u8, value: u64) {
        let (at, len) = (offset as usize, usize::from(size));
        let vram = self.vga.vram();
        let memory = vram.memory();
        if at + len <= memory.len() {
            memory.write_bytes(at, &value.to_le_bytes()[..len]);
            vram.mark_range(at, len);
        }
    }

    /// After a command that may have moved wires or the map.
    fn after_synchronous(&mut self, effects: Effects) -> Effects {
        effects | self.resample()
    }
}

impl Bus for MachineBus {
    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        let now = self.clock.now();
        if let Some(v) = self.core.port_read(now, port, size) {
            self.arm_timer(false);
            return v;
        }
        if let Some(v) = self.vga.port_read(now, port, size) {
            return v;
        }
        if port & 0xFFFC == 0xCFC {
            let address = self.core.config_address();
            return self.io.pci_read(address, (port & 3) as u8, size);
        }
        self.io.port_read(&self.tables, port, size)
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) -> Effects {
        let mut effects = Effects::empty();
        if self.core.claims_port(port, size) {
            effects |= self.drain_before(Access::Port(port), u64::from(value));
            let now = self.clock.now();
            if let Some(e) = self.core.port_write(now, port, value, size) {
                if SpeakerLine::hears(port, size) {
                    self.speaker.follow(self.core.speaker(now));
                }
                return effects | self.core_effects(e);
            }
        }
        let now = self.clock.now();
        let linear = self.vga.window().is_linear();
        if let Some(changed) = self.vga.port_write(now, port, value, size) {
            return effects | self.vga_effects(linear, changed);
        }
        if port & 0xFFFC == 0xCFC {
            let address = self.core.config_address();
            self.io.pci_write(address, (port & 3) as u8, size, value);
            return self.after_synchronous(effects);
        }
        if self.io.port_write(&self.tables, port, size, value) {
            effects = self.after_synchronous(effects);
        }
        effects
    }

    fn port_in_string(&mut self, port: u16, size: u8, data: &mut [u8]) {
        if self.answers(port, size) || !self.io.string_in(&self.tables, port, size, data) {
            for element in data.chunks_exact_mut(size as usize) {
                let v = self.port_in(port, size).to_le_bytes();
                element.copy_from_slice(&v[..size as usize]);
            }
        }
    }

    fn port_out_string(&mut self, port: u16, size: u8, data: &[u8]) -> Effects {
        if !self.answers(port, size) && self.io.string_out(&self.tables, port, size, data) {
            return Effects::empty();
        }
        let mut effects = Effects::empty();
        for element in data.chunks_exact(size as usize) {
            let mut v = [0; 4];
            v[..size as usize].copy_from_slice(element);
            effects |= self.port_out(port, size, u32::from_le_bytes(v));
        }
        effects
    }

    fn mmio_read(&mut self, addr: GuestPhys, size: u8) -> u64 {
        let now = self.clock.now();
        if let Some(v) = self.core.mmio_read(now, addr, size) {
            return v;
        }
        if Vga::claims(addr) && self.tables.page_kind(addr.page()).is_some() {
            return self.vga.read(addr, size);
        }
        match self.tables.vga(addr) {
            Some(VgaWindow::Memory(offset)) => return self.frame_buffer_read(offset, size),
            Some(VgaWindow::Registers(offset)) => {
                return u64::from(self.vga.bar_read(now, offset, size.min(4)));
            }
            None => {}
        }
        if let Some(at) = self.tables.rom_offset(addr) {
            let mut bytes = [0; 8];
            let len = usize::from(size);
            if at + len <= self.rom.len() {
                self.rom.read_bytes(at, &mut bytes[..len]);
                return u64::from_le_bytes(bytes);
            }
        }
        self.io.mmio_read(&self.tables, addr, size)
    }

    fn mmio_write(&mut self, addr: GuestPhys, size: u8, value: u64) -> Effects {
        let effects = self.drain_before(Access::Mmio(addr), value);
        let now = self.clock.now();
        if let Some(e) = self.core.mmio_write(now, addr, size, value) {
            return effects | self.core_effects(e);
        }
        if Vga::claims(addr) && self.tables.page_kind(addr.page()).is_some() {
            // The VRAM writer wakes scan-out itself, and memory writes do not change the window.
            let _ = self.vga.write(addr, size, value);
            return effects;
        }
        match self.tables.vga(addr) {
            Some(VgaWindow::Memory(offset)) => {
                self.frame_buffer_write(offset, size, value);
                return effects;
            }
            Some(VgaWindow::Registers(offset)) => {
                let linear = self.vga.window().is_linear();
                let changed = self.vga.bar_write(now, offset, value as u32, size.min(4));
                return effects | self.vga_effects(linear, changed);
            }
            None => {}
        }
        if self.io.mmio_write(&self.tables, addr, size, value) {
            return self.after_synchronous(effects);
        }
        effects
    }

    fn peek(&self, addr: GuestPhys) -> Option<u8> {
        if self
            .core
            .mmio_windows()
            .iter()
            .flatten()
            .any(|&(at, len)| addr.0.wrapping_sub(at.0) < len)
        {
            return None;
        }
        let mut byte = [0];
        if let Some(VgaWindow::Memory(offset)) = self.tables.vga(addr) {
            let memory = self.vga.vram().memory();
            let at = usize::try_from(offset).ok().filter(|&at| at < memory.len())?;
            memory.read_bytes(at, &mut byte);
        } else {
            let at = self.tables.rom_offset(addr).filter(|&at| at < self.rom.len())?;
            self.rom.read_bytes(at, &mut byte);
        }
        Some(byte[0])
    }

    fn page_kind(&self, page: u64) -> Option<PageKind> {
        // A guest may move the local APIC over RAM; there it is answered before the memory is asked.
        let apic = self.core.mmio_windows()[0];
        if apic.is_some_and(|(at, _)| at.0 >> 12 == page) {
            return Some(PageKind::Device);
        }
        let kind = self.tables.page_kind(page);
        if kind.is_some() {
            return if kind != Some(PageKind::Device) {
                kind
            } else {
                self.vga.window_page(page).map(PageKind::Vram).or(kind)
            };
        }
        let vram = self.tables.vram_page(page)?;
        // What lies in this process is asked before the map.
        let ours = |window: &Option<(GuestPhys, u64)>| window.is_some_and(|(at, _)| at.page() == page);
        let free = !self.core.mmio_windows().iter().any(ours);
        free.then_some(PageKind::Vram(vram))
    }

    fn a20(&self) -> bool {
        self.core.a20()
    }

    fn poll(&mut self) -> Effects {
        self.stale_left = INVALIDATIONS_MAX + 1;
        let now = self.clock.now();
        self.core.advance(now);
        if self.io.power_button_pressed() {
            self.core.press_power_button(now);
        }
        let effects = self.resample();
        self.arm_timer(false);
        let mut wanted = Effects::INTERRUPT;
        if self.timer.take_beat() {
            wanted |= Effects::STOP;
        }
        if self.io.coordinator_wants() {
            self.requests.push(Request::Coordinator);
            wanted |= Effects::STOP;
        }
        if self.is_frame_begun() {
            wanted |= Effects::FRAME;
        }
        effects | wanted
    }

    fn vram_page(&mut self, page: u64, write: bool) -> Option<*mut u8> {
        let at = usize::try_from(page).ok()?.checked_mul(PAGE_BYTES)?;
        let vram = self.vga.vram();
        let memory = vram.memory();
        if at >= memory.len() {
            return None;
        }
        if write {
            vram.mark(at);
        }
        Some(memory.host_base().wrapping_add(at))
    }

    fn vram_closed(&mut self) {
        self.vga.vram().begin_epoch();
    }

    fn next_invalidation(&mut self) -> Option<u64> {
        if let Some(page) = self.drop_all_from {
            self.drop_all_from = (page + 1 < self.ram_pages).then_some(page + 1);
            return Some(page);
        }
        if self.stale_left == 0 {
            // More than an honest peer can have sent before the vCPU looked. Whoever sends without end would keep it
            // here for ever; the rest is taken before the next block.
            self.io.look_again();
            return None;
        }
        self.stale_left -= 1;
        match self.invalidations.take()? {
            Stale::Page(page) => Some(page),
            Stale::All => {
                // It covers whatever was sent before this look; what comes later has rung the exit word again.
                self.stale_left = 0;
                self.drop_all_from = (self.ram_pages > 1).then_some(1);
                Some(0)
            }
        }
    }

    fn interrupt_pending(&mut self) -> bool {
        self.core.has_interrupt()
    }

    fn acknowledge(&mut self) -> Option<u8> {
        let now = self.clock.now();
        let vector = self.core.acknowledge(now);
        self.arm_timer(false);
        vector
    }

    fn take_nmi(&mut self) -> bool {
        core::mem::take(&mut self.nmi)
    }

    fn set_ferr(&mut self, level: bool) {
        let now = self.clock.now();
        self.core.set_isa_line(now, 13, WireSource::Ferr, level);
    }

    fn msr_read(&mut self, index: u32) -> Option<Result<u64, ()>> {
        let now = self.clock.now();
        self.core.msr_read(now, index).map(|r| r.map_err(|_| ()))
    }

    fn msr_write(&mut self, index: u32, value: u64) -> Option<Result<Effects, ()>> {
        let effects = self.drain_before(Access::Msr(index), value);
        let now = self.clock.now();
        match self.core.msr_write(now, index, value)? {
            Ok(e) => Some(Ok(effects | self.core_effects(e))),
            Err(_) => Some(Err(())),
        }
    }

    fn cr8(&mut self) -> u64 {
        u64::from(self.core.cr8())
    }

    fn set_cr8(&mut self, value: u64) -> Effects {
        let now = self.clock.now();
        let effects = self.core.set_cr8(now, value as u8);
        self.core_effects(effects)
    }

    fn tsc(&mut self) -> u64 {
        let now = self.clock.now();
        self.core.read_tsc(now)
    }

    fn now(&mut self) -> VmTime {
        self.clock.now()
    }

    fn code_page(&mut self, ram_page: u64, has_code: bool) {
        if has_code {
            self.code_map.mark(ram_page);
        } else {
            self.code_map.unmark(ram_page);
        }
    }
}
