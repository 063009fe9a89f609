//! The same module twice: instrumented and compiled here with its memory in guest RAM, and by plain wasmtime.

use std::sync::{Arc, Mutex};

use quintet_protocol::ram::WASM_PAGE;
use wasmtime::{Config, Engine, Extern, Instance, Linker, Module, Ref, ResourceLimiter, Store, Trap, Val};

use super::PAGES;
use super::modules::Random;

/// Most functions that are called.
const CALLS: usize = 12;
/// Most elements of a table.
const TABLE_ELEMENTS: usize = 1 << 20;

/// What a module has called, with which arguments.
pub type Log = Arc<Mutex<Vec<String>>>;

/// Everything that can be seen of a module's life, one line for each thing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub lines: Vec<String>,
    /// All of its memories, one after another, at the end.
    pub memory: Vec<u8>,
}

/// As much memory as a machine has, for all memories of a module together.
#[derive(Debug)]
pub struct Memory {
    most: usize,
    used: usize,
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used - current + desired;
        // wasmtime asks before it looks at the memory's own maximum, and what fails there takes nothing.
        let fits = used <= self.most && maximum.is_none_or(|most| desired <= most);
        if fits {
            self.used = used;
        }
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

/// Plain wasmtime: nothing of ours but what a module may use.
pub fn engine() -> Engine {
    let mut config = Config::new();
    config.wasm_multi_memory(true).wasm_memory64(false);
    config.wasm_relaxed_simd(false);
    Engine::new(&config).expect("engine")
}

fn store(engine: &Engine, ram: u64) -> Store<Memory> {
    let memory = Memory {
        most: ram as usize,
        used: 0,
    };
    let mut store = Store::new(engine, memory);
    store.limiter(|memory| memory);
    store
}

/// What a machine with so much RAM reports of a module: what `main` returned, or the trap's name.
pub fn report(engine: &Engine, module: &[u8], ram: u64) -> Result<i64, String> {
    let module = Module::new(engine, module).expect("a valid module");
    let mut store = store(engine, ram);
    let instance = Linker::new(engine)
        .instantiate(&mut store, &module)
        .map_err(|e| cause(&e))?;
    let main = instance
        .get_typed_func::<(), i32>(&mut store, "main")
        .expect("exported");
    main.call(&mut store, ()).map(i64::from).map_err(|e| cause(&e))
}

/// A module's life in plain wasmtime.
pub fn run(engine: &Engine, module: &[u8], seed: u64) -> Seen {
    let module = Module::new(engine, module).expect("a valid module");
    let mut store = store(engine, PAGES * WASM_PAGE);
    let log = Log::default();
    let mut linker = Linker::new(engine);
    imports(&mut linker, &log);
    live(&mut store, &linker, &module, &log, seed, |_| None)
}

/// The imports that `modules::IMPORTS` describes.
pub fn imports<T: 'static>(linker: &mut Linker<T>, log: &Log) {
    let note = |log: &Log| {
        let log = Arc::clone(log);
        move |text: String| {
            let mut log = log.lock().expect("log");
            log.push(text);
            log.len() as i32
        }
    };
    let (a, b, c, d) = (note(log), note(log), note(log), note(log));
    linker
        .func_wrap("test", "a", move || {
            a("a".into());
        })
        .expect("free");
    linker
        .func_wrap("test", "b", move |x: i32| b(format!("b {x}")))
        .expect("free");
    linker
        .func_wrap("test", "c", move |x: i64, y: f64| {
            let n = c(format!("c {x} {:x}", y.to_bits()));
            (n as f32 / 4.0, n)
        })
        .expect("free");
    linker
        .func_wrap("test", "d", move |x: i32, y: i32, z: i32| {
            i64::from(d(format!("d {x} {y} {z}")))
        })
        .expect("free");
}

