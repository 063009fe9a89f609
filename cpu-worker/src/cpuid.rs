//! CPU models: what CPUID says, and which features exist. A masked feature is absent in every respect.

use crate::state::{CpuState, Cr4};

/// Rate of the time-stamp counter in Hz: one count a nanosecond, so that it is VM time itself.
const TSC_HZ: u64 = 1_000_000_000;
/// Rate of the core crystal clock in Hz, which is also that of the local APIC timer (SDM vol. 3, 11.5.4).
const CRYSTAL_HZ: u32 = 1_000_000_000;

macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $reg:ident, $bit:literal;)*) => {
        /// A feature that software can ask for, named as on the command line.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names are those of CPUID")]
        pub enum Feature { $($variant,)* }

        const FEATURES: &[(Feature, &str, Reg, u32)] = &[$((Feature::$variant, $name, Reg::$reg, $bit),)*];
    };
}

/// The CPUID register that shows a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reg {
    /// Leaf 1, EDX.
    D1,
    /// Leaf 1, ECX.
    C1,
    /// Leaf 7, EBX.
    B7,
    /// Leaf 7, ECX.
    C7,
    /// Leaf 7, EDX.
    D7,
    /// Leaf 8000_0001h, EDX.
    DX,
    /// Leaf 8000_0001h, ECX.
    CX,
    /// Leaf 8000_0007h, EDX.
    D87,
}

features! {
    Fpu = "fpu", D1, 0;
    De = "de", D1, 2;
    Pse = "pse", D1, 3;
    Tsc = "tsc", D1, 4;
    Msr = "msr", D1, 5;
    Pae = "pae", D1, 6;
    Mce = "mce", D1, 7;
    Cx8 = "cx8", D1, 8;
    Apic = "apic", D1, 9;
    Sep = "sep", D1, 11;
    Mtrr = "mtrr", D1, 12;
    Pge = "pge", D1, 13;
    Mca = "mca", D1, 14;
    Cmov = "cmov", D1, 15;
    Pat = "pat", D1, 16;
    Pse36 = "pse36", D1, 17;
    Clflush = "clflush", D1, 19;
    Mmx = "mmx", D1, 23;
    Fxsr = "fxsr", D1, 24;
    Sse = "sse", D1, 25;
    Sse2 = "sse2", D1, 26;
    Sse3 = "sse3", C1, 0;
    Pclmulqdq = "pclmulqdq", C1, 1;
    Ssse3 = "ssse3", C1, 9;
    Cx16 = "cx16", C1, 13;
    Sse41 = "sse4.1", C1, 19;
    Sse42 = "sse4.2", C1, 20;
    X2apic = "x2apic", C1, 21;
    Movbe = "movbe", C1, 22;
    Popcnt = "popcnt", C1, 23;
    TscDeadline = "tsc-deadline", C1, 24;
    Aes = "aes", C1, 25;
    Xsave = "xsave", C1, 26;
    Rdrand = "rdrand", C1, 30;
    Hypervisor = "hypervisor", C1, 31;
    Fsgsbase = "fsgsbase", B7, 0;
    TscAdjust = "tsc-adjust", B7, 1;
    Smep = "smep", B7, 7;
    Erms = "erms", B7, 9;
    Rdseed = "rdseed", B7, 18;
    Smap = "smap", B7, 20;
    Umip = "umip", C7, 2;
    ArchCapabilities = "arch-capabilities", D7, 29;
    Syscall = "syscall", DX, 11;
    Nx = "nx", DX, 20;
    Pdpe1gb = "pdpe1gb", DX, 26;
    Rdtscp = "rdtscp", DX, 27;
    Lm = "lm", DX, 29;
    LahfLm = "lahf-lm", CX, 0;
    InvariantTsc = "invtsc", D87, 8;
}

/// Why a `--cpu` argument was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No such model.
    #[error("Unknown CPU model {0:?}; there are max, qemu64, pentium3 and 486")]
    Unknown(String),
    /// No such feature.
    #[error("Unknown CPU feature {0:?}; it must be a name of CPUID with + or - before it")]
    Feature(String),
}

/// A processor model.
#[derive(Clone, Debug)]
pub struct Model {
    signature: u32,
    vendor: &'static [u8; 12],
    brand: &'static str,
    features: u64,
    max_leaf: u32,
}

fn bit(f: Feature) -> u64 {
    1 << f as u8
}

fn all(list: &[Feature]) -> u64 {
    list.iter().map(|f| bit(*f)).sum()
}

impl Default for Model {
    /// `max`.
    fn default() -> Self {
        Self {
            signature: 0x0006_06F2,
            vendor: b"GenuineIntel",
            brand: "Quintet virtual CPU (max)",
            features: FEATURES.iter().map(|(f, ..)| bit(*f)).sum::<u64>() & host_features(),
            max_leaf: 0x16,
        }
    }
}

