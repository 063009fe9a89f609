//! What a module can do in a whole machine: files beneath a directory, the screen, input, sound, time.

mod harness;
mod modules;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use modules::{Job, machine_with, report};
use quintet_protocol::wasm::{JobReport, JobStatus};

/// A folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("wasm-{test}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("given")).expect("a folder");
        Self(path)
    }

    fn given(&self) -> PathBuf {
        self.0.join("given")
    }

    fn text(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn returned(report: &JobReport) -> i64 {
    assert_eq!(report.status, JobStatus::Executed, "{report:?}");
    report.return_code.expect("a number")
}

/// Opens the path at 64 (`len` bytes) for reading, created if so asked; answers the error, else what `body` does with the
/// descriptor in `$fd`.
fn opens(path: &str, oflags: u32, body: &str) -> String {
    format!(
        "(module
            (import \"wasi_snapshot_preview1\" \"path_open\" (func $open
                (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))
            (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
            (import \"wasi_snapshot_preview1\" \"fd_close\" (func $close (param i32) (result i32)))
            (memory 2) (data (i32.const 64) \"{path}\") (data (i32.const 8) \"\\00\\02\\00\\00\\05\\00\\00\\00\")
            (func (export \"main\") (result i32) (local $fd i32) (local $e i32)
                (local.set $e (call $open (i32.const 3) (i32.const 1) (i32.const 64) (i32.const {len})
                    (i32.const {oflags}) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 16)))
                (if (local.get $e) (then (return (local.get $e))))
                (local.set $fd (i32.load (i32.const 16)))
                {body}))",
        len = path.len()
    )
}

#[test]
fn a_module_reads_and_writes_beneath_its_directory_and_nowhere_else() {
    let folder = Folder::new("files");
    std::fs::write(folder.given().join("greeting"), "hello, world").expect("a file");
    std::fs::write(folder.0.join("secret"), "secret").expect("a file");
    symlink("../secret", folder.given().join("link")).expect("a link");
    let dir = format!("{}::/data", folder.text("given"));
    let machine = machine_with("files", &["--dir", &dir]);
    // Five bytes at 512, then the next five behind them.
    let body = "(drop (call $read (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 20)))
        (drop (call $read (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 20)))
        (drop (call $close (local.get $fd)))
        (i32.add (i32.mul (i32.const 1000) (i32.load8_u (i32.const 512))) (i32.load (i32.const 20)))";
    let ran = Job::wat(&opens("greeting", 0, body)).run(&machine);
    // ", wor" starts with a comma.
    assert_eq!(returned(&ran), i64::from(b',') * 1000 + 5);
    let body =
        "(i32.store (i32.const 512) (i32.const 0x21736579)) (i32.store8 (i32.const 516) (i32.const 10))
        (call $write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 20))";
    assert_eq!(returned(&Job::wat(&opens("made", 1, body)).run(&machine)), 0);
    assert_eq!(
        std::fs::read(folder.given().join("made")).expect("made"),
        b"yes!\n"
    );
    for outside in ["../secret", "link", "/etc/passwd", ".."] {
        let ran = Job::wat(&opens(outside, 0, "(i32.const 0)")).run(&machine);
        assert_eq!(returned(&ran), 76, "{outside}: not capable");
    }
    let ran = Job::wat(&opens("missing", 0, "(i32.const 0)")).run(&machine);
    assert_eq!(returned(&ran), 44, "no such file");
}

#[test]
fn the_names_of_directories_are_told_and_without_one_there_is_none() {
    let names = "(module
        (import \"wasi_snapshot_preview1\" \"fd_prestat_get\" (func $get (param i32 i32) (result i32)))
        (import \"wasi_snapshot_preview1\" \"fd_prestat_dir_name\" (func $name (param i32 i32 i32) (result i32)))
        (memory 1)
        (func (export \"main\") (result i32)
            (if (call $get (i32.const 3) (i32.const 0)) (then (return (i32.const -1))))
            (drop (call $name (i32.const 3) (i32.const 16) (i32.load (i32.const 4))))
            (i32.add (i32.mul (i32.load (i32.const 4)) (i32.const 256)) (i32.load8_u (i32.const 17)))))";
    let folder = Folder::new("names");
    let machine = machine_with("names", &["--dir", &format!("{}::/data", folder.text("given"))]);
    assert_eq!(
        returned(&Job::wat(names).run(&machine)),
        5 * 256 + i64::from(b'd')
    );
    let bare = machine_with("bare", &[]);
    assert_eq!(returned(&Job::wat(names).run(&bare)), -1);
    let missing = folder.text("nothing");
    let output = harness::run_to_end(&["run", "--headless", "--jobs", "--dir", &missing]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains(&missing),
        "{output:?}"
    );
}

#[test]
fn files_that_were_open_when_io_worker_died_are_errors_and_new_ones_are_not() {
    let folder = Folder::new("killed");
    std::fs::write(folder.given().join("file"), "12345").expect("a file");
    let machine = machine_with("killed", &["--dir", &folder.text("given")]);
    // Reads at offset 0 until that fails; then opens again and reads.
    let text = opens(
        "file",
        0,
        "(block $died (loop $again
            (br_if $died (call $pread (local.get $fd) (i32.const 8) (i32.const 1) (i64.const 0) (i32.const 20)))
            (br $again)))
        (if (call $open (i32.const 3) (i32.const 1) (i32.const 64) (i32.const 4)
            (i32.const 0) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 16)) (then (return (i32.const -2))))
        (if (call $pread (i32.load (i32.const 16)) (i32.const 8) (i32.const 1) (i64.const 0) (i32.const 20))
            (then (return (i32.const -3))))
        (i32.load8_u (i32.const 516))",
    );
    let pread = "(import \"wasi_snapshot_preview1\" \"fd_pread\"
        (func $pread (param i32 i32 i32 i64 i32) (result i32)))";
    let asked = Job::wat(&text.replacen("(module", &format!("(module {pread}"), 1)).submit(&machine);
    std::thread::sleep(std::time::Duration::from_millis(500));
    machine.signal(
        quintet_protocol::handshake::Role::Io,
        rustix::process::Signal::KILL,
    );
    assert_eq!(returned(&report(asked)), i64::from(b'5'));
}

