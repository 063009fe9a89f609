//! WASI preview 1's files: our own shims over calls to io-worker, which resolves paths beneath the directories that the
//! user gave. This process opens nothing.
//!
//! Offsets are kept here, files there; a file is a number. Descriptors 3, 4, … are the directories given, then what the
//! module opens. Rights are looked at when a file is opened, to tell reading from writing, and reported back; nothing
//! else is done with them.
#![allow(
    clippy::needless_pass_by_value,
    reason = "what the linker calls takes its caller by value"
)]

use quintet_protocol::wasm::service::{APPEND, MAX_DATA, open};
use quintet_protocol::wasm::{Errno, Service, Span};
use wasmtime::{Caller, Linker, Result};

use crate::host::Host;
use crate::wasi::{MODULE, buffers, trap};

/// `fdflags.append`.
const FLAG_APPEND: u16 = 1;
/// `rights.fd_read` and `rights.fd_write`.
const RIGHT_READ: u64 = 1 << 1;
const RIGHT_WRITE: u64 = 1 << 6;
/// All rights there are.
const RIGHTS: u64 = (1 << 30) - 1;
/// File types: character device, directory.
const CHARACTER_DEVICE: u8 = 2;
const DIRECTORY: u8 = 3;
/// Number of the first descriptor that is a file.
const FIRST: u32 = 3;
/// Bytes of a `filestat`.
const FILESTAT: usize = 64;

type Guest<'a> = Caller<'a, Host>;
/// What a function answers the module.
type Answer = Result<i32>;

/// A file or directory that the module has open.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    number: u32,
    kind: u8,
    offset: u64,
    append: bool,
    rights: u64,
    /// The name of a directory that was given.
    name: Option<String>,
}

/// Descriptors from 3 on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Descriptors(Vec<Option<Descriptor>>);

impl Descriptors {
    /// Adds a directory that was given.
    pub(crate) fn give(&mut self, number: u32, name: String) {
        self.add(Descriptor {
            number,
            kind: DIRECTORY,
            offset: 0,
            append: false,
            rights: RIGHTS,
            name: Some(name),
        });
    }

    fn add(&mut self, descriptor: Descriptor) -> u32 {
        let index = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if index == self.0.len() {
            self.0.push(None);
        }
        self.0[index] = Some(descriptor);
        FIRST + index as u32
    }

    fn slot(&mut self, fd: u32) -> Option<&mut Option<Descriptor>> {
        self.0.get_mut(fd.checked_sub(FIRST)? as usize)
    }

    fn get(&mut self, fd: u32) -> Option<&mut Descriptor> {
        self.slot(fd)?.as_mut()
    }
}

/// Turns what a function gives into its answer.
fn answer(result: Result<std::result::Result<(), Errno>>) -> Answer {
    Ok(match result? {
        Ok(()) => 0,
        Err(errno) => errno.0.into(),
    })
}

/// Unwraps a WASI error inside a function that gives `Result<Result<_, Errno>>`.
macro_rules! known {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(errno) => return Ok(Err(errno)),
        }
    };
}

type Known<T> = Result<std::result::Result<T, Errno>>;

fn call(c: &mut Guest<'_>, service: Service) -> Known<Vec<u8>> {
    c.data_mut().service(service)
}

fn descriptor<'c>(c: &'c mut Guest<'_>, fd: u32) -> std::result::Result<&'c mut Descriptor, Errno> {
    c.data_mut().files.get(fd).ok_or(Errno::BADF)
}

/// A part of the module's memory, checked.
fn span(c: &Guest<'_>, at: u32, len: u32) -> Result<Span> {
    c.data().memory.check(at, len as usize).map_err(trap)?;
    Ok(Span { at, len })
}

fn number(data: &[u8]) -> std::result::Result<u32, Errno> {
    let bytes = data.first_chunk().ok_or(Errno::IO)?;
    Ok(u32::from_le_bytes(*bytes))
}

