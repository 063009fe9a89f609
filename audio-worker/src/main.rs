//! The `quintet-audio-worker` process.

fn main() {}
