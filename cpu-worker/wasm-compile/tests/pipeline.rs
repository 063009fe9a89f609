//! From module to report: entries, refusals, traps, chunks, interruption, WASI.

mod support;

use quintet_protocol::payload::{
    Outgoing, Payload, PayloadGrant, PayloadKind, ReceiveError, Stage, TransportChoice, TransportTrace,
};
use quintet_protocol::wasm::{CompileLimits, JobLimits, JobStatus, WasmConfig};
use quintet_wasm::kept::Kept;
use quintet_wasm_compile::{CHUNK, Refused, compile, compile_in_chunks, instrument, validate};
use support::Rig;

fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("assembles")
}

fn refusal(module: &[u8]) -> Refused {
    compile(module, &CompileLimits::default()).expect_err("refused")
}

#[test]
fn s1_4_entries_are_main_run_start_in_this_order() {
    let rig = Rig::new();
    let exports = |names: &[&str]| -> String {
        let all: String = names
            .iter()
            .enumerate()
            .map(|(n, name)| format!("(func (export \"{name}\") (result i32) i32.const {n})"))
            .collect();
        format!("(module {all})")
    };
    let code = |names: &[&str]| rig.wat(&exports(names)).return_code;
    assert_eq!(code(&["_start", "run", "main"]), Some(2));
    assert_eq!(code(&["_start", "run", "other"]), Some(1));
    assert_eq!(code(&["other", "_start"]), Some(1));
    let none = rig.wat(&exports(&["other"]));
    assert_eq!((none.status, none.return_code), (JobStatus::Loaded, None));
    assert_eq!(none.error, "");
}

#[test]
fn a_named_function_is_called_and_a_missing_one_is_named() {
    let rig = Rig::new();
    let module = assemble("(module (func (export \"f\") (param i32 i64) (result i64) i64.const -7))");
    let invoke = |name: &str| {
        let config = WasmConfig {
            invoke: Some(name.into()),
            ..WasmConfig::default()
        };
        rig.run(&module, &config).expect("not stopped")
    };
    assert_eq!(invoke("f").return_code, Some(-7));
    let missing = invoke("g");
    assert_eq!(missing.status, JobStatus::LoadFailed);
    assert!(missing.error.contains("\"g\""), "{}", missing.error);
}

#[test]
fn s1_6_references_to_host_values_are_refused_by_name() {
    let refused = refusal(&assemble("(module (table 1 externref))"));
    assert!(matches!(refused, Refused::ExternRef), "{refused}");
    let parameter = refusal(&assemble("(module (func (param externref)))"));
    assert!(matches!(parameter, Refused::ExternRef), "{parameter}");
}

#[test]
fn s1_6_each_trap_has_its_name() {
    let rig = Rig::new();
    for (body, name) in [
        ("unreachable", "unreachable"),
        ("i32.const 1 i32.const 0 i32.div_s drop", "integer divide by zero"),
        ("call $f", "call stack exhausted"),
        (
            "i32.const 9 call_indirect",
            "undefined element: out of bounds table access",
        ),
    ] {
        let outcome = rig.wat(&format!(
            "(module (table 1 funcref) (func $f (export \"main\") {body}))"
        ));
        assert_eq!(outcome.status, JobStatus::ExecutionFailed);
        assert!(outcome.error.contains(name), "{body}: {}", outcome.error);
    }
}

#[test]
fn s1_6_an_unknown_import_is_named() {
    let outcome = Rig::new().wat("(module (import \"env\" \"missing\" (func)))");
    assert_eq!(outcome.status, JobStatus::InstantiateFailed);
    assert!(outcome.error.contains("env::missing"), "{}", outcome.error);
}

