//! The `quintet-gpu-worker` process.

fn main() {}
