//! Far JMP, CALL and RET: through segments, call gates, task gates and TSSs (SDM vol. 3, 5.8).

use iced_x86::{Mnemonic, OpKind};

use crate::except::{Descriptor, Switch, selector_code, width_mask};
use crate::exec::{Exit, Flow, Handler, Insn, Op, Vcpu, Vector};
use crate::mmu::canonical;
use crate::state::{Flag, Segment, gpr, seg};

impl Vcpu {
    /// Checks the offset of a far transfer against its code segment.
    fn check_far_offset(&mut self, cs: &Segment, offset: u64) -> Flow {
        let good = if self.state.long_mode() && cs.attr.long() {
            canonical(offset)
        } else {
            offset <= u64::from(cs.limit)
        };
        if good { Ok(()) } else { self.gp0() }
    }

    /// Pushes a value of `size` bytes.
    pub(crate) fn push_sized(&mut self, value: u64, size: u64) -> Flow {
        match size {
            2 => self.push(value as u16),
            4 => self.push(value as u32),
            _ => self.push(value),
        }
    }

    /// Reads a value of `size` bytes, `skip` bytes above the stack pointer.
    pub(crate) fn peek_sized(&mut self, skip: u64, size: u64) -> Result<u64, Exit> {
        Ok(match size {
            2 => u64::from(self.peek::<u16>(skip)?.0),
            4 => u64::from(self.peek::<u32>(skip)?.0),
            _ => self.peek::<u64>(skip)?.0,
        })
    }

    /// Far JMP (`call` false) or CALL to `selector`:`offset` with operand size `size`.
    fn far_transfer(&mut self, selector: u16, offset: u64, size: u64, call: bool) -> Flow {
        if self.state.real_segments() {
            return self.far_real(selector, offset, size, call);
        }
        let code = selector_code(selector);
        let mut d = self.descriptor_or(selector, Vector::Gp)?;
        let (attr, rpl, cpl) = (d.attr(), (selector & 3) as u8, self.state.cpl);
        if !attr.code_or_data() {
            return self.far_system(selector, d, call);
        }
        let level = if attr.conforming() {
            attr.dpl() <= cpl
        } else {
            rpl <= cpl && attr.dpl() == cpl
        };
        let size_good = !(self.state.long_mode() && attr.long() && attr.big());
        if !attr.code() || !level || !size_good {
            return self.raise_code(Vector::Gp, code);
        }
        if !attr.present() {
            return self.raise_code(Vector::Np, code);
        }
        let cs = Self::segment_of(selector, &d);
        self.check_far_offset(&cs, offset)?;
        self.set_accessed(&mut d)?;
        if call {
            self.push_return(size)?;
        }
        self.set_code_segment(cs, cpl);
        self.set_rip(offset);
        Ok(())
    }

    /// Pushes CS and rIP; the stack pointer is as before when it fails.
    fn push_return(&mut self, size: u64) -> Flow {
        let before = self.rsp();
        let (cs, ip) = (u64::from(self.state.segs[seg::CS].selector), self.rip());
        let done = self.push_sized(cs, size).and_then(|()| self.push_sized(ip, size));
        if done.is_err() {
            self.state.regs[gpr::RSP] = before;
        }
        done
    }

    fn far_real(&mut self, selector: u16, offset: u64, size: u64, call: bool) -> Flow {
        if offset > u64::from(self.state.segs[seg::CS].limit) {
            return self.gp0();
        }
        if call {
            self.push_return(size)?;
        }
        self.load_real_code(selector);
        self.set_rip(offset);
        Ok(())
    }

    /// CS in real and V86 mode.
    pub(crate) fn load_real_code(&mut self, selector: u16) {
        if self.state.v86() {
            let attr = crate::state::Attr::V86;
            self.state.segs[seg::CS] = Segment::new(selector, u64::from(selector) << 4, 0xFFFF, attr);
        } else {
            self.load_real_segment(seg::CS, selector);
        }
        self.refresh_mode();
    }

