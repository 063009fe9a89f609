//! DR0 to DR7: SDM vol. 3, 17.2 and 17.3.1.

use iced_x86::code_asm::*;
use quintet_cpu_worker::state::{Cr4, gpr};

use crate::machine::*;

const BD: u64 = 1 << 13;
const BS: u64 = 1 << 14;
const GD: u64 = 1 << 13;

/// DR7 with breakpoint `n` enabled: its R/W and length fields.
fn on(n: u64, rw: u64, len: u64) -> u64 {
    let code = match len {
        1 => 0,
        2 => 1,
        8 => 2,
        _ => 3,
    };
    1 << (2 * n) | (rw | code << 2) << (16 + 4 * n)
}

#[test]
fn an_instruction_breakpoint_is_a_fault_that_rf_passes_once() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.nop()?;
        a.inc(eax)?;
        a.jmp(again)
    });
    m.debug(1, at[1]);
    m.debug(7, on(1, 0, 1));
    for pass in 0..3 {
        let e = m.expect(DB, at[1]);
        assert_eq!((m.dr6(), e.flags & RF, m.reg(gpr::RAX)), (2, 0, pass));
        m.write32(e.frame + 8, (e.flags | RF) as u32);
    }
    // Without RF the same breakpoint is met again at once.
    let e = m.expect(DB, at[1]);
    assert_eq!(m.reg(gpr::RAX), 3);
    m.expect(DB, at[1]);
    assert_eq!((m.reg(gpr::RAX), e.flags & RF), (3, 0));
}

#[test]
fn rf_serves_one_instruction_and_is_clear_behind_it() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        a.nop()?;
        a.nop()?;
        a.int(0x40)?;
        a.hlt()
    });
    m.debug(0, at[0]);
    m.debug(1, at[1]);
    m.debug(7, on(0, 0, 1) | on(1, 0, 1));
    m.set_flags(RF);
    m.expect(DB, at[1]);
    assert_eq!(m.dr6(), 2);
    m.debug(7, 0);
    let e = m.expect(0x40, at[3]);
    assert_eq!(e.flags & RF, 0);
}

#[test]
fn an_instruction_breakpoint_comes_before_faults_of_the_instruction() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| a.ud2());
    m.debug(3, at[0]);
    m.debug(7, on(3, 0, 1));
    let e = m.expect(DB, at[0]);
    assert_eq!(m.dr6(), 8);
    m.write32(e.frame + 8, (e.flags | RF) as u32);
    let e = m.expect(UD, at[0]);
    assert_eq!(e.flags & RF, RF);
}

