//! `idle | busy | unknown`: [`walk`] collects, [`sockets`] adds what the instances hold, [`judge`]
//! decides, [`receipt`] writes down; [`occupation`] says with what a target is busy, [`drift`]
//! whether the books are right.

pub mod drift;
pub mod judge;
pub mod occupation;
pub mod receipt;
pub mod sockets;
pub mod walk;