/// Reads or writes the buffers of a list at `offset`; answers how many bytes.
fn transfer(c: &mut Guest<'_>, file: u32, list: (u32, u32), offset: u64, write: bool) -> Known<u32> {
    let mut done = 0;
    for (at, len) in buffers(c, list.0, list.1)? {
        let mut left = span(c, at, len as u32)?;
        while left.len != 0 {
            let data = Span {
                at: left.at,
                len: left.len.min(MAX_DATA),
            };
            let offset = if offset == APPEND {
                offset
            } else {
                offset.saturating_add(done.into())
            };
            let service = if write {
                Service::Write { file, data, offset }
            } else {
                Service::Read { file, data, offset }
            };
            let n = match call(c, service)?.and_then(|data| number(&data)) {
                Ok(n) => n.min(data.len),
                // What is done is done; the next call tells the error.
                Err(_) if done != 0 => return Ok(Ok(done)),
                Err(errno) => return Ok(Err(errno)),
            };
            done += n;
            left.at += n;
            left.len -= n;
            if n < data.len {
                return Ok(Ok(done));
            }
        }
    }
    Ok(Ok(done))
}

/// `fd_read` and `fd_write` of files.
pub(crate) fn sequential(c: &mut Guest<'_>, fd: u32, list: (u32, u32), count: u32, write: bool) -> Answer {
    let inner = |c: &mut Guest<'_>| {
        let d = known!(descriptor(c, fd)).clone();
        let append = write && d.append;
        let offset = if append { APPEND } else { d.offset };
        let n = known!(transfer(c, d.number, list, offset, write)?);
        if !append {
            known!(descriptor(c, fd)).offset += u64::from(n);
        }
        c.data().memory.set_word(count, n).map_err(trap)?;
        Ok(Ok(()))
    };
    answer(inner(c))
}

fn positioned(mut c: Guest<'_>, fd: u32, list: (u32, u32), offset: u64, count: u32, write: bool) -> Answer {
    let inner = |c: &mut Guest<'_>| {
        let file = known!(descriptor(c, fd)).number;
        if offset > i64::MAX as u64 {
            return Ok(Err(Errno::INVAL));
        }
        let n = known!(transfer(c, file, list, offset, write)?);
        c.data().memory.set_word(count, n).map_err(trap)?;
        Ok(Ok(()))
    };
    answer(inner(&mut c))
}

fn path_open(
    mut c: Guest<'_>,
    fd: u32,
    lookup: u32,
    path: (u32, u32),
    how: (u32, u64, u32),
    opened: u32,
) -> Answer {
    let (oflags, rights, fdflags) = how;
    let inner = |c: &mut Guest<'_>| {
        let dir = known!(descriptor(c, fd)).number;
        let path = span(c, path.0, path.1)?;
        // Where the answer goes is looked at before anything is made.
        span(c, opened, 4)?;
        let mut flags = oflags & 15;
        flags |= if rights & RIGHT_READ != 0 { open::READ } else { 0 };
        flags |= if rights & RIGHT_WRITE != 0 { open::WRITE } else { 0 };
        flags |= if lookup & 1 != 0 { open::FOLLOW } else { 0 };
        let data = known!(call(c, Service::Open { dir, flags, path })?);
        let number = known!(number(&data));
        let descriptor = Descriptor {
            number,
            kind: data.get(4).copied().unwrap_or(0),
            offset: 0,
            append: fdflags & u32::from(FLAG_APPEND) != 0,
            rights,
            name: None,
        };
        let new = c.data_mut().files.add(descriptor);
        c.data().memory.set_word(opened, new).map_err(trap)?;
        Ok(Ok(()))
    };
    answer(inner(&mut c))
}

