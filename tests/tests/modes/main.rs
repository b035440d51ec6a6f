//! A release in every mode, family and protocol: a thousand connections or UDP flows, a shift in
//! the middle, no error, nobody moved, and every checksum right where packets arrive.
//!
//! Traffic comes through real network stacks at both ends; checksums are recomputed from captures
//! at the backends and, where replies are rewritten, at the client.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod local;
mod nat;
mod one_way;
mod release;
