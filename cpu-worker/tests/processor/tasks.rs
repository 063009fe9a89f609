//! Task switches: SDM vol. 3, chapter 7.

use quintet_cpu_worker::state::{Cr0, gpr, seg};

use crate::machine::*;

/// Selector of the new task's TSS.
const NEW: u16 = FREE;
/// Selector of a task gate to it.
const GATE: u16 = FREE + 8;

/// A 32-bit TSS at [`TASKS`] that starts at CODE + 100h, where OUT ends the test; with [`NEW`] and [`GATE`].
fn with_task() -> Machine {
    let mut m = Machine::new(Mode::Protected);
    m.describe(NEW, descriptor(TASKS, 0x67, 0x0089));
    m.describe(GATE, gate(NEW, 0, 0xE5, 0));
    let words = [
        (0x20, CODE as u32 + 0x100),
        (0x24, 0x41),
        (0x28, 0xA0),
        (0x2C, 0xC0),
        (0x38, STACKS[1] as u32),
        (0x44, 0xD1),
        (0x48, u32::from(DATA32)),
        (0x4C, u32::from(CODE32)),
        (0x50, u32::from(DATA32)),
        (0x54, u32::from(DATA32)),
        (0x60, u32::from(LDTR)),
    ];
    for (at, v) in words {
        m.write32(TASKS + at, v);
    }
    m.write(CODE + 0x100, &[0xE6, PORT as u8, 0xCF]);
    m
}

fn far(opcode: u8, selector: u16) -> [u8; 7] {
    let [low, high] = selector.to_le_bytes();
    [opcode, 0, 0, 0, 0, low, high]
}

const JMP: u8 = 0xEA;
const CALL: u8 = 0x9A;

fn busy(m: &Machine, selector: u16) -> bool {
    m.described(selector) >> 41 & 1 != 0
}

#[test]
fn jmp_leaves_the_old_task_and_call_nests() {
    for (opcode, selector) in [(JMP, NEW), (JMP, GATE), (CALL, NEW), (CALL, GATE)] {
        let nests = opcode == CALL;
        let mut m = with_task();
        m.set(gpr::RDI, 0x77);
        m.bytes(&far(opcode, selector));
        m.set_flags(IF | 1);
        assert_eq!(m.run(), Stop::Port);
        let s = &m.cpu.state;
        assert_eq!(
            (s.regs[gpr::RAX], s.regs[gpr::RCX], s.regs[gpr::RDI]),
            (0xA0, 0xC0, 0xD1)
        );
        assert_eq!((s.regs[gpr::RSP], s.segs[seg::TR].selector), (STACKS[1], NEW));
        assert_eq!(s.flags.bits(), 0x43 | if nests { NT } else { 0 });
        assert!(s.cr0.contains(Cr0::TS));
        assert_eq!((busy(&m, TR), busy(&m, NEW)), (nests, true));
        assert_eq!(m.read16(TASKS), if nests { TR } else { 0 }, "link");
        // The old task's image.
        assert_eq!(u64::from(m.read32(TSS + 0x20)), CODE + 7);
        assert_eq!(u64::from(m.read32(TSS + 0x24)), IF | 3);
        assert_eq!((m.read32(TSS + 0x44), m.read16(TSS + 0x4C)), (0x77, CODE32));
        if nests {
            // IRET goes back along the link.
            m.write(CODE + 7, &[0xE6, PORT as u8]);
            assert_eq!(m.run(), Stop::Port);
            let s = &m.cpu.state;
            assert_eq!((s.segs[seg::TR].selector, s.regs[gpr::RDI]), (TR, 0x77));
            assert_eq!((busy(&m, TR), busy(&m, NEW)), (true, false));
            assert_eq!(
                m.read32(TASKS + 0x24) & NT as u32,
                0,
                "NT of the task that was left"
            );
        }
    }
}

#[test]
fn an_event_through_a_task_gate_brings_its_error_code() {
    let mut m = with_task();
    m.vector(GP, gate(NEW, 0, 0x85, 0));
    m.set(gpr::RAX, 0x104);
    m.bytes(&[0x8E, 0xD8]);
    assert_eq!(m.run(), Stop::Port);
    assert_eq!(m.reg(gpr::RSP), STACKS[1] - 4);
    assert_eq!(m.read32(STACKS[1] - 4), 0x104);
    assert_eq!((u64::from(m.read32(TSS + 0x20)), m.read16(TASKS)), (CODE, TR));
    assert_eq!(m.flags() & NT, NT);
}

