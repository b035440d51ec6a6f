//! The host around the data plane: interfaces, routes, kernel settings.

pub mod ethtool;
pub mod netlink;
pub mod route;
pub mod sysctl;
