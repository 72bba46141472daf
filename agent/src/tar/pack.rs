//! Packs a file or a directory tree into a tar stream.
//!
//! I1. Links are stored, never followed.
//! I2. A file that changes while it is read still yields exactly the bytes its
//!     header announced: cut off, or filled with zeros.

use super::{write, Entry, Kind};
use crate::fsroot::{list_names, Place, Root};
use crate::sys;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Hard links beyond this many are stored as files of their own.
const HARD_LINKS_MAX: usize = 65_536;
const DEPTH_MAX: usize = 256;

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Packed {
    pub entries: u64,
    pub bytes: u64,
    /// Devices and sockets, which are left out.
    pub skipped: u64,
}

struct Level {
    dir: OwnedFd,
    names: std::vec::IntoIter<CString>,
    path_len: usize,
}

/// Packs `place` under `name`; `sink` takes the bytes and may fail to stop.
pub fn pack(place: &Place, name: &[u8], sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Packed> {
    let mut packer = Packer { sink, done: Packed::default(), links: HashMap::new(), buf: vec![0; 64 * 1024] };
    packer.tree(place, name)?;
    (packer.sink)(&write::END)?;
    Ok(packer.done)
}

/// The name that a path's own last component gives its tree.
pub fn tree_name(path: &[u8]) -> Vec<u8> {
    let last = path.split(|&b| b == b'/').rfind(|part| !part.is_empty() && *part != b".");
    match last {
        None | Some(b"..") => b".".to_vec(),
        Some(name) => name.to_vec(),
    }
}

/// Finds what to pack. A link as such is packed as a link.
pub fn find(root: &Root, path: &[u8]) -> Result<Place, crate::fsroot::PathError> {
    root.find_strict(path)
}

struct Packer<'a> {
    sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    done: Packed,
    links: HashMap<(u64, u64), Vec<u8>>,
    buf: Vec<u8>,
}

impl Packer<'_> {
    fn tree(&mut self, place: &Place, name: &[u8]) -> io::Result<()> {
        let mut path = name.to_vec();
        let meta = place.metadata()?;
        let mut levels: Vec<Level> = self.one(place, &path, &meta)?.into_iter().collect();
        if let Some(top) = levels.last_mut() {
            top.path_len = path.len();
        }
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_len);
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
            let place = Place { dir: sys::dup_above(level.dir.as_raw_fd(), 3)?, name };
            let meta = match place.metadata() {
                Ok(meta) => meta,
                Err(err) if sys::errno_of(&err) == sys::ENOENT => continue, // gone since it was listed
                Err(err) => return Err(err),
            };
            if let Some(mut below) = self.one(&place, &path, &meta)? {
                if levels.len() >= DEPTH_MAX {
                    return Err(sys::os_error(sys::ENAMETOOLONG));
                }
                below.path_len = path.len();
                levels.push(below);
            }
        }
        Ok(())
    }

    /// Writes one entry; a directory returns what is below it.
    fn one(&mut self, place: &Place, path: &[u8], meta: &Metadata) -> io::Result<Option<Level>> {
        let file_type = meta.file_type();
        if file_type.is_dir() {
            self.header(path, Kind::Directory, meta, 0, Vec::new())?;
            let dir = place.open(sys::O_RDONLY | sys::O_DIRECTORY | sys::O_NONBLOCK, 0)?;
            let made_up = [sys::PROC_SUPER_MAGIC, sys::SYSFS_MAGIC, sys::CGROUP_SUPER_MAGIC, sys::CGROUP2_SUPER_MAGIC];
            if made_up.contains(&sys::fs_type(dir.as_raw_fd())?) {
                return Ok(None); // the kernel's own files are nobody's data
            }
            let names = list_names(dir.as_raw_fd())?.into_iter();
            return Ok(Some(Level { dir, names, path_len: 0 }));
        }
        if file_type.is_symlink() {
            let target = sys::readlink_at(place.dir_fd(), &place.name)?;
            self.header(path, Kind::Symlink, meta, 0, target)?;
        } else if file_type.is_fifo() {
            self.header(path, Kind::Fifo, meta, 0, Vec::new())?;
        } else if file_type.is_file() {
            self.file(place, path, meta)?;
        } else {
            self.done.skipped += 1;
        }
        Ok(None)
    }

    fn file(&mut self, place: &Place, path: &[u8], meta: &Metadata) -> io::Result<()> {
        if meta.nlink() > 1 {
            let key = (meta.dev(), meta.ino());
            if let Some(first) = self.links.get(&key).cloned() {
                return self.header(path, Kind::HardLink, meta, 0, first);
            }
            if self.links.len() < HARD_LINKS_MAX {
                self.links.insert(key, path.to_vec());
            }
        }
        // The name may stand for something else by now, a FIFO say.
        let file = File::from(place.open(sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY, 0)?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            self.done.skipped += 1;
            return Ok(());
        }
        let size = meta.len();
        self.header(path, Kind::File, &meta, size, Vec::new())?;
        let mut left = size;
        while left > 0 {
            let max = left.min(self.buf.len() as u64) as usize;
            let n = match sys::read_into(file.as_raw_fd(), &mut self.buf[..max]) {
                Ok(0) => {
                    self.buf[..max].fill(0); // I2
                    max
                }
                Ok(n) => n,
                Err(err) if sys::errno_of(&err) == sys::EINTR => continue,
                Err(err) => return Err(err),
            };
            (self.sink)(&self.buf[..n])?;
            left -= n as u64;
        }
        self.done.bytes += size;
        (self.sink)(write::padding(size))
    }

    fn header(&mut self, path: &[u8], kind: Kind, meta: &Metadata, size: u64, link: Vec<u8>) -> io::Result<()> {
        self.done.entries += 1;
        let entry = Entry {
            path: path.to_vec(),
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            size,
            mtime_sec: meta.mtime(),
            mtime_nsec: 0,
            link,
            device: (0, 0),
            xattrs: Vec::new(),
        };
        (self.sink)(&write::header(&entry))
    }
}

