//! Releases: from "here is the new version" to "the old one is retired".

pub mod machine;
pub mod phase;
pub mod plan;
