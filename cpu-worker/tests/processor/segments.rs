//! Loading segment registers, their limits, and alignment: SDM vol. 3, 3.4 and 5.

use iced_x86::code_asm::*;
use quintet_cpu_worker::state::{Cr0, gpr, seg};

use crate::machine::*;

/// What loading a selector from [`FREE`] comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    Good,
    /// A fault with the selector as error code.
    Bad(u8),
}
use Load::{Bad, Good};

/// Loads DS (or SS) with [`FREE`] and `rpl` at level `cpl`, the descriptor having `attr`.
fn load(stack: bool, cpl: u8, rpl: u16, attr: u32) -> Load {
    let mut m = Machine::new(Mode::Protected);
    m.describe(FREE, descriptor(0, 0xF_FFFF, attr));
    match cpl {
        0 => {}
        1 => {
            m.level(CODE_DPL1 | 1, DATA_DPL1 | 1, 1);
            m.set(gpr::RSP, STACKS[1]);
        }
        _ => m.user(),
    }
    m.set(gpr::RAX, u64::from(FREE | rpl));
    m.code(|a| {
        if stack {
            a.mov(ss, ax)?;
        } else {
            a.mov(ds, ax)?;
        }
        a.out(i32::from(PORT), al)
    });
    match m.run() {
        Stop::Port => {
            let n = if stack { seg::SS } else { seg::DS };
            assert_eq!(m.cpu.state.segs[n].selector, FREE | rpl);
            assert_eq!(m.described(FREE) >> 40 & 1, 1, "accessed");
            Good
        }
        Stop::Event(e) => {
            assert_eq!((e.code, e.ip), (Some(u32::from(FREE)), CODE), "{e:x?}");
            assert_eq!(m.described(FREE) >> 40 & 1, u64::from(attr & 1), "not accessed");
            Bad(e.vector)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_segments_load_by_type_level_and_presence() {
    let cases = [
        (0, 0, 0xC092, Good),
        (0, 0, 0xC090, Good),
        (0, 3, 0xC092, Bad(GP)),
        (0, 3, 0xC0F2, Good),
        (3, 3, 0xC0F2, Good),
        (3, 0, 0xC092, Bad(GP)),
        (3, 0, 0xC0B2, Bad(GP)),
        (1, 1, 0xC0B2, Good),
        // Execute-only code is not data, readable code is, conforming code for everybody.
        (0, 0, 0xC098, Bad(GP)),
        (0, 0, 0xC09A, Good),
        (3, 3, 0xC09A, Bad(GP)),
        (3, 3, 0xC09E, Good),
        (3, 3, 0xC09C, Bad(GP)),
        // System descriptors, and what is not there. Type and level come before presence.
        (0, 0, 0x0082, Bad(GP)),
        (0, 0, 0xC012, Bad(NP)),
        (3, 3, 0xC012, Bad(GP)),
    ];
    for (cpl, rpl, attr, expected) in cases {
        assert_eq!(load(false, cpl, rpl, attr), expected, "{cpl} {rpl} {attr:x}");
    }
}

#[test]
fn stack_segments_are_writable_data_of_the_very_level() {
    let cases = [
        (0, 0, 0xC092, Good),
        (0, 0, 0xC096, Good),
        (0, 0, 0xC090, Bad(GP)),
        (0, 0, 0xC09A, Bad(GP)),
        (0, 1, 0xC092, Bad(GP)),
        (0, 0, 0xC0B2, Bad(GP)),
        (3, 3, 0xC0F2, Good),
        (3, 3, 0xC092, Bad(GP)),
        (0, 0, 0xC012, Bad(SS)),
        (0, 0, 0xC010, Bad(GP)),
    ];
    for (cpl, rpl, attr, expected) in cases {
        assert_eq!(load(true, cpl, rpl, attr), expected, "{cpl} {rpl} {attr:x}");
    }
}

#[test]
fn null_is_for_data_and_faults_in_use() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, 3);
    let at = m.code(|a| {
        a.mov(ds, ax)?;
        a.mov(es, ax)?;
        a.mov(ebx, ds)?;
        a.mov(eax, dword_ptr(DATA as u32))
    });
    let e = m.expect(GP, at[3]);
    assert_eq!((e.code, m.reg(gpr::RBX)), (Some(0), 3));
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, 0);
    m.code(|a| a.mov(ss, ax));
    m.fault(GP, 0);
}