#[test]
fn mov_ss_shields_the_next_instruction_from_its_breakpoint() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, u64::from(DATA32));
    let at = m.code(|a| {
        a.mov(ss, ax)?;
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    m.debug(0, at[1]);
    m.debug(1, at[2]);
    m.debug(7, on(0, 0, 1) | on(1, 0, 1));
    m.expect(DB, at[2]);
    assert_eq!(m.dr6(), 2);
}

#[test]
fn disabled_and_linear_breakpoints() {
    // CS has a base: the breakpoint counts in linear addresses.
    let mut m = Machine::new(Mode::Protected);
    m.describe(FREE, descriptor(CODE, 0xFFFF, 0x409B));
    m.force(quintet_cpu_worker::state::seg::CS, FREE);
    m.write(CODE, &[0x90, 0x90, 0xF4]);
    m.at(0);
    m.debug(0, 1);
    m.debug(1, CODE + 1);
    m.debug(7, on(0, 0, 1) | on(1, 0, 1));
    m.expect(DB, 1);
    assert_eq!(m.dr6(), 2);
    // Neither L nor G set: nothing happens.
    m.debug(7, on(1, 0, 1) & !0xFF);
    m.debug(0, 0);
    assert_eq!(m.run(), Stop::Halt);
}

#[test]
fn data_breakpoints_watch_aligned_spans() {
    // (address and length of the breakpoint, address and size of the access, whether they meet)
    let cases = [
        (0, 1, 0, 1, true),
        (0, 1, 1, 1, false),
        (1, 1, 0, 4, true),
        (4, 1, 0, 4, false),
        (0, 4, 3, 4, true),
        (0, 4, 4, 4, false),
        (3, 4, 0, 1, true),
        (5, 2, 4, 1, true),
        (4, 2, 2, 2, false),
        (8, 8, 15, 1, true),
        (8, 8, 6, 4, true),
        (8, 8, 16, 2, false),
        (8, 8, 4, 4, false),
    ];
    for (at, len, access, size, meets) in cases {
        let mut m = Machine::new(Mode::Long);
        let places = m.code(|a| {
            match size {
                1 => a.mov(byte_ptr(DATA + 0xFF8 + access), al)?,
                2 => a.mov(word_ptr(DATA + 0xFF8 + access), ax)?,
                _ => a.mov(dword_ptr(DATA + 0xFF8 + access), eax)?,
            }
            a.nop()?;
            a.hlt()
        });
        m.debug(2, DATA + 0xFF8 + at);
        m.debug(7, on(2, 1, len));
        if meets {
            let e = m.expect(DB, places[1]);
            assert_eq!((m.dr6(), e.flags & RF), (4, 0), "{at} {len} {access} {size}");
        } else {
            assert_eq!(m.run(), Stop::Halt, "{at} {len} {access} {size}");
        }
    }
}

#[test]
fn reads_hit_read_write_breakpoints_only() {
    for (rw, read_hits) in [(1, false), (3, true)] {
        let mut m = Machine::new(Mode::Protected);
        let at = m.code(|a| {
            a.mov(eax, dword_ptr(DATA as u32))?;
            a.inc(dword_ptr(DATA as u32))?;
            a.hlt()
        });
        m.debug(0, DATA);
        m.debug(7, on(0, rw, 4));
        if read_hits {
            m.expect(DB, at[1]);
        }
        m.expect(DB, at[2]);
        assert_eq!((m.dr6(), m.read32(DATA)), (1, 1));
        assert_eq!(m.run(), Stop::Halt);
    }
}

#[test]
fn stack_string_and_wide_accesses_are_watched() {
    let mut m = Machine::new(Mode::Long);
    let at = m.code(|a| {
        a.push(rax)?;
        a.pop(rax)?;
        a.movsb()?;
        a.movups(xmmword_ptr(DATA + 0x20), xmm0)?;
        a.call(CODE + 0x40)?;
        a.hlt()
    });
    m.write(CODE + 0x40, &[0xF4]);
    m.cpu.state.cr4 |= Cr4::OSFXSR;
    m.set(gpr::RSI, DATA);
    m.set(gpr::RDI, DATA + 0x10);
    m.debug(0, STACKS[0] - 8);
    m.debug(1, DATA);
    m.debug(2, DATA + 0x28);
    m.debug(7, on(0, 3, 8) | on(1, 3, 1) | on(2, 1, 4));
    // Its own frame would hit the watched stack.
    m.vector(DB, gate(CODE64, Machine::handler(DB), 0x8E, 1));
    m.expect(DB, at[1]);
    assert_eq!(m.dr6(), 1);
    m.expect(DB, at[2]);
    m.expect(DB, at[3]);
    assert_eq!(m.dr6(), 2);
    m.expect(DB, at[4]);
    assert_eq!(m.dr6(), 4);
    m.expect(DB, CODE + 0x40);
    assert_eq!(m.dr6(), 1);
}

#[test]
fn a_repeated_instruction_traps_after_the_iteration_that_hit() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RCX, 8);
    m.set(gpr::RDI, DATA);
    let at = m.code(|a| {
        a.rep().stosd()?;
        a.hlt()
    });
    m.debug(0, DATA + 12);
    m.debug(1, at[0]);
    m.debug(7, on(0, 1, 4) | on(1, 0, 1));
    let e = m.expect(DB, at[0]);
    assert_eq!((m.dr6(), m.reg(gpr::RCX)), (2, 8));
    m.write32(e.frame + 8, (e.flags | RF) as u32);
    // Not again at its own breakpoint, iteration by iteration.
    let e = m.expect(DB, at[0]);
    assert_eq!((m.dr6(), m.reg(gpr::RCX), e.flags & RF), (1, 4, RF));
    assert_eq!(m.run(), Stop::Halt);
    assert_eq!(m.reg(gpr::RCX), 0);
}

