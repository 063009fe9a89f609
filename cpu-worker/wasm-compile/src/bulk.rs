//! `memory.fill` and `memory.copy` but for their last chunk, as functions of the module's own, one for each memory or two
//! of them.
//!
//! They take the operands of the instruction and answer those of what is left of it, which the instruction itself does
//! then: addresses and value as they came, and less to do. Of what is short, or passes the end of memory, everything is
//! left: it is the instruction that traps, by its own name and before anything is written. The rest is done in chunks with
//! a loop between them, where the module can be interrupted. A copy to a higher address starts at its end, so that
//! overlapping bytes are read before they are overwritten.

use wasm_encoder::{BlockType, Function, Instruction, ValType};

/// Bytes that one instruction may move.
pub const CHUNK: u32 = 16 << 20;

const DST: u32 = 0;
/// Source address, or the value to fill with.
const SRC: u32 = 1;
const LEN: u32 = 2;
/// Bytes that have been copied.
const DONE: u32 = 3;

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

/// If the condition on the stack holds: everything is left.
fn leave_all() -> Vec<I<'static>> {
    let mut code = vec![I::If(BlockType::Empty)];
    code.extend(operands(I::LocalGet(LEN)));
    code.extend([I::Return, I::End]);
    code
}

fn add(local: u32, n: i32) -> Vec<I<'static>> {
    vec![I::LocalGet(local), I::I32Const(n), I::I32Add, I::LocalSet(local)]
}

fn function(code: Vec<I<'static>>) -> Function {
    let mut function = Function::new([(1, ValType::I32)]);
    for instruction in code {
        function.instruction(&instruction);
    }
    function.instruction(&I::End);
    function
}

/// `local + at`.
fn moved(local: u32, at: u32) -> [I<'static>; 3] {
    [I::LocalGet(local), I::LocalGet(at), I::I32Add]
}

/// `step` again and again, while what is left on the stack behind it is longer than a chunk.
fn chunks(chunk: i32, step: Vec<I<'static>>) -> Vec<I<'static>> {
    let mut code = vec![I::Loop(BlockType::Empty)];
    code.extend(step);
    code.extend([I::I32Const(chunk), I::I32GtU, I::BrIf(0), I::End]);
    code
}

/// `(dst, value, len)` to the same of what is left; one instruction fills `chunk` bytes at most.
pub fn fill(memory: u32, chunk: i32) -> Function {
    let mut code = is_short(chunk);
    code.extend(passes_end(DST, memory));
    code.push(I::I32Or);
    code.extend(leave_all());
    // From the end; what is left lies at the start.
    let mut step = add(LEN, -chunk);
    step.extend(moved(DST, LEN));
    step.extend([I::LocalGet(SRC), I::I32Const(chunk), I::MemoryFill(memory)]);
    step.push(I::LocalGet(LEN));
    code.extend(chunks(chunk, step));
    code.extend(operands(I::LocalGet(LEN)));
    function(code)
}

/// `(dst, src, len)` to the same of what is left; one instruction copies `chunk` bytes at most.
pub fn copy(dst_mem: u32, src_mem: u32, chunk: i32) -> Function {
    let copy = || I::MemoryCopy { src_mem, dst_mem };
    let mut code = is_short(chunk);
    code.extend(passes_end(DST, dst_mem));
    code.push(I::I32Or);
    code.extend(passes_end(SRC, src_mem));
    code.push(I::I32Or);
    code.extend(leave_all());

    // Upwards: from the start, all of it. Between two memories either way is right.
    code.extend([
        I::LocalGet(DST),
        I::LocalGet(SRC),
        I::I32LeU,
        I::If(BlockType::Empty),
    ]);
    let left = [I::LocalGet(LEN), I::LocalGet(DONE), I::I32Sub];
    let both = || [moved(DST, DONE), moved(SRC, DONE)].concat();
    let mut step = both();
    step.extend([I::I32Const(chunk), copy()]);
    step.extend(add(DONE, chunk));
    step.extend(left.clone());
    code.extend(chunks(chunk, step));
    code.extend(both());
    code.extend(left);
    code.push(copy());
    code.extend(operands(I::I32Const(0)));
    code.extend([I::Return, I::End]);

    // Downwards: from the end; what is left lies at the start.
    let mut step = add(LEN, -chunk);
    step.extend([moved(DST, LEN), moved(SRC, LEN)].concat());
    step.extend([I::I32Const(chunk), copy(), I::LocalGet(LEN)]);
    code.extend(chunks(chunk, step));
    code.extend(operands(I::LocalGet(LEN)));
    function(code)
}
