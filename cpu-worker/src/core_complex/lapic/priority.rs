//! Which interrupt the processor sees: IRR, ISR, TMR, TPR and PPR (SDM vol. 3 §11.8).

use super::{Lapic, LapicOutput, lvt};

/// ESR: a message or local interrupt had a vector below 16.
const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;

fn highest(bits: &[u32; 8]) -> Option<u8> {
    let word = (0..8).rev().find(|&i| bits[i] != 0)?;
    Some((word as u32 * 32 + 31 - bits[word].leading_zeros()) as u8)
}

fn set(bits: &mut [u32; 8], vector: u8, value: bool) {
    let bit = 1 << (vector & 31);
    let word = &mut bits[usize::from(vector >> 5)];
    *word = if value { *word | bit } else { *word & !bit };
}

fn get(bits: &[u32; 8], vector: u8) -> bool {
    bits[usize::from(vector >> 5)] & (1 << (vector & 31)) != 0
}

impl Lapic {
    /// Takes a fixed interrupt into the IRR. Vectors below 16 are an error; a software-disabled APIC takes
    /// nothing new. Gives whether it was taken.
    pub fn accept(&mut self, vector: u8, level: bool) -> bool {
        if !self.is_enabled() || self.state.svr & 0x100 == 0 {
            return false;
        }
        if vector < 16 {
            self.error(RECEIVE_ILLEGAL_VECTOR);
            return false;
        }
        set(&mut self.state.irr, vector, true);
        set(&mut self.state.tmr, vector, level);
        self.highest_request = self.highest_request.max(Some(vector));
        true
    }

    /// Whether `vector` waits in the IRR.
    pub fn is_requested(&self, vector: u8) -> bool {
        get(&self.state.irr, vector)
    }

    /// The processor priority: the higher of TPR and the class in service.
    pub fn ppr(&self) -> u8 {
        let service = self.highest_service.unwrap_or(0);
        if self.state.tpr >> 4 >= service >> 4 {
            self.state.tpr
        } else {
            service & 0xF0
        }
    }

    /// The vector the processor would get now, when its class is above the processor priority.
    #[inline]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.highest_request?;
        (self.is_enabled() && vector >> 4 > self.ppr() >> 4).then_some(vector)
    }

    /// The processor takes the pending interrupt: from IRR to ISR. With none, the spurious vector, and the
    /// ISR stays.
    pub fn acknowledge(&mut self) -> u8 {
        match self.pending() {
            Some(vector) => {
                set(&mut self.state.irr, vector, false);
                set(&mut self.state.isr, vector, true);
                self.recompute();
                vector
            }
            None => self.state.svr as u8,
        }
    }

    /// A write of the EOI register: the highest vector in service is done. A level one is told to the I/O
    /// APIC.
    pub(super) fn end_of_interrupt(&mut self, out: &mut Vec<LapicOutput>) {
        let Some(vector) = self.highest_service else {
            return;
        };
        set(&mut self.state.isr, vector, false);
        self.recompute();
        if get(&self.state.tmr, vector) {
            for pin in 0..2 {
                let entry = &mut self.state.lvt[lvt::LINT0 + pin];
                if *entry as u8 == vector && *entry & lvt::REMOTE_IRR != 0 {
                    *entry &= !lvt::REMOTE_IRR;
                    self.service_lint(pin, false, out);
                }
            }
            out.push(LapicOutput::Eoi(vector));
        }
    }

    /// CR8 as the processor reads it: bits 7 to 4 of TPR (SDM vol. 3 §11.8.6).
    pub fn cr8(&self) -> u8 {
        self.state.tpr >> 4
    }

    /// A write of CR8, 0 to 15: sets the class of TPR and clears its sub-class.
    pub fn set_cr8(&mut self, class: u8) {
        self.state.tpr = class << 4;
    }

    /// Arbitration for lowest-priority delivery: smaller goes first.
    pub(super) fn arbitration(&self) -> u8 {
        self.ppr()
    }

    pub(super) fn recompute(&mut self) {
        self.highest_request = highest(&self.state.irr);
        self.highest_service = highest(&self.state.isr);
    }
}
