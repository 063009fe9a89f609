//! What the coordinator would try if it were taken over.

use nix::errno::Errno;
use syscalls::Sysno;

use super::attempts::{AT_FDCWD, Act, connect, open, other_memory};
use super::captive::{Captive, Outcome};

/// One attempt of the coordinator, and how it may end.
#[derive(Clone, Copy)]
pub struct OwnAttempt {
    /// What it is after.
    pub name: &'static str,
    /// Tries.
    pub act: Act,
    /// How it may be refused.
    pub refused: &'static [Errno],
    /// It takes the newest Landlock.
    pub newest: bool,
}

const fn own(name: &'static str, act: Act, refused: &'static [Errno]) -> OwnAttempt {
    OwnAttempt {
        name,
        act,
        refused,
        newest: false,
    }
}

const fn newest(mut attempt: OwnAttempt) -> OwnAttempt {
    attempt.newest = true;
    attempt
}

/// What the coordinator would try. It may read files, start programs and signal its children; `sibling` is the test, and no child of its.
pub const OWN_ATTEMPTS: &[OwnAttempt] = &[
    own(
        "open a file to write",
        |c, s| open(c, &s.file, libc::O_WRONLY),
        &[Errno::EACCES],
    ),
    own(
        "make a file",
        |c, s| open(c, &s.new_file, libc::O_CREAT | libc::O_WRONLY),
        &[Errno::EACCES],
    ),
    own(
        "truncate by name",
        |c, s| {
            let path = c.text(&s.file);
            c.call(Sysno::truncate, &[path, 0])
        },
        &[Errno::EACCES],
    ),
    own(
        "remove a file",
        |c, s| {
            let path = c.text(&s.file);
            c.call(Sysno::unlinkat, &[AT_FDCWD, path, 0])
        },
        &[Errno::EACCES],
    ),
    newest(own(
        "kill a stranger",
        |c, s| c.call(Sysno::kill, &[s.sibling as u64, 0]),
        &[Errno::EPERM],
    )),
    own(
        "trace a stranger",
        |c, s| {
            c.call(
                Sysno::ptrace,
                &[u64::from(libc::PTRACE_SEIZE), s.sibling as u64, 0, 0],
            )
        },
        &[Errno::EPERM],
    ),
    own(
        "write a stranger's memory",
        |c, s| other_memory(c, Sysno::process_vm_writev, s.sibling),
        &[Errno::EPERM],
    ),
    own(
        "open a stranger's memory",
        |c, s| open(c, &format!("/proc/{}/mem", s.sibling), libc::O_RDONLY),
        &[Errno::EACCES, Errno::EPERM],
    ),
    newest(own(
        "connect to the Internet",
        |c, _| {
            let mut address = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            address.extend([0, 9, 127, 0, 0, 1]);
            address.resize(16, 0);
            connect(c, libc::AF_INET, libc::SOCK_STREAM, &address)
        },
        &[Errno::EACCES],
    )),
    own(
        "become another user",
        |c, _| c.call(Sysno::setresuid, &[1, 1, 1]),
        &[Errno::EPERM],
    ),
    own(
        "mount",
        |c, _| {
            let path = c.text("/mnt");
            let kind = c.text("tmpfs");
            c.call(Sysno::mount, &[kind, path, kind, 0, 0])
        },
        &[Errno::EPERM],
    ),
    own(
        "io_uring",
        |c, _| {
            let parameters = c.put(&[0; 120]);
            c.call(Sysno::io_uring_setup, &[1, parameters])
        },
        &[Errno::EPERM],
    ),
    own("bpf", |c, _| c.call(Sysno::bpf, &[0, 0, 0]), &[Errno::EPERM]),
    own(
        "perf events",
        |c, _| {
            let attributes = c.put(&[0; 128]);
            c.call(Sysno::perf_event_open, &[attributes, 0, u64::MAX, u64::MAX, 0])
        },
        &[Errno::EPERM],
    ),
    own(
        "the keyring",
        |c, _| c.call(Sysno::keyctl, &[0, 0, 0]),
        &[Errno::EPERM],
    ),
    own(
        "another's namespace",
        |c, _| c.call(Sysno::setns, &[3, 0]),
        &[Errno::EPERM],
    ),
    own(
        "reboot",
        |c, _| c.call(Sysno::reboot, &[0, 0, 0, 0]),
        &[Errno::EPERM],
    ),
    own("a core file", |c, _| new_limit_core(c), &[Errno::EPERM]),
];

fn new_limit_core(captive: &mut Captive) -> Outcome {
    let limit = [1u64 << 20, 1 << 20].map(u64::to_ne_bytes).concat();
    let limit = captive.put(&limit);
    captive.call(Sysno::prlimit64, &[0, u64::from(libc::RLIMIT_CORE), limit, 0])
}