#[test]
fn s1_33_what_is_no_module_is_named() {
    let module = assemble("(module (func (export \"main\") (result i32) i32.const 42))");
    assert!(matches!(refusal(&[0; 64]), Refused::Zeros));
    assert!(
        refusal(&[0; 64]).to_string().contains("all bytes are zero"),
        "{}",
        refusal(&[0; 64])
    );
    let mut flipped = module.clone();
    flipped[0] = 1;
    assert!(matches!(refusal(&flipped), Refused::Magic(head) if head.starts_with("01 61 73 6d")));
    let mut version = module.clone();
    version[4] = 2;
    assert!(matches!(refusal(&version), Refused::Version(2)));
    assert!(matches!(refusal(b"\0asm\x0d\0\x01\0"), Refused::Component));
    assert!(matches!(refusal(b"\x1f\x8b\x08\0\0\0\0\0"), Refused::Gzip));
    assert!(matches!(refusal(b"(module)"), Refused::Text));
    assert!(matches!(refusal(b""), Refused::TooShort(0)));
    for len in 8..module.len() {
        // A section boundary may leave a valid, shorter module; nothing may panic.
        let _ = compile(&module[..len], &CompileLimits::default());
    }
    assert!(matches!(
        refusal(&module[..module.len() - 1]),
        Refused::Invalid(_)
    ));
}

#[test]
fn hostile_modules_are_refused_by_name() {
    assert!(matches!(
        refusal(&assemble(
            "(module (import \"quintet:instrument\" \"grown\" (func (param i32 i32) (result i32))))"
        )),
        Refused::Reserved(_)
    ));
    assert!(matches!(
        refusal(&assemble("(module (memory i64 1))")),
        Refused::Memory64
    ));
    assert!(matches!(
        refusal(&assemble("(module (memory 1 1 shared))")),
        Refused::SharedMemory
    ));
    assert!(matches!(
        refusal(&assemble(
            "(module (memory 1) (memory 1) (memory 1) (memory 1) (memory 1))"
        )),
        Refused::Memories(4)
    ));
    let small = CompileLimits {
        function: 8,
        module: 1000,
        ..CompileLimits::default()
    };
    let long = assemble("(module (func) (func nop nop nop nop nop nop nop nop))");
    assert!(matches!(
        compile(&long, &small),
        Err(Refused::FunctionTooLarge { index: 1, .. })
    ));
    assert!(matches!(
        compile(&[0; 1001], &small),
        Err(Refused::TooLarge { len: 1001, .. })
    ));
}

#[test]
fn a_module_that_does_nothing_to_its_memory_is_not_touched() {
    let module = assemble("(module (memory 1) (func (export \"main\") i32.const 0 i32.const 1 i32.store))");
    let facts = validate(&module, &CompileLimits::default()).expect("valid");
    assert!(instrument(&module, &facts, CHUNK).expect("instruments").is_none());
}

#[test]
fn functions_keep_their_meaning_when_the_hook_moves_them() {
    // Imports, element segments, ref.func in globals, start, exports and names, with and without an import section.
    let body = "(memory 1)
        (func $init i32.const 7 global.set $x)
        (func $seven (result i32) global.get $x)
        (global $x (mut i32) (i32.const 0)) (global $r funcref (ref.func $seven))
        (table 2 funcref) (elem (i32.const 1) $seven)
        (start $init)
        (func (export \"main\") (result i32)
          i32.const 0 memory.grow drop
          i32.const 0 i32.const 1 i32.const 3 memory.fill
          i32.const 0 global.get $r table.set
          i32.const 0 call_indirect (result i32)
          i32.const 1 call_indirect (result i32)
          i32.add
          i32.const 0 i32.load8_u i32.add)";
    let rig = Rig::new();
    for imports in [
        "",
        "(import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))",
    ] {
        let outcome = rig.wat(&format!("(module {imports} {body})"));
        assert_eq!(outcome.return_code, Some(15), "{}", outcome.error);
    }
}

/// Bytes that are copied and filled here: more than a chunk, and not a multiple of one.
const LARGE: u32 = (33 << 20) + 5;

#[test]
fn large_copies_keep_direction_and_bounds() {
    let rig = Rig::with_pages(1200);
    // A pattern at both ends of a large block; moved up and down by 3 with overlap.
    for (from, to) in [(1000, 1003), (1003, 1000)] {
        let outcome = rig.wat(&format!(
            "(module (memory 1200) (func (export \"main\") (result i32)
                i32.const {from} i32.const 0x5A i32.const {LARGE} memory.fill
                i32.const {from} i32.const 0x11223344 i32.store
                i32.const {end} i32.const 0x55667788 i32.store
                i32.const {to} i32.const {from} i32.const {LARGE} memory.copy
                i32.const {to} i32.load i32.const 0x11223344 i32.eq
                i32.const {moved} i32.load i32.const 0x55667788 i32.eq i32.and
                i32.const {middle} i32.load i32.const 0x5A5A5A5A i32.eq i32.and))",
            end = from + LARGE - 4,
            moved = to + LARGE - 4,
            middle = to + (16 << 20),
        ));
        assert_eq!(outcome.return_code, Some(1), "{from} to {to}: {}", outcome.error);
    }
    // A fill that passes the end writes nothing.
    let passing = "(module (memory 1200) (func (export \"main\") i32.const 50000000 i32.const 1 i32.const 40000000 memory.fill))";
    let outcome = rig.wat(passing);
    assert!(
        outcome.error.contains("out of bounds memory access"),
        "{}",
        outcome.error
    );
    let mut byte = [0xFF];
    rig.set
        .guest_ram()
        .expect("ram")
        .read(quintet_protocol::addr::GuestPhys(50_000_000), &mut byte)
        .expect("ram");
    assert_eq!(byte, [0]);
}

