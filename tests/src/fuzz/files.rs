//! Files and words that a user names, or that somebody has given the user; and the head of an HTTP request.

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;

use quintet_coordinator::cli::{Line, LineError};
use quintet_coordinator::images::ImageArg;
use quintet_coordinator::metrics::serve;
use quintet_coordinator::soak::html;
use quintet_coordinator::soak::merge::merge;
use quintet_coordinator::soak::report::Report;
use quintet_coordinator::units::{parse_duration, parse_port, parse_size, show_size};
use rustix::fs::{MemfdFlags, memfd_create};

/// Has `read` read a file with these bytes.
fn with_file<R>(bytes: &[u8], read: impl FnOnce(std::path::PathBuf) -> R) -> R {
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memfd");
    rustix::io::write(&file, bytes).expect("written");
    read(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
}

fn machine_file(bytes: &[u8]) {
    with_file(bytes, |path| {
        let words: [OsString; 4] = ["quintet".into(), "config".into(), "--machine".into(), path.into()];
        match Line::read(words) {
            Ok(line) => {
                // What is shown of a machine is a machine file for the same one.
                let shown = line.described.machine_file();
                with_file(shown.as_bytes(), |path| {
                    let words: [OsString; 4] =
                        ["quintet".into(), "config".into(), "--machine".into(), path.into()];
                    match Line::read(words) {
                        Ok(line) => assert_eq!(line.described.machine_file(), shown),
                        Err(error) => panic!("{error:?} of what was shown:\n{shown}"),
                    }
                });
            }
            Err(LineError::File(error)) => {
                let text = error.to_string();
                assert!(
                    !text.chars().any(char::is_control),
                    "one line, and no control: {text:?}"
                );
            }
            Err(_) => {}
        }
    });
}

fn report(bytes: &[u8]) {
    let Ok(report) = with_file(bytes, |path| Report::read(&path)) else {
        return;
    };
    let _ = (report.summary(), html::page(&report));
    if let Ok(merged) = merge(vec![report]) {
        let _ = (merged.summary(), html::page(&merged));
    }
}

fn units(text: &str) {
    if let Ok(bytes) = parse_size(text) {
        assert_eq!(parse_size(&show_size(bytes)), Ok(bytes), "{text}");
    }
    let _ = (parse_duration(text), parse_port(text));
    let _ = (ImageArg::parse(text), ImageArg::flash(text));
    let _ = quintet_coordinator::images::words(text);
}

/// Machine files, reports of a soak, words of the command line, requests of a reader of metrics.
///
/// # Panics
/// When a machine file that is shown is none or another, or an error has several lines.
pub fn files(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => machine_file(bytes),
        1 => report(bytes),
        2 => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                units(text);
            }
        }
        _ => {
            let (mut request, mut answer) = (bytes, Vec::new());
            serve(&mut request, &mut answer, || {
                Err("the machine has ended".to_owned())
            })
            .expect("memory takes all");
            let head = String::from_utf8(answer).expect("text");
            assert!(
                head.starts_with("HTTP/1.1 ") && head.contains("\r\n\r\n"),
                "{head}"
            );
        }
    }
}
