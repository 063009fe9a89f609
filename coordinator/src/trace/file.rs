//! Events as Chrome's trace-event JSON: an array of one object a line, with times in microseconds.
//!
//! A reader of this format takes an array without its end, so a file that a kill cut off opens as far as it goes. Names of
//! kinds are plain; whatever else is text goes through `serde_json`.

use std::io::Write;

use quintet_protocol::time::HostTime;

/// Most bytes of a file; a worker must not be able to fill the host's disk.
pub(super) const MOST_BYTES: u64 = 1 << 30;

/// Whose event: a process and a thread, or what stands for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) pid: u32,
    pub(super) tid: u32,
}

/// What is shown of an event besides its name and time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Detail<'a> {
    Nothing,
    Number(&'a str, u64),
    Hex(&'a str, u64),
    Text(&'a str, &'a str),
}

/// A file being written.
#[derive(Debug)]
pub(super) struct TraceFile<W> {
    to: W,
    since: HostTime,
    bytes: u64,
    /// Number of the last span beside others.
    beside: u64,
    line: Vec<u8>,
    error: Option<std::io::Error>,
}

/// Text as JSON, with its quotes.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl<W: Write> TraceFile<W> {
    /// Begins a file whose times count from `since`.
    pub(super) fn new(to: W, since: HostTime) -> Self {
        let mut this = Self {
            to,
            since,
            bytes: 0,
            beside: 0,
            line: Vec::with_capacity(512),
            error: None,
        };
        this.put(b"[\n");
        this
    }

    /// Whether there is no room for more of what workers tell.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MOST_BYTES
    }

    /// Why nothing is written any more.
    pub(super) fn take_error(&mut self) -> Option<std::io::Error> {
        self.error.take()
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.error.is_none() && self.bytes < u64::MAX {
            match self.to.write_all(bytes) {
                Ok(()) => self.bytes += bytes.len() as u64,
                Err(error) => {
                    self.error = Some(error);
                    self.bytes = u64::MAX;
                }
            }
        }
    }

    /// One event: its phase, what comes behind its name, and its detail.
    fn event(&mut self, place: Place, phase: char, name: &str, at: HostTime, more: &str, detail: Detail<'_>) {
        let nanos = at.since(self.since);
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        // Writing to memory cannot fail.
        let _ = write!(
            line,
            "{{\"ph\":\"{phase}\",\"pid\":{},\"tid\":{},\"ts\":{}.{:03},\"name\":{name}{more}",
            place.pid,
            place.tid,
            nanos / 1000,
            nanos % 1000
        );
        let _ = match detail {
            Detail::Nothing => Ok(()),
            Detail::Number(what, n) => write!(line, ",\"args\":{{\"{what}\":{n}}}"),
            Detail::Hex(what, n) => write!(line, ",\"args\":{{\"{what}\":\"{n:#x}\"}}"),
            Detail::Text(what, text) => write!(line, ",\"args\":{{\"{what}\":{}}}", json(text)),
        };
        line.extend_from_slice(b"},\n");
        self.put(&line);
        self.line = line;
    }

    /// Names a process (`process_name`) or a thread (`thread_name`).
    pub(super) fn call(&mut self, place: Place, what: &str, name: &str) {
        self.event(
            place,
            'M',
            &json(what),
            self.since,
            "",
            Detail::Text("name", name),
        );
    }

    /// Says where among the processes or threads it is shown.
    pub(super) fn order(&mut self, place: Place, what: &str, index: u64) {
        self.event(
            place,
            'M',
            &json(what),
            self.since,
            "",
            Detail::Number("sort_index", index),
        );
    }

    /// Something that took time on its own track.
    pub(super) fn span(&mut self, place: Place, name: &str, at: HostTime, lasted: u64, detail: Detail<'_>) {
        let more = format!(",\"dur\":{}.{:03}", lasted / 1000, lasted % 1000);
        self.event(place, 'X', &json(name), at, &more, detail);
    }

    /// Something that took time beside others of its kind.
    pub(super) fn beside(&mut self, place: Place, name: &str, at: HostTime, lasted: u64, detail: Detail<'_>) {
        self.beside += 1;
        let more = format!(",\"cat\":\"beside\",\"id\":{}", self.beside);
        let name = json(name);
        self.event(place, 'b', &name, at, &more, detail);
        let end = HostTime(at.0.saturating_add(lasted));
        self.event(place, 'e', &name, end, &more, Detail::Nothing);
    }

    /// A moment.
    pub(super) fn instant(&mut self, place: Place, name: &str, at: HostTime, detail: Detail<'_>) {
        self.event(place, 'i', &json(name), at, ",\"s\":\"t\"", detail);
    }

    /// A value that changes with time.
    pub(super) fn counter(&mut self, place: Place, name: &str, at: HostTime, value: u64) {
        self.event(place, 'C', &json(name), at, "", Detail::Number("value", value));
    }

    /// Hands what was written to the host.
    pub(super) fn flush(&mut self) {
        if self.bytes < u64::MAX
            && let Err(error) = self.to.flush()
        {
            self.error = Some(error);
            self.bytes = u64::MAX;
        }
    }

    /// Ends the array, with an event that nothing follows.
    pub(super) fn finish(&mut self, place: Place) {
        let end = format!(
            "{{\"ph\":\"M\",\"pid\":{},\"tid\":{},\"name\":\"trace_ended\",\"args\":{{}}}}\n]\n",
            place.pid, place.tid
        );
        self.put(end.as_bytes());
        self.flush();
    }

    #[cfg(test)]
    pub(super) fn into_inner(self) -> W {
        self.to
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const PLACE: Place = Place { pid: 7, tid: 8 };

    fn written(write: impl FnOnce(&mut TraceFile<Vec<u8>>)) -> Vec<u8> {
        let mut file = TraceFile::new(Vec::new(), HostTime(1000));
        write(&mut file);
        file.into_inner()
    }

    #[test]
    fn every_shape_parses_and_keeps_its_nanoseconds() {
        let bytes = written(|f| {
            f.call(PLACE, "process_name", "a \"b\"");
            f.span(
                PLACE,
                "s",
                HostTime(2_234_567),
                1_000_001,
                Detail::Hex("port", 0x3F8),
            );
            f.beside(PLACE, "b", HostTime(1001), 5, Detail::Number("bytes", u64::MAX));
            f.instant(
                PLACE,
                "line\n\u{1}",
                HostTime(0),
                Detail::Text("text", "\\ \u{7F}"),
            );
            f.counter(PLACE, "c", HostTime(9000), 3);
            f.finish(PLACE);
        });
        let all: Vec<Value> = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(all[0]["args"]["name"], "a \"b\"");
        assert_eq!(
            (&all[1]["ts"], &all[1]["dur"]),
            (&2233.567.into(), &1000.001.into())
        );
        assert_eq!(all[1]["args"]["port"], "0x3f8");
        assert_eq!((&all[2]["ph"], &all[3]["ph"]), (&"b".into(), &"e".into()));
        assert_eq!((&all[2]["id"], &all[3]["ts"]), (&all[3]["id"], &0.006.into()));
        assert_eq!(all[2]["args"]["bytes"], u64::MAX);
        // What was before the beginning is at the beginning.
        assert_eq!(
            (&all[4]["ts"], &all[4]["name"]),
            (&0.0.into(), &"line\n\u{1}".into())
        );
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn a_file_that_was_cut_off_parses_up_to_its_last_whole_line() {
        let bytes = written(|f| (0..50).for_each(|n| f.counter(PLACE, "c", HostTime(n * 5000), n)));
        for cut in [3, 70, bytes.len() / 2, bytes.len()] {
            let text = String::from_utf8(bytes[..cut].to_vec()).expect("ASCII");
            let whole = text.rfind("},\n").map_or("[", |at| &text[..=at]);
            let all: Vec<Value> = serde_json::from_str(&format!("{whole}]")).expect("JSON");
            assert_eq!(all.len(), text.matches("},\n").count());
        }
    }

    #[test]
    fn a_disk_that_is_full_is_told_once() {
        #[derive(Debug)]
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut file = TraceFile::new(Full, HostTime(0));
        assert!(file.take_error().is_some());
        file.counter(PLACE, "c", HostTime(1), 1);
        file.finish(PLACE);
        assert!(file.take_error().is_none() && file.is_full());
    }
}
