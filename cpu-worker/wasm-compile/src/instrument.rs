//! Changes a module so that nothing it does to its memory goes unseen or takes too long.
//!
//! * `memory.grow m` becomes `memory.grow m; i32.const m; call grown`: the hook gets the result and hands it on, so
//!   it counts successes only, and also a growth by nothing, which no interface of wasmtime shows (S2.20).
//! * `memory.fill` and `memory.copy` look at their length first: of a long one a function does all but the last chunk in
//!   chunks (see `bulk`), because one large operation cannot be interrupted. Those whose length is a short constant stay.
//!   `memory.init` needs none: a data segment is not longer than a module may be.
//!
//! The hook is the last import, so that functions of the module move up by one; the others are added at the end and
//! move nothing. A module that does none of this is not touched.

use quintet_protocol::wasm::MEMORIES;
use quintet_wasm::engine::{GROWN, RESERVED};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, EntityType, Function, FunctionSection, ImportSection, Instruction, Module,
    SectionId, TypeSection, ValType,
};

use crate::validate::{Facts, pair};
use crate::{Refused, bulk};

/// Parameters and locals that a function may have (`MAX_WASM_FUNCTION_LOCALS` of wasmparser).
const MOST_LOCALS: u32 = 50_000;
/// Operands of a bulk operation.
const OPERANDS: u32 = 3;

/// The changed module; `None` when it may stay as it is. Bulk operations move `chunk` bytes at a time, 1 at least.
///
/// # Errors
/// [`Refused::Instrument`], a fault of this module's: what comes here is valid.
pub fn instrument(module: &[u8], facts: &Facts, chunk: u32) -> Result<Option<Vec<u8>>, Refused> {
    if !facts.grows && facts.fills.is_empty() && facts.copies.is_empty() {
        return Ok(None);
    }
    let mut rewriter = Rewriter {
        facts,
        chunk: chunk.clamp(1, i32::MAX as u32) as i32,
        hooked: !facts.grows,
        bodies: 0,
    };
    let mut out = Module::new();
    rewriter
        .parse_core_module(&mut out, wasmparser::Parser::new(0), module)
        .map_err(|e| Refused::Instrument(e.to_string()))?;
    Ok(Some(out.finish()))
}

/// The module's parts as they are added: types, the hook, functions at the end.
struct Rewriter<'a> {
    facts: &'a Facts,
    /// Most bytes of one instruction.
    chunk: i32,
    /// The hook has been imported, or need not be.
    hooked: bool,
    /// Function bodies so far.
    bodies: usize,
}

impl Rewriter<'_> {
    /// Type of the hook.
    fn hook_type(&self) -> u32 {
        self.facts.types
    }

    /// Type of the functions that work in chunks.
    fn bulk_type(&self) -> u32 {
        self.facts.types + u32::from(self.facts.grows)
    }

    fn hook(&self) -> u32 {
        self.facts.imported
    }

    fn first_added(&self) -> u32 {
        self.facts.imported + u32::from(self.facts.grows) + self.facts.params.len() as u32
    }

    fn fill(&self, memory: u32) -> u32 {
        self.first_added() + self.facts.fills.place(memory)
    }

    fn copy(&self, dst: u32, src: u32) -> u32 {
        self.first_added() + self.facts.fills.len() + self.facts.copies.place(pair(dst, src))
    }

    /// Functions that work in chunks.
    fn bulk(&self) -> u32 {
        self.facts.fills.len() + self.facts.copies.len()
    }

    /// A function with its locals, and the number of the first of three more for the operands of a bulk operation: none
    /// where nothing needs them, or where there are as many as there may be.
    fn locals(&mut self, body: &wasmparser::FunctionBody<'_>) -> Result<(Function, Option<u32>), Error> {
        let mut number = self.facts.params[self.bodies];
        let mut locals = Vec::new();
        for several in body.get_locals_reader()? {
            let (n, ty) = several?;
            number += n;
            locals.push((n, self.val_type(ty)?));
        }
        let operands = (self.bulk() != 0 && number + OPERANDS <= MOST_LOCALS).then_some(number);
        locals.extend(operands.map(|_| (OPERANDS, ValType::I32)));
        Ok((Function::new(locals), operands))
    }

    /// A bulk operation whose operands are on the stack. `all_but_last` is the number of the function for it.
    fn bulk_operation(
        &self,
        function: &mut Function,
        operands: Option<u32>,
        all_but_last: u32,
        instruction: &Instruction<'_>,
    ) {
        let Some(dst) = operands else {
            function.instruction(&Instruction::Call(all_but_last));
            function.instruction(instruction);
            return;
        };
        let (src, len) = (dst + 1, dst + 2);
        for part in [
            &Instruction::LocalSet(len),
            &Instruction::LocalSet(src),
            &Instruction::LocalSet(dst),
            &Instruction::LocalGet(len),
            &Instruction::I32Const(self.chunk),
            &Instruction::I32GtU,
            &Instruction::If(BlockType::Empty),
            &Instruction::LocalGet(dst),
            &Instruction::LocalGet(src),
            &Instruction::LocalGet(len),
            &Instruction::Call(all_but_last),
            // Where to is as before.
            &Instruction::LocalSet(len),
            &Instruction::Drop,
            &Instruction::Drop,
            &Instruction::End,
            &Instruction::LocalGet(dst),
            &Instruction::LocalGet(src),
            &Instruction::LocalGet(len),
            instruction,
        ] {
            function.instruction(part);
        }
    }

    fn import_hook(&mut self, imports: &mut ImportSection) {
        if !self.hooked {
            self.hooked = true;
            imports.import(RESERVED, GROWN, EntityType::Function(self.hook_type()));
        }
    }
}

