//! What a process that was taken over would try.

use nix::errno::Errno;
use syscalls::Sysno;

use super::captive::{Captive, Mapping, Outcome};

/// Whom and what the attempts are aimed at.
pub struct Scene {
    /// The coordinator.
    pub coordinator: i32,
    /// Another worker.
    pub sibling: i32,
    /// A file that its user may read and write.
    pub file: String,
    /// A place where its user may make one.
    pub new_file: String,
    /// The address of the coordinator's control socket, abstract, without the zero byte in front.
    pub control: Vec<u8>,
    /// A map of another's words; the compiler has none.
    pub foreign: Option<Mapping>,
}

/// One attempt.
pub struct Attempt {
    /// What it is after.
    pub name: &'static str,
    act: Act,
    /// With a window, whose libraries and drivers need the call itself: what refuses it then. Empty: the call is trapped there, too.
    window: &'static [Expected],
    /// Without a window, where it is not trapped.
    others: &'static [Expected],
}

/// What may come of an attempt that is no trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The kernel refuses it so.
    Refused(Errno),
    /// The processor does.
    Fault,
    /// It is what the process needs, and harmless: of no file, and nobody else's memory.
    Needed,
}

use Expected::{Fault, Needed, Refused};

/// Has a process try something.
pub type Act = fn(&mut Captive, &Scene) -> Outcome;

/// Trapped everywhere.
const fn trapped(name: &'static str, act: Act) -> Attempt {
    Attempt {
        name,
        act,
        window: &[],
        others: &[],
    }
}

/// Trapped but with a window.
const fn but_window(name: &'static str, act: Act, window: &'static [Expected]) -> Attempt {
    Attempt {
        name,
        act,
        window,
        others: &[],
    }
}

/// Refused by the kernel or the processor everywhere.
const fn refused(name: &'static str, act: Act, everywhere: &'static [Expected]) -> Attempt {
    Attempt {
        name,
        act,
        window: everywhere,
        others: everywhere,
    }
}

/// A process that tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Cpu,
    CpuModules,
    Io,
    IoFiles,
    Gpu,
    Window,
    Audio,
    AudioHost,
    Compiler,
}

impl Column {
    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuModules => "cpu, modules",
            Self::Io => "io",
            Self::IoFiles => "io, --dir",
            Self::Gpu => "gpu",
            Self::Window => "gpu, window",
            Self::Audio => "audio",
            Self::AudioHost => "audio, device",
            Self::Compiler => "compiler",
        }
    }
}

impl Attempt {
    /// Has a process try.
    pub fn by(&self, captive: &mut Captive, scene: &Scene) -> Outcome {
        (self.act)(captive, scene)
    }

    /// Whether that is how it has to end.
    pub fn accepts(&self, column: Column, outcome: Outcome) -> bool {
        let expected: &[Expected] = match (column, self.name) {
            (Column::Window, _) => self.window,
            // It may map the code of plug-ins and open files and sockets, as a window may, and make nothing.
            (Column::AudioHost, "the coordinator's control socket") => {
                &[Refused(Errno::EPERM), Refused(Errno::ECONNREFUSED)]
            }
            (
                Column::AudioHost,
                "remove a file"
                | "rename a file"
                | "make a directory"
                | "truncate by descriptor"
                | "a file in memory",
            ) => &[],
            (Column::AudioHost, _) => self.window,
            // It opens what lies beneath a directory, and this names none.
            (Column::IoFiles, "remove a file" | "rename a file" | "make a directory") => {
                &[Refused(Errno::EACCES), Refused(Errno::EXDEV)]
            }
            (Column::IoFiles, "open by openat2") => &[Refused(Errno::EACCES)],
            // Images grow and shrink, those that are open.
            (Column::Io | Column::IoFiles, "truncate by descriptor") => &[Refused(Errno::EBADF)],
            _ => self.others,
        };
        if expected.is_empty() {
            return matches!(outcome, Outcome::Trapped(_));
        }
        expected.iter().any(|e| match e {
            Refused(errno) => outcome == Outcome::Refused(*errno),
            Fault => outcome == Outcome::Fault,
            Needed => matches!(outcome, Outcome::Done(_)),
        })
    }
}

