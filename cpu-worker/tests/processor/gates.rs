//! Interrupt, trap and call gates, far transfers: SDM vol. 3, 5.8 and 6.11 to 6.14.

use iced_x86::code_asm::*;
use quintet_cpu_worker::state::{gpr, seg};

use crate::machine::*;

#[test]
fn an_interrupt_gate_clears_if_and_a_trap_gate_does_not() {
    for (attr, flag) in [(0x8E, 0), (0x8F, IF)] {
        let mut m = Machine::new(Mode::Protected);
        m.vector(0x40, gate(CODE32, Machine::handler(0x40), attr, 0));
        let at = m.code(|a| {
            a.int(0x40)?;
            a.hlt()
        });
        m.set_flags(IF | NT | AC);
        let e = m.expect(0x40, at[1]);
        assert_eq!(m.flags() & (IF | NT | AC), flag | AC);
        assert_eq!(
            (e.cs, e.flags & (IF | NT), m.reg(gpr::RSP)),
            (CODE32, IF | NT, STACKS[0] - 12)
        );
    }
}

#[test]
fn a_gate_to_an_inner_level_switches_stacks() {
    let mut m = Machine::new(Mode::Protected);
    m.user();
    m.vector(0x40, gate(CODE32, Machine::handler(0x40), 0xEE, 0));
    let at = m.code(|a| a.int(0x40));
    let e = m.expect(0x40, at[1]);
    assert_eq!((e.cs, e.frame), (USER_CODE32, STACKS[0] - 20));
    assert_eq!((m.outer(&e, 0), m.outer(&e, 1) as u16), (STACKS[3], USER_DATA32));
    let s = &m.cpu.state;
    assert_eq!(
        (s.cpl, s.segs[seg::SS].selector, s.segs[seg::CS].selector),
        (0, DATA32, CODE32)
    );
    // Data segments stay as they are.
    assert_eq!(s.segs[seg::DS].selector, USER_DATA32);
}

#[test]
fn a_16_bit_gate_pushes_words() {
    let mut m = Machine::new(Mode::Protected);
    m.user();
    m.slot = 2;
    m.vector(0x40, gate(CODE32, 0xABCD_0000 | Machine::handler(0x40), 0xE6, 0));
    let at = m.code(|a| a.int(0x40));
    let e = m.expect(0x40, at[1]);
    assert_eq!((e.cs, e.frame), (USER_CODE32, STACKS[0] - 10));
    assert_eq!(m.outer(&e, 0), STACKS[3] & 0xFFFF);
}

#[test]
fn gates_and_their_targets_are_checked() {
    let target = u32::from(FREE);
    let here = 0x40 * 8 + 2;
    // (gate's selector and attributes, target's attributes, vector, error code)
    let cases = [
        (FREE, 0x8E, 0xC09B, GP, here),   // DPL of the gate below CPL
        (FREE, 0x6E, 0xC09B, NP, here),   // gate not present
        (FREE, 0x8C, 0xC09B, GP, here),   // a call gate in the IDT
        (FREE, 0xFE, 0xC09B, GP, here),   // not a gate
        (0, 0xEE, 0xC09B, GP, 0),         // null
        (FREE, 0xEE, 0xC093, GP, target), // data
        (FREE, 0xEE, 0xC01B, NP, target), // not present
        (FREE, 0xEE, 0x0089, GP, target), // system
        (0xFF8 | 4, 0xEE, 0, GP, 0xFFC),  // beyond the LDT
    ];
    for (selector, attr, code, vector, error) in cases {
        let mut m = Machine::new(Mode::Protected);
        m.user();
        m.describe(FREE, descriptor(0, 0xF_FFFF, code));
        m.vector(0x40, gate(selector, Machine::handler(0x40), attr, 0));
        m.code(|a| a.int(0x40));
        m.fault(vector, error);
    }
    // A target of an outer level.
    let mut m = Machine::new(Mode::Protected);
    m.vector(0x40, gate(USER_CODE32, Machine::handler(0x40), 0xEE, 0));
    m.code(|a| a.int(0x40));
    m.fault(GP, 0x18);
    // Beyond the IDT, and past the limit of the target.
    let mut m = Machine::new(Mode::Protected);
    m.cpu.state.idtr.limit = 0x40 * 8 + 6;
    m.code(|a| a.int(0x40));
    m.fault(GP, here);
    let mut m = Machine::new(Mode::Protected);
    m.describe(FREE, descriptor(0, 0x100, 0x409B));
    m.vector(0x40, gate(FREE, 0x101, 0xEE, 0));
    m.code(|a| a.int(0x40));
    m.fault(GP, 0);
}

