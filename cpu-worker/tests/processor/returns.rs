//! IRET and far RET: SDM vol. 2, and vol. 3, 6.12.1 and 20.

use quintet_cpu_worker::state::{gpr, seg};

use crate::machine::*;

/// A machine about to execute `opcode` with `frame` on its stack.
fn about_to(mode: Mode, opcode: &[u8], frame: &[u64]) -> Machine {
    let mut m = Machine::new(mode);
    let size = m.slot;
    let bottom = STACKS[0] - 0x100;
    m.set(gpr::RSP, bottom);
    for (n, &v) in (0..).zip(frame) {
        if size == 4 {
            m.write32(bottom + 4 * n, v as u32);
        } else {
            m.write64(bottom + 8 * n, v);
        }
    }
    m.write(CODE + 0x100, &[0xE6, PORT as u8]);
    m.bytes(opcode);
    m
}

const IRET: &[u8] = &[0xCF];
const IRETQ: &[u8] = &[0x48, 0xCF];
const RETF: &[u8] = &[0xCB];
const TO: u64 = CODE + 0x100;

#[test]
fn iret_to_the_same_level_pops_three_and_restores_what_level_0_may() {
    let mut m = about_to(
        Mode::Protected,
        IRET,
        &[TO, u64::from(CODE32), 0x003F_7FD7 & !VM & !TF & !NT],
    );
    assert_eq!(m.run(), Stop::Port);
    assert_eq!(m.reg(gpr::RSP), STACKS[0] - 0x100 + 12);
    // RF has served for the OUT.
    assert_eq!(m.flags(), 0x003F_7FD7 & !(VM | TF | NT | RF));
}

#[test]
fn iret_at_level_3_keeps_iopl_and_if() {
    let mut m = about_to(Mode::Protected, IRET, &[]);
    m.user();
    let bottom = STACKS[3] - 12;
    m.set(gpr::RSP, bottom);
    m.write32(bottom, TO as u32);
    m.write32(bottom + 4, u32::from(USER_CODE32));
    m.write32(bottom + 8, 0x001A_3202 | 0x4_0001);
    assert_eq!(m.run(), Stop::Port);
    assert_eq!(m.flags(), 0x4_0003);
}

#[test]
fn iret_to_an_outer_level_pops_the_stack_and_drops_inner_segments() {
    let frame = [
        TO,
        u64::from(USER_CODE32),
        0x202,
        STACKS[3],
        u64::from(USER_DATA32),
    ];
    let mut m = about_to(Mode::Protected, IRET, &frame);
    m.describe(FREE, descriptor(0, 0xF_FFFF, 0xC09F));
    m.force(seg::DS, USER_DATA32);
    m.force(seg::ES, DATA32);
    m.force(seg::FS, FREE);
    m.force(seg::GS, CODE32);
    assert_eq!(m.run(), Stop::Port);
    let s = &m.cpu.state;
    assert_eq!(
        (s.cpl, s.regs[gpr::RSP], s.segs[seg::SS].selector),
        (3, STACKS[3], USER_DATA32)
    );
    let selectors = [seg::DS, seg::ES, seg::FS, seg::GS].map(|n| s.segs[n].selector);
    assert_eq!(
        selectors,
        [USER_DATA32, 0, FREE, 0],
        "data and non-conforming code of inner levels become null"
    );
}

