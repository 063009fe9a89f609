//! Guests with more code than the translator has room for, and one that writes new code for ever: its memory stays within its bound, and
//! what executes is what was written last.

use quintet_cpu_worker::exec::{RunExit, Vcpu};
use quintet_cpu_worker::jit::{CODE_BYTES, CODE_BYTES_LEAST, CodeMemory, Jit};
use quintet_cpu_worker::state::{Activity, CodeSize, RIP, gpr};
use quintet_protocol::addr::GuestPhys;
use quintet_tests::snippet;

const CODE: u64 = 0x10_0000;
/// Functions of 64 bytes each.
const FUNCTIONS: u64 = 0x20_0000;
const COUNT: u64 = 0x8000;
const SUMS: u64 = 0x18_0000;
/// What translated code may take beside what the interpreter does, in bytes.
const BOUND: u64 = 160 << 20;

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: u64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("the second word of statm is a number");
    pages * rustix::param::page_size() as u64
}

/// A vCPU in flat 32-bit code at [`CODE`] that translates each block at its first execution, into `bytes` of memory.
fn translating(bytes: usize) -> Box<Vcpu> {
    let mut cpu = snippet::vcpu(8 << 20);
    let memory = CodeMemory::new(bytes).expect("memory for code");
    cpu.jit = Some(Jit::new(memory, 1).expect("a host that can execute translated code"));
    snippet::flat(&mut cpu, CodeSize::Bits32, CODE);
    cpu.state.regs[gpr::RSP] = 0x17_0000;
    cpu
}

fn run(cpu: &mut Vcpu) {
    cpu.state.regs[RIP] = CODE;
    cpu.state.activity = Activity::Active;
    assert_eq!(cpu.run(u64::MAX), RunExit::Idle);
}

/// How often blocks and translations were given up.
fn evictions(cpu: &Vcpu) -> (u64, u64) {
    (
        cpu.blocks.evictions(),
        cpu.jit.as_ref().map_or(0, |jit| jit.evictions()),
    )
}

#[test]
fn code_written_for_ever_stays_within_the_bound() {
    let mut cpu = translating(CODE_BYTES);
    let ram = cpu.mem.ram().clone();
    // MOV EAX, what is written each time; ADD to sixteen words; RET.
    let mut function = vec![0xB8, 0, 0, 0, 0];
    for n in 0..16 {
        function.extend([0x01, 0x46, n * 4]);
    }
    function.push(0xC3);
    for n in 0..COUNT {
        ram.write(GuestPhys(FUNCTIONS + n * 64), &function)
            .expect("in RAM");
    }
    #[rustfmt::skip]
    let program = [
        // top: MOV [EBX+1], ECX; CALL EBX; ADD EBX, 64; CMP EBX, EDI; JB skip; MOV EBX, EDX
        0x89, 0x4B, 0x01, 0xFF, 0xD3, 0x83, 0xC3, 0x40, 0x39, 0xFB, 0x72, 0x02, 0x89, 0xD3,
        // skip: DEC ECX; JNE top; HLT
        0x49, 0x75, 0xEF, 0xF4,
    ];
    ram.write(GuestPhys(CODE), &program).expect("in RAM");
    cpu.state.regs[gpr::RBX] = FUNCTIONS;
    cpu.state.regs[gpr::RDX] = FUNCTIONS;
    cpu.state.regs[gpr::RDI] = FUNCTIONS + COUNT * 64;
    cpu.state.regs[gpr::RSI] = SUMS;
    let before = resident();
    let (mut most, mut expected) = (0, 0u32);
    for _ in 0..4 {
        let calls: u32 = 25_000;
        cpu.state.regs[gpr::RCX] = u64::from(calls);
        run(&mut cpu);
        expected = (1..=calls).fold(expected, u32::wrapping_add);
        let mut sums = [0; 64];
        ram.read(GuestPhys(SUMS), &mut sums).expect("in RAM");
        for sum in sums.as_chunks().0 {
            assert_eq!(u32::from_le_bytes(*sum), expected);
        }
        most = most.max(resident().saturating_sub(before));
    }
    let evictions = evictions(&cpu);
    println!("{} MiB at most, evictions: {evictions:?}", most >> 20);
    assert!(evictions.0 > 8, "the blocks never ran out");
    assert!(most < BOUND, "{} MiB", most >> 20);
}

/// Links of the chain, of 16 bytes each, and how many lie in a page.
const LINKS: u64 = 72_000;
const IN_PAGE: u64 = 4096 / 16;

/// Where link `n` of the chain is: pages by turns from the front and from the back.
fn link_at(n: u64) -> u64 {
    let (page, pages) = (n / IN_PAGE, LINKS.div_ceil(IN_PAGE));
    let page = if page.is_multiple_of(2) {
        page / 2
    } else {
        pages - 1 - page / 2
    };
    FUNCTIONS + page * 4096 + n % IN_PAGE * 16
}

