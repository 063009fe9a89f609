//! Which instructions a processor model has: what CPUID does not show raises #UD.
//!
//! Asked once for each decoded instruction, so that no family has to think of it.

use iced_x86::CpuidFeature;

use crate::cpuid::Feature;
use crate::exec::Insn;

/// Whether the model has every feature that the instruction needs. Features without a bit of their own in our
/// CPUID, the 386 and 486 instructions among them, are always there; those of extensions that exist in no
/// model are their families' business.
pub(super) fn offered(insn: &Insn<'_>) -> bool {
    insn.i.cpuid_features().iter().all(|needed| {
        let feature = match needed {
            CpuidFeature::AES => Feature::Aes,
            CpuidFeature::CLFSH => Feature::Clflush,
            CpuidFeature::CMOV => Feature::Cmov,
            CpuidFeature::CMPXCHG16B => Feature::Cx16,
            CpuidFeature::CX8 => Feature::Cx8,
            CpuidFeature::FXSR => Feature::Fxsr,
            CpuidFeature::MMX => Feature::Mmx,
            CpuidFeature::MOVBE => Feature::Movbe,
            CpuidFeature::PCLMULQDQ => Feature::Pclmulqdq,
            CpuidFeature::POPCNT => Feature::Popcnt,
            CpuidFeature::SSE => Feature::Sse,
            CpuidFeature::SSE2 => Feature::Sse2,
            CpuidFeature::SSE3 => Feature::Sse3,
            CpuidFeature::SSSE3 => Feature::Ssse3,
            CpuidFeature::SSE4_1 => Feature::Sse41,
            CpuidFeature::SSE4_2 => Feature::Sse42,
            CpuidFeature::X64 => Feature::Lm,
            CpuidFeature::XSAVE | CpuidFeature::XSAVEOPT => Feature::Xsave,
            _ => return true,
        };
        insn.model.has(feature)
    })
}
