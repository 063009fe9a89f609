//! `memory.fill` and `memory.copy` in chunks, as functions of the module's own, one for each memory or two of them.
//!
//! What passes the end of memory is handed to the instruction itself, which then traps by its own name and has written
//! nothing; so is what is short. The rest is done in chunks with a loop between them, where the module can be
//! interrupted. A copy to a higher address starts at its end, so that overlapping bytes are read before they are
//! overwritten.

use wasm_encoder::{BlockType, Function, Instruction, ValType};

/// Bytes that one instruction may move.
pub const CHUNK: u32 = 16 << 20;

const DST: u32 = 0;
/// Source address, or the value to fill with.
const SRC: u32 = 1;
const LEN: u32 = 2;

use Instruction as I;

/// `local + length > size of the memory`, in 64 bits.
fn passes_end(local: u32, memory: u32) -> Vec<I<'static>> {
    vec![
        I::LocalGet(local),
        I::I64ExtendI32U,
        I::LocalGet(LEN),
        I::I64ExtendI32U,
        I::I64Add,
        I::MemorySize(memory),
        I::I64ExtendI32U,
        I::I64Const(16),
        I::I64Shl,
        I::I64GtU,
    ]
}

fn is_short(chunk: i32) -> Vec<I<'static>> {
    vec![I::LocalGet(LEN), I::I32Const(chunk), I::I32LeU]
}

fn operands(len: I<'static>) -> Vec<I<'static>> {
    vec![I::LocalGet(DST), I::LocalGet(SRC), len]
}

/// If the condition on the stack holds: the instruction itself with everything, and back.
fn at_once(instruction: I<'static>) -> Vec<I<'static>> {
    let mut code = vec![I::If(BlockType::Empty)];
    code.extend(operands(I::LocalGet(LEN)));
    code.extend([instruction, I::Return, I::End]);
    code
}

fn add(local: u32, n: i32) -> Vec<I<'static>> {
    vec![I::LocalGet(local), I::I32Const(n), I::I32Add, I::LocalSet(local)]
}

fn function(code: Vec<I<'static>>) -> Function {
    let mut function = Function::new([(0, ValType::I32)]);
    for instruction in code {
        function.instruction(&instruction);
    }
    function.instruction(&I::End);
    function
}

/// A chunk after another while more than one is left: `step` moves one and goes on.
fn chunks(chunk: i32, step: Vec<I<'static>>) -> Vec<I<'static>> {
    let mut code = vec![I::Loop(BlockType::Empty)];
    code.extend(step);
    code.extend([
        I::LocalGet(LEN),
        I::I32Const(chunk),
        I::I32GtU,
        I::BrIf(0),
        I::End,
    ]);
    code
}

/// `(dst, value, len)`; one instruction fills `chunk` bytes at most.
pub fn fill(memory: u32, chunk: i32) -> Function {
    let fill = || I::MemoryFill(memory);
    // What is short first, and nothing more of it: most are.
    let mut code = is_short(chunk);
    code.extend(at_once(fill()));
    code.extend(passes_end(DST, memory));
    code.extend(at_once(fill()));
    let mut step = operands(I::I32Const(chunk));
    step.push(fill());
    step.extend(add(DST, chunk));
    step.extend(add(LEN, -chunk));
    code.extend(chunks(chunk, step));
    code.extend(operands(I::LocalGet(LEN)));
    code.push(fill());
    function(code)
}

/// `(dst, src, len)`; one instruction copies `chunk` bytes at most.
pub fn copy(dst_mem: u32, src_mem: u32, chunk: i32) -> Function {
    let copy = || I::MemoryCopy { src_mem, dst_mem };
    let mut code = is_short(chunk);
    code.extend(at_once(copy()));
    code.extend(passes_end(DST, dst_mem));
    code.extend(passes_end(SRC, src_mem));
    code.push(I::I32Or);
    code.extend(at_once(copy()));

    // Upwards: from the start. Between two memories either way is right.
    code.extend([
        I::LocalGet(DST),
        I::LocalGet(SRC),
        I::I32LeU,
        I::If(BlockType::Empty),
    ]);
    let mut step = operands(I::I32Const(chunk));
    step.push(copy());
    step.extend(add(DST, chunk));
    step.extend(add(SRC, chunk));
    step.extend(add(LEN, -chunk));
    code.extend(chunks(chunk, step));
    code.push(I::Else);
    // Downwards: the last chunk first; what is left at the end lies at the start.
    let mut step = add(LEN, -chunk);
    for local in [DST, SRC] {
        step.extend([I::LocalGet(local), I::LocalGet(LEN), I::I32Add]);
    }
    step.extend([I::I32Const(chunk), copy()]);
    code.extend(chunks(chunk, step));
    code.push(I::End);
    code.extend(operands(I::LocalGet(LEN)));
    code.push(copy());
    function(code)
}
