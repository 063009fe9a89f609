//! MMX, with the additions of SSE, SSE2 and SSSE3 on MMX registers.

use iced_x86::{Mnemonic, OpKind};

use crate::exec::{Exit, Flow, Handler, Insn, Op, Vcpu, Vector, flag};
use crate::fp::Xmm;
use crate::fp::sse::integer as lanes;
use crate::fp::sse::mmx::{Form, Mmx, palignr, pshufw};
use crate::state::Cr0;

impl Vcpu {
    /// #UD, #NM and #MF of an MMX instruction.
    #[inline(always)]
    fn mmx_begin(&mut self) -> Flow {
        if self.state.cr0.intersects(Cr0::EM | Cr0::TS) || self.state.fpu.is_pending() {
            return self.mmx_blocked();
        }
        Ok(())
    }

    #[cold]
    fn mmx_blocked(&mut self) -> Flow {
        if self.state.cr0.contains(Cr0::EM) {
            return self.ud();
        }
        if self.state.cr0.contains(Cr0::TS) {
            return self.raise(Vector::Nm);
        }
        self.check_numeric_error()
    }

    #[inline(always)]
    fn mm(&self, n: u8) -> u64 {
        self.state.fpu.registers[(n & 7) as usize].mantissa
    }

    /// The end of an instruction that writes register `n`.
    #[inline(always)]
    fn finish_mm(&mut self, n: u8, value: u64) {
        self.state.fpu.enter_mmx();
        self.state.fpu.set_mm(n, value);
    }

    /// The source of `mm, mm/m`.
    #[inline(always)]
    fn mm_source(&mut self, op: &Op) -> Result<u64, Exit> {
        if !op.has(flag::MEM) {
            return Ok(self.mm(op.src));
        }
        if op.size == 4 {
            Ok(self.load::<u32>(op)?.into())
        } else {
            self.load::<u64>(op)
        }
    }
}

/// `mm, mm/m`.
#[inline(always)]
fn binary(cpu: &mut Vcpu, op: &Op, mmx: &Mmx) -> Flow {
    cpu.mmx_begin()?;
    let source = cpu.mm_source(op)?;
    let v = mmx.execute(cpu.mm(op.dst), source);
    cpu.finish_mm(op.dst, v);
    Ok(())
}

/// A handler from a body.
macro_rules! handler {
    (|$cpu:ident, $op:ident| $body:expr) => {{
        fn handler($cpu: &mut Vcpu, $op: &Op) -> Flow {
            $cpu.mmx_begin()?;
            $body;
            Ok(())
        }
        handler as Handler
    }};
}

macro_rules! table {
    ($insn:ident, $form:ident; $($mnemonic:ident $kernel:ident;)*) => {
        match $insn.i.mnemonic() {
            $(Mnemonic::$mnemonic => {
                fn run(cpu: &mut Vcpu, op: &Op) -> Flow {
                    binary(cpu, op, &Mmx { kernel: lanes::$kernel, form: Form::$form })
                }
                Some(run as Handler)
            })*
            _ => None,
        }
    };
}

fn low(insn: &Insn<'_>) -> Option<Handler> {
    table! { insn, Low;
        Paddb paddb; Paddw paddw; Paddd paddd; Paddq paddq;
        Paddsb paddsb; Paddsw paddsw; Paddusb paddusb; Paddusw paddusw;
        Psubb psubb; Psubw psubw; Psubd psubd; Psubq psubq;
        Psubsb psubsb; Psubsw psubsw; Psubusb psubusb; Psubusw psubusw;
        Pmullw pmullw; Pmulhw pmulhw; Pmulhuw pmulhuw; Pmuludq pmuludq;
        Pmaddwd pmaddwd; Psadbw psadbw; Pavgb pavgb; Pavgw pavgw;
        Pmaxsw pmaxsw; Pmaxub pmaxub; Pminsw pminsw; Pminub pminub;
        Pand pand; Pandn pandn; Por por; Pxor pxor;
        Pcmpeqb pcmpeqb; Pcmpeqw pcmpeqw; Pcmpeqd pcmpeqd; Pcmpgtb pcmpgtb;
        Pcmpgtw pcmpgtw; Pcmpgtd pcmpgtd; Punpcklbw punpcklbw; Punpcklwd punpcklwd;
        Punpckldq punpckldq; Pmaddubsw pmaddubsw; Pmulhrsw pmulhrsw; Psignb psignb;
        Psignw psignw; Psignd psignd; Pabsb pabsb; Pabsw pabsw;
        Pabsd pabsd;
    }
}

