//! Releases: from "here is the new version" to "the old one is retired".

pub mod analysis;
pub mod hook;
pub mod journal;
pub mod machine;
pub mod phase;
pub mod plan;
pub mod runner;
pub mod sample;
pub mod words;
