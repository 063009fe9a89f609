//! Task switches (SDM vol. 3, chapter 7): JMP, CALL, IRET and task gates between 16- and 32-bit TSSs.

use super::deliver::Event;
use super::descriptor::{Descriptor, selector_code};
use crate::exec::{Exit, Flow, Vcpu, Vector};
use crate::mmu::{Access, TlbIndex};
use crate::state::{Attr, Cr0, Flag, Flags, Segment, gpr, seg};

/// What causes a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// JMP: the old task is no longer busy.
    Jump,
    /// CALL or an event: the new task is nested in the old one.
    Nest,
    /// IRET with NT set: back along the link.
    Return,
}

/// Registers in the order of the TSS: EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
const GPRS: [usize; 8] = [
    gpr::RAX,
    gpr::RCX,
    gpr::RDX,
    gpr::RBX,
    gpr::RSP,
    gpr::RBP,
    gpr::RSI,
    gpr::RDI,
];
/// Segment registers in the order of the TSS.
const SEGS: [usize; 6] = [seg::ES, seg::CS, seg::SS, seg::DS, seg::FS, seg::GS];

impl Vcpu {
    /// An event through a task gate: switches, and pushes the error code on the new task's stack.
    pub(super) fn task_gate(&mut self, selector: u16, event: &Event) -> Flow {
        let code = selector_code(selector);
        if selector & 4 != 0 {
            return self.raise_code(Vector::Gp, code);
        }
        let d = self.descriptor_or(selector, Vector::Gp)?;
        if d.attr().code_or_data() || !matches!(d.attr().kind(), 1 | 9) {
            return self.raise_code(Vector::Gp, code);
        }
        if !d.attr().present() {
            return self.raise_code(Vector::Np, code);
        }
        self.switch_task(selector, d, Switch::Nest)?;
        if let Some(error) = event.code {
            let wide = self.state.segs[seg::TR].attr.kind() & 8 != 0;
            let pushed = if wide {
                self.push(error)
            } else {
                self.push(error as u16)
            };
            pushed.map_err(|_| Exit::FaultHere)?;
        }
        Ok(())
    }

    /// Switches to the task of `selector`, whose descriptor has been checked to be an available (for `Return` a
    /// busy), present TSS. rIP must already point at the instruction to resume the old task with.
    pub(crate) fn switch_task(&mut self, selector: u16, d: Descriptor, why: Switch) -> Flow {
        let code = selector_code(selector);
        let wide = d.attr().kind() & 8 != 0;
        let least = if wide { 0x67 } else { 0x2B };
        if d.limit() < least {
            return self.raise_code(Vector::Ts, code);
        }
        let old = self.state.segs[seg::TR];
        let old_wide = old.attr.kind() & 8 != 0;
        // Everything of both TSSs must be reachable before anything changes.
        let (base, size) = (d.base(), u64::from(least) + 1);
        // Only the link is written to the new one.
        let nest = if why == Switch::Nest {
            Access::Write
        } else {
            Access::Read
        };
        self.probe_system(base, size, nest)?;
        self.probe_system(old.base, if old_wide { 0x68 } else { 0x2C }, Access::Write)?;

        let mut flags = self.state.flags.bits();
        if why == Switch::Return {
            flags &= !(1 << Flag::Nt as u8);
        }
        if why != Switch::Nest {
            self.set_busy(old.selector, false)?;
        }
        self.save_task(&old, old_wide, flags)?;
        if why == Switch::Nest {
            self.store_system(base, old.selector)?;
        }
        let new = self.read_task(base, wide)?;
        if why != Switch::Return {
            self.set_busy(selector, true)?;
        }

        // From here on faults belong to the new task.
        let mut tr = Self::segment_of(selector, &d);
        tr.attr = Attr(tr.attr.0 | 2);
        self.state.segs[seg::TR] = tr;
        self.state.cr0 |= Cr0::TS;
        self.load_task(&new, wide, why)
            .map_err(|e| if e == Exit::Fault { Exit::FaultHere } else { e })
    }