fn fd_seek(mut c: Guest<'_>, fd: u32, delta: i64, whence: u32, to: u32) -> Answer {
    if fd < FIRST {
        return Ok(Errno::SPIPE.0.into());
    }
    let inner = |c: &mut Guest<'_>| {
        let d = known!(descriptor(c, fd)).clone();
        if d.kind == DIRECTORY {
            return Ok(Err(Errno::BADF));
        }
        let from = match whence {
            0 => 0,
            1 => d.offset,
            2 => {
                let stat = known!(call(c, Service::Stat { file: d.number })?);
                stat.get(32..40)
                    .map_or(0, |b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
            }
            _ => return Ok(Err(Errno::INVAL)),
        };
        let new = from.checked_add_signed(delta).filter(|n| *n <= i64::MAX as u64);
        let new = known!(new.ok_or(Errno::INVAL));
        known!(descriptor(c, fd)).offset = new;
        c.data().memory.write(to, &new.to_le_bytes()).map_err(trap)?;
        Ok(Ok(()))
    };
    answer(inner(&mut c))
}

fn fd_fdstat_get(mut c: Guest<'_>, fd: u32, at: u32) -> Answer {
    // filetype, padding, flags, padding, rights, inheriting rights.
    let mut stat = [0; 24];
    let (kind, flags, rights) = if fd < FIRST {
        (
            CHARACTER_DEVICE,
            0,
            if fd == 0 { RIGHT_READ } else { RIGHT_WRITE },
        )
    } else {
        match descriptor(&mut c, fd) {
            Ok(d) => (d.kind, u16::from(d.append), d.rights),
            Err(errno) => return Ok(errno.0.into()),
        }
    };
    stat[0] = kind;
    stat[2..4].copy_from_slice(&flags.to_le_bytes());
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    if kind == DIRECTORY {
        stat[16..].copy_from_slice(&rights.to_le_bytes());
    }
    c.data().memory.write(at, &stat).map_err(trap)?;
    Ok(0)
}

fn fd_filestat_get(mut c: Guest<'_>, fd: u32, at: u32) -> Answer {
    let inner = |c: &mut Guest<'_>| {
        let mut stat = vec![0; FILESTAT];
        if fd < FIRST {
            stat[16] = CHARACTER_DEVICE;
        } else {
            let file = known!(descriptor(c, fd)).number;
            stat = known!(call(c, Service::Stat { file })?);
        }
        c.data().memory.write(at, &stat).map_err(trap)?;
        Ok(Ok(()))
    };
    answer(inner(&mut c))
}

/// A call about a path that gives nothing but success.
fn on_path(mut c: Guest<'_>, fd: u32, path: (u32, u32), service: fn(u32, Span) -> Service) -> Answer {
    let inner = |c: &mut Guest<'_>| {
        let dir = known!(descriptor(c, fd)).number;
        let path = span(c, path.0, path.1)?;
        known!(call(c, service(dir, path))?);
        Ok(Ok(()))
    };
    answer(inner(&mut c))
}

/// A call about a file that gives nothing but success.
fn on_file(mut c: Guest<'_>, fd: u32, service: impl Fn(u32) -> Service) -> Answer {
    let inner = |c: &mut Guest<'_>| {
        let file = known!(descriptor(c, fd)).number;
        known!(call(c, service(file))?);
        Ok(Ok(()))
    };
    answer(inner(&mut c))
}

fn fd_close(mut c: Guest<'_>, fd: u32) -> Answer {
    if fd < FIRST {
        return Ok(0);
    }
    let answer = on_file_ref(&mut c, fd)?;
    if let Some(slot) = c.data_mut().files.slot(fd) {
        *slot = None;
    }
    Ok(answer)
}

fn on_file_ref(c: &mut Guest<'_>, fd: u32) -> Answer {
    let inner = |c: &mut Guest<'_>| {
        let file = known!(descriptor(c, fd)).number;
        known!(call(c, Service::Close { file })?);
        Ok(Ok(()))
    };
    answer(inner(c))
}

