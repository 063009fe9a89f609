//! The seqlock under the model checker: a read is of one publication, or is refused.
#![cfg(loom)]

mod loom_support;

use loom::thread;
use loom_support::{Words, model};
use quintet_protocol::seqlock::{ReadLimit, SeqReader, SeqWriter};
use quintet_protocol::words::WriteWords;

fn limit() -> ReadLimit {
    ReadLimit {
        tries: 3,
        nanos: u64::MAX,
    }
}

#[test]
fn s3_112_a_record_of_three_words_is_never_torn() {
    model(|| {
        let words = Words::new(128);
        let reader = SeqReader::with_limit(words.clone(), limit());
        let thread = thread::spawn(move || {
            let mut writer = SeqWriter::new(words);
            writer.write(&[1; 12]);
            writer.write(&[2; 12]);
        });
        let mut got = [9; 12];
        if let Ok(sequence) = reader.read(0, &mut got) {
            assert_eq!(got, [(sequence / 2) as u8; 12]);
        }
        thread.join().unwrap();
        assert_eq!(reader.read(0, &mut got), Ok(4));
        assert_eq!(got, [2; 12]);
    });
}

#[test]
fn s3_112_what_a_killed_writer_left_is_never_taken_for_a_record() {
    model(|| {
        let words = Words::new(128);
        // Killed after its first store and half of the record.
        words.store_u32(0, 1, loom::sync::atomic::Ordering::Relaxed);
        words.write_bytes(8, &[7; 4]);
        let reader = SeqReader::with_limit(words.clone(), limit());
        let thread = thread::spawn(move || {
            SeqWriter::new(words).write(&[1; 8]);
        });
        let mut got = [0; 8];
        if reader.read(0, &mut got).is_ok() {
            assert_eq!(got, [1; 8]);
        }
        thread.join().unwrap();
    });
}
