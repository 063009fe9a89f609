//! The payload path against its contracts S1.20–S1.32: what may reach a loader, and how the rest is refused.
#![allow(
    unsafe_code,
    reason = "tries by raw system calls what sealed files must refuse"
)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

use quintet_protocol::payload::{
    Arrival, FULL_SEALS, Outgoing, Payload, PayloadGrant, PayloadKind, PayloadPromise, ReceiveError, Relay,
    SealError, Strategy, TransferError, Transport, TransportChoice, TransportTrace, digest, head, receive_fd,
    seal, sealed_memfd, send_fd,
};
use quintet_protocol::ram::{GUEST_BASE, MAP_START, RUNTIME_RESERVED, WASM_PAGE};
use quintet_protocol::shm::{Map, MapError};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::SpliceFlags;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn outgoing(len: usize, choice: TransportChoice) -> Outgoing {
    Outgoing::new(PayloadKind::Kernel, &bytes(len), choice).expect("outgoing payload")
}

fn grant_for(content: &[u8]) -> PayloadGrant {
    PayloadGrant {
        kind: PayloadKind::Kernel,
        len: content.len() as u64,
        digest: digest(content),
        head: head(content),
        transport: Transport::Memfd(-1),
    }
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("socket pair")
}

fn dup(fd: BorrowedFd<'_>) -> OwnedFd {
    fd.try_clone_to_owned().expect("dup")
}

#[test]
fn s1_1_size_alone_chooses_the_transport() {
    for (len, inline) in [(511_999, true), (512_000, false), (512_001, false)] {
        let out = outgoing(len, TransportChoice::BySize);
        assert_eq!(out.fd().is_none(), inline, "{len}");
        assert_eq!(
            matches!(out.grant(5).transport, Transport::Inline(_)),
            inline,
            "{len}"
        );
    }
}

#[test]
fn s1_2_both_transports_deliver_the_same_bytes() {
    for len in [1, 16, 4095, 4096, 511_999, 512_000] {
        let a = outgoing(len, TransportChoice::Inline);
        let b = outgoing(len, TransportChoice::Memfd);
        let a = Payload::receive(a.grant(-1), None).expect("inline");
        let b = Payload::receive(b.grant(-1), b.fd().map(dup)).expect("memfd");
        assert_eq!(a.bytes(), b.bytes());
        assert_eq!((a.strategy(), b.strategy()), (Strategy::Inline, Strategy::Mapped));
    }
}

#[test]
fn s1_20_a_changed_payload_is_named_with_digests_and_heads_of_both_sides() {
    let sent = bytes(4096);
    let mut arrived = sent.clone();
    arrived[0] ^= 0xFF;
    let fd = sealed_memfd(&arrived).expect("memfd");
    let e = Payload::receive(grant_for(&sent), Some(fd)).expect_err("refused");
    let text = e.to_string();
    let ReceiveError::DigestMismatch {
        sent: s,
        received,
        sent_head,
        received_head,
        zeros,
    } = e
    else {
        panic!("{text}")
    };
    assert_ne!(s, received);
    assert!(
        sent_head.starts_with("00 07") && received_head.starts_with("ff 07"),
        "{text}"
    );
    assert!(
        !zeros && text.contains(&sent_head) && text.contains(&received_head),
        "{text}"
    );
}

