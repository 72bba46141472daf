//! The agent itself: an event loop on one thread, and a bounded number of
//! short-lived workers for file operations.

mod conn;
mod exec;
mod exec_request;
mod execs;
mod files;
mod jobs;
mod requests;
mod reseed;
mod server;

pub use server::{Options, Server, Transport};