    fn probe_system(&mut self, base: u64, len: u64, access: Access) -> Flow {
        for at in [base, base + len - 1] {
            let linear = self.wrap_linear(at);
            self.translate(linear, access, TlbIndex::Supervisor)?;
        }
        Ok(())
    }

    fn set_busy(&mut self, selector: u16, busy: bool) -> Flow {
        if let Some(d) = self.descriptor(selector & !7)? {
            let byte = (d.high >> 8) as u8;
            let byte = if busy { byte | 2 } else { byte & !2 };
            self.store_system(d.at + 5, byte)?;
        }
        Ok(())
    }

    fn save_task(&mut self, tss: &Segment, wide: bool, flags: u64) -> Flow {
        let rip = self.rip();
        if wide {
            self.store_system(tss.base + 0x20, rip as u32)?;
            self.store_system(tss.base + 0x24, flags as u32)?;
            for (n, g) in GPRS.into_iter().enumerate() {
                self.store_system(tss.base + 0x28 + 4 * n as u64, self.gpr(g) as u32)?;
            }
            for (n, s) in SEGS.into_iter().enumerate() {
                self.store_system(tss.base + 0x48 + 4 * n as u64, self.state.segs[s].selector)?;
            }
        } else {
            self.store_system(tss.base + 0x0E, rip as u16)?;
            self.store_system(tss.base + 0x10, flags as u16)?;
            for (n, g) in GPRS.into_iter().enumerate() {
                self.store_system(tss.base + 0x12 + 2 * n as u64, self.gpr(g) as u16)?;
            }
            for (n, s) in SEGS[..4].iter().enumerate() {
                self.store_system(tss.base + 0x22 + 2 * n as u64, self.state.segs[*s].selector)?;
            }
        }
        Ok(())
    }

    fn read_task(&mut self, base: u64, wide: bool) -> Result<TaskState, Exit> {
        let mut t = TaskState::default();
        if wide {
            t.cr3 = self.load_system::<u32>(base + 0x1C)?;
            t.eip = self.load_system::<u32>(base + 0x20)?;
            t.eflags = self.load_system::<u32>(base + 0x24)?;
            for (n, g) in t.gprs.iter_mut().enumerate() {
                *g = self.load_system::<u32>(base + 0x28 + 4 * n as u64)?;
            }
            for (n, s) in t.segs.iter_mut().enumerate() {
                *s = self.load_system::<u16>(base + 0x48 + 4 * n as u64)?;
            }
            t.ldt = self.load_system::<u16>(base + 0x60)?;
            t.trap = self.load_system::<u16>(base + 0x64)? & 1 != 0;
        } else {
            t.eip = u32::from(self.load_system::<u16>(base + 0x0E)?);
            t.eflags = u32::from(self.load_system::<u16>(base + 0x10)?);
            for (n, g) in t.gprs.iter_mut().enumerate() {
                *g = u32::from(self.load_system::<u16>(base + 0x12 + 2 * n as u64)?) | 0xFFFF_0000;
            }
            for (n, s) in t.segs[..4].iter_mut().enumerate() {
                *s = self.load_system::<u16>(base + 0x22 + 2 * n as u64)?;
            }
            t.ldt = self.load_system::<u16>(base + 0x2A)?;
        }
        Ok(t)
    }