#[test]
fn s1_20_what_is_passed_on_before_its_digest_is_known_counts_only_if_that_is_right() {
    // Below and from the size on at which another thread takes the digest.
    for len in [4096, 600_000] {
        let sent = bytes(len);
        let mut arrived = sent.clone();
        arrived[len - 1] ^= 1;
        let relay = |content: &[u8]| {
            let fd = sealed_memfd(content).expect("memfd");
            let promise = PayloadPromise {
                kind: PayloadKind::WasmModule,
                len: sent.len() as u64,
                head: head(&sent),
            };
            Relay::new(promise, fd, TransportChoice::BySize).expect("all but the digest is right")
        };
        let mut wrong = relay(&arrived);
        assert_eq!(wrong.promise().len, len as u64);
        assert_eq!(wrong.fd().is_none(), len < 512_000, "it can be passed on");
        let told = wrong.check(digest(&sent));
        assert!(
            matches!(told, Err(ReceiveError::DigestMismatch { .. })),
            "{told:?}"
        );
        let entry = wrong.trace().entries.last().expect("an entry");
        assert_eq!(entry.digest, Some(digest(&arrived)));
        assert!(wrong.trace().error.contains("digest differs"));

        let mut right = relay(&sent);
        right.begin().expect("it can be mapped");
        right.check(digest(&sent)).expect("right");
        right.check(digest(&sent)).expect("taken already");
        let entry = right.trace().entries.last().expect("an entry");
        assert_eq!(entry.digest, Some(digest(&sent)));

        // Whoever gets it then says what it found, and is not told what was announced.
        for (content, good) in [(&sent, true), (&arrived, false)] {
            let passed_on = relay(content);
            let (promise, transport) = (passed_on.promise().clone(), passed_on.transport(0));
            let mut trace = TransportTrace::new("passed on");
            let fd = passed_on.fd().map(dup);
            let arrival = Arrival::receive(promise, transport, fd, Map::private, &mut trace);
            let arrival = arrival.expect("all but the digest is right");
            let (payload, found, seen) = arrival.find_beside(&mut trace, <[u8]>::len);
            assert_eq!((payload.bytes(), seen), (&content[..], len));
            assert_eq!(found.judge(digest(&sent), passed_on.promise().head).is_ok(), good);
            let entry = trace.entries.last().expect("an entry");
            assert_eq!(entry.digest, Some(digest(content)));
        }
    }
}

#[test]
fn a_sketch_is_that_of_the_bytes_whatever_their_transport() {
    let sketch = |content: &[u8], choice: TransportChoice| {
        let fd = sealed_memfd(content).expect("memfd");
        let promise = PayloadPromise {
            kind: PayloadKind::WasmModule,
            len: content.len() as u64,
            head: head(content),
        };
        Relay::new(promise, fd, choice).expect("in order").sketch()
    };
    for len in [1, 4096, 600_000] {
        let content = bytes(len);
        let one = sketch(&content, TransportChoice::Memfd);
        assert_eq!(one, sketch(&content, TransportChoice::Inline));
        let mut other = content.clone();
        other[len - 1] ^= 1;
        assert_ne!(one, sketch(&other, TransportChoice::Memfd));
        other.truncate(len - 1);
        if len > 1 {
            assert_ne!(one, sketch(&other, TransportChoice::Memfd));
        }
    }
}

#[test]
fn s1_33_zeros_instead_of_the_file_are_called_that() {
    let fd = sealed_memfd(&vec![0; 4096]).expect("memfd");
    let e = Payload::receive(grant_for(&bytes(4096)), Some(fd)).expect_err("refused");
    assert!(e.to_string().contains("all zero: the map is not the file"), "{e}");
}

#[test]
fn s1_21_lengths_that_differ_are_distinct_errors_before_any_map() {
    let never = |_: BorrowedFd<'_>, _: u64| -> Result<_, MapError> { panic!("mapped before it was checked") };
    let content = bytes(5000);
    let with_len = |len| PayloadGrant {
        len,
        ..grant_for(&content)
    };
    let fd = || Some(sealed_memfd(&content).expect("memfd"));
    let refused = |len| Payload::receive_with(with_len(len), fd(), never).expect_err("refused");
    assert!(matches!(
        refused(5001),
        ReceiveError::Short {
            announced: 5001,
            actual: 5000
        }
    ));
    assert!(matches!(
        refused(4999),
        ReceiveError::Long {
            announced: 4999,
            actual: 5000
        }
    ));
    assert!(matches!(refused(0), ReceiveError::Empty));
    assert!(matches!(refused(u64::MAX), ReceiveError::TooLarge { .. }));
    assert!(matches!(
        Outgoing::new(PayloadKind::Kernel, &[], TransportChoice::BySize),
        Err(SealError::Size { len: 0 })
    ));
}