/// Instantiates, calls what is exported, and looks at what is left. `after` says more after each step.
pub fn live<T: 'static>(
    store: &mut Store<T>,
    linker: &Linker<T>,
    module: &Module,
    log: &Log,
    seed: u64,
    mut after: impl FnMut(Option<u64>) -> Option<String>,
) -> Seen {
    let mut seen = Seen::default();
    let instance = match linker.instantiate(&mut *store, module) {
        Ok(instance) => instance,
        Err(e) => {
            seen.lines.push(format!("instantiate: {}", cause(&e)));
            return seen;
        }
    };
    let names: Vec<String> = module.exports().map(|e| e.name().to_owned()).collect();
    let mut random = Random(seed ^ 0xA5A5);
    let mut calls = 0;
    for name in &names {
        let Some(function) = instance.get_func(&mut *store, name) else {
            continue;
        };
        calls += 1;
        if calls > CALLS {
            break;
        }
        let ty = function.ty(&*store);
        let arguments: Vec<Val> = ty.params().map(|t| value(&t, &mut random)).collect();
        let mut results: Vec<Val> = ty.results().map(|_| Val::I32(0)).collect();
        let outcome = match function.call(&mut *store, &arguments, &mut results) {
            Ok(()) => results.iter().map(text).collect::<Vec<_>>().join(" "),
            Err(e) => cause(&e),
        };
        seen.lines.push(format!("{name}: {outcome}"));
        seen.lines.append(&mut log.lock().expect("log"));
        seen.lines.extend(after(size(store, &instance, &names)));
    }
    for name in &names {
        match instance.get_export(&mut *store, name) {
            Some(Extern::Global(global)) => {
                let value = text(&global.get(&mut *store));
                seen.lines.push(format!("{name} = {value}"));
            }
            Some(Extern::Table(table)) => {
                let n = table.size(&*store);
                let there = (0..n).filter(|i| table.get(&mut *store, *i).is_some_and(|r| !null(&r)));
                seen.lines
                    .push(format!("{name} = {n} {:?}", there.collect::<Vec<_>>()));
            }
            Some(Extern::Memory(memory)) => {
                seen.lines
                    .push(format!("{name} = {} pages", memory.size(&*store)));
                seen.memory.extend_from_slice(memory.data(&*store));
            }
            _ => {}
        }
    }
    seen
}

/// Pages of all memories together, of which each is exported; `None` without one.
fn size<T: 'static>(store: &mut Store<T>, instance: &Instance, names: &[String]) -> Option<u64> {
    let memories = names
        .iter()
        .filter_map(|name| instance.get_memory(&mut *store, name));
    let memories: Vec<_> = memories.collect();
    (!memories.is_empty()).then(|| memories.iter().map(|memory| memory.size(&*store)).sum())
}

fn null(reference: &Ref) -> bool {
    matches!(
        reference,
        Ref::Func(None) | Ref::Extern(None) | Ref::Any(None) | Ref::Exn(None)
    )
}

/// A trap by its name. What is no trap is a refusal, in words that may differ.
fn cause(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => "refused".to_owned(),
    }
}

fn value(ty: &wasmtime::ValType, random: &mut Random) -> Val {
    let n = random.next();
    // Small numbers are addresses and lengths.
    let n = if n >> 62 == 0 { n } else { n & 0x1F_FFFF };
    match ty {
        wasmtime::ValType::I32 => Val::I32(n as i32),
        wasmtime::ValType::I64 => Val::I64(n as i64),
        wasmtime::ValType::F32 => Val::F32((n as f32).to_bits()),
        wasmtime::ValType::F64 => Val::F64((n as f64).to_bits()),
        wasmtime::ValType::V128 => Val::V128(u128::from(n).into()),
        ty @ wasmtime::ValType::Ref(_) => Val::default_for_ty(ty).unwrap_or(Val::FuncRef(None)),
    }
}

fn text(value: &Val) -> String {
    match value {
        Val::I32(n) => format!("{n}"),
        Val::I64(n) => format!("{n}"),
        Val::F32(n) => format!("f{n:x}"),
        Val::F64(n) => format!("f{n:x}"),
        Val::V128(n) => format!("v{:x}", n.as_u128()),
        Val::FuncRef(r) => format!("func {}", r.is_some()),
        Val::ExternRef(r) => format!("extern {}", r.is_some()),
        other => format!("{other:?}"),
    }
}
