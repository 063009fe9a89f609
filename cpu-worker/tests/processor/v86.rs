//! Virtual-8086 mode: SDM vol. 3, chapter 20. The model has no VME.

use quintet_cpu_worker::state::{gpr, seg};

use crate::machine::*;

const IOPL3: u64 = 0x3000;

/// V86 code at 0800:0000 with its stack at 1000:1000, entered by IRET.
fn enter(flags: u64, code: &[u8]) -> Machine {
    let mut m = Machine::new(Mode::Protected);
    m.bytes(&[0xCF]);
    let sp = STACKS[0] - 36;
    m.set(gpr::RSP, sp);
    let frame = [
        0,
        0x800,
        flags | VM | 2,
        0x1000,
        0x1000,
        0x1111,
        0x2222,
        0x3333,
        0x4444,
    ];
    for (n, v) in (0..).zip(frame) {
        m.write32(sp + 4 * n, v as u32);
    }
    assert_eq!(m.cpu.run(1), quintet_cpu_worker::exec::RunExit::Budget);
    m.write(0x8000, code);
    m
}

#[test]
fn iret_enters_with_nine_values() {
    let m = enter(IF, &[]);
    let s = &m.cpu.state;
    assert_eq!(
        (s.cpl, s.flags.bits() & (VM | IF), s.regs[gpr::RSP]),
        (3, VM | IF, 0x1000)
    );
    let order = [seg::CS, seg::SS, seg::ES, seg::DS, seg::FS, seg::GS];
    assert_eq!(
        order.map(|n| s.segs[n].selector),
        [0x800, 0x1000, 0x1111, 0x2222, 0x3333, 0x4444]
    );
    assert_eq!(order.map(|n| s.segs[n].base)[3], 0x2_2220);
    assert_eq!(m.cpu.code_size.bits(), 16);
}

#[test]
fn an_offset_past_64_kib_is_refused_before_anything_changes() {
    let mut m = Machine::new(Mode::Protected);
    m.bytes(&[0xCF]);
    let sp = STACKS[0] - 36;
    m.set(gpr::RSP, sp);
    m.write32(sp, 0x1_0000);
    m.write32(sp + 8, (VM | 2) as u32);
    let e = m.fault(GP, 0);
    assert_eq!(e.flags & VM, 0);
}

#[test]
fn an_interrupt_leaves_with_nine_values_and_null_segments() {
    let mut m = enter(IF, &[0x90]);
    m.interrupt(0x40);
    let e = m.expect(0x40, 0);
    assert_eq!((e.cs, e.frame, e.flags & VM), (0x800, STACKS[0] - 36, VM));
    let outer: Vec<u64> = (0..6).map(|n| m.outer(&e, n) & 0xFFFF).collect();
    assert_eq!(outer, [0x1000, 0x1000, 0x1111, 0x2222, 0x3333, 0x4444]);
    let s = &m.cpu.state;
    assert_eq!(s.flags.bits() & VM, 0);
    assert_eq!(
        [seg::ES, seg::DS, seg::FS, seg::GS].map(|n| s.segs[n].selector),
        [0; 4]
    );
}

#[test]
fn what_depends_on_iopl() {
    // CLI, STI, PUSHF, POPF, IRET, INT 40, INT 3 by its number.
    for code in [
        &[0xFA][..],
        &[0xFB],
        &[0x9C],
        &[0x9D],
        &[0xCF],
        &[0xCD, 0x40],
        &[0xCD, 3],
    ] {
        let mut m = enter(0x2000, code);
        let e = m.event();
        assert_eq!(
            (e.vector, e.code, e.ip, e.cs),
            (GP, Some(0), 0, 0x800),
            "{code:x?}"
        );
    }
    // CLI; PUSHF; POPF; STI; INT 40.
    let mut m = enter(IOPL3, &[0xFA, 0x9C, 0x9D, 0xFB, 0xCD, 0x40]);
    m.vector(0x40, gate(CODE32, Machine::handler(0x40), 0xEE, 0));
    let e = m.expect(0x40, 6);
    assert_eq!(e.flags & (VM | IF | IOPL3), VM | IF | IOPL3);
}

#[test]
fn int3_into_and_int1_do_not_depend_on_iopl() {
    for (code, vector) in [(&[0xCC][..], 3), (&[0xF1], 1), (&[0x80, 0xC1, 0x7F, 0xCE], 4)] {
        let mut m = enter(0, code);
        m.set(gpr::RCX, 1);
        m.vector(vector, gate(CODE32, Machine::handler(vector), 0xEE, 0));
        m.expect(vector, code.len() as u64);
    }
}

#[test]
fn a_gate_to_level_1_or_a_conforming_segment_is_refused() {
    for selector in [CODE_DPL1, CONFORMING] {
        let mut m = enter(IOPL3, &[0xCD, 0x40]);
        m.vector(0x40, gate(selector, Machine::handler(0x40), 0xEE, 0));
        let e = m.event();
        assert_eq!((e.vector, e.code, e.ip), (GP, Some(u32::from(selector)), 0));
    }
}

#[test]
fn ports_are_the_bitmaps_alone_and_system_instructions_fault() {
    // IN AL, 12h with IOPL 3 and the port denied.
    let mut m = enter(IOPL3, &[0xE4, 0x11, 0xE4, 0x12]);
    m.write8(TSS + 104 + 2, 1 << 2);
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (GP, Some(0), 2));
    // IN AX, 11h needs both bits.
    let mut m = enter(IOPL3, &[0xE5, 0x11]);
    m.write8(TSS + 104 + 2, 1 << 2);
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (GP, Some(0), 0));
    // Past the end of the bitmap.
    let mut m = enter(IOPL3, &[0xBA, 0x00, 0x20, 0xEC]);
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (GP, Some(0), 3));
    // HLT, LGDT, MOV CR0; and those that are undefined here: LLDT, LAR, ARPL.
    for (code, vector) in [
        (&[0xF4][..], GP),
        (&[0x0F, 0x01, 0x16, 0, 0], GP),
        (&[0x0F, 0x20, 0xC0], GP),
        (&[0x0F, 0x00, 0xD0], UD),
        (&[0x0F, 0x02, 0xC0], UD),
        (&[0x63, 0xC0], UD),
    ] {
        let mut m = enter(0, code);
        m.expect(vector, 0);
    }
}

#[test]
fn segments_are_loaded_without_descriptors() {
    // MOV AX, 1234h; MOV DS, AX; MOV AL, [5]; OUT; JMP 0900:0000.
    let mut m = enter(0, &[0xB8, 0x34, 0x12, 0x8E, 0xD8, 0xA0, 5, 0, 0xEA, 0, 0, 0, 9]);
    m.write8(0x1_2345, 0x77);
    m.write(0x9000, &[0xE6, PORT as u8]);
    assert_eq!(m.run(), Stop::Port);
    assert_eq!(m.reg(gpr::RAX) & 0xFF, 0x77);
    assert_eq!((m.cpu.state.segs[seg::CS].selector, m.cpu.state.cpl), (0x900, 3));
    // MOV AX, [FFFF] passes the limit.
    let mut m = enter(0, &[0xA1, 0xFF, 0xFF]);
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip), (GP, Some(0), 0));
}
