//! Kernel calls that unpacking and packing need and neither `std` nor `sys` offers.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void, CStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::sys;

pub const S_IFMT: u32 = 0o170_000;
pub const S_IFIFO: u32 = 0o010_000;
pub const S_IFCHR: u32 = 0o020_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFREG: u32 = 0o100_000;
pub const S_IFLNK: u32 = 0o120_000;

pub const ENODATA: i32 = 61;
pub const ENOSPC: i32 = 28;
pub const EFBIG: i32 = 27;
pub const ERANGE: i32 = 34;
pub const EDQUOT: i32 = 122;

const NR_OPENAT2: c_long = 437;
const RESOLVE_NO_XDEV: u64 = 0x01;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_IN_ROOT: u64 = 0x10;

extern "C" {
    fn syscall(nr: c_long, ...) -> c_long;
    fn fchdir(fd: c_int) -> c_int;
    fn getcwd(buf: *mut c_char, len: usize) -> *mut c_char;
    fn umask(mask: c_uint) -> c_uint;
    fn fsetxattr(fd: c_int, name: *const c_char, value: *const c_void, len: usize, flags: c_int) -> c_int;
    fn fgetxattr(fd: c_int, name: *const c_char, value: *mut c_void, len: usize) -> isize;
    fn flistxattr(fd: c_int, list: *mut c_char, len: usize) -> isize;
    fn geteuid() -> c_uint;
    fn flock(fd: c_int, operation: c_int) -> c_int;
    fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut c_void) -> c_int;
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct StatxTime {
    sec: i64,
    nsec: u32,
    pad: i32,
}

/// `struct statx`: the same on every architecture, unlike `struct stat`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad1: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: StatxTime,
    btime: StatxTime,
    ctime: StatxTime,
    mtime: StatxTime,
    rdev_major: u32,
    rdev_minor: u32,
    dev_major: u32,
    dev_minor: u32,
    rest: [u64; 14],
}

#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub size: u64,
    pub ino: u64,
    pub dev: (u32, u32),
    pub rdev: (u32, u32),
    pub mtime_sec: i64,
}

impl Stat {
    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }

    /// How overlayfs writes "this name is deleted".
    pub fn is_whiteout(&self) -> bool {
        self.kind() == S_IFCHR && self.rdev == (0, 0)
    }

    pub fn same_file(&self, other: &Stat) -> bool {
        self.ino == other.ino && self.dev == other.dev
    }
}

fn check(n: c_int) -> io::Result<()> {
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Opens `path` below `root`: `..` and absolute links stop at `root`, magic links and mount points are refused.
pub fn open_in_root(root: RawFd, path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    let how = OpenHow {
        flags: (flags | sys::O_CLOEXEC) as u64,
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    loop {
        // SAFETY: `how` and `path` live through the call; the size is the struct's.
        let fd = unsafe { syscall(NR_OPENAT2, root, path.as_ptr(), &how, std::mem::size_of::<OpenHow>()) };
        if fd >= 0 {
            // SAFETY: a non-negative result is a descriptor nobody else holds.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
        }
        let err = io::Error::last_os_error();
        // EAGAIN: a rename elsewhere in the tree raced with the walk.
        if !sys::would_block(&err) {
            return Err(err);
        }
    }
}

/// Of the entry itself; a symlink is not followed.
pub fn stat_at(dir: RawFd, path: &CStr) -> io::Result<Stat> {
    let mut raw = Statx::default();
    let flags = sys::AT_SYMLINK_NOFOLLOW | sys::AT_EMPTY_PATH;
    // SAFETY: `raw` is as large as the kernel's struct.
    check(unsafe { statx(dir, path.as_ptr(), flags, 0x7ff, (&mut raw as *mut Statx).cast()) })?;
    Ok(Stat {
        mode: u32::from(raw.mode),
        uid: raw.uid,
        gid: raw.gid,
        nlink: raw.nlink,
        size: raw.size,
        ino: raw.ino,
        dev: (raw.dev_major, raw.dev_minor),
        rdev: (raw.rdev_major, raw.rdev_minor),
        mtime_sec: raw.mtime.sec,
    })
}

pub fn change_dir(fd: RawFd) -> io::Result<()> {
    check(unsafe { fchdir(fd) })
}

/// The working directory's path as seen from the (changed) root.
pub fn cwd() -> io::Result<Vec<u8>> {
    let mut buf = [0u8; 8192];
    // SAFETY: the buffer's true length is passed.
    if unsafe { getcwd(buf.as_mut_ptr().cast(), buf.len()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    Ok(buf[..buf.iter().position(|&b| b == 0).unwrap_or(buf.len())].to_vec())
}

/// flock(2). False when somebody else holds it and `wait` is not wanted.
pub fn lock_file(file: &impl AsRawFd, exclusive: bool, wait: bool) -> io::Result<bool> {
    const LOCK_SH: c_int = 1;
    const LOCK_EX: c_int = 2;
    const LOCK_NB: c_int = 4;
    let operation = if exclusive { LOCK_EX } else { LOCK_SH } | if wait { 0 } else { LOCK_NB };
    loop {
        match check(unsafe { flock(file.as_raw_fd(), operation) }) {
            Ok(()) => return Ok(true),
            Err(err) if err.raw_os_error() == Some(sys::EINTR) => {}
            Err(err) if err.raw_os_error() == Some(sys::EAGAIN) && !wait => return Ok(false),
            Err(err) => return Err(err),
        }
    }
}

pub fn clear_umask() {
    unsafe { umask(0) };
}

pub fn is_root() -> bool {
    unsafe { geteuid() == 0 }
}

pub fn set_xattr(fd: &impl AsRawFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    check(unsafe { fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

/// None when the attribute is not there.
pub fn get_xattr(fd: &impl AsRawFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; 65_536]; // the kernel's XATTR_SIZE_MAX
    let n = unsafe { fgetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    if n < 0 {
        let err = io::Error::last_os_error();
        return match err.raw_os_error() {
            Some(ENODATA) | Some(sys::EOPNOTSUPP) => Ok(None),
            _ => Err(err),
        };
    }
    value.truncate(n as usize);
    Ok(Some(value))
}

pub fn list_xattrs(fd: &impl AsRawFd) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0u8; 65_536]; // the kernel's XATTR_LIST_MAX
    let n = unsafe { flistxattr(fd.as_raw_fd(), list.as_mut_ptr().cast(), list.len()) };
    if n < 0 {
        let err = io::Error::last_os_error();
        return if err.raw_os_error() == Some(sys::EOPNOTSUPP) { Ok(Vec::new()) } else { Err(err) };
    }
    list.truncate(n as usize);
    let mut names: Vec<Vec<u8>> = list.split(|&b| b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}
