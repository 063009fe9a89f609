//! What several tests of this worker need.

use std::sync::Arc;

use quintet_audio_worker::speaker::Speaker;
use quintet_protocol::shm::{Map, ViewMut};
use quintet_protocol::speaker::{SPEAKER_SIZE, SpeakerReader, SpeakerWriter};

/// A line to the speaker with both its ends, in private memory.
pub fn line() -> (SpeakerWriter, Speaker) {
    let words = ViewMut::new(Arc::new(
        Map::anonymous(SPEAKER_SIZE.next_multiple_of(4096) as u64).expect("anonymous map"),
    ));
    let reader = SpeakerReader::new(words.view().clone());
    (SpeakerWriter::new(words), Speaker::new(reader))
}

/// A speaker that nobody has told anything.
#[allow(dead_code, reason = "not every test has use for it")]
pub fn no_speaker() -> Speaker {
    line().1
}