#[test]
fn null_ss_is_good_in_64_bit_mode_below_level_3() {
    let mut m = Machine::new(Mode::Long);
    m.code(|a| {
        a.mov(ss, ax)?;
        a.push(rax)?;
        a.hlt()
    });
    assert_eq!(m.run(), Stop::Halt);
    let mut m = Machine::new(Mode::Long);
    m.user();
    m.set(gpr::RAX, 3);
    m.code(|a| a.mov(ss, ax));
    m.fault(GP, 0);
}

#[test]
fn selectors_beyond_their_table_or_in_no_table() {
    let mut m = Machine::new(Mode::Protected);
    m.cpu.state.gdtr.limit = FREE + 6;
    m.set(gpr::RAX, u64::from(FREE));
    m.code(|a| a.mov(ds, ax));
    m.fault(GP, u32::from(FREE));
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, 0x104);
    m.code(|a| a.mov(ds, ax));
    m.fault(GP, 0x104);
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, 4);
    let at = m.code(|a| {
        a.lldt(bx)?;
        a.mov(ds, ax)
    });
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (GP, Some(4), at[1]));
}

#[test]
fn segments_of_the_ldt() {
    let mut m = Machine::new(Mode::Protected);
    m.write64(LDT + 8, descriptor(DATA, 0xF, 0x4093));
    m.write32(DATA + 12, 0x1234_5678);
    m.set(gpr::RAX, 0xC);
    let at = m.code(|a| {
        a.mov(es, ax)?;
        a.mov(ecx, dword_ptr(12).es())?;
        a.mov(ecx, dword_ptr(13).es())
    });
    let e = m.expect(GP, at[2]);
    assert_eq!((e.code, m.reg(gpr::RCX)), (Some(0), 0x1234_5678));
}

#[test]
fn expand_down_segments_hold_what_lies_above_their_limit() {
    // (big, offset, faults)
    for (attr, offset, faults) in [
        (0x0097, 0x1000u32, false),
        (0x0097, 0xFFF, true),
        (0x0097, 0xFFFC, false),
        (0x0097, 0xFFFD, true),
        (0x4097, 0x1_0000, false),
        (0x4097, 0xFFE, true),
    ] {
        let mut m = Machine::new(Mode::Protected);
        m.describe(FREE, descriptor(0, 0xFFF, attr));
        m.force(seg::FS, FREE);
        m.code(|a| {
            a.mov(eax, dword_ptr(offset).fs())?;
            a.hlt()
        });
        if faults {
            m.fault(GP, 0);
        } else {
            assert_eq!(m.run(), Stop::Halt, "{attr:x} {offset:x}");
        }
    }
}

#[test]
fn limits_and_rights_of_accesses() {
    let mut m = Machine::new(Mode::Protected);
    m.code(|a| a.mov(dword_ptr(DATA as u32).cs(), eax));
    m.fault(GP, 0);
    // The stack segment has #SS.
    let mut m = Machine::new(Mode::Protected);
    m.describe(FREE, descriptor(DATA, 0xFF, 0x4093));
    m.vector(SS, gate(CODE32, Machine::handler(SS), 0x8E, 0));
    m.force(seg::SS, FREE);
    m.set(gpr::RSP, 0x80);
    let at = m.code(|a| {
        a.mov(eax, dword_ptr(ebp + 0xFC))?;
        a.mov(eax, dword_ptr(ebp + 0xFD))
    });
    m.set(gpr::RBP, 0);
    let e = m.expect(SS, at[1]);
    assert_eq!(e.code, Some(0));
    // CS ends: the instruction that would pass the limit faults as it is fetched.
    let mut m = Machine::new(Mode::Protected);
    m.describe(FREE, descriptor(0, CODE as u32 + 2, 0x409B));
    m.force(seg::CS, FREE);
    let at = m.code(|a| {
        a.nop()?;
        a.mov(eax, 1)
    });
    let e = m.expect(GP, at[1]);
    assert_eq!(e.code, Some(0));
}