#[test]
fn s1_21_the_tail_of_the_last_page_is_not_given_out() {
    let out = outgoing(5000, TransportChoice::Memfd);
    let got = Payload::receive(out.grant(-1), out.fd().map(dup)).expect("received");
    assert_eq!(got.bytes().len(), 5000);
}

#[test]
fn s1_22_each_missing_seal_is_refused_and_named() {
    let all = [
        (SealFlags::WRITE, "WRITE"),
        (SealFlags::SHRINK, "SHRINK"),
        (SealFlags::GROW, "GROW"),
        (SealFlags::SEAL, "SEAL"),
    ];
    for (left_out, name) in all {
        let fd = unsealed(&bytes(4096));
        let seals = all
            .iter()
            .map(|(s, _)| *s)
            .filter(|s| *s != left_out)
            .fold(SealFlags::empty(), |a, b| a | b);
        rustix::fs::fcntl_add_seals(&fd, seals).expect("seals");
        let e = Payload::receive(grant_for(&bytes(4096)), Some(fd)).expect_err("refused");
        assert!(
            matches!(&e, ReceiveError::Unsealed { missing } if missing == name),
            "{name}: {e}"
        );
    }
}

#[test]
fn s1_22_future_write_is_no_substitute_for_write() {
    let fd = unsealed(&bytes(4096));
    let seals = SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals).expect("seals");
    assert!(matches!(
        Payload::receive(grant_for(&bytes(4096)), Some(fd)),
        Err(ReceiveError::Unsealed { missing }) if missing == "WRITE"
    ));
}

#[test]
fn s1_9_s1_23_a_live_writable_map_is_reported_and_nothing_is_sealed() {
    let fd = unsealed(&bytes(4096));
    let map = shared_map(fd.as_fd(), ProtFlags::READ | ProtFlags::WRITE).expect("map");
    assert!(matches!(seal(&fd), Err(SealError::Busy)));
    assert_eq!(
        rustix::fs::fcntl_get_seals(&fd).expect("seals"),
        SealFlags::empty()
    );
    unmap(map);
    seal(&fd).expect("sealed once the map is gone");
}

#[test]
fn s1_23_a_page_that_the_kernel_holds_for_a_while_only_delays_the_seal() {
    let fd = unsealed(&bytes(4096));
    let (from, to) = rustix::pipe::pipe().expect("pipe");
    // A page in a pipe is held as one that is being moved or swapped is.
    let moved = rustix::pipe::splice(&fd, Some(&mut 0), &to, None, 4096, SpliceFlags::empty());
    assert_eq!(moved, Ok(4096));
    assert_eq!(rustix::fs::fcntl_add_seals(&fd, FULL_SEALS), Err(Errno::BUSY));
    let reader = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop((from, to));
    });
    seal(&fd).expect("sealed once the page is free");
    reader.join().expect("reader");
}

#[test]
fn s1_24_a_sealed_payload_refuses_every_way_to_change_it() {
    let fd = sealed_memfd(&bytes(8192)).expect("memfd");
    assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&fd, 4096), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&fd, 16384), Err(Errno::PERM));
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    assert_eq!(rustix::fs::fallocate(&fd, punch, 0, 4096), Err(Errno::PERM));
    assert_eq!(
        shared_map(fd.as_fd(), ProtFlags::READ | ProtFlags::WRITE),
        Err(Errno::PERM)
    );
    let again = rustix::fs::open(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        OFlags::RDWR | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    if let Ok(again) = again {
        assert_eq!(rustix::io::pwrite(&again, b"x", 0), Err(Errno::PERM));
    }
    if let Ok(map) = shared_map(fd.as_fd(), ProtFlags::READ) {
        // SAFETY: changes the protection of the map made one line above, which nothing refers to.
        let e =
            unsafe { rustix::mm::mprotect(map as *mut _, 4096, MprotectFlags::READ | MprotectFlags::WRITE) };
        assert!(e.is_err(), "a read-only map of a sealed file became writable");
        unmap(map);
    }
    let got = Payload::receive(grant_for(&bytes(8192)), Some(fd)).expect("unchanged");
    assert_eq!(got.bytes(), bytes(8192));
}

