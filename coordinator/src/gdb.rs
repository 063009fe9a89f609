//! `--gdb`: the listener, and the relay between gdb and the stub in the cpu-worker.
//!
//! One thread sleeps in one `poll` on the listener, gdb's connection and the worker's socket ([`quintet_protocol::debugger`]). It
//! holds at most what one side has sent and the other not yet taken: it reads from neither side while the other does not take. The
//! bytes mean nothing to it.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use quintet_protocol::debugger::{MAX_BYTES, MAX_MESSAGE, Message, News};
use quintet_protocol::doorbell::Doorbell;
use quintet_protocol::status::{StatusWord, StatusWriter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};

use crate::config::{UsageError, reason};
use crate::listen::HostPort;
use crate::machine::Waker;

/// Longest sleep of the thread.
const LONGEST: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What `--gdb` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GdbArg {
    at: HostPort,
    /// The guest executes nothing before gdb lets it.
    pub wait: bool,
}

impl GdbArg {
    /// Parses `HOST:PORT[,wait=on]`; without a host, this host alone can connect.
    ///
    /// # Errors
    /// [`UsageError`].
    pub fn parse(text: &str) -> Result<Self, UsageError> {
        let refuse = |why: &str| UsageError(format!("--gdb {text}: {why}"));
        let (address, wait) = match text.split_once(',') {
            None => (text, false),
            Some((address, "wait=on")) => (address, true),
            Some((address, "wait=off")) => (address, false),
            Some((_, other)) => return Err(refuse(&format!("\"{other}\" is not known; wait=on is"))),
        };
        let at = HostPort::parse(address).map_err(|why| refuse(&why))?;
        Ok(Self { at, wait })
    }

    /// Opens the listener, and tells the user where it is.
    ///
    /// # Errors
    /// [`UsageError`] when there is no such address, or somebody else has it.
    pub fn listen(&self) -> Result<TcpListener, UsageError> {
        let (listener, at) = self.at.listen("gdb")?;
        listener
            .set_nonblocking(true)
            .map_err(|e| UsageError(format!("Cannot listen for gdb at {at}: {}", reason(&e))))?;
        eprintln!("quintet: in gdb: target remote {at}");
        Ok(listener)
    }
}

/// The thread between gdb and the stub; it ends with this.
#[derive(Debug)]
pub struct Relay {
    workers: Sender<OwnedFd>,
    waker: Waker,
}

impl Relay {
    /// Starts the thread. `vcpu` is rung when something has been sent to the stub, and `status` counts it.
    ///
    /// # Errors
    /// The host's, when it has no thread or descriptor left.
    pub fn start(listener: TcpListener, status: StatusWriter, vcpu: Doorbell) -> std::io::Result<Self> {
        let (workers, new) = channel();
        let waker = Waker::new()?;
        let mut thread = Thread {
            listener,
            new,
            waker: waker.clone(),
            worker: None,
            client: None,
            connection: 0,
            to_worker: VecDeque::new(),
            to_client: Vec::new(),
            status,
            vcpu,
        };
        std::thread::Builder::new()
            .name("gdb".into())
            .spawn(move || while thread.turn() {})?;
        Ok(Self { workers, waker })
    }

    /// Makes the socket of a cpu-worker's new life, and gives its end of it.
    ///
    /// # Errors
    /// The host's, when it has no descriptor left.
    pub fn attach(&self) -> std::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The thread lives as long as this does.
        let _ = self.workers.send(ours);
        self.waker.wake();
        Ok(theirs)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Its channel closes first when it looks; a moment later it looks again by itself.
        self.waker.wake();
    }
}

struct Thread {
    listener: TcpListener,
    /// Sockets of new workers.
    new: Receiver<OwnedFd>,
    waker: Waker,
    worker: Option<OwnedFd>,
    client: Option<TcpStream>,
    /// Number of the newest connection.
    connection: u8,
    /// Packets that the worker has not taken.
    to_worker: VecDeque<Vec<u8>>,
    /// Bytes that gdb has not taken.
    to_client: Vec<u8>,
    status: StatusWriter,
    vcpu: Doorbell,
}

