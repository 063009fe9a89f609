//! What the host can execute.

/// The instruction-set extensions that kernels of this module need, SSE2 aside, which every 64-bit x86 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// SSE3.
    pub sse3: bool,
    /// Supplemental SSE3.
    pub ssse3: bool,
    /// SSE4.1.
    pub sse41: bool,
    /// SSE4.2, CRC32 included.
    pub sse42: bool,
    /// AES-NI.
    pub aes: bool,
    /// PCLMULQDQ.
    pub pclmulqdq: bool,
}

impl Extensions {
    /// What this host has. A guest CPU may offer a part of it, never more.
    pub fn host() -> Self {
        Self {
            sse3: is_x86_feature_detected!("sse3"),
            ssse3: is_x86_feature_detected!("ssse3"),
            sse41: is_x86_feature_detected!("sse4.1"),
            sse42: is_x86_feature_detected!("sse4.2"),
            aes: is_x86_feature_detected!("aes"),
            pclmulqdq: is_x86_feature_detected!("pclmulqdq"),
        }
    }
}