fn high(insn: &Insn<'_>) -> Option<Handler> {
    // The interleavings of the low halves of 128 bits hold those of both halves of 64.
    table! { insn, High; Punpckhbw punpcklbw; Punpckhwd punpcklwd; Punpckhdq punpckldq; }
}

fn joined(insn: &Insn<'_>) -> Option<Handler> {
    table! { insn, Joined;
        Packsswb packsswb; Packssdw packssdw; Packuswb packuswb;
        Phaddw phaddw; Phaddd phaddd; Phaddsw phaddsw; Phsubw phsubw; Phsubd phsubd; Phsubsw phsubsw;
    }
}

fn shifts(insn: &Insn<'_>) -> Option<Handler> {
    macro_rules! table {
        ($($mnemonic:ident $kernel:ident;)*) => {
            match insn.i.mnemonic() {
                $(Mnemonic::$mnemonic if insn.i.op1_kind() == OpKind::Immediate8 => Some(handler!(|cpu, op| {
                    let mut v = Xmm::new(cpu.mm(op.dst), 0);
                    lanes::$kernel(&mut v, &Xmm::new(op.imm & 0xff, 0));
                    cpu.finish_mm(op.dst, v.quads[0]);
                })),
                Mnemonic::$mnemonic => {
                    fn run(cpu: &mut Vcpu, op: &Op) -> Flow {
                        binary(cpu, op, &Mmx { kernel: lanes::$kernel, form: Form::Low })
                    }
                    Some(run as Handler)
                })*
                _ => None,
            }
        };
    }
    table! {
        Psllw psllw; Pslld pslld; Psllq psllq; Psrlw psrlw; Psrld psrld; Psrlq psrlq; Psraw psraw; Psrad psrad;
    }
}

/// MOVD and MOVQ between MMX registers, general registers and memory.
fn moves(insn: &Insn<'_>) -> Option<Handler> {
    let wide = insn.i.mnemonic() == Mnemonic::Movq;
    let memory = insn.op.has(flag::MEM);
    let (a, b) = (insn.i.op0_register(), insn.i.op1_register());
    Some(match (a.is_mm(), b.is_mm()) {
        (true, true) => handler!(|cpu, op| cpu.finish_mm(op.dst, cpu.mm(op.src))),
        (true, false) if memory => handler!(|cpu, op| {
            let v = cpu.mm_source(op)?;
            cpu.finish_mm(op.dst, v);
        }),
        (false, true) if memory && wide => handler!(|cpu, op| {
            let v = cpu.mm(op.dst);
            cpu.store(op, v)?;
            cpu.state.fpu.enter_mmx();
        }),
        (false, true) if memory => handler!(|cpu, op| {
            let v = cpu.mm(op.dst) as u32;
            cpu.store(op, v)?;
            cpu.state.fpu.enter_mmx();
        }),
        (true, false) if wide => handler!(|cpu, op| cpu.finish_mm(op.dst, cpu.reg::<u64>(op.src))),
        (true, false) => handler!(|cpu, op| cpu.finish_mm(op.dst, cpu.reg::<u32>(op.src).into())),
        (false, true) if wide => handler!(|cpu, op| {
            cpu.set_reg(op.dst, cpu.mm(op.src));
            cpu.state.fpu.enter_mmx();
        }),
        (false, true) => handler!(|cpu, op| {
            cpu.set_reg(op.dst, cpu.mm(op.src) as u32);
            cpu.state.fpu.enter_mmx();
        }),
        (false, false) => return None,
    })
}