    /// Through a call gate, a task gate or a TSS.
    fn far_system(&mut self, selector: u16, d: Descriptor, call: bool) -> Flow {
        let code = selector_code(selector);
        let (attr, rpl, cpl) = (d.attr(), (selector & 3) as u8, self.state.cpl);
        let long = self.state.long_mode();
        let known = if long {
            attr.kind() == 12
        } else {
            matches!(attr.kind(), 1 | 4 | 5 | 9 | 12)
        };
        if !known || attr.dpl() < cpl || attr.dpl() < rpl {
            return self.raise_code(Vector::Gp, code);
        }
        if !attr.present() {
            return self.raise_code(Vector::Np, code);
        }
        let why = if call { Switch::Nest } else { Switch::Jump };
        match attr.kind() {
            1 | 9 => {
                if selector & 4 != 0 {
                    return self.raise_code(Vector::Gp, code);
                }
                self.switch_task(selector, d, why)
            }
            5 => {
                let target = d.gate_selector();
                let code = selector_code(target);
                if target & 4 != 0 {
                    return self.raise_code(Vector::Gp, code);
                }
                let t = self.descriptor_or(target, Vector::Gp)?;
                if t.attr().code_or_data() || !matches!(t.attr().kind(), 1 | 9) {
                    return self.raise_code(Vector::Gp, code);
                }
                if !t.attr().present() {
                    return self.raise_code(Vector::Np, code);
                }
                self.switch_task(target, t, why)
            }
            _ => self.call_gate(selector, d, call),
        }
    }

    fn call_gate(&mut self, selector: u16, gate: Descriptor, call: bool) -> Flow {
        let long = self.state.long_mode();
        let wide = gate.attr().kind() == 12;
        let size = if long {
            8
        } else if wide {
            4
        } else {
            2
        };
        // The gate's own faults come before those of its target.
        let upper = if long {
            self.upper_half(selector, &gate)?
        } else {
            0
        };
        let target = gate.gate_selector();
        let code = selector_code(target);
        let mut d = self.descriptor_or(target, Vector::Gp)?;
        let (attr, cpl) = (d.attr(), self.state.cpl);
        let level = if call || attr.conforming() {
            attr.dpl() <= cpl
        } else {
            attr.dpl() == cpl
        };
        if !attr.code() || !level || long && (!attr.long() || attr.big()) {
            return self.raise_code(Vector::Gp, code);
        }
        if !attr.present() {
            return self.raise_code(Vector::Np, code);
        }
        let offset = gate.gate_offset() & width_mask(size.min(4)) | upper;
        let cs = Self::segment_of(target, &d);
        self.check_far_offset(&cs, offset)?;
        self.set_accessed(&mut d)?;
        let inner = call && !attr.conforming() && attr.dpl() < cpl;
        if !inner {
            if call {
                // The width of the gate, not of the instruction.
                self.push_return(size)?;
            }
            self.set_code_segment(cs, cpl);
            self.set_rip(offset);
            return Ok(());
        }
        let new_cpl = attr.dpl();
        if long {
            self.call_gate_long(cs, new_cpl, offset)
        } else {
            self.call_gate_inner(gate, cs, new_cpl, offset, wide)
        }
    }

    fn call_gate_long(&mut self, cs: Segment, cpl: u8, offset: u64) -> Flow {
        let sp = self.tss_pointer(4 + 8 * u64::from(cpl))?;
        if !canonical(sp) {
            return self.raise(Vector::Ss);
        }
        let s = &self.state;
        let frame = [
            u64::from(s.segs[seg::SS].selector),
            s.regs[gpr::RSP],
            u64::from(s.segs[seg::CS].selector),
            self.rip(),
        ];
        let mut at = sp;
        for value in frame {
            at = at.wrapping_sub(8);
            self.store_with(at, value, crate::mmu::TlbIndex::Supervisor)?;
        }
        self.state.segs[seg::SS] = Self::null_stack(u16::from(cpl));
        self.set_code_segment(cs, cpl);
        self.state.regs[gpr::RSP] = at;
        self.set_rip(offset);
        Ok(())
    }

    fn call_gate_inner(&mut self, gate: Descriptor, cs: Segment, cpl: u8, offset: u64, wide: bool) -> Flow {
        let (selector, sp) = self.tss_stack(cpl)?;
        let ss = self.stack_segment_for(selector, cpl, Vector::Ts)?;
        let size = if wide { 4 } else { 2 };
        let count = u64::from(gate.high & 31);
        let mut frame = vec![u64::from(self.state.segs[seg::SS].selector), self.rsp()];
        for n in (0..count).rev() {
            frame.push(self.peek_sized(n * size, size)?);
        }
        frame.extend([u64::from(self.state.segs[seg::CS].selector), self.rip()]);
        let sp = self.push_long_frame(&ss, sp, cpl, wide, &frame)?;
        self.state.segs[seg::SS] = ss;
        self.set_code_segment(cs, cpl);
        self.set_sp(sp);
        self.set_rip(offset);
        Ok(())
    }

