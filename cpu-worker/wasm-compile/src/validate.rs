//! Everything that is known of a module before it is changed: that it is one, is valid, and keeps to the limits.

use quintet_protocol::payload::hex;
use quintet_protocol::wasm::{CompileLimits, MEMORIES};
use quintet_wasm::engine::RESERVED;
use wasmparser::{CompositeInnerType, Encoding, Operator, Parser, Payload, TypeRef, Validator, WasmFeatures};

use crate::Refused;

/// Length of a module's header.
const HEADER: usize = 8;

/// What the instrumentation needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Types.
    pub types: u32,
    /// Imported functions.
    pub imported: u32,
    /// Parameters of each function of its own.
    pub params: Vec<u32>,
    /// Whether there is an import section.
    pub imports: bool,
    /// Whether it grows its memory.
    pub grows: bool,
    /// The memories that it fills.
    pub fills: Set,
    /// The memories that it copies into from each: [`pair`].
    pub copies: Set,
}

/// Small numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u16);

const _: () = assert!(MEMORIES * MEMORIES <= u16::BITS as usize);

impl Set {
    fn insert(&mut self, n: u32) {
        self.0 |= 1 << n;
    }

    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many smaller numbers there are: the place of `n` among them.
    pub fn place(self, n: u32) -> u32 {
        (self.0 & ((1 << n) - 1)).count_ones()
    }

    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..u16::BITS).filter(move |n| self.0 >> n & 1 != 0)
    }
}

/// A copy's memories as one number.
pub fn pair(dst: u32, src: u32) -> u32 {
    dst * MEMORIES as u32 + src
}

/// What modules may use. Threads, 64-bit memories, exceptions, garbage collection with the references to
/// host values, which need it, and the nondeterministic vector instructions are not among it.
pub fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::FLOATS
}

/// What the parser says of a reference to a host's value: it needs what collects garbage.
const EXTERNREF: &str = "gc types are disallowed";

/// Judges a module.
///
/// # Errors
/// [`Refused`], the first thing that is wrong.
pub fn validate(module: &[u8], limits: &CompileLimits) -> Result<Facts, Refused> {
    let len = module.len() as u64;
    if len > limits.module {
        return Err(Refused::TooLarge {
            len,
            most: limits.module,
        });
    }
    header(module)?;
    let facts = survey(module, limits)?;
    match Validator::new_with_features(features()).validate_all(module) {
        Err(e) if e.message().contains(EXTERNREF) => Err(Refused::ExternRef),
        Err(e) => Err(e.into()),
        Ok(_) => Ok(facts),
    }
}

fn header(module: &[u8]) -> Result<(), Refused> {
    if !module.is_empty() && module.iter().all(|&b| b == 0) {
        return Err(Refused::Zeros);
    }
    if module.starts_with(&[0x1F, 0x8B]) {
        return Err(Refused::Gzip);
    }
    let text = module.trim_ascii_start();
    if text.starts_with(b"(") || text.starts_with(b";;") {
        return Err(Refused::Text);
    }
    let Some(head) = module.first_chunk::<HEADER>() else {
        return Err(Refused::TooShort(module.len()));
    };
    if head[..4] != *b"\0asm" {
        return Err(Refused::Magic(hex(&module[..module.len().min(16)])));
    }
    // A component has a layer number in the upper half.
    match (
        u16::from_le_bytes([head[4], head[5]]),
        u16::from_le_bytes([head[6], head[7]]),
    ) {
        (1, 0) => Ok(()),
        (_, 1) => Err(Refused::Component),
        (version, layer) => Err(Refused::Version(u32::from(version) | u32::from(layer) << 16)),
    }
}

/// Walks the sections without validating them: what is refused by name, and what the instrumentation needs.
fn survey(module: &[u8], limits: &CompileLimits) -> Result<Facts, Refused> {
    let mut facts = Facts::default();
    // Parameters of each type; of what is no function, none.
    let mut types = Vec::new();
    let mut memories = 0;
    let mut memory = |ty: wasmparser::MemoryType| {
        memories += 1;
        match ty {
            ty if ty.memory64 => Err(Refused::Memory64),
            ty if ty.shared => Err(Refused::SharedMemory),
            _ if memories > MEMORIES => Err(Refused::Memories(MEMORIES)),
            _ => Ok(()),
        }
    };
    let mut bodies = 0;
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::Version { encoding, .. } if encoding != Encoding::Module => {
                return Err(Refused::Component);
            }
            Payload::TypeSection(section) => {
                for group in section {
                    types.extend(group?.types().map(|ty| match &ty.composite_type.inner {
                        CompositeInnerType::Func(ty) => ty.params().len() as u32,
                        _ => 0,
                    }));
                }
                facts.types = types.len() as u32;
            }
            Payload::ImportSection(imports) => {
                facts.imports = true;
                for import in imports.into_imports() {
                    let import = import?;
                    if import.module == RESERVED {
                        return Err(Refused::Reserved(RESERVED));
                    }
                    match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => facts.imported += 1,
                        TypeRef::Memory(ty) => memory(ty)?,
                        _ => {}
                    }
                }
            }
            Payload::MemorySection(section) => {
                for ty in section {
                    memory(ty?)?;
                }
            }
            Payload::FunctionSection(functions) => {
                for ty in functions {
                    // A type that is not there is the validator's business.
                    facts.params.push(types.get(ty? as usize).copied().unwrap_or(0));
                }
            }
            Payload::CodeSectionEntry(body) => {
                let len = body.range().len() as u64;
                if len > u64::from(limits.function) {
                    return Err(Refused::FunctionTooLarge {
                        index: facts.imported + bodies,
                        len,
                        most: limits.function,
                    });
                }
                bodies += 1;
                for operator in body.get_operators_reader()? {
                    match operator? {
                        Operator::MemoryGrow { .. } => facts.grows = true,
                        // A memory that is not there is the validator's business.
                        Operator::MemoryFill { mem } if (mem as usize) < MEMORIES => {
                            facts.fills.insert(mem);
                        }
                        Operator::MemoryCopy { dst_mem, src_mem }
                            if (dst_mem.max(src_mem) as usize) < MEMORIES =>
                        {
                            facts.copies.insert(pair(dst_mem, src_mem));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(facts)
}
