//! Path resolution below a directory, done by hand.
//!
//! `openat2(RESOLVE_BENEATH)` would do it in the kernel, but gVisor lacks it
//! and older container seccomp profiles forbid it. So every component is
//! opened with O_NOFOLLOW relative to a descriptor, and links are read and
//! walked here: a link swapped in under us changes what we see, never where
//! we may go.

use crate::sys;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const PATH_BYTES_MAX: usize = 4096;
/// As the kernel's own limit.
const LINKS_MAX: usize = 40;

#[derive(Debug)]
pub enum PathError {
    /// The path leads out of its root.
    Escape,
    Io(io::Error),
}

impl From<io::Error> for PathError {
    fn from(err: io::Error) -> PathError {
        PathError::Io(err)
    }
}

fn failed<T>(errno: i32) -> Result<T, PathError> {
    Err(PathError::Io(sys::os_error(errno)))
}

/// What `..` at the top and absolute links mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// They stay at the top, as after `chroot`.
    Clamp,
    /// They are refused.
    Refuse,
}

pub struct Root {
    fd: OwnedFd,
    outside: Outside,
}

/// A directory and a name in it. The name is not followed further.
pub struct Place {
    pub dir: OwnedFd,
    pub name: CString,
}

impl Place {
    pub fn dir_fd(&self) -> RawFd {
        self.dir.as_raw_fd()
    }

    pub fn open(&self, flags: i32, mode: u32) -> io::Result<OwnedFd> {
        sys::open_at(self.dir_fd(), &self.name, flags | sys::O_NOFOLLOW, mode)
    }

    /// Of the entry itself, also when it is a link.
    pub fn metadata(&self) -> io::Result<Metadata> {
        File::from(self.open(sys::O_PATH, 0)?).metadata()
    }

    /// Whether it stands for a directory as such (the root, or `x/..`).
    pub fn is_self(&self) -> bool {
        self.name.as_bytes() == b"."
    }
}

/// How to walk.
#[derive(Clone, Copy)]
pub struct Walk {
    /// Follow a link in the last component too.
    pub follow_last: bool,
    /// Make missing directories with this mode.
    pub create: Option<u32>,
}

const STRICT: Walk = Walk { follow_last: false, create: None };

impl Root {
    /// Everything the process itself sees.
    pub fn whole() -> io::Result<Root> {
        let flags = sys::O_PATH | sys::O_DIRECTORY;
        Ok(Root { fd: sys::open_at(sys::AT_FDCWD, c"/", flags, 0)?, outside: Outside::Clamp })
    }

    pub fn below(fd: OwnedFd, outside: Outside) -> Root {
        Root { fd, outside }
    }

    /// Finds where a path leads.
    pub fn find(&self, path: &[u8], walk: Walk) -> Result<Place, PathError> {
        if path.len() > PATH_BYTES_MAX {
            return failed(sys::ENAMETOOLONG);
        }
        let mut left: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut here = sys::dup_above(self.fd.as_raw_fd(), 3)?;
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == b".." {
                match above.pop() {
                    Some(up) => here = up,
                    None if self.outside == Outside::Clamp => {}
                    None => return Err(PathError::Escape),
                }
                continue;
            }
            let is_last = left.is_empty();
            let name = CString::new(part).map_err(|_| sys::os_error(sys::EINVAL))?;
            if is_last && !walk.follow_last {
                return Ok(Place { dir: here, name });
            }
            if let Some(target) = link_target(here.as_raw_fd(), &name)? {
                links += 1;
                if links > LINKS_MAX {
                    return failed(sys::ELOOP);
                }
                if target.first() == Some(&b'/') {
                    if self.outside == Outside::Refuse {
                        return Err(PathError::Escape);
                    }
                    above.clear();
                    here = sys::dup_above(self.fd.as_raw_fd(), 3)?;
                }
                for piece in components(&target).rev() {
                    left.push_front(piece.to_vec());
                }
                if left.len() > PATH_BYTES_MAX {
                    return failed(sys::ENAMETOOLONG);
                }
                continue;
            }
            if is_last {
                return Ok(Place { dir: here, name });
            }
            let next = enter(here.as_raw_fd(), &name, walk.create)?;
            above.push(std::mem::replace(&mut here, next));
        }
        Ok(Place { dir: here, name: c".".to_owned() })
    }

    pub fn find_strict(&self, path: &[u8]) -> Result<Place, PathError> {
        self.find(path, STRICT)
    }

    /// Opens a directory, following links.
    pub fn directory(&self, path: &[u8], create: Option<u32>) -> Result<OwnedFd, PathError> {
        let place = self.find(path, Walk { follow_last: true, create })?;
        if place.is_self() {
            return Ok(place.dir);
        }
        Ok(enter(place.dir_fd(), &place.name, create)?)
    }
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// None when the entry is not a link, or does not exist.
fn link_target(dir: RawFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    match sys::readlink_at(dir, name) {
        Ok(target) => Ok(Some(target)),
        Err(err) if matches!(sys::errno_of(&err), sys::EINVAL | sys::ENOENT) => Ok(None),
        Err(err) => Err(err),
    }
}