#[test]
fn s1_25_the_receiver_maps_private_and_read_only() {
    let out = outgoing(1 << 20, TransportChoice::Memfd);
    let got = Payload::receive(out.grant(-1), out.fd().map(dup)).expect("received");
    let at = format!("{:x}-", got.bytes().as_ptr().addr());
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let line = maps
        .lines()
        .find(|l| l.starts_with(&at))
        .expect("the payload is mapped");
    assert!(
        line.contains(" r--p ") && line.contains("quintet-payload"),
        "{line}"
    );
}

#[test]
fn s1_12_s1_29_the_copy_path_reads_by_position() {
    let out = outgoing(600_000, TransportChoice::Memfd);
    let fd = out.fd().map(dup).expect("memfd");
    rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0)).expect("seek");
    let refuse = |_: BorrowedFd<'_>, len| Err(MapError::Length(len));
    let got = Payload::receive_with(out.grant(-1), Some(fd), refuse).expect("copied");
    assert_eq!(got.strategy(), Strategy::Copied);
    assert_eq!(got.bytes(), bytes(600_000));
}

#[test]
fn s1_10_s1_26_the_sender_may_close_at_once() {
    let (a, b) = pair();
    let out = outgoing(600_000, TransportChoice::Memfd);
    let grant = out.grant(-1);
    send_fd(&a, b"payload", out.fd().expect("memfd")).expect("sent");
    drop((out, a));
    std::thread::sleep(std::time::Duration::from_millis(20));
    let (message, fd) = receive_fd(&b).expect("received");
    assert_eq!(message, b"payload");
    assert_eq!(
        Payload::receive(grant, Some(fd)).expect("whole").bytes(),
        bytes(600_000)
    );
}