#[test]
fn a_frame_is_seen_by_a_screenshot() {
    let machine = machine_with("frame", &[]);
    // 64 by 40 pixels: the left half red, the right one 0x123456; and sizes that are not possible.
    let present = "(module (import \"quintet\" \"present\" (func $p (param i32 i32 i32) (result i32)))
        (memory 1)
        (func (export \"main\") (result i32) (local $n i32)
            (loop
                (i32.store (i32.mul (local.get $n) (i32.const 4))
                    (select (i32.const 0xFF0000) (i32.const 0x123456)
                        (i32.lt_u (i32.and (local.get $n) (i32.const 63)) (i32.const 32))))
                (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 2560))))
            (if (i32.ne (call $p (i32.const 0) (i32.const 0) (i32.const 40)) (i32.const -1)) (then unreachable))
            (if (i32.ne (call $p (i32.const 0) (i32.const 4000) (i32.const 40)) (i32.const -1)) (then unreachable))
            (drop (call $p (i32.const 0) (i32.const 64) (i32.const 40)))
            (drop (call $p (i32.const 0) (i32.const 64) (i32.const 40)))
            (call $p (i32.const 0) (i32.const 64) (i32.const 40))))";
    assert_eq!(returned(&Job::wat(present).run(&machine)), 0);
    let folder = Folder::new("frame");
    let file = folder.text("screen.png");
    let output = harness::run_to_end(&["screenshot", &machine.name, &file]);
    assert!(output.status.success(), "{output:?}");
    let decoder = png::Decoder::new(std::io::BufReader::new(
        std::fs::File::open(&file).expect("a file"),
    ));
    let mut reader = decoder.read_info().expect("a picture");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    assert_eq!((info.width, info.height), (64, 40));
    let depth = info.line_size / 64;
    for (n, pixel) in pixels[..info.buffer_size()].chunks_exact(depth).enumerate() {
        let expected = if n % 64 < 32 {
            [255, 0, 0]
        } else {
            [0x12, 0x34, 0x56]
        };
        assert_eq!(pixel[..3], expected, "pixel {n}");
    }
    let outside = present.replace(
        "(i32.const 0) (i32.const 64) (i32.const 40)",
        "(i32.const 60000) (i32.const 64) (i32.const 40)",
    );
    let ran = Job::wat(&outside).run(&machine);
    assert_eq!(ran.status, JobStatus::ExecutionFailed, "{ran:?}");
}

