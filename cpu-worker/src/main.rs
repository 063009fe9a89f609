//! The `quintet-cpu-worker` process.

fn main() {}
