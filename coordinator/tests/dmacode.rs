//! The guest `dmacode` on this machine: code that DMA overwrites while the processor polls in RAM, and addresses
//! where nothing is.

mod harness;

use std::path::Path;

use harness::run_to_end;

fn dmacode(options: &[&str]) {
    let mut name = format!("dmacode-{}", std::process::id());
    options.iter().for_each(|o| name.push_str(o));
    let kernel = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&kernel, quintet_guests::DMACODE).expect("the guest as a file");
    let kernel = kernel.display().to_string();
    let mut arguments = vec!["run", "--headless", "--ram", "64M", "--exit-port", "0xf4"];
    arguments.extend(["--time-limit", "50s", "--kernel", &kernel]);
    arguments.extend(options);
    let output = run_to_end(&arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    // The guest writes its number of failures to the port: v ends the machine with (v << 1) | 1.
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, ["dmacode: code passed", "dmacode: holes passed"]);
}

#[test]
fn what_dma_has_written_is_what_runs_and_holes_are_all_ones() {
    dmacode(&[]);
}

#[test]
fn the_same_on_the_portable_back_end() {
    dmacode(&["--backend", "portable"]);
}

#[test]
fn the_same_in_one_process() {
    dmacode(&["--single-process"]);
}