#[test]
fn faults_of_an_external_interrupt_and_of_int1_have_ext() {
    let mut m = Machine::new(Mode::Protected);
    m.vector(0x40, gate(CODE32, 0, 0x0E, 0));
    m.code(|a| {
        a.sti()?;
        a.nop()?;
        a.hlt()
    });
    m.interrupt(0x40);
    let e = m.event();
    assert_eq!((e.vector, e.code), (NP, Some(0x40 * 8 + 3)));
    let mut m = Machine::new(Mode::Protected);
    m.vector(DB, gate(CODE32, 0, 0x0E, 0));
    m.bytes(&[0xF1]);
    m.fault(NP, 8 + 3);
    let mut m = Machine::new(Mode::Protected);
    m.vector(3, gate(CODE32, 0, 0x0E, 0));
    m.bytes(&[0xCC]);
    m.fault(NP, 3 * 8 + 2);
    // A benign exception whose gate is absent: #NP alone, and it is external to the program.
    let mut m = Machine::new(Mode::Protected);
    m.vector(UD, gate(CODE32, 0, 0x0E, 0));
    m.code(|a| a.ud2());
    m.fault(NP, 6 * 8 + 3);
}

#[test]
fn the_stack_of_the_inner_level_is_checked() {
    // (SS in the TSS, attributes of FREE, limit of TR, vector, error code)
    let cases = [
        (0, 0xC093, 0x2FF, TS, 0),
        (FREE, 0xC093, 0x2FF, 0xFF, 0),
        (FREE | 3, 0xC093, 0x2FF, TS, u32::from(FREE)),
        (FREE, 0xC0F3, 0x2FF, TS, u32::from(FREE)),
        (FREE, 0xC091, 0x2FF, TS, u32::from(FREE)),
        (FREE, 0xC013, 0x2FF, SS, u32::from(FREE)),
        (0xFF8 | 4, 0, 0x2FF, TS, 0xFFC),
        (FREE, 0xC093, 8, TS, u32::from(TR)),
        // The limit needs to take in SS only, not the word after it.
        (FREE, 0xC093, 9, 0xFF, 0),
    ];
    for (stack, attr, limit, vector, code) in cases {
        let mut m = Machine::new(Mode::Protected);
        m.describe(FREE, descriptor(0, 0xF_FFFF, attr));
        m.write16(TSS + 8, stack);
        m.cpu.state.segs[seg::TR].limit = limit;
        m.user();
        m.vector(0x40, gate(CODE32, Machine::handler(0x40), 0xEE, 0));
        // The faults themselves go to level 3, so that they need no stack.
        for v in [TS, SS] {
            m.vector(v, gate(USER_CODE32, Machine::handler(v), 0xEE, 0));
        }
        m.write(Machine::handler(TS), &[0xE6, PORT as u8]);
        m.write(Machine::handler(SS), &[0xE6, PORT as u8]);
        m.code(|a| a.int(0x40));
        m.set_flags(0x3000);
        match m.run() {
            Stop::Event(e) => assert_eq!((e.vector, vector), (0x40, 0xFF), "{stack:x} {attr:x}"),
            Stop::Port => {
                assert_eq!(m.cpu.rip(), Machine::handler(vector) + 2, "{stack:x} {attr:x}");
                assert_eq!(m.read32(m.reg(gpr::RSP)), code, "{stack:x} {attr:x}");
                assert_eq!(m.reg(gpr::RSP), STACKS[3] - 16);
            }
            other => panic!("{other:?} {stack:x} {attr:x}"),
        }
    }
}

#[test]
fn a_conforming_handler_keeps_the_level_and_the_stack() {
    let mut m = Machine::new(Mode::Protected);
    m.user();
    m.write(CODE + 0x80, &[0xE6, PORT as u8]);
    m.vector(0x40, gate(CONFORMING, CODE + 0x80, 0xEE, 0));
    m.code(|a| a.int(0x40));
    assert_eq!(m.run(), Stop::Port);
    let s = &m.cpu.state;
    assert_eq!((s.cpl, s.segs[seg::CS].selector), (3, CONFORMING | 3));
    assert_eq!(m.reg(gpr::RSP), STACKS[3] - 12);
}

