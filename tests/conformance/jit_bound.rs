//! A guest that writes new code for ever: the translator's memory stays within its bound, and what executes is what was written last.

use quintet_cpu_worker::exec::RunExit;
use quintet_cpu_worker::jit::{CODE_BYTES, CodeMemory, Jit};
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

#[test]
fn code_written_for_ever_stays_within_the_bound() {
    let mut cpu = snippet::vcpu(8 << 20);
    let memory = CodeMemory::new(CODE_BYTES).expect("memory for code");
    cpu.jit = Some(Jit::new(memory, 1).expect("a host that can execute translated code"));
    snippet::flat(&mut cpu, CodeSize::Bits32, CODE);
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
    cpu.state.regs[gpr::RSP] = 0x17_0000;
    cpu.state.regs[gpr::RBX] = FUNCTIONS;
    cpu.state.regs[gpr::RDX] = FUNCTIONS;
    cpu.state.regs[gpr::RDI] = FUNCTIONS + COUNT * 64;
    cpu.state.regs[gpr::RSI] = SUMS;
    let before = resident();
    let (mut most, mut expected) = (0, 0u32);
    for _ in 0..4 {
        let calls: u32 = 25_000;
        cpu.state.regs[gpr::RCX] = u64::from(calls);
        cpu.state.regs[RIP] = CODE;
        cpu.state.activity = Activity::Active;
        assert_eq!(cpu.run(u64::MAX), RunExit::Idle);
        expected = (1..=calls).fold(expected, u32::wrapping_add);
        let mut sums = [0; 64];
        ram.read(GuestPhys(SUMS), &mut sums).expect("in RAM");
        for sum in sums.as_chunks().0 {
            assert_eq!(u32::from_le_bytes(*sum), expected);
        }
        most = most.max(resident().saturating_sub(before));
    }
    let resets = cpu.jit.map_or(0, |jit| jit.resets());
    println!(
        "{} MiB at most, the code cache was emptied {resets} times",
        most >> 20
    );
    assert!(resets > 0, "the code cache never ran full");
    assert!(most < BOUND, "{} MiB", most >> 20);
}