#[test]
fn a_16_bit_task_has_words() {
    let mut m = with_task();
    m.describe(NEW, descriptor(TASKS, 0x2B, 0x0081));
    for (at, v) in [
        (0x0E, CODE as u16 + 0x100),
        (0x10, 0x41),
        (0x12, 0xA0),
        (0x1A, 0x1000),
        (0x22, DATA32),
        (0x24, CODE32),
        (0x26, DATA16),
        (0x28, DATA32),
        (0x2A, 0),
    ] {
        m.write16(TASKS + at, v);
    }
    m.bytes(&far(CALL, NEW));
    assert_eq!(m.run(), Stop::Port);
    let s = &m.cpu.state;
    assert_eq!(
        (s.regs[gpr::RAX] & 0xFFFF, s.segs[seg::SS].selector),
        (0xA0, DATA16)
    );
    assert_eq!((s.segs[seg::FS].selector, s.segs[seg::LDTR].selector), (0, 0));
    assert_eq!(m.read16(TASKS), TR);
    // And back to the 32-bit one.
    m.write(CODE + 7, &[0xE6, PORT as u8]);
    assert_eq!(m.run(), Stop::Port);
    assert_eq!(m.cpu.state.segs[seg::TR].selector, TR);
    assert_eq!(u64::from(m.read16(TASKS + 0x0E)), CODE + 0x103);
}

#[test]
fn switches_that_are_refused_happen_in_the_old_task() {
    let n = u32::from(NEW);
    // (what is jumped to, TSS descriptor, vector, error code)
    let tss = |limit, attr| descriptor(TASKS, limit, attr);
    let cases = [
        (NEW, tss(0x67, 0x008B), GP, n),
        (NEW, tss(0x66, 0x0089), TS, n),
        (NEW, tss(0x2A, 0x0081), TS, n),
        (NEW, tss(0x67, 0x0009), NP, n),
        (NEW | 3, tss(0x67, 0x0089), GP, n),
        (GATE, tss(0x67, 0x008B), GP, n),
        (GATE, tss(0x67, 0x0009), NP, n),
        (GATE, tss(0x67, 0x0082), GP, n),
    ];
    for (selector, d, vector, code) in cases {
        for opcode in [JMP, CALL] {
            let mut m = with_task();
            m.describe(NEW, d);
            m.bytes(&far(opcode, selector));
            m.fault(vector, code);
            assert_eq!(m.cpu.state.segs[seg::TR].selector, TR);
            assert!(busy(&m, TR));
        }
    }
    // A gate or a TSS that names the LDT.
    let mut m = with_task();
    m.describe(GATE, gate(NEW | 4, 0, 0xE5, 0));
    m.bytes(&far(JMP, GATE));
    m.fault(GP, n | 4);
    // IRET along a link to a task that is not busy, or to nothing.
    for (link, code) in [(NEW, n), (0, 0), (DATA32, 0x10)] {
        let mut m = with_task();
        m.write16(TSS, link);
        m.bytes(&[0xCF]);
        m.set_flags(NT);
        m.fault(TS, code);
    }
}

#[test]
fn faults_of_the_new_tasks_segments_happen_in_the_new_task() {
    let f = FREE + 16;
    // (offset of the selector in the TSS, selector, attributes of f, vector)
    let cases = [
        (0x4C, f, 0xC093, TS),
        (0x4C, f, 0xC0FB, TS),
        (0x4C, f, 0xC01B, NP),
        (0x4C, 0, 0, TS),
        (0x50, f, 0xC013, SS),
        (0x50, f, 0xC0F3, TS),
        (0x50, f, 0xC091, TS),
        (0x50, 0, 0, TS),
        (0x54, f, 0x0089, TS),
        (0x54, f, 0xC013, NP),
        (0x48, f, 0xC099, TS),
        (0x60, f, 0xC093, TS),
        (0x60, f, 0x0002, TS),
        (0x60, f | 4, 0x0082, TS),
    ];
    for (at, selector, attr, vector) in cases {
        let mut m = with_task();
        m.describe(f, descriptor(0, 0xF_FFFF, attr));
        m.write16(TASKS + at, selector);
        // The new task's stack may be what is broken: a task of its own takes the fault.
        let third = FREE + 24;
        m.describe(third, descriptor(TASKS + 0x100, 0x67, 0x0089));
        let image: Vec<u8> = (0..0x68).map(|n| m.read8(TASKS + n)).collect();
        m.write(TASKS + 0x100, &image);
        for (offset, v) in [
            (0x48, DATA32),
            (0x4C, CODE32),
            (0x50, DATA32),
            (0x54, DATA32),
            (0x60, 0),
        ] {
            m.write16(TASKS + 0x100 + offset, v);
        }
        m.vector(vector, gate(third, 0, 0x85, 0));
        m.bytes(&far(JMP, NEW));
        assert_eq!(m.run(), Stop::Port, "{at:x} {attr:x}");
        assert_eq!(m.read16(TASKS + 0x100), NEW, "the fault came in the new task");
        assert_eq!(
            m.read32(STACKS[1] - 4),
            u32::from(selector & !3),
            "{at:x} {attr:x}"
        );
        // It would go on at its first instruction.
        assert_eq!(u64::from(m.read32(TASKS + 0x20)), CODE + 0x100);
        assert!(!busy(&m, TR));
    }
}

