//! Files beneath the directories that the user gave.
//!
//! Every path is resolved by the kernel (`openat2` with `RESOLVE_BENEATH`): absolute paths, `..` and symbolic links that
//! lead outside are refused there, also while somebody moves directories about. What works on a name (`unlink`, `mkdir`,
//! …) works on the last part of the path in its directory, which is opened like that first. Walking the path here was
//! rejected: between a check and its use anything may change. Besides, Landlock confines the whole process to the
//! same directories.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::ram::GuestRam;
use quintet_protocol::wasm::service::{APPEND, MAX_DATA, MAX_PATH, open};
use quintet_protocol::wasm::{Errno, Service, Span};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno as HostErrno;

use super::list::Listing;

/// Most files that a module may have open.
const MOST: usize = 64;
/// How often a resolution is repeated that somebody's renaming disturbed.
const TRIES: usize = 8;
/// `filetype` of WASI: what is neither file, directory nor link.
const UNKNOWN: u8 = 0;
const DIRECTORY: u8 = 3;
const REGULAR: u8 = 4;
const LINK: u8 = 7;

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    /// What is in it, as of the start of the listing.
    listing: Option<Listing>,
}

/// The directories given, and what the module has opened.
#[derive(Debug)]
pub(super) struct Files {
    names: Vec<String>,
    dirs: Vec<Open>,
    opened: Vec<Option<Open>>,
    /// Upper half of the numbers of opened files.
    process: u32,
}

type Answer = Result<Vec<u8>, Errno>;

impl Files {
    pub(super) fn new(dirs: Vec<(String, OwnedFd)>, process: u32) -> Self {
        let (names, dirs) = dirs
            .into_iter()
            .map(|(name, fd)| (name, Open { fd, listing: None }))
            .unzip();
        Self {
            names,
            dirs,
            opened: Vec::new(),
            // Never 0, which is that of the directories given.
            process: (process % 0x7FFF + 1) << 16,
        }
    }

    pub(super) fn close_all(&mut self) {
        self.opened.clear();
        for dir in &mut self.dirs {
            dir.listing = None;
        }
    }

    fn entry(&mut self, number: u32) -> Result<&mut Open, Errno> {
        let index = (number & 0xFFFF) as usize;
        match number & !0xFFFF {
            0 => self.dirs.get_mut(index).ok_or(Errno::BADF),
            process if process == self.process => self
                .opened
                .get_mut(index)
                .and_then(Option::as_mut)
                .ok_or(Errno::BADF),
            // A predecessor's: it was open, and died with it.
            _ => Err(Errno::IO),
        }
    }

