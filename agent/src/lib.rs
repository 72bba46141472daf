//! The guest agent: one protocol in every sandbox.
//!
//! `docs/agent-protocol.md` is the specification; names here follow it.

pub mod agent;
pub mod cgroup;
pub mod fields;
pub mod frame;
pub mod fsroot;
pub mod outbuf;
pub mod pty;
pub mod ring;
pub mod spawn;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod tar;
pub mod users;
