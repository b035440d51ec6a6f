//! `idle | busy | unknown`: [`walk`] collects, [`sockets`] adds what the instances hold, [`judge`]
//! decides, [`receipt`] writes down.

pub mod judge;
pub mod receipt;
pub mod sockets;
pub mod walk;
