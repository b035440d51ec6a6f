//! `idle | busy | unknown`: [`walk`] collects, [`judge`] decides, [`receipt`] writes down.

pub mod judge;
pub mod receipt;
pub mod walk;
