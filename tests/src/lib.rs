//! What end-to-end tests and the demo stand on: network namespaces, a topology of client, balancer
//! and backends, a real HTTP server, a load generator that notices when a connection changes its
//! server, and small SVG plots.
//!
//! Everything here cleans up after itself when it is dropped, also while a panic unwinds. Test
//! traffic never leaves the namespaces that this crate makes.

pub mod capture;
pub mod certificates;
pub mod command;
pub mod conditions;
pub mod conversations;
pub mod demo;
pub mod drive;
pub mod driver;
pub mod error_queue;
pub mod flood;
pub mod http;
pub mod installed;
pub mod lab;
pub mod load;
pub mod netns;
pub mod observe;
pub mod packet_socket;
pub mod plot;
pub mod process;
pub mod raw_map;
pub mod scenario;
pub mod server;
pub mod slow;
pub mod sockets;
pub mod topology;
pub mod way;
pub mod webhook;
pub mod wire;

pub use release_cases::{cases, checksums, frames, model, packets};
