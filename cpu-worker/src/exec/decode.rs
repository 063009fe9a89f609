//! From bytes to ops: iced decodes, the instruction families choose handlers.

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction, OpKind};

use super::block::MAX_OPS;
use super::{Exit, Flow, Handler, Op, Vcpu, Vector, flag};
use crate::cpuid::Model;
use crate::interp;
use crate::mmu::{Fetched, MAX_INSTRUCTION};
use crate::state::CodeSize;

/// What a family sees of an instruction while it chooses the handler.
#[derive(Debug)]
pub struct Insn<'a> {
    /// As iced decoded it.
    pub i: &'a Instruction,
    /// What it was decoded as.
    pub code: CodeSize,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The op to finish; operands are already filled in.
    pub op: &'a mut Op,
    /// The model, for instructions that not every one has.
    pub model: &'a Model,
}

impl Insn<'_> {
    /// Marks the op as the last of its block.
    pub fn ends(&mut self) {
        self.op.flags |= flag::ENDS;
    }
}

/// #UD.
fn undefined(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.ud()
}

/// #GP(0): an instruction of more than 15 bytes.
fn too_long(cpu: &mut Vcpu, _: &Op) -> Flow {
    cpu.gp0()
}

/// A stretch of code that begins in one page and may end in the next.
#[derive(Clone, Copy)]
struct Stretch {
    linear: u64,
    /// Where that is, as [`Vcpu::translate_code`] has it.
    at: (u64, Option<u64>),
    /// Bytes up to the end of its page.
    left: u64,
    /// Linear address of the next page.
    next: u64,
    /// Where that is, once it is looked up.
    second: Option<(u64, Option<u64>)>,
}

/// What decoding one instruction came to.
enum Decoded {
    Op(Op),
    /// The bytes ended inside the instruction.
    Short,
}

fn decode_one(bytes: &[u8], code: CodeSize, model: &Model) -> Decoded {
    let mut decoder = Decoder::with_ip(code.bits(), bytes, 0, DecoderOptions::NONE);
    let i = decoder.decode();
    if i.code() == Code::INVALID {
        if decoder.last_error() == DecoderError::NoMoreBytes && bytes.len() < MAX_INSTRUCTION {
            return Decoded::Short;
        }
        let too_many =
            decoder.last_error() == DecoderError::NoMoreBytes || decoder.position() > MAX_INSTRUCTION;
        let handler: Handler = if too_many { too_long } else { undefined };
        let mut op = Op::new(&i, code, handler);
        op.flags |= flag::ENDS;
        op.len = 0;
        return Decoded::Op(op);
    }
    let mut op = Op::new(&i, code, undefined);
    let mut insn = Insn {
        i: &i,
        code,
        op: &mut op,
        bytes: &bytes[..i.len()],
        model,
    };
    match interp::select(&mut insn) {
        Some(handler) => op.handler = handler,
        None => op.flags |= flag::ENDS,
    }
    Decoded::Op(op)
}

impl Vcpu {
    /// Decodes a block at `linear`, at most `limit` ops, into `ops`. Gives the RAM address it starts at (`None`
    /// when it lies in device memory), how many bytes were looked at, and the RAM page of its tail when it crosses into one.
    pub(super) fn decode_block(
        &mut self,
        linear: u64,
        limit: usize,
        ops: &mut Vec<Op>,
    ) -> Result<(Option<u64>, u32, Option<u64>), Exit> {
        let code = self.code_size;
        let at = self.translate_code(linear)?;
        if let Some(page) = at.1 {
            self.announce_code(page);
        }
        let (mut offset, mut covered) = (0u64, 0u64);
        let mut stretch = self.stretch(linear, at);
        while ops.len() < limit.min(MAX_OPS) {
            let Some(bytes) = self.stretch_bytes(&stretch, offset) else {
                break;
            };
            let op = match decode_one(&bytes.bytes[..bytes.len], code, &self.model) {
                Decoded::Op(op) => op,
                Decoded::Short if !ops.is_empty() => break,
                Decoded::Short if stretch.second.is_some() => return self.raise(Vector::Gp),
                Decoded::Short => {
                    // The first instruction crosses the page. What faults there faults before anything is executed, so the
                    // block may go on behind it.
                    let found = self.translate_code(stretch.next)?;
                    if let Some(page) = found.1 {
                        self.announce_code(page);
                    }
                    stretch.second = Some(found);
                    continue;
                }
            };
            // An instruction must lie inside CS whole; if not, it faults when its turn comes.
            if op.len > 0 && !self.within_cs(offset + u64::from(op.len)) {
                if ops.is_empty() {
                    return self.gp0();
                }
                break;
            }
            ops.push(op);
            offset += u64::from(op.len);
            if op.len == 0 {
                // What is no instruction has no length, but whoever writes over it makes another block.
                covered = offset + bytes.len as u64;
            }
            // A breakpoint may lie there: see `hold`.
            if self.is_guarded(linear.wrapping_add(offset)) {
                break;
            }
            // Code in device memory is executed one instruction at a time.
            let in_ram = at.1.is_some() && stretch.second.is_none_or(|s| s.1.is_some());
            if op.has(flag::ENDS) || !in_ram {
                break;
            }
        }
        let second = stretch.second.and_then(|s| s.1);
        Ok((at.1.map(|_| at.0), offset.max(covered).max(1) as u32, second))
    }

