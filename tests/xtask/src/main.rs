//! Chores of the repository, one file each: `cargo xtask run | test | setup | check | fuzz | bench | guest | dist`.
//!
//! No crate of the workspace and none that needs more than Rust and a linker: this is what a fresh machine builds first, before
//! anything that could be missing is known to be there.

mod bench;
mod bundles;
mod check;
mod cpio;
mod dist;
mod fuzz;
mod guest;
mod installed;
mod installer;
mod kernels;
mod packages;
mod run;
mod sh;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask CHORE

  run [ARGS…]      build in release and start quintet; without ARGS, the demo guest
  test [ARGS…]     build and run every test; --long adds what does not fit into CI, ARGS go to the runner
  setup            install the system packages that building and testing need, or print the line to type
  check [--bless]  format, lints, file sizes, documentation, the list of unsafe modules; installs nothing
  fuzz [TARGET…]   run the fuzz targets under libFuzzer; --help tells more
  bench [ARGS…]    time a Linux guest under quintet and other emulators, side by side; --help tells more
  guest [NAME]     list the guests, or build one and print its path
  dist [ARGS…]     build in release and make a tar archive and a Debian package; --help tells more";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let result = match chore.as_str() {
        "run" => run::run(&rest),
        "test" => test::test(&rest),
        "setup" => packages::for_tests().map(|()| ExitCode::SUCCESS),
        "check" => check::check(&rest),
        "fuzz" => fuzz::fuzz(&rest),
        "bench" => bench::bench(&rest),
        "guest" => guest::guest(&rest),
        "dist" => dist::dist(&rest),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(sh::Failure::new(format!("no chore {other:?}\n\n{USAGE}"))),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
