//! What routers, the balancer itself and hosts say when a packet cannot go on, and datagrams that
//! need more than one packet: between real network stacks, which act on what they are told.
//!
//! A router is a namespace with a link of a smaller MTU, or none, behind it. Packets are lost by
//! nobody here (no netem); what decapsulates tunnels is the wire's own program, not the kernel's
//! devices.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod arriving;
mod bulk;
mod common;
mod fragments;
mod mtu;
mod told;
