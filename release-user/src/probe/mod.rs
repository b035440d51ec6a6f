//! Asking the two ends of a silent TCP connection whether they still have it, and ending one that
//! is to end.
//!
//! A probe is a keep-alive (RFC 9293 §3.8.4) with the connection's own numbers: one below the next
//! sequence number, no data. An end that has the connection acknowledges it, one that has not
//! answers with a RST that its peer accepts. The packet path takes the acknowledgement as evidence
//! and drops it; the RST closes the flow as any other, and goes on to the peer.
//!
//! [`watch`] decides what to ask, [`segment`] writes it, [`inject`] sends it.

pub mod inject;
pub mod segment;
pub mod watch;