#[test]
fn s1_26_a_sender_killed_after_sending_changes_nothing() {
    let (a, b) = pair();
    rustix::io::fcntl_setfd(&a, rustix::io::FdFlags::empty()).expect("inheritable");
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .args([
            "--exact",
            "helper_sends_a_payload_and_waits_to_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("QUINTET_TEST_SOCKET", a.as_raw_fd().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("helper");
    drop(a);
    // The packet says that the descriptor is in flight; the sender dies before it is taken out.
    let mut polled = [rustix::event::PollFd::new(&b, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut polled, Some(&limit)), Ok(1));
    child.kill().expect("kill");
    child.wait().expect("reap");
    let (_, fd) = receive_fd(&b).expect("received");
    assert_eq!(
        Payload::receive(grant_for(&bytes(600_000)), Some(fd))
            .expect("whole")
            .bytes(),
        bytes(600_000)
    );
}

#[test]
#[ignore = "run by s1_26_a_sender_killed_after_sending_changes_nothing as a process of its own"]
fn helper_sends_a_payload_and_waits_to_be_killed() {
    let Some(number) = std::env::var("QUINTET_TEST_SOCKET")
        .ok()
        .and_then(|s| s.parse().ok())
    else {
        return;
    };
    // SAFETY: the parent leaves this descriptor open for us and tells its number; nobody else uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let out = outgoing(600_000, TransportChoice::Memfd);
    send_fd(&socket, b"payload", out.fd().expect("memfd")).expect("sent");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn s1_26_an_unreceived_descriptor_is_freed_with_its_socket() {
    let (pipe_read, pipe_write) = rustix::pipe::pipe().expect("pipe");
    let (a, b) = pair();
    send_fd(&a, b"x", pipe_write.as_fd()).expect("sent");
    drop((pipe_write, a, b));
    // End of file: the write end in flight is gone although nobody took it out.
    assert_eq!(rustix::io::read(&pipe_read, &mut [0; 1]), Ok(0));
}

#[test]
fn s1_27_other_than_one_descriptor_is_refused_and_all_are_closed() {
    for count in [0, 2, 4] {
        let (a, b) = pair();
        let (pipe_read, pipe_write) = rustix::pipe::pipe().expect("pipe");
        send_many(&a, pipe_write.as_fd(), count);
        assert!(
            matches!(receive_fd(&b), Err(TransferError::Count(n)) if n == count),
            "{count}"
        );
        drop(pipe_write);
        assert_eq!(
            rustix::io::read(&pipe_read, &mut [0; 1]),
            Ok(0),
            "a descriptor of {count} stayed open"
        );
    }
}

#[test]
fn s1_27_more_descriptors_than_fit_are_refused_and_all_are_closed() {
    let (a, b) = pair();
    let (pipe_read, pipe_write) = rustix::pipe::pipe().expect("pipe");
    send_many(&a, pipe_write.as_fd(), 8);
    assert!(matches!(receive_fd(&b), Err(TransferError::Truncated)));
    drop(pipe_write);
    assert_eq!(rustix::io::read(&pipe_read, &mut [0; 1]), Ok(0));
}

#[test]
fn s1_27_received_descriptors_are_close_on_exec() {
    let (a, b) = pair();
    send_fd(&a, b"x", a.as_fd()).expect("sent");
    let (_, fd) = receive_fd(&b).expect("received");
    assert!(
        rustix::io::fcntl_getfd(&fd)
            .expect("flags")
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
}

#[test]
#[ignore = "counts this process's descriptors: run by s1_27_ten_thousand_jobs as a process of its own"]
fn helper_ten_thousand_jobs_leave_no_descriptor_and_no_map() {
    let good = bytes(3000);
    let job = |i: usize| {
        let choice = if i.is_multiple_of(2) {
            TransportChoice::Inline
        } else {
            TransportChoice::Memfd
        };
        let out = Outgoing::new(PayloadKind::Kernel, &good, choice).expect("outgoing");
        let mut grant = out.grant(-1);
        if i.is_multiple_of(3) {
            grant.digest[0] ^= 1;
        }
        let fd = out.fd().map(|fd| {
            let (a, b) = pair();
            send_fd(&a, b"job", fd).expect("sent");
            receive_fd(&b).expect("received").1
        });
        assert_eq!(Payload::receive(grant, fd).is_ok(), !i.is_multiple_of(3));
    };
    let count = || {
        let payload_maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let payload_maps = payload_maps
            .lines()
            .filter(|l| l.contains("quintet-payload"))
            .count();
        (
            std::fs::read_dir("/proc/self/fd").expect("descriptors").count(),
            payload_maps,
        )
    };
    job(0);
    let before = count();
    (0..10_000).for_each(job);
    assert_eq!(count(), before);
}

#[test]
fn s1_27_ten_thousand_jobs() {
    let name = "helper_ten_thousand_jobs_leave_no_descriptor_and_no_map";
    let out = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", name, "--ignored", "--test-threads=1"])
        .output()
        .expect("helper");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    assert!(String::from_utf8_lossy(&out.stdout).contains("1 passed"));
}

#[test]
fn s1_28_wrong_kinds_of_descriptors_are_refused_by_name() {
    let file = std::env::temp_dir().join(format!("quintet-payload-test-{}", std::process::id()));
    std::fs::write(&file, bytes(4096)).expect("file");
    let on_disk = File::options()
        .read(true)
        .write(true)
        .open(&file)
        .expect("open")
        .into();
    std::fs::remove_file(&file).expect("remove");
    let (pipe_read, _pipe_write) = rustix::pipe::pipe().expect("pipe");
    let cases: [(OwnedFd, &str); 5] = [
        (pipe_read, "pipe"),
        (pair().0, "socket"),
        (File::open("/").expect("directory").into(), "directory"),
        (
            File::open("/dev/zero").expect("device").into(),
            "character device",
        ),
        (on_disk, "file"),
    ];
    for (fd, name) in cases {
        let e = Payload::receive(grant_for(&bytes(4096)), Some(fd)).expect_err("refused");
        // A file in tmpfs has seals of its own (SEAL): it is refused for what it lacks.
        let named = matches!(&e, ReceiveError::WrongKind(k) if k.contains(name));
        assert!(
            named || (name == "file" && matches!(e, ReceiveError::Unsealed { .. })),
            "{name}: {e}"
        );
    }
    assert!(matches!(
        Payload::receive(grant_for(&bytes(4096)), None),
        Err(ReceiveError::NoDescriptor)
    ));
}

#[test]
fn s1_28_a_read_only_descriptor_is_refused() {
    let fd = sealed_memfd(&bytes(4096)).expect("memfd");
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let ro = File::open(path).expect("open again");
    assert!(matches!(
        Payload::receive(grant_for(&bytes(4096)), Some(ro.into())),
        Err(ReceiveError::ReadOnly)
    ));
}

#[test]
fn s1_28_huge_pages_are_refused() {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB;
    // A host without huge pages cannot make such a descriptor, and then none can arrive.
    let Ok(fd) = rustix::fs::memfd_create("huge", flags) else {
        return;
    };
    assert!(matches!(
        Payload::receive(grant_for(&bytes(4096)), Some(fd)),
        Err(ReceiveError::WrongKind("memfd of huge pages"))
    ));
}

#[test]
fn s1_30_a_payload_that_could_be_truncated_never_gets_mapped() {
    let fd = unsealed(&bytes(4096));
    let never = |_: BorrowedFd<'_>, _: u64| -> Result<_, MapError> { panic!("mapped an unsealed file") };
    let e = Payload::receive_with(grant_for(&bytes(4096)), Some(fd), never).expect_err("refused");
    assert!(matches!(e, ReceiveError::Unsealed { .. }), "{e}");
}

#[test]
fn s1_31_layout_constants_are_multiples_of_every_page_size() {
    for page in [4 << 10, 16 << 10, 64 << 10] {
        for constant in [GUEST_BASE, MAP_START, RUNTIME_RESERVED, WASM_PAGE] {
            assert_eq!(constant % page, 0, "{constant:#x} on pages of {page}");
        }
    }
}

fn unsealed(content: &[u8]) -> OwnedFd {
    let fd =
        rustix::fs::memfd_create("unsealed", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&fd, content.len() as u64).expect("truncate");
    assert_eq!(rustix::io::pwrite(&fd, content, 0), Ok(content.len()));
    fd
}

fn shared_map(fd: BorrowedFd<'_>, prot: ProtFlags) -> Result<usize, Errno> {
    // SAFETY: a fresh map at an address of the kernel's choice overlaps nothing.
    unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, prot, MapFlags::SHARED, fd, 0) }.map(|p| p.addr())
}

fn unmap(addr: usize) {
    // SAFETY: the address came from `shared_map`, with this length.
    unsafe { rustix::mm::munmap(addr as *mut _, 4096) }.expect("unmap");
}

fn send_many(socket: &OwnedFd, fd: BorrowedFd<'_>, count: usize) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = vec![fd; count];
    if count > 0 {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    sendmsg(
        socket,
        &[std::io::IoSlice::new(b"message")],
        &mut control,
        SendFlags::empty(),
    )
    .expect("sent");
}
