//! The host around the data plane: interfaces, routes, neighbours, kernel settings.

pub mod ethtool;
pub mod exchange;
pub mod http;
pub mod namespace;
pub mod neighbours;
pub mod netlink;
pub mod route;
pub mod sysctl;