/// Writes the chain that adds `values`, with a return at the end of every `part` links.
fn chain(cpu: &Vcpu, values: &[u32], part: u64) {
    let ram = cpu.mem.ram();
    for (n, value) in (0..).zip(values) {
        // ADD EAX, value, or ADC, which looks at what the link before has left; JMP to the next, or RET.
        let mut link = vec![if n % 3 == 0 { 0x05 } else { 0x15 }];
        link.extend(value.to_le_bytes());
        if (n + 1) % part == 0 {
            link.push(0xC3);
        } else {
            link.push(0xE9);
            let next = link_at(n + 1).wrapping_sub(link_at(n) + 10) as u32;
            link.extend(next.to_le_bytes());
        }
        ram.write(GuestPhys(link_at(n)), &link).expect("in RAM");
    }
}

#[test]
fn more_code_than_there_is_room_for_does_what_it_says() {
    let mut cpu = translating(CODE_BYTES_LEAST);
    let ram = cpu.mem.ram().clone();
    let mut values: Vec<u32> = (0..LINKS as u32).map(|n| n.wrapping_mul(0x9E37_79B1)).collect();
    chain(&cpu, &values, LINKS);
    // top: MOV [address], ECX for a few links; CALL the first; DEC ECX; JNE top; HLT
    let changed: Vec<u64> = (5..LINKS).step_by(9973).collect();
    let mut program = Vec::new();
    for &n in &changed {
        program.extend([0x89, 0x0D]);
        program.extend((link_at(n) as u32 + 1).to_le_bytes());
    }
    program.push(0xE8);
    let to = link_at(0).wrapping_sub(CODE + program.len() as u64 + 4) as u32;
    program.extend(to.to_le_bytes());
    program.extend([0x49, 0x75, (-(program.len() as i32) - 3) as u8, 0xF4]);
    ram.write(GuestPhys(CODE), &program).expect("in RAM");
    let laps = 5;
    cpu.state.regs[gpr::RCX] = laps;
    cpu.state.regs[gpr::RAX] = 0;
    run(&mut cpu);
    let mut expected = 0u32;
    for lap in (1..=laps as u32).rev() {
        for &n in &changed {
            values[n as usize] = lap;
        }
        let mut carry = false;
        for (n, &value) in values.iter().enumerate() {
            let (sum, a) = expected.overflowing_add(value);
            let (sum, b) = sum.overflowing_add(u32::from(carry && n % 3 != 0));
            (expected, carry) = (sum, a || b);
        }
    }
    assert_eq!(cpu.state.regs[gpr::RAX], u64::from(expected));
    let (blocks, natives) = evictions(&cpu);
    println!("{blocks} regions of blocks and {natives} of code were given up");
    assert!(blocks > 32 && natives > 32, "{blocks} and {natives}");
}

/// Three blocks of 16 bytes that lead from one to the next: two jumps, and what counts.
const STEPS: u64 = 0x14_0000;
/// Links of the chain that are walked at once.
const PART: u64 = 500;

#[test]
fn jumps_that_are_rewritten_lead_on_while_what_they_led_to_is_given_up() {
    let mut cpu = translating(CODE_BYTES_LEAST);
    let ram = cpu.mem.ram().clone();
    chain(&cpu, &vec![1; LINKS as usize], PART);
    let put = |at: u64, code: &[u8]| ram.write(GuestPhys(at), code).expect("in RAM");
    let jump = [0xE9, 11, 0, 0, 0];
    put(STEPS, &jump);
    put(STEPS + 16, &jump);
    // INC EBX; RET
    put(STEPS + 32, &[0x43, 0xC3]);
    // CALL EDX; HLT
    put(CODE, &[0xFF, 0xD2, 0xF4]);
    // MOV dword [EDX+1], 11; RET: the same again, but the block is dropped.
    let rewrite = CODE + 0x1000;
    put(rewrite, &[0xC7, 0x42, 0x01, 11, 0, 0, 0, 0xC3]);
    // CALL ESI; HLT
    let second = CODE + 0x2000;
    put(second, &[0xFF, 0xD6, 0xF4]);
    cpu.state.regs[gpr::RBX] = 0;
    let (mut random, mut counted) = (1u64, 0);
    for _ in 0..6000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let choice = random >> 40;
        let (at, edx) = match choice % 4 {
            0 | 1 => (CODE, STEPS),
            2 => (second, STEPS + (choice >> 2) % 2 * 16),
            _ => (CODE, link_at((choice >> 2) % (LINKS / PART) * PART)),
        };
        counted += u64::from(edx == STEPS && at == CODE);
        cpu.state.regs[gpr::RDX] = edx;
        cpu.state.regs[gpr::RSI] = rewrite;
        cpu.state.regs[RIP] = at;
        cpu.state.activity = Activity::Active;
        assert_eq!(cpu.run(u64::MAX), RunExit::Idle);
        assert_eq!(cpu.state.regs[gpr::RBX], counted);
    }
    let (_, natives) = evictions(&cpu);
    assert!(natives > 32, "{natives}");
}