/// Fills, copies up and down by `len` bytes, a length that the code does not have; with `locals` parameters and locals.
fn unknown_length(len: u32, locals: usize) -> Vec<u8> {
    assemble(&format!(
        "(module (memory 1)
            (func $f (param $len i32) (result i32) (local{})
              i32.const 100 i32.const 0x5A local.get $len memory.fill
              i32.const 100 i32.const 0x11 i32.store8
              i32.const 103 i32.const 100 local.get $len memory.copy
              i32.const 50 i32.const 103 local.get $len memory.copy
              i32.const 50 i32.load i32.const 0x5A5A5A11 i32.eq
              local.get $len i32.load8_u offset=49 i32.const 0x5A i32.eq i32.and
              local.get $len i32.load8_u offset=50 i32.eqz i32.and
              local.get $len i32.load8_u offset=103 i32.eqz i32.and)
            (func (export \"main\") (result i32) (call $f (i32.const {len}))))",
        " i64".repeat(locals - 1)
    ))
}

#[test]
fn short_lengths_and_long_ones_do_the_same_also_without_room_for_a_local() {
    let rig = Rig::new();
    for chunk in [20, 21, 22, 7, CHUNK] {
        for locals in [1, 49_997, 49_998, 50_000] {
            let module = unknown_length(21, locals);
            let artefact = compile_in_chunks(&module, &CompileLimits::default(), chunk).expect("compiles");
            let payload = Payload::from_vec(PayloadKind::WasmArtefact, artefact.bytes);
            let around = Box::new(rig.around.clone());
            let outcome = rig
                .runtime
                .run(&payload, &WasmConfig::default(), JobLimits::NONE, around);
            let outcome = outcome.expect("nobody stops it");
            let at = format!("chunks of {chunk}, {locals} locals: {}", outcome.error);
            assert_eq!(outcome.return_code, Some(1), "{at}");
        }
    }
}

#[test]
fn s1_20_s1_36_an_artefact_is_taken_in_once_as_long_as_it_is_the_same_file() {
    let rig = Rig::new();
    let artefact = |code: u32| {
        let text = format!("(module (func (export \"main\") (result i32) i32.const {code}))");
        compile(&assemble(&text), &CompileLimits::default())
            .expect("compiles")
            .bytes
    };
    let outgoing = |bytes: &[u8]| {
        Outgoing::new(PayloadKind::WasmArtefact, bytes, TransportChoice::Memfd).expect("a memfd")
    };
    let mut kept = Kept::default();
    // The stage that ended with the module, and what that returned.
    let mut run = |sent: &Outgoing, grant: PayloadGrant| {
        let mut trace = TransportTrace::default();
        let fd = sent
            .fd()
            .expect("asked for")
            .try_clone_to_owned()
            .expect("a descriptor");
        let module = kept.module(&rig.runtime, grant, fd, &mut trace)?;
        let around = Box::new(rig.around.clone());
        let config = WasmConfig::default();
        let outcome = rig.runtime.run_module(module, &config, JobLimits::NONE, around);
        let last = trace.entries.last().expect("an entry");
        assert_eq!((last.digest, last.head), (Some(sent.digest()), sent.head()));
        Ok::<_, ReceiveError>((last.stage, outcome.expect("nobody stops it").return_code))
    };
    let (seven, eight) = (artefact(7), artefact(8));
    let (first, other) = (outgoing(&seven), outgoing(&eight));
    for stage in [Stage::Mapped, Stage::Kept, Stage::Kept] {
        assert_eq!(run(&first, first.grant(0)).expect("whole"), (stage, Some(7)));
    }
    // The same file, announced as another; another file, announced as that one; the same bytes in another file.
    let lies = [run(&first, other.grant(0)), run(&other, first.grant(0))];
    for lie in lies {
        let lie = lie.map(|_| ()).expect_err("refused").to_string();
        assert!(lie.contains("digest differs") || lie.contains("bytes"), "{lie}");
    }
    let again = outgoing(&seven);
    assert_eq!(
        run(&again, again.grant(0)).expect("whole"),
        (Stage::Mapped, Some(7))
    );
    // The oldest is given up.
    for code in 100..120 {
        let many = outgoing(&artefact(code));
        assert_eq!(
            run(&many, many.grant(0)).expect("whole"),
            (Stage::Mapped, Some(code.into()))
        );
    }
    assert_eq!(
        run(&first, first.grant(0)).expect("whole"),
        (Stage::Mapped, Some(7))
    );
}

#[test]
fn s1_8_endless_loops_stop_when_the_machine_does() {
    for body in [
        "(loop $l br $l)",
        "(loop $l i32.const 0 i32.const 1 i32.const 4000000 memory.fill br $l)",
        "call $main",
    ] {
        let rig = Rig::new();
        *rig.around.ticks.lock().expect("lock") = Some(3);
        // The last one ends by itself; whichever way, the next job runs.
        let module = assemble(&format!(
            "(module (memory 64) (func $main (export \"main\") {body}))"
        ));
        let outcome = rig.run(&module, &WasmConfig::default());
        assert_eq!(outcome.is_some(), body == "call $main");
        *rig.around.ticks.lock().expect("lock") = None;
        assert_eq!(
            rig.wat("(module (func (export \"main\") (result i32) i32.const 1))")
                .return_code,
            Some(1)
        );
    }
}

#[test]
fn table_and_memory_bombs_are_bounded() {
    let rig = Rig::new();
    let table = rig.wat("(module (table 4000000000 funcref))");
    assert_eq!(table.status, JobStatus::InstantiateFailed, "{}", table.error);
    let memory = rig.wat(
        "(module (memory 0) (func (export \"main\") (result i32)
            (loop $l i32.const 1 memory.grow i32.const -1 i32.ne br_if $l) memory.size))",
    );
    assert_eq!(memory.return_code, Some(support::PAGES as i64));
}

