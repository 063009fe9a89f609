//! What a module asks of io-worker: files beneath the directories it was given, host input, sound.
//!
//! A call is a command on the vCPU's ring: a number and three words. Paths and data lie in the module's memory, which
//! is guest RAM: the call says where, cpu-worker has checked that it is inside, and io-worker reads or writes it there.
//! The reply holds an [`Errno`] and what the call gives. A call that is repeated after a death of io-worker does what it
//! did before, except that samples may be heard twice; files that were open are gone, and using one is [`Errno::IO`].

/// An error number of WASI preview 1 (`errno` in `wasi_snapshot_preview1.witx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub u16);

impl Errno {
    /// It worked.
    pub const SUCCESS: Self = Self(0);
    /// Permission denied.
    pub const ACCES: Self = Self(2);
    /// No such descriptor.
    pub const BADF: Self = Self(8);
    /// Device or file busy.
    pub const BUSY: Self = Self(10);
    /// It exists.
    pub const EXIST: Self = Self(20);
    /// Too large.
    pub const FBIG: Self = Self(22);
    /// Not a valid string.
    pub const ILSEQ: Self = Self(25);
    /// Invalid argument.
    pub const INVAL: Self = Self(28);
    /// The device, or the process that served the file, failed.
    pub const IO: Self = Self(29);
    /// Is a directory.
    pub const ISDIR: Self = Self(31);
    /// Too many symbolic links.
    pub const LOOP: Self = Self(32);
    /// Too many open files.
    pub const MFILE: Self = Self(33);
    /// Too long a name.
    pub const NAMETOOLONG: Self = Self(37);
    /// No such file.
    pub const NOENT: Self = Self(44);
    /// No space.
    pub const NOSPC: Self = Self(51);
    /// There is no such function.
    pub const NOSYS: Self = Self(52);
    /// Not a directory.
    pub const NOTDIR: Self = Self(54);
    /// Directory not empty.
    pub const NOTEMPTY: Self = Self(55);
    /// Not supported.
    pub const NOTSUP: Self = Self(58);
    /// Not permitted.
    pub const PERM: Self = Self(63);
    /// Read-only file system.
    pub const ROFS: Self = Self(69);
    /// Not seekable.
    pub const SPIPE: Self = Self(70);
    /// Text file busy.
    pub const TXTBSY: Self = Self(74);
    /// Between two file systems.
    pub const XDEV: Self = Self(75);
    /// Outside the directory that was given.
    pub const NOTCAPABLE: Self = Self(76);
}

/// Bytes of the module's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub at: u32,
    /// Bytes.
    pub len: u32,
}

impl Span {
    fn word(self) -> u64 {
        pair(self.at, self.len)
    }

    fn from_word(word: u64) -> Self {
        let (at, len) = halves(word);
        Self { at, len }
    }
}

/// Most bytes of a path.
pub const MAX_PATH: u32 = 4096;
/// Most bytes that one call reads or writes.
pub const MAX_DATA: u32 = 64 << 10;
/// Most directories that a machine gives its modules.
pub const MAX_DIRS: u32 = 64;
/// Offset of a [`Service::Write`] that says: at the end.
pub const APPEND: u64 = u64::MAX;

/// Bits of the flags of [`Service::Open`]. The low four are `oflags` of WASI.
pub mod open {
    /// Create it if it is not there.
    pub const CREATE: u32 = 1;
    /// It has to be a directory.
    pub const DIRECTORY: u32 = 2;
    /// It must not be there.
    pub const EXCLUSIVE: u32 = 4;
    /// Cut it to nothing.
    pub const TRUNCATE: u32 = 8;
    /// For reading.
    pub const READ: u32 = 0x10;
    /// For writing.
    pub const WRITE: u32 = 0x20;
    /// Follow a symbolic link at its end.
    pub const FOLLOW: u32 = 0x40;
}