/// "Here" for the calls that take a directory.
pub const AT_FDCWD: u64 = libc::AT_FDCWD as u64;
/// A descriptor that nobody has.
const NO_FD: u64 = 9999;

pub fn open(captive: &mut Captive, path: &str, flags: i32) -> Outcome {
    let path = captive.text(path);
    captive.call(Sysno::openat, &[AT_FDCWD, path, flags as u64, 0o600])
}

/// Makes a socket and, where that works, connects it to `address`.
pub fn connect(captive: &mut Captive, family: i32, kind: i32, address: &[u8]) -> Outcome {
    match captive.call(Sysno::socket, &[family as u64, kind as u64, 0]) {
        Outcome::Done(fd) => {
            let at = captive.put(address);
            let outcome = captive.call(Sysno::connect, &[fd, at, address.len() as u64]);
            let _ = captive.call(Sysno::close, &[fd]);
            outcome
        }
        refused => refused,
    }
}

fn abstract_address(name: &[u8]) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.push(0);
    address.extend(name);
    address
}

/// One word for `process_vm_writev`: a local and a remote vector.
pub fn other_memory(captive: &mut Captive, call: Sysno, pid: i32) -> Outcome {
    let word = captive.put(&[0; 8]);
    let vector = [word.to_ne_bytes(), 8u64.to_ne_bytes()].concat();
    let vector = captive.put(&vector);
    captive.call(call, &[pid as u64, vector, 1, vector, 1, 0])
}

fn new_limit(captive: &mut Captive, pid: i32) -> Outcome {
    let limit = [1u64 << 20, 1 << 20].map(u64::to_ne_bytes).concat();
    let limit = captive.put(&limit);
    captive.call(
        Sysno::prlimit64,
        &[pid as u64, u64::from(libc::RLIMIT_NOFILE), limit, 0],
    )
}

/// Somebody else's words, or where none are mapped, nowhere.
fn foreign(scene: &Scene) -> Option<u64> {
    scene.foreign.as_ref().map(|m| m.start)
}

