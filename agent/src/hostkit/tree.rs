//! Trees of files on the host whose names and shapes a guest has chosen.
//!
//! I1. Every step goes from an open directory to one name in it, without following links.
//! I2. A walk never leaves the device it began on: a mount inside of a tree is an error, not a way out.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::sys;

const DIR_FLAGS: i32 = sys::O_RDONLY | sys::O_DIRECTORY | sys::O_NOFOLLOW | sys::O_NONBLOCK;
/// Descriptors held at once: a deeper tree is flattened on the way, see `rmtree`.
const DEPTH_MAX: usize = 128;
const S_IFMT: u32 = 0o170000;
const S_IFDIR: u32 = 0o040000;

pub fn cstring(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "text holds a NUL byte"))
}

/// The parent directory, opened, and the last name.
fn split(path: &[u8]) -> io::Result<(OwnedFd, CString)> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "path must be absolute and name something");
    if !path.is_absolute() {
        return Err(invalid());
    }
    let name = cstring(path.file_name().ok_or_else(invalid)?.as_bytes())?;
    let parent = cstring(path.parent().ok_or_else(invalid)?.as_os_str().as_bytes())?;
    Ok((sys::open_at(sys::AT_FDCWD, &parent, sys::O_PATH | sys::O_DIRECTORY, 0)?, name))
}

/// Makes one directory; an existing directory is fine.
pub fn mkdir(path: &[u8], mode: u32) -> io::Result<()> {
    let (parent, name) = split(path)?;
    match sys::mkdir_at(parent.as_raw_fd(), &name, mode) {
        Err(err) if err.raw_os_error() == Some(sys::EEXIST) => {
            sys::open_at(parent.as_raw_fd(), &name, sys::O_PATH | sys::O_DIRECTORY | sys::O_NOFOLLOW, 0).map(drop)
        }
        other => other,
    }
}

/// Removes a directory that nothing uses; one that is used, or not there, is fine.
pub fn rmdir_if_empty(path: &[u8]) -> io::Result<()> {
    match std::fs::remove_dir(std::ffi::OsStr::from_bytes(path)) {
        Err(err) if matches!(err.raw_os_error(), Some(sys::ENOENT | sys::EBUSY | sys::ENOTEMPTY)) => Ok(()),
        other => other,
    }
}

/// Writes a whole file; never through a link in the last place.
pub fn write_file(path: &[u8], mode: u32, data: &[u8]) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_TRUNC | sys::O_NOFOLLOW;
    let fd = sys::open_at(parent.as_raw_fd(), &name, flags, mode)?;
    sys::write_all(fd.as_raw_fd(), data)
}

/// Moves an entry; fails when the new name is a directory with something in it.
pub fn rename(from: &[u8], to: &[u8]) -> io::Result<()> {
    let (old_dir, old) = split(from)?;
    let (new_dir, new) = split(to)?;
    rename_at(old_dir.as_raw_fd(), &old, new_dir.as_raw_fd(), &new)
}

fn rename_at(old_dir: RawFd, old: &CStr, new_dir: RawFd, new: &CStr) -> io::Result<()> {
    extern "C" {
        fn renameat(od: i32, op: *const std::ffi::c_char, nd: i32, np: *const std::ffi::c_char) -> i32;
    }
    sys::check(unsafe { renameat(old_dir, old.as_ptr(), new_dir, new.as_ptr()) }).map(drop)
}

/// Writes a value to an existing control file.
pub fn write_control(path: &[u8], value: &[u8]) -> io::Result<()> {
    let fd = sys::open_at(sys::AT_FDCWD, &cstring(path)?, sys::O_WRONLY, 0)?;
    sys::write_once(fd.as_raw_fd(), value)
}

fn each_name(dir: RawFd, mut visit: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    let mut buf = vec![0u8; 32 * 1024];
    loop {
        let len = sys::getdents(dir, &mut buf)?;
        if len == 0 {
            return Ok(());
        }
        let mut at = 0;
        while at < len {
            let size = u16::from_ne_bytes([buf[at + 16], buf[at + 17]]) as usize;
            let name = CStr::from_bytes_until_nul(&buf[at + 19..at + size])
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "directory record without an end"))?;
            if name != c"." && name != c".." {
                visit(name)?;
            }
            at += size;
        }
    }
}

fn names(dir: RawFd) -> io::Result<Vec<CString>> {
    let mut all = Vec::new();
    each_name(dir, |name| {
        all.push(name.to_owned());
        Ok(())
    })?;
    Ok(all)
}

/// Removes a tree and everything in it. A path that does not exist is fine.
pub fn rmtree(path: &[u8]) -> io::Result<()> {
    let (parent, name) = match split(path) {
        Err(err) if err.raw_os_error() == Some(sys::ENOENT) => return Ok(()),
        other => other?,
    };
    let stat = match sys::stat_at(parent.as_raw_fd(), &name) {
        Err(err) if err.raw_os_error() == Some(sys::ENOENT) => return Ok(()),
        other => other?,
    };
    // I2: the device of the root itself, so that a tree may be a mount of its own, with nothing mounted below.
    let mut remover = Remover { dev: stat.dev, top: parent.as_raw_fd(), spill: 0 };
    remover.entry(parent.as_raw_fd(), &name, 0)
}

struct Remover {
    dev: u64,
    /// Where directories that are too deep are moved to, to be removed from there.
    top: RawFd,
    spill: u32,
}