/// Features that are executed on the host's own units, where the host lacks them, are not there for a guest.
fn host_features() -> u64 {
    #[allow(unused_mut, reason = "depends on the host's architecture")]
    let mut missing = 0;
    #[cfg(target_arch = "x86_64")]
    {
        let host = [
            (Feature::Sse3, is_x86_feature_detected!("sse3")),
            (Feature::Ssse3, is_x86_feature_detected!("ssse3")),
            (Feature::Sse41, is_x86_feature_detected!("sse4.1")),
            (Feature::Sse42, is_x86_feature_detected!("sse4.2")),
            (Feature::Aes, is_x86_feature_detected!("aes")),
            (Feature::Pclmulqdq, is_x86_feature_detected!("pclmulqdq")),
        ];
        for (f, there) in host {
            if !there {
                missing |= bit(f);
            }
        }
    }
    !missing
}

impl Model {
    /// A model by its name on the command line, `NAME[,±feature…]`.
    ///
    /// # Errors
    /// [`ModelError`] names what is unknown.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        use Feature::*;
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let max = Self::default();
        let old = [
            Fpu, De, Pse, Tsc, Msr, Pae, Mce, Cx8, Apic, Sep, Mtrr, Pge, Mca, Cmov, Pat, Pse36, Mmx, Fxsr,
            Sse,
        ];
        let mut model = match name {
            "max" | "" => max,
            "qemu64" => {
                let more = [
                    Sse2, Clflush, Sse3, Cx16, X2apic, Hypervisor, Syscall, Nx, Lm, LahfLm,
                ];
                Self {
                    features: (all(&old) | all(&more)) & max.features,
                    brand: "Quintet virtual CPU (qemu64)",
                    max_leaf: 0xD,
                    ..max
                }
            }
            "pentium3" => Self {
                signature: 0x673,
                features: all(&old),
                brand: "",
                max_leaf: 2,
                ..max
            },
            "486" => Self {
                signature: 0x480,
                features: all(&[Fpu]),
                brand: "",
                max_leaf: 1,
                ..max
            },
            other => return Err(ModelError::Unknown(other.to_owned())),
        };
        for part in parts {
            let (on, feature) = match part.split_at_checked(1) {
                Some(("+", f)) => (true, f),
                Some(("-", f)) => (false, f),
                _ => return Err(ModelError::Feature(part.to_owned())),
            };
            let Some((f, ..)) = FEATURES.iter().find(|(_, n, ..)| *n == feature) else {
                return Err(ModelError::Feature(feature.to_owned()));
            };
            if on {
                model.features |= bit(*f) & host_features();
            } else {
                model.features &= !bit(*f);
            }
        }
        Ok(model)
    }

    /// Whether the model has a feature.
    #[inline]
    pub fn has(&self, feature: Feature) -> bool {
        self.features & bit(feature) != 0
    }

    /// CPUID leaf 1 EAX: family, model, stepping; also EDX after reset.
    pub fn signature(&self) -> u32 {
        self.signature
    }

    /// CPUID leaf 1, EAX and EDX, as firmware tables repeat them.
    pub fn identification(&self) -> (u32, u32) {
        (self.signature, self.register(Reg::D1))
    }

    /// Whether 1 GiB pages exist.
    pub fn huge_pages(&self) -> bool {
        self.has(Feature::Pdpe1gb)
    }

    /// Rate of the time-stamp counter in Hz.
    pub fn tsc_hz(&self) -> u64 {
        TSC_HZ
    }

    /// IA32_ARCH_CAPABILITIES, when the model has it: none of the leaks that page-table isolation and its
    /// relatives guard against exists here, because nothing is executed speculatively.
    pub fn arch_capabilities(&self) -> Option<u64> {
        // RDCL_NO, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_NO, TAA_NO, SBDR/FBSDP/PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO,
        // ITS_NO.
        const NONE_OF_IT: u64 =
            1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 7 << 13 | 1 << 20 | 1 << 24 | 3 << 26 | 1 << 62;
        self.has(Feature::ArchCapabilities).then_some(NONE_OF_IT)
    }

    /// The bits of CR4 that exist.
    pub fn cr4_mask(&self) -> Cr4 {
        let mut mask = Cr4::empty();
        let mut add = |f: Feature, bits: Cr4| {
            if self.has(f) {
                mask |= bits;
            }
        };
        add(Feature::Tsc, Cr4::TSD);
        add(Feature::De, Cr4::DE);
        add(Feature::Pse, Cr4::PSE);
        add(Feature::Pae, Cr4::PAE);
        add(Feature::Mce, Cr4::MCE);
        add(Feature::Pge, Cr4::PGE);
        add(Feature::Msr, Cr4::PCE);
        add(Feature::Fxsr, Cr4::OSFXSR);
        add(Feature::Sse, Cr4::OSXMMEXCPT);
        add(Feature::Umip, Cr4::UMIP);
        add(Feature::Fsgsbase, Cr4::FSGSBASE);
        add(Feature::Xsave, Cr4::OSXSAVE);
        add(Feature::Smep, Cr4::SMEP);
        add(Feature::Smap, Cr4::SMAP);
        mask
    }

    fn register(&self, reg: Reg) -> u32 {
        FEATURES
            .iter()
            .filter(|(f, _, r, _)| *r == reg && self.has(*f))
            .map(|(_, _, _, n)| 1u32 << n)
            .sum()
    }

    /// CPUID: EAX, EBX, ECX, EDX of a leaf (SDM vol. 2, CPUID).
    pub fn leaf(&self, leaf: u32, sub: u32, state: &CpuState) -> [u32; 4] {
        let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| self.vendor[n * 4 + i]));
        let extended = if self.has(Feature::Lm) {
            0x8000_0008
        } else if self.brand.is_empty() {
            0
        } else {
            0x8000_0004
        };
        // Beyond the last leaf, the last basic leaf is shown.
        let leaf = match leaf {
            0..=0x3FFF_FFFF if leaf > self.max_leaf => self.max_leaf,
            0x4000_0000..=0x7FFF_FFFF => self.max_leaf,
            0x8000_0000.. if leaf > extended => self.max_leaf,
            _ => leaf,
        };
        match leaf {
            0 => [self.max_leaf, word(0), word(2), word(1)],
            1 => {
                let osxsave = u32::from(state.cr4.contains(Cr4::OSXSAVE)) << 27;
                // CLFLUSH lines of 8 quadwords, one logical processor, APIC ID 0.
                [
                    self.signature,
                    0x0001_0800,
                    self.register(Reg::C1) | osxsave,
                    self.register(Reg::D1),
                ]
            }
            // One descriptor: what there is to know is in leaf 4.
            2 => [0x0000_0001, 0, 0, 0x002C_307D],
            4 => cache(sub),
            5 => [0; 4],
            7 if sub == 0 => [
                0,
                self.register(Reg::B7),
                self.register(Reg::C7),
                self.register(Reg::D7),
            ],
            0xB => match sub {
                0 => [0, 1, 0x100, 0],
                1 => [0, 1, 0x201, 0],
                _ => [0, 0, sub & 0xFF, 0],
            },
            0xD if self.has(Feature::Xsave) => match sub {
                0 => [3, 0x240, 0x240, 0],
                1 => [1, 0x240, 0, 0],
                _ => [0; 4],
            },
            0x15 => [1, (TSC_HZ / u64::from(CRYSTAL_HZ)) as u32, CRYSTAL_HZ, 0],
            0x16 => [(TSC_HZ / 1_000_000) as u32, (TSC_HZ / 1_000_000) as u32, 100, 0],
            0x8000_0000 => [extended, 0, 0, 0],
            0x8000_0001 => [0, 0, self.register(Reg::CX), self.register(Reg::DX)],
            0x8000_0002..=0x8000_0004 => {
                let mut text = [0; 48];
                text[..self.brand.len()].copy_from_slice(self.brand.as_bytes());
                let at = (leaf - 0x8000_0002) as usize * 16;
                core::array::from_fn(|n| u32::from_le_bytes(core::array::from_fn(|i| text[at + n * 4 + i])))
            }
            0x8000_0006 => [0, 0, 0x0200_8040, 0],
            0x8000_0007 => [0, 0, 0, self.register(Reg::D87)],
            0x8000_0008 => [crate::mmu::MAXPHYADDR | 48 << 8, 0, 0, 0],
            _ => [0; 4],
        }
    }
}