    /// A frame of up to 35 values, in the pieces that [`Vcpu::push_frame`] takes.
    fn push_long_frame(
        &mut self,
        ss: &Segment,
        mut sp: u64,
        cpl: u8,
        wide: bool,
        frame: &[u64],
    ) -> Result<u64, Exit> {
        for piece in frame.chunks(16) {
            sp = self.push_frame(ss, sp, cpl, wide, piece, true)?;
        }
        Ok(sp)
    }

    /// Far RET with operand size `size`, releasing `extra` bytes.
    fn far_return(&mut self, size: u64, extra: u64) -> Flow {
        let offset = self.peek_sized(0, size)?;
        let selector = self.peek_sized(size, size)? as u16;
        if self.state.real_segments() {
            if offset > u64::from(self.state.segs[seg::CS].limit) {
                return self.gp0();
            }
            let sp = self.sp_plus(2 * size + extra);
            self.set_sp(sp);
            self.load_real_code(selector);
            self.set_rip(offset);
            return Ok(());
        }
        let (cs, rpl) = self.return_segment(selector)?;
        if rpl == self.state.cpl {
            self.check_far_offset(&cs, offset)?;
            let sp = self.sp_plus(2 * size + extra);
            self.set_sp(sp);
            self.set_code_segment(cs, rpl);
            self.set_rip(offset);
            return Ok(());
        }
        let sp = self.peek_sized(2 * size + extra, size)?;
        let ss_selector = self.peek_sized(3 * size + extra, size)? as u16;
        let ss = self.return_stack(ss_selector, rpl, &cs)?;
        self.check_far_offset(&cs, offset)?;
        self.set_code_segment(cs, rpl);
        self.state.segs[seg::SS] = ss;
        self.refresh_mode();
        self.set_return_sp(sp.wrapping_add(extra), size);
        self.set_rip(offset);
        self.drop_inner_segments();
        Ok(())
    }

    /// Sets the stack pointer of an outer level: the width of the stack, or of the value if that is wider.
    pub(crate) fn set_return_sp(&mut self, sp: u64, size: u64) {
        if self.stack_shift == 48 && size > 2 {
            self.set_sp(sp);
        } else if size == 8 {
            self.state.regs[gpr::RSP] = sp;
        } else {
            self.set_sp(sp & width_mask(size));
        }
    }

    /// Checks the code segment that a far RET or IRET returns to; gives it with its RPL.
    pub(crate) fn return_segment(&mut self, selector: u16) -> Result<(Segment, u8), Exit> {
        let code = selector_code(selector);
        let mut d = self.descriptor_or(selector, Vector::Gp)?;
        let (attr, rpl) = (d.attr(), (selector & 3) as u8);
        let level = if attr.conforming() {
            attr.dpl() <= rpl
        } else {
            attr.dpl() == rpl
        };
        let size_good = !(self.state.long_mode() && attr.long() && attr.big());
        if !attr.code() || rpl < self.state.cpl || !level || !size_good {
            return self.raise_code(Vector::Gp, code);
        }
        if !attr.present() {
            return self.raise_code(Vector::Np, code);
        }
        self.set_accessed(&mut d)?;
        Ok((Self::segment_of(selector, &d), rpl))
    }

    /// Checks the stack segment of the level that is returned to; null is good for 64-bit code below level 3.
    pub(crate) fn return_stack(&mut self, selector: u16, cpl: u8, cs: &Segment) -> Result<Segment, Exit> {
        if selector & 0xFFFC == 0
            && self.state.long_mode()
            && cs.attr.long()
            && cpl < 3
            && (selector & 3) as u8 == cpl
        {
            return Ok(Self::null_stack(selector));
        }
        self.stack_segment_for(selector, cpl, Vector::Gp)
    }

    /// IRET in V86 and real mode.
    fn return_real(&mut self, size: u64) -> Flow {
        let v86 = self.state.v86();
        if v86 && self.state.flags.iopl() < 3 {
            return self.gp0();
        }
        let offset = self.peek_sized(0, size)?;
        let selector = self.peek_sized(size, size)? as u16;
        let image = self.peek_sized(2 * size, size)?;
        if offset > u64::from(self.state.segs[seg::CS].limit) {
            return self.gp0();
        }
        let sp = self.sp_plus(3 * size);
        self.set_sp(sp);
        self.load_real_code(selector);
        self.set_rip(offset);
        // VM, VIF and VIP stay; in V86 mode IOPL too.
        let mut mask = if size == 2 { 0x7FD5 } else { 0x0025_7FD5 };
        if v86 {
            mask &= !0x3000;
        }
        self.set_flags(image, mask);
        Ok(())
    }

