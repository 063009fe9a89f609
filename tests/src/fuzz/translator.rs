//! Random bytes as code: what the translator makes of them does what the interpreter does.

use std::cell::RefCell;

use arbitrary::Unstructured;
use iced_x86::{
    Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic, Register, RflagsBits,
};
use quintet_cpu_worker::exec::{RunExit, Vcpu};
use quintet_cpu_worker::mmu::MAX_INSTRUCTION;
use quintet_cpu_worker::state::{CodeSize, RIP, gpr};
use quintet_protocol::addr::GuestPhys;

use crate::random::Rng;
use crate::snippet;
use crate::twins::{CODE, DATA_LEN, difference, prepare, show, undefined_flags};

/// Bytes of RAM of each.
const RAM: u64 = 6 << 20;
/// Zeros, as many.
static ZEROS: [u8; RAM as usize] = [0; RAM as usize];
/// Bytes below which code of 16 bits, its data and its vectors lie.
const LOW: usize = 0x1_0000;
/// Where code of 16 bits lies.
const LOW_CODE: u64 = 0x7F80;
/// SDM vol. 4, table 2-2.
const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
/// Most instructions of a run.
const MOST: u64 = 2000;

thread_local! {
    /// Kept from one input to the next: memory for translated code costs more than an input. Whatever an input can reach
    /// is put back.
    static TWINS: RefCell<Option<[Box<Vcpu>; 2]>> = const { RefCell::new(None) };
}

fn clear(cpu: &Vcpu) {
    cpu.mem.ram().write(GuestPhys(0), &ZEROS).expect("in RAM");
}

fn low(cpu: &Vcpu) -> Vec<u8> {
    let mut bytes = vec![0; LOW];
    cpu.mem.ram().read(GuestPhys(0), &mut bytes).expect("in RAM");
    bytes
}

/// Whether a string instruction with a REP prefix is among the bytes, wherever one can begin: one of 2^60 elements is stopped by an
/// interrupt alone, and there is none here.
fn repeats(code: &[u8]) -> bool {
    let is_prefix =
        |b: &u8| matches!(b, 0x26 | 0x2E | 0x36 | 0x3E | 0x40..=0x4F | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3);
    let repeated = |at: usize| {
        let opcode = code[at..].iter().find(|b| !is_prefix(b));
        opcode.is_some_and(|b| matches!(b, 0x6C..=0x6F | 0xA4..=0xA7 | 0xAA..=0xAF))
    };
    (0..code.len()).any(|at| matches!(code[at], 0xF2 | 0xF3) && repeated(at))
}

/// The instruction at CS:rIP; `None` where there is none to fetch. What a fetch leaves behind, the execution of that instruction
/// leaves behind as well.
fn next_instruction(cpu: &mut Vcpu) -> Option<Instruction> {
    let linear = cpu.fetch_linear().ok()?;
    let rip = cpu.state.regs[RIP];
    let bits = cpu.code_size.bits();
    let code = cpu.translate_code(linear).ok()?;
    let fetched = cpu.fetch_page(linear, code);
    let mut bytes = fetched.bytes[..fetched.len].to_vec();
    let mut decoder = Decoder::with_ip(bits, &bytes, rip, DecoderOptions::NONE);
    let i = decoder.decode();
    if decoder.last_error() != DecoderError::NoMoreBytes || fetched.len == MAX_INSTRUCTION {
        return Some(i);
    }
    let linear = linear.wrapping_add(fetched.len as u64);
    let code = cpu.translate_code(linear).ok()?;
    let rest = cpu.fetch_page(linear, code);
    bytes.extend(&rest.bytes[..rest.len]);
    Some(Decoder::with_ip(bits, &bytes, rip, DecoderOptions::NONE).decode())
}

/// The flags, in iced's order, whose values the manual has left open on the way to where a vCPU is: translated code takes them from the
/// host's instruction (docs/conformance.md).
#[derive(Default)]
struct Open(u32);

impl Open {
    /// Follows `i`, which has just been executed and went on at `rip`. Answers whether none of the open flags can have gone
    /// anywhere: into a register, into memory, or into where execution goes on.
    fn follow(&mut self, i: &Instruction, rip: u64) -> bool {
        if self.0 != 0 {
            let stays = match i.flow_control() {
                FlowControl::Next => rip == i.next_ip(),
                FlowControl::ConditionalBranch => rip == i.next_ip() || rip == i.near_branch_target(),
                FlowControl::UnconditionalBranch => rip == i.near_branch_target(),
                // Whatever pushes flags, and what may have ended in a fault, which pushes them as well.
                _ => false,
            };
            if !stays || i.rflags_read() & self.0 != 0 {
                return false;
            }
        }
        // By a count of zero, which only CL can be unseen, a shift leaves all flags as they are.
        let last = i.op_count().saturating_sub(1);
        let certain = i.op_count() == 0 || i.op_register(last) != Register::CL;
        if certain {
            self.0 &= !i.rflags_modified();
        }
        self.0 |= undefined_flags(i);
        true
    }

