//! Instructions of the form `xmm, xmm/m [, imm8]`: a line each.

use iced_x86::{Mnemonic, OpKind};

use super::{float, handler, integer, pick};
use crate::exec::{Flow, Handler, Insn, Op, Vcpu, flag};
use crate::fp::Xmm;
use crate::fp::sse::{float as kernels, immediate, integer as lanes};

/// Blends under XMM0.
macro_rules! blend {
    ($insn:ident, $kernel:ident) => {{
        fn run<const MEM: bool>(cpu: &mut Vcpu, op: &Op) -> Flow {
            cpu.sse_begin()?;
            let source = cpu.xmm_source::<MEM>(op)?;
            let mask = cpu.xmm(0);
            lanes::$kernel(cpu.xmm_mut(op.dst), &source, &mask);
            Ok(())
        }
        pick($insn, run::<false>, run::<true>)
    }};
}

/// An instruction that sets ZF, PF and CF from two operands and clears the other arithmetic flags.
macro_rules! compare {
    ($insn:ident, |$cpu:ident, $a:ident, $b:ident| $flags:expr) => {{
        fn run<const MEM: bool>($cpu: &mut Vcpu, op: &Op) -> Flow {
            $cpu.sse_begin()?;
            let $b = $cpu.xmm_source::<MEM>(op)?;
            let $a = $cpu.xmm(op.dst);
            let flags = $flags;
            $cpu.state.flags.set_arithmetic(u64::from(flags));
            Ok(())
        }
        pick($insn, run::<false>, run::<true>)
    }};
}

macro_rules! compare_float {
    ($insn:ident, $kernel:ident) => {
        compare!(
            $insn,
            |cpu, a, b| match kernels::$kernel.execute(&a, &b, &mut cpu.state.mxcsr) {
                Ok(flags) => flags,
                Err(exception) => return Err(cpu.simd_exception(exception)),
            }
        )
    };
}

/// Kernels without exceptions.
fn integers(insn: &mut Insn<'_>) -> Option<Handler> {
    macro_rules! table {
        ($($mnemonic:ident $kernel:ident;)*) => {
            match insn.i.mnemonic() {
                $(Mnemonic::$mnemonic => Some(integer!(insn, |_, d, s| lanes::$kernel(d, s))),)*
                _ => None,
            }
        };
    }
    table! {
        Paddb paddb; Paddw paddw; Paddd paddd; Paddq paddq;
        Paddsb paddsb; Paddsw paddsw; Paddusb paddusb; Paddusw paddusw;
        Psubb psubb; Psubw psubw; Psubd psubd; Psubq psubq;
        Psubsb psubsb; Psubsw psubsw; Psubusb psubusb; Psubusw psubusw;
        Pmullw pmullw; Pmulhw pmulhw; Pmulhuw pmulhuw; Pmuludq pmuludq;
        Pmaddwd pmaddwd; Psadbw psadbw; Pavgb pavgb; Pavgw pavgw;
        Pmaxsw pmaxsw; Pmaxub pmaxub; Pminsw pminsw; Pminub pminub;
        Pand pand; Pandn pandn; Por por; Pxor pxor;
        Andps andps; Andnps andnps; Orps orps; Xorps xorps;
        Andpd andpd; Andnpd andnpd; Orpd orpd; Xorpd xorpd;
        Pcmpeqb pcmpeqb; Pcmpeqw pcmpeqw; Pcmpeqd pcmpeqd; Pcmpgtb pcmpgtb;
        Pcmpgtw pcmpgtw; Pcmpgtd pcmpgtd; Packsswb packsswb; Packssdw packssdw;
        Packuswb packuswb; Punpcklbw punpcklbw; Punpcklwd punpcklwd; Punpckldq punpckldq;
        Punpcklqdq punpcklqdq; Punpckhbw punpckhbw; Punpckhwd punpckhwd; Punpckhdq punpckhdq;
        Punpckhqdq punpckhqdq; Unpcklps unpcklps; Unpckhps unpckhps; Unpcklpd unpcklpd;
        Unpckhpd unpckhpd; Rcpps rcpps; Rcpss rcpss; Rsqrtps rsqrtps;
        Rsqrtss rsqrtss; Cvtdq2pd cvtdq2pd; Movshdup movshdup; Movsldup movsldup;
        Movddup movddup; Pshufb pshufb; Phaddw phaddw; Phaddd phaddd;
        Phaddsw phaddsw; Phsubw phsubw; Phsubd phsubd; Phsubsw phsubsw;
        Pmaddubsw pmaddubsw; Pmulhrsw pmulhrsw; Psignb psignb; Psignw psignw;
        Psignd psignd; Pabsb pabsb; Pabsw pabsw; Pabsd pabsd;
        Packusdw packusdw; Pcmpeqq pcmpeqq; Pcmpgtq pcmpgtq; Phminposuw phminposuw;
        Pmuldq pmuldq; Pmulld pmulld; Pmaxsb pmaxsb; Pmaxsd pmaxsd;
        Pmaxud pmaxud; Pmaxuw pmaxuw; Pminsb pminsb; Pminsd pminsd;
        Pminud pminud; Pminuw pminuw; Pmovsxbw pmovsxbw; Pmovsxbd pmovsxbd;
        Pmovsxbq pmovsxbq; Pmovsxwd pmovsxwd; Pmovsxwq pmovsxwq; Pmovsxdq pmovsxdq;
        Pmovzxbw pmovzxbw; Pmovzxbd pmovzxbd; Pmovzxbq pmovzxbq; Pmovzxwd pmovzxwd;
        Pmovzxwq pmovzxwq; Pmovzxdq pmovzxdq; Aesenc aesenc; Aesenclast aesenclast;
        Aesdec aesdec; Aesdeclast aesdeclast; Aesimc aesimc;
    }
}

