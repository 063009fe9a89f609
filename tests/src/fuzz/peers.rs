//! What one process tells another in bytes: messages, control requests, records, rings.
//!
//! Words in shared memory that a hostile process writes are `ends`' business.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use arbitrary::Unstructured;
use quintet_protocol::control::{
    Request, check_name, decode_answer, decode_request, encode_answer, encode_request, one_line,
};
use quintet_protocol::debugger;
use quintet_protocol::handshake::config::{AudioConfig, CpuConfig, GpuConfig, IoConfig};
use quintet_protocol::handshake::{self, Hello, Mapped, ProbeGo, ProbeResult, Proceed, Role};
use quintet_protocol::input::{InputEvent, KeyStroke, parse_chord, parse_pointer, strokes_of};
use quintet_protocol::message::{Command, Event, MAX_COMMAND};
use quintet_protocol::payload::{Payload, PayloadGrant};
use quintet_protocol::ring::{Consumer, Position, Producer, PushError, format, ring_size};
use quintet_protocol::shm::{Map, ViewMut};
use quintet_protocol::time::HostTime;
use quintet_protocol::trace;
use quintet_protocol::wasm::{
    CompileOrder, CompileReply, CompilerSetup, JobAnswer, JobOrder, service::Service,
};
use serde::{Serialize, de::DeserializeOwned};

/// A start-up or job message: refused, or one that comes back as it went.
fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = handshake::decode::<T>(bytes) {
        let again = handshake::encode(&message);
        assert_eq!(handshake::decode::<T>(&again).ok(), Some(message));
    }
}

/// A worker's configuration, which comes without a frame.
fn plain<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(value) = postcard::from_bytes::<T>(bytes) {
        let once = postcard::to_allocvec(&value).expect("plain data");
        let again: T = postcard::from_bytes(&once).expect("what was encoded");
        assert_eq!(postcard::to_allocvec(&again).expect("plain data"), once);
    }
}

/// Messages of the rings and of the start of a process, from whoever writes them.
///
/// # Panics
/// When one is decoded to what does not encode to it again.
pub fn messages(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    // What of a frame is always the same would be found by no mutation.
    let framed = || [&handshake::encode(&())[..], bytes].concat();
    match kind % 21 {
        0 => {
            if let Ok(command) = Command::decode(bytes) {
                let mut head = [0; MAX_COMMAND];
                let len = command.encode(&mut head);
                assert_eq!([&head[..len], command.data()].concat(), bytes, "{command:?}");
            }
        }
        1 => {
            if let Ok(event) = Event::decode(bytes) {
                assert_eq!(event.encode(), bytes, "{event:?}");
            }
        }
        2 => {
            if let Ok((event, ts)) = InputEvent::from_record(bytes) {
                let again = event.to_record(ts.unwrap_or(0));
                assert_eq!(
                    InputEvent::from_record(again.as_bytes()).map(|(e, _)| e),
                    Ok(event)
                );
            }
        }
        3 => {
            let (since, now) = (HostTime(1000), HostTime(u64::MAX / 2));
            for role in Role::ALL {
                if let Ok(event) = trace::Event::check(bytes, role, since, now) {
                    assert_eq!(event.to_record()[..], *bytes);
                    assert!(event.at >= since && event.at.0.saturating_add(event.lasted) <= now.0);
                }
            }
        }
        4 => {
            let mut u = Unstructured::new(bytes);
            let (number, words) = (u.arbitrary().unwrap_or(0), u.arbitrary().unwrap_or([0; 3]));
            if let Some(service) = Service::from_words(number, words) {
                let (number, words) = service.to_words();
                assert_eq!(Service::from_words(number, words), Some(service));
            }
        }
        5 => {
            if let Some(message) = debugger::Message::decode(bytes) {
                assert_eq!(debugger::Message::decode(&message.encode()), Some(message));
            }
        }
        6 => message::<Hello>(&framed()),
        7 => message::<Mapped>(&framed()),
        8 => message::<ProbeResult>(&framed()),
        9 => message::<Proceed>(&framed()),
        10 => message::<ProbeGo>(&framed()),
        11 => message::<CompileOrder>(&framed()),
        12 => message::<CompileReply>(&framed()),
        13 => message::<JobOrder>(&framed()),
        14 => message::<JobAnswer>(&framed()),
        15 => message::<Hello>(bytes),
        16 => plain::<CpuConfig>(bytes),
        17 => plain::<IoConfig>(bytes),
        18 => plain::<GpuConfig>(bytes),
        19 => message::<CompilerSetup>(&framed()),
        _ => plain::<AudioConfig>(bytes),
    }
}

fn balanced(events: impl Iterator<Item = InputEvent>, what: &str) {
    let mut held = Vec::new();
    for event in events {
        if let InputEvent::Key { key, down } = event {
            let place = held.iter().position(|k| *k == key);
            match (down, place) {
                (true, _) => held.push(key),
                (false, Some(place)) => {
                    held.swap_remove(place);
                }
                (false, None) => panic!("{what:?} lets {key:?} go, which is not held"),
            }
        }
    }
    assert!(held.is_empty(), "{what:?} leaves {held:?} down");
}

