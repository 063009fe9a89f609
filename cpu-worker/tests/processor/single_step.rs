//! TF: SDM vol. 3, 17.3.1.4, and vol. 2 for the instructions that differ.

use iced_x86::code_asm::*;
use quintet_cpu_worker::state::{Segment, gpr, seg};

use crate::machine::*;

/// DR6.BS.
const BS: u64 = 0x4000;

#[test]
fn a_popf_that_sets_tf_traps_after_the_next_instruction() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        a.push(0x102)?;
        a.popfd()?;
        a.nop()?;
        a.mov(eax, 1)?;
        a.hlt()
    });
    let e = m.expect(DB, at[3]);
    assert_eq!((m.dr6(), e.flags & (TF | RF)), (BS, TF));
    // IRET sets TF again: the trap comes after the instruction that follows.
    m.expect(DB, at[4]);
    assert_eq!(m.reg(gpr::RAX), 1);
    // HLT traps too, and does not stay halted.
    m.expect(DB, at[5]);
}

#[test]
fn a_popf_that_clears_tf_traps_still() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        a.push(2)?;
        a.popfd()?;
        a.nop()?;
        a.hlt()
    });
    m.at(at[0]);
    // Once without TF, so that the block is known; translated, it may go on to its end.
    m.cpu.run(1);
    m.at(at[1]);
    m.set(gpr::RSP, STACKS[0] - 4);
    m.set_flags(TF);
    let e = m.expect(DB, at[2]);
    assert_eq!(e.flags & TF, 0);
    assert_eq!(m.run(), Stop::Halt);
}

#[test]
fn a_repeated_instruction_traps_after_every_iteration() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RCX, 3);
    m.set(gpr::RDI, DATA);
    let at = m.code(|a| {
        a.rep().stosb()?;
        a.hlt()
    });
    m.set_flags(TF);
    for left in [2, 1] {
        let e = m.expect(DB, at[0]);
        assert_eq!(m.reg(gpr::RCX), left);
        assert_eq!(e.flags & RF, RF, "pushed between two iterations");
    }
    let e = m.expect(DB, at[1]);
    assert_eq!((m.reg(gpr::RCX), e.flags & RF), (0, 0));
}

#[test]
fn int_does_not_trap_in_its_handler_but_saves_tf() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        a.int(0x40)?;
        a.nop()?;
        a.hlt()
    });
    m.set_flags(TF);
    let e = m.expect(0x40, at[1]);
    assert_eq!((e.flags & TF, m.flags() & TF, m.dr6()), (TF, 0, 0));
    m.expect(DB, at[2]);
}

#[test]
fn a_fault_takes_the_place_of_the_trap() {
    let mut m = Machine::new(Mode::Protected);
    m.code(|a| a.ud2());
    m.set_flags(TF);
    let e = m.expect(UD, CODE);
    assert_eq!((e.flags & (TF | RF), m.dr6()), (TF | RF, 0));
}

#[test]
fn mov_ss_takes_its_trap_away_and_sti_does_not() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, u64::from(DATA32));
    let at = m.code(|a| {
        a.mov(ss, ax)?;
        a.nop()?;
        a.sti()?;
        a.nop()?;
        a.hlt()
    });
    m.set_flags(TF);
    m.expect(DB, at[2]);
    m.expect(DB, at[3]);
    m.expect(DB, at[4]);
}

#[test]
fn the_trap_comes_before_the_interrupt() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        a.sti()?;
        a.nop()?;
        a.hlt()
    });
    m.set_flags(TF);
    m.interrupt(0x40);
    m.expect(DB, at[1]);
    m.expect(0x40, at[1]);
    m.expect(DB, at[2]);
}

#[test]
fn an_interrupt_between_iterations_pushes_rf() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RCX, 2);
    m.set(gpr::RDI, DATA);
    let at = m.code(|a| {
        a.rep().stosb()?;
        a.hlt()
    });
    m.set_flags(TF);
    m.expect(DB, at[0]);
    // IRET enables interrupts, TF stays: the interrupt comes before the second iteration.
    let image = m.reg(gpr::RSP) + 8;
    m.write32(image, (TF | IF | RF | 2) as u32);
    m.interrupt(0x40);
    let e = m.expect(0x40, at[0]);
    assert_eq!(e.flags & RF, RF);
    m.expect(DB, at[1]);
}

#[test]
fn real_mode_traps_too() {
    let mut m = Machine::new(Mode::Real);
    let at = m.code(|a| {
        a.nop()?;
        a.inc(ax)?;
        a.hlt()
    });
    m.set_flags(TF);
    m.expect(DB, at[1]);
    m.expect(DB, at[2]);
    assert_eq!(m.reg(gpr::RAX) & 0xFFFF, 1);
}

