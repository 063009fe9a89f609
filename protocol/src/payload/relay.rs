//! A payload on its way through a process that does not use it.

use std::hash::{DefaultHasher, Hasher as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::receive::{Arrival, ReceiveError, examine};
use super::{
    Digest, Held, INLINE_LIMIT, Outgoing, PayloadPromise, Transport, TransportChoice, TransportTrace, digest,
};
use crate::shm::Map;

/// A payload that is passed on, if need be before anybody knows its digest.
#[derive(Debug)]
pub struct Relay {
    promise: PayloadPromise,
    held: Held,
    trace: TransportTrace,
    state: State,
}

/// How far this process is with the digest.
#[derive(Debug)]
enum State {
    /// What came is a sealed file of the right length; nobody has looked into it.
    Examined,
    /// It is being taken.
    Begun(Begun),
    /// There is nothing left to do.
    Compared,
}

/// What came, and who takes its digest; nobody yet if it is short.
#[derive(Debug)]
struct Begun {
    arrival: Arc<Arrival>,
    thread: Option<JoinHandle<Digest>>,
}

impl Begun {
    fn new(arrival: Arrival) -> Self {
        let arrival = Arc::new(arrival);
        let thread = ((arrival.bytes().len() as u64) >= INLINE_LIMIT).then(|| {
            let arrival = Arc::clone(&arrival);
            let thread = std::thread::Builder::new().name("digest".into());
            thread.spawn(move || digest(arrival.bytes()))
        });
        Self {
            arrival,
            // Without a thread it is taken when it is asked for.
            thread: thread.and_then(Result::ok),
        }
    }

    fn take(&mut self) -> Digest {
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)),
            None => digest(self.arrival.bytes()),
        }
    }
}

impl Drop for Begun {
    /// Nothing of it stays behind.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl From<Outgoing> for Relay {
    /// A payload of this process's own: its digest is known.
    fn from(outgoing: Outgoing) -> Self {
        Self {
            promise: PayloadPromise {
                kind: outgoing.kind,
                len: outgoing.len,
                head: outgoing.head,
            },
            held: outgoing.held,
            trace: outgoing.trace,
            state: State::Compared,
        }
    }
}

impl Relay {
    /// What has come as a sealed memfd: checked like every payload but for its digest, and passed on as it is if it
    /// travels as a memfd.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn new(promise: PayloadPromise, fd: OwnedFd, choice: TransportChoice) -> Result<Self, ReceiveError> {
        let mut trace = TransportTrace::new(promise.kind.text());
        examine(promise.len, Some(fd.as_fd()), &mut trace)?;
        let inline = choice.inline(promise.len);
        let mut relay = Self {
            promise,
            held: Held::Memfd(fd),
            trace,
            state: State::Examined,
        };
        if inline {
            let arrival = relay.open()?;
            relay.held = Held::Inline(arrival.bytes().to_vec());
            relay.state = State::Begun(Begun::new(arrival));
        }
        Ok(relay)
    }

    fn open(&mut self) -> Result<Arrival, ReceiveError> {
        let fd = self.held.fd().ok_or(ReceiveError::NoDescriptor)?;
        Arrival::open(self.promise.clone(), fd, Map::private, &mut self.trace)
    }

    /// What was announced with it.
    pub fn promise(&self) -> &PayloadPromise {
        &self.promise
    }

    /// How its bytes travel on to a receiver that finds the descriptor under `number`.
    pub fn transport(&self, number: i32) -> Transport {
        self.held.transport(number)
    }

    /// How its bytes travel on, for people.
    pub fn transport_text(&self) -> &'static str {
        self.held.text()
    }

    /// The descriptor that has to reach the receiver; `None` when the bytes travel in the message.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.held.fd()
    }

    /// What was seen of it so far, in this process.
    pub fn trace(&self) -> &TransportTrace {
        &self.trace
    }

    /// A number that two payloads share if they are the same, and seldom if they are not: made of length, both ends and some
    /// places between. For guesses that cost time only when they are wrong; a digest says what something is.
    pub fn sketch(&self) -> u64 {
        const PIECE: usize = 4096;
        const PIECES: u64 = 16;
        let len = self.promise.len;
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(len);
        let mut buffer = [0; PIECE];
        for n in 0..PIECES {
            let at = len.saturating_sub(PIECE as u64) * n / (PIECES - 1);
            match &self.held {
                Held::Inline(bytes) => {
                    let from = (at as usize).min(bytes.len());
                    hasher.write(&bytes[from..bytes.len().min(from + PIECE)]);
                }
                Held::Memfd(fd) => {
                    // What cannot be read makes the guess a worse one.
                    let n = rustix::io::pread(fd, &mut buffer, at).unwrap_or(0);
                    hasher.write(&buffer[..n]);
                }
            }
        }
        hasher.finish()
    }

    /// Has a thread take the digest from now on, if the payload is long and that has not been done yet.
    ///
    /// # Errors
    /// [`ReceiveError::Read`].
    pub fn begin(&mut self) -> Result<(), ReceiveError> {
        if matches!(self.state, State::Examined) {
            self.state = State::Begun(Begun::new(self.open()?));
        }
        Ok(())
    }

    /// Compares the digest with the announced one, if that has not been done yet.
    ///
    /// # Errors
    /// [`ReceiveError::DigestMismatch`], [`ReceiveError::Read`].
    pub fn check(&mut self, announced: Digest) -> Result<(), ReceiveError> {
        self.begin()?;
        let State::Begun(mut begun) = std::mem::replace(&mut self.state, State::Compared) else {
            return Ok(());
        };
        let received = begun.take();
        begun.arrival.judge(announced, received, &mut self.trace)
    }
}