fn others(insn: &Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Movd | Mnemonic::Movq => return moves(insn),
        Mnemonic::Movntq => handler!(|cpu, op| {
            let v = cpu.mm(op.dst);
            cpu.store(op, v)?;
            cpu.state.fpu.enter_mmx();
        }),
        Mnemonic::Pshufb => {
            fn run(cpu: &mut Vcpu, op: &Op) -> Flow {
                binary(
                    cpu,
                    op,
                    &Mmx {
                        kernel: lanes::pshufb,
                        form: Form::Shuffle,
                    },
                )
            }
            run
        }
        Mnemonic::Pshufw => handler!(|cpu, op| {
            let source = cpu.mm_source(op)?;
            cpu.finish_mm(op.dst, pshufw(source, op.imm as u8));
        }),
        Mnemonic::Palignr => handler!(|cpu, op| {
            let source = cpu.mm_source(op)?;
            let v = palignr(cpu.mm(op.dst), source, op.imm as u8);
            cpu.finish_mm(op.dst, v);
        }),
        Mnemonic::Pmovmskb => handler!(|cpu, op| {
            let mask = lanes::pmovmskb(&Xmm::new(cpu.mm(op.src), 0));
            cpu.set_reg(op.dst, mask);
            cpu.state.fpu.enter_mmx();
        }),
        Mnemonic::Pextrw => handler!(|cpu, op| {
            let v = cpu.mm(op.src) >> (16 * (op.imm & 3)) & 0xffff;
            cpu.set_reg(op.dst, v as u32);
            cpu.state.fpu.enter_mmx();
        }),
        Mnemonic::Pinsrw => handler!(|cpu, op| {
            let element = if op.has(flag::MEM) {
                cpu.load::<u16>(op)?
            } else {
                cpu.reg::<u16>(op.src)
            };
            let shift = 16 * (op.imm & 3);
            let v = cpu.mm(op.dst) & !(0xffff << shift) | u64::from(element) << shift;
            cpu.finish_mm(op.dst, v);
        }),
        Mnemonic::Maskmovq => handler!(|cpu, op| {
            let mask = lanes::pmovmskb(&Xmm::new(cpu.mm(op.src), 0));
            cpu.store_masked(op, Xmm::new(cpu.mm(op.dst), 0), mask)?;
            cpu.state.fpu.enter_mmx();
        }),
        _ => return None,
    })
}

/// MOVQ2DQ and MOVDQ2Q, which name a register of each kind.
fn mixed(insn: &Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Movq2dq => handler!(|cpu, op| {
            cpu.sse_begin()?;
            *cpu.xmm_mut(op.dst) = Xmm::new(cpu.mm(op.src), 0);
            cpu.state.fpu.enter_mmx();
        }),
        Mnemonic::Movdq2q => handler!(|cpu, op| {
            cpu.sse_begin()?;
            cpu.finish_mm(op.dst, cpu.xmm(op.src).quads[0]);
        }),
        _ => return None,
    })
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    if insn.i.mnemonic() == Mnemonic::Emms {
        // TOP is cleared as by every MMX instruction, then all registers are marked empty.
        return Some(handler!(|cpu, _op| {
            cpu.state.fpu.enter_mmx();
            cpu.state.fpu.valid = 0;
        }));
    }
    let (mut mm, mut xmm) = (false, false);
    for n in 0..insn.i.op_count() {
        mm |= insn.i.op_register(n).is_mm();
        xmm |= insn.i.op_register(n).is_xmm();
    }
    match (mm, xmm) {
        (true, false) => {}
        (true, true) => return mixed(insn),
        (false, _) => return None,
    }
    if insn.op.has(flag::MEM) {
        insn.op.size = insn.i.memory_size().size() as u8;
    }
    let insn = &*insn;
    low(insn)
        .or_else(|| high(insn))
        .or_else(|| joined(insn))
        .or_else(|| shifts(insn))
        .or_else(|| others(insn))
}
