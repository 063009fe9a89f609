//! gdb prints values of ours: in a small program with types, since the builds that are tested have line tables alone. Addresses are the
//! protocol's source, the other types are repeated with their names and fields.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;

use super::Debugger;

const PROGRAM: &str = r#"
#![allow(dead_code)]
#[path = "ADDR"]
pub mod addr;
pub mod time { #[repr(transparent)] pub struct VmTime(pub u64); }
pub mod wires { pub struct Wire { pub high: bool, pub edges: u32 } }
pub mod ring { pub struct Position { pub cursor: u32, pub number: u64 } }
pub mod shm {
    pub mod map { pub struct Map { pub base: std::ptr::NonNull<u8>, pub len: usize } }
    pub mod view {
        #[derive(Clone)]
        pub struct View { pub map: std::sync::Arc<super::map::Map>, pub start: usize, pub len: usize }
        pub struct ViewMut(pub View);
    }
}
#[inline(never)]
fn stop(a: addr::GuestLinear, t: time::VmTime, w: wires::Wire, p: ring::Position, v: shm::view::View, m: shm::view::ViewMut) {
    std::hint::black_box((&a, &t, &w, &p, &v, &m));
}
fn main() {
    let base = std::ptr::NonNull::new(0x1000 as *mut u8).expect("not null");
    let v = shm::view::View { map: std::sync::Arc::new(shm::map::Map { base, len: 64 }), start: 8, len: 16 };
    let (w, p) = (wires::Wire { high: true, edges: 5 }, ring::Position { cursor: 64, number: 9 });
    stop(addr::GuestLinear(0xF000), time::VmTime(1_500_000_007), w, p, v.clone(), shm::view::ViewMut(v));
}
"#;

#[test]
fn values_are_printed_in_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, program) = (dir.path().join("values.rs"), dir.path().join("values"));
    let addr = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/src/addr.rs");
    std::fs::write(&source, PROGRAM.replace("ADDR", &addr.to_string_lossy())).expect("written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["-g", "--edition", "2024", "-o"])
        .args([&program, &source])
        .output()
        .expect("rustc is installed");
    assert!(built.status.success(), "{built:?}");
    let script = Debugger::Gdb.script().expect("a memfd");
    assert!(script.as_raw_fd() > 2);
    let output = Command::new("gdb")
        .args(["-q", "-nx", "-batch"])
        .args(Debugger::Gdb.load(&script))
        .args(["-ex", "break values::stop", "-ex", "run", "-ex", "info args"])
        .arg(&program)
        .output()
        .expect("gdb is installed");
    let out = String::from_utf8_lossy(&output.stdout);
    for line in [
        "a = GuestLinear(0xf000)",
        "t = VmTime(1.500000007 s)",
        "w = Wire(high, 5 edges)",
        "p = Position(record 9, cursor 0x40)",
        "v = 16 bytes at 0x1008",
        "m = 16 bytes at 0x1008",
    ] {
        assert!(out.lines().any(|l| l == line), "{line}\n{out}\n{output:?}");
    }
}