#[test]
fn a_fault_takes_the_data_breakpoint_with_it() {
    let mut m = Machine::new(Mode::Protected);
    m.write32(DATA, 0);
    m.code(|a| a.div(dword_ptr(DATA as u32)));
    m.debug(0, DATA);
    m.debug(7, on(0, 3, 4));
    m.expect(DE, CODE);
    assert_eq!(m.dr6(), 0);
}

#[test]
fn single_step_and_data_breakpoint_are_one_exception() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        a.mov(dword_ptr(DATA as u32), eax)?;
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    m.debug(0, DATA);
    m.debug(1, at[1]);
    m.debug(7, on(0, 1, 4) | on(1, 0, 1));
    m.set_flags(TF);
    m.expect(DB, at[1]);
    assert_eq!(m.dr6(), BS | 1);
    // The trap of the previous instruction came first; now the breakpoint of the next. BS stays, B0 does not.
    m.debug(6, 0);
    let e = m.expect(DB, at[1]);
    assert_eq!(m.dr6(), 2);
    m.write32(e.frame + 8, (e.flags | RF) as u32);
    m.expect(DB, at[2]);
    assert_eq!(m.dr6(), BS);
}

#[test]
fn a_data_breakpoint_of_pop_ss_waits_for_the_next_instruction() {
    let mut m = Machine::new(Mode::Protected);
    let at = m.code(|a| {
        a.pop(ss)?;
        a.int(0x40)?;
        a.hlt()
    });
    m.set(gpr::RSP, DATA);
    m.write32(DATA, u32::from(DATA32));
    m.debug(0, DATA);
    m.debug(7, on(0, 3, 4));
    let e = m.expect(DB, HANDLERS + 16 * 0x40);
    assert_eq!((m.dr6(), m.read32(e.frame + 12)), (1, at[2] as u32));
}

#[test]
fn the_frame_of_an_interrupt_is_watched() {
    let mut m = Machine::new(Mode::Protected);
    m.code(|a| {
        a.nop()?;
        a.hlt()
    });
    m.debug(0, STACKS[0] - 12);
    m.debug(7, on(0, 1, 4));
    m.set_flags(IF);
    m.interrupt(0x40);
    m.expect(DB, HANDLERS + 16 * 0x40);
    assert_eq!(m.dr6(), 1);
}

#[test]
fn io_breakpoints_need_cr4_de() {
    for de in [true, false] {
        let mut m = Machine::new(Mode::Protected);
        if de {
            m.cpu.state.cr4 |= Cr4::DE;
        }
        let at = m.code(|a| {
            a.mov(edx, 0x73)?;
            a.in_(al, dx)?;
            a.out(dx, ax)?;
            a.out(dx, al)?;
            a.hlt()
        });
        m.debug(0, 0x74);
        m.debug(1, 0x73);
        m.debug(7, on(0, 2, 2) | on(1, 2, 1));
        if de {
            m.expect(DB, at[2]);
            assert_eq!(m.dr6(), 2);
            m.expect(DB, at[3]);
            assert_eq!(m.dr6(), 3);
            m.expect(DB, at[4]);
            assert_eq!(m.dr6(), 2);
        }
        assert_eq!(m.run(), Stop::Halt);
    }
}