impl Remover {
    fn entry(&mut self, dir: RawFd, name: &CStr, depth: usize) -> io::Result<()> {
        match sys::unlink_at(dir, name, 0) {
            Ok(()) => return Ok(()),
            Err(err) => match err.raw_os_error() {
                Some(sys::ENOENT) => return Ok(()),
                Some(21 /* EISDIR */) | Some(1 /* EPERM, POSIX for a directory */) => {}
                _ => return Err(err),
            },
        }
        match sys::unlink_at(dir, name, sys::AT_REMOVEDIR) {
            Ok(()) => return Ok(()),
            Err(err) => match err.raw_os_error() {
                Some(sys::ENOENT) => return Ok(()),
                Some(sys::ENOTEMPTY) | Some(sys::EEXIST) => {}
                _ => return Err(err),
            },
        }
        if depth >= DEPTH_MAX {
            return self.spill(dir, name);
        }
        let fd = sys::open_at(dir, name, DIR_FLAGS, 0)?;
        if sys::stat_at(fd.as_raw_fd(), c"")?.dev != self.dev {
            return Err(io::Error::from_raw_os_error(sys::EXDEV));
        }
        for child in names(fd.as_raw_fd())? {
            self.entry(fd.as_raw_fd(), &child, depth + 1)?;
        }
        match sys::unlink_at(dir, name, sys::AT_REMOVEDIR) {
            Err(err) if err.raw_os_error() == Some(sys::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// A guest can nest directories without bound; each level of recursion holds a descriptor, so a
    /// deep one is moved beside the tree first and removed from there.
    fn spill(&mut self, dir: RawFd, name: &CStr) -> io::Result<()> {
        self.spill += 1;
        let stat = sys::stat_at(dir, name)?;
        let moved = cstring(format!(".faas-spill-{:x}-{}", stat.ino, self.spill).as_bytes())?;
        rename_at(dir, name, self.top, &moved)?;
        self.entry(self.top, &moved, 0)
    }
}

pub struct Usage {
    pub bytes: u64,
    pub entries: u64,
    /// False when `entries_max` ended the walk early.
    pub complete: bool,
}

/// Bytes allocated to a tree, up to `entries_max` entries and `bytes_max` bytes.
pub fn usage(path: &[u8], entries_max: u64, bytes_max: u64) -> io::Result<Usage> {
    let root = sys::open_at(sys::AT_FDCWD, &cstring(path)?, DIR_FLAGS, 0)?;
    let dev = sys::stat_at(root.as_raw_fd(), c"")?.dev;
    let mut total = Usage { bytes: 0, entries: 0, complete: true };
    let mut seen = std::collections::HashSet::new();
    // Breadth first over (open parent, name) would hold many descriptors; depth first holds one a level.
    let mut stack: Vec<(OwnedFd, Vec<CString>)> = Vec::new();
    let first = names(root.as_raw_fd())?;
    stack.push((root, first));
    while let Some((dir, pending)) = stack.last_mut() {
        let Some(name) = pending.pop() else {
            stack.pop();
            continue;
        };
        if total.entries >= entries_max || total.bytes > bytes_max {
            total.complete = false;
            break;
        }
        let stat = match sys::stat_at(dir.as_raw_fd(), &name) {
            // The guest goes on working while we count.
            Err(err) if err.raw_os_error() == Some(sys::ENOENT) => continue,
            other => other?,
        };
        total.entries += 1;
        let linked_often = stat.nlink > 1 && stat.mode & S_IFMT != S_IFDIR;
        if !linked_often || seen.insert(stat.ino) {
            total.bytes += stat.blocks * 512;
        }
        if stat.mode & S_IFMT == S_IFDIR && stat.dev == dev && stack.len() < DEPTH_MAX {
            let Some((dir, _)) = stack.last() else { break };
            match sys::open_at(dir.as_raw_fd(), &name, DIR_FLAGS, 0) {
                Ok(fd) => {
                    let inside = names(fd.as_raw_fd())?;
                    stack.push((fd, inside));
                }
                Err(err) if matches!(err.raw_os_error(), Some(sys::ENOENT | sys::ENOTDIR | sys::ELOOP)) => {}
                Err(err) => return Err(err),
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("faas-hostkit-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn removing_a_tree_never_follows_a_link_out_of_it() {
        let dir = scratch("links");
        let outside = dir.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), "x").unwrap();
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&outside, tree.join("a/b/out")).unwrap();
        rmtree(tree.as_os_str().as_bytes()).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("keep").exists());
        rmtree(tree.as_os_str().as_bytes()).unwrap();
        rmtree(dir.as_os_str().as_bytes()).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_tree_deeper_than_the_path_limit_is_removed() {
        let dir = scratch("deep");
        let mut fd = sys::open_at(sys::AT_FDCWD, &cstring(dir.as_os_str().as_bytes()).unwrap(), DIR_FLAGS, 0).unwrap();
        for _ in 0..1500 {
            sys::mkdir_at(fd.as_raw_fd(), c"deeper", 0o755).unwrap();
            fd = sys::open_at(fd.as_raw_fd(), c"deeper", DIR_FLAGS, 0).unwrap();
        }
        drop(fd);
        assert!(usage(dir.as_os_str().as_bytes(), 10_000, u64::MAX).is_ok());
        rmtree(dir.as_os_str().as_bytes()).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn usage_counts_what_is_allocated_and_stops_at_its_bounds() {
        let dir = scratch("usage");
        fs::write(dir.join("a"), vec![1u8; 100_000]).unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("d/b"), vec![1u8; 100_000]).unwrap();
        let all = usage(dir.as_os_str().as_bytes(), 100, u64::MAX).unwrap();
        assert!(all.complete && all.entries == 3 && all.bytes >= 200_000, "{} {}", all.entries, all.bytes);
        assert!(!usage(dir.as_os_str().as_bytes(), 1, u64::MAX).unwrap().complete);
        rmtree(dir.as_os_str().as_bytes()).unwrap();
    }
}
