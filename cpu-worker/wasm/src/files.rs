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
use wasmtime::{Caller, Error, Linker, Result};

use crate::host::Host;
use crate::memory::OutOfBounds;
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

/// Why a function has not done what it was called for.
enum Failure {
    /// The module is told so.
    Errno(Errno),
    /// The module ends.
    Trap(Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Trap(error)
    }
}

impl From<OutOfBounds> for Failure {
    fn from(e: OutOfBounds) -> Self {
        Self::Trap(trap(e))
    }
}

type Done<T = ()> = std::result::Result<T, Failure>;

/// Turns what a function gives into its answer.
fn answer(done: Done) -> Answer {
    match done {
        Ok(()) => Ok(0),
        Err(Failure::Errno(errno)) => Ok(errno.0.into()),
        Err(Failure::Trap(error)) => Err(error),
    }
}

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

fn call(c: &mut Guest<'_>, service: Service) -> Done<Vec<u8>> {
    Ok(c.data_mut().service(service)??)
}

fn descriptor<'c>(c: &'c mut Guest<'_>, fd: u32) -> std::result::Result<&'c mut Descriptor, Errno> {
    c.data_mut().files.get(fd).ok_or(Errno::BADF)
}

/// io-worker's number of a file.
fn file(c: &mut Guest<'_>, fd: u32) -> Done<u32> {
    Ok(descriptor(c, fd)?.number)
}

/// A part of the module's memory, checked.
fn span(c: &Guest<'_>, (at, len): (u32, u32)) -> Done<Span> {
    c.data().memory.check(at, len as usize)?;
    Ok(Span { at, len })
}

fn number(data: &[u8]) -> std::result::Result<u32, Errno> {
    let bytes = data.first_chunk().ok_or(Errno::IO)?;
    Ok(u32::from_le_bytes(*bytes))
}

/// Reads or writes the buffers of a list at `offset`; answers how many bytes.
fn transfer(c: &mut Guest<'_>, file: u32, list: (u32, u32), offset: u64, write: bool) -> Done<u32> {
    let mut done = 0;
    for (at, len) in buffers(c, list.0, list.1)? {
        let mut left = span(c, (at, len as u32))?;
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
            let n = match c.data_mut().service(service)?.and_then(|data| number(&data)) {
                Ok(n) => n.min(data.len),
                // What is done is done; the next call tells the error.
                Err(_) if done != 0 => return Ok(done),
                Err(errno) => return Err(errno.into()),
            };
            done += n;
            left.at += n;
            left.len -= n;
            if n < data.len {
                return Ok(done);
            }
        }
    }
    Ok(done)
}

/// `fd_read` and `fd_write` of files.
pub(crate) fn sequential(c: &mut Guest<'_>, fd: u32, list: (u32, u32), count: u32, write: bool) -> Answer {
    answer(sequential_inner(c, fd, list, count, write))
}

fn sequential_inner(c: &mut Guest<'_>, fd: u32, list: (u32, u32), count: u32, write: bool) -> Done {
    let d = descriptor(c, fd)?.clone();
    let append = write && d.append;
    let offset = if append { APPEND } else { d.offset };
    let n = transfer(c, d.number, list, offset, write)?;
    if !append {
        descriptor(c, fd)?.offset += u64::from(n);
    }
    Ok(c.data().memory.set_word(count, n)?)
}

fn positioned(c: &mut Guest<'_>, fd: u32, list: (u32, u32), offset: u64, count: u32, write: bool) -> Done {
    let file = file(c, fd)?;
    if offset > i64::MAX as u64 {
        return Err(Errno::INVAL.into());
    }
    let n = transfer(c, file, list, offset, write)?;
    Ok(c.data().memory.set_word(count, n)?)
}

/// [`open::FOLLOW`] or nothing, by `lookupflags`.
fn following(lookup: u32) -> u32 {
    if lookup & 1 != 0 { open::FOLLOW } else { 0 }
}