#[test]
fn repeated_input_traps_after_each_iteration() {
    let mut m = Machine::new(Mode::Protected);
    m.cpu.state.cr4 |= Cr4::DE;
    m.set(gpr::RCX, 2);
    m.set(gpr::RDX, 0x73);
    m.set(gpr::RDI, DATA);
    let at = m.code(|a| {
        a.rep().insb()?;
        a.hlt()
    });
    m.debug(0, 0x73);
    m.debug(7, on(0, 2, 1));
    m.expect(DB, at[0]);
    assert_eq!(m.reg(gpr::RCX), 1);
    m.expect(DB, at[1]);
}

#[test]
fn dr4_and_dr5_are_aliases_or_undefined() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, 0xFFFF_FFFF);
    m.code(|a| {
        a.mov(dr5, eax)?;
        a.mov(ebx, dr7)?;
        a.mov(dr4, eax)?;
        a.mov(ecx, dr6)?;
        a.xor(eax, eax)?;
        a.mov(dr7, eax)?;
        a.hlt()
    });
    // GD, set by the first, guards the second.
    let e = m.event();
    assert_eq!((e.vector, e.ip), (DB, CODE + 3));
    assert_eq!(m.run(), Stop::Halt);
    assert_eq!(m.reg(gpr::RBX), 0xFFFF_27FF & !GD);
    assert_eq!(m.reg(gpr::RCX), 0xFFFF_EFFF);

    let mut m = Machine::new(Mode::Protected);
    m.cpu.state.cr4 |= Cr4::DE;
    m.code(|a| a.mov(eax, dr4));
    m.expect(UD, CODE);
}

#[test]
fn gd_guards_the_registers_and_is_cleared_by_the_fault() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, 0x1234);
    let at = m.code(|a| {
        a.mov(dr0, eax)?;
        a.hlt()
    });
    m.debug(7, GD);
    let e = m.expect(DB, at[0]);
    assert_eq!((m.dr6(), m.cpu.state.dr[7] & GD, e.flags & RF), (BD, 0, RF));
    assert_eq!(m.cpu.state.dr[0], 0);
    assert_eq!(m.run(), Stop::Halt);
    assert_eq!(m.cpu.state.dr[0], 0x1234);
}

#[test]
fn debug_registers_are_for_level_0() {
    let mut m = Machine::new(Mode::Protected);
    m.user();
    m.code(|a| a.mov(eax, dr7));
    m.fault(GP, 0);
}

#[test]
fn high_bits_of_dr6_and_dr7_fault_in_64_bit_mode_and_addresses_have_them() {
    for n in [6, 7] {
        let mut m = Machine::new(Mode::Long);
        m.set(gpr::RAX, 1 << 32);
        m.code(|a| if n == 6 { a.mov(dr6, rax) } else { a.mov(dr7, rax) });
        m.fault(GP, 0);
    }
    let mut m = Machine::new(Mode::Long);
    m.set(gpr::RAX, 0x8000_0000_0000_1234);
    m.code(|a| {
        a.mov(dr3, rax)?;
        a.mov(rbx, dr3)?;
        a.hlt()
    });
    assert_eq!(m.run(), Stop::Halt);
    assert_eq!(m.reg(gpr::RBX), 0x8000_0000_0000_1234);
}

#[test]
fn breakpoints_set_by_the_guest_work_and_cost_no_tlb_tag_afterwards() {
    let mut m = Machine::new(Mode::Protected);
    m.set(gpr::RAX, DATA);
    m.set(gpr::RBX, on(0, 1, 4));
    let at = m.code(|a| {
        a.mov(dword_ptr(DATA as u32), ecx)?;
        a.mov(dr0, eax)?;
        a.mov(dr7, ebx)?;
        a.mov(dword_ptr(DATA as u32), ecx)?;
        a.xor(ebx, ebx)?;
        a.mov(dr7, ebx)?;
        a.mov(dword_ptr(DATA as u32), ecx)?;
        a.hlt()
    });
    m.expect(DB, at[4]);
    assert_eq!(m.run(), Stop::Halt);
    assert!(!m.cpu.watching && m.cpu.reasons.is_empty());
}