#[test]
fn syscall_steps_by_the_masked_tf() {
    for (mask, traps) in [(TF, false), (0, true)] {
        let mut m = Machine::new(Mode::Long);
        m.user();
        m.code(|a| a.syscall());
        m.assemble(CODE + 0x100, |a| {
            a.nop()?;
            a.hlt()
        });
        m.cpu.state.msrs.lstar = CODE + 0x100;
        m.cpu.state.msrs.star = 0x0038 << 32;
        m.cpu.state.msrs.sfmask = mask;
        m.set_flags(TF);
        if traps {
            m.expect(DB, CODE + 0x100);
        } else {
            assert_eq!(m.run(), Stop::Halt);
            assert_eq!(m.dr6(), 0);
        }
        assert_eq!(m.reg(gpr::R11) & TF, TF);
    }
}

#[test]
fn sysret_steps_by_the_tf_that_it_sets() {
    let mut m = Machine::new(Mode::Long);
    m.code(|a| a.sysretq());
    m.assemble(CODE + 0x100, |a| a.nop());
    m.cpu.state.msrs.star = 0x001B << 48;
    m.set(gpr::RCX, CODE + 0x100);
    m.set(gpr::R11, TF | 2);
    m.expect(DB, CODE + 0x100);
    m.expect(DB, CODE + 0x101);
}

#[test]
fn sysenter_keeps_tf_and_traps() {
    let mut m = Machine::new(Mode::Protected);
    m.user();
    m.code(|a| a.sysenter());
    m.cpu.state.msrs.sysenter_cs = u64::from(CODE32);
    m.cpu.state.msrs.sysenter_esp = STACKS[0];
    m.cpu.state.msrs.sysenter_eip = CODE + 0x100;
    m.assemble(CODE + 0x100, |a| a.nop());
    m.set_flags(TF);
    let e = m.expect(DB, CODE + 0x100);
    assert_eq!((e.cs, e.flags & TF), (CODE32, TF));
}

#[test]
fn btf_traps_after_branches_only_and_once() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        let mut over = a.create_label();
        a.nop()?;
        a.test(esp, esp)?;
        a.jz(over)?;
        a.jnz(over)?;
        a.nop()?;
        a.set_label(&mut over)?;
        a.inc(eax)?;
        a.nop()?;
        a.hlt()
    });
    m.cpu.state.msrs.debug_ctl = 2;
    m.set_flags(TF);
    m.expect(DB, at[5]);
    // #DB clears BTF.
    m.expect(DB, at[6]);
}

#[test]
fn icebp_is_a_trap_for_every_level_that_leaves_dr6_alone() {
    let mut m = Machine::new(Mode::Protected);
    m.user();
    m.bytes(&[0xF1, 0xF4]);
    let e = m.expect(DB, CODE + 1);
    assert_eq!((m.dr6(), e.flags & RF), (0, 0));
    // INT 1 by its number is for those whom the gate admits.
    let mut m = Machine::new(Mode::Protected);
    m.user();
    m.bytes(&[0xCD, 0x01]);
    m.fault(GP, 8 | 2);
}

#[test]
fn v86_code_steps() {
    let mut m = Machine::new(Mode::Protected);
    m.set_flags(VM | TF);
    m.cpu.state.cpl = 3;
    for n in 0..6 {
        m.cpu.state.segs[n] = Segment::new(0x800, 0x8000, 0xFFFF, quintet_cpu_worker::state::Attr::V86);
    }
    m.cpu.state.segs[seg::SS] = Segment::new(0x1000, 0x1_0000, 0xFFFF, quintet_cpu_worker::state::Attr::V86);
    m.cpu.refresh_mode();
    m.write(0x8000, &[0x90, 0x90]);
    m.at(0);
    let e = m.expect(DB, 1);
    assert_eq!((e.cs, e.flags & (VM | TF)), (0x800, VM | TF));
    m.expect(DB, 2);
}

#[test]
fn code_that_was_overwritten_steps_once_an_instruction() {
    let mut m = Machine::new(Mode::Protected);
    let inc_or_dec = CODE + 0x1000;
    m.write(inc_or_dec, &[0x40, 0xC3]);
    let at = m.code(|a| {
        a.call(inc_or_dec)?;
        a.mov(byte_ptr(inc_or_dec as u32), 0x48)?;
        a.push(0x102)?;
        a.popfd()?;
        a.call(inc_or_dec)?;
        a.hlt()
    });
    m.expect(DB, inc_or_dec);
    assert_eq!(m.reg(gpr::RAX), 1);
    m.expect(DB, inc_or_dec + 1);
    assert_eq!(m.reg(gpr::RAX), 0);
    m.expect(DB, at[5]);
}
