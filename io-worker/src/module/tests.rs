//! The services over real directories: what lies beneath is reached, and nothing else.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use quintet_protocol::addr::GuestPhys;
use quintet_protocol::handshake::Role;
use quintet_protocol::input::{InputEvent, Key};
use quintet_protocol::layout::{Ends, SegmentSet};
use quintet_protocol::message::MAX_COMMAND;
use quintet_protocol::ram::RamLayout;
use quintet_protocol::wasm::service::{APPEND, open};
use quintet_protocol::wasm::{Errno, Service, Span};

use super::*;

/// A folder with another one beside it, both removed at the end.
struct Folders(PathBuf);

impl Folders {
    fn new(test: &str) -> Self {
        let name = format!("quintet-module-{test}-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&root);
        for dir in ["given/sub", "outside"] {
            std::fs::create_dir_all(root.join(dir)).expect("a folder");
        }
        std::fs::write(root.join("outside/secret"), "secret").expect("a file");
        std::fs::write(root.join("given/file"), "contents").expect("a file");
        Self(root)
    }

    fn given(&self) -> PathBuf {
        self.0.join("given")
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Default)]
struct Typed(Vec<InputEvent>);

impl Inputs for Typed {
    fn take_event(&mut self) -> Option<InputEvent> {
        self.0.pop()
    }
}

struct Rig {
    services: Services,
    set: SegmentSet,
    typed: Typed,
}

impl Rig {
    fn new(dir: &Path, process: u32) -> Self {
        let set = SegmentSet::create(RamLayout::new(1 << 20), 1).expect("files");
        let ram = set.guest_ram().expect("ram");
        let ends = Ends::new(&set.maps(Role::Io).expect("maps"));
        let dir = std::fs::File::open(dir).expect("a directory").into();
        Self {
            services: Services::new(vec![("data".into(), dir)], process, ram, ends),
            set,
            typed: Typed::default(),
        }
    }

    fn ask(&mut self, service: Service) -> Result<Vec<u8>, Errno> {
        let (service, words) = service.to_words();
        let mut buffer = [0; MAX_COMMAND];
        let len = Command::ModuleCall { service, words }.encode(&mut buffer);
        let reply = self.services.answer(&buffer[..len], &mut self.typed);
        let reply = reply.expect("a module's call");
        match u32::from_le_bytes(reply[..4].try_into().expect("four bytes")) {
            0 => Ok(reply[4..].to_vec()),
            errno => Err(Errno(errno as u16)),
        }
    }

    /// A path in the module's memory.
    fn path(&self, path: &str) -> Span {
        self.put(0x100, path.as_bytes())
    }

    fn put(&self, at: u32, bytes: &[u8]) -> Span {
        let ram = self.set.guest_ram().expect("ram");
        ram.write(GuestPhys(at.into()), bytes).expect("inside");
        Span {
            at,
            len: bytes.len() as u32,
        }
    }

    fn open(&mut self, path: &str, flags: u32) -> Result<u32, Errno> {
        let path = self.path(path);
        let data = self.ask(Service::Open { dir: 0, flags, path })?;
        Ok(u32::from_le_bytes(data[..4].try_into().expect("a number")))
    }

    fn read(&mut self, file: u32, offset: u64) -> Result<Vec<u8>, Errno> {
        let data = Span { at: 0x8000, len: 64 };
        let n = self.ask(Service::Read { file, data, offset })?;
        let mut bytes = vec![0; u32::from_le_bytes(n.try_into().expect("a number")) as usize];
        let ram = self.set.guest_ram().expect("ram");
        ram.read(GuestPhys(0x8000), &mut bytes).expect("inside");
        Ok(bytes)
    }

