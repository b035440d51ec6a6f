//! Socket evidence: what the kernel says of an instance's sockets, here, in other namespaces and
//! through an agent; and what the verdict makes of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod agent;
mod common;
mod kernel;
mod verdict;