    /// Decodes the block at `linear` beyond conditional jumps and the end of its page, if it then is a loop: if behind some jumps that
    /// lead out of it follows one back to its start. Gives the RAM address it starts at, its length, and the RAM page of its tail
    /// when that lies in another.
    pub(super) fn decode_loop(&mut self, linear: u64, ops: &mut Vec<Op>) -> Option<(u64, u32, Option<u64>)> {
        let code = self.code_size;
        let near = match code {
            CodeSize::Bits64 => OpKind::NearBranch64,
            CodeSize::Bits32 => OpKind::NearBranch32,
            CodeSize::Bits16 => return None,
        };
        let at = self.translate_code(linear).ok()?;
        at.1?;
        let mut stretch = self.stretch(linear, at);
        // Where the jumps out of it lead, from the start.
        let mut nearest = i64::MAX;
        let mut offset = 0u64;
        while ops.len() < MAX_OPS {
            if self.is_guarded(self.wrap_linear(linear.wrapping_add(offset))) {
                return None;
            }
            let bytes = self.stretch_bytes(&stretch, offset);
            let decoded = match &bytes {
                Some(bytes) => decode_one(&bytes.bytes[..bytes.len], code, &self.model),
                None => Decoded::Short,
            };
            let (Some(bytes), Decoded::Op(mut op)) = (bytes, decoded) else {
                if stretch.second.is_some() {
                    return None;
                }
                // The first page is executed first: this must not show in the second's tables.
                let page = self.code_page_quietly(stretch.next)?;
                self.announce_code(page);
                stretch.second = Some((page * 4096, Some(page)));
                continue;
            };
            offset += u64::from(op.len);
            if op.has(flag::ENDS) {
                let bytes = &bytes.bytes[..bytes.len];
                let i = Decoder::with_ip(code.bits(), bytes, 0, DecoderOptions::NONE).decode();
                if !i.is_jcc_short_or_near() || i.op0_kind() != near {
                    return None;
                }
                let by = if code == CodeSize::Bits64 {
                    op.imm as i64
                } else {
                    i64::from(op.imm as i32)
                };
                let target = offset as i64 + by;
                if target == 0 {
                    ops.push(op);
                    break;
                }
                if target < 0 {
                    return None;
                }
                nearest = nearest.min(target);
                interp::make_side_exit(&mut op, code);
            }
            ops.push(op);
        }
        let closed = ops.last().is_some_and(|op| op.has(flag::ENDS));
        let out = nearest >= offset as i64;
        let second = stretch.second.and_then(|s| s.1);
        (closed && out && self.within_cs(offset)).then_some((at.0, offset as u32, second))
    }

    /// Whether `len` bytes, at least 1, from rIP on lie inside CS.
    pub(super) fn within_cs(&self, len: u64) -> bool {
        self.code_size == CodeSize::Bits64
            || self.rip() + len - 1 <= u64::from(self.state.segs[crate::state::seg::CS].limit)
    }

    /// The stretch of code from `linear` on, which [`Vcpu::translate_code`] has found `at`.
    fn stretch(&self, linear: u64, at: (u64, Option<u64>)) -> Stretch {
        let left = 4096 - (linear & 0xFFF);
        Stretch {
            linear,
            at,
            left,
            next: self.wrap_linear(linear.wrapping_add(left)),
            second: None,
        }
    }

    /// The bytes at `offset` of `s`, as many as an instruction can have or as there are; `None` beyond the pages that are known.
    fn stretch_bytes(&mut self, s: &Stretch, offset: u64) -> Option<Fetched> {
        if offset >= s.left {
            let offset = offset - s.left;
            let (phys, page) = s.second.filter(|_| offset < 4096)?;
            return Some(self.fetch_page(s.next + offset, (phys + offset, page)));
        }
        let mut bytes = self.fetch_page(s.linear + offset, (s.at.0 + offset, s.at.1));
        if let Some(second) = s.second
            && bytes.len < MAX_INSTRUCTION
        {
            let more = self.fetch_page(s.next, second);
            let n = (MAX_INSTRUCTION - bytes.len).min(more.len);
            bytes.bytes[bytes.len..bytes.len + n].copy_from_slice(&more.bytes[..n]);
            bytes.len += n;
        }
        Some(bytes)
    }

    /// Tells everybody that code is about to be read from RAM page `page`, before it is.
    fn announce_code(&mut self, page: u64) {
        if self.blocks.announce(page) {
            self.tlb.write_protect(page);
            self.bus.code_page(page, true);
        }
    }
}