/// Shifts, by a register or by an immediate. The count is then a source like any other.
fn shifts(insn: &mut Insn<'_>) -> Option<Handler> {
    macro_rules! table {
        ($($mnemonic:ident $kernel:ident;)*) => {
            match insn.i.mnemonic() {
                $(Mnemonic::$mnemonic if insn.i.op1_kind() == OpKind::Immediate8 => Some(handler!(|cpu, op| {
                    cpu.sse_begin()?;
                    lanes::$kernel(cpu.xmm_mut(op.dst), &Xmm::new(op.imm & 0xff, 0));
                    Ok(())
                })),
                Mnemonic::$mnemonic => Some(integer!(insn, |_, d, s| lanes::$kernel(d, s))),)*
                _ => None,
            }
        };
    }
    table! {
        Psllw psllw; Pslld pslld; Psllq psllq; Psrlw psrlw;
        Psrld psrld; Psrlq psrlq; Psraw psraw; Psrad psrad;
    }
}

/// Kernels without exceptions that an immediate chooses.
fn immediates(insn: &mut Insn<'_>) -> Option<Handler> {
    macro_rules! table {
        ($($mnemonic:ident $kernel:ident;)*) => {
            match insn.i.mnemonic() {
                $(Mnemonic::$mnemonic => {
                    Some(integer!(insn, |op, d, s| immediate::$kernel(op.imm as u8)(d, s)))
                })*
                _ => None,
            }
        };
    }
    table! {
        Pshufd pshufd; Pshuflw pshuflw; Pshufhw pshufhw; Shufps shufps;
        Shufpd shufpd; Pblendw pblendw; Blendps blendps; Blendpd blendpd;
        Mpsadbw mpsadbw; Pclmulqdq pclmulqdq; Aeskeygenassist aeskeygenassist; Palignr palignr;
    }
}

