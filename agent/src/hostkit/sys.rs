//! Kernel calls of the host side that `std` does not offer. Layouts are those of 64-bit Linux.

use std::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void, CStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub const EINTR: i32 = 4;
pub const ENOENT: i32 = 2;
pub const ESRCH: i32 = 3;
pub const EBUSY: i32 = 16;
pub const EEXIST: i32 = 17;
pub const EXDEV: i32 = 18;
pub const ENOTDIR: i32 = 20;
pub const ENOTEMPTY: i32 = 39;
pub const ELOOP: i32 = 40;
pub const ETIMEDOUT: i32 = 110;

pub const O_RDONLY: c_int = 0;
pub const O_WRONLY: c_int = 1;
pub const O_CREAT: c_int = 0o100;
pub const O_TRUNC: c_int = 0o1000;
pub const O_NONBLOCK: c_int = 0o4000;
pub const O_CLOEXEC: c_int = 0o2000000;
pub const O_PATH: c_int = 0o10000000;
#[cfg(target_arch = "x86_64")]
pub const O_DIRECTORY: c_int = 0o200000;
#[cfg(target_arch = "x86_64")]
pub const O_NOFOLLOW: c_int = 0o400000;
#[cfg(target_arch = "aarch64")]
pub const O_DIRECTORY: c_int = 0o40000;
#[cfg(target_arch = "aarch64")]
pub const O_NOFOLLOW: c_int = 0o100000;

pub const AT_FDCWD: c_int = -100;
pub const AT_REMOVEDIR: c_int = 0x200;
pub const AT_SYMLINK_NOFOLLOW: c_int = 0x100;
pub const AT_EMPTY_PATH: c_int = 0x1000;

pub const SIGKILL: c_int = 9;
pub const SIGPIPE: c_int = 13;

/// SIGHUP, SIGINT, SIGTERM.
const STOP_SIGNALS: [c_int; 3] = [1, 2, 15];

pub fn ignore_stop_signals() {
    for signal in STOP_SIGNALS {
        // SAFETY: no handler is installed, so nothing of ours runs in signal context.
        unsafe { c::signal(signal, 1 /* SIG_IGN */) };
    }
}

/// # Safety
/// For a forked child before it executes: an ignored signal would stay ignored in its program.
pub unsafe fn default_stop_signals() {
    for signal in STOP_SIGNALS {
        c::signal(signal, 0 /* SIG_DFL */);
    }
}
pub const SIGCHLD: c_int = 17;

pub const CLONE_NEWNS: c_int = 0x0002_0000;
pub const CLONE_NEWUSER: c_int = 0x1000_0000;
pub const CLONE_NEWNET: c_int = 0x4000_0000;

pub const MS_NODEV: c_ulong = 4;
pub const MS_REC: c_ulong = 0x4000;
pub const MS_PRIVATE: c_ulong = 0x4_0000;
pub const MNT_DETACH: c_int = 2;

// The same on every architecture.
const NR_OPEN_TREE: c_long = 428;
const NR_MOVE_MOUNT: c_long = 429;
const NR_PIDFD_OPEN: c_long = 434;
const NR_CLOSE_RANGE: c_long = 436;
const NR_MOUNT_SETATTR: c_long = 442;
const NR_PIDFD_SEND_SIGNAL: c_long = 424;
#[cfg(target_arch = "x86_64")]
mod nr {
    pub const GETDENTS64: i64 = 217;
    pub const SETFSUID: i64 = 122;
    pub const SETFSGID: i64 = 123;
    pub const CAPGET: i64 = 125;
    pub const CAPSET: i64 = 126;
}
#[cfg(target_arch = "aarch64")]
mod nr {
    pub const GETDENTS64: i64 = 61;
    pub const SETFSUID: i64 = 151;
    pub const SETFSGID: i64 = 152;
    pub const CAPGET: i64 = 90;
    pub const CAPSET: i64 = 91;
}

const OPEN_TREE_CLONE: c_uint = 1;
const OPEN_TREE_CLOEXEC: c_uint = O_CLOEXEC as c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

#[repr(C)]
pub struct PollFd {
    pub fd: c_int,
    pub events: i16,
    pub revents: i16,
}
pub const POLLIN: i16 = 1;

pub type SigSet = [u64; 16];

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// The part of `struct stat` that callers need, whatever the architecture's layout.
#[derive(Clone, Copy, Default)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u64,
    pub blocks: u64,
}

