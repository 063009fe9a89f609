//! The execution engine: predecoded blocks, their cache, and the loop that runs them.
//!
//! Shaped so that a translator can follow: blocks are found by physical address and code size, their ops are
//! position-independent, all state a block touches is in [`Vcpu`], and whatever stops a block does so
//! through one exit word, one reason word and one return value.

mod block;
mod decode;
mod fault;
mod frame;
mod hold;
mod int;
mod mode;
mod op;
mod registers;
mod run;
mod vcpu;

pub use block::{Block, BlockCache};
pub use decode::Insn;
pub use fault::{Fault, Vector};
pub use frame::{
    Frame, JUMPS, Jump, LiveUnit, LoopWords, MODES, NO_TAG, TLB_ENTRIES, Target, TlbEntry, UnitImage,
};
pub(crate) use hold::is_guard;
pub use hold::{Breakpoint, Held, Points, Stepped, Watched, Watchpoint};
pub use int::Int;
pub use mode::ModeKey;
pub use op::{Exit, Flow, Handler, Op, flag, op_segment};
pub use run::RunExit;
pub use vcpu::{ExitWord, Reason, Vcpu};
