//! SYSCALL, SYSRET, SYSENTER, SYSEXIT: SDM vol. 2, and vol. 3, 5.8.7 and 5.8.8.

use quintet_cpu_worker::state::{Efer, gpr, seg};

use crate::machine::*;

#[test]
fn syscall_saves_and_masks() {
    let mut m = Machine::new(Mode::Long);
    m.user();
    m.cpu.state.msrs.star = u64::from(CODE64 | 3) << 32;
    m.cpu.state.msrs.lstar = CODE + 0x100;
    m.cpu.state.msrs.sfmask = IF | 1;
    m.write(CODE + 0x100, &[0xF4]);
    let at = m.code(|a| a.syscall());
    m.set_flags(IF | 0x41);
    assert_eq!(m.run(), Stop::Halt);
    let s = &m.cpu.state;
    assert_eq!((m.reg(gpr::RCX), m.reg(gpr::R11)), (at[1], IF | 0x43));
    assert_eq!((s.cpl, s.flags.bits()), (0, 0x42));
    assert_eq!(
        (s.segs[seg::CS].selector, s.segs[seg::SS].selector),
        (CODE64, CODE64 + 8)
    );
    assert_eq!(m.reg(gpr::RSP), STACKS[3], "the stack pointer is the program's");
}

#[test]
fn syscall_and_sysret_are_undefined_without_sce_and_in_compatibility_mode() {
    for (sce, segment) in [(false, CODE64), (true, CODE32)] {
        for code in [[0x0F, 0x05], [0x0F, 0x07]] {
            let mut m = Machine::new(Mode::Long);
            m.cpu.state.efer.set(Efer::SCE, sce);
            m.level0(segment);
            m.bytes(&code);
            m.expect(UD, CODE);
        }
    }
}

#[test]
fn sysret_goes_to_64_and_32_bit_code_with_fixed_segments() {
    for (wide, segment, bits) in [(true, 0x2B, 64), (false, 0x1B, 32)] {
        let mut m = Machine::new(Mode::Long);
        m.cpu.state.msrs.star = 0x18 << 48;
        m.write(CODE + 0x100, &[0xE6, PORT as u8]);
        m.set(gpr::RCX, CODE + 0x100);
        m.set(gpr::R11, !TF);
        m.code(|a| if wide { a.sysretq() } else { a.sysret() });
        assert_eq!(m.run(), Stop::Port);
        let s = &m.cpu.state;
        assert_eq!(
            (s.cpl, s.segs[seg::CS].selector, s.segs[seg::SS].selector),
            (3, segment, 0x23)
        );
        assert_eq!(m.cpu.code_size.bits(), bits);
        assert_eq!(m.flags(), 0x003C_7FD7 & !TF);
    }
}

#[test]
fn sysret_to_an_address_that_is_not_canonical_faults_at_level_0() {
    let mut m = Machine::new(Mode::Long);
    m.set(gpr::RCX, 1 << 47);
    m.code(|a| a.sysretq());
    let e = m.fault(GP, 0);
    assert_eq!(e.cs, CODE64);
    let mut m = Machine::new(Mode::Long);
    m.user();
    m.code(|a| a.sysretq());
    m.fault(GP, 0);
}

#[test]
fn selectors_of_the_fast_calls_wrap() {
    let mut m = Machine::new(Mode::Long);
    m.cpu.state.msrs.star = 0xFFFF << 48 | 0xFFFF << 32;
    m.cpu.state.msrs.lstar = CODE + 0x100;
    m.write(CODE + 0x100, &[0x48, 0x0F, 0x07]);
    m.write(CODE + 2, &[0xE6, PORT as u8]);
    m.code(|a| a.syscall());
    m.write(CODE + 2, &[0xE6, PORT as u8]);
    assert_eq!(m.run(), Stop::Port);
    let s = &m.cpu.state;
    assert_eq!((s.segs[seg::CS].selector, s.segs[seg::SS].selector), (0xF, 7));
}

#[test]
fn sysenter_and_sysexit_in_protected_mode() {
    let mut m = Machine::new(Mode::Protected);
    m.user();
    m.cpu.state.msrs.sysenter_cs = u64::from(CODE32);
    m.cpu.state.msrs.sysenter_esp = STACKS[0];
    m.cpu.state.msrs.sysenter_eip = CODE + 0x100;
    m.assemble(CODE + 0x100, |a| {
        a.hlt()?;
        a.sysexit()
    });
    m.write(CODE + 0x200, &[0xE6, PORT as u8]);
    m.code(|a| a.sysenter());
    m.set_flags(IF | AC);
    assert_eq!(m.run(), Stop::Halt);
    let s = &m.cpu.state;
    assert_eq!(
        (s.cpl, s.flags.bits() & (IF | AC), s.regs[gpr::RSP]),
        (0, AC, STACKS[0])
    );
    assert_eq!(
        (s.segs[seg::CS].selector, s.segs[seg::SS].selector),
        (CODE32, DATA32)
    );
    m.set(gpr::RDX, CODE + 0x200);
    m.set(gpr::RCX, STACKS[3] - 4);
    assert_eq!(m.run(), Stop::Port);
    let s = &m.cpu.state;
    assert_eq!((s.cpl, s.regs[gpr::RSP]), (3, STACKS[3] - 4));
    assert_eq!(
        (s.segs[seg::CS].selector, s.segs[seg::SS].selector),
        (USER_CODE32, USER_DATA32)
    );
}

#[test]
fn sysexit_in_64_bit_mode() {
    let mut m = Machine::new(Mode::Long);
    m.cpu.state.msrs.sysenter_cs = u64::from(CODE32);
    m.set(gpr::RDX, CODE + 0x200);
    m.set(gpr::RCX, STACKS[3]);
    m.write(CODE + 0x200, &[0xE6, PORT as u8]);
    m.code(|a| a.sysexitq());
    assert_eq!(m.run(), Stop::Port);
    let s = &m.cpu.state;
    assert_eq!(
        (s.cpl, s.segs[seg::CS].selector, s.segs[seg::SS].selector),
        (3, USER_CODE64, USER_DATA64)
    );
    for register in [gpr::RDX, gpr::RCX] {
        let mut m = Machine::new(Mode::Long);
        m.cpu.state.msrs.sysenter_cs = u64::from(CODE32);
        m.set(register, 1 << 47);
        m.code(|a| a.sysexitq());
        m.fault(GP, 0);
    }
}

#[test]
fn sysenter_and_sysexit_refuse_a_null_selector_and_the_wrong_level() {
    for (code, user, segment) in [
        ([0x0F, 0x34], true, 3),
        ([0x0F, 0x35], false, 0),
        ([0x0F, 0x35], true, 8),
    ] {
        let mut m = Machine::new(Mode::Protected);
        m.cpu.state.msrs.sysenter_cs = segment;
        if user {
            m.user();
        }
        m.bytes(&code);
        m.fault(GP, 0);
    }
    let mut m = Machine::new(Mode::Real);
    m.cpu.state.msrs.sysenter_cs = 8;
    m.bytes(&[0x0F, 0x34]);
    m.expect(GP, CODE);
}

#[test]
fn targets_that_are_not_canonical_do_not_get_into_their_registers() {
    for index in [
        0x175,
        0x176,
        0xC000_0082,
        0xC000_0083,
        0xC000_0100,
        0xC000_0101,
        0xC000_0102,
    ] {
        let mut m = Machine::new(Mode::Long);
        m.set(gpr::RCX, index);
        m.set(gpr::RDX, 0x8000);
        m.code(|a| a.wrmsr());
        m.fault(GP, 0);
    }
}