/// Deterministic cache parameters: 32 KiB data and code, 512 KiB second level, lines of 64 bytes.
fn cache(sub: u32) -> [u32; 4] {
    let entry = |kind: u32, level: u32, ways: u32, sets: u32| {
        [kind | level << 5 | 1 << 8, 63 | (ways - 1) << 22, sets - 1, 0]
    };
    match sub {
        0 => entry(1, 1, 8, 64),
        1 => entry(2, 1, 8, 64),
        2 => entry(3, 2, 8, 1024),
        _ => [0; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_added_and_removed_by_name() {
        let m = Model::parse("pentium3,+sse2,-sep").expect("a model");
        assert!(m.has(Feature::Sse2) && m.has(Feature::Sse));
        assert!(!m.has(Feature::Sep) && !m.has(Feature::Lm));
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert_eq!(
            Model::parse("pentium9").unwrap_err(),
            ModelError::Unknown("pentium9".into())
        );
        assert_eq!(
            Model::parse("max,+warp").unwrap_err(),
            ModelError::Feature("warp".into())
        );
        assert_eq!(
            Model::parse("max,sse").unwrap_err(),
            ModelError::Feature("sse".into())
        );
    }

    #[test]
    fn a_masked_feature_shows_in_no_leaf() {
        let state = CpuState::reset(0);
        let m = Model::parse("max,-sse4.2").expect("a model");
        assert_eq!(m.leaf(1, 0, &state)[2] >> 20 & 1, 0);
        assert_eq!(
            Model::default().leaf(0, 0, &state)[1],
            u32::from_le_bytes(*b"Genu")
        );
    }
}
