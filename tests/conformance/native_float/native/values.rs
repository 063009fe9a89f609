//! Operands: bit patterns that matter more often than chance would have them.

use super::{General, Machine, OPERAND, OPERAND_LEN};

/// A generator of reproducible numbers (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A significand: random, or with runs of equal bits, so that sums are exact or half-way now and then.
    fn significand(&mut self, bits: u32) -> u64 {
        let mask = u64::MAX >> (64 - bits);
        let value = match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(bits.into()),
            3 => u64::MAX << self.below(bits.into()),
            _ => self.next(),
        };
        value & mask
    }

    /// An exponent field: the extremes, the middle, or any.
    fn exponent(&mut self, bits: u32) -> u64 {
        let max = (1 << bits) - 1;
        let bias = max >> 1;
        match self.below(10) {
            0 => 0,
            1 => max,
            2 => 1 + self.below(3),
            3 => max - 1 - self.below(3),
            4..=6 => bias - 4 + self.below(8),
            7 => bias + self.below(70).min(bias),
            _ => self.below(max),
        }
    }

    pub fn f32(&mut self) -> u32 {
        let (sign, exponent) = (self.next() & 1, self.exponent(8));
        (sign << 31 | exponent << 23 | self.significand(23)) as u32
    }

    pub fn f64(&mut self) -> u64 {
        let (sign, exponent) = (self.next() & 1, self.exponent(11));
        sign << 63 | exponent << 52 | self.significand(52)
    }

    /// An 80-bit number; unnormals and other unsupported patterns rarely.
    pub fn f80(&mut self) -> [u8; 10] {
        let exponent = self.exponent(15);
        let mut mantissa = self.significand(63);
        if (exponent != 0) != (self.below(24) == 0) {
            mantissa |= 1 << 63;
        }
        if self.below(16) == 0 {
            mantissa = 0;
        }
        let word = (self.next() & 1) << 15 | exponent;
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&mantissa.to_le_bytes());
        bytes[8..].copy_from_slice(&(word as u16).to_le_bytes());
        bytes
    }

    /// Sixteen bytes of whatever kind: integers, singles, doubles, text.
    pub fn vector(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        match self.below(5) {
            0 => bytes
                .chunks_exact_mut(4)
                .for_each(|c| c.copy_from_slice(&self.f32().to_le_bytes())),
            1 => bytes
                .chunks_exact_mut(8)
                .for_each(|c| c.copy_from_slice(&self.f64().to_le_bytes())),
            2 => {
                let small = [0, 1, 2, 0x7f, 0x80, 0xff, b'a', b'b'];
                bytes.iter_mut().for_each(|b| *b = self.pick(&small));
            }
            3 => {
                let small = [0, 1, 0x7fff, 0x8000, 0xffff, 0x8001];
                bytes
                    .chunks_exact_mut(2)
                    .for_each(|c| c.copy_from_slice(&u16::to_le_bytes(self.pick(&small))));
            }
            _ => bytes
                .chunks_exact_mut(8)
                .for_each(|c| c.copy_from_slice(&self.next().to_le_bytes())),
        }
        bytes
    }

    /// A state in which every exception is masked, or with `unmasked` any set of them is not. Nothing is
    /// pending at the start.
    pub fn machine(&mut self, unmasked: bool) -> Machine {
        let mut machine = Machine {
            fx: [0; 512],
            general: General {
                rax: self.next(),
                rcx: self.next(),
                rdx: self.next(),
                rbx: self.next(),
                rsi: OPERAND + 64,
                rdi: OPERAND + 512,
            },
            flags: self.next() & 0x8d5,
            memory: [0; OPERAND_LEN],
        };
        if self.below(2) == 0 {
            // Lengths of strings.
            machine.general.rax = self.below(20).wrapping_sub(2);
            machine.general.rdx = self.below(20).wrapping_sub(2);
        }
        for chunk in machine.memory.chunks_exact_mut(16) {
            chunk.copy_from_slice(&self.vector());
        }
        let f80 = self.f80();
        if self.below(2) == 0 {
            machine.memory[64..74].copy_from_slice(&f80);
        }
        if self.below(4) == 0 {
            // A packed decimal number.
            for byte in &mut machine.memory[64..73] {
                *byte = (self.below(10) << 4 | self.below(10)) as u8;
            }
            machine.memory[73] = self.pick(&[0, 0x80]);
        }
        let masks = if unmasked { self.next() as u16 & 0x3f } else { 0x3f };
        let precision = self.pick(&[0, 2, 3, 3]);
        let control = masks | 0x40 | precision << 8 | (self.below(4) as u16) << 10;
        machine.fx[0..2].copy_from_slice(&control.to_le_bytes());
        let status = self.next() as u16 & (masks | 0x7f40);
        machine.fx[2..4].copy_from_slice(&status.to_le_bytes());
        machine.fx[4] = match self.below(3) {
            0 => self.next() as u8,
            1 => 0xff,
            // As compilers have it: everything below TOP is free.
            _ => 0xff_u8 << (status >> 11 & 7),
        };
        for n in 0..8 {
            let at = 32 + 16 * n;
            machine.fx[at..at + 10].copy_from_slice(&self.f80());
        }
        let masks = if unmasked {
            (self.next() as u32 & 0x3f) << 7
        } else {
            0x1f80
        };
        let mxcsr = masks | self.next() as u32 & 0xe07f;
        machine.fx[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        machine.fx[28..32].copy_from_slice(&0xffff_u32.to_le_bytes());
        for n in 0..16 {
            let at = 160 + 16 * n;
            machine.fx[at..at + 16].copy_from_slice(&self.vector());
        }
        machine
    }
}