/// Kernels that use MXCSR.
fn floats(insn: &mut Insn<'_>) -> Option<Handler> {
    macro_rules! table {
        ($($mnemonic:ident $kernel:ident;)*) => {
            match insn.i.mnemonic() {
                $(Mnemonic::$mnemonic => Some(float!(insn, |op| kernels::$kernel)),)*
                _ => None,
            }
        };
    }
    table! {
        Addps ADDPS; Addpd ADDPD; Addss ADDSS; Addsd ADDSD;
        Subps SUBPS; Subpd SUBPD; Subss SUBSS; Subsd SUBSD;
        Mulps MULPS; Mulpd MULPD; Mulss MULSS; Mulsd MULSD;
        Divps DIVPS; Divpd DIVPD; Divss DIVSS; Divsd DIVSD;
        Sqrtps SQRTPS; Sqrtpd SQRTPD; Sqrtss SQRTSS; Sqrtsd SQRTSD;
        Minps MINPS; Minpd MINPD; Minss MINSS; Minsd MINSD;
        Maxps MAXPS; Maxpd MAXPD; Maxss MAXSS; Maxsd MAXSD;
        Addsubps ADDSUBPS; Addsubpd ADDSUBPD; Haddps HADDPS; Haddpd HADDPD;
        Hsubps HSUBPS; Hsubpd HSUBPD; Cvtps2pd CVTPS2PD; Cvtpd2ps CVTPD2PS;
        Cvtss2sd CVTSS2SD; Cvtsd2ss CVTSD2SS; Cvtdq2ps CVTDQ2PS; Cvtps2dq CVTPS2DQ;
        Cvttps2dq CVTTPS2DQ; Cvtpd2dq CVTPD2DQ; Cvttpd2dq CVTTPD2DQ;
    }
}

/// Kernels that use MXCSR and that an immediate chooses.
fn float_immediates(insn: &mut Insn<'_>) -> Option<Handler> {
    macro_rules! table {
        ($($mnemonic:ident $kernel:ident;)*) => {
            match insn.i.mnemonic() {
                $(Mnemonic::$mnemonic => Some(float!(insn, |op| kernels::$kernel(op.imm as u8))),)*
                _ => None,
            }
        };
    }
    table! {
        Cmpps cmpps; Cmppd cmppd; Cmpss cmpss; Cmpsd cmpsd;
        Roundps roundps; Roundpd roundpd; Roundss roundss; Roundsd roundsd;
        Dpps dpps; Dppd dppd;
    }
}

fn others(insn: &mut Insn<'_>) -> Option<Handler> {
    Some(match insn.i.mnemonic() {
        Mnemonic::Pslldq => handler!(|cpu, op| {
            cpu.sse_begin()?;
            immediate::pslldq(cpu.xmm_mut(op.dst), op.imm as u8);
            Ok(())
        }),
        Mnemonic::Psrldq => handler!(|cpu, op| {
            cpu.sse_begin()?;
            immediate::psrldq(cpu.xmm_mut(op.dst), op.imm as u8);
            Ok(())
        }),
        // From memory there is one element to choose from, whatever the immediate says.
        Mnemonic::Insertps => integer!(insn, |op, d, s| {
            let imm = if op.has(flag::MEM) {
                op.imm as u8 & 0x3f
            } else {
                op.imm as u8
            };
            immediate::insertps(imm)(d, s);
        }),
        Mnemonic::Pblendvb => blend!(insn, pblendvb),
        Mnemonic::Blendvps => blend!(insn, blendvps),
        Mnemonic::Blendvpd => blend!(insn, blendvpd),
        Mnemonic::Ptest => compare!(insn, |_cpu, a, b| lanes::ptest(&a, &b)),
        Mnemonic::Comiss => compare_float!(insn, COMISS),
        Mnemonic::Ucomiss => compare_float!(insn, UCOMISS),
        Mnemonic::Comisd => compare_float!(insn, COMISD),
        Mnemonic::Ucomisd => compare_float!(insn, UCOMISD),
        _ => return None,
    })
}

pub(super) fn select(insn: &mut Insn<'_>) -> Option<Handler> {
    integers(insn)
        .or_else(|| floats(insn))
        .or_else(|| shifts(insn))
        .or_else(|| immediates(insn))
        .or_else(|| float_immediates(insn))
        .or_else(|| others(insn))
}
