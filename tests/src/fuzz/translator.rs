//! Random bytes as code: what the translator makes of them does what the interpreter does.

use std::cell::RefCell;

use arbitrary::Unstructured;
use quintet_cpu_worker::exec::{RunExit, Vcpu};
use quintet_cpu_worker::state::{CodeSize, RIP};
use quintet_protocol::addr::GuestPhys;

use crate::random::Rng;
use crate::snippet;
use crate::twins::{CODE, DATA_LEN, difference, prepare, show};

/// Bytes of RAM of each.
const RAM: u64 = 6 << 20;
/// Zeros, as many.
static ZEROS: [u8; RAM as usize] = [0; RAM as usize];
/// Bytes below which code of 16 bits, its data and its vectors lie.
const LOW: usize = 0x1_0000;
/// Where code of 16 bits lies.
const LOW_CODE: u64 = 0x7F80;
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

/// Code in each mode, interpreted and translated; what does not end, and REP, is left to tests that know the program.
///
/// # Panics
/// When registers, flags, memory, or the way it ends differ.
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
        let interpreted = a.run(MOST);
        if interpreted == RunExit::Budget {
            return;
        }
        let how = [interpreted, b.run(4 * MOST)];
        assert_eq!(how[0], how[1], "{size:?}\n{}", show(size, code));
        if let Some(what) = difference(a, b) {
            panic!("{size:?}: {what}\n{}", show(size, code));
        }
        assert!(low(a) == low(b), "{size:?}: low memory\n{}", show(size, code));
    });
}