    /// Their bits in RFLAGS.
    fn bits(&self) -> u64 {
        let places = [
            (RflagsBits::CF, 0),
            (RflagsBits::PF, 2),
            (RflagsBits::AF, 4),
            (RflagsBits::ZF, 6),
            (RflagsBits::SF, 7),
            (RflagsBits::OF, 11),
        ];
        places
            .iter()
            .filter(|(flag, _)| self.0 & flag != 0)
            .fold(0, |bits, (_, place)| bits | 1 << place)
    }
}

/// Whether `i` asks for a random number or for the time stamp, of which each vCPU counts its own.
fn never_twice_the_same(cpu: &Vcpu, i: &Instruction) -> bool {
    match i.mnemonic() {
        Mnemonic::Rdrand | Mnemonic::Rdseed | Mnemonic::Rdtsc | Mnemonic::Rdtscp => true,
        Mnemonic::Rdmsr => cpu.state.regs[gpr::RCX] as u32 == IA32_TIME_STAMP_COUNTER,
        _ => false,
    }
}

/// Interprets, instruction by instruction. How it ended, and which flags are open then; `None` for a program that does not end, or
/// whose course or outcome hangs on a flag that the manual leaves open, on chance, or on the time.
fn interpret(cpu: &mut Vcpu) -> Option<(RunExit, u64)> {
    let mut open = Open::default();
    for _ in 0..MOST {
        // Something else may come before that instruction, such as a trap: then nobody has tried to fetch it.
        let cr2 = cpu.state.cr2;
        let next = next_instruction(cpu);
        cpu.state.cr2 = cr2;
        if next.is_some_and(|i| never_twice_the_same(cpu, &i)) {
            return None;
        }
        let before = cpu.instructions;
        let exit = cpu.run(0);
        if exit != RunExit::Budget {
            return Some((exit, open.bits()));
        }
        match cpu.instructions - before {
            0 => cpu.step(),
            // Behind what shadows interrupts, one is executed at once.
            1 => {}
            _ => return None,
        }
        let rip = cpu.state.regs[RIP];
        let known = match next {
            Some(i) => open.follow(&i, rip),
            // A fault, which pushes flags.
            None => open.0 == 0,
        };
        if !known {
            return None;
        }
    }
    None
}

/// Code in each mode, interpreted and translated; what does not end, REP, and what asks for a flag that the manual leaves open, is left to
/// tests that know the program.
///
/// # Panics
/// When registers, flags that the manual defines, memory, or the way it ends differ.
pub fn translator(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let flags: u8 = u.arbitrary().unwrap_or(0);
    let seed = u64::from(u.arbitrary::<u8>().unwrap_or(0));
    let code = u.bytes(u.len().min(256)).unwrap_or(&[]);
    if repeats(code) {
        return;
    }
    let size = [CodeSize::Bits64, CodeSize::Bits32, CodeSize::Bits16][usize::from(flags % 3)];
    let mut rng = Rng(seed | 1);
    let data: Vec<u8> = (0..DATA_LEN / 8).flat_map(|_| rng.draw().to_le_bytes()).collect();
    let mut program = code.to_vec();
    // HLT ends what has not ended otherwise.
    program.extend([0xF4; 16]);
    TWINS.with_borrow_mut(|twins| {
        let [a, b] = twins.get_or_insert_with(|| {
            let [mut a, mut b] = [snippet::vcpu(RAM), snippet::vcpu(RAM)];
            a.jit = None;
            b.jit = Some(snippet::translator());
            [a, b]
        });
        for cpu in [&mut *a, &mut *b] {
            clear(cpu);
        }
        prepare([a, b], size, &program, &data, seed);
        let start = match size {
            CodeSize::Bits16 => LOW_CODE,
            _ => CODE,
        };
        for cpu in [&mut *a, &mut *b] {
            cpu.mem.ram().write(GuestPhys(start), &program).expect("in RAM");
            cpu.state.regs[RIP] = start;
            cpu.instructions = 0;
        }
        // Translated code counts where it leaves, and a loop may never do: what does not end is not translated.
        let Some((interpreted, open)) = interpret(a) else {
            return;
        };
        let how = [interpreted, b.run(4 * MOST)];
        assert_eq!(how[0], how[1], "{size:?}\n{}", show(size, code));
        for cpu in [&mut *a, &mut *b] {
            let flags = cpu.state.flags.arithmetic();
            cpu.state.flags.set_arithmetic(flags & !open);
        }
        if let Some(what) = difference(a, b) {
            panic!("{size:?}: {what}\n{}", show(size, code));
        }
        assert!(low(a) == low(b), "{size:?}: low memory\n{}", show(size, code));
    });
}