#[test]
fn an_eip_past_the_limit_faults_in_the_new_task() {
    let mut m = with_task();
    let f = FREE + 16;
    m.describe(f, descriptor(0, 0xFFF, 0x409B));
    m.write16(TASKS + 0x4C, f);
    m.bytes(&far(JMP, NEW));
    let e = m.event();
    assert_eq!((e.vector, e.code, e.ip, e.cs), (GP, Some(0), CODE + 0x100, f));
}

#[test]
fn a_task_with_t_set_traps_before_its_first_instruction() {
    let mut m = with_task();
    m.write16(TASKS + 0x64, 1);
    m.debug(0, DATA);
    m.debug(7, 0x3FF);
    m.cpu.state.dr[7] &= !0xFF;
    m.debug(7, 0x301);
    m.bytes(&far(JMP, NEW));
    let e = m.expect(DB, CODE + 0x100);
    assert_eq!((m.dr6(), e.flags & RF), (0x8000, 0));
    // L0 to L3 and LE are the old task's.
    assert_eq!(m.cpu.state.dr[7], 0x600);
    assert_eq!(m.run(), Stop::Port);
}

#[test]
fn a_task_may_be_virtual_8086() {
    let mut m = with_task();
    m.write32(TASKS + 0x20, 0);
    m.write32(TASKS + 0x24, (VM | 2) as u32);
    for (offset, v) in [(0x48, 0x1111u16), (0x4C, 0x900), (0x50, 0x1000), (0x54, 0x2222)] {
        m.write16(TASKS + offset, v);
    }
    m.write(0x9000, &[0xCC]);
    m.vector(3, gate(CODE32, Machine::handler(3), 0xEE, 0));
    m.write32(TASKS + 4, STACKS[0] as u32);
    m.write16(TASKS + 8, DATA32);
    m.bytes(&far(JMP, NEW));
    let e = m.expect(3, 1);
    assert_eq!((e.cs, e.flags & VM), (0x900, VM));
    assert_eq!(m.outer(&e, 2) as u16, 0x1111);
}

#[test]
fn a_new_tss_that_cannot_be_written_serves_jmp_and_not_call() {
    for (opcode, good) in [(JMP, true), (CALL, false)] {
        let mut m = with_task();
        m.page_32();
        m.cpu.state.cr0 |= Cr0::WP;
        m.write32(TASKS + 0x1C, TABLES as u32);
        m.write32(Machine::entry_32(TASKS), TASKS as u32 | 0x65);
        m.bytes(&far(opcode, NEW));
        if good {
            assert_eq!(m.run(), Stop::Port);
        } else {
            m.fault(PF, 3);
            assert_eq!((m.cpu.state.cr2, m.cpu.state.segs[seg::TR].selector), (TASKS, TR));
        }
    }
}

#[test]
fn a_32_bit_task_brings_its_address_space() {
    let mut m = with_task();
    m.page_32();
    m.write32(TASKS + 0x1C, TABLES as u32 + 0x8000);
    // The same tables but for the page of the new code, which lies elsewhere.
    m.write32(TABLES + 0x8000, (TABLES as u32 + 0x9000) | 0x27);
    for n in 0..1024u64 {
        m.write32(TABLES + 0x9000 + 4 * n, (n << 12 | 0x67) as u32);
    }
    m.write32(TABLES + 0x9000 + (CODE >> 12) * 4, 0xA067);
    m.write(0xA100, &[0xF4]);
    m.bytes(&far(JMP, NEW));
    assert_eq!(m.run(), Stop::Halt);
    assert_eq!(m.cpu.state.cr3, TABLES + 0x8000);
}
