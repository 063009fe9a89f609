//! Delivery of exceptions and interrupts through the IVT or IDT.

use crate::exec::Vcpu;
use crate::state::{Activity, Flag, seg};

impl Vcpu {
    /// Delivers [`Vcpu::pending_fault`], rIP being where it belongs.
    pub(crate) fn deliver_fault(&mut self) {
        let vector = self.pending_fault.vector as u8;
        self.deliver_interrupt(vector);
    }

    /// Delivers an external interrupt or NMI.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8) {
        if self.real_interrupt(vector).is_err() {
            self.state.activity = Activity::Shutdown;
        }
    }

    fn real_interrupt(&mut self, vector: u8) -> crate::exec::Flow {
        let at = self.state.idtr.base + u64::from(vector) * 4;
        let target: u32 = self.load_system(at)?;
        let flags = self.state.flags.bits() as u16;
        let cs = self.state.segs[seg::CS].selector;
        let ip = self.rip() as u16;
        self.push(flags)?;
        self.push(cs)?;
        self.push(ip)?;
        self.state.flags.set(Flag::If, false);
        self.state.flags.set(Flag::Tf, false);
        self.state.segs[seg::CS].selector = (target >> 16) as u16;
        self.state.segs[seg::CS].base = u64::from(target >> 16) << 4;
        self.set_rip(u64::from(target & 0xFFFF));
        Ok(())
    }
}
