//! Socket evidence: what the kernel says of an instance's sockets, here and in other namespaces.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kernel;