#[cfg(test)]
mod tests {
    use super::super::extract::{extract, ExtractOptions};
    use super::*;
    use crate::fsroot::tests::Scratch;
    use crate::fsroot::Outside;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn pack_all(dir: &Path) -> (Vec<u8>, Packed) {
        let parent = OwnedFd::from(File::open(dir.parent().unwrap()).unwrap());
        let name = CString::new(dir.file_name().unwrap().as_encoded_bytes()).unwrap();
        let mut bytes = Vec::new();
        let mut sink = |chunk: &[u8]| -> io::Result<()> {
            bytes.extend_from_slice(chunk);
            Ok(())
        };
        let done = pack(&Place { dir: parent, name }, b"tree", &mut sink).unwrap();
        (bytes, done)
    }

    #[test]
    fn a_tree_survives_packing_and_unpacking() {
        let scratch = Scratch::new();
        let source = scratch.0.join("source");
        let long = "long-".repeat(40);
        fs::create_dir_all(source.join(&long).join("sub")).unwrap();
        fs::write(source.join("empty"), "").unwrap();
        fs::write(source.join(&long).join("sub/file"), vec![9u8; 100_000]).unwrap();
        fs::hard_link(source.join("empty"), source.join("same")).unwrap();
        symlink(format!("../{long}"), source.join("link")).unwrap();
        let (bytes, done) = pack_all(&source);
        assert_eq!((done.entries, done.bytes), (7, 100_000));
        let target = Scratch::new();
        extract(&bytes[..], &target.root(Outside::Refuse), ExtractOptions::default()).unwrap();
        let (again, _) = pack_all(&target.0.join("tree"));
        assert!(bytes == again, "packing the unpacked tree gives the same bytes");
    }

    #[test]
    fn the_name_of_a_tree_is_the_last_component() {
        for (path, name) in [("/a/b/", "b"), ("/", "."), ("x", "x"), ("/a/.", "a"), ("/a/..", ".")] {
            assert_eq!(tree_name(path.as_bytes()), name.as_bytes(), "{path}");
        }
    }
}
