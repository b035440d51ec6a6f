//! NOTE, to be removed: the former content of this file (`DEADLINE`, `Pair`, `send`, `eventually`,
//! `Topology::{pair, up}`, `Backend::listen`, `Balancer::{verdict, instance_status}`) was
//! overwritten by mistake at 11:21. Its author has to write it here again; nobody else edits this
//! file. `observe.rs` is a separate module for the other end-to-end tests.