/// A call. Files and directories are numbers of io-worker's; those given by `--dir` are 0, 1, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Another module starts: everything that the last one opened is closed, and its sound ends.
    Begin,
    /// The name of a directory given by `--dir`: replied to with its bytes; [`Errno::BADF`] behind the last.
    DirName {
        /// Its number.
        dir: u32,
    },
    /// Opens a file or directory beneath a directory: replied to with its number (u32) and its WASI file type (u8).
    Open {
        /// The directory.
        dir: u32,
        /// Bits of [`open`].
        flags: u32,
        /// The path.
        path: Span,
    },
    /// Closes a file.
    Close {
        /// The file.
        file: u32,
    },
    /// Reads at an offset: replied to with the number of bytes (u32), 0 at the end.
    Read {
        /// The file.
        file: u32,
        /// Where to.
        data: Span,
        /// Where from.
        offset: u64,
    },
    /// Writes at an offset: replied to with the number of bytes (u32).
    Write {
        /// The file.
        file: u32,
        /// Where from.
        data: Span,
        /// Where to; [`APPEND`] for the end.
        offset: u64,
    },
    /// What a file is: replied to with a `filestat` of WASI, 64 bytes.
    Stat {
        /// The file.
        file: u32,
    },
    /// What a path leads to: as [`Self::Stat`].
    StatPath {
        /// The directory.
        dir: u32,
        /// [`open::FOLLOW`] or nothing.
        flags: u32,
        /// The path.
        path: Span,
    },
    /// Lists a directory from a place on, as `dirent`s of WASI and the names behind each, the last one cut where the
    /// space ends: replied to with the number of bytes (u32).
    List {
        /// The directory.
        dir: u32,
        /// Where to.
        data: Span,
        /// 0, or the place behind an entry.
        cookie: u64,
    },
    /// Makes a directory.
    MakeDir {
        /// The directory that it is in.
        dir: u32,
        /// The path.
        path: Span,
    },
    /// Removes an empty directory.
    RemoveDir {
        /// The directory that it is in.
        dir: u32,
        /// The path.
        path: Span,
    },
    /// Removes a file.
    Unlink {
        /// The directory that it is in.
        dir: u32,
        /// The path.
        path: Span,
    },
    /// Gives a file another path. Paths here have 65535 bytes at most.
    Rename {
        /// The directory that it is in.
        dir: u32,
        /// The path.
        path: Span,
        /// The directory that it comes into.
        to_dir: u32,
        /// Its new path.
        to: Span,
    },
    /// Sets a file's length.
    SetSize {
        /// The file.
        file: u32,
        /// Bytes.
        len: u64,
    },
    /// Makes a file durable.
    Sync {
        /// The file.
        file: u32,
    },
    /// The next thing that a user did: replied to with its kind (u32, see [`input`]) and two numbers (i32).
    Input,
    /// Puts frames into the playback ring, pairs of f32: replied to with the number of frames that fitted (u32).
    Sound {
        /// The samples, 8 bytes for each frame.
        data: Span,
    },
    /// The rate of sound in frames per second: replied to with it (u32).
    SoundRate,
}