fn path_open(
    c: &mut Guest<'_>,
    fd: u32,
    path: (u32, u32),
    (lookup, oflags, rights, fdflags): (u32, u32, u64, u32),
    opened: u32,
) -> Done {
    let dir = file(c, fd)?;
    let path = span(c, path)?;
    // Where the answer goes is looked at before anything is made.
    span(c, (opened, 4))?;
    let mut flags = oflags & 15 | following(lookup);
    flags |= if rights & RIGHT_READ != 0 { open::READ } else { 0 };
    flags |= if rights & RIGHT_WRITE != 0 { open::WRITE } else { 0 };
    let data = call(c, Service::Open { dir, flags, path })?;
    let descriptor = Descriptor {
        number: number(&data)?,
        kind: data.get(4).copied().unwrap_or(0),
        offset: 0,
        append: fdflags & u32::from(FLAG_APPEND) != 0,
        rights,
        name: None,
    };
    let new = c.data_mut().files.add(descriptor);
    Ok(c.data().memory.set_word(opened, new)?)
}

fn fd_seek(c: &mut Guest<'_>, fd: u32, delta: i64, whence: u32, to: u32) -> Done {
    if fd < FIRST {
        return Err(Errno::SPIPE.into());
    }
    let d = descriptor(c, fd)?.clone();
    if d.kind == DIRECTORY {
        return Err(Errno::BADF.into());
    }
    let from = match whence {
        0 => 0,
        1 => d.offset,
        2 => {
            let stat = call(c, Service::Stat { file: d.number })?;
            stat.get(32..40)
                .map_or(0, |b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
        }
        _ => return Err(Errno::INVAL.into()),
    };
    let new = from.checked_add_signed(delta).filter(|n| *n <= i64::MAX as u64);
    let new = new.ok_or(Errno::INVAL)?;
    descriptor(c, fd)?.offset = new;
    Ok(c.data().memory.write(to, &new.to_le_bytes())?)
}

fn fd_fdstat_get(c: &mut Guest<'_>, fd: u32, at: u32) -> Done {
    // filetype, padding, flags, padding, rights, inheriting rights.
    let mut stat = [0; 24];
    let (kind, flags, rights) = match fd {
        0 => (CHARACTER_DEVICE, 0, RIGHT_READ),
        1 | 2 => (CHARACTER_DEVICE, 0, RIGHT_WRITE),
        _ => {
            let d = descriptor(c, fd)?;
            (d.kind, u16::from(d.append), d.rights)
        }
    };
    stat[0] = kind;
    stat[2..4].copy_from_slice(&flags.to_le_bytes());
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    if kind == DIRECTORY {
        stat[16..].copy_from_slice(&rights.to_le_bytes());
    }
    Ok(c.data().memory.write(at, &stat)?)
}

fn fd_fdstat_set_flags(c: &mut Guest<'_>, fd: u32, flags: u32) -> Done {
    if fd < FIRST {
        return Err(Errno::NOTSUP.into());
    }
    descriptor(c, fd)?.append = flags & u32::from(FLAG_APPEND) != 0;
    Ok(())
}

fn fd_filestat_get(c: &mut Guest<'_>, fd: u32, at: u32) -> Done {
    let mut stat = vec![0; FILESTAT];
    if fd < FIRST {
        stat[16] = CHARACTER_DEVICE;
    } else {
        let file = file(c, fd)?;
        stat = call(c, Service::Stat { file })?;
    }
    Ok(c.data().memory.write(at, &stat)?)
}

fn path_filestat_get(c: &mut Guest<'_>, fd: u32, lookup: u32, path: (u32, u32), at: u32) -> Done {
    let dir = file(c, fd)?;
    let (path, flags) = (span(c, path)?, following(lookup));
    let stat = call(c, Service::StatPath { dir, flags, path })?;
    Ok(c.data().memory.write(at, &stat)?)
}

fn fd_readdir(c: &mut Guest<'_>, fd: u32, list: (u32, u32), cookie: u64, used: u32) -> Done {
    let dir = file(c, fd)?;
    let mut data = span(c, list)?;
    data.len = data.len.min(MAX_DATA);
    let read = call(c, Service::List { dir, data, cookie })?;
    Ok(c.data().memory.set_word(used, number(&read)?)?)
}

fn path_rename(c: &mut Guest<'_>, fd: u32, path: (u32, u32), to_fd: u32, to: (u32, u32)) -> Done {
    let (dir, to_dir) = (file(c, fd)?, file(c, to_fd)?);
    let (path, to) = (span(c, path)?, span(c, to)?);
    if path.len.max(to.len) > u16::MAX.into() {
        return Err(Errno::NAMETOOLONG.into());
    }
    let rename = Service::Rename {
        dir,
        path,
        to_dir,
        to,
    };
    call(c, rename).map(drop)
}

/// What is asked of io-worker about a path in a directory.
type OfPath = fn(u32, Span) -> Service;

/// A call about a path that gives nothing but success.
fn on_path(c: &mut Guest<'_>, fd: u32, path: (u32, u32), service: OfPath) -> Done {
    let (dir, path) = (file(c, fd)?, span(c, path)?);
    call(c, service(dir, path)).map(drop)
}

/// A call about a file that gives nothing but success.
fn on_file(c: &mut Guest<'_>, fd: u32, service: impl Fn(u32) -> Service) -> Done {
    let file = file(c, fd)?;
    call(c, service(file)).map(drop)
}

/// Closes a file, and the descriptor whatever comes of that.
fn close(c: &mut Guest<'_>, fd: u32) -> Done {
    let closed = on_file(c, fd, |file| Service::Close { file });
    if let Some(slot) = c.data_mut().files.slot(fd)
        && !matches!(closed, Err(Failure::Trap(_)))
    {
        *slot = None;
    }
    closed
}

fn fd_renumber(c: &mut Guest<'_>, from: u32, to: u32) -> Done {
    descriptor(c, from)?;
    descriptor(c, to)?;
    if from == to {
        return Ok(());
    }
    let closed = close(c, to);
    let files = &mut c.data_mut().files;
    let moved = files.slot(from).and_then(Option::take);
    if let Some(slot) = files.slot(to) {
        *slot = moved;
    }
    closed
}

fn fd_prestat_get(c: &mut Guest<'_>, fd: u32, at: u32) -> Done {
    // The first descriptor that is none ends a program's search for directories.
    let name = descriptor(c, fd)?.name.as_ref().ok_or(Errno::BADF)?;
    let len = name.len() as u32;
    c.data().memory.set_word(at, 0)?;
    Ok(c.data().memory.set_word(at.wrapping_add(4), len)?)
}

fn fd_prestat_dir_name(c: &mut Guest<'_>, fd: u32, at: u32, len: u32) -> Done {
    let name = descriptor(c, fd)?.name.clone().ok_or(Errno::BADF)?;
    if name.len() > len as usize {
        return Err(Errno::NAMETOOLONG.into());
    }
    Ok(c.data().memory.write(at, name.as_bytes())?)
}

/// Adds a function of the standard: its name, its parameters, and what does it with the caller.
macro_rules! function {
    ($linker:expr, $name:expr, |$c:ident $(, $arg:tt: $ty:ty)*| $done:expr) => {
        $linker.func_wrap(MODULE, $name, move |mut caller: Guest<'_> $(, $arg: $ty)*| {
            let $c = &mut caller;
            answer($done)
        })?;
    };
}