type Outcome = Result<(), Error>;

impl Reencode for Rewriter<'_> {
    type Error = core::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error> {
        let moved = self.facts.grows && function >= self.facts.imported;
        Ok(function + u32::from(moved))
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Outcome {
        utils::parse_type_section(self, types, section)?;
        if self.facts.grows {
            types.ty().function([ValType::I32; 2], [ValType::I32]);
        }
        if self.bulk() != 0 {
            types.ty().function([ValType::I32; 3], [ValType::I32; 3]);
        }
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Outcome {
        utils::parse_import_section(self, imports, section)?;
        self.import_hook(imports);
        Ok(())
    }

    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Outcome {
        // Without imports of its own the module gets an import section behind its types.
        if after == Some(SectionId::Type) && before != Some(SectionId::Import) && !self.hooked {
            let mut imports = ImportSection::new();
            self.import_hook(&mut imports);
            module.section(&imports);
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Outcome {
        utils::parse_function_section(self, functions, section)?;
        for _ in 0..self.bulk() {
            functions.function(self.bulk_type());
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Outcome {
        utils::parse_code_section(self, code, section)?;
        for memory in self.facts.fills.iter() {
            code.function(&bulk::fill(memory, self.chunk));
        }
        for both in self.facts.copies.iter() {
            let memories = MEMORIES as u32;
            code.function(&bulk::copy(both / memories, both % memories, self.chunk));
        }
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: wasmparser::FunctionBody<'_>) -> Outcome {
        let (mut function, operands) = self.locals(&body)?;
        self.bodies += 1;
        let mut reader = body.get_operators_reader()?;
        // A length that is written down and short needs no function, and compilers open-code it.
        let mut short = false;
        while !reader.eof() {
            let operator = reader.read()?;
            let follows_short = short;
            short = matches!(operator, wasmparser::Operator::I32Const { value }
                if value.cast_unsigned() <= self.chunk.cast_unsigned());
            match operator {
                wasmparser::Operator::MemoryGrow { mem } => {
                    function.instruction(&Instruction::MemoryGrow(mem));
                    function.instruction(&Instruction::I32Const(mem as i32));
                    function.instruction(&Instruction::Call(self.hook()));
                }
                wasmparser::Operator::MemoryFill { mem } if !follows_short => {
                    let fill = Instruction::MemoryFill(mem);
                    self.bulk_operation(&mut function, operands, self.fill(mem), &fill);
                }
                wasmparser::Operator::MemoryCopy { dst_mem, src_mem } if !follows_short => {
                    let copy = Instruction::MemoryCopy { src_mem, dst_mem };
                    self.bulk_operation(&mut function, operands, self.copy(dst_mem, src_mem), &copy);
                }
                other => {
                    function.instruction(&self.instruction(other)?);
                }
            }
        }
        code.function(&function);
        Ok(())
    }
}
