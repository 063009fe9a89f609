//! What the coordinator and the stub of the guest's debugger say to each other.
//!
//! The coordinator has the listener and the connection of gdb, the cpu-worker has the stub. Between them is a SEQPACKET
//! socket that the worker inherits, a new one for each of its lives; each packet is one message. Handing the connection
//! itself to the worker was rejected: it would give a network socket to the one process that executes guest code, and gdb
//! would be talking to a worker that may die in the middle of an answer. Streams in shared memory, as serial lines have, were
//! too: they outlive the worker, and here nothing is worth keeping when it dies.
//!
//! A vCPU that executes makes no system calls to look for a packet: the coordinator counts them in a status word
//! ([`crate::status::StatusWord::DebuggerSent`]) before it rings the vCPU.

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 4096;
/// Most bytes of the connection in one message.
pub const MAX_BYTES: usize = MAX_MESSAGE - 2;

/// A message, in either direction, and the number of the connection that it is about: what is still on its way when another gdb
/// connects is not for that one. Numbers wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Number of the connection.
    pub connection: u8,
    /// What about it.
    pub news: News<'a>,
}

/// What happened on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// gdb has connected; to the stub only.
    Opened,
    /// What was received, or is to be sent.
    Bytes(&'a [u8]),
    /// gdb is gone; or, from the stub, the connection is to be closed.
    Closed,
}

const OPENED: u8 = 0;
const BYTES: u8 = 1;
const CLOSED: u8 = 2;

impl<'a> Message<'a> {
    /// The message as a packet. Panics when it has more than [`MAX_BYTES`].
    pub fn encode(self) -> Vec<u8> {
        let (tag, bytes): (u8, &[u8]) = match self.news {
            News::Opened => (OPENED, &[]),
            News::Closed => (CLOSED, &[]),
            News::Bytes(bytes) => (BYTES, bytes),
        };
        assert!(bytes.len() <= MAX_BYTES, "a message of {} bytes", bytes.len());
        let mut packet = Vec::with_capacity(2 + bytes.len());
        packet.extend([tag, self.connection]);
        packet.extend_from_slice(bytes);
        packet
    }

    /// The message in a packet; `None` for one that has no meaning.
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (connection, news) = match packet {
            [OPENED, connection] => (connection, News::Opened),
            [CLOSED, connection] => (connection, News::Closed),
            [BYTES, connection, bytes @ ..] => (connection, News::Bytes(bytes)),
            _ => return None,
        };
        Some(Self {
            connection: *connection,
            news,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_their_packets() {
        for news in [
            News::Opened,
            News::Closed,
            News::Bytes(b"$?#3f"),
            News::Bytes(&[]),
        ] {
            let message = Message { connection: 7, news };
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn packets_without_meaning_are_no_messages() {
        for packet in [&[][..], &[0], &[1], &[2, 1, 1], &[3, 0], &[255; 40]] {
            assert_eq!(Message::decode(packet), None);
        }
    }
}
