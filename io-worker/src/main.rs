//! The `quintet-io-worker` process.

fn main() {}