pub mod c {
    use super::*;
    extern "C" {
        pub fn fork() -> i32;
        pub fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
        pub fn _exit(code: c_int) -> !;
        pub fn setsid() -> i32;
        pub fn chdir(path: *const c_char) -> c_int;
        pub fn dup2(old: c_int, new: c_int) -> c_int;
        pub fn open(path: *const c_char, flags: c_int, ...) -> c_int;
        pub fn openat(dir: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
        pub fn close(fd: c_int) -> c_int;
        pub fn read(fd: c_int, buf: *mut c_void, len: usize) -> isize;
        pub fn write(fd: c_int, buf: *const c_void, len: usize) -> isize;
        pub fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
        pub fn mkdirat(dir: c_int, path: *const c_char, mode: c_uint) -> c_int;
        pub fn unshare(flags: c_int) -> c_int;
        pub fn setns(fd: c_int, kind: c_int) -> c_int;
        pub fn mount(
            source: *const c_char,
            target: *const c_char,
            kind: *const c_char,
            flags: c_ulong,
            data: *const c_void,
        ) -> c_int;
        pub fn umount2(target: *const c_char, flags: c_int) -> c_int;
        pub fn prctl(op: c_int, ...) -> c_int;
        pub fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
        pub fn poll(fds: *mut PollFd, n: c_ulong, timeout_ms: c_int) -> c_int;
        pub fn waitpid(pid: i32, status: *mut c_int, options: c_int) -> i32;
        pub fn signalfd(fd: c_int, mask: *const SigSet, flags: c_int) -> c_int;
        pub fn sigprocmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
        pub fn signal(sig: c_int, handler: usize) -> usize;
        pub fn kill(pid: i32, sig: c_int) -> c_int;
        pub fn syscall(nr: c_long, ...) -> c_long;
        pub fn __errno_location() -> *mut c_int;
    }

    pub fn errno() -> i32 {
        // SAFETY: glibc returns this thread's errno, always valid.
        unsafe { *__errno_location() }
    }
}

pub fn check(n: c_int) -> io::Result<c_int> {
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n)
    }
}

fn own(n: c_long) -> io::Result<OwnedFd> {
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a non-negative result is a descriptor nobody else holds.
    Ok(unsafe { OwnedFd::from_raw_fd(n as RawFd) })
}

pub fn errno_of(err: &io::Error) -> i32 {
    err.raw_os_error().unwrap_or(5)
}

pub fn open_at(dir: RawFd, path: &CStr, flags: c_int, mode: c_uint) -> io::Result<OwnedFd> {
    loop {
        // SAFETY: the path is a valid C string.
        match own(unsafe { c::openat(dir, path.as_ptr(), flags | O_CLOEXEC, mode) } as c_long) {
            Err(err) if err.raw_os_error() == Some(EINTR) => continue,
            other => return other,
        }
    }
}

pub fn unlink_at(dir: RawFd, path: &CStr, flags: c_int) -> io::Result<()> {
    check(unsafe { c::unlinkat(dir, path.as_ptr(), flags) }).map(drop)
}

pub fn mkdir_at(dir: RawFd, path: &CStr, mode: u32) -> io::Result<()> {
    check(unsafe { c::mkdirat(dir, path.as_ptr(), mode as c_uint) }).map(drop)
}

/// `stat` of an entry itself, never of a link's target. An empty path means `dir` itself.
pub fn stat_at(dir: RawFd, path: &CStr) -> io::Result<Stat> {
    // statx has one layout on every architecture, unlike `struct stat`.
    extern "C" {
        fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, buf: *mut c_void) -> c_int;
    }
    #[repr(C, align(8))]
    struct Statx([u8; 256]);
    let mut raw = Statx([0; 256]);
    let flags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
    check(unsafe { statx(dir, path.as_ptr(), flags, 0x7ff, raw.0.as_mut_ptr().cast()) })?;
    let u32_at = |at: usize| u32::from_ne_bytes(raw.0[at..at + 4].try_into().unwrap_or_default());
    let u64_at = |at: usize| u64::from_ne_bytes(raw.0[at..at + 8].try_into().unwrap_or_default());
    Ok(Stat {
        nlink: u32_at(16).into(),
        mode: u16::from_ne_bytes([raw.0[28], raw.0[29]]).into(),
        ino: u64_at(32),
        blocks: u64_at(48),
        dev: u64::from(u32_at(136)) << 32 | u64::from(u32_at(140)),
    })
}

