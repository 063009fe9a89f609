//! WebAssembly guests through the real processes: coordinator, compiler, confined worker.

mod harness;
mod modules;

use std::process::Command;

use harness::{Machine, quintet, run_to_end};
use modules::{ANSWER, LARGE, Module, compiler, module, text, without_process};

#[test]
fn s1_3_s1_5_s1_32_the_seeds_module_returns_42_and_the_report_says_how() {
    let seed = Module::new("seed", &module(&ANSWER, LARGE));
    let output = seed.run(&["--exit-code"]);
    let report = text(&output);
    for line in [
        "Status: Executed Successfully",
        "Return Code: 42",
        "Linear Memory: 65536 bytes",
        "Transport: sealed memfd",
        "Strategy: mapped",
        "Worker: pid ",
    ] {
        assert!(report.contains(line), "no {line:?} in {report}{output:?}");
    }
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(seed.run(&[]).status.code(), Some(0));
}

#[test]
fn s1_1_s1_2_size_chooses_the_transport_and_reports_are_the_same() {
    let mut reports = Vec::new();
    for (len, transport) in [
        (511_999, "Transport: inline"),
        (512_000, "Transport: sealed memfd"),
        (512_001, "Transport: sealed memfd"),
    ] {
        let output = Module::new(&format!("size-{len}"), &module(&ANSWER, len)).run(&[]);
        assert!(text(&output).contains(transport), "{len}: {output:?}");
        reports.push(without_process(&text(&output)));
    }
    let both = Module::new("both", &module(&ANSWER, 0));
    for way in ["inline", "memfd"] {
        reports.push(without_process(&text(&both.run(&["--transport", way]))));
    }
    assert!(reports.iter().all(|r| *r == reports[0]), "{reports:?}");
}

#[test]
fn s1_12_s1_34_a_module_that_cannot_be_mapped_is_copied_with_the_same_result() {
    let seed = Module::new("copied", &module(&ANSWER, LARGE));
    let (mapped, copied) = (seed.run(&[]), seed.run(&["--refuse-map"]));
    assert!(text(&copied).contains("Strategy: copied"), "{copied:?}");
    assert_eq!(without_process(&text(&mapped)), without_process(&text(&copied)));
}

#[test]
fn s1_6_a_trap_and_a_bad_module_are_different_reports() {
    let trap = Module::new("trap", &module(&[0x00], 0)).run(&["--json"]);
    assert_eq!(trap.status.code(), Some(3));
    let report = text(&trap);
    assert!(report.contains(r#""status":"Execution Failed""#), "{report}");
    assert!(report.contains("unreachable"), "{report}");
    let zeros = Module::new("zeros", &[0; 600_000]).run(&["--json"]);
    assert_eq!(zeros.status.code(), Some(1));
    let report = text(&zeros);
    assert!(
        report.contains(r#""status":"Load Failed""#) && report.contains("all bytes are zero"),
        "{report}"
    );
}

#[test]
fn s1_8_an_endless_loop_pauses_resumes_and_ends_when_asked() {
    // loop br 0 end; unreachable for the type.
    let spin = Module::new("spin", &module(&[0x03, 0x40, 0x0C, 0, 0x0B, 0x00], 0));
    let path = spin.0.display().to_string();
    let name = format!("wasm-spin-{}", std::process::id());
    let child = Command::new(quintet())
        .args([
            "run",
            "--headless",
            "--ram",
            "64M",
            "--wasm",
            &path,
            "--name",
            &name,
        ])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("quintet starts");
    let machine = Machine { child, name };
    machine.wait_for("it runs", |r| {
        r.state == quintet_protocol::status::MachineState::Running
    });
    for command in ["pause", "resume"] {
        let done = run_to_end(&[command, &machine.name]);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
    }
    let traces = text(&run_to_end(&["debug", &machine.name, "transport"]));
    for stage in ["WebAssembly module -> compiler", "Source", "Inline", "Loader"] {
        assert!(traces.contains(stage), "no {stage} in {traces}");
    }
    assert!(traces.contains("00 61 73 6d 01 00 00 00"), "{traces}");
    assert_eq!(machine.quit().0, Some(0));
}

#[test]
fn the_worker_contains_no_compiler() {
    let compiler = std::fs::read(compiler()).expect("the compiler");
    let worker = quintet().with_file_name("quintet-cpu-worker");
    let worker = std::fs::read(worker).expect("the worker");
    let contains = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).any(|w| w == mark);
    for mark in [&b"cranelift_codegen"[..], b"regalloc2"] {
        assert!(contains(&compiler, mark), "the mark is wrong");
        assert!(!contains(&worker, mark), "the cpu-worker contains a compiler");
    }
}

/// Copies standard input to standard output, and returns how many bytes there were once it has ended.
const CAT: &str = "(module
    (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))
    (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export \"memory\") 1)
    (func (export \"main\") (result i32) (local $all i32)
        (loop $more
            (i32.store (i32.const 0) (i32.const 64))
            (i32.store (i32.const 4) (i32.const 1000))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (if (i32.load (i32.const 8)) (then
                (i32.store (i32.const 4) (i32.load (i32.const 8)))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
                (local.set $all (i32.add (local.get $all) (i32.load (i32.const 8))))
                (br $more))))
        (local.get $all)))";

#[test]
fn a_module_reads_standard_input_to_its_end() {
    use std::io::Write as _;
    let cat = Module::new("cat", &wat::parse_str(CAT).expect("assembles"));
    let path = cat.0.display().to_string();
    let mut child = Command::new(quintet())
        .args([
            "run",
            "--headless",
            "--ram",
            "64M",
            "--wasm",
            &path,
            "--time-limit",
            "60s",
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("quintet starts");
    // More than the stream holds at a time.
    let typed = "a line that somebody typed\n".repeat(2_000);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(typed.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output);
    assert!(said.starts_with(&typed), "{} bytes came back", said.len());
    let code = format!("Return Code: {}", typed.len());
    assert!(said.contains(&code), "{}", &said[said.len() - 200..]);
    // Where nobody types, the end is there at once.
    let output = cat.run(&["--serial", "none", "--time-limit", "60s"]);
    assert!(text(&output).contains("Return Code: 0"), "{output:?}");
}

#[test]
fn in_a_single_process_a_module_gives_the_same_report() {
    let seed = Module::new("single", &module(&ANSWER, LARGE));
    let trap = Module::new("single-trap", &module(&[0x00], 0));
    for (module, code) in [(&seed, 42), (&trap, 3)] {
        let apart = module.run(&["--exit-code"]);
        let together = module.run(&["--exit-code", "--single-process"]);
        assert_eq!(together.status.code(), Some(code), "{together:?}");
        let strategy = |o: &_| text(o).contains("Strategy: mapped");
        assert_eq!(strategy(&apart), strategy(&together));
        assert_eq!(without_process(&text(&apart)), without_process(&text(&together)));
    }
}