/// Kinds of [`Service::Input`].
pub mod input {
    /// Nothing has happened.
    pub const NONE: u32 = 0;
    /// A key: its usage of the USB HID keyboard page, and 1 when it went down.
    pub const KEY: u32 = 1;
    /// The pointer moved: to the right, downwards.
    pub const MOTION: u32 = 2;
    /// The pointer is at a place: from the left, from the top, in 1/32768 of the picture.
    pub const POSITION: u32 = 3;
    /// The wheel: notches away from the user.
    pub const WHEEL: u32 = 4;
    /// A button: its number, and 1 when it went down.
    pub const BUTTON: u32 = 5;
    /// Every key and button is up.
    pub const RELEASE_ALL: u32 = 6;
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl Service {
    /// As a command has it. Lengths of a [`Self::Rename`]'s paths are cut to 16 bits.
    pub fn to_words(self) -> (u16, [u64; 3]) {
        match self {
            Self::Begin => (0, [0; 3]),
            Self::DirName { dir } => (1, [dir.into(), 0, 0]),
            Self::Open { dir, flags, path } => (2, [pair(dir, flags), path.word(), 0]),
            Self::Close { file } => (3, [file.into(), 0, 0]),
            Self::Read { file, data, offset } => (4, [file.into(), data.word(), offset]),
            Self::Write { file, data, offset } => (5, [file.into(), data.word(), offset]),
            Self::Stat { file } => (6, [file.into(), 0, 0]),
            Self::StatPath { dir, flags, path } => (7, [pair(dir, flags), path.word(), 0]),
            Self::List { dir, data, cookie } => (8, [dir.into(), data.word(), cookie]),
            Self::MakeDir { dir, path } => (9, [dir.into(), path.word(), 0]),
            Self::RemoveDir { dir, path } => (10, [dir.into(), path.word(), 0]),
            Self::Unlink { dir, path } => (11, [dir.into(), path.word(), 0]),
            Self::Rename {
                dir,
                path,
                to_dir,
                to,
            } => {
                let lengths = u32::from(path.len as u16) | u32::from(to.len as u16) << 16;
                (12, [pair(dir, to_dir), pair(path.at, to.at), lengths.into()])
            }
            Self::SetSize { file, len } => (13, [file.into(), len, 0]),
            Self::Sync { file } => (14, [file.into(), 0, 0]),
            Self::Input => (15, [0; 3]),
            Self::Sound { data } => (16, [data.word(), 0, 0]),
            Self::SoundRate => (17, [0; 3]),
        }
    }

    /// From a command; `None` for a number that means nothing.
    pub fn from_words(service: u16, [a, b, c]: [u64; 3]) -> Option<Self> {
        let (file, high) = halves(a);
        let (dir, flags) = (file, high);
        let span = Span::from_word(b);
        Some(match service {
            0 => Self::Begin,
            1 => Self::DirName { dir },
            2 => Self::Open {
                dir,
                flags,
                path: span,
            },
            3 => Self::Close { file },
            4 => Self::Read {
                file,
                data: span,
                offset: c,
            },
            5 => Self::Write {
                file,
                data: span,
                offset: c,
            },
            6 => Self::Stat { file },
            7 => Self::StatPath {
                dir,
                flags,
                path: span,
            },
            8 => Self::List {
                dir,
                data: span,
                cookie: c,
            },
            9 => Self::MakeDir { dir, path: span },
            10 => Self::RemoveDir { dir, path: span },
            11 => Self::Unlink { dir, path: span },
            12 => Self::Rename {
                dir,
                path: Span {
                    at: span.at,
                    len: c as u16 as u32,
                },
                to_dir: high,
                to: Span {
                    at: span.len,
                    len: (c >> 16) as u16 as u32,
                },
            },
            13 => Self::SetSize { file, len: b },
            14 => Self::Sync { file },
            15 => Self::Input,
            16 => Self::Sound {
                data: Span::from_word(a),
            },
            17 => Self::SoundRate,
            _ => return None,
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_service_survives_its_words() {
        let path = Span {
            at: 0xFFFF_0000,
            len: 12,
        };
        let to = Span { at: 7, len: 0xFFFF };
        let (dir, file, flags, offset) = (3, 0x8000_0001, 0x7F, APPEND - 1);
        let all = [
            Service::Begin,
            Service::DirName { dir },
            Service::Open { dir, flags, path },
            Service::Close { file },
            Service::Read {
                file,
                data: path,
                offset,
            },
            Service::Write {
                file,
                data: path,
                offset,
            },
            Service::Stat { file },
            Service::StatPath { dir, flags, path },
            Service::List {
                dir,
                data: path,
                cookie: offset,
            },
            Service::MakeDir { dir, path },
            Service::RemoveDir { dir, path },
            Service::Unlink { dir, path },
            Service::Rename {
                dir,
                path,
                to_dir: file,
                to,
            },
            Service::SetSize { file, len: offset },
            Service::Sync { file },
            Service::Input,
            Service::Sound { data: path },
            Service::SoundRate,
        ];
        for (n, service) in all.into_iter().enumerate() {
            let (number, words) = service.to_words();
            assert_eq!(usize::from(number), n);
            assert_eq!(Service::from_words(number, words), Some(service));
        }
        assert_eq!(Service::from_words(all.len() as u16, [0; 3]), None);
    }
}
