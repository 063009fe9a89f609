//! What a recording sounds like.
#![allow(dead_code, reason = "each test file uses its own part")]

/// Frames per second of the recordings.
pub const RATE: u32 = 48_000;
/// A sample that could not be told from the quiet between two sounds.
pub const QUIET: i16 = 40;

/// What is between stretches of quiet of 200 frames or more, if it lasts for a tenth of a second. Shorter is what the driver's buffer
/// held before, and what is under way again for as long as the interrupt takes that stops the card.
pub fn sounds(samples: &[i16]) -> Vec<&[i16]> {
    let mut all = Vec::new();
    let mut at = 0;
    let loud = |s: &i16| s.unsigned_abs() > QUIET as u16;
    while let Some(first) = samples[at..].iter().position(loud) {
        let start = at + first;
        let (mut end, mut quiet) = (start, 0);
        for (n, sample) in samples.iter().enumerate().skip(start) {
            if loud(sample) {
                (end, quiet) = (n + 1, 0);
            } else {
                quiet += 1;
            }
            if quiet == 200 {
                break;
            }
        }
        if end - start >= RATE as usize / 10 {
            all.push(&samples[start..end]);
        }
        at = end;
    }
    all
}

/// Times per second at which a sound rises through zero, from the first time to the last: what is left of a swing at the end fades away.
pub fn pitch(sound: &[i16]) -> f64 {
    let rises = sound
        .windows(2)
        .enumerate()
        .filter(|(_, w)| w[0] < 0 && w[1] >= 0);
    let rises: Vec<usize> = rises.map(|(n, _)| n).collect();
    let (first, last) = (rises[0], rises[rises.len() - 1]);
    (rises.len() - 1) as f64 * f64::from(RATE) / (last - first) as f64
}

/// The left channel of frames of two 16-bit samples.
pub fn left(frames: &[u8]) -> Vec<i16> {
    let frames = frames.chunks_exact(4);
    frames
        .map(|frame| i16::from_le_bytes([frame[0], frame[1]]))
        .collect()
}
