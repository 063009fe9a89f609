//! A terminal is raw while a machine runs on it and as it was afterwards, whichever way the machine ends.
#![allow(
    unsafe_code,
    reason = "makes a pseudo-terminal and hands it to a child as its own"
)]

mod harness;

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use harness::{echo_guest, quintet, wait_until};
use rustix::process::Signal;
use rustix::termios::{LocalModes, tcgetattr};

struct Session {
    master: OwnedFd,
    slave: OwnedFd,
    child: Child,
}

impl Session {
    fn start(options: &[&str]) -> Self {
        let (mut master, mut slave) = (0, 0);
        // SAFETY: openpty fills in two descriptors, which become ours; the other arguments may be null.
        let made = unsafe {
            libc::openpty(
                &mut master,
                &mut slave,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        assert_eq!(made, 0, "no pseudo-terminal");
        // SAFETY: just made, owned by nobody else.
        let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let number = slave.as_raw_fd();
        let mut command = Command::new(quintet());
        command
            .args([
                "run",
                "--headless",
                "--ram",
                "16M",
                "--serial",
                "stdio",
                "--kernel",
                &echo_guest(),
            ])
            .args(options)
            .stdin(slave.try_clone().expect("dup"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                if libc::ioctl(number, libc::TIOCSCTTY, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("quintet starts");
        let session = Self { master, slave, child };
        wait_until("the terminal is raw", || !session.is_cooked());
        session
    }

    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("attributes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn type_in(&self, bytes: &[u8]) {
        assert_eq!(rustix::io::write(&self.master, bytes), Ok(bytes.len()));
    }

    fn end(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the machine ends", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.and_then(|s| s.code())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ctrl_a_x_ends_the_machine_and_the_terminal_is_as_it_was() {
    let mut session = Session::start(&[]);
    session.type_in(b"\x01x");
    assert_eq!(session.end(), Some(0));
    assert!(session.is_cooked());
}

#[test]
fn ctrl_c_is_the_guests() {
    let mut session = Session::start(&[]);
    session.type_in(b"\x03");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(
        session.child.try_wait().expect("wait").is_none(),
        "Ctrl-C ended the machine"
    );
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let mut session = Session::start(&[]);
    let pid = harness::pid(session.child.id() as i32);
    rustix::process::kill_process(pid, Signal::TERM).expect("signal");
    assert_eq!(session.end(), Some(128 + 15));
    assert!(session.is_cooked());
}

#[test]
fn a_time_limit_leaves_the_terminal_as_it_was() {
    let mut session = Session::start(&["--time-limit", "1s"]);
    assert_eq!(session.end(), Some(124));
    assert!(session.is_cooked());
}