/// The attempts that every process makes.
pub const ATTEMPTS: &[Attempt] = &[
    // Files.
    but_window(
        "open a file",
        |c, s| open(c, &s.file, libc::O_RDONLY),
        &[Refused(Errno::EACCES)],
    ),
    but_window(
        "open a file to write",
        |c, s| open(c, &s.file, libc::O_WRONLY),
        &[Refused(Errno::EACCES)],
    ),
    but_window(
        "make a file",
        |c, s| open(c, &s.new_file, libc::O_CREAT | libc::O_WRONLY),
        &[Refused(Errno::EACCES)],
    ),
    trapped("open by openat2", |c, s| {
        let path = c.text(&s.file);
        let how = c.put(&[0; 24]);
        c.call(Sysno::openat2, &[AT_FDCWD, path, how, 24])
    }),
    trapped("open by handle", |c, _| {
        let handle = c.put(&[0; 128]);
        c.call(Sysno::open_by_handle_at, &[AT_FDCWD, handle, 0])
    }),
    but_window(
        "open /proc/self/mem",
        |c, _| open(c, "/proc/self/mem", libc::O_RDWR),
        &[Refused(Errno::EACCES)],
    ),
    but_window(
        "open the coordinator's memory",
        |c, s| open(c, &format!("/proc/{}/mem", s.coordinator), libc::O_RDONLY),
        &[Refused(Errno::EACCES)],
    ),
    but_window(
        "open a worker's memory",
        |c, s| open(c, &format!("/proc/{}/mem", s.sibling), libc::O_RDONLY),
        &[Refused(Errno::EACCES)],
    ),
    but_window(
        "remove a file",
        |c, s| {
            let path = c.text(&s.file);
            c.call(Sysno::unlinkat, &[AT_FDCWD, path, 0])
        },
        &[Refused(Errno::EACCES)],
    ),
    but_window(
        "rename a file",
        |c, s| {
            let from = c.text(&s.file);
            let to = c.text(&s.new_file);
            c.call(Sysno::renameat, &[AT_FDCWD, from, AT_FDCWD, to])
        },
        &[Refused(Errno::EACCES), Refused(Errno::EXDEV)],
    ),
    but_window(
        "make a directory",
        |c, s| {
            let path = c.text(&s.new_file);
            c.call(Sysno::mkdirat, &[AT_FDCWD, path, 0o700])
        },
        &[Refused(Errno::EACCES)],
    ),
    trapped("make a link", |c, s| {
        let from = c.text(&s.file);
        let to = c.text(&s.new_file);
        c.call(Sysno::linkat, &[AT_FDCWD, from, AT_FDCWD, to, 0])
    }),
    trapped("change a file's mode", |c, s| {
        let path = c.text(&s.file);
        c.call(Sysno::fchmodat, &[AT_FDCWD, path, 0o777])
    }),
    trapped("watch a directory", |c, _| c.call(Sysno::inotify_init1, &[0])),
    // The network.
    but_window(
        "an Internet socket",
        |c, _| connect(c, libc::AF_INET, libc::SOCK_STREAM, &[0; 16]),
        &[Refused(Errno::ENOSYS)],
    ),
    but_window(
        "a socket for datagrams",
        |c, _| connect(c, libc::AF_INET6, libc::SOCK_DGRAM, &[0; 28]),
        &[Refused(Errno::ENOSYS)],
    ),
    but_window(
        "a packet socket",
        |c, _| connect(c, libc::AF_PACKET, libc::SOCK_RAW, &[0; 20]),
        &[Refused(Errno::ENOSYS)],
    ),
    but_window(
        "a netlink socket",
        |c, _| connect(c, libc::AF_NETLINK, libc::SOCK_RAW, &[0; 12]),
        &[Refused(Errno::ENOSYS)],
    ),
    but_window(
        "the coordinator's control socket",
        |c, s| {
            connect(
                c,
                libc::AF_UNIX,
                libc::SOCK_SEQPACKET,
                &abstract_address(&s.control),
            )
        },
        &[Refused(Errno::ECONNREFUSED)],
    ),
    trapped("listen", |c, _| c.call(Sysno::listen, &[0, 1])),
    // Other processes.
    trapped("trace the coordinator", |c, s| {
        c.call(
            Sysno::ptrace,
            &[u64::from(libc::PTRACE_SEIZE), s.coordinator as u64, 0, 0],
        )
    }),
    trapped("trace a worker", |c, s| {
        c.call(
            Sysno::ptrace,
            &[u64::from(libc::PTRACE_ATTACH), s.sibling as u64, 0, 0],
        )
    }),
    trapped("write the coordinator's memory", |c, s| {
        other_memory(c, Sysno::process_vm_writev, s.coordinator)
    }),
    trapped("read a worker's memory", |c, s| {
        other_memory(c, Sysno::process_vm_readv, s.sibling)
    }),
    trapped("kill the coordinator", |c, s| {
        c.call(Sysno::kill, &[s.coordinator as u64, libc::SIGKILL as u64])
    }),
    trapped("kill a worker", |c, s| {
        c.call(Sysno::kill, &[s.sibling as u64, libc::SIGKILL as u64])
    }),
    trapped("signal everybody", |c, _| c.call(Sysno::kill, &[u64::MAX, 0])),
    trapped("kill by tgkill", |c, s| {
        let coordinator = s.coordinator as u64;
        c.call(Sysno::tgkill, &[coordinator, coordinator, libc::SIGKILL as u64])
    }),
    trapped("kill by tkill", |c, s| {
        c.call(Sysno::tkill, &[s.sibling as u64, libc::SIGKILL as u64])
    }),
    trapped("have the kernel kill (F_SETOWN)", |c, s| {
        c.call(Sysno::fcntl, &[2, libc::F_SETOWN as u64, s.coordinator as u64])
    }),
    trapped("have the kernel kill (FIOSETOWN)", |c, _| {
        c.call(Sysno::ioctl, &[2, 0x8901, 0])
    }),
    trapped("type into the terminal", |c, _| {
        c.call(Sysno::ioctl, &[0, libc::TIOCSTI, 0])
    }),
    trapped("a handle of the coordinator", |c, s| {
        c.call(Sysno::pidfd_open, &[s.coordinator as u64, 0])
    }),
    trapped("another's descriptor", |c, _| {
        c.call(Sysno::pidfd_getfd, &[3, 0, 0])
    }),
    trapped("raise its limit", |c, _| new_limit(c, 0)),
    trapped("set the coordinator's limit", |c, s| new_limit(c, s.coordinator)),
    trapped("set a limit the old way", |c, _| {
        let limit = c.put(&[0xFF; 16]);
        c.call(Sysno::setrlimit, &[u64::from(libc::RLIMIT_NOFILE), limit])
    }),
    // New processes.
    trapped("fork", |c, _| c.call(Sysno::fork, &[])),
    trapped("vfork", |c, _| c.call(Sysno::vfork, &[])),
    trapped("clone a process", |c, _| {
        c.call(Sysno::clone, &[libc::SIGCHLD as u64, 0, 0, 0, 0])
    }),
    refused(
        "clone a process by clone3",
        |c, _| {
            let arguments = c.put(&[0; 88]);
            c.call(Sysno::clone3, &[arguments, 88])
        },
        &[Refused(Errno::ENOSYS)],
    ),
    trapped("execute a program", |c, _| {
        let path = c.text("/bin/true");
        c.call(Sysno::execve, &[path, 0, 0])
    }),
    trapped("execute by descriptor", |c, _| {
        let path = c.text("");
        c.call(Sysno::execveat, &[2, path, 0, 0, libc::AT_EMPTY_PATH as u64])
    }),
    // Others' words.
    refused(
        "write a read-only word",
        |c, s| match foreign(s) {
            Some(at) => {
                let old = c.byte(at);
                c.store(at, !old)
            }
            None => c.store(0, 1),
        },
        &[Fault],
    ),
    refused(
        "have the kernel write it",
        |c, s| c.call(Sysno::clock_gettime, &[0, foreign(s).unwrap_or(8)]),
        &[Refused(Errno::EFAULT)],
    ),
    refused(
        "make it writable",
        |c, s| {
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            c.call(
                Sysno::mprotect,
                &[foreign(s).unwrap_or(4096), 4096, rights as u64],
            )
        },
        &[Refused(Errno::EACCES), Refused(Errno::ENOMEM)],
    ),
    refused(
        "punch a hole into it",
        |c, s| {
            let advice = libc::MADV_REMOVE;
            c.call(Sysno::madvise, &[foreign(s).unwrap_or(4096), 4096, advice as u64])
        },
        &[Refused(Errno::EACCES), Refused(Errno::ENOMEM)],
    ),
    but_window(
        "open its file again",
        |c, s| {
            let range = s.foreign.as_ref().map_or((0, 0), |m| (m.start, m.end));
            open(
                c,
                &format!("/proc/self/map_files/{:x}-{:x}", range.0, range.1),
                libc::O_RDWR,
            )
        },
        &[Refused(Errno::EPERM), Refused(Errno::EACCES)],
    ),
    but_window(
        "truncate by descriptor",
        |c, _| c.call(Sysno::ftruncate, &[NO_FD, 0]),
        &[Refused(Errno::EBADF)],
    ),
    trapped("truncate by name", |c, s| {
        let path = c.text(&s.file);
        c.call(Sysno::truncate, &[path, 0])
    }),
    // Code.
    but_window(
        "map code that can be written",
        |c, _| {
            let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            c.call(Sysno::mmap, &[0, 4096, rights as u64, flags as u64, u64::MAX, 0])
        },
        &[Needed],
    ),
    but_window(
        "make the stack executable",
        |c, _| {
            let page = c.put(&[0]) & !4095;
            let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            c.call(Sysno::mprotect, &[page, 4096, rights as u64])
        },
        &[Needed],
    ),
    but_window(
        "a file in memory",
        |c, _| {
            let name = c.text("x");
            c.call(Sysno::memfd_create, &[name, 0])
        },
        &[Needed],
    ),
    // Rights and namespaces.
    trapped("become root", |c, _| c.call(Sysno::setuid, &[0])),
    trapped("take capabilities", |c, _| {
        let header = c.put(&[0; 32]);
        c.call(Sysno::capset, &[header, header])
    }),
    trapped("hide from debuggers", |c, _| {
        c.call(Sysno::prctl, &[libc::PR_SET_DUMPABLE as u64, 0])
    }),
    trapped("outlive the coordinator", |c, _| {
        c.call(Sysno::prctl, &[libc::PR_SET_PDEATHSIG as u64, 0])
    }),
    trapped("another filter", |c, _| c.call(Sysno::seccomp, &[1, 0, 0])),
    trapped("namespaces of its own", |c, _| {
        c.call(Sysno::unshare, &[libc::CLONE_NEWUSER as u64])
    }),
    trapped("another's namespace", |c, _| c.call(Sysno::setns, &[3, 0])),
    trapped("mount", |c, _| {
        let path = c.text("/mnt");
        let kind = c.text("tmpfs");
        c.call(Sysno::mount, &[kind, path, kind, 0, 0])
    }),
    trapped("unmount", |c, _| {
        let path = c.text("/mnt");
        c.call(Sysno::umount2, &[path, 0])
    }),
    trapped("change the root directory", |c, _| {
        let path = c.text("/mnt");
        c.call(Sysno::chroot, &[path])
    }),
    trapped("pivot the root directory", |c, _| {
        let path = c.text("/mnt");
        c.call(Sysno::pivot_root, &[path, path])
    }),
    // Large parts of the kernel.
    trapped("io_uring", |c, _| {
        let parameters = c.put(&[0; 120]);
        c.call(Sysno::io_uring_setup, &[1, parameters])
    }),
    trapped("bpf", |c, _| c.call(Sysno::bpf, &[0, 0, 0])),
    trapped("perf events", |c, _| {
        let attributes = c.put(&[0; 128]);
        c.call(Sysno::perf_event_open, &[attributes, 0, u64::MAX, u64::MAX, 0])
    }),
    trapped("page faults for another", |c, _| c.call(Sysno::userfaultfd, &[0])),
    trapped("the keyring", |c, _| c.call(Sysno::keyctl, &[0, 0, 0])),
    trapped("a key", |c, _| c.call(Sysno::add_key, &[0, 0, 0, 0, 0])),
    trapped("a message queue", |c, _| {
        let name = c.text("q");
        c.call(Sysno::mq_open, &[name, libc::O_CREAT as u64, 0o600, 0])
    }),
    trapped("a module for the kernel", |c, _| {
        c.call(Sysno::finit_module, &[0, 0, 0])
    }),
    trapped("another kernel", |c, _| c.call(Sysno::kexec_load, &[0, 0, 0, 0])),
    trapped("reboot", |c, _| c.call(Sysno::reboot, &[0, 0, 0, 0])),
    trapped("ports of the machine", |c, _| c.call(Sysno::iopl, &[3])),
    trapped("another personality", |c, _| {
        c.call(Sysno::personality, &[0x0040_0000])
    }),
    trapped("a call that does not exist", |c, _| c.call(Sysno::_sysctl, &[0])),
];