    fn on_path(&mut self, path: &str, service: fn(u32, Span) -> Service) -> Result<Vec<u8>, Errno> {
        let path = self.path(path);
        self.ask(service(0, path))
    }
}

const MAKE: fn(u32, Span) -> Service = |dir, path| Service::MakeDir { dir, path };
const REMOVE: fn(u32, Span) -> Service = |dir, path| Service::RemoveDir { dir, path };
const UNLINK: fn(u32, Span) -> Service = |dir, path| Service::Unlink { dir, path };
const STAT: fn(u32, Span) -> Service = |dir, path| Service::StatPath {
    dir,
    flags: open::FOLLOW,
    path,
};

#[test]
fn files_are_made_written_read_appended_to_cut_and_removed() {
    let folders = Folders::new("files");
    let mut rig = Rig::new(&folders.given(), 1);
    assert_eq!(rig.ask(Service::DirName { dir: 0 }), Ok(b"data".to_vec()));
    assert_eq!(rig.ask(Service::DirName { dir: 1 }), Err(Errno::BADF));
    let file = rig
        .open("sub/new", open::CREATE | open::READ | open::WRITE)
        .expect("made");
    for (offset, text) in [(0, "0123456789"), (4, "xy"), (APPEND, "!")] {
        let data = rig.put(0x4000, text.as_bytes());
        let n = rig.ask(Service::Write { file, data, offset });
        assert_eq!(n, Ok((text.len() as u32).to_le_bytes().to_vec()));
    }
    assert_eq!(rig.read(file, 2), Ok(b"23xy6789!".to_vec()));
    assert_eq!(rig.read(file, 100), Ok(Vec::new()));
    rig.ask(Service::SetSize { file, len: 3 }).expect("cut");
    rig.ask(Service::Sync { file }).expect("durable");
    let stat = rig.ask(Service::Stat { file }).expect("there");
    assert_eq!((stat.len(), stat[16], stat[32]), (64, 4, 3));
    assert_eq!(
        std::fs::read(folders.given().join("sub/new")).expect("there"),
        b"012"
    );
    let exclusive = open::CREATE | open::EXCLUSIVE | open::WRITE;
    assert_eq!(rig.open("sub/new", exclusive), Err(Errno::EXIST));
    rig.ask(Service::Close { file }).expect("open");
    assert_eq!(rig.read(file, 0), Err(Errno::BADF));

    rig.on_path("made", MAKE).expect("made");
    let (path, to) = (rig.path("sub/new"), rig.put(0x300, b"made/moved"));
    let rename = Service::Rename {
        dir: 0,
        path,
        to_dir: 0,
        to,
    };
    rig.ask(rename).expect("moved");
    assert_eq!(rig.on_path("made", REMOVE), Err(Errno::NOTEMPTY));
    assert_eq!(rig.on_path("made", UNLINK), Err(Errno::ISDIR));
    rig.on_path("made/moved", UNLINK).expect("removed");
    rig.on_path("made/", REMOVE).expect("removed");
    assert_eq!(rig.on_path("made", STAT), Err(Errno::NOENT));
}

#[test]
fn a_directory_is_listed_in_pieces_without_the_way_out() {
    let folders = Folders::new("list");
    for n in 0..40 {
        std::fs::write(folders.given().join(format!("sub/{n}")), "").expect("a file");
    }
    let mut rig = Rig::new(&folders.given(), 1);
    let dir = rig
        .open("sub", open::DIRECTORY | open::READ)
        .expect("a directory");
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let data = Span { at: 0x8000, len: 200 };
        let n = rig.ask(Service::List { dir, data, cookie }).expect("listed");
        let mut bytes = vec![0; u32::from_le_bytes(n.try_into().expect("a number")) as usize];
        rig.set
            .guest_ram()
            .expect("ram")
            .read(GuestPhys(0x8000), &mut bytes)
            .expect("inside");
        let mut rest = &bytes[..];
        while let Some((head, tail)) = rest.split_first_chunk::<24>() {
            let len = u32::from_le_bytes(head[16..20].try_into().expect("four")) as usize;
            if len > tail.len() {
                break;
            }
            assert_eq!(head[20], 4, "a file");
            cookie = u64::from_le_bytes(head[..8].try_into().expect("eight"));
            names.push(String::from_utf8(tail[..len].to_vec()).expect("text"));
            rest = &tail[len..];
        }
        if bytes.len() < 200 {
            break;
        }
    }
    names.sort_by_key(|n| n.parse::<u32>().expect("a number"));
    assert_eq!(names, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn nothing_outside_is_reached_by_any_path_and_any_call() {
    let folders = Folders::new("escape");
    let (given, outside) = (folders.given(), folders.0.join("outside"));
    symlink("../outside/secret", given.join("relative")).expect("a link");
    symlink(outside.join("secret"), given.join("absolute")).expect("a link");
    symlink("../outside", given.join("dir")).expect("a link");
    symlink("/proc/self/root", given.join("magic")).expect("a link");
    symlink("loop", given.join("loop")).expect("a link");
    std::fs::create_dir(given.join("sub/deep")).expect("a folder");
    let mut rig = Rig::new(&given, 1);
    let secret = outside.join("secret").display().to_string();
    let read = open::READ | open::FOLLOW;
    for path in [
        "../outside/secret",
        "sub/../../outside/secret",
        "sub/deep/../../../outside/secret",
        "./../outside/secret",
        "..",
        "/",
        "/etc/passwd",
        &secret,
        "relative",
        "absolute",
        "dir/secret",
        "dir",
        "dir/..",
        "magic/etc/passwd",
        "sub/../dir/secret",
        "//outside/secret",
    ] {
        let opened = rig.open(path, read);
        assert_eq!(opened, Err(Errno::NOTCAPABLE), "{path}");
        assert_eq!(
            rig.open(path, read | open::WRITE | open::TRUNCATE),
            Err(Errno::NOTCAPABLE),
            "{path}"
        );
        assert_eq!(rig.on_path(path, STAT), Err(Errno::NOTCAPABLE), "{path}");
    }
    for path in [
        "../outside/new",
        "dir/new",
        "/tmp/new",
        "sub/../../outside/new",
        "..",
    ] {
        let create = open::CREATE | open::WRITE | open::FOLLOW;
        assert_eq!(rig.open(path, create), Err(Errno::NOTCAPABLE), "{path}");
        for service in [MAKE, REMOVE, UNLINK] {
            assert_eq!(rig.on_path(path, service), Err(Errno::NOTCAPABLE), "{path}");
        }
        for (from, to) in [("file", path), (path, "stolen")] {
            let (path, to) = (rig.path(from), rig.put(0x300, to.as_bytes()));
            let rename = Service::Rename {
                dir: 0,
                path,
                to_dir: 0,
                to,
            };
            assert_eq!(rig.ask(rename), Err(Errno::NOTCAPABLE), "{from}");
        }
    }
    for path in ["../outside/secret", "dir/secret", &secret] {
        assert_eq!(rig.on_path(path, UNLINK), Err(Errno::NOTCAPABLE), "{path}");
    }
    assert_eq!(rig.open("loop", read), Err(Errno::LOOP));
    // A link itself may be removed; what it leads to stays.
    rig.on_path("relative", UNLINK).expect("removed");
    assert_eq!(std::fs::read(outside.join("secret")).expect("there"), b"secret");
    assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 1);
    // What stays inside is reached by the same means.
    symlink("sub/../file", given.join("inside")).expect("a link");
    let file = rig.open("sub/../inside", read).expect("inside");
    assert_eq!(rig.read(file, 0), Ok(b"contents".to_vec()));
    assert_eq!(rig.open("inside", open::READ), Err(Errno::LOOP), "not followed");
}

#[test]
fn what_is_no_file_is_not_opened_and_no_pipe_is_waited_for() {
    let folders = Folders::new("kinds");
    let given = folders.given();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, given.join("pipe"), pipe, mode, 0).expect("a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(given.join("socket")).expect("a socket");
    let mut rig = Rig::new(&given, 1);
    assert_eq!(rig.open("pipe", open::READ), Err(Errno::ACCES));
    // Nobody reads it.
    assert_eq!(rig.open("pipe", open::WRITE), Err(Errno::SPIPE));
    assert_eq!(rig.open("socket", open::READ), Err(Errno::SPIPE));
    for bad in ["", "a\0b"] {
        assert!(rig.open(bad, open::READ).is_err());
    }
    let long = "x".repeat(5000);
    assert_eq!(rig.open(&long, open::READ), Err(Errno::NAMETOOLONG));
}

#[test]
fn files_are_as_many_as_may_be_and_end_with_the_module_and_the_process() {
    let folders = Folders::new("many");
    let mut rig = Rig::new(&folders.given(), 1);
    let files: Vec<_> = std::iter::from_fn(|| rig.open("file", open::READ).ok()).collect();
    assert_eq!(files.len(), 64);
    assert_eq!(rig.open("file", open::READ), Err(Errno::MFILE));
    rig.ask(Service::Begin).expect("another module");
    assert_eq!(rig.read(files[0], 0), Err(Errno::BADF));
    let file = rig.open("file", open::READ).expect("there is room");
    let mut successor = Rig::new(&folders.given(), 2);
    assert_eq!(
        successor.read(file, 0),
        Err(Errno::IO),
        "it died with its process"
    );
    assert!(successor.open("file", open::READ).is_ok());
}

#[test]
fn spans_outside_ram_and_numbers_that_mean_nothing_are_errors() {
    let folders = Folders::new("bad");
    let mut rig = Rig::new(&folders.given(), 1);
    let file = rig.open("file", open::READ).expect("there");
    let data = Span {
        at: 0xFFFF_FFF0,
        len: 64,
    };
    let read = Service::Read {
        file,
        data,
        offset: 0,
    };
    assert_eq!(rig.ask(read), Err(Errno::INVAL));
    assert_eq!(rig.ask(Service::Stat { file: 0xFFFF }), Err(Errno::BADF));
    let stat = Service::StatPath {
        dir: 0,
        flags: 0,
        path: data,
    };
    assert_eq!(rig.ask(stat), Err(Errno::INVAL));
    let mut buffer = [0; MAX_COMMAND];
    let unknown = Command::ModuleCall {
        service: 999,
        words: [0; 3],
    };
    let len = unknown.encode(&mut buffer);
    let reply = rig.services.answer(&buffer[..len], &mut rig.typed);
    assert_eq!(reply, Some(u32::from(Errno::NOSYS.0).to_le_bytes().to_vec()));
}

#[test]
fn what_users_do_is_told_one_by_one_and_begins_anew_with_a_module() {
    let folders = Folders::new("input");
    let mut rig = Rig::new(&folders.given(), 1);
    let key = InputEvent::Key {
        key: Key(4),
        down: true,
    };
    rig.typed.0 = vec![InputEvent::Motion { dx: -3, dy: 5 }, key];
    let words = |bytes: Vec<u8>| -> Vec<i32> {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b))
            .collect()
    };
    assert_eq!(rig.ask(Service::Input).map(words), Ok(vec![1, 4, 1]));
    assert_eq!(rig.ask(Service::Input).map(words), Ok(vec![2, -3, 5]));
    assert_eq!(rig.ask(Service::Input).map(words), Ok(vec![0, 0, 0]));
    rig.typed.0 = vec![key];
    rig.ask(Service::Begin).expect("another module");
    assert_eq!(rig.ask(Service::Input).map(words), Ok(vec![0, 0, 0]));
}