#[test]
fn long_mode_aligns_the_frame_and_uses_the_ist() {
    for (user, ist, top) in [
        (false, 0, STACKS[0] - 16),
        (false, 1, IST1),
        (true, 0, STACKS[0]),
        (true, 1, IST1),
    ] {
        let mut m = Machine::new(Mode::Long);
        if user {
            m.user();
        }
        let bottom = m.reg(gpr::RSP) - 5;
        m.set(gpr::RSP, bottom);
        m.vector(0x40, gate(CODE64, Machine::handler(0x40), 0xEE, ist));
        let at = m.code(|a| a.int(0x40));
        let stack = m.cpu.state.segs[seg::SS].selector;
        let e = m.expect(0x40, at[1]);
        assert_eq!(e.frame, top - 40, "{user} {ist}");
        assert_eq!((m.outer(&e, 0), m.outer(&e, 1)), (bottom, u64::from(stack)));
        let now = m.cpu.state.segs[seg::SS].selector;
        assert_eq!(
            now,
            if user { 0 } else { stack },
            "SS is null after a change of level only"
        );
    }
}

#[test]
fn long_mode_checks_offsets_stacks_and_code() {
    // Not canonical: the handler, the stack.
    let mut m = Machine::new(Mode::Long);
    m.vector(0x40, gate(CODE64, 0, 0x8E, 0));
    m.write64(IDT + 16 * 0x40 + 8, 0x8000);
    m.code(|a| a.int(0x40));
    m.fault(GP, 0);
    let mut m = Machine::new(Mode::Long);
    m.user();
    m.write64(TSS + 4, 0x8000_0000_0000);
    m.vector(0x40, gate(CODE64, Machine::handler(0x40), 0xEE, 0));
    m.vector(SS, gate(CODE64, Machine::handler(SS), 0x8E, 1));
    m.code(|a| a.int(0x40));
    m.fault(SS, 0);
    // 32-bit code and 32-bit-only gates.
    for (selector, attr, code) in [
        (CODE32, 0x8E, u32::from(CODE32)),
        (CODE64, 0x86, 0x40 * 8 + 2),
        (CODE64, 0x85, 0x40 * 8 + 2),
    ] {
        let mut m = Machine::new(Mode::Long);
        m.vector(0x40, gate(selector, Machine::handler(0x40), attr, 0));
        m.code(|a| a.int(0x40));
        m.fault(GP, code);
    }
}

#[test]
fn call_gates_carry_parameters_to_the_inner_stack_and_back() {
    for (attr, size) in [(0xEC, 4u64), (0xE4, 2)] {
        let mut m = Machine::new(Mode::Protected);
        m.user();
        m.describe(FREE, gate(CODE32, CODE + 0x100, attr, 2));
        // MOV EBX, ESP; HLT; RETF, which releases the parameters.
        m.write(CODE + 0x100, &[0x89, 0xE3, 0xF4]);
        if size == 4 {
            m.write(CODE + 0x103, &[0xCA, 8, 0]);
        } else {
            m.write(CODE + 0x103, &[0x66, 0xCA, 4, 0]);
        }
        m.write32(STACKS[3] - 8, 0x2222_1111);
        m.write32(STACKS[3] - 4, 0x4444_3333);
        m.set(gpr::RSP, STACKS[3] - 8);
        let at = m.code(|a| {
            a.db(&far(0x9A, FREE, 0))?;
            a.out(i32::from(PORT), al)
        });
        assert_eq!(m.run(), Stop::Halt);
        let bottom = m.reg(gpr::RBX);
        assert_eq!(bottom, STACKS[0] - 6 * size);
        let slot = |m: &Machine, n: u64| {
            if size == 4 {
                u64::from(m.read32(bottom + 4 * n))
            } else {
                u64::from(m.read16(bottom + 2 * n))
            }
        };
        let mask = if size == 4 { u64::MAX } else { 0xFFFF };
        assert_eq!(slot(&m, 0), at[1] & mask);
        assert_eq!(slot(&m, 1), u64::from(USER_CODE32));
        let parameters = if size == 4 {
            [0x2222_1111, 0x4444_3333]
        } else {
            [0x1111, 0x2222]
        };
        assert_eq!([slot(&m, 2), slot(&m, 3)], parameters);
        assert_eq!(slot(&m, 4), (STACKS[3] - 8) & mask);
        assert_eq!(slot(&m, 5), u64::from(USER_DATA32));
        // RETF goes back and releases them on both stacks.
        m.force(seg::FS, DATA32);
        if size == 4 {
            assert_eq!(m.run(), Stop::Port);
            assert_eq!((m.cpu.state.cpl, m.reg(gpr::RSP)), (3, STACKS[3]));
            assert_eq!(m.cpu.state.segs[seg::FS].selector, 0, "of an inner level");
            assert_eq!(m.cpu.state.segs[seg::ES].selector, USER_DATA32);
        }
    }
}

fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    let mut b = vec![opcode];
    b.extend(offset.to_le_bytes());
    b.extend(selector.to_le_bytes());
    b
}

