//! What a worker prints: log lines are passed on at once, its last words are kept for the report of its death.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use quintet_protocol::control::{MAX_MESSAGE, one_line};
use quintet_protocol::handshake::Role;

/// Lines kept of a worker's last words.
const TAIL_LINES: usize = 40;
/// Longest line that is read, in bytes; a worker that prints no line ends cannot fill our memory.
const MAX_LINE: u64 = 4096;

/// The last lines a worker printed that are not log lines: error texts and panics.
#[derive(Clone, Debug, Default)]
pub struct LastWords(Arc<Mutex<VecDeque<String>>>);

impl LastWords {
    /// All of them, oldest first.
    pub fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// The very last one.
    pub fn last(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .back()
            .cloned()
    }

    fn push(&self, line: String) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == TAIL_LINES {
            words.pop_front();
        }
        words.push_back(line);
    }
}

/// Reads a worker's standard error until it is closed. Joining the thread waits for the last words.
pub fn follow(role: Role, generation: u32, stderr: ChildStderr) -> (LastWords, Option<JoinHandle<()>>) {
    let words = LastWords::default();
    let kept = words.clone();
    let thread = std::thread::Builder::new()
        .name(format!("log-{}", role.name()))
        .spawn(move || read_lines(stderr, |line| take(role, generation, line, &kept)));
    (words, thread.ok())
}

fn take(role: Role, generation: u32, line: &str, words: &LastWords) {
    let line = one_line(line, MAX_MESSAGE);
    if line.is_empty() {
        return;
    }
    if is_log_line(&line) {
        eprintln!("[{}.{generation}] {line}", role.name());
        crate::trace::log_line(Some((role, generation)), &line);
    } else {
        words.push(line);
    }
}

/// Whether a line begins with a level, as the workers' log does.
fn is_log_line(line: &str) -> bool {
    ["ERROR ", "WARN ", "INFO ", "DEBUG ", "TRACE "]
        .iter()
        .any(|level| line.trim_start().starts_with(level))
}

fn read_lines(from: impl Read, mut each: impl FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => each(&String::from_utf8_lossy(&line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_pass_and_last_words_stay() {
        let words = LastWords::default();
        take(Role::Io, 1, " WARN bus: odd\n", &words);
        for n in 0..100 {
            take(Role::Io, 1, &format!("word {n}\n"), &words);
        }
        take(Role::Io, 1, "\n", &words);
        assert_eq!(words.all().len(), TAIL_LINES);
        assert_eq!(words.last().as_deref(), Some("word 99"));
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut lines = Vec::new();
        read_lines(&vec![b'x'; 10_000][..], |l| lines.push(l.len()));
        assert_eq!(lines, [4096, 4096, 1808]);
    }
}
