//! What a vCPU sees of the machine around it.
//!
//! The interpreter calls this for whatever is not RAM. In the cpu-worker process it is the core complex, the
//! VGA and the ring to io-worker; in tests it is a few lines. A trait object is enough: an access that gets
//! here costs far more than the call.

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::time::VmTime;

use crate::mmu::PageKind;

bitflags::bitflags! {
    /// What an access did to the vCPU's own view of the machine.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Effects: u8 {
        /// The physical map or A20 changed: the vCPU asks for both again and drops its TLB before the next
        /// instruction.
        const VIEW = 1;
        /// An interrupt may have become deliverable: look before the next instruction.
        const INTERRUPT = 2;
        /// The machine is to be reset, powered off, suspended or stopped: the vCPU returns to its caller
        /// after this instruction.
        const STOP = 4;
        /// Scan-out has drawn: the vCPU drops its rights to write display memory, and says so by
        /// [`Bus::vram_closed`].
        const FRAME = 8;
    }
}

/// The machine around a vCPU. Sizes are in bytes: 1, 2, 4 and, for memory, 8.
pub trait Bus: Send + core::any::Any {
    /// Reads a port. Unclaimed ports read as all ones.
    fn port_in(&mut self, port: u16, size: u8) -> u32;

    /// Writes a port.
    fn port_out(&mut self, port: u16, size: u8, value: u32) -> Effects;

    /// Reads `data.len() / size` elements from a port: one REP INS over at most a page.
    fn port_in_string(&mut self, port: u16, size: u8, data: &mut [u8]) {
        for element in data.chunks_exact_mut(size as usize) {
            let v = self.port_in(port, size).to_le_bytes();
            element.copy_from_slice(&v[..size as usize]);
        }
    }

    /// Writes `data.len() / size` elements to a port: one REP OUTS over at most a page.
    fn port_out_string(&mut self, port: u16, size: u8, data: &[u8]) -> Effects {
        let mut effects = Effects::empty();
        for element in data.chunks_exact(size as usize) {
            let mut v = [0; 4];
            v[..size as usize].copy_from_slice(element);
            effects |= self.port_out(port, size, u32::from_le_bytes(v));
        }
        effects
    }

    /// Reads memory that is not RAM. Never crosses a page. Unclaimed memory reads as all ones.
    fn mmio_read(&mut self, addr: GuestPhys, size: u8) -> u64;

    /// Writes memory that is not RAM. Never crosses a page.
    fn mmio_write(&mut self, addr: GuestPhys, size: u8, value: u64) -> Effects;

    /// A byte of memory that is not RAM, where reading it does nothing else: for a debugger.
    fn peek(&self, _addr: GuestPhys) -> Option<u8> {
        None
    }

    /// What lies at guest physical page `page` (address / 4096), when it is not what the RAM layout says:
    /// the map below 1 MiB with PAM and SMRAM, and apertures backed by memory. Asked when a TLB entry is
    /// filled; a change is announced by [`Effects::VIEW`] or from [`Self::poll`].
    fn page_kind(&self, page: u64) -> Option<PageKind>;

    /// Host address of page `page` of display memory, for as long as the bus lives. With `write` the page is marked
    /// for scan-out, and may be written until [`Effects::FRAME`]. `None` when there is no such page.
    fn vram_page(&mut self, _page: u64, _write: bool) -> Option<*mut u8> {
        None
    }

    /// Told that no page of display memory can be written by host pointer any more.
    fn vram_closed(&mut self) {}

    /// Whether address line 20 is open.
    fn a20(&self) -> bool {
        true
    }

    /// Called when the exit word was set: look at timers, wires and invalidations. Answers what changed.
    fn poll(&mut self) -> Effects;

    /// Takes the next guest RAM page whose code an outside writer has overwritten (RAM pages by number).
    fn next_invalidation(&mut self) -> Option<u64> {
        None
    }

    /// Whether a maskable interrupt waits for the vCPU, priority against TPR included. Cheap.
    fn interrupt_pending(&mut self) -> bool {
        false
    }

    /// Acknowledges the interrupt and gives its vector.
    fn acknowledge(&mut self) -> Option<u8> {
        None
    }

    /// Takes a pending NMI.
    fn take_nmi(&mut self) -> bool {
        false
    }

    /// The numeric-error line FERR#: raised by an unmasked x87 exception while CR0.NE = 0, dropped when it is
    /// cleared.
    fn set_ferr(&mut self, _level: bool) {}

    /// Reads an MSR that lives outside the vCPU (local APIC, TSC); `None` when it is not one of those.
    /// `Some(Err(()))` is a #GP.
    fn msr_read(&mut self, _index: u32) -> Option<Result<u64, ()>> {
        None
    }

    /// Writes an MSR that lives outside the vCPU; as [`Self::msr_read`].
    fn msr_write(&mut self, _index: u32, _value: u64) -> Option<Result<Effects, ()>> {
        None
    }

    /// CR8: the local APIC's task priority class, 0–15.
    fn cr8(&mut self) -> u64 {
        0
    }

    /// Writes CR8.
    fn set_cr8(&mut self, _value: u64) -> Effects {
        Effects::empty()
    }

    /// The time-stamp counter.
    fn tsc(&mut self) -> u64;

    /// The VM clock.
    fn now(&mut self) -> VmTime;

    /// Told when a RAM page begins (`true`) or ceases to hold decoded code; it must be visible to every
    /// outside writer when this returns.
    fn code_page(&mut self, _ram_page: u64, _has_code: bool) {}
}