#[test]
fn alignment_is_checked_at_level_3_only_with_am_and_ac() {
    for (am, flags, user, faults) in [
        (true, AC, true, true),
        (false, AC, true, false),
        (true, 0, true, false),
        (true, AC, false, false),
    ] {
        let mut m = Machine::new(Mode::Protected);
        if am {
            m.cpu.state.cr0 |= Cr0::AM;
        }
        if user {
            m.user();
        }
        m.set_flags(flags);
        let at = m.code(|a| {
            a.mov(eax, dword_ptr(DATA as u32 + 4))?;
            a.mov(al, byte_ptr(DATA as u32 + 1))?;
            a.mov(ax, word_ptr(DATA as u32 + 1))?;
            a.out(i32::from(PORT), al)
        });
        if faults {
            let e = m.expect(ALIGN, at[2]);
            assert_eq!(e.code, Some(0));
        } else {
            assert_eq!(m.run(), Stop::Port);
        }
    }
}

#[test]
fn lar_lsl_verr_verw_and_arpl() {
    let mut m = Machine::new(Mode::Protected);
    m.describe(FREE, descriptor(0, 0x12, 0x80F1));
    m.describe(FREE + 8, descriptor(0, 0x12, 0x008E));
    m.user();
    m.set(gpr::RCX, u64::from(FREE | 3));
    m.set(gpr::RDX, u64::from(FREE + 8));
    m.code(|a| {
        a.lar(eax, ecx)?;
        a.setz(bl)?;
        a.lsl(esi, ecx)?;
        a.verr(cx)?;
        a.setz(bh)?;
        a.verw(cx)?;
        a.setz(cl)?;
        a.lar(edi, edx)?;
        a.setz(ch)?;
        a.mov(ebp, 0x10)?;
        a.arpl(bp, dx)?;
        a.mov(dx, 3)?;
        a.arpl(bp, dx)?;
        a.out(i32::from(PORT), al)
    });
    m.set(gpr::RDI, 7);
    assert_eq!(m.run(), Stop::Port);
    assert_eq!(m.reg(gpr::RAX), 0x0080_F100);
    assert_eq!(m.reg(gpr::RSI), 0x12FFF);
    assert_eq!((m.reg(gpr::RBX) & 0xFFFF, m.reg(gpr::RCX) & 0xFFFF), (0x0101, 0));
    assert_eq!((m.reg(gpr::RDI), m.reg(gpr::RBP)), (7, 0x13));
}

#[test]
fn ltr_and_lldt_check_what_they_load() {
    for (attr, rpl_ti, expected) in [
        (0x0089, 0, None),
        (0x008B, 0, Some(GP)),
        (0x0009, 0, Some(NP)),
        (0x0082, 0, Some(GP)),
        (0xC093, 0, Some(GP)),
        (0x0089, 4, Some(GP)),
    ] {
        let mut m = Machine::new(Mode::Protected);
        m.describe(FREE, descriptor(TASKS, 0x67, attr));
        m.set(gpr::RAX, u64::from(FREE | rpl_ti));
        m.code(|a| {
            a.ltr(ax)?;
            a.hlt()
        });
        match expected {
            Some(vector) => {
                m.fault(vector, u32::from(FREE | rpl_ti));
            }
            None => {
                assert_eq!(m.run(), Stop::Halt);
                assert_eq!(m.described(FREE) >> 40 & 0xFF, 0x8B, "busy");
            }
        }
    }
}

#[test]
fn system_descriptors_of_long_mode_have_two_halves() {
    // (second half, limit of the GDT, whether LLDT takes it)
    for (upper, limit, good) in [
        (0, 0xFFF, true),
        (0xFFFF_8000, 0xFFF, true),
        (0x0000_8000, 0xFFF, false),
        (0x1F00_0000_0000, 0xFFF, false),
        (0, FREE + 14, false),
    ] {
        for tr in [false, true] {
            let mut m = Machine::new(Mode::Long);
            m.describe(FREE, descriptor(TASKS, 0x67, if tr { 0x89 } else { 0x82 }));
            m.describe(FREE + 8, upper);
            m.cpu.state.gdtr.limit = limit;
            m.set(gpr::RAX, u64::from(FREE));
            m.code(|a| {
                if tr {
                    a.ltr(ax)?;
                } else {
                    a.lldt(ax)?;
                }
                a.hlt()
            });
            if good {
                assert_eq!(m.run(), Stop::Halt);
                let s = m.cpu.state.segs[if tr { seg::TR } else { seg::LDTR }];
                assert_eq!(s.base, TASKS | upper << 32);
            } else {
                m.fault(GP, u32::from(FREE));
            }
        }
    }
}
