//! Linear memory as guest RAM: seen live, grown in place, detached at every growth (seed 2).

mod support;

use std::time::Duration;

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::WASM_PAGE;
use quintet_protocol::wasm::{JobStatus, MemoryState};
use support::{PAGES, Rig};

/// Generations counted by a run of `body`, without the one for the end of the memory.
fn counted(memory: &str, body: &str) -> (u32, JobStatus, Option<i64>) {
    let rig = Rig::new();
    let outcome = rig.wat(&format!(
        "(module {memory} (func (export \"main\") (result i32) {body}))"
    ));
    (rig.generations() - 1, outcome.status, outcome.return_code)
}

#[test]
fn s2_3_s2_20_every_successful_growth_counts_once_also_by_nothing() {
    let grow = |n: i32| format!("i32.const {n} memory.grow");
    let memory = "(memory 0 20)";
    assert_eq!(counted(memory, &grow(0)), (1, JobStatus::Executed, Some(0)));
    assert_eq!(counted(memory, &grow(1)), (1, JobStatus::Executed, Some(0)));
    let three = format!("{} drop {} drop {}", grow(0), grow(1), grow(0));
    assert_eq!(counted(memory, &three), (3, JobStatus::Executed, Some(1)));
}

#[test]
fn s2_9_s2_20_a_refused_growth_changes_nothing() {
    let refused = counted("(memory 1 2)", "i32.const 100 memory.grow");
    assert_eq!(refused, (0, JobStatus::Executed, Some(-1)));
    let beyond_ram = counted("(memory 1)", &format!("i32.const {PAGES} memory.grow"));
    assert_eq!(beyond_ram, (0, JobStatus::Executed, Some(-1)));
}

#[test]
fn s2_21_growth_before_a_trap_counts() {
    let (n, status, code) = counted("(memory 1)", "i32.const 1 memory.grow drop unreachable");
    assert_eq!((n, status, code), (1, JobStatus::ExecutionFailed, None));
}

