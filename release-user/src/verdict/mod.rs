//! `idle | busy | unknown`: [`walk`] collects, [`judge`] decides, [`receipt`] writes down,
//! [`occupation`] says with what it is busy.

pub mod judge;
pub mod occupation;
pub mod receipt;
pub mod walk;