fn enter(dir: RawFd, name: &CStr, create: Option<u32>) -> io::Result<OwnedFd> {
    let flags = sys::O_PATH | sys::O_DIRECTORY | sys::O_NOFOLLOW;
    match (sys::open_at(dir, name, flags, 0), create) {
        (Err(err), Some(mode)) if sys::errno_of(&err) == sys::ENOENT => {
            match sys::mkdir_at(dir, name, mode) {
                Err(err) if sys::errno_of(&err) != sys::EEXIST => return Err(err),
                _ => {}
            }
            sys::open_at(dir, name, flags, 0)
        }
        (result, _) => result,
    }
}

/// The names in a directory, without `.` and `..`, sorted for a stable order.
pub fn list_names(dir: RawFd) -> io::Result<Vec<CString>> {
    let fd = sys::open_at(dir, c".", sys::O_RDONLY | sys::O_DIRECTORY, 0)?;
    let mut buf = vec![0u8; 32 * 1024];
    let mut names = Vec::new();
    loop {
        let n = sys::getdents(fd.as_raw_fd(), &mut buf)?;
        if n == 0 {
            break;
        }
        let mut at = 0;
        // struct linux_dirent64: ino u64, off i64, reclen u16, type u8, name.
        while at + 19 < n {
            let record = u16::from_ne_bytes([buf[at + 16], buf[at + 17]]) as usize;
            let Some(name) = buf.get(at + 19..(at + record).min(n)) else { break };
            if let Ok(name) = CStr::from_bytes_until_nul(name) {
                if name != c"." && name != c".." {
                    names.push(name.to_owned());
                }
            }
            at += record.max(20);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory that is removed with the test.
    pub struct Scratch(pub PathBuf);

    impl Scratch {
        pub fn new() -> Scratch {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("faas-agent-unit-{}-{n}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }

        pub fn root(&self, outside: Outside) -> Root {
            Root::below(OwnedFd::from(File::open(&self.0).unwrap()), outside)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn touch(dir: &Path, name: &str) {
        fs::write(dir.join(name), name).unwrap();
    }

    fn read(root: &Root, path: &str) -> Result<String, PathError> {
        let place = root.find(path.as_bytes(), Walk { follow_last: true, create: None })?;
        let file = File::from(place.open(sys::O_RDONLY, 0)?);
        Ok(io::read_to_string(file)?)
    }

    fn scene() -> (Scratch, PathBuf) {
        let scratch = Scratch::new();
        let top = scratch.0.join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        touch(&scratch.0, "secret");
        touch(&top, "plain");
        touch(&top.join("a/b"), "deep");
        symlink("a/b", top.join("inside")).unwrap();
        symlink("../secret", top.join("out")).unwrap();
        symlink("/plain", top.join("absolute")).unwrap();
        symlink("..", top.join("up")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        symlink("../../plain", top.join("a/b/back")).unwrap();
        (scratch, top)
    }

    #[test]
    fn links_inside_are_followed() {
        let (_scratch, top) = scene();
        for outside in [Outside::Clamp, Outside::Refuse] {
            let root = Root::below(OwnedFd::from(File::open(&top).unwrap()), outside);
            assert_eq!(read(&root, "inside/deep").unwrap(), "deep");
            assert_eq!(read(&root, "a/b/back").unwrap(), "plain");
            assert_eq!(read(&root, "/a/./b/../b//deep").unwrap(), "deep");
            assert!(matches!(read(&root, "loop"), Err(PathError::Io(e)) if sys::errno_of(&e) == sys::ELOOP));
            assert!(matches!(read(&root, "plain/x"), Err(PathError::Io(e)) if sys::errno_of(&e) == sys::ENOTDIR));
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused_or_clamped() {
        let (_scratch, top) = scene();
        let strict = Root::below(OwnedFd::from(File::open(&top).unwrap()), Outside::Refuse);
        for path in ["out", "absolute", "up/secret", "../secret", "a/../../secret", "inside/../../../secret"] {
            assert!(matches!(read(&strict, path), Err(PathError::Escape)), "{path}");
        }
        let clamped = Root::below(OwnedFd::from(File::open(&top).unwrap()), Outside::Clamp);
        assert_eq!(read(&clamped, "absolute").unwrap(), "plain");
        assert_eq!(read(&clamped, "../../plain").unwrap(), "plain");
        for path in ["out", "up/secret", "../secret"] {
            assert!(matches!(read(&clamped, path), Err(PathError::Io(e)) if sys::errno_of(&e) == sys::ENOENT), "{path}");
        }
    }

    #[test]
    fn missing_directories_are_made_only_when_asked() {
        let scratch = Scratch::new();
        let root = scratch.root(Outside::Refuse);
        assert!(root.directory(b"x/y", None).is_err());
        root.directory(b"x/y", Some(0o755)).unwrap();
        assert!(scratch.0.join("x/y").is_dir());
    }

    #[test]
    fn names_are_listed_sorted() {
        let scratch = Scratch::new();
        for i in 0..2000 {
            touch(&scratch.0, &format!("{i:05}-{}", "n".repeat(i % 100)));
        }
        let dir = File::open(&scratch.0).unwrap();
        let names = list_names(dir.as_raw_fd()).unwrap();
        assert_eq!(names.len(), 2000);
        assert!(names.is_sorted());
    }
}
