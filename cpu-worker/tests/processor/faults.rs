//! Which exceptions become a double fault, and which a shutdown: SDM vol. 3, 6.15.

use iced_x86::code_asm::*;
use quintet_cpu_worker::state::{Cr0, Segment, gpr, seg};

use crate::machine::*;

/// A gate that is not there: delivering `vector` raises #NP.
fn absent(m: &mut Machine, vector: u8) {
    let (code, at) = if m.mode == Mode::Long {
        (CODE64, 0)
    } else {
        (CODE32, 0)
    };
    m.vector(vector, gate(code, at, 0x0E, 0));
}

/// A machine whose next instruction raises `vector`.
fn raising(vector: u8) -> Machine {
    let mut m = Machine::new(Mode::Protected);
    m.page_32();
    let hole = 0x3F_F000u64;
    m.write32(Machine::entry_32(hole), 0);
    match vector {
        DE => m.bytes(&[0xF7, 0xF1]),
        UD => m.bytes(&[0x0F, 0x0B]),
        TS => {
            m.describe(FREE, descriptor(TASKS, 0x66, 0x0089));
            m.bytes(&[0xEA, 0, 0, 0, 0, FREE as u8, 0]);
        }
        NP => {
            m.describe(FREE, descriptor(0, 0xF_FFFF, 0xC012));
            m.set(gpr::RAX, u64::from(FREE));
            m.bytes(&[0x8E, 0xD8]);
        }
        SS => {
            m.describe(FREE, descriptor(0, 0xF_FFFF, 0xC012));
            m.set(gpr::RAX, u64::from(FREE));
            m.bytes(&[0x8E, 0xD0]);
        }
        GP => m.bytes(&[0x0F, 0x01, 0xF8, 0xF4]),
        PF => m.code(|a| a.mov(eax, dword_ptr(hole as u32))).truncate(0),
        _ => unreachable!(),
    }
    if vector == GP {
        m.cpu.state.segs[seg::ES] = Segment::null(0);
        m.code(|a| a.mov(eax, dword_ptr(DATA as u32).es()));
    }
    m
}

#[test]
fn contributory_exceptions_in_a_row_are_a_double_fault() {
    for first in [DE, TS, NP, SS, GP] {
        let mut m = raising(first);
        absent(&mut m, first);
        let e = m.event();
        // Vector NP itself is the one that is absent when it comes first: the second #NP is contributory, too.
        assert_eq!((e.vector, e.code, e.ip), (DF, Some(0), CODE), "{first}");
    }
}

#[test]
fn a_benign_exception_and_a_contributory_one_are_serial() {
    let mut m = raising(UD);
    absent(&mut m, UD);
    m.fault(NP, u32::from(UD) * 8 + 3);
    // And a page fault after a contributory one, too.
    let mut m = raising(GP);
    m.write32(Machine::entry_32(IDT), 0);
    m.cpu.state.idtr.base = IDT;
    // Only the entry of #GP lies in the hole: the IDT starts a page earlier.
    m.write32(Machine::entry_32(IDT), (IDT | 0x67) as u32);
    let hole = 0x3F_F000;
    m.vector(GP, gate(FREE, Machine::handler(GP), 0x8E, 0));
    m.cpu.state.segs[seg::LDTR] = Segment::new(LDTR, hole, 0xFFF, quintet_cpu_worker::state::Attr(0x82));
    m.vector(GP, gate(0xC, Machine::handler(GP), 0x8E, 0));
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (PF, Some(0), CODE));
    assert_eq!(m.cpu.state.cr2, hole + 8);
}

#[test]
fn a_page_fault_followed_by_anything_but_benign_is_a_double_fault() {
    let mut m = raising(PF);
    absent(&mut m, PF);
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (DF, Some(0), CODE));
    let mut m = raising(PF);
    m.cpu.state.segs[seg::LDTR] = Segment::new(LDTR, 0x3F_F000, 0xFFF, quintet_cpu_worker::state::Attr(0x82));
    m.vector(PF, gate(0xC, Machine::handler(PF), 0x8E, 0));
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (DF, Some(0), CODE));
    assert_eq!(m.cpu.state.cr2, 0x3F_F008, "of the second");
}

#[test]
fn a_double_fault_that_faults_shuts_the_processor_down() {
    let mut m = raising(GP);
    absent(&mut m, GP);
    absent(&mut m, DF);
    assert_eq!(m.run(), Stop::Shutdown);
    assert_eq!(m.run(), Stop::Shutdown, "and stays so");
    // In real mode: an IDT without room for them.
    let mut m = Machine::new(Mode::Real);
    m.cpu.state.idtr.limit = 3;
    m.bytes(&[0x0F, 0x0B]);
    assert_eq!(m.run(), Stop::Shutdown);
}

#[test]
fn an_interrupt_or_int_that_faults_counts_for_nothing() {
    // INT 40h raises #NP, whose delivery raises #NP: double; but INT 40h and #NP alone are no pair.
    let mut m = Machine::new(Mode::Protected);
    absent(&mut m, 0x40);
    m.code(|a| a.int(0x40));
    m.fault(NP, 0x40 * 8 + 2);
    let mut m = Machine::new(Mode::Protected);
    absent(&mut m, 0x40);
    absent(&mut m, NP);
    m.code(|a| a.int(0x40));
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (DF, Some(0), CODE));
}

#[test]
fn a_fault_of_delivery_leaves_the_program_as_it_was() {
    let mut m = Machine::new(Mode::Protected);
    m.cpu.state.cr0 |= Cr0::WP;
    m.page_32();
    m.user();
    m.vector(0x40, gate(CODE32, Machine::handler(0x40), 0xEE, 0));
    m.write32(TSS + 4, 0x3F_F004);
    m.write32(Machine::entry_32(0x3F_F000), 0x3F_F067);
    m.write32(Machine::entry_32(0x3F_E000), 0);
    // #PF has a task of its own stack: the same broken one, so a double fault through a good task follows.
    m.code(|a| a.int(0x40));
    m.write(CODE + 0x100, &[0xE6, PORT as u8]);
    m.vector(PF, gate(USER_CODE32, CODE + 0x100, 0x8E, 0));
    m.set_flags(0x3000);
    assert_eq!(m.run(), Stop::Port);
    let top = m.reg(gpr::RSP);
    assert_eq!(top, STACKS[3] - 16);
    assert_eq!((m.read32(top), m.read32(top + 4)), (2, CODE as u32));
    assert_eq!(m.cpu.state.cr2, 0x3F_EFFC);
}