#[test]
fn returns_check_code_and_stack() {
    let f = u64::from(FREE);
    let e = u32::from(FREE);
    let user = u64::from(USER_CODE32);
    // (CS, SS, attributes of FREE, vector, error code)
    let cases = [
        (0, 0, 0, GP, 0),
        (u64::from(DATA32), 0, 0, GP, 0x10),
        (f | 3, 0, 0xC09B, GP, e), // RPL 3, DPL 0
        (f, 0, 0xC0FB, GP, e),     // RPL 0, DPL 3
        (f, 0, 0xC01B, NP, e),
        (f, 0, 0x0082, GP, e),
        (f | 1, 0, 0xC0FF, GP, e), // conforming, of an outer level than RPL
        (0xFF8 | 4, 0, 0, GP, 0xFFC),
        (user, 0, 0, GP, 0),
        (user, 3, 0, GP, 0),
        (user, f, 0xC0F3, GP, e),     // RPL of SS
        (user, f | 3, 0xC093, GP, e), // DPL of SS
        (user, f | 3, 0xC0F1, GP, e), // not writable
        (user, f | 3, 0xC073, SS, e), // not present
    ];
    for iret in [true, false] {
        for (code, stack, attr, vector, error) in cases {
            let mut frame = vec![TO, code];
            if iret {
                frame.push(2);
            }
            frame.extend([STACKS[3], stack]);
            let mut m = about_to(Mode::Protected, if iret { IRET } else { RETF }, &frame);
            m.describe(FREE, descriptor(0, 0xF_FFFF, attr));
            m.fault(vector, error);
            assert_eq!(
                m.reg(gpr::RSP),
                STACKS[0] - 0x100 - 16,
                "the stack pointer has not moved"
            );
        }
    }
    // An inner level, seen from level 3; and an offset past the limit.
    let mut m = about_to(Mode::Protected, RETF, &[]);
    m.user();
    m.write32(STACKS[3] - 8, TO as u32);
    m.write32(STACKS[3] - 4, u32::from(CODE32));
    m.set(gpr::RSP, STACKS[3] - 8);
    m.fault(GP, u32::from(CODE32));
    let mut m = about_to(Mode::Protected, IRET, &[TO, f, 2]);
    m.describe(FREE, descriptor(0, 0xFF, 0x409B));
    m.fault(GP, 0);
}

#[test]
fn iretq_always_pops_the_stack_and_takes_a_null_ss_below_level_3() {
    let mut m = about_to(Mode::Long, IRETQ, &[TO, u64::from(CODE64), 2, 0x2_0F03, 0]);
    assert_eq!(m.run(), Stop::Port);
    assert_eq!(
        (m.reg(gpr::RSP), m.cpu.state.segs[seg::SS].selector),
        (0x2_0F03, 0)
    );
    // To compatibility mode, and to level 3, with a null SS: refused.
    let mut m = about_to(Mode::Long, IRETQ, &[TO, u64::from(CODE32), 2, 0x2_0F00, 0]);
    m.fault(GP, 0);
    let mut m = about_to(Mode::Long, IRETQ, &[TO, u64::from(USER_CODE64), 2, STACKS[3], 3]);
    m.fault(GP, 0);
    let mut m = about_to(Mode::Long, IRETQ, &[1 << 47, u64::from(CODE64), 2, STACKS[0], 0]);
    m.fault(GP, 0);
    // NT is an error there.
    let mut m = about_to(Mode::Long, IRETQ, &[TO, u64::from(CODE64), 2, STACKS[0], 0]);
    m.set_flags(NT);
    m.fault(GP, 0);
}

#[test]
fn iretq_goes_to_compatibility_mode_and_64_bit_user_code() {
    for (code, bits) in [(USER_CODE32, 32), (USER_CODE64, 64)] {
        let frame = [TO, u64::from(code), 0x202, STACKS[3], u64::from(USER_DATA32)];
        let mut m = about_to(Mode::Long, IRETQ, &frame);
        assert_eq!(m.run(), Stop::Port);
        assert_eq!(
            (m.cpu.state.cpl, m.cpu.code_size.bits(), m.reg(gpr::RSP)),
            (3, bits, STACKS[3])
        );
    }
}

#[test]
fn a_word_iret_to_a_16_bit_stack_keeps_the_upper_half_of_esp() {
    let mut m = about_to(Mode::Protected, IRET, &[]);
    m.describe(FREE, descriptor(0x2_0000, 0xFFFF, 0x00F3));
    let bottom = STACKS[0] - 0x100;
    for (n, v) in (0..).zip([TO as u32, u32::from(USER_CODE32), 2, 0x0800, u32::from(FREE | 3)]) {
        m.write32(bottom + 4 * n, v);
    }
    assert_eq!(m.run(), Stop::Port);
    assert_eq!(m.reg(gpr::RSP), bottom & !0xFFFF | 0x0800);
}

#[test]
fn nmis_are_blocked_until_iret_even_one_that_faults() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    m.nmi();
    m.expect(2, at[0]);
    // A second one waits; the handler's IRET lets it in.
    m.nmi();
    let e = m.event();
    assert_eq!((e.vector, e.ip), (2, at[0]));
    assert!(m.cpu.state.nmi_blocked);
    m.write32(e.frame + 4, 0);
    let e = m.event();
    assert_eq!((e.vector, e.code), (GP, Some(0)));
    assert!(!m.cpu.state.nmi_blocked);
}
