//! `--metrics ADDRESS`: what the machine tells of itself, for Prometheus and everything that reads its text format.
//!
//! A thread of the coordinator's asks the main loop for the report that any process may ask for, and writes it out, so the main
//! loop knows nothing of it, and a slow reader delays nobody. The little of HTTP that is needed is written here: one request a connection,
//! no body, a bounded head.

mod text;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use quintet_protocol::control::{Answer, Request, StatusReport, decode_answer};
use quintet_protocol::payload::receive_with_fd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use crate::config::{UsageError, reason};
use crate::listen::HostPort;
use crate::machine::{Event, Waker};

pub use text::page;

/// How long a reader may take for its request, and for taking the answer.
const DAWDLE: Duration = Duration::from_secs(2);
/// How long the machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a request in bytes.
const MOST_HEAD: usize = 8 << 10;
/// The format's name (Prometheus, "Exposition formats").
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where `--metrics` listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsArg {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port of this host, for this host alone.
    Tcp(HostPort),
}

impl MetricsArg {
    /// Parses `unix:PATH` or `HOST:PORT`, where the host must be this one.
    ///
    /// # Errors
    /// [`UsageError`].
    pub fn parse(text: &str) -> Result<Self, UsageError> {
        let refuse = |why: &str| UsageError(format!("--metrics {text}: {why}"));
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(refuse("there is no name behind \"unix:\""));
            }
            return Ok(Self::Unix(path.into()));
        }
        let at = HostPort::parse(text).map_err(|why| refuse(&why))?;
        if !at.is_loopback() {
            return Err(refuse(
                "other hosts could read it; write 127.0.0.1:PORT or unix:PATH",
            ));
        }
        Ok(Self::Tcp(at))
    }

    /// The directory in which its socket has a name.
    pub fn directory(&self) -> Option<PathBuf> {
        let Self::Unix(path) = self else { return None };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Some(parent.unwrap_or(Path::new(".")).to_owned())
    }

    /// Opens the socket, and tells the user where a port is.
    ///
    /// # Errors
    /// [`UsageError`] when that cannot be done.
    pub fn listen(&self) -> Result<Listener, UsageError> {
        match self {
            Self::Unix(path) => Ok(Listener::Unix(listen_at(path)?, Leftover(path.clone()))),
            Self::Tcp(at) => {
                let (listener, at) = at.listen("readers of metrics")?;
                eprintln!("quintet: metrics: http://{at}/metrics");
                Ok(Listener::Tcp(listener))
            }
        }
    }
}

/// Binds a socket in the file system; one that nobody listens at any more is replaced.
fn listen_at(path: &Path) -> Result<UnixListener, UsageError> {
    let cannot = |e: &std::io::Error| {
        UsageError(format!(
            "Cannot make the socket \"{}\": {}",
            path.display(),
            reason(e)
        ))
    };
    match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            // To connect to what is no socket is refused as well.
            let socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
            let refused = |e: std::io::Error| e.kind() == ErrorKind::ConnectionRefused;
            if !socket || !UnixStream::connect(path).is_err_and(refused) {
                return Err(UsageError(format!(
                    "\"{}\" is in use, or no socket; name another one for --metrics",
                    path.display()
                )));
            }
            std::fs::remove_file(path).map_err(|e| cannot(&e))?;
            UnixListener::bind(path).map_err(|e| cannot(&e))
        }
        bound => bound.map_err(|e| cannot(&e)),
    }
}

/// An open socket.
#[derive(Debug)]
pub enum Listener {
    /// In the file system.
    Unix(UnixListener, Leftover),
    /// A port.
    Tcp(TcpListener),
}

/// The name of a socket, removed with this.
#[derive(Debug)]
pub struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Answers on a thread that ends with the process, with what `machine` says. What this call answers is to be kept until the
    /// machine ends.
    ///
    /// # Errors
    /// The host's, when it has no thread left.
    pub fn start(self, machine: Asker) -> std::io::Result<Option<Leftover>> {
        let thread = std::thread::Builder::new().name("metrics".into());
        match self {
            Self::Unix(listener, leftover) => {
                thread.spawn(move || answer_all(|| Ok(listener.accept()?.0), &machine))?;
                Ok(Some(leftover))
            }
            Self::Tcp(listener) => {
                thread.spawn(move || answer_all(|| Ok(listener.accept()?.0), &machine))?;
                Ok(None)
            }
        }
    }
}

/// Asks the machine's main loop, as a request on the control socket would, which this confined process cannot connect to.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Where requests go.
    pub events: Sender<Event>,
    /// Wakes who takes them.
    pub waker: Waker,
}

