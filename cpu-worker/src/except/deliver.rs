//! Delivery of exceptions and interrupts through the IVT or IDT (SDM vol. 3, chapter 6).
//!
//! A delivery computes and stores everything first and changes registers last, so that an exception on the way
//! finds the state of the interrupted program.

use super::descriptor::{Descriptor, selector_code};
use crate::exec::{Exit, Flow, Int, Reason, Vcpu, Vector};
use crate::mmu::TlbIndex;
use quintet_protocol::profile::Activity as Doing;
use quintet_protocol::trace::Kind;

use crate::state::{Activity, Attr, DescriptorTable, Flag, Flags, Segment, Shadow, gpr, seg};

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// INT n, INT3, INTO: gates are checked against CPL.
    Software,
    /// INT1 (F1): no check of the gate's DPL, otherwise a trap.
    Icebp,
    /// The processor found a fault.
    Exception,
    /// NMI or an interrupt controller.
    External,
}

/// An event to deliver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub vector: u8,
    pub code: Option<u32>,
    pub source: Source,
    /// Whether the flags are pushed with RF set, so that the instruction does not meet its breakpoint again: faults,
    /// but for those that are such breakpoints.
    pub resume: bool,
}

/// Kinds of exceptions for the double-fault rules (SDM vol. 3, table 6-5).
fn is_contributory(vector: u8) -> bool {
    matches!(vector, 0 | 10..=13)
}

impl Vcpu {
    /// Delivers [`Vcpu::pending_fault`], rIP being where it belongs.
    pub(crate) fn deliver_fault(&mut self) {
        self.forget_hits();
        let event = self.pending_event();
        self.deliver(event);
    }

    /// Delivers the #DB that is due after an instruction.
    pub(crate) fn deliver_debug_trap(&mut self) {
        self.reasons -= Reason::DEBUG_TRAP;
        self.state.activity = Activity::Active;
        let hits = core::mem::take(&mut self.debug_hits);
        self.enter_debug(hits);
        self.deliver(Event {
            vector: Vector::Db as u8,
            code: None,
            source: Source::Exception,
            resume: false,
        });
    }