    /// IRET with operand size `size`.
    fn interrupt_return(&mut self, size: u64) -> Flow {
        if self.state.nmi_blocked {
            self.state.nmi_blocked = false;
            // Another may have waited.
            self.check_interrupts_next();
        }
        if self.state.real_segments() {
            return self.return_real(size);
        }
        if self.state.long_mode() {
            if self.state.flags.get(Flag::Nt) {
                return self.gp0();
            }
            return self.return_long(size);
        }
        if self.state.flags.get(Flag::Nt) {
            return self.return_task();
        }
        let offset = self.peek_sized(0, size)?;
        let selector = self.peek_sized(size, size)? as u16;
        let image = self.peek_sized(2 * size, size)?;
        if size == 4 && image & 1 << Flag::Vm as u8 != 0 && self.state.cpl == 0 {
            return self.return_to_v86(offset, selector, image);
        }
        let (cs, rpl) = self.return_segment(selector)?;
        if rpl == self.state.cpl {
            self.check_far_offset(&cs, offset)?;
            let sp = self.sp_plus(3 * size);
            self.set_sp(sp);
            self.set_rip(offset);
            let mask = self.return_flags_mask(size);
            self.set_code_segment(cs, rpl);
            self.set_flags(image, mask);
            return Ok(());
        }
        let sp = self.peek_sized(3 * size, size)?;
        let ss_selector = self.peek_sized(4 * size, size)? as u16;
        let ss = self.return_stack(ss_selector, rpl, &cs)?;
        self.check_far_offset(&cs, offset)?;
        self.finish_outer_return(cs, rpl, ss, sp, offset, image, size);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one stack frame")]
    fn finish_outer_return(
        &mut self,
        cs: Segment,
        rpl: u8,
        ss: Segment,
        sp: u64,
        offset: u64,
        image: u64,
        size: u64,
    ) {
        let mask = self.return_flags_mask(size);
        let outer = rpl != self.state.cpl;
        self.set_code_segment(cs, rpl);
        self.state.segs[seg::SS] = ss;
        self.refresh_mode();
        self.set_return_sp(sp, size);
        self.set_rip(offset);
        self.set_flags(image, mask);
        if outer {
            self.drop_inner_segments();
        }
    }

    /// The flags that IRET may change at this privilege level.
    fn return_flags_mask(&self, size: u64) -> u64 {
        let mut mask = 0x4DD5;
        if size > 2 {
            // RF, AC and ID.
            mask |= 0x0025_0000;
        }
        if self.state.cpl == 0 {
            mask |= 0x3000;
            if size > 2 {
                mask |= 0x0018_0000;
            }
        }
        if self.state.cpl <= self.state.flags.iopl() {
            mask |= 0x200;
        }
        mask
    }

    fn return_to_v86(&mut self, offset: u64, selector: u16, image: u64) -> Flow {
        if offset > 0xFFFF {
            return self.gp0();
        }
        let mut values = [0; 6];
        for (n, v) in values.iter_mut().enumerate() {
            *v = self.peek_sized(12 + 4 * n as u64, 4)?;
        }
        let [sp, ss, es, ds, fs, gs] = values;
        self.set_flags(image, 0x003F_7FD5);
        self.state.cpl = 3;
        let pairs = [
            (seg::ES, es),
            (seg::SS, ss),
            (seg::DS, ds),
            (seg::FS, fs),
            (seg::GS, gs),
        ];
        for (index, s) in pairs.into_iter().chain([(seg::CS, u64::from(selector))]) {
            let s = s as u16;
            self.state.segs[index] = Segment::new(s, u64::from(s) << 4, 0xFFFF, crate::state::Attr::V86);
        }
        self.refresh_mode();
        self.state.regs[gpr::RSP] = sp;
        self.set_rip(offset);
        Ok(())
    }

    fn return_task(&mut self) -> Flow {
        let tr = self.state.segs[seg::TR];
        let link = self.load_system::<u16>(tr.base)?;
        let code = selector_code(link);
        if link & 4 != 0 {
            return self.raise_code(Vector::Ts, code);
        }
        let d = self.descriptor_or(link, Vector::Ts)?;
        if d.attr().code_or_data() || !matches!(d.attr().kind(), 3 | 11) {
            return self.raise_code(Vector::Ts, code);
        }
        if !d.attr().present() {
            return self.raise_code(Vector::Np, code);
        }
        self.switch_task(link, d, Switch::Return)
    }

    fn return_long(&mut self, size: u64) -> Flow {
        let offset = self.peek_sized(0, size)?;
        let selector = self.peek_sized(size, size)? as u16;
        let image = self.peek_sized(2 * size, size)?;
        let (cs, rpl) = self.return_segment(selector)?;
        let sixty_four = self.code_size == crate::state::CodeSize::Bits64;
        if rpl == self.state.cpl && !sixty_four {
            // Compatibility mode returns to its own level without popping a stack.
            self.check_far_offset(&cs, offset)?;
            let sp = self.sp_plus(3 * size);
            self.set_sp(sp);
            self.set_rip(offset);
            let mask = self.return_flags_mask(size);
            self.set_code_segment(cs, rpl);
            self.set_flags(image, mask);
            return Ok(());
        }
        let sp = self.peek_sized(3 * size, size)?;
        let ss_selector = self.peek_sized(4 * size, size)? as u16;
        let ss = self.return_stack(ss_selector, rpl, &cs)?;
        self.check_far_offset(&cs, offset)?;
        self.finish_outer_return(cs, rpl, ss, sp, offset, image, size);
        Ok(())
    }
}

fn direct(cpu: &mut Vcpu, op: &Op, call: bool) -> Flow {
    cpu.far_transfer(
        (op.imm >> 32) as u16,
        op.imm & 0xFFFF_FFFF,
        u64::from(op.size),
        call,
    )
}

fn jmp_direct(cpu: &mut Vcpu, op: &Op) -> Flow {
    direct(cpu, op, false)
}

fn call_direct(cpu: &mut Vcpu, op: &Op) -> Flow {
    direct(cpu, op, true)
}

/// The far pointer in memory: offset, then selector.
pub(super) fn far_pointer(cpu: &mut Vcpu, op: &Op) -> Result<(u16, u64), Exit> {
    let size = u64::from(op.size);
    let linear = cpu.operand_linear(op, size + 2, false)?;
    let offset = match size {
        2 => u64::from(cpu.load_linear::<u16>(linear)?),
        4 => u64::from(cpu.load_linear::<u32>(linear)?),
        _ => cpu.load_linear::<u64>(linear)?,
    };
    let at = cpu.wrap_linear(linear.wrapping_add(size));
    Ok((cpu.load_linear::<u16>(at)?, offset))
}

fn indirect(cpu: &mut Vcpu, op: &Op, call: bool) -> Flow {
    let (selector, offset) = far_pointer(cpu, op)?;
    cpu.far_transfer(selector, offset, u64::from(op.size), call)
}

fn jmp_indirect(cpu: &mut Vcpu, op: &Op) -> Flow {
    indirect(cpu, op, false)
}

fn call_indirect(cpu: &mut Vcpu, op: &Op) -> Flow {
    indirect(cpu, op, true)
}

fn retf(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.far_return(u64::from(op.size), op.imm & 0xFFFF)
}

fn iret(cpu: &mut Vcpu, op: &Op) -> Flow {
    cpu.interrupt_return(u64::from(op.size))
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    use iced_x86::Code::*;
    let (handler, size): (Handler, u8) = match (insn.i.mnemonic(), insn.i.code()) {
        (Mnemonic::Jmp, Jmp_ptr1616) => (jmp_direct, 2),
        (Mnemonic::Jmp, Jmp_ptr1632) => (jmp_direct, 4),
        (Mnemonic::Call, Call_ptr1616) => (call_direct, 2),
        (Mnemonic::Call, Call_ptr1632) => (call_direct, 4),
        (Mnemonic::Jmp, Jmp_m1616) => (jmp_indirect, 2),
        (Mnemonic::Jmp, Jmp_m1632) => (jmp_indirect, 4),
        (Mnemonic::Jmp, Jmp_m1664) => (jmp_indirect, 8),
        (Mnemonic::Call, Call_m1616) => (call_indirect, 2),
        (Mnemonic::Call, Call_m1632) => (call_indirect, 4),
        (Mnemonic::Call, Call_m1664) => (call_indirect, 8),
        (_, Retfw | Retfw_imm16) => (retf, 2),
        (_, Retfd | Retfd_imm16) => (retf, 4),
        (_, Retfq | Retfq_imm16) => (retf, 8),
        (_, Iretw) => (iret, 2),
        (_, Iretd) => (iret, 4),
        (_, Iretq) => (iret, 8),
        _ => return None,
    };
    debug_assert!(insn.i.op_count() == 0 || insn.i.op0_kind() != OpKind::Register);
    insn.op.size = size;
    insn.ends();
    Some(handler)
}