impl Thread {
    /// Sleeps until something happens and passes it on; whether there is more to do.
    fn turn(&mut self) -> bool {
        let [_, listener, worker, client] = self.wait();
        loop {
            match self.new.try_recv() {
                Ok(socket) => {
                    // Whatever the one before knew is gone, and with it what gdb believes.
                    self.disconnect();
                    self.to_worker.clear();
                    self.worker = Some(socket);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        if worker {
            self.read_worker();
        }
        if client {
            self.read_client();
        }
        if listener {
            self.accept();
        }
        self.flush();
        true
    }

    /// Sleeps; says of the waker, the listener, the worker and the client whether they are to be read.
    fn wait(&self) -> [bool; 4] {
        let when = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
        // Without a worker there is nobody to talk to yet: whoever connects waits.
        let mut fds = vec![
            self.waker.poll_fd(),
            PollFd::new(&self.listener, when(self.worker.is_some(), PollFlags::IN)),
        ];
        if let Some(worker) = &self.worker {
            let flags = when(self.to_client.is_empty(), PollFlags::IN)
                | when(!self.to_worker.is_empty(), PollFlags::OUT);
            fds.push(PollFd::new(worker, flags));
        }
        if let Some(client) = &self.client {
            let flags = when(self.to_worker.is_empty(), PollFlags::IN)
                | when(!self.to_client.is_empty(), PollFlags::OUT);
            fds.push(PollFd::new(client, flags));
        }
        let _ = poll(&mut fds, Some(&LONGEST));
        self.waker.clear();
        let readable = |n: usize| {
            fds.get(n).is_some_and(|fd| {
                fd.revents()
                    .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            })
        };
        let client = 2 + usize::from(self.worker.is_some());
        [
            readable(0),
            readable(1),
            self.worker.is_some() && readable(2),
            self.client.is_some() && readable(client),
        ]
    }

    fn accept(&mut self) {
        let Ok((client, from)) = self.listener.accept() else {
            return;
        };
        if self.client.is_some() {
            tracing::warn!("a debugger from {from} was turned away: there is one already");
            return;
        }
        // Packets are small, and each waits for its answer.
        if client.set_nonblocking(true).is_err() || client.set_nodelay(true).is_err() {
            return;
        }
        tracing::info!("a debugger has connected from {from}");
        self.client = Some(client);
        self.connection = self.connection.wrapping_add(1);
        self.tell(News::Opened);
    }

    fn tell(&mut self, news: News<'_>) {
        let message = Message {
            connection: self.connection,
            news,
        };
        self.to_worker.push_back(message.encode());
    }

    fn disconnect(&mut self) {
        self.client = None;
        self.to_client.clear();
    }

    fn read_client(&mut self) {
        let mut bytes = [0; MAX_BYTES];
        let Some(client) = &mut self.client else { return };
        match client.read(&mut bytes) {
            Ok(n) if n > 0 => self.tell(News::Bytes(&bytes[..n])),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            _ => {
                tracing::info!("the debugger is gone");
                self.disconnect();
                self.tell(News::Closed);
            }
        }
    }

    fn read_worker(&mut self) {
        let mut packet = [0; MAX_MESSAGE];
        let Some(worker) = &self.worker else { return };
        match rustix::io::read(worker, &mut packet) {
            Ok(n) if n > 0 => match Message::decode(&packet[..n]) {
                Some(message) if message.connection != self.connection => {}
                Some(Message {
                    news: News::Bytes(bytes),
                    ..
                }) => self.to_client.extend_from_slice(bytes),
                Some(Message {
                    news: News::Closed, ..
                }) => {
                    self.flush_client();
                    self.disconnect();
                }
                _ => tracing::debug!("a packet of the stub has no meaning"),
            },
            Err(Errno::AGAIN | Errno::INTR) => {}
            // It has died.
            _ => {
                self.worker = None;
                self.to_worker.clear();
                self.disconnect();
            }
        }
    }

    /// Sends what can be sent.
    fn flush(&mut self) {
        let mut sent = false;
        while let (Some(worker), Some(packet)) = (&self.worker, self.to_worker.front()) {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let done = sendmsg(
                worker,
                &[IoSlice::new(packet)],
                &mut SendAncillaryBuffer::default(),
                flags,
            );
            match done {
                Err(Errno::AGAIN | Errno::INTR) => break,
                // One that has died is noticed when it is read.
                _ => drop(self.to_worker.pop_front()),
            }
            self.status.add(StatusWord::DebuggerSent, 1);
            sent = true;
        }
        if sent {
            self.vcpu.ring();
        }
        self.flush_client();
    }

    fn flush_client(&mut self) {
        while let Some(client) = &mut self.client
            && !self.to_client.is_empty()
        {
            match client.write(&self.to_client) {
                Ok(n) if n > 0 => drop(self.to_client.drain(..n)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // Noticed when it is read.
                _ => self.to_client.clear(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        let arg = |at: &str, wait| GdbArg {
            at: HostPort::parse(at).expect("parses"),
            wait,
        };
        let parse = |text| GdbArg::parse(text).expect("parses");
        assert_eq!(parse("localhost:1234"), arg("localhost:1234", false));
        assert_eq!(parse(":1234,wait=on"), arg("127.0.0.1:1234", true));
        assert_eq!(parse("[::1]:0,wait=off"), arg("::1:0", false));
    }

    #[test]
    fn bad_addresses_are_refused_in_one_line() {
        for (text, why) in [
            ("1234", "no port"),
            ("host:", "not a port"),
            ("host:99999", "not a port"),
            (":1,stop=on", "wait=on"),
        ] {
            let e = GdbArg::parse(text).expect_err("refused").to_string();
            assert!(e.contains(why) && !e.contains('\n'), "{e}");
        }
        let e = GdbArg::parse("192.0.2.1:1")
            .expect("parses")
            .listen()
            .expect_err("not ours")
            .to_string();
        assert!(e.contains("192.0.2.1:1") && e.contains("no such address"), "{e}");
    }
}