#[test]
fn far_transfers_check_their_targets() {
    const JMP: u8 = 0xEA;
    const CALL: u8 = 0x9A;
    let f = u32::from(FREE);
    // (opcode, level, RPL, descriptor, vector or 0 when good, error code)
    let code = |attr| descriptor(0, 0xF_FFFF, attr);
    let cases = [
        (JMP, 0, 0, code(0xC09A), 0, 0),
        (CALL, 0, 0, code(0xC09A), 0, 0),
        (JMP, 0, 3, code(0xC09A), GP, f),
        (JMP, 3, 0, code(0xC09A), GP, f),
        (JMP, 3, 0, code(0xC0FA), 0, 0),
        (JMP, 0, 0, code(0xC0FA), GP, f),
        (JMP, 3, 3, code(0xC09E), 0, 0),
        (JMP, 0, 0, code(0xC0FE), GP, f),
        (JMP, 0, 0, code(0xC092), GP, f),
        (JMP, 0, 0, code(0xC01A), NP, f),
        (JMP, 0, 0, descriptor(0, 0xFF, 0x409A), GP, 0),
        (CALL, 3, 3, gate(CODE32, CODE, 0x8C, 0), GP, f),
        (CALL, 3, 3, gate(CODE32, CODE, 0x6C, 0), NP, f),
        (CALL, 3, 3, gate(0, CODE, 0xEC, 0), GP, 0),
        (CALL, 3, 3, gate(DATA32, CODE, 0xEC, 0), GP, 0x10),
        (JMP, 3, 3, gate(CODE32, CODE, 0xEC, 0), GP, 8),
        (CALL, 0, 0, gate(USER_CODE32, CODE, 0xEC, 0), GP, 0x18),
        (JMP, 3, 3, gate(CONFORMING, CODE + 0x100, 0xEC, 0), 0, 0),
        (JMP, 0, 0, descriptor(LDT, 0xFF, 0x0082), GP, f),
        (JMP, 0, 0, gate(CODE32, CODE, 0x8E, 0), GP, f),
        (JMP, 0, 0, descriptor(TASKS, 0x67, 0x008B), GP, f),
    ];
    for (opcode, cpl, rpl, d, vector, error) in cases {
        let mut m = Machine::new(Mode::Protected);
        m.describe(FREE, d);
        if cpl == 3 {
            m.user();
        }
        m.write(CODE + 0x100, &[0xE6, PORT as u8]);
        m.bytes(&far(opcode, FREE | rpl, CODE as u32 + 0x100));
        if vector == 0 {
            assert_eq!(m.run(), Stop::Port, "{opcode:x} {cpl} {d:x}");
            assert_eq!(m.cpu.state.cpl, cpl);
            assert_eq!(m.cpu.state.segs[seg::CS].selector & 3, u16::from(cpl));
        } else {
            let e = m.event();
            assert_eq!(
                (e.vector, e.code, e.ip),
                (vector, Some(error), CODE),
                "{opcode:x} {cpl} {d:x}"
            );
            assert_eq!(e.cs & 3, u16::from(cpl));
        }
    }
}

#[test]
fn a_64_bit_call_gate_pushes_quadwords_and_takes_no_parameters() {
    for (user, upper, error) in [
        (true, 0, None),
        (false, 0, None),
        (true, 0x8000, Some(0)),
        (true, 0x0100_0000_0000, Some(u32::from(FREE))),
    ] {
        let mut m = Machine::new(Mode::Long);
        m.describe(FREE, gate(CODE64, CODE + 0x100, 0xEC, 0));
        m.describe(FREE + 8, upper);
        m.write(CODE + 0x100, &[0xF4]);
        if user {
            m.user();
        }
        let top = if user { STACKS[0] } else { m.reg(gpr::RSP) };
        m.write64(DATA, u64::from(FREE) << 32);
        let at = m.code(|a| a.call(fword_ptr(DATA)));
        if let Some(error) = error {
            m.fault(GP, error);
            continue;
        }
        assert_eq!(m.run(), Stop::Halt);
        let bottom = m.reg(gpr::RSP);
        assert_eq!(bottom, top - if user { 32 } else { 16 });
        assert_eq!(m.read64(bottom), at[1]);
        if user {
            assert_eq!(m.read64(bottom + 8), u64::from(USER_CODE64));
            assert_eq!(m.read64(bottom + 16), STACKS[3]);
            assert_eq!(m.read64(bottom + 24), u64::from(USER_DATA32));
            assert_eq!(m.cpu.state.segs[seg::SS].selector, 0);
        }
    }
}