/// What a client says to a machine, and what a machine may answer one.
///
/// # Panics
/// When something decoded does not encode to the same, a text is longer than what it is cut to, or a key stays down.
pub fn control(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    let framed = [&handshake::encode(&())[..], bytes].concat();
    match kind % 5 {
        0 => {
            for packet in [&framed[..], bytes] {
                if let Ok(request) = decode_request(packet) {
                    assert_eq!(
                        decode_request(&encode_request(&request)).ok(),
                        Some(request.clone())
                    );
                    texts(&request);
                }
            }
        }
        1 => {
            if let Ok(answer) = decode_answer(&framed) {
                assert_eq!(decode_answer(&encode_answer(&answer)).ok(), Some(answer));
            }
        }
        2 => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                for request in [
                    Request::Type(text.into()),
                    Request::Key(text.into()),
                    Request::Mouse(text.into()),
                ] {
                    texts(&request);
                }
            }
        }
        3 => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                let line = one_line(text, 64);
                assert!(line.len() <= 64 && !line.contains('\n'));
                let _ = check_name(text);
            }
        }
        _ => {
            // A payload inline, as a hostile coordinator would hand one over, and its digest.
            if let Ok(grant) = postcard::from_bytes::<PayloadGrant>(bytes) {
                let _ = Payload::receive(grant, None);
            }
        }
    }
}

fn texts(request: &Request) {
    match request {
        Request::Type(text) => {
            if let Ok(strokes) = strokes_of(text) {
                balanced(strokes.into_iter().flat_map(KeyStroke::events), text);
            }
        }
        Request::Key(chord) => {
            if let Ok(keys) = parse_chord(chord) {
                balanced(keys.events(), chord);
            }
        }
        Request::Mouse(action) => {
            let _ = parse_pointer(action);
        }
        _ => {}
    }
}

/// An honest producer and an honest consumer, each of which dies and has successors: every record arrives once for
/// whoever commits, in order and whole. A byte of the input in the producer's file, and the consumer says so or goes on.
///
/// # Panics
/// When a record is lost, changed or out of order between honest ends.
pub fn ring(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let flags: u8 = u.arbitrary().unwrap_or(0);
    let capacity = 16 << (flags & 7);
    let part = |len: usize| {
        let map = Map::anonymous(len as u64).expect("memory");
        ViewMut::new(Arc::new(map)).slice(0, len)
    };
    let (theirs, mine) = (part(ring_size(capacity)), part(128));
    let start = Position {
        cursor: u.arbitrary::<u32>().unwrap_or(0) & !3,
        number: u64::from(u.arbitrary::<u32>().unwrap_or(0)),
    };
    format(&theirs, &mine, start);
    let producer = || Producer::attach(theirs.clone(), mine.view().clone());
    let consumer = |at| Consumer::attach(mine.clone(), theirs.view().clone(), at).expect("a ring");
    let (mut p, mut c) = (producer().expect("a new ring"), consumer(start));
    let mut committed = start;
    // Records that were published and are not committed; how many of them this consumer has read; those staged.
    let (mut sent, mut read, mut staged) = (VecDeque::<Vec<u8>>::new(), 0, VecDeque::new());
    let mut honest = true;
    let mut buffer = vec![0; 4096];
    for _ in 0..400 {
        let Ok(op) = u.arbitrary::<u8>() else { break };
        if u.is_empty() {
            break;
        }
        match op % 8 {
            0 | 1 => {
                let len = usize::from(u.arbitrary::<u8>().unwrap_or(0)).min(u.len());
                let bytes = u.bytes(len).unwrap_or(&[]);
                match p.stage(bytes) {
                    Ok(_) => staged.push_back(bytes.to_vec()),
                    Err(PushError::TooLarge { len, max }) => assert!(len > max),
                    Err(PushError::Full { .. }) => assert!(
                        !(honest && sent.is_empty() && staged.is_empty()),
                        "an empty ring is full"
                    ),
                    Err(error) => assert!(!honest, "{error}"),
                }
            }
            2 => {
                p.publish();
                sent.append(&mut staged);
            }
            3 | 4 => match c.next(&mut buffer) {
                Ok(Some(record)) if honest => {
                    assert_eq!(buffer[..record.len], sent[read], "record {read}");
                    read += 1;
                }
                Ok(None) if honest => assert_eq!(read, sent.len(), "records are there"),
                Ok(_) => {}
                Err(error) => assert!(!honest, "{error}"),
            },
            5 => {
                committed = c.position();
                c.release(committed);
                sent.drain(..read.min(sent.len()));
                read = 0;
            }
            6 if op & 0x80 == 0 => {
                // Nobody has seen what was staged.
                staged.clear();
                // Also where its own file has been written over.
                p = producer().expect("a successor begins");
            }
            6 => {
                c = consumer(committed);
                read = 0;
            }
            _ if op & 0xE0 == 0xE0 => {
                honest = false;
                let at: u16 = u.arbitrary().unwrap_or(0);
                let words = theirs.len() / 4;
                let value = u.arbitrary().unwrap_or(u32::MAX);
                theirs.store_u32(
                    usize::from(at) % words * 4,
                    value,
                    quintet_protocol::sync::Ordering::Relaxed,
                );
            }
            _ => {
                let _ = (c.has_pending(), p.is_drained(), p.released());
            }
        }
    }
}