#[test]
fn s2_24_growth_in_the_start_function_counts() {
    let rig = Rig::new();
    let outcome = rig.wat(
        "(module (memory 1) (func $s i32.const 2 memory.grow drop) (start $s)
            (func (export \"run\") (result i32) memory.size))",
    );
    assert_eq!((outcome.return_code, rig.generations()), (Some(3), 2));
}

#[test]
fn s2_26_growth_through_a_table_call_counts() {
    let rig = Rig::new();
    let outcome = rig.wat(
        "(module (memory 1) (table 1 funcref) (elem (i32.const 0) $g)
            (func $g (result i32) i32.const 1 memory.grow)
            (func (export \"main\") (result i32) i32.const 0 call_indirect (result i32)))",
    );
    assert_eq!((outcome.return_code, rig.generations()), (Some(1), 2));
}

#[test]
fn s2_6_s2_22_a_memory_without_pages_is_there() {
    let rig = Rig::new();
    let outcome = rig.wat("(module (memory 0) (func (export \"main\") (result i32) memory.size))");
    assert_eq!((outcome.return_code, outcome.memory), (Some(0), Some(0)));
    let none = rig.wat("(module (func (export \"main\") (result i32) i32.const 5))");
    assert_eq!((none.return_code, none.memory), (Some(5), None));
}

#[test]
fn s2_7_the_end_of_the_instance_detaches() {
    let rig = Rig::new();
    rig.wat("(module (memory 1))");
    let words = rig.peer().words().expect("words");
    assert_eq!((words.state, words.generation), (MemoryState::Dead, 1));
}

#[test]
fn s2_10_bulk_memory_is_on_and_the_answer_is_43998() {
    // Fill 10 bytes with 0xAB, copy 4 of them, and add what a data segment brings.
    let rig = Rig::new();
    let outcome = rig.wat(
        "(module (memory 1) (data $d \"\\33\\00\")
            (func (export \"main\") (result i32)
              i32.const 0 i32.const 0xAB i32.const 10 memory.fill
              i32.const 100 i32.const 0 i32.const 4 memory.copy
              i32.const 200 i32.const 0 i32.const 2 memory.init $d
              data.drop $d
              i32.const 100 i32.load16_u
              i32.const 200 i32.load16_u
              i32.add))",
    );
    assert_eq!(outcome.return_code, Some(0xABAB + 0x33), "{}", outcome.error);
}

#[test]
fn s2_1_data_and_stores_are_guest_ram_and_a_new_memory_is_zero() {
    let rig = Rig::new();
    let ram = rig.set.guest_ram().expect("ram");
    rig.wat(
        "(module (memory 2) (data (i32.const 32) \"live\")
            (func (export \"main\") i32.const 65540 i32.const 123456 i32.store))",
    );
    assert_eq!(ram.read_array(GuestPhys(32)), Ok(*b"live"));
    assert_eq!(ram.read_array(GuestPhys(65_540)), Ok(123_456u32.to_le_bytes()));
    let outcome = rig.wat(
        "(module (memory 2) (func (export \"main\") (result i32)
            i32.const 32 i32.load i32.const 65540 i32.load i32.or))",
    );
    assert_eq!(outcome.return_code, Some(0));
}

#[test]
fn s2_4_s2_5_s2_35_a_peer_is_seen_while_the_guest_spins_and_sees_it_grow() {
    let rig = Rig::new();
    let module = wat::parse_str(
        "(module (memory 1 4) (func (export \"main\") (result i32)
            i32.const 4 i32.const 1 i32.store
            (loop $l i32.const 8 i32.load i32.eqz br_if $l)
            i32.const 1 memory.grow drop
            (loop $m i32.const 12 i32.load i32.eqz br_if $m)
            i32.const 8 i32.load))",
    )
    .expect("assembles");
    let memory = rig.peer();
    let watcher = std::thread::spawn(move || {
        let view = loop {
            if let Ok(view) = memory.view()
                && word(&view, 4) == 1
            {
                break view;
            }
            std::thread::yield_now();
        };
        view.write(8, &77u32.to_le_bytes()).expect("attached");
        assert!(memory.wait_detached(&view, Duration::from_secs(60)));
        assert_eq!(view.len(), 0);
        let grown = memory.view().expect("live");
        assert_eq!(grown.len(), 2 * WASM_PAGE);
        grown.write(12, &1u32.to_le_bytes()).expect("attached");
    });
    let outcome = rig.run(&module, &Default::default()).expect("not stopped");
    watcher.join().expect("watcher");
    assert_eq!(outcome.return_code, Some(77));
}

fn word(view: &quintet_protocol::wasm::MemoryView, at: u64) -> u32 {
    let mut bytes = [0; 4];
    view.read(at, &mut bytes)
        .map_or(0, |()| u32::from_le_bytes(bytes))
}

#[test]
fn out_of_bounds_traps_by_name_everywhere_and_the_next_job_runs() {
    let rig = Rig::new();
    for (offset, at) in [
        (0, 65_536u32),
        (0, 65_533),
        (0, 0x8000_0000),
        (0, 0xFFFF_FFFF),
        (0xFFFF_FFFFu32, 0xFFFF_FFFF),
    ] {
        let outcome = rig.wat(&format!(
            "(module (memory 1 2) (func (export \"main\") (result i32)
                i32.const {at} i32.load offset={offset}))"
        ));
        assert_eq!(outcome.status, JobStatus::ExecutionFailed, "{at:#x}");
        assert!(
            outcome.error.contains("out of bounds memory access"),
            "{}",
            outcome.error
        );
    }
    assert_eq!(
        rig.wat("(module (func (export \"main\") (result i32) i32.const 42))")
            .return_code,
        Some(42)
    );
}

#[test]
fn more_memory_than_ram_is_refused_with_the_remedy() {
    let rig = Rig::new();
    let outcome = rig.wat(&format!("(module (memory {}))", PAGES + 1));
    assert_eq!(outcome.status, JobStatus::InstantiateFailed);
    assert!(outcome.error.contains("--ram"), "{}", outcome.error);
}