/// Adds the functions.
///
/// # Errors
/// wasmtime's, for a name that is taken.
pub(crate) fn add_to(linker: &mut Linker<Host>) -> Result<()> {
    about_files(linker)?;
    about_paths(linker)?;
    unsupported(linker)
}

fn about_files(linker: &mut Linker<Host>) -> Result<()> {
    function!(linker, "fd_close", |c, fd: u32| if fd < FIRST {
        Ok(())
    } else {
        close(c, fd)
    });
    for (name, write) in [("fd_pread", false), ("fd_pwrite", true)] {
        function!(linker, name, |c,
                                 fd: u32,
                                 list: u32,
                                 n: u32,
                                 offset: u64,
                                 count: u32| {
            positioned(c, fd, (list, n), offset, count, write)
        });
    }
    function!(linker, "fd_seek", |c,
                                  fd: u32,
                                  delta: i64,
                                  whence: u32,
                                  to: u32| {
        fd_seek(c, fd, delta, whence, to)
    });
    function!(linker, "fd_tell", |c, fd: u32, to: u32| fd_seek(c, fd, 0, 1, to));
    function!(linker, "fd_fdstat_get", |c, fd: u32, at: u32| fd_fdstat_get(
        c, fd, at
    ));
    function!(linker, "fd_fdstat_set_flags", |c, fd: u32, flags: u32| {
        fd_fdstat_set_flags(c, fd, flags)
    });
    function!(linker, "fd_filestat_get", |c, fd: u32, at: u32| fd_filestat_get(
        c, fd, at
    ));
    function!(linker, "fd_filestat_set_size", |c, fd: u32, len: u64| {
        on_file(c, fd, |file| Service::SetSize { file, len })
    });
    for name in ["fd_sync", "fd_datasync"] {
        function!(linker, name, |c, fd: u32| on_file(c, fd, |file| Service::Sync {
            file
        }));
    }
    function!(linker, "fd_prestat_get", |c, fd: u32, at: u32| fd_prestat_get(
        c, fd, at
    ));
    function!(linker, "fd_prestat_dir_name", |c, fd: u32, at: u32, len: u32| {
        fd_prestat_dir_name(c, fd, at, len)
    });
    function!(
        linker,
        "fd_readdir",
        |c, fd: u32, at: u32, len: u32, cookie: u64, used: u32| {
            fd_readdir(c, fd, (at, len), cookie, used)
        }
    );
    function!(linker, "fd_renumber", |c, from: u32, to: u32| fd_renumber(
        c, from, to
    ));
    function!(linker, "fd_advise", |c, fd: u32, _: u64, _: u64, _: u32| {
        file(c, fd).map(drop)
    });
    Ok(())
}