    /// Takes over the new task: first everything that cannot fault, then the segments in the manual's order.
    fn load_task(&mut self, t: &TaskState, wide: bool, why: Switch) -> Flow {
        if wide && self.state.cr0.contains(Cr0::PG) {
            self.set_cr3(u64::from(t.cr3))?;
        }
        self.set_rip(u64::from(t.eip));
        for (n, g) in GPRS.into_iter().enumerate() {
            self.state.regs[g] = u64::from(t.gprs[n]);
        }
        let mut flags = u64::from(t.eflags);
        if why == Switch::Nest {
            flags |= 1 << Flag::Nt as u8;
        }
        self.state.flags = Flags::from_bits(flags);
        self.state.dr[7] &= !0x155;
        self.end_block();

        // Selectors first, so that a fault finds them; hidden parts unusable until they are loaded.
        self.state.segs[seg::LDTR] = Segment::null(t.ldt);
        let v86 = self.state.v86();
        for (n, s) in SEGS.into_iter().enumerate() {
            self.state.segs[s] = if v86 {
                Segment::new(t.segs[n], u64::from(t.segs[n]) << 4, 0xFFFF, Attr::V86)
            } else {
                Segment::null(t.segs[n])
            };
        }
        self.load_ldtr(t.ldt, Vector::Ts)?;
        if v86 {
            self.state.cpl = 3;
            self.refresh_mode();
        } else {
            let (cs, ss) = (t.segs[1], t.segs[2]);
            self.state.cpl = (cs & 3) as u8;
            self.refresh_mode();
            self.load_task_code(cs)?;
            self.state.segs[seg::SS] = self.stack_segment_for(ss, self.state.cpl, Vector::Ts)?;
            self.refresh_mode();
            for (n, s) in SEGS.into_iter().enumerate() {
                if !matches!(s, seg::CS | seg::SS) {
                    let loaded = self.data_segment(t.segs[n]);
                    self.state.segs[s] = self.as_invalid_tss(loaded)?;
                }
            }
        }
        if u64::from(t.eip) > u64::from(self.state.segs[seg::CS].limit) {
            return self.gp0();
        }
        if t.trap {
            self.debug_hits |= super::debug::BT;
            self.reasons |= crate::exec::Reason::DEBUG_TRAP;
        }
        Ok(())
    }

    /// Bad data segments of a task raise #TS where a load would raise #GP.
    fn as_invalid_tss<T>(&mut self, loaded: Result<T, Exit>) -> Result<T, Exit> {
        if loaded.is_err() && self.pending_fault.vector == Vector::Gp {
            self.pending_fault.vector = Vector::Ts;
        }
        loaded
    }

    fn load_task_code(&mut self, selector: u16) -> Flow {
        let code = selector_code(selector);
        let mut d = self.descriptor_or(selector, Vector::Ts)?;
        let (attr, rpl) = (d.attr(), (selector & 3) as u8);
        let level = if attr.conforming() {
            attr.dpl() <= rpl
        } else {
            attr.dpl() == rpl
        };
        if !attr.code() || !level {
            return self.raise_code(Vector::Ts, code);
        }
        if !attr.present() {
            return self.raise_code(Vector::Np, code);
        }
        self.set_accessed(&mut d)?;
        self.set_code_segment(Self::segment_of(selector, &d), rpl);
        Ok(())
    }

    /// Loads LDTR; bad selectors raise `vector`(selector).
    pub(crate) fn load_ldtr(&mut self, selector: u16, vector: Vector) -> Flow {
        if selector & 0xFFFC == 0 {
            self.state.segs[seg::LDTR] = Segment::null(selector);
            return Ok(());
        }
        let code = selector_code(selector);
        if selector & 4 != 0 {
            return self.raise_code(vector, code);
        }
        let d = self.descriptor_or(selector, vector)?;
        if d.attr().code_or_data() || d.attr().kind() != 2 {
            return self.raise_code(vector, code);
        }
        if !d.attr().present() {
            let absent = if vector == Vector::Ts {
                Vector::Ts
            } else {
                Vector::Np
            };
            return self.raise_code(absent, code);
        }
        let mut ldtr = Self::segment_of(selector, &d);
        if self.state.long_mode() {
            ldtr.base = self.long_base(selector, &d)?;
        }
        self.state.segs[seg::LDTR] = ldtr;
        Ok(())
    }
}

/// A task as its TSS holds it.
#[derive(Debug, Default)]
struct TaskState {
    cr3: u32,
    eip: u32,
    eflags: u32,
    gprs: [u32; 8],
    segs: [u16; 6],
    ldt: u16,
    trap: bool,
}