#[test]
fn frames_go_into_the_playback_ring_behind_its_lead() {
    let folders = Folders::new("sound");
    let mut rig = Rig::new(&folders.given(), 1);
    let consumer_ends = Ends::new(&rig.set.maps(Role::Audio).expect("maps"));
    let mut consumer = consumer_ends.playback_consumer(48_000);
    let samples: Vec<u8> = [0.5f32, -0.25]
        .repeat(100)
        .iter()
        .flat_map(|s| s.to_le_bytes())
        .collect();
    let data = rig.put(0x4000, &samples);
    assert_eq!(
        rig.ask(Service::Sound { data }),
        Ok(100u32.to_le_bytes().to_vec())
    );
    consumer.refresh().expect("a stream");
    assert!(consumer.is_running());
    let mut heard = vec![9.0; 2 * (quintet_protocol::audio::PREFILL as usize + 100)];
    consumer.fill(&mut heard);
    let (lead, rest) = heard.split_at(2 * quintet_protocol::audio::PREFILL as usize);
    assert!(lead.iter().all(|s| *s == 0.0));
    assert_eq!(rest, [0.5, -0.25].repeat(100));
    rig.ask(Service::Begin).expect("another module");
    consumer.refresh().expect("a stream");
    assert!(!consumer.is_running());
}
