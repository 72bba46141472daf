//! The host's side: a small resident helper, because forking and waiting block Node's event loop,
//! and one-shot commands for the image store.

pub mod cgroup;
pub mod fsys;
pub mod guard;
pub mod launch;
pub mod locks;
pub mod mounts;
pub mod netns;
pub mod pack;
pub mod process;
pub mod reaper;
pub mod serve;
pub mod sys;
pub mod tar_reader;
pub mod tree;
pub mod unpack;
pub mod userns;
pub mod wire;
pub mod xattr;