    /// Delivers an external interrupt or NMI.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8) {
        self.tracer.instant(Kind::Interrupt, vector.into());
        self.deliver(Event {
            vector,
            code: None,
            source: Source::External,
            resume: false,
        });
    }

    /// The exception in [`Vcpu::pending_fault`] as an event, its side effects on CR2 and DR6 done.
    fn pending_event(&mut self) -> Event {
        let f = self.pending_fault;
        match f.vector {
            Vector::Pf => self.state.cr2 = f.info,
            Vector::Db => self.enter_debug(f.info),
            _ => {}
        }
        let coded = matches!(
            f.vector,
            Vector::Df | Vector::Ts | Vector::Np | Vector::Ss | Vector::Gp | Vector::Pf | Vector::Ac
        );
        Event {
            vector: f.vector as u8,
            code: coded.then_some(f.code),
            source: Source::Exception,
            resume: match f.vector {
                Vector::Db => f.info == super::debug::BD,
                v => v != Vector::Df && v != Vector::Mc,
            },
        }
    }

    /// Delivers `event`, and what its delivery raises, until one arrives or the processor shuts down.
    pub(crate) fn deliver(&mut self, event: Event) {
        let before = self.profile.begin(match event.source {
            Source::External => Doing::Interrupt.line(),
            _ => Doing::Exception.line(),
        });
        self.deliver_until_one_arrives(event);
        self.profile.resume(before);
    }

    fn deliver_until_one_arrives(&mut self, event: Event) {
        self.state.shadow = Shadow::None;
        let mut current = event;
        // Whether the event that is under way was contributory, a page fault or a double fault.
        loop {
            match self.deliver_once(current) {
                Ok(()) => return self.arm_debug_trap(),
                Err(Exit::Fault | Exit::FaultHere) => {}
                Err(_) => return,
            }
            let mut next = self.pending_event();
            if matches!(current.source, Source::External | Source::Exception)
                && let Some(code) = next.code.filter(|_| matches!(next.vector, 10..=13))
            {
                next.code = Some(code | 1);
            }
            let first = (current.source == Source::Exception).then_some(current.vector);
            current = match first {
                Some(8) if is_contributory(next.vector) || next.vector == 14 => {
                    tracing::debug!(rip = self.rip(), vector = next.vector, "triple fault");
                    self.state.activity = Activity::Shutdown;
                    return;
                }
                Some(14) if is_contributory(next.vector) || next.vector == 14 => double_fault(),
                Some(v) if is_contributory(v) && is_contributory(next.vector) => double_fault(),
                _ => next,
            };
        }
    }

    fn deliver_once(&mut self, event: Event) -> Flow {
        self.forget_single_step();
        if !self.state.protected() {
            self.deliver_real(event)
        } else if self.state.long_mode() {
            self.deliver_long(event)
        } else {
            self.deliver_protected(event)
        }
    }

    /// Real mode: the vector table has four bytes an entry and no error codes.
    fn deliver_real(&mut self, event: Event) -> Flow {
        let at = u64::from(event.vector) * 4;
        if at + 3 > u64::from(self.state.idtr.limit) {
            return self.gp0();
        }
        let target = self.load_system::<u32>(self.state.idtr.base.wrapping_add(at))?;
        let before = self.rsp();
        let frame = [
            self.state.flags.bits() as u16,
            self.state.segs[seg::CS].selector,
            self.rip() as u16,
        ];
        for word in frame {
            if let Err(e) = self.push(word) {
                self.state.regs[gpr::RSP] = before;
                return Err(e);
            }
        }
        for flag in [Flag::If, Flag::Tf, Flag::Ac, Flag::Rf] {
            self.state.flags.set(flag, false);
        }
        self.load_real_segment(seg::CS, (target >> 16) as u16);
        self.set_rip(u64::from(target & 0xFFFF));
        self.refresh_mode();
        Ok(())
    }

    /// The error code that names an IDT entry.
    fn idt_code(event: &Event) -> u32 {
        u32::from(event.vector) << 3 | 2
    }

    /// The flags image that is pushed.
    fn flags_image(&self, event: &Event) -> u64 {
        self.state.flags.bits() | u64::from(event.resume) << Flag::Rf as u8
    }

    /// Checks the code segment of a gate; gives it with the privilege level it runs at.
    fn gate_target(&mut self, selector: u16, long: bool) -> Result<(Segment, u8), Exit> {
        let code = selector_code(selector);
        let mut d = self.descriptor_or(selector, Vector::Gp)?;
        let attr = d.attr();
        let size_good = !long || attr.long() && !attr.big();
        if !attr.code() || attr.dpl() > self.state.cpl || !size_good {
            return self.raise_code(Vector::Gp, code);
        }
        if !attr.present() {
            return self.raise_code(Vector::Np, code);
        }
        self.set_accessed(&mut d)?;
        let cpl = if attr.conforming() {
            self.state.cpl
        } else {
            attr.dpl()
        };
        Ok((Self::segment_of(selector, &d), cpl))
    }

    fn read_gate(&mut self, event: &Event, size: u64) -> Result<Descriptor, Exit> {
        let DescriptorTable { base, limit } = self.state.idtr;
        let at = u64::from(event.vector) * size;
        if at + size - 1 > u64::from(limit) {
            return self.raise_code(Vector::Gp, Self::idt_code(event));
        }
        let at = base.wrapping_add(at);
        let both = self.load_system::<u64>(at)?;
        Ok(Descriptor {
            low: both as u32,
            high: (both >> 32) as u32,
            at,
        })
    }

    fn check_gate(&mut self, event: &Event, gate: &Descriptor) -> Flow {
        if event.source == Source::Software && gate.attr().dpl() < self.state.cpl {
            return self.raise_code(Vector::Gp, Self::idt_code(event));
        }
        if !gate.attr().present() {
            return self.raise_code(Vector::Np, Self::idt_code(event));
        }
        Ok(())
    }

    fn deliver_protected(&mut self, event: Event) -> Flow {
        let gate = self.read_gate(&event, 8)?;
        let attr = gate.attr();
        if attr.code_or_data() || !matches!(attr.kind(), 5 | 6 | 7 | 14 | 15) {
            return self.raise_code(Vector::Gp, Self::idt_code(&event));
        }
        self.check_gate(&event, &gate)?;
        if attr.kind() == 5 {
            return self.task_gate(gate.gate_selector(), &event);
        }
        let wide = attr.kind() & 8 != 0;
        let (cs, cpl) = self.gate_target(gate.gate_selector(), false)?;
        let v86 = self.state.v86();
        if v86 && cpl != 0 {
            return self.raise_code(Vector::Gp, selector_code(cs.selector));
        }
        let offset = if wide {
            gate.gate_offset()
        } else {
            gate.gate_offset() & 0xFFFF
        };
        let s = &self.state;
        let flags = self.flags_image(&event);
        let mut frame = Vec::with_capacity(10);
        let inner = cpl < s.cpl;
        if inner && v86 {
            for index in [seg::GS, seg::FS, seg::DS, seg::ES] {
                frame.push(u64::from(s.segs[index].selector));
            }
        }
        if inner {
            frame.push(u64::from(s.segs[seg::SS].selector));
            frame.push(s.regs[gpr::RSP]);
        }
        frame.extend([
            flags,
            u64::from(s.segs[seg::CS].selector),
            s.regs[crate::state::RIP],
        ]);
        frame.extend(event.code.map(u64::from));

        let (ss, sp) = if inner {
            let (selector, esp) = self.tss_stack(cpl)?;
            (self.stack_segment_for(selector, cpl, Vector::Ts)?, esp)
        } else {
            (self.state.segs[seg::SS], self.rsp())
        };
        if offset > u64::from(cs.limit) {
            return self.gp0();
        }
        let sp = self.push_frame(&ss, sp, cpl, wide, &frame, inner)?;

        let interrupt_gate = attr.kind() & 1 == 0;
        self.enter_handler(interrupt_gate);
        if inner {
            self.state.segs[seg::SS] = ss;
            if v86 {
                for index in [seg::ES, seg::DS, seg::FS, seg::GS] {
                    self.state.segs[index] = Segment::null(0);
                }
            }
        }
        self.set_code_segment(cs, cpl);
        self.set_sp(sp);
        self.set_rip(offset);
        Ok(())
    }

    /// Clears the flags that a handler starts without.
    fn enter_handler(&mut self, interrupt_gate: bool) {
        for flag in [Flag::Tf, Flag::Nt, Flag::Rf, Flag::Vm] {
            self.state.flags.set(flag, false);
        }
        if interrupt_gate {
            self.state.flags.set(Flag::If, false);
        }
    }

    /// Stores a frame below `sp` in segment `ss` with the rights of level `cpl`; gives the new stack pointer.
    pub(crate) fn push_frame(
        &mut self,
        ss: &Segment,
        sp: u64,
        cpl: u8,
        wide: bool,
        frame: &[u64],
        inner: bool,
    ) -> Result<u64, Exit> {
        let size: u64 = if wide { 4 } else { 2 };
        let mask = if ss.attr.big() { 0xFFFF_FFFF } else { 0xFFFF };
        let index = if cpl == 3 {
            TlbIndex::User
        } else {
            TlbIndex::Supervisor
        };
        let mut at = sp & mask;
        let mut places = [0; 16];
        for place in places.iter_mut().take(frame.len()) {
            at = at.wrapping_sub(size) & mask;
            if !ss.write.contain(at, size) {
                let code = if inner { selector_code(ss.selector) } else { 0 };
                return self.raise_code(Vector::Ss, code);
            }
            *place = ss.base.wrapping_add(at) & 0xFFFF_FFFF;
        }
        for (&value, &linear) in frame.iter().zip(&places) {
            match size {
                2 => self.store_with(linear, value as u16, index)?,
                4 => self.store_with(linear, value as u32, index)?,
                _ => self.store_with(linear, value, index)?,
            }
        }
        Ok(sp & !mask | at)
    }

    /// SS and ESP of level `cpl` from the TSS.
    pub(crate) fn tss_stack(&mut self, cpl: u8) -> Result<(u16, u64), Exit> {
        let tr = self.state.segs[seg::TR];
        let wide = tr.attr.kind() & 8 != 0;
        let (at, size) = if wide {
            // ESP and SS; what follows SS need not lie in the TSS.
            (4 + 8 * u64::from(cpl), 6)
        } else {
            (2 + 4 * u64::from(cpl), 4)
        };
        if at + size - 1 > u64::from(tr.limit) {
            return self.raise_code(Vector::Ts, selector_code(tr.selector));
        }
        let at = tr.base + at;
        Ok(if wide {
            (
                self.load_system::<u16>(at + 4)?,
                u64::from(self.load_system::<u32>(at)?),
            )
        } else {
            (
                self.load_system::<u16>(at + 2)?,
                u64::from(self.load_system::<u16>(at)?),
            )
        })
    }

    /// The stack pointer at offset `at` of a 64-bit TSS.
    pub(crate) fn tss_pointer(&mut self, at: u64) -> Result<u64, Exit> {
        let tr = self.state.segs[seg::TR];
        if at + 7 > u64::from(tr.limit) {
            return self.raise_code(Vector::Ts, selector_code(tr.selector));
        }
        self.load_system::<u64>(tr.base + at)
    }

    fn deliver_long(&mut self, event: Event) -> Flow {
        let gate = self.read_gate(&event, 16)?;
        let attr = gate.attr();
        if attr.code_or_data() || !matches!(attr.kind(), 14 | 15) {
            return self.raise_code(Vector::Gp, Self::idt_code(&event));
        }
        self.check_gate(&event, &gate)?;
        let offset = gate.gate_offset() | self.upper_offset(&gate)?;
        let (cs, cpl) = self.gate_target(gate.gate_selector(), true)?;
        let ist = gate.high_ist();
        let inner = cpl < self.state.cpl;
        let sp = if ist != 0 {
            self.tss_pointer(36 + 8 * u64::from(ist - 1))?
        } else if inner {
            self.tss_pointer(4 + 8 * u64::from(cpl))?
        } else {
            self.rsp()
        };
        if !crate::mmu::canonical(sp) {
            return self.raise(Vector::Ss);
        }
        if !crate::mmu::canonical(offset) {
            return self.gp0();
        }
        let s = &self.state;
        let mut frame = vec![
            u64::from(s.segs[seg::SS].selector),
            s.regs[gpr::RSP],
            self.flags_image(&event),
            u64::from(s.segs[seg::CS].selector),
            s.regs[crate::state::RIP],
        ];
        frame.extend(event.code.map(u64::from));
        let index = if cpl == 3 {
            TlbIndex::User
        } else {
            TlbIndex::Supervisor
        };
        let mut at = sp & !15;
        for value in frame {
            at = at.wrapping_sub(8);
            self.store_with(at, value, index)?;
        }
        self.enter_handler(attr.kind() & 1 == 0);
        if inner {
            self.state.segs[seg::SS] = Self::null_stack(u16::from(cpl));
        }
        self.set_code_segment(cs, cpl);
        self.state.regs[gpr::RSP] = at;
        self.set_rip(offset);
        Ok(())
    }

    /// INT n and its relatives: rIP is already past the instruction.
    pub(crate) fn software_interrupt(&mut self, vector: u8, source: Source) -> Flow {
        let event = Event {
            vector,
            code: None,
            source,
            resume: false,
        };
        if source == Source::Icebp {
            self.state.dr[7] &= !super::debug::GD;
        }
        // A fault on the way is reported at the instruction, one of a task switch where it happened.
        let done = self.deliver_once(event);
        if done.is_err() && source == Source::Icebp && matches!(self.pending_fault.vector as u8, 10..=13) {
            // INT1 alone of them counts as external to the program (EXT).
            self.pending_fault.code |= 1;
        }
        done
    }

    /// Starts the processor at a start-up IPI.
    pub fn start_up(&mut self, vector: u8) {
        if self.state.activity != Activity::WaitForSipi {
            return;
        }
        self.state.activity = Activity::Active;
        let selector = u16::from(vector) << 8;
        self.state.segs[seg::CS] = Segment::new(selector, u64::from(selector) << 4, 0xFFFF, Attr::REAL_DATA);
        self.set_rip(0);
        self.refresh_mode();
    }

    /// Replaces the flags under `mask` by those of `image`, and looks at interrupts if IF came on.
    pub(crate) fn set_flags(&mut self, image: u64, mask: u64) {
        let had = self.state.flags.get(Flag::If);
        let all = self.state.flags.bits() & !mask | image & mask;
        self.state.flags = Flags::from_bits(all);
        self.refresh_mode();
        if !had && self.state.flags.get(Flag::If) {
            self.check_interrupts_next();
        }
        self.end_block();
    }
}

impl Descriptor {
    /// IST field of a 64-bit gate.
    fn high_ist(&self) -> u32 {
        self.high & 7
    }
}

fn double_fault() -> Event {
    Event {
        vector: 8,
        code: Some(0),
        source: Source::Exception,
        resume: false,
    }
}

/// A value popped from a stack in the width that an operand size names.
pub(crate) fn width_mask(size: u64) -> u64 {
    match size {
        2 => u16::MAX.to_u64(),
        4 => u32::MAX.to_u64(),
        _ => u64::MAX,
    }
}
