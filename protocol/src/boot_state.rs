//! The boot state: how a vCPU is to start, as io-worker's firmware decided.
//!
//! Kernels and images are hostile input, so the confined io-worker takes them apart, fills guest RAM, and
//! publishes this record for each start and each reset of the guest. cpu-worker loads the registers named here,
//! and sets up the rest of the core complex itself. Words not named here have their architectural reset
//! value.

use crate::seqlock::{SeqError, SeqReader, SeqWriter, seq_size};
use crate::shm::{View, ViewMut};

/// Bytes of the record.
const RECORD: usize = 256;
/// Bytes of the seqlock that holds the record.
pub const BOOT_STATE_SIZE: usize = seq_size(RECORD);

/// The mode in which a vCPU starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryMode {
    /// Real mode: segment bases are selectors times 16.
    #[default]
    Real16 = 1,
    /// Protected mode with paging off, flat 4 GiB segments (32-bit Linux, multiboot, PVH entry).
    Protected32 = 2,
    /// Long mode with paging by `cr3`, flat segments (64-bit Linux entry).
    Long64 = 3,
    /// The architectural state after reset, from which firmware starts at FFFF_FFF0h. The registers of the record count for
    /// nothing, and whatever firmware would set up is as hardware leaves it.
    Reset = 4,
}

/// Registers at entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootState {
    /// The reset generation this state belongs to: a reader waits until it is the one it was told.
    pub generation: u32,
    /// Mode at entry.
    pub mode: EntryMode,
    /// RIP; in real mode the low 16 bits with `cs`.
    pub rip: u64,
    /// RSP.
    pub rsp: u64,
    /// RFLAGS; bit 1 reads as one whatever this says.
    pub rflags: u64,
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// RBP.
    pub rbp: u64,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Base of the GDT, guest physical.
    pub gdt_base: u64,
    /// Base of the IDT, guest physical.
    pub idt_base: u64,
    /// Limit of the GDT.
    pub gdt_limit: u16,
    /// Limit of the IDT.
    pub idt_limit: u16,
    /// Selectors of CS, DS, ES, FS, GS, SS.
    pub selectors: [u16; 6],
    /// Guest RAM below 4 GiB in bytes, for a check against the reader's own layout.
    pub low_ram: u64,
    /// Guest RAM from 4 GiB on in bytes.
    pub high_ram: u64,
}

/// Why a boot state could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BootStateError {
    /// The writer died or stopped inside the record.
    #[error("The boot state stayed busy")]
    Busy(#[from] SeqError),
    /// The entry mode means nothing.
    #[error("The boot state has entry mode {0}")]
    Mode(u32),
}

impl BootState {
    fn words(&self) -> [u64; 22] {
        let s = &self.selectors;
        let four = |a: u16, b: u16, c: u16, d: u16| {
            u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48
        };
        [
            u64::from(self.generation) | u64::from(self.mode as u32) << 32,
            self.rip,
            self.rsp,
            self.rflags,
            self.rax,
            self.rbx,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.rbp,
            self.cr0,
            self.cr3,
            self.cr4,
            self.efer,
            self.gdt_base,
            self.idt_base,
            four(self.gdt_limit, self.idt_limit, 0, 0),
            four(s[0], s[1], s[2], s[3]),
            four(s[4], s[5], 0, 0),
            self.low_ram,
            self.high_ram,
        ]
    }

