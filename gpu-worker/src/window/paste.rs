//! The text that the user has copied on the host.
//!
//! Asked for over a connection of its own and on a thread of its own, since the program that holds the text may take its time or
//! never answer. Under Wayland a program without the focus of a text field gets it only through XWayland.

use std::time::{Duration, Instant};

use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _, CreateWindowAux, WindowClass};

/// How long the holder of the text may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest text that is taken, in bytes.
const MOST: u32 = 256 << 10;

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum PasteError {
    /// The X server.
    #[error("The X server does not give the clipboard: {0}")]
    Server(String),
    /// Nobody holds any, or not as text.
    #[error("The clipboard holds no text")]
    Empty,
    /// Too much of it.
    #[error("The clipboard holds more than {} KiB", MOST >> 10)]
    Long,
    /// Whoever holds it says nothing.
    #[error("The clipboard's owner does not answer")]
    Silent,
}

fn server(error: impl std::fmt::Display) -> PasteError {
    PasteError::Server(error.to_string())
}

/// The text on the clipboard of the X server that the environment names.
///
/// # Errors
/// [`PasteError`].
pub fn clipboard() -> Result<String, PasteError> {
    let (x, screen) = x11rb::connect(None).map_err(server)?;
    let root = x.setup().roots[screen].root;
    let window = x.generate_id().map_err(server)?;
    let aux = CreateWindowAux::new();
    x.create_window(0, window, root, 0, 0, 1, 1, 0, WindowClass::INPUT_ONLY, 0, &aux)
        .map_err(server)?;
    let atom = |name: &str| -> Result<u32, PasteError> {
        let cookie = x.intern_atom(false, name.as_bytes()).map_err(server)?;
        Ok(cookie.reply().map_err(server)?.atom)
    };
    let (selection, text, property) = (atom("CLIPBOARD")?, atom("UTF8_STRING")?, atom("QUINTET_PASTE")?);
    x.convert_selection(window, selection, text, property, x11rb::CURRENT_TIME)
        .map_err(server)?;
    x.flush().map_err(server)?;
    let start = Instant::now();
    let answer = loop {
        match x.poll_for_event().map_err(server)? {
            Some(Event::SelectionNotify(answer)) => break answer,
            Some(_) => {}
            None if start.elapsed() > PATIENCE => return Err(PasteError::Silent),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if answer.property == x11rb::NONE {
        return Err(PasteError::Empty);
    }
    let reply = x
        .get_property(true, window, property, AtomEnum::ANY, 0, MOST / 4)
        .map_err(server)?
        .reply()
        .map_err(server)?;
    // A longer text comes in pieces (INCR), of which the first is no text.
    if reply.bytes_after != 0 || reply.type_ != text {
        return Err(PasteError::Long);
    }
    let text = String::from_utf8_lossy(&reply.value).into_owned();
    if text.is_empty() {
        return Err(PasteError::Empty);
    }
    Ok(text)
}
