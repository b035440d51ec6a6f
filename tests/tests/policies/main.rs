//! What is said of new flows beside weights: test rules, sessions, limits, datagrams placed one by
//! one, refusals. Each with the real daemon and real sockets, over IPv4 and IPv6; and each time
//! `explain` must say the same before.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;
mod datagrams;
mod limits;
mod refusals;
mod rules;
mod sessions;