#[test]
fn s2_25_generations_belong_to_memories() {
    // Each growth of one memory is told to whoever looks at that one, and to nobody else.
    let rig = Rig::new();
    let module = wat::parse_str(
        "(module (memory 1 4) (memory 2 8) (memory 0 3)
            (func (export \"main\") (result i32)
              (drop (memory.grow 1 (i32.const 3)))
              (drop (memory.grow 1 (i32.const 0)))
              (drop (memory.grow 2 (i32.const 9)))
              (drop (memory.grow 2 (i32.const 2)))
              (drop (memory.grow 0 (i32.const 0)))
              (i32.store 1 (i32.const 8) (i32.const 1))
              (loop $wait (br_if $wait (i32.eqz (i32.load 0 (i32.const 8)))))
              (i32.add (i32.mul (memory.size 1) (i32.const 100)) (memory.size 2))))",
    )
    .expect("assembles");
    let memories = [0, 1, 2, 3].map(|n| rig.peer_of(n));
    let first = rig.peer();
    let seen = std::thread::spawn(move || {
        while memories[1].view().map_or(0, |view| word(&view, 8)) == 0 {
            std::thread::yield_now();
        }
        let words = memories.each_ref().map(|m| m.words().expect("words"));
        let views = [0, 1, 2].map(|n| memories[n].view().expect("live"));
        let equal = views[0] == views[1] || views[1] == views[2] || views[0] == views[2];
        let view = first.view().expect("live");
        view.write(8, &1u32.to_le_bytes()).expect("attached");
        (words, equal)
    });
    let outcome = rig.run(&module, &Default::default()).expect("not stopped");
    let (words, equal) = seen.join().expect("watcher");
    assert_eq!(outcome.return_code, Some(502), "{}", outcome.error);
    assert_eq!(words.map(|w| w.generation), [1, 2, 1, 0]);
    assert_eq!(words.map(|w| w.pages), [1, 5, 2, 0]);
    assert_eq!(words[3].state, MemoryState::Absent);
    assert!(!equal, "each memory has an identity of its own");
    let after = [0, 1, 2].map(|n| rig.peer_of(n).words().expect("words"));
    assert_eq!(after.map(|w| w.state), [MemoryState::Dead; 3]);
    assert_eq!(after.map(|w| w.generation), [2, 3, 2]);
}

#[test]
fn memories_do_not_overlap_and_bulk_operations_know_which() {
    let rig = Rig::new();
    let text = |chunked: &str| {
        format!(
            "(module (memory 1) (memory 1) (data (memory 1) (i32.const 4) \"abcd\")
            (func (export \"main\") (result i32) (local $n i32)
              (local.set $n (i32.const 4))
              (memory.fill 0 (i32.const 0) (i32.const 7) {chunked})
              (memory.copy 0 1 (i32.const 100) (i32.const 4) {chunked})
              (memory.copy 1 0 (i32.const 200) (i32.const 0) {chunked})
              (i32.add
                (i32.xor (i32.load 0 (i32.const 100)) (i32.load 1 (i32.const 4)))
                (i32.add (i32.load 1 (i32.const 200)) (i32.load 1 (i32.const 0))))))"
        )
    };
    for length in ["(i32.const 4)", "(local.get $n)"] {
        let outcome = rig.wat(&text(length));
        assert_eq!(
            outcome.return_code,
            Some(0x0707_0707),
            "{length}: {}",
            outcome.error
        );
    }
    // Zero again, both of them.
    let outcome = rig.wat(
        "(module (memory 1) (memory 1) (func (export \"main\") (result i32)
            (i32.or (i32.load 0 (i32.const 100)) (i32.load 1 (i32.const 200)))))",
    );
    assert_eq!(outcome.return_code, Some(0));
}

#[test]
fn all_memories_together_have_as_much_as_guest_ram() {
    let rig = Rig::new();
    let half = PAGES / 2;
    let outcome = rig.wat(&format!(
        "(module (memory {half}) (memory {half}) (func (export \"main\") (result i32)
            (i32.add (memory.grow 1 (i32.const 1)) (memory.grow 0 (i32.const 1)))))"
    ));
    assert_eq!(outcome.return_code, Some(-2), "{}", outcome.error);
    let outcome = rig.wat(&format!("(module (memory {half}) (memory {}))", half + 1));
    assert_eq!(outcome.status, JobStatus::InstantiateFailed);
    assert!(outcome.error.contains("--ram"), "{}", outcome.error);
}