/// Adds the functions.
///
/// # Errors
/// wasmtime's, for a name that is taken.
#[allow(
    clippy::too_many_lines,
    reason = "a list of functions, each named with its parameters as the standard has them"
)]
pub(crate) fn add_to(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "path_open",
        |c: Guest<'_>,
         fd: u32,
         lookup: u32,
         path: u32,
         len: u32,
         oflags: u32,
         rights: u64,
         _inheriting: u64,
         fdflags: u32,
         opened: u32| { path_open(c, fd, lookup, (path, len), (oflags, rights, fdflags), opened) },
    )?;
    linker.func_wrap(MODULE, "fd_close", fd_close)?;
    linker.func_wrap(
        MODULE,
        "fd_pread",
        |c: Guest<'_>, fd: u32, list: u32, n: u32, offset: u64, count: u32| {
            positioned(c, fd, (list, n), offset, count, false)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_pwrite",
        |c: Guest<'_>, fd: u32, list: u32, n: u32, offset: u64, count: u32| {
            positioned(c, fd, (list, n), offset, count, true)
        },
    )?;
    linker.func_wrap(MODULE, "fd_seek", fd_seek)?;
    linker.func_wrap(MODULE, "fd_tell", |c: Guest<'_>, fd: u32, to: u32| {
        fd_seek(c, fd, 0, 1, to)
    })?;
    linker.func_wrap(MODULE, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(
        MODULE,
        "fd_fdstat_set_flags",
        |mut c: Guest<'_>, fd: u32, flags: u32| {
            if fd < FIRST {
                return i32::from(Errno::NOTSUP.0);
            }
            match descriptor(&mut c, fd) {
                Ok(d) => {
                    d.append = flags & u32::from(FLAG_APPEND) != 0;
                    0
                }
                Err(errno) => errno.0.into(),
            }
        },
    )?;
    linker.func_wrap(MODULE, "fd_filestat_get", fd_filestat_get)?;
    linker.func_wrap(
        MODULE,
        "fd_filestat_set_size",
        |c: Guest<'_>, fd: u32, len: u64| on_file(c, fd, |file| Service::SetSize { file, len }),
    )?;
    for name in ["fd_sync", "fd_datasync"] {
        linker.func_wrap(MODULE, name, |c: Guest<'_>, fd: u32| {
            on_file(c, fd, |file| Service::Sync { file })
        })?;
    }
    linker.func_wrap(MODULE, "fd_prestat_get", |mut c: Guest<'_>, fd: u32, at: u32| {
        // The first descriptor that is none ends a program's search for directories.
        let name = descriptor(&mut c, fd)
            .ok()
            .and_then(|d| d.name.as_ref().map(String::len));
        let Some(len) = name else {
            return Ok(i32::from(Errno::BADF.0));
        };
        c.data().memory.set_word(at, 0).map_err(trap)?;
        c.data()
            .memory
            .set_word(at.wrapping_add(4), len as u32)
            .map_err(trap)?;
        Ok(0)
    })?;
    linker.func_wrap(
        MODULE,
        "fd_prestat_dir_name",
        |mut c: Guest<'_>, fd: u32, at: u32, len: u32| {
            let Some(name) = descriptor(&mut c, fd).ok().and_then(|d| d.name.clone()) else {
                return Ok(i32::from(Errno::BADF.0));
            };
            if name.len() > len as usize {
                return Ok(Errno::NAMETOOLONG.0.into());
            }
            c.data().memory.write(at, name.as_bytes()).map_err(trap)?;
            Ok(0)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_filestat_get",
        |mut c: Guest<'_>, fd: u32, lookup: u32, path: u32, len: u32, at: u32| {
            let inner = |c: &mut Guest<'_>| {
                let dir = known!(descriptor(c, fd)).number;
                let path = span(c, path, len)?;
                let flags = if lookup & 1 != 0 { open::FOLLOW } else { 0 };
                let stat = known!(call(c, Service::StatPath { dir, flags, path })?);
                c.data().memory.write(at, &stat).map_err(trap)?;
                Ok(Ok(()))
            };
            answer(inner(&mut c))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_readdir",
        |mut c: Guest<'_>, fd: u32, at: u32, len: u32, cookie: u64, used: u32| {
            let inner = |c: &mut Guest<'_>| {
                let dir = known!(descriptor(c, fd)).number;
                let mut data = span(c, at, len)?;
                data.len = data.len.min(MAX_DATA);
                let read = known!(call(c, Service::List { dir, data, cookie })?);
                c.data()
                    .memory
                    .set_word(used, known!(number(&read)))
                    .map_err(trap)?;
                Ok(Ok(()))
            };
            answer(inner(&mut c))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_create_directory",
        |c: Guest<'_>, fd: u32, path: u32, len: u32| {
            on_path(c, fd, (path, len), |dir, path| Service::MakeDir { dir, path })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_remove_directory",
        |c: Guest<'_>, fd: u32, path: u32, len: u32| {
            on_path(c, fd, (path, len), |dir, path| Service::RemoveDir { dir, path })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_unlink_file",
        |c: Guest<'_>, fd: u32, path: u32, len: u32| {
            on_path(c, fd, (path, len), |dir, path| Service::Unlink { dir, path })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_rename",
        |mut c: Guest<'_>, fd: u32, path: u32, len: u32, to_fd: u32, to: u32, to_len: u32| {
            let inner = |c: &mut Guest<'_>| {
                let dir = known!(descriptor(c, fd)).number;
                let to_dir = known!(descriptor(c, to_fd)).number;
                let (path, to) = (span(c, path, len)?, span(c, to, to_len)?);
                if path.len.max(to.len) > u16::MAX.into() {
                    return Ok(Err(Errno::NAMETOOLONG));
                }
                known!(call(
                    c,
                    Service::Rename {
                        dir,
                        path,
                        to_dir,
                        to
                    }
                )?);
                Ok(Ok(()))
            };
            answer(inner(&mut c))
        },
    )?;
    linker.func_wrap(MODULE, "fd_renumber", |mut c: Guest<'_>, from: u32, to: u32| {
        if descriptor(&mut c, from).is_err() || descriptor(&mut c, to).is_err() {
            return Ok(i32::from(Errno::BADF.0));
        }
        if from == to {
            return Ok(0);
        }
        let answer = on_file_ref(&mut c, to)?;
        let files = &mut c.data_mut().files;
        let moved = files.slot(from).and_then(Option::take);
        if let Some(slot) = files.slot(to) {
            *slot = moved;
        }
        Ok(answer)
    })?;
    linker.func_wrap(
        MODULE,
        "fd_advise",
        |mut c: Guest<'_>, fd: u32, _: u64, _: u64, _: u32| {
            descriptor(&mut c, fd).map_or_else(|e| i32::from(e.0), |_| 0)
        },
    )?;
    unsupported(linker)
}

/// Links, times and room in advance: programs that want them are told that they may not.
fn unsupported(linker: &mut Linker<Host>) -> Result<()> {
    let no = i32::from(Errno::NOTSUP.0);
    linker.func_wrap(MODULE, "fd_allocate", move |_: u32, _: u64, _: u64| no)?;
    linker.func_wrap(
        MODULE,
        "fd_filestat_set_times",
        move |_: u32, _: u64, _: u64, _: u32| no,
    )?;
    linker.func_wrap(
        MODULE,
        "path_filestat_set_times",
        move |_: u32, _: u32, _: u32, _: u32, _: u64, _: u64, _: u32| no,
    )?;
    linker.func_wrap(
        MODULE,
        "path_link",
        move |_: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32| no,
    )?;
    linker.func_wrap(
        MODULE,
        "path_symlink",
        move |_: u32, _: u32, _: u32, _: u32, _: u32| no,
    )?;
    linker.func_wrap(
        MODULE,
        "path_readlink",
        move |_: u32, _: u32, _: u32, _: u32, _: u32, _: u32| no,
    )?;
    Ok(())
}
