//! CPU models: what CPUID says, and which features exist. A masked feature is absent in every respect.

/// A processor model.
#[derive(Clone, Debug)]
pub struct Model {
    signature: u32,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            signature: 0x0006_06F2,
        }
    }
}

impl Model {
    /// CPUID leaf 1 EAX: family, model, stepping; also EDX after reset.
    pub fn signature(&self) -> u32 {
        self.signature
    }

    /// Whether 1 GiB pages exist.
    pub fn huge_pages(&self) -> bool {
        true
    }
}
