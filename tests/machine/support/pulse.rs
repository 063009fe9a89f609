//! A sound server that nobody listens to: PulseAudio with a sink that keeps time and makes no sound, and a recording of what it would
//! have played.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::hearing::left;
use crate::support::folder::Folder;
use crate::support::{Setup, wait_for};

/// Name of the sink.
const SINK: &str = "ears";

/// A server that runs; killed when dropped.
pub struct Server {
    server: Child,
    recorder: Child,
}

impl Server {
    /// Starts it for a user whose home and runtime folder is `home`, and records what it plays into `file` there: 16-bit stereo at
    /// 48 kHz. `None`, loudly, where it is missing; a failure in continuous integration.
    pub fn start(home: &Folder, file: &str) -> Option<Self> {
        for tool in ["pulseaudio", "parec"] {
            if Command::new(tool).arg("--version").output().is_err() {
                assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
                eprintln!("SKIPPED: {tool} is missing; run cargo xtask test");
                return None;
            }
        }
        let socket = home.file("pulse/native");
        std::fs::create_dir_all(home.file("pulse")).expect("a folder");
        let _ = std::fs::remove_file(&socket);
        let server = at_home(home, "pulseaudio")
            .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "-L"])
            .arg(format!(
                "module-null-sink sink_name={SINK} rate=48000 format=float32le"
            ))
            .arg("-L")
            .arg(format!("module-native-protocol-unix socket={}", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        wait_for("the sound server's socket", || socket.exists().then_some(()));
        let recorder = at_home(home, "parec")
            .arg(format!("--server=unix:{}", socket.display()))
            .args(["--raw", "--format=s16le", "--rate=48000", "--channels=2"])
            // Without that a sink that nobody hurries takes two seconds at a time.
            .arg("--latency-msec=20")
            .arg(format!("--device={SINK}.monitor"))
            .stdout(File::create(home.file(file)).expect("a file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("a recorder");
        wait_for("something in the recording", || {
            let file = std::fs::metadata(home.file(file)).ok()?;
            (file.len() > 0).then_some(())
        });
        Some(Self { server, recorder })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in [&mut self.recorder, &mut self.server] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A machine of the user whose home `home` is.
pub fn at_homes_machine(setup: Setup, home: &Folder) -> Setup {
    setup
        .environment("HOME", home.file(""))
        .environment("XDG_RUNTIME_DIR", home.file(""))
}

fn at_home(home: &Folder, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("HOME", home.file(""))
        .env("XDG_RUNTIME_DIR", home.file(""))
        .env_remove("PULSE_SERVER")
        .stdin(Stdio::null());
    command
}

/// What has been recorded so far, of the left channel.
pub fn recorded(file: &Path) -> Vec<i16> {
    left(&std::fs::read(file).expect("a recording"))
}