impl Asker {
    fn report(&self) -> Result<StatusReport, String> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| e.to_string())?;
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(PATIENCE))
            .map_err(|e| e.to_string())?;
        let gone = |_| "the machine has ended".to_owned();
        self.events
            .send(Event::Request(Request::Status, None, theirs))
            .map_err(gone)?;
        self.waker.wake();
        let (packet, _) = receive_with_fd(&ours).map_err(|e| e.to_string())?;
        match decode_answer(&packet) {
            Ok(Answer::Status(report)) => Ok(*report),
            _ => Err("the machine answers strangely".to_owned()),
        }
    }
}

fn answer_all<S: AsFd>(next: impl Fn() -> std::io::Result<S>, machine: &Asker)
where
    for<'a> &'a S: Read + Write,
{
    let come = || {
        let stream = next()?;
        for way in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&stream, way, Some(DAWDLE))?;
        }
        Ok::<S, std::io::Error>(stream)
    };
    loop {
        match come() {
            Ok(stream) => {
                if let Err(e) = serve(&mut &stream, &mut &stream, || machine.report()) {
                    tracing::debug!("a reader of metrics went: {e}");
                }
            }
            Err(e) => {
                tracing::debug!("a reader of metrics did not come: {e}");
                // No descriptor is left, perhaps.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Reads one request `from` somebody and answers it, with what `report` says if it asks for that.
///
/// # Errors
/// Those of the streams.
pub fn serve(
    from: &mut impl Read,
    to: &mut impl Write,
    report: impl FnOnce() -> Result<StatusReport, String>,
) -> std::io::Result<()> {
    let Some(head) = read_head(from)? else {
        return answer(to, "431 Request Header Fields Too Large", "");
    };
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics" | "/")) => match report() {
            Ok(report) => answer(to, "200 OK", &page(&report)),
            Err(e) => answer(to, "503 Service Unavailable", &format!("{e}\n")),
        },
        (Some("GET"), _) => answer(to, "404 Not Found", "There is /metrics\n"),
        _ => answer(to, "405 Method Not Allowed", ""),
    }
}

/// The head of a request; none when it does not end.
fn read_head<S: Read>(stream: &mut S) -> std::io::Result<Option<String>> {
    let until = Instant::now() + DAWDLE;
    let mut head = Vec::new();
    let mut piece = [0; 512];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() >= MOST_HEAD || Instant::now() > until {
            return Ok(None);
        }
        match stream.read(&mut piece)? {
            0 => break,
            n => head.extend_from_slice(&piece[..n]),
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

fn answer<S: Write>(stream: &mut S, status: &str, body: &str) -> std::io::Result<()> {
    let len = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(request: &[u8]) -> String {
        let (mut request, mut answer) = (request, Vec::new());
        serve(&mut request, &mut answer, || {
            Err("the machine has ended".to_owned())
        })
        .expect("served");
        String::from_utf8(answer).expect("text")
    }

    #[test]
    fn a_bad_request_has_its_own_answer() {
        assert!(answered(b"GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(answered(b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(answered(b"").starts_with("HTTP/1.1 405 "));
        assert!(answered(&[b'x'; 20_000]).starts_with("HTTP/1.1 431 "));
        assert!(answered(b"\xFF\xFE\r\n\r\n").starts_with("HTTP/1.1 405 "));
        let none = answered(b"GET /metrics HTTP/1.0\r\n\r\n");
        assert!(
            none.starts_with("HTTP/1.1 503 ") && none.contains("has ended"),
            "{none}"
        );
    }

    #[test]
    fn an_address_is_this_hosts() {
        let parse = MetricsArg::parse;
        let unix = MetricsArg::Unix("/run/m".into());
        assert_eq!(parse("unix:/run/m").expect("taken"), unix);
        assert!(matches!(parse("127.0.0.1:0"), Ok(MetricsArg::Tcp(_))));
        assert!(matches!(parse("[::1]:9000"), Ok(MetricsArg::Tcp(_))));
        for (text, why) in [
            ("0.0.0.0:9000", "other hosts could read it"),
            ("unix:", "no name"),
            ("9000", "no port"),
            ("127.0.0.1:x", "is not a port"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_socket_that_nobody_listens_at_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        drop(listen_at(&path).expect("bound"));
        assert!(path.exists());
        let second = listen_at(&path).expect("bound again");
        listen_at(&path).expect_err("in use");
        drop(second);
        let file = folder.path().join("file");
        std::fs::write(&file, "kept").expect("written");
        listen_at(&file).expect_err("no socket");
        assert_eq!(std::fs::read(&file).expect("there"), b"kept");
    }
}