fn about_paths(linker: &mut Linker<Host>) -> Result<()> {
    function!(
        linker,
        "path_open",
        |c,
         fd: u32,
         lookup: u32,
         path: u32,
         len: u32,
         oflags: u32,
         rights: u64,
         _inheriting: u64,
         fdflags: u32,
         opened: u32| path_open(c, fd, (path, len), (lookup, oflags, rights, fdflags), opened)
    );
    function!(
        linker,
        "path_filestat_get",
        |c, fd: u32, lookup: u32, path: u32, len: u32, at: u32| {
            path_filestat_get(c, fd, lookup, (path, len), at)
        }
    );
    let services: [(&str, OfPath); 3] = [
        ("path_create_directory", |dir, path| Service::MakeDir {
            dir,
            path,
        }),
        ("path_remove_directory", |dir, path| Service::RemoveDir {
            dir,
            path,
        }),
        ("path_unlink_file", |dir, path| Service::Unlink { dir, path }),
    ];
    for (name, service) in services {
        function!(linker, name, |c, fd: u32, path: u32, len: u32| {
            on_path(c, fd, (path, len), service)
        });
    }
    function!(
        linker,
        "path_rename",
        |c, fd: u32, path: u32, len: u32, to_fd: u32, to: u32, to_len: u32| {
            path_rename(c, fd, (path, len), to_fd, (to, to_len))
        }
    );
    Ok(())
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
