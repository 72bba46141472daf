//! Tar streams: ustar with pax and GNU extensions in, ustar with pax out.

pub mod extract;
pub mod pack;
pub mod read;
pub mod write;

pub const BLOCK: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As stored, without a trailing slash: may be absolute or hold `..`.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of data that follow; 0 for all but files.
    pub size: u64,
    pub mtime_sec: i64,
    pub mtime_nsec: u32,
    /// Target of a link.
    pub link: Vec<u8>,
    pub device: (u32, u32),
    /// `SCHILY.xattr.*` records.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