    fn fd(&mut self, number: u32) -> Result<BorrowedFd<'_>, Errno> {
        Ok(self.entry(number)?.fd.as_fd())
    }

    /// Does what a call asks for.
    pub(super) fn call(&mut self, service: Service, ram: &GuestRam) -> Answer {
        match service {
            Service::DirName { dir } => {
                let name = self.names.get(dir as usize).ok_or(Errno::BADF)?;
                Ok(name.as_bytes().to_vec())
            }
            Service::Open { dir, flags, path } => {
                let path = read_path(ram, path)?;
                self.open(dir, flags, &path)
            }
            Service::Close { file } => {
                self.entry(file)?;
                if file & !0xFFFF != 0 {
                    self.opened[(file & 0xFFFF) as usize] = None;
                }
                Ok(Vec::new())
            }
            Service::Read { file, data, offset } => {
                let mut bytes = vec![0; data.len.min(MAX_DATA) as usize];
                let n = rustix::io::pread(self.fd(file)?, &mut bytes, offset).map_err(errno)?;
                put(ram, data, &bytes[..n])
            }
            Service::Write { file, data, offset } => {
                let bytes = get(ram, data, MAX_DATA)?;
                let fd = self.fd(file)?;
                let at = match offset {
                    APPEND => rustix::fs::fstat(fd).map_err(errno)?.st_size as u64,
                    at => at,
                };
                let n = rustix::io::pwrite(fd, &bytes, at).map_err(errno)?;
                Ok((n as u32).to_le_bytes().to_vec())
            }
            Service::Stat { file } => {
                let stat = rustix::fs::fstat(self.fd(file)?).map_err(errno)?;
                Ok(filestat(&stat))
            }
            Service::StatPath { dir, flags, path } => {
                let path = read_path(ram, path)?;
                let mut how = OFlags::PATH;
                how.set(OFlags::NOFOLLOW, flags & open::FOLLOW == 0);
                let fd = beneath(self.fd(dir)?, &path, how, Mode::empty())?;
                Ok(filestat(&rustix::fs::fstat(fd).map_err(errno)?))
            }
            Service::List { dir, data, cookie } => {
                let entry = self.entry(dir)?;
                let old = entry.listing.take().filter(|_| cookie != 0);
                let listing = match old {
                    Some(listing) => listing,
                    None => Listing::read(entry.fd.as_fd())?,
                };
                let bytes = listing.from(cookie, data.len.min(MAX_DATA) as usize);
                entry.listing = Some(listing);
                put(ram, data, &bytes)
            }
            Service::MakeDir { dir, path } => {
                let path = read_path(ram, path)?;
                let (parent, name) = self.parent(dir, &path)?;
                done(rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o777)))
            }
            Service::RemoveDir { dir, path } => {
                let path = read_path(ram, path)?;
                let (parent, name) = self.parent(dir, &path)?;
                done(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
            }
            Service::Unlink { dir, path } => {
                let path = read_path(ram, path)?;
                if path.ends_with(b"/") {
                    return Err(Errno::NOTDIR);
                }
                let (parent, name) = self.parent(dir, &path)?;
                done(rustix::fs::unlinkat(parent, name, AtFlags::empty()))
            }
            Service::Rename {
                dir,
                path,
                to_dir,
                to,
            } => {
                let (path, to) = (read_path(ram, path)?, read_path(ram, to)?);
                let (from_parent, from_name) = self.parent(dir, &path)?;
                let (to_parent, to_name) = self.parent(to_dir, &to)?;
                done(rustix::fs::renameat(from_parent, from_name, to_parent, to_name))
            }
            Service::SetSize { file, len } => done(rustix::fs::ftruncate(self.fd(file)?, len)),
            Service::Sync { file } => done(rustix::fs::fsync(self.fd(file)?)),
            Service::Begin | Service::Input | Service::Sound { .. } | Service::SoundRate => Err(Errno::NOSYS),
        }
    }

    fn open(&mut self, dir: u32, flags: u32, path: &[u8]) -> Answer {
        let has = |bit| flags & bit != 0;
        // A pipe would block this process, and a terminal would become its own.
        let mut how = OFlags::NONBLOCK | OFlags::NOCTTY;
        how.set(OFlags::CREATE, has(open::CREATE));
        how.set(OFlags::DIRECTORY, has(open::DIRECTORY));
        how.set(OFlags::EXCL, has(open::EXCLUSIVE));
        how.set(OFlags::TRUNC, has(open::TRUNCATE));
        how.set(OFlags::NOFOLLOW, !has(open::FOLLOW));
        how |= match (has(open::READ), has(open::WRITE)) {
            (_, false) => OFlags::RDONLY,
            (false, true) => OFlags::WRONLY,
            (true, true) => OFlags::RDWR,
        };
        let mode = if has(open::CREATE) { 0o666 } else { 0 };
        let free = self.opened.iter().position(Option::is_none);
        let index = match free {
            Some(index) => index,
            None if self.opened.len() < MOST => {
                self.opened.push(None);
                self.opened.len() - 1
            }
            None => return Err(Errno::MFILE),
        };
        let fd = beneath(self.fd(dir)?, path, how, Mode::from_raw_mode(mode))?;
        let kind = file_type(rustix::fs::fstat(&fd).map_err(errno)?.st_mode);
        if kind != REGULAR && kind != DIRECTORY {
            // Devices, pipes and sockets are doors to somewhere else.
            return Err(Errno::ACCES);
        }
        self.opened[index] = Some(Open { fd, listing: None });
        let mut answer = (self.process | index as u32).to_le_bytes().to_vec();
        answer.push(kind);
        Ok(answer)
    }

    /// The directory that the last part of a path is in, and that part.
    fn parent<'p>(&mut self, dir: u32, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), Errno> {
        let end = path.iter().rposition(|b| *b != b'/').ok_or(Errno::INVAL)?;
        let path = &path[..=end];
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            None => (&b"."[..], path),
            Some(0) => return Err(Errno::NOTCAPABLE),
            Some(slash) => (&path[..slash], &path[slash + 1..]),
        };
        match name {
            b".." => return Err(Errno::NOTCAPABLE),
            b"." => return Err(Errno::INVAL),
            _ => {}
        }
        let how = OFlags::PATH | OFlags::DIRECTORY;
        Ok((beneath(self.fd(dir)?, parent, how, Mode::empty())?, name))
    }
}

