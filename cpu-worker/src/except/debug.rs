//! Debug registers and single-step (SDM vol. 3, chapter 17).

use crate::exec::{Exit, Flow, Vcpu};
use crate::mmu::Access;

impl Vcpu {
    /// Raises #DB when an instruction breakpoint lies at CS:rIP.
    pub(crate) fn check_instruction_breakpoint(&mut self) -> Flow {
        Ok(())
    }

    /// Notes hits of data breakpoints.
    #[inline]
    pub(crate) fn check_watch(&mut self, _linear: u64, _len: usize, _access: Access) {}

    /// Notes a hit of an I/O breakpoint on `size` ports from `port`.
    #[inline]
    pub(crate) fn note_io(&mut self, _port: u16, _size: u64) {}

    /// After an instruction executed by itself; `trap`: TF was set when it began; `exit`: how it ended.
    pub(crate) fn after_step(&mut self, _trap: bool, _exit: Option<Exit>) {}

    /// Delivers the #DB that is due after an instruction.
    pub(crate) fn deliver_debug_trap(&mut self) {}
}
