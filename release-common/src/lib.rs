//! What the kernel programs and user space share.
//!
//! * [`abi`] – keys and values of every map, byte for byte the same on both sides;
//! * [`packet`] – bounds-checked access to a frame, parsing, checksums, rewriting;
//! * [`tcp`] – the lifecycle of a tracked connection;
//! * [`measure`] – histograms of what instances take their time for;
//! * [`placement`] – which version and which instance a new flow belongs to;
//! * [`pipeline`] – a packet's journey through all of the above;
//! * [`shared`], [`atomic`], [`verifier`] – what the BPF target needs underneath;
//! * [`reason`] – the named end of every journey.
//!
//! Nothing here touches a map or a helper: the pipeline asks a [`pipeline::Tables`], which the
//! kernel programs implement over BPF maps and the tests over ordinary hash tables.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod atomic;
pub mod measure;
pub mod packet;
pub mod pipeline;
pub mod placement;
pub mod reason;
pub mod shared;
pub mod tcp;
pub mod verifier;