#[test]
fn wasi_arguments_output_and_exit() {
    let rig = Rig::new();
    let module = assemble(
        "(module
            (import \"wasi_snapshot_preview1\" \"args_get\" (func $args (param i32 i32) (result i32)))
            (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
            (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
            (memory (export \"memory\") 1)
            (data (i32.const 8) \"\\00\\01\\00\\00\\09\\00\\00\\00\")
            (func (export \"_start\")
              i32.const 64 i32.const 256 call $args drop
              i32.const 1 i32.const 8 i32.const 1 i32.const 24 call $write drop
              i32.const 24 i32.load call $exit))",
    );
    let config = WasmConfig {
        args: vec!["prog".into(), "arg1".into()],
        ..WasmConfig::default()
    };
    let outcome = rig.run(&module, &config).expect("not stopped");
    assert_eq!(
        (outcome.status, outcome.return_code),
        (JobStatus::Executed, Some(9))
    );
    assert_eq!(rig.around.out.lock().expect("lock")[0], b"prog\0arg1");
}

#[test]
fn wasi_an_address_outside_memory_is_a_fault_of_the_program() {
    let outcome = Rig::new().wat(
        "(module (import \"wasi_snapshot_preview1\" \"random_get\" (func $r (param i32 i32) (result i32)))
            (memory 1) (func (export \"main\") i32.const 65530 i32.const 100 call $r drop))",
    );
    assert_eq!(outcome.status, JobStatus::ExecutionFailed);
    assert!(outcome.error.contains("linear memory"), "{}", outcome.error);
}