#[test]
fn keys_that_are_typed_reach_the_module() {
    let machine = machine_with("keys", &[]);
    // The sum of the usages of four keys that went down; Begin has dropped what was typed before.
    let keys = "(module (import \"quintet\" \"input\" (func $input (param i32) (result i32)))
        (import \"quintet\" \"sleep\" (func $sleep (param i64)))
        (memory 1)
        (func (export \"main\") (result i32) (local $n i32) (local $sum i32)
            (loop $next
                (if (i32.eq (call $input (i32.const 0)) (i32.const 1))
                    (then (if (i32.load (i32.const 4)) (then
                        (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 0))))
                        (local.set $n (i32.add (local.get $n) (i32.const 1))))))
                    (else (call $sleep (i64.const 5000000))))
                (br_if $next (i32.lt_u (local.get $n) (i32.const 4))))
            (local.get $sum)))";
    let asked = Job::wat(keys).submit(&machine);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let output = harness::run_to_end(&["type", &machine.name, "abcd"]);
    assert!(output.status.success(), "{output:?}");
    // Usages of a to d on the HID keyboard page: 4 to 7.
    assert_eq!(returned(&report(asked)), 4 + 5 + 6 + 7);
}

#[test]
fn sound_is_heard_by_the_wav_sink() {
    let folder = Folder::new("sound");
    let wav = folder.text("out.wav");
    let machine = machine_with("sound", &["--audio", &format!("wav:{wav}")]);
    // Half a second of 0.5 on the left and -0.25 on the right, then as long a rest, so that all of it is heard.
    let play = "(module (import \"quintet\" \"sound\" (func $sound (param i32 i32) (result i32)))
        (import \"quintet\" \"sound_rate\" (func $rate (result i32)))
        (import \"quintet\" \"sleep\" (func $sleep (param i64)))
        (memory 1)
        (func (export \"main\") (result i32) (local $n i32) (local $left i32)
            (loop
                (f32.store (i32.mul (local.get $n) (i32.const 8)) (f32.const 0.5))
                (f32.store offset=4 (i32.mul (local.get $n) (i32.const 8)) (f32.const -0.25))
                (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))
            (local.set $left (i32.const 24000))
            (loop
                (local.set $left (i32.sub (local.get $left) (call $sound (i32.const 0)
                    (select (local.get $left) (i32.const 1000) (i32.lt_u (local.get $left) (i32.const 1000))))))
                (call $sleep (i64.const 5000000))
                (br_if 0 (local.get $left)))
            (call $sleep (i64.const 700000000))
            (call $rate)))";
    assert_eq!(returned(&Job::wat(play).run(&machine)), 48_000);
    machine.quit();
    let bytes = std::fs::read(&wav).expect("a file");
    let data = bytes.windows(4).position(|w| w == b"data").expect("a WAV file") + 8;
    let frames: Vec<[i16; 2]> = bytes[data..]
        .chunks_exact(4)
        .map(|f| [i16::from_le_bytes([f[0], f[1]]), i16::from_le_bytes([f[2], f[3]])])
        .collect();
    let near = |sample: i16, wanted: f32| (f32::from(sample) / 32768.0 - wanted).abs() < 0.001;
    let heard = frames
        .iter()
        .filter(|f| near(f[0], 0.5) && near(f[1], -0.25))
        .count();
    let silent = frames.iter().filter(|f| **f == [0, 0]).count();
    assert_eq!(heard, 24_000, "of {} frames", frames.len());
    assert_eq!(heard + silent, frames.len(), "nothing else is heard");
}

#[test]
fn a_module_sleeps_until_a_time_of_the_machine() {
    let machine = machine_with("timer", &[]);
    // Five times 20 ms from one moment on: milliseconds gone, rounded down.
    let timer = "(module (import \"quintet\" \"now\" (func $now (result i64)))
        (import \"quintet\" \"sleep_until\" (func $until (param i64)))
        (func (export \"main\") (result i64) (local $start i64) (local $n i32)
            (local.set $start (call $now))
            (loop
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (call $until (i64.add (local.get $start) (i64.mul (i64.extend_i32_u (local.get $n)) (i64.const 20000000))))
                (br_if 0 (i32.lt_u (local.get $n) (i32.const 5))))
            (call $until (i64.const 0))
            (i64.div_u (i64.sub (call $now) (local.get $start)) (i64.const 1000000))))";
    assert!(returned(&Job::wat(timer).run(&machine)) >= 100);
}
