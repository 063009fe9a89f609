//! Whoever removes the start-up directory when the coordinator cannot.
//!
//! `ipc-channel`'s servers have names in a file system, and a process that is killed takes nothing of that with it. So
//! while such names may exist, a child stands by that has nothing to do but wait for the end of a pipe: at a byte
//! it goes, at the pipe's end it removes the directory first. The workers cannot do it, because they end by
//! the same death; a detached file system would do, but making one takes privileges. The child is a fork
//! that never executes another program, which takes less than a millisecond.
#![allow(unsafe_code, reason = "what a forked child does instead of an exec")]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// The child that stands by. Dropping it without [`Self::dismiss`] makes it clean up.
#[derive(Debug)]
pub struct Janitor {
    order: OwnedFd,
    thread: JoinHandle<()>,
}

impl Janitor {
    /// Has a child stand by for `directory`, which need not exist yet.
    ///
    /// # Errors
    /// The host's: no process, no descriptor.
    pub fn start(directory: &Path) -> std::io::Result<Self> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        let (wait, order) = pipe_with(PipeFlags::CLOEXEC)?;
        let (ready, say_ready) = pipe_with(PipeFlags::CLOEXEC)?;
        let orders = order.as_raw_fd();
        // The child keeps copies of whatever is open when it is forked: not of the pipe of a process that is just being started.
        let _forking = super::spawner::one_at_a_time();
        // `spawn` comes back when the child has ended, so it is a thread's; the child is reaped by it.
        let thread = std::thread::Builder::new()
            .name("janitor".into())
            .stack_size(128 << 10)
            .spawn(move || {
                let mut command = Command::new("/proc/self/exe");
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    // What the terminal's keys send is not for it.
                    .process_group(0);
                let stand_by = move || {
                    // Its own copy would keep the pipe from ending.
                    // SAFETY: nothing in this child uses the descriptor afterwards.
                    unsafe { rustix::io::close(orders) };
                    rustix::io::write(&say_ready, &[1])?;
                    loop {
                        match rustix::io::read(&wait, &mut [0]) {
                            Err(Errno::INTR) => {}
                            Ok(0) => break remove(&path),
                            _ => break,
                        }
                    }
                    // Not to be executed: the child ends here.
                    Err(Errno::CANCELED.into())
                };
                // SAFETY: the closure makes async-signal-safe system calls only, and neither allocates nor locks.
                unsafe { command.pre_exec(stand_by) };
                let _ = command.spawn();
            })?;
        // The child has been forked when it says so; if it could not be, the pipe ends.
        match rustix::io::read(&ready, &mut [0])? {
            0 => Err(std::io::Error::other("it could not be forked")),
            _ => Ok(Self { order, thread }),
        }
    }

    /// The directory is gone: the child is not needed any more. The thread ends when it has been reaped.
    pub fn dismiss(self) -> JoinHandle<()> {
        let _ = rustix::io::write(&self.order, &[1]);
        self.thread
    }
}

/// Removes `path`, which holds directories of sockets, without allocating.
fn remove(path: &CStr) {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(outer) = openat(CWD, path, flags, Mode::empty()) {
        each_entry(&outer, |name| {
            if let Ok(inner) = openat(&outer, name, flags, Mode::empty()) {
                each_entry(&inner, |socket| {
                    let _ = unlinkat(&inner, socket, AtFlags::empty());
                });
            }
            let _ = unlinkat(&outer, name, AtFlags::REMOVEDIR);
        });
    }
    let _ = unlinkat(CWD, path, AtFlags::REMOVEDIR);
}

fn each_entry(directory: &OwnedFd, mut act: impl FnMut(&CStr)) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        if name != c"." && name != c".." {
            act(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("quintet-janitor-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("server-1")).expect("directory");
        std::fs::create_dir_all(path.join("server-2")).expect("directory");
        std::fs::write(path.join("server-1/socket"), "").expect("a file in its place");
        path
    }

    #[test]
    fn it_removes_the_directory_when_its_master_is_gone() {
        let path = directory("gone");
        drop(Janitor::start(&path).expect("forked"));
        let start = std::time::Instant::now();
        while path.exists() {
            assert!(
                start.elapsed() < std::time::Duration::from_secs(60),
                "still there"
            );
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn a_process_starts_while_janitors_are_forked_and_stand_by() {
        use super::super::spawner::{Order, Spawner};
        use std::sync::Arc;
        use std::sync::mpsc::{RecvTimeoutError, channel};

        let path = directory("beside");
        let (stop, stopped) = channel::<()>();
        let forks = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut janitors = Vec::new();
                let pause = std::time::Duration::from_micros(1);
                while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    if janitors.len() < 100 {
                        janitors.push(Janitor::start(&path).expect("forked"));
                    }
                }
                janitors
            }
        });
        let binary = Arc::new(std::fs::File::open("/bin/true").expect("a program"));
        let spawner = Spawner::start(false).expect("a thread");
        for _ in 0..100 {
            let order = Order {
                binary: Arc::clone(&binary),
                name: "true",
                args: Vec::new(),
                input: None,
                answers: false,
                inherit: Vec::new(),
                log: String::new(),
                confined: false,
            };
            let mut spawned = spawner.spawn(order).expect("in time");
            let _ = spawned.child.wait();
        }
        drop(stop);
        for janitor in forks.join().expect("no panic") {
            let _ = janitor.dismiss().join();
        }
        std::fs::remove_dir_all(path).expect("nobody removed it");
    }

    #[test]
    fn it_touches_nothing_when_it_is_dismissed() {
        let path = directory("dismissed");
        let janitor = Janitor::start(&path).expect("forked");
        janitor.dismiss().join().expect("it ends");
        assert!(path.join("server-1/socket").exists());
        std::fs::remove_dir_all(&path).expect("remove");
    }
}
