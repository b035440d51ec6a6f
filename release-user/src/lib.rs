//! User space of `releasectl`.
//!
//! * [`config`] – what exists; [`control`] – where traffic goes, and bringing the maps to it;
//! * [`placement`] – rings and splits; [`verdict`] – whether an instance may stop;
//! * [`kernel`] – the only module that touches BPF; [`net`] – the host around it;
//! * [`sockets`] – what the kernel on an instance's host has for it;
//! * [`store`] – what survives a restart; [`daemon`] – all of that at work;
//! * [`release`] – from a new version to the old one retired; [`report`] – that on a page;
//! * [`api`], [`cli`] – how people and scripts reach it; [`inspect`] – without a daemon.

pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
mod fnv;
pub mod health;
pub mod inspect;
pub mod kernel;
pub mod net;
pub mod paths;
pub mod placement;
pub mod probe;
pub mod release;
pub mod report;
pub mod sockets;
pub mod store;
pub mod verdict;
