//! gdb's remote protocol over TCP, as a client that says exactly what it is told to.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// A port that nobody has, or had a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A connection to the stub.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes that have come and not been looked at.
    come: Vec<u8>,
}

impl Client {
    /// Connects, once the machine listens, and agrees not to acknowledge packets.
    pub fn connect(port: u16) -> Self {
        let start = Instant::now();
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(e) => assert!(start.elapsed() < PATIENCE, "nobody listens: {e}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut client = Self {
            stream,
            come: Vec::new(),
        };
        assert_eq!(client.ask("QStartNoAckMode"), "OK");
        client.send(b"+");
        client
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the stub takes it");
    }

    /// Sends a packet.
    pub fn say(&mut self, body: &str) {
        let sum = body.bytes().fold(0u8, u8::wrapping_add);
        self.send(format!("${body}#{sum:02x}").as_bytes());
    }

    /// The body of the next packet; `None` when the connection is closed.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            if let Some(from) = self.come.iter().position(|&b| b == b'$')
                && let Some(len) = self.come[from..].iter().position(|&b| b == b'#')
                && self.come.len() >= from + len + 3
            {
                let body = expand(&self.come[from + 1..from + len]);
                self.come.drain(..from + len + 3);
                return Some(body);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(n) => self.come.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("the stub says nothing: {e}"),
            }
        }
    }

    /// Whether a packet comes within a time; it is dropped.
    pub fn hears_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a socket");
        let mut bytes = [0; 4096];
        let come = self.stream.read(&mut bytes).unwrap_or(0);
        self.come.extend_from_slice(&bytes[..come]);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        come > 0 && self.hear().is_some()
    }

    /// Sends a packet and answers the reply.
    pub fn ask(&mut self, body: &str) -> String {
        self.say(body);
        self.hear().unwrap_or_else(|| panic!("closed after {body}"))
    }

    /// As [`Self::ask`]; the reply must be OK.
    #[track_caller]
    pub fn done(&mut self, body: &str) {
        assert_eq!(self.ask(body), "OK", "{body}");
    }

    /// The instruction pointer of a 64-bit machine.
    pub fn rip(&mut self) -> u64 {
        number(&self.ask("p10"))
    }

    /// The flags of a 64-bit machine.
    pub fn rflags(&mut self) -> u64 {
        number(&self.ask("p11"))
    }

    /// Steps until an instruction leads to itself, and answers where that is: the guest `spin` says that it spins before it does.
    pub fn step_to_spin(&mut self) -> u64 {
        let mut rip = self.rip();
        loop {
            assert!(self.ask("s").contains("05"));
            let next = self.rip();
            if next == rip {
                return rip;
            }
            rip = next;
        }
    }

    /// Stops the guest.
    pub fn interrupt(&mut self) {
        self.send(&[3]);
        let stop = self.hear().expect("an answer");
        assert!(stop.starts_with("S02") || stop.starts_with("T02"), "{stop}");
    }
}

/// Little-endian hexadecimal bytes as a number.
fn number(hex: &str) -> u64 {
    let bytes = (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16));
    bytes.enumerate().fold(0, |v, (n, byte)| {
        v | u64::from(byte.expect("hexadecimal")) << (8 * n)
    })
}

/// Writes runs of equal characters out.
fn expand(packed: &[u8]) -> String {
    let mut out = String::new();
    let mut bytes = packed.iter();
    while let Some(&b) = bytes.next() {
        if b == b'*' {
            let count = usize::from(*bytes.next().expect("a count")) - 29;
            let last = out.chars().last().expect("something to repeat");
            out.extend(std::iter::repeat_n(last, count));
        } else {
            out.push(char::from(b));
        }
    }
    out
}