/// Opens what lies beneath a directory, and nothing else.
fn beneath(dir: BorrowedFd<'_>, path: &[u8], how: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match rustix::fs::openat2(dir, path, how | OFlags::CLOEXEC, mode, resolve) {
            Err(HostErrno::AGAIN | HostErrno::INTR) => {}
            // The kernel's word for a way that leads outside.
            Err(HostErrno::XDEV) => return Err(Errno::NOTCAPABLE),
            other => return other.map_err(errno),
        }
    }
    Err(Errno::BUSY)
}

fn read_path(ram: &GuestRam, path: Span) -> Result<Vec<u8>, Errno> {
    if path.len > MAX_PATH {
        return Err(Errno::NAMETOOLONG);
    }
    let bytes = get(ram, path, MAX_PATH)?;
    if bytes.is_empty() {
        return Err(Errno::NOENT);
    }
    if bytes.contains(&0) {
        return Err(Errno::ILSEQ);
    }
    Ok(bytes)
}

fn get(ram: &GuestRam, data: Span, most: u32) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; data.len.min(most) as usize];
    ram.read(GuestPhys(data.at.into()), &mut bytes)
        .map_err(|_| Errno::INVAL)?;
    Ok(bytes)
}

/// Puts what was read where it belongs; answers its length.
fn put(ram: &GuestRam, data: Span, bytes: &[u8]) -> Answer {
    ram.write(GuestPhys(data.at.into()), bytes)
        .map_err(|_| Errno::INVAL)?;
    Ok((bytes.len() as u32).to_le_bytes().to_vec())
}

fn done(result: Result<(), HostErrno>) -> Answer {
    result.map(|()| Vec::new()).map_err(errno)
}

/// The WASI file type of a mode.
pub(super) fn file_type(mode: u32) -> u8 {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => REGULAR,
        FileType::Directory => DIRECTORY,
        FileType::Symlink => LINK,
        _ => UNKNOWN,
    }
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the fields' widths differ between architectures"
)]
fn filestat(stat: &Stat) -> Vec<u8> {
    let time = |seconds: i64, nanos: u64| (seconds.max(0) as u64).wrapping_mul(1_000_000_000) + nanos;
    let words = [
        stat.st_dev as u64,
        stat.st_ino as u64,
        file_type(stat.st_mode).into(),
        stat.st_nlink as u64,
        stat.st_size as u64,
        time(stat.st_atime, stat.st_atime_nsec),
        time(stat.st_mtime, stat.st_mtime_nsec),
        time(stat.st_ctime, stat.st_ctime_nsec),
    ];
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// The host's errors in WASI's numbers.
pub(super) fn errno(host: HostErrno) -> Errno {
    match host {
        HostErrno::ACCESS => Errno::ACCES,
        HostErrno::BADF => Errno::BADF,
        HostErrno::BUSY => Errno::BUSY,
        HostErrno::EXIST => Errno::EXIST,
        HostErrno::FBIG => Errno::FBIG,
        HostErrno::INVAL => Errno::INVAL,
        HostErrno::ISDIR => Errno::ISDIR,
        HostErrno::LOOP => Errno::LOOP,
        HostErrno::MFILE | HostErrno::NFILE => Errno::MFILE,
        HostErrno::NAMETOOLONG => Errno::NAMETOOLONG,
        HostErrno::NOENT => Errno::NOENT,
        HostErrno::NOSPC | HostErrno::DQUOT => Errno::NOSPC,
        HostErrno::NOTDIR => Errno::NOTDIR,
        HostErrno::NOTEMPTY => Errno::NOTEMPTY,
        HostErrno::OPNOTSUPP => Errno::NOTSUP,
        HostErrno::PERM => Errno::PERM,
        HostErrno::ROFS => Errno::ROFS,
        HostErrno::SPIPE | HostErrno::NXIO => Errno::SPIPE,
        HostErrno::TXTBSY => Errno::TXTBSY,
        HostErrno::XDEV => Errno::XDEV,
        _ => Errno::IO,
    }
}
