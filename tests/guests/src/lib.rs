//! Guests assembled from source at build time.