/// Raw directory records; an empty result is the end.
pub fn getdents(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    let n = unsafe { c::syscall(nr::GETDENTS64 as c_long, fd as c_long, buf.as_mut_ptr(), buf.len()) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

/// (read end, write end), both close-on-exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    check(unsafe { c::pipe2(fds.as_mut_ptr(), O_CLOEXEC) })?;
    // SAFETY: the kernel just made both for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

pub fn read(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        let n = unsafe { c::read(fd, buf.as_mut_ptr().cast(), buf.len()) };
        if n >= 0 {
            return Ok(n as usize);
        }
        if c::errno() != EINTR {
            return Err(io::Error::last_os_error());
        }
    }
}

pub fn write_all(fd: RawFd, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let n = unsafe { c::write(fd, data.as_ptr().cast(), data.len()) };
        if n < 0 {
            if c::errno() == EINTR {
                continue;
            }
            return Err(io::Error::last_os_error());
        }
        data = &data[n as usize..];
    }
    Ok(())
}

/// One write call: the kernel takes a value for a control file whole or refuses it.
pub fn write_once(fd: RawFd, data: &[u8]) -> io::Result<()> {
    let n = unsafe { c::write(fd, data.as_ptr().cast(), data.len()) };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Waits until one descriptor is ready. Returns false when the time is over.
pub fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<bool> {
    let n = unsafe { c::poll(fds.as_mut_ptr(), fds.len() as c_ulong, timeout_ms) };
    if n < 0 {
        if c::errno() == EINTR {
            return Ok(true);
        }
        return Err(io::Error::last_os_error());
    }
    Ok(n > 0)
}

pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    own(unsafe { c::syscall(NR_PIDFD_OPEN, pid as c_long, 0 as c_long) })
}

pub fn pidfd_kill(fd: &OwnedFd, signal: c_int) -> io::Result<()> {
    let n = unsafe {
        c::syscall(NR_PIDFD_SEND_SIGNAL, fd.as_raw_fd() as c_long, signal as c_long, 0 as c_long, 0 as c_long)
    };
    check(n as c_int).map(drop)
}

pub fn umount(path: &CStr, flags: c_int) -> io::Result<()> {
    check(unsafe { c::umount2(path.as_ptr(), flags) }).map(drop)
}

/// Marks every descriptor from 3 on close-on-exec. Safe after fork.
pub unsafe fn cloexec_from_3() {
    c::syscall(NR_CLOSE_RANGE, 3 as c_long, u32::MAX as c_long, 4 as c_long);
}

/// A private clone of the mount at `path`, not attached anywhere. Safe after fork.
pub unsafe fn open_tree_clone(path: *const c_char) -> c_long {
    c::syscall(NR_OPEN_TREE, AT_FDCWD as c_long, path, (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) as c_long)
}

/// Maps the ids of a not yet attached mount through a user namespace. Safe after fork.
pub unsafe fn idmap_mount(tree: c_int, userns: c_int) -> c_long {
    let attr = MountAttr { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns_fd: userns as u64 };
    c::syscall(
        NR_MOUNT_SETATTR,
        tree as c_long,
        c"".as_ptr(),
        AT_EMPTY_PATH as c_long,
        &attr as *const MountAttr,
        std::mem::size_of::<MountAttr>(),
    )
}

/// Attaches a mount made by `open_tree_clone`. Safe after fork.
pub unsafe fn attach_mount(tree: c_int, target: *const c_char) -> c_long {
    c::syscall(
        NR_MOVE_MOUNT,
        tree as c_long,
        c"".as_ptr(),
        AT_FDCWD as c_long,
        target,
        MOVE_MOUNT_F_EMPTY_PATH as c_long,
    )
}

/// Touches files as `id` from now on, with all capabilities kept. Safe after fork.
pub unsafe fn set_fs_ids(id: u32) -> bool {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut sets = [0u32; 6];
    if c::syscall(nr::CAPGET as c_long, header.as_ptr(), sets.as_mut_ptr()) != 0 {
        return false;
    }
    c::syscall(nr::SETFSGID as c_long, id as c_long);
    c::syscall(nr::SETFSUID as c_long, id as c_long);
    // The kernel took the file capabilities away with the id.
    c::syscall(nr::CAPSET as c_long, header.as_ptr(), sets.as_ptr()) == 0
}