    fn from_words(w: &[u64; 22]) -> Result<Self, BootStateError> {
        let part = |word: u64, n: u32| (word >> (16 * n)) as u16;
        let mode = match (w[0] >> 32) as u32 {
            1 => EntryMode::Real16,
            2 => EntryMode::Protected32,
            3 => EntryMode::Long64,
            4 => EntryMode::Reset,
            other => return Err(BootStateError::Mode(other)),
        };
        Ok(Self {
            generation: w[0] as u32,
            mode,
            rip: w[1],
            rsp: w[2],
            rflags: w[3],
            rax: w[4],
            rbx: w[5],
            rcx: w[6],
            rdx: w[7],
            rsi: w[8],
            rdi: w[9],
            rbp: w[10],
            cr0: w[11],
            cr3: w[12],
            cr4: w[13],
            efer: w[14],
            gdt_base: w[15],
            idt_base: w[16],
            gdt_limit: part(w[17], 0),
            idt_limit: part(w[17], 1),
            selectors: [
                part(w[18], 0),
                part(w[18], 1),
                part(w[18], 2),
                part(w[18], 3),
                part(w[19], 0),
                part(w[19], 1),
            ],
            low_ram: w[20],
            high_ram: w[21],
        })
    }
}

/// The writing end, in io-worker.
#[derive(Debug)]
pub struct BootStateWriter(SeqWriter<ViewMut>);

impl BootStateWriter {
    /// The record in the seqlock that starts `words`.
    pub fn new(words: ViewMut) -> Self {
        Self(SeqWriter::new(words))
    }

    /// Publishes a state. Guest RAM must have been filled before; the caller rings the vCPU.
    pub fn publish(&mut self, state: &BootState) {
        let mut bytes = [0; 22 * 8];
        for (to, word) in bytes.chunks_exact_mut(8).zip(state.words()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.0.write(&bytes);
    }
}

/// The reading end, in cpu-worker.
#[derive(Clone, Debug)]
pub struct BootStateReader(SeqReader<View>);

impl BootStateReader {
    /// The record in the seqlock that starts `words`.
    pub fn new(words: View) -> Self {
        Self(SeqReader::new(words))
    }

    /// The newest state; `None` before the first was published.
    ///
    /// # Errors
    /// [`BootStateError`]. Register values are not judged: a vCPU can start with any.
    pub fn read(&self) -> Result<Option<BootState>, BootStateError> {
        let mut bytes = [0; 22 * 8];
        if self.0.sequence() == 0 {
            return Ok(None);
        }
        self.0.read(0, &mut bytes)?;
        let mut words = [0; 22];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(std::array::from_fn(|i| from[i]));
        }
        BootState::from_words(&words).map(Some)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::Map;
    use crate::sync::Ordering;
    use std::sync::Arc;

    fn words() -> ViewMut {
        ViewMut::new(Arc::new(Map::anonymous(4096).unwrap()))
    }

    #[test]
    fn a_state_comes_back_field_by_field() {
        let w = words();
        let reader = BootStateReader::new(w.view().clone());
        assert_eq!(reader.read(), Ok(None));
        let mut n = 0u64;
        let mut next = || {
            n += 1;
            n * 0x0101_0101_0101_0101
        };
        let state = BootState {
            generation: 3,
            mode: EntryMode::Long64,
            rip: next(),
            rsp: next(),
            rflags: next(),
            rax: next(),
            rbx: next(),
            rcx: next(),
            rdx: next(),
            rsi: next(),
            rdi: next(),
            rbp: next(),
            cr0: next(),
            cr3: next(),
            cr4: next(),
            efer: next(),
            gdt_base: next(),
            idt_base: next(),
            gdt_limit: 0x1234,
            idt_limit: 0x5678,
            selectors: [1, 2, 3, 4, 5, 6],
            low_ram: next(),
            high_ram: next(),
        };
        BootStateWriter::new(w).publish(&state);
        assert_eq!(reader.read(), Ok(Some(state)));
    }

    #[test]
    fn a_mode_that_means_nothing_is_an_error() {
        let w = words();
        BootStateWriter::new(w.clone()).publish(&BootState::default());
        w.store_u32(crate::seqlock::SEQ_HEADER + 4, 9, Ordering::Relaxed);
        assert_eq!(
            BootStateReader::new(w.view().clone()).read(),
            Err(BootStateError::Mode(9))
        );
    }
}
