//! Releases: from "here is the new version" to "the old one is retired".

pub mod plan;
